/*
 * devices: the devices of the PC, and the table of their types, from which the command line, its help and the order of creation come.
 * They are destroyed and reset with the bus, or unplugged. Each runs under its own lock.
 */
#ifndef DOPPEL_DEVICES_H
#define DOPPEL_DEVICES_H

#include "backend/backend.h"
#include "bus/bus.h"
#include "devices/fw_cfg.h"

/* ---- types ---- */

enum device_option_kind { DEVICE_NUMBER, DEVICE_SWITCH, DEVICE_TEXT, DEVICE_CHARDEV };
/* What the device's create gets of each. */
#define DEVICE_NUMBER_FIELD  uint64_t
#define DEVICE_SWITCH_FIELD  bool
#define DEVICE_TEXT_FIELD    const char *
#define DEVICE_CHARDEV_FIELD struct chardev *

struct device_option {
	const char *name;
	enum device_option_kind kind;
	uint64_t least, most;	/* of a number */
	const char *by_default; /* as the user would write it; NULL: 0, off, or nothing */
	const char *help;
	size_t offset; /* of the field */
};

/*
 * A type's options are declared once, as a list with columns kind, name, least, most, default, help:
 *
 *	#define UART_OPTIONS(_, T) _(T, NUMBER, port, 1, 4, NULL, "COM1 to COM4") ...
 *	struct uart_options { DEVICE_OPTION_FIELDS(UART_OPTIONS) };
 *	const struct device_type uart_type = { .name = "uart", DEVICE_OPTIONS(UART_OPTIONS, struct uart_options), ... };
 */
#define DEVICE_OPTION_FIELD_(T, kind, name, least, most, by_default, help) DEVICE_##kind##_FIELD name;
#define DEVICE_OPTION_ROW_(T, kind, name, least, most, by_default, help)                                               \
	{ #name, DEVICE_##kind, least, most, by_default, help, offsetof(T, name) },
#define DEVICE_OPTION_FIELDS(list) list(DEVICE_OPTION_FIELD_, )
#define DEVICE_OPTIONS(list, T)                                                                                        \
	.options = (const struct device_option[]){ list(DEVICE_OPTION_ROW_, T){ .name = NULL } },                      \
	.options_size = sizeof(T)

struct device_type {
	const char *name, *help;
	unsigned most;			     /* of them in a machine */
	bool starts;			     /* a firmware may start a system from it */
	bool in_every_pc;		     /* one, with the defaults, unless others are asked for */
	const struct device_option *options; /* ended by a row without a name; NULL: none */
	size_t options_size;
	/* An option of the command line that stands for --device NAME[,OPTION=ARGUMENT]; name NULL: none. */
	struct {
		const char *name;     /* "--serial" */
		const char *option;   /* which its argument is the value of; NULL: none, its argument is options */
		const char *argument; /* what help calls it; NULL: it has none */
		bool options_follow; /* other options may stand behind it, with commas between; else commas are its own */
		const char *help;
	} short_form;
	/*
	 * Makes the device (or several, that are one to the user) and maps its ranges on the bus; options: the fields, NULL when the type has
	 * none; they live as long as the device. When it fails, devices that it has made are destroyed by the caller. 0 or -errno.
	 */
	int (*create)(struct bus *, const void *options, struct error *);
};

/* The PC, in order of creation: of reset and of attach. _(the type's variable, without _type) */
#define DEVICE_TYPES(_)                                                                                                \
	_(piix)                                                                                                        \
	_(hpet)                                                                                                        \
	_(pit)                                                                                                         \
	_(rtc)                                                                                                         \
	_(kbc)                                                                                                         \
	_(coprocessor)                                                                                                 \
	_(fw_cfg)                                                                                                      \
	_(fw_cfg_file)                                                                                                 \
	_(pflash)                                                                                                      \
	_(uart)                                                                                                        \
	_(debug_exit)                                                                                                  \
	_(debug_console)                                                                                               \
	_(testdev)                                                                                                     \
	_(vmgenid)                                                                                                     \
	_(vga)                                                                                                         \
	_(floppy)                                                                                                      \
	_(dma)                                                                                                         \
	_(virtio_rng)                                                                                                  \
	_(virtio_scsi)                                                                                                 \
	_(ide)                                                                                                         \
	_(ahci)                                                                                                        \
	_(virtio_blk)                                                                                                  \
	_(scsi_disk)                                                                                                   \
	_(scsi_cd)                                                                                                     \
	_(ide_disk)                                                                                                    \
	_(ide_cd)                                                                                                      \
	_(sata_disk)                                                                                                   \
	_(sata_cd)                                                                                                     \
	_(nvme)                                                                                                        \
	_(cloud_init)                                                                                                  \
	_(virtio_net)                                                                                                  \
	_(virtio_console)                                                                                              \
	_(virtio_port)                                                                                                 \
	_(virtio_9p)                                                                                                   \
	_(virtio_vsock)                                                                                                \
	_(virtio_balloon)                                                                                              \
	_(virtio_pmem)

#define _(name) extern const struct device_type name##_type;
DEVICE_TYPES(_)
#undef _
extern const struct device_type *const device_types[]; /* ended by NULL */

/* A device that somebody asks for. Strings are the asker's. */
struct device_request {
	const char *spec;		/* NAME[,OPTION=VALUE...] */
	const char *option;		/* one more, whose value may have commas; NULL: value is more options */
	const char *value;		/* NULL: there is nothing more */
	const struct device_type *type; /* of the device, which is then in no table; NULL: the one called NAME */
};
/* The request's type, all of its options checked but for what only opening shows; or NULL and a sentence that names option, value and what was expected. */
const struct device_type *device_request_check(const struct device_request *, struct error *);
/* What there is; or, for "NAME,help", the options of that type. -EINVAL with a sentence: there is none of that name. */
int device_print_help(const char *spec, FILE *, struct error *);

/* What one request made. */
struct device_plug;
/* A device, and the host's side of it, while nobody uses the bus. */
struct device_plug *device_plug(struct bus *, struct event_loop *, const struct device_request *, struct error *);
/* While nobody uses the bus: frees all that it has: lines, ranges, names, and the host's side. */
void device_unplug(struct device_plug *);
/* All that were plugged, the last one first. */
void devices_unplug(struct bus *);
/*
 * From a device's create: what it is to be on and nobody asked for is made, and the machine's own from then on. 0, or create's -errno: what that has made is destroyed.
 */
int device_create_own(struct bus *, int (*create)(struct bus *, const void *options, struct error *),
		      const void *options, struct error *);
const struct device_type *device_plug_type(const struct device_plug *);
/* What the guest has of it, "NAME,OPTION=VALUE...": all numbers and switches; characters and texts are the host's side. */
void device_plug_print(const struct device_plug *, FILE *);
/* NULL: there is no such device, or it was not plugged. */
struct device_plug *device_plug_find(struct bus *, const char *name, unsigned instance);

/* ---- what others ask of single ones ---- */

/* Created by hand: date from clock_wall_ns; memory sizes go in CMOS 0x15..0x18, 0x30..0x35, 0x5b..0x5d, cpu_count - 1 in 0x5f. */
int rtc_create(struct bus *, unsigned cpu_count, struct error *);
/* CMOS registers that tell a firmware of other devices (0x10..0x7f, no clock's), which no reset changes. While vCPUs do not run, or in their creation. Nothing without an RTC. */
void rtc_set_cmos(struct bus *, unsigned index, uint8_t value);
/* `n` 0..3 = COM1..COM4; chardev may be NULL (nothing connected). */
int uart_create(struct bus *, unsigned n, struct chardev *, struct error *);
/* Under the HPET's lock, which was made before theirs: bus->timers_replaced changed. Nothing without such a device. */
void pit_replaced(struct bus *);
void rtc_replaced(struct bus *);
bool hpet_is_here(struct bus *);
bool vmgenid_is_here(struct bus *);
/* Bit n: there is a UART at COM(n + 1). */
unsigned uart_ports(struct bus *);
/* Bit n: a virtio device is in window n. */
uint32_t virtio_mmio_windows(struct bus *);
/* The processor drives FERR#, learns IGNNE#. In its thread. */
bool coprocessor_error(struct bus *, bool asserted);
/* Where the power management registers are; 0: nowhere. Takes pci_lock. */
uint16_t piix_pm_base(struct bus *);
/*
 * A device on the ISA bus has data for a channel, or wants some: as many of `size` bytes as it takes now; 0: it is masked, or does something else. last: that was its terminal count. With a device's lock
 * that was made before the controllers.
 */
unsigned isa_dma_transfer(struct bus *, unsigned channel, uint8_t *data, unsigned size, bool to_memory, bool *last);
/* General purpose event n happened (SCI, where it is enabled). */
void piix_event(struct bus *, unsigned n);
/* Press the power button (SCI); in the thread that plugs and unplugs devices. */
void piix_power_button(struct bus *);

/* virtio-balloon, whose functions are called in the thread that plugs and unplugs devices. _(enum suffix, name) of what drivers tell of a guest, virtio 1.2, 5.5.6.5 */
#define BALLOON_STAT_NAMES(_)                                                                                          \
	_(SWAP_IN, "bytes swapped in")                                                                                 \
	_(SWAP_OUT, "bytes swapped out")                                                                               \
	_(MAJOR_FAULTS, "major page faults")                                                                           \
	_(MINOR_FAULTS, "minor page faults")                                                                           \
	_(FREE, "bytes unused")                                                                                        \
	_(TOTAL, "bytes of memory")                                                                                    \
	_(AVAILABLE, "bytes available")                                                                                \
	_(CACHES, "bytes of disk caches")                                                                              \
	_(HUGE_ALLOCATED, "huge pages allocated")                                                                      \
	_(HUGE_FAILED, "huge pages not to be had")
enum balloon_stat {
#define _(id, name) BALLOON_STAT_##id,
	BALLOON_STAT_NAMES(_)
#undef _
		BALLOON_STATS
};
struct balloon_info {
	uint64_t wanted, actual; /* bytes in the balloon */
	uint64_t given_back;	 /* bytes, ever: of the balloon, and free ones */
	uint32_t stats_known;	 /* bits of those that the driver has told */
	uint64_t stats[BALLOON_STATS];
};
/* How many bytes, whole pages, the guest is to do without from now on. -ENOENT: there is no balloon. */
int balloon_set(struct bus *, uint64_t bytes, struct error *);
int balloon_query(struct bus *, struct balloon_info *, struct error *);
/* Nothing, if there is no balloon. */
void balloon_print(struct bus *, FILE *);

/* ---- fixed places that boot/'s tables and the devices agree on ---- */

/* _(port, IRQ) of COM1 to COM4 */
#define UART_PLACES(_)                                                                                                 \
	_(COM1_PORT, 4)                                                                                                \
	_(0x2f8, 3)                                                                                                    \
	_(0x3e8, 4)                                                                                                    \
	_(0x2e8, 3)
#define UART_COUNT 4
#define COM1_PORT  0x3f8
/* ISA line of each PIRQ after a reset, and those to which operating systems may steer it instead. */
#define PIIX_PIRQ_LINES                                                                                                \
	{                                                                                                              \
		10, 10, 11, 11                                                                                         \
	}
#define PIIX_PIRQ_CHOICES                                                                                              \
	{                                                                                                              \
		5, 10, 11                                                                                              \
	}
#define PIIX_SLOT   1	 /* of the bridge, on bus 0 */
#define PIIX_PIRQRC 0x60 /* its route control registers, one a PIRQ */

/* Windows for virtio devices that are not on PCI, between the IOAPIC and the local APICs; each with an input of the IOAPIC's that no PCI interrupt has. */
#define VIRTIO_MMIO_WINDOWS    32
#define VIRTIO_MMIO_SIZE       0x1000u
#define VIRTIO_MMIO_ADDRESS(n) (0xfec10000u + (n)*VIRTIO_MMIO_SIZE)
#define VIRTIO_MMIO_FIRST_LINE 16
#define VIRTIO_MMIO_LINES      8
#define VIRTIO_MMIO_LINE(n)    (VIRTIO_MMIO_FIRST_LINE + (n) % VIRTIO_MMIO_LINES)

/* The HPET's registers, its capabilities (8086h, legacy replacement, 64 bits, three timers, revision 1), as ACPI's table repeats them. */
#define HPET_ADDRESS 0xfed00000u
#define HPET_SIZE    0x400u
#define HPET_ID	     0x8086a201u

/* Where the generation ID is, and the event that tells that it is another one. */
#define VMGENID_ADDRESS 0xfed10000u
#define VMGENID_EVENT	5u

#define ACPI_PM_BASE	 0x600	/* PM1a_EVT 0x600, PM1a_CNT 0x604, PM_TMR 0x608 */
#define ACPI_GPE0_BASE	 0xafe0 /* 4 bytes */
#define ACPI_SCI_IRQ	 9
#define ACPI_RESET_PORT	 0xcf9
#define ACPI_RESET_VALUE 0x06
#define ACPI_SLP_TYP_S5	 0 /* as in the DSDT's \_S5 */
#define ACPI_PM_TIMER_HZ 3579545

#endif
