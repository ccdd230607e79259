/*
 * bus: the device base class, dispatch of port and memory-mapped accesses, interrupt lines and controllers (8259 pair,
 * IOAPIC, local APICs, MSI), PCI. What every PC device is plugged into.
 *
 * Locking: a range and a timer name the lock that their device's code runs under; by default it is the device's own, device->lock. bus_access() and
 * clock_run() take it; a device's threads and its backend's callbacks do so themselves. None is recursive (host/lock.c). Who receives a device's line
 * takes the lock of the receiver: irq_lock, or pci_lock and then that. enum lock_rank is their order. Looking up an address takes none. Local
 * APICs are outside of all of this: their functions may be called by any thread and synchronise themselves; those that the CPU calls (lapic_take,
 * register accesses) may take irq_lock, and a timer's device's lock, so the caller holds none. The functions of struct lapic_ops may be called
 * with or without a device's lock and must not take one.
 */
#ifndef DOPPEL_BUS_H
#define DOPPEL_BUS_H

#include "base/base.h"
#include "clock/clock.h"
#include "host/host.h"
#include "mem/mem.h"
#include "state/state.h"

#include <stdatomic.h>

/* ---- devices ---- */

struct bus;
struct device;

/* What a firmware may start an operating system from, as it is told of it. */
struct device_boot {
	enum { DEVICE_BOOT_FLOPPY, DEVICE_BOOT_DISK, DEVICE_BOOT_CD, DEVICE_BOOT_NET } kind;
	uint64_t order; /* 1..DEVICE_BOOT_ORDER_MOST: tried in this turn, before all that have none; 0 */
	char path[96];	/* Open Firmware's: pci_boot_path() */
};
#define DEVICE_BOOT_ORDER_MOST 99

struct device_ops {
	const struct state_desc *state; /* NULL: none */
	/* Power-on and system reset; state_reset() of `state` has been done just before. NULL: that is all. */
	void (*reset)(struct device *);
	/*
	 * The fields of all devices come from a snapshot now: arm timers, map ranges, and whatever else follows from the fields. NULL:
	 * nothing does. Cannot fail. Lines are not driven: their levels are part of what was loaded, at both ends, and an edge is not to be
	 * seen twice. See bus_attach().
	 */
	void (*attach)(struct device *);
	/*
	 * A device with threads of its own: no thread touches the machine (its memory, its interrupts) from when pause returns until resume is
	 * called, and none does before the first resume. vCPUs are stopped when these are called; they return soon. NULL: it has none.
	 */
	void (*pause)(struct device *);
	void (*resume)(struct device *);
	/* A device that may be started from says how. Under another device's lock; looks at what does not change. False, or NULL: it is none. */
	bool (*boots)(const struct device *, struct device_boot *);
	void (*destroy)(struct device *); /* frees it, and all it has of the bus: ranges, lines, timers; it is paused */
};

/* First member of every device's struct. */
struct device {
	const char *name;  /* "rtc", "uart" */
	unsigned instance; /* tells devices of one name apart */
	const struct device_ops *ops;
	struct bus *bus;
	struct lock *lock;	  /* what its code is called under: ranges and timers that name no other */
	struct list node;	  /* bus->devices, in order of creation: the order of reset and of attach */
	struct device_plug *plug; /* what it belongs to (devices/type.c); NULL: it is the machine's own */
	struct lock *own_lock;	  /* private: made with it, goes behind it; NULL: it shares another's */
};
/* Of a device behind device_init(), with its lock. */
void device_timer_init(struct device *, struct timer *, const char *name, void (*fire)(void *), void *opaque);
/* The first instance of its name that is free, with a lock of its own. */
void device_init(struct device *, struct bus *, const char *name, const struct device_ops *);
/* The same under another's: of what is one with other devices. */
void device_init_sharing(struct device *, struct bus *, const char *name, const struct device_ops *, struct lock *);
/* While nobody uses the bus. */
void device_destroy(struct device *);

/* ---- address ranges ---- */

enum bus_space { BUS_PIO, BUS_MMIO };

struct bus_access {
	enum bus_space space;
	uint64_t address;
	uint8_t size; /* 1, 2, 4; MMIO also 8 */
	bool write;
	uint64_t value; /* in for writes, out for reads; no bits above size */
};

/*
 * A range of ports or guest physical addresses that a device answers. Accesses of other sizes than sizes allows are split
 * into the largest allowed smaller ones (or, if all are larger, read as all ones and dropped on write).
 */
struct bus_range {
	uint64_t start, size;
	uint8_t sizes; /* sum of allowed access sizes: 1 | 2 | 4 | 8 */
	struct device *device;
	struct lock *lock; /* NULL: the device's */
	/*
	 * Its functions are called under no lock and take what they need, for as long as they need it: where each register belongs to a queue with a
	 * lock of its own, or what it starts is I/O of the host's, which no other register shall wait for. Any number of vCPUs may be in them at once,
	 * and one that has looked the range up may come after it has moved or gone (not after its device has).
	 */
	bool takes_locks;
	uint64_t (*read)(struct device *, uint64_t offset, unsigned size);
	void (*write)(struct device *, uint64_t offset, unsigned size, uint64_t value);
	bool moves;  /* the guest says where it is: bus_attach() finds it unmapped */
	bool mapped; /* private */
};

/* What a device may ask of the machine; carried out soon, not at once. */
enum bus_request {
	BUS_REQUEST_RESET, /* system reset (0xcf9, FADT reset register) */
	BUS_REQUEST_INIT, /* the processors' INIT pin (keyboard controller, port 0x92, soft reset by 0xcf9): system reset, or warm one */
	BUS_REQUEST_POWEROFF, /* ACPI S5 */
	BUS_REQUEST_EXIT,     /* debug-exit port: exit status in bus->exit_code */
	BUS_REQUEST_QUIT,     /* the user typed the quit sequence on a character device */
};

/* Of a device that waits for something of the host's, such as room on its disk, and with which the guest waits; zero but for retry at first. */
struct bus_hold {
	/* Each second, in the event loop's thread without a lock: has it come? May be called once more behind the hold's end. */
	void (*retry)(struct bus_hold *);
	/* Why, for who listens; set before it begins. */
	struct bus_failure {
		const char *device; /* name and instance */
		unsigned instance;
		bool writes;
		int error; /* -errno; 0: nobody needs to be told */
	} why;
	struct list node; /* private, as is what follows */
	bool told;
};

/* Of a device that may know of something that comes soon; the device's, and added and removed while vCPUs are stopped. */
struct bus_look_out {
	/* In the thread of a vCPU that halts, without locks: waits awake, as far as that pays and for no longer than that, or until stop(opaque) says so. */
	void (*look_out)(struct bus_look_out *, bool (*stop)(void *), void *opaque);
	struct list node; /* private */
};

/* Belongs to who defers it; zero but for fn at first. */
struct bus_work {
	void (*fn)(struct bus_work *);
	bool waits; /* private */
	struct list node;
};

/* The ranks of locks: who has one takes none of a smaller rank; of the same rank, only what was made later. */
enum lock_rank {
	LOCK_QUEUE, /* of what a device serves by I/O of the host's: held while that is done */
	LOCK_DEVICE,
	LOCK_PCI, /* bus->pci_lock */
	LOCK_IRQ, /* bus->irq_lock */
};

struct bus {
	struct lock_group locks; /* of all devices */
	struct lock
		pci_lock; /* configuration space of all functions and what follows from it: BARs, PAM, routes of INTx */
	struct lock irq_lock; /* the 8259 pair, the IOAPIC and the lines to them */
	int exit_code;
	_Atomic bool a20_closed;      /* address line 20 is held low; who changes it defers a20 */
	struct bus_work a20;	      /* the machine's */
	struct bus_work remap;	      /* mem_commit(): bus_remap() */
	_Atomic bool timers_replaced; /* the HPET has interrupts 0 and 8: the 8254 and the RTC have none */
	const char *name;	      /* the machine's; "": it has none */
	/* One starts the machine: what it is to boot from is where firmware looks, and chipset registers are as after power-on. Before devices are created. */
	bool firmware;
	struct display *display; /* the host's side of screens and keys, for devices; NULL: there is none */
	struct list devices, look_outs;
	struct guest_mem *mem;
	struct clock *clock;
	struct trace *trace;
	struct device_plug *plugging; /* what devices belong to that are being created */
	struct pci_bus *pci;	      /* NULL until created */
	struct irq_chip *irq;	      /* NULL until created */
	/* Periodic timers' interrupts that come too late are made up for (see ticks_deliver); else they are lost. */
	bool reinject;
	struct {
		_Atomic uint64_t late, reinjected, given_up; /* edges */
	} ticks;
	/* Requests to the machine, any thread, with locks or not; NULL: nobody listens. */
	void (*request)(void *opaque, enum bus_request);
	void *request_opaque;
	/*
	 * From begin to end vCPUs and guest time stand still; devices go on. Any thread, with locks or not; each device has one hold at most. With
	 * request_opaque. NULL: nobody listens.
	 */
	void (*hold)(void *opaque, struct bus_hold *, bool begins);
	/* Calls fn(bus) with all vCPUs stopped. NULL: there are none. */
	void (*stopped)(void *opaque, void (*fn)(struct bus *));
	void *stopped_opaque;
	/* private: bus_defer() */
	pthread_mutex_t defer_lock;
	struct list deferred;
	_Atomic bool has_deferred;
	/* private: map.c */
	_Atomic(struct bus_map *) maps[2]; /* by bus_space; written under map_lock, as what follows */
	_Atomic uint64_t map_generation;
	pthread_mutex_t map_lock;
	struct bus_map *retired; /* wait for free_maps */
	struct bus_work free_maps;
};

struct bus *bus_create(struct guest_mem *, struct clock *, struct trace *, struct error *);
/* Destroys all devices that are left, last created first. */
void bus_destroy(struct bus *);
/* Resets all devices in order of creation, local APICs too. No vCPU runs, nor a thread of a device. */
void bus_reset(struct bus *);
/*
 * After all devices' fields were loaded: attach() of each in order of creation, ranges that move being unmapped before the first.
 * Takes all locks; no vCPU runs.
 */
void bus_attach(struct bus *);
/* Before that, with all fields loaded and all locks held: what no device can check alone. -EINVAL names what is wrong; nothing changes. */
int bus_loaded(struct bus *, struct error *);
/* Their own threads, in order of creation; and the other way round. All vCPUs are stopped. */
void bus_pause(struct bus *);
void bus_resume(struct bus *);
/* The last one created that belongs to it; NULL: there is none. */
struct device *bus_last_device(struct bus *, const struct device_plug *);
/* Behind this one (NULL: the first) in the order of names and instances, whatever that of creation was; NULL: it was the last. */
struct device *bus_next_device(struct bus *, const struct device *);
/* NULL: there is none. */
struct device *bus_find_device(struct bus *, const char *name, unsigned instance);
/*
 * The locks of all devices. For threads that may be a vCPU's in the middle of an instruction, where it holds no direct pointer to guest memory: a
 * vCPU that waits for a device's lock counts as stopped, so that who holds one may stop all vCPUs.
 */
void bus_lock(struct bus *);
void bus_unlock(struct bus *);
/*
 * work->fn(work) will be called behind the access that the calling thread is in, or whatever else it does with a device's lock: with all vCPUs
 * stopped, and no lock. For what vCPUs must not be in the middle of (the A20 gate, a table they look into). Asked for twice, it is done once.
 */
void bus_defer(struct bus *, struct bus_work *);
/* Layers of the map of memory were changed: it follows behind the access at hand. A bus without memory has none. */
void bus_remap(struct bus *);
void bus_add_look_out(struct bus *, struct bus_look_out *);
/* Of one that was never added: nothing. */
void bus_remove_look_out(struct bus_look_out *);
/* In the thread of a vCPU that halts. */
void bus_look_out(struct bus *, bool (*stop)(void *), void *opaque);
/* What has been deferred so far is done when this returns. bus_access() does this; else who called devices, or a timer; without a device's lock. */
void bus_settle(struct bus *);
/*
 * -EBUSY when it overlaps a mapped range. The range is the caller's, usually part of the device, and is given back by bus_unmap(), or only while vCPUs
 * and devices are paused. An access that has begun may still come behind bus_unmap(), as if before; not one that waits for the range's lock. Any lock may be held.
 */
int bus_map(struct bus *, enum bus_space, struct bus_range *, struct error *);
void bus_unmap(struct bus *, enum bus_space, struct bus_range *);
/*
 * In a vCPU's thread, or while they are paused. Takes the range's lock around the device's read and write. Addresses that nobody answers read as all ones. 0, or -ENXIO if nobody
 * answered (value is set anyway).
 */
int bus_access(struct bus *, struct bus_access *);

/* ---- interrupt lines ---- */

/* One input of an interrupt controller, or a wire to one. */
struct irq_line {
	void (*set)(void *opaque, unsigned n, bool level); /* NULL: not connected */
	void *opaque;
	unsigned n;
};
/*
 * By one thread at a time: with the device's lock held, say. Level and edge are told apart by the receiver, who takes the lock that it needs if
 * the level changes.
 */
static inline void irq_set(const struct irq_line *line, bool level)
{
	if (line->set)
		line->set(line->opaque, line->n, level);
}

/* Interrupt delivery modes, SDM vol. 3A 11.5.1 */
enum delivery_mode {
	DELIVER_FIXED,
	DELIVER_LOWEST,
	DELIVER_SMI,
	DELIVER_NMI = 4,
	DELIVER_INIT,
	DELIVER_SIPI,
	DELIVER_EXTINT
};

/* ---- local APICs (lapic.c): xAPIC and x2APIC, timer with TSC-deadline ---- */

struct lapic;

/* What a local APIC does to its CPU; any thread. */
struct lapic_ops {
	void (*interrupt)(void *cpu); /* something may be deliverable: ask lapic_take */
	void (*nmi)(void *cpu);
	void (*init)(void *cpu);
	void (*sipi)(void *cpu, uint8_t vector);
	uint64_t (*tsc_offset)(void *cpu); /* the CPU's TSC - clock_tsc() */
};

/* Created with the irq chip, one a vCPU: */
struct lapic *irq_lapic(struct bus *, unsigned index);
/* In the CPU's thread: the vector of the highest-priority deliverable interrupt, moved from IRR to ISR; or the 8259's (with
 * INTA) when LVT LINT0 is ExtINT and unmasked or the APIC is disabled; -1 none. */
int lapic_take(struct lapic *);
bool lapic_pending(struct lapic *);
uint8_t lapic_tpr(struct lapic *); /* CR8: bits 7..4 of TPR */
void lapic_set_tpr(struct lapic *, uint8_t cr8);
/* IA32_APIC_BASE 0x1b, 0x6e0, 0x800..0x8ff: 0, or -1 for #GP */
int lapic_msr_read(struct lapic *, uint32_t msr, uint64_t *);
int lapic_msr_write(struct lapic *, uint32_t msr, uint64_t);
/* The page at its base address; only the CPU's own accesses. */
bool lapic_claims(struct lapic *, gpa_t);
uint64_t lapic_mmio_read(struct lapic *, uint64_t offset, unsigned size);
void lapic_mmio_write(struct lapic *, uint64_t offset, unsigned size, uint64_t value);
void lapic_reset(struct lapic *, bool init);
/* TSC-deadline timer depends on the CPU's TSC: after the guest wrote IA32_TSC or IA32_TSC_ADJUST. */
void lapic_tsc_changed(struct lapic *);

#define IOAPIC_ADDRESS 0xfec00000u
#define IOAPIC_INDEX   0x00 /* registers */
#define IOAPIC_DATA    0x10

/* ---- the interrupt controllers together (irq.c): 8259 pair, IOAPIC, message-signalled interrupts ---- */

/*
 * Creates 8259 pair (ports 0x20, 0x21, 0xa0, 0xa1, ELCR 0x4d0, 0x4d1), IOAPIC (0xfec00000, 24 inputs) and cpu_count local APICs.
 * cpus[i] is passed to ops.
 */
int irq_chip_create(struct bus *, unsigned cpu_count, const struct lapic_ops *, void *const cpus[], struct error *);
/*
 * ISA line 0..15 (to both the 8259 and the IOAPIC; line 0 is IOAPIC input 2), 16..23 IOAPIC only. Each call makes a source of its
 * own, of this device (so call it once, at creation, and irq_line_free() at the end): a line is high while any of its sources is. A device raises its line and
 * lowers it when the cause is served; the 8259, as the real one, loses a request that is withdrawn before it was acknowledged.
 */
struct irq_line irq_isa_line(struct device *, unsigned n);
/* While nobody uses the bus: the source goes low, and is nobody's. What is not connected may be freed as well. */
void irq_line_free(struct irq_line *);
/* In a device's attach: the source is this line's now, as it was in the machine that was saved. Levels of lines are what was loaded. */
void irq_line_move(struct irq_line *, unsigned n);
/* Of the local APICs. */
unsigned irq_cpu_count(const struct bus *);
/* What an edge on a line, or of a local APIC's timer, meets. */
enum irq_receiver {
	IRQ_NOBODY, /* it is masked, and an 8259 has latched one already */
	IRQ_WAITS,  /* a CPU that has not taken the last one yet */
	IRQ_READY,
};
/* Of ISA line n. */
enum irq_receiver irq_isa_receiver(struct bus *, unsigned n);
/* From now on taken is called, without a lock, in the thread of a CPU that takes ISA interrupt 0; once more, perhaps, behind a NULL: no more. */
void irq_watch_timer(struct bus *, void (*taken)(void *opaque), void *opaque);
/* A message-signalled interrupt: address 0xfeexxxxx and data, SDM vol. 3A 11.11. Any thread. */
void irq_msi(struct bus *, uint64_t address, uint32_t data);

/* ---- periodic timers (ticks.c) ---- */

#define TICKS_MOST   10000u /* so many are made up for: 10 s of 1,000 Hz */
#define TICKS_MASKED 100u   /* a guest that masks so many in a row means it */

/* Fields of a timer's state, under its lock; others may read owed atomically. */
struct ticks {
	uint32_t *owed;	  /* edges not delivered yet */
	uint32_t *masked; /* edges in a row that nobody would have received */
};
/* So many edges came. True: one is to be delivered now. Called again (with 0) when a CPU takes one. */
bool ticks_deliver(struct bus *, struct ticks, uint64_t edges, enum irq_receiver);
/* The timer was programmed anew. */
void ticks_forget(struct bus *, struct ticks);

/* ---- PCI (pci.c): host bridge i440FX at 00:00.0, config mechanism #1 ---- */

/* Registers that are seen through the configuration space. */
struct pci_window {
	unsigned bar;
	uint32_t offset;
	uint8_t size; /* 1, 2, 4 */
};

/* The expansion ROM, among the BARs: it has a register and an enable bit of its own. See pci_add_rom(). */
#define PCI_ROM 6

struct pci_device {
	struct device device;
	uint8_t devfn; /* slot << 3 | function */
	bool any_slot; /* it got one that was free; another machine's record may put it elsewhere */
	uint8_t config[256];
	uint8_t config_mask[256];  /* bits the guest may write */
	uint8_t config_w1c[256];   /* bits that a written 1 clears */
	uint8_t config_reset[256]; /* as it was when pci_add was called */
	struct {
		uint64_t size; /* 0: absent; power of two */
		bool io;
		bool wide;		/* 64-bit: uses the next BAR too */
		struct bus_range range; /* mapped when enabled by the command register */
		struct memory
			*memory; /* what it shows, of its size; NULL: the range's functions answer. The device's */
		struct mem_layer layer;
	} bars[PCI_ROM + 1];
	uint8_t bars_mapped;	   /* by number: two may want the same place, who is there stays */
	struct irq_line intx;	   /* routed by the PIIX3's PIRQ registers, unless MSI-X is enabled */
	unsigned capabilities_end; /* where the next capability goes; 0: there is none yet */
	struct msix *msix;	   /* NULL: it has none; the device's */
	uint8_t msi;		   /* where its MSI capability is; 0: it has none */
	/*
	 * After a config write was merged; NULL: nothing special. Under pci_lock, as all of this struct is: no device's lock is taken here, and
	 * what the device's own code wants to know of its configuration is kept by this in an atomic field; or bus_defer() does it.
	 */
	void (*config_written)(struct pci_device *, unsigned offset, unsigned size);
	/*
	 * Is an access to this offset one to some bytes of a BAR, and which? pci_lock is held. BARs must have ranges that take their locks themselves. NULL: none is.
	 */
	bool (*window)(const struct pci_device *, unsigned offset, struct pci_window *);
};

/*
 * For the record of a device whose first member is `struct pci_device pci`: put it in front of the list of its own fields where
 * STATE_DESC is used. Its ops.reset calls pci_reset, its loaded() pci_loaded, its ops.attach pci_attach.
 */
#define PCI_CONFIG_STATE(_, T)                                                                                         \
	_(T, uint8_t, pci.config, 256, 1000, 0, 0xff)                                                                  \
	_(T, uint8_t, pci.bars_mapped, 1, 1001, 0, 0x7f)                                                               \
	_(T, uint8_t, pci.devfn, 1, 1002, 0, 0xff)

/* Ports 0xcf8..0xcff; the host bridge. */
int pci_bus_create(struct bus *, struct error *);
/*
 * As firmware leaves the host bridge's PAM registers: RAM from 768 KiB to 1 MiB, all of it to be written, or all but the last 64 KiB. mem_commit()
 * is the caller's.
 */
enum i440fx_ram { I440FX_RAM, I440FX_RAM_SEALED };
void i440fx_set_ram(struct bus *, enum i440fx_ram);
/* Fill config[] and the masks of the standard header (type 0). class_revision: class code << 8 | revision. interrupt_pin 1 = A. */
void pci_init_config(struct pci_device *, uint16_t vendor, uint16_t device, uint32_t class_revision,
		     uint16_t subsystem_vendor, uint16_t subsystem, uint8_t interrupt_pin);
/*
 * Of `size` bytes, of which the first two (ID and link) are filled in here; the others, and config_mask where the guest may write, are the
 * caller's. After pci_init_config, before pci_add. Returns its offset in the configuration space.
 */
uint8_t pci_add_capability(struct pci_device *, uint8_t id, unsigned size);
/* One message-signalled interrupt (MSI, PCI Local Bus Specification 3.0, 6.8.1), beside INTx; as pci_add_capability(). */
void pci_add_msi(struct pci_device *);
/* Sends the message, if the guest has chosen MSI: INTx reaches nobody then. Takes pci_lock. */
void pci_send_msi(struct pci_device *);
/*
 * An expansion ROM with a file's contents, at most 16 MiB, filled up with zeros to a power of two; before pci_add. It is read where the guest enables it; writes are
 * dropped. pci_remove() frees it. A bus without memory has none.
 */
int pci_add_rom(struct pci_device *, const char *file, struct error *);
/*
 * Plug a device after device_init, pci_init_config, its capabilities, and setting its bars (type bits and masks of their registers are filled in
 * here; range.read, .write, .sizes are the device's). Sets intx. PCI_ANY_SLOT: the first that is free. -EBUSY when the place is taken.
 */
#define PCI_ANY_SLOT 32
int pci_add(struct bus *, struct pci_device *, unsigned slot, unsigned function, struct error *);
/* Configuration space as after power-on, BARs unmapped, INTx low. */
void pci_reset(struct pci_device *);
/* -EINVAL if read-only bits of config[] differ, a BAR is mapped where none can be, or the device cannot be where it was. */
int pci_loaded(struct pci_device *, struct error *);
/* Maps the BARs. */
void pci_attach(struct pci_device *);
/* Unmaps and unplugs; from the device's destroy. */
void pci_remove(struct pci_device *);
/*
 * The path of what is behind a function, "/pci@i0cf8/NAME@SLOT[,FUNCTION]BEHIND", for device_ops.boots; name: by its class ("scsi", "ide", "ethernet"), behind: "/disk@0,0".
 */
void pci_boot_path(const struct pci_device *, const char *name, const char *behind, struct device_boot *);
/* Is there a display controller? */
bool pci_has_display(const struct bus *);
/* The addresses from 4 GiB on that BARs have by now; *last is 0 where none has. Takes pci_lock. */
void pci_high_window(struct bus *, uint64_t *first, uint64_t *last);
/*
 * PIRQ routing, set by the PIIX3: INTx of slot s pin p (1 = A) goes to PIRQ (s + p - 2) & 3, to this ISA line or none (-1). pci_lock held, or nobody
 * else there.
 */
#define PIRQS 4
void pci_set_pirqs(struct bus *, const int isa_lines[PIRQS]);
/*
 * CONFIG_ADDRESS answers 32-bit accesses only; a chipset may have byte registers at the same ports (0xcf9). The range is not
 * mapped on the bus, but asked for byte accesses to its ports, under pci_lock. One range a bus.
 */
void pci_set_byte_ports(struct bus *, const struct bus_range *);

/* ---- MSI-X (msix.c): PCI Local Bus Specification 3.0, 6.8.2; PCI Express Base Specification 5.0, 7.7.2 ---- */

#define MSIX_MAX_VECTORS 128

/*
 * A device embeds it as `msix`. Its functions take no device's lock and may be called by any thread with or without one: it has a lock of its own, under which
 * it takes no other. While vCPUs and devices are paused nobody takes that, and its fields may be saved and loaded.
 */
struct msix {
	struct pci_device *pci;
	unsigned vectors;
	uint8_t capability; /* offset in the configuration space */
	pthread_mutex_t lock;
	/* What the configuration space said last: */
	_Atomic bool enabled;
	bool silent; /* the function may not send: it is masked, or no bus master */
	/* The table, and the pending bits. */
	uint64_t address[MSIX_MAX_VECTORS];
	uint32_t data[MSIX_MAX_VECTORS], masked[MSIX_MAX_VECTORS];
	uint64_t pending[MSIX_MAX_VECTORS / 64];
};

/* For the device's record, behind PCI_CONFIG_STATE. */
#define MSIX_STATE(_, T)                                                                                               \
	_(T, uint64_t, msix.address, 128, 1010, 0, UINT64_MAX)                                                         \
	_(T, uint32_t, msix.data, 128, 1011, 0, UINT32_MAX)                                                            \
	_(T, uint32_t, msix.masked, 128, 1012, 1, 1)                                                                   \
	_(T, uint64_t, msix.pending, 2, 1013, 0, UINT64_MAX)

/*
 * Before pci_add: adds the capability, with table and pending bits at `offset` (a multiple of 8) of memory BAR `bar`, 16 bytes a vector and 8 for each 64 of
 * them. What the guest reads and writes there the BAR's range passes on to msix_read and msix_write. pci_add(), pci_reset() and so on do the rest.
 */
void msix_init(struct msix *, struct pci_device *, unsigned vectors, unsigned bar, uint32_t offset);
/*
 * Of a pci_device with MSI-X, offsets from where the table is: may be a range's functions. Accesses are of 4 or 8 bytes, naturally aligned; others, and what is
 * behind the pending bits, read as zeros and change nothing.
 */
uint64_t msix_read(struct device *, uint64_t offset, unsigned size);
void msix_write(struct device *, uint64_t offset, unsigned size, uint64_t value);
/* The guest has chosen MSI-X: the device's INTx reaches nobody. */
bool msix_enabled(const struct msix *);
/*
 * Sends the vector's message; while it is masked its pending bit is set instead, and it is sent once when it is unmasked. While MSI-X is not enabled
 * nothing happens. vector < vectors.
 */
void msix_notify(struct msix *, unsigned vector);
/* What the vector was to tell has been served meanwhile: a message that waits is not sent any more. */
void msix_withdraw(struct msix *, unsigned vector);

#endif
