/*
 * What the files of bus/ share: the interrupt controllers as irq.c wires them together.
 *
 * Lock order: irq_lock, then lapic->timer_lock, then the clock's own lock. Callbacks of struct lapic_ops may be called with
 * any of these held and must take none of them. A vCPU's thread takes irq_lock for an INTA cycle, for taking an interrupt that a timer watches and
 * for an EOI broadcast only, with no other lock held; a local APIC's timer callback needs none.
 */
#ifndef DOPPEL_BUS_PRIVATE_H
#define DOPPEL_BUS_PRIVATE_H

#include "bus/bus.h"

struct pic;
struct ioapic;

/* By name and instance. */
bool device_comes_before(const struct device *, const struct device *);

/* An interrupt on its way to local APICs: from an IOAPIC, a message-signalled interrupt or another local APIC's ICR. */
struct irq_message {
	uint32_t destination;
	uint8_t vector;
	uint8_t mode; /* enum delivery_mode; 3 (reserved) goes nowhere */
	bool logical;
	bool level;	      /* trigger mode: the receiver's TMR bit */
	bool wide;	      /* destination has 32 bits (x2APIC), otherwise 8 */
	uint8_t shorthand;    /* enum shorthand */
	struct lapic *sender; /* for shorthands */
};

/* ICR bits 19:18, SDM vol. 3A figure 11-12 */
enum shorthand { SHORTHAND_NONE, SHORTHAND_SELF, SHORTHAND_ALL, SHORTHAND_OTHERS };

#define IRQ_PINS	24
#define IRQ_MAX_SOURCES 128

/*
 * Several devices may pull one line (shared PCI interrupts, COM1 and COM3): each irq_isa_line() is a source of its own, the
 * line is high while any source is. In a record they are sorted by their devices' names and instances, so that it is the same in whatever
 * order those were plugged.
 */
struct irq_source {
	const struct device *owner; /* NULL: nobody's */
	uint8_t line;
	bool high;
};

#define IRQ_CHIP_STATE(_, T) _(T, uint8_t, source_level, 128, 1, 0, 1)

struct irq_chip {
	struct device device;
	STATE_FIELDS(IRQ_CHIP_STATE) /* while it is saved or loaded */
	struct irq_source sources[IRQ_MAX_SOURCES];
	unsigned line_count[IRQ_PINS]; /* sources that are high */
	struct pic *pic;
	struct ioapic *ioapic;
	struct lapic **lapics;
	unsigned cpu_count;
	_Atomic bool intr; /* the 8259 pair's output; written under irq_lock */
	/* See irq_watch_timer(). The vector by which the IOAPIC sends ISA interrupt 0; 0: it does not, or nobody watches. */
	_Atomic uint8_t timer_vector;
	void (*timer_taken)(void *opaque);
	void *timer_opaque;
};

/* Without a lock: a CPU has taken ISA interrupt 0. */
void irq_timer_taken(struct irq_chip *);

/* Any thread. Did at least one local APIC accept it? */
bool irq_deliver(struct irq_chip *, const struct irq_message *);
/* What an edge that is sent so would meet. */
enum irq_receiver irq_receiver(struct irq_chip *, const struct irq_message *);

/* ---- lapic.c ---- */
struct lapic *lapic_create(struct irq_chip *, unsigned index, const struct lapic_ops *, void *cpu, struct error *);
bool lapic_matches(struct lapic *, const struct irq_message *);
bool lapic_accept(struct lapic *, const struct irq_message *);
/* For lowest-priority arbitration: software-enabled, and at which processor priority. */
bool lapic_enabled(struct lapic *);
uint8_t lapic_ppr(struct lapic *);
/* Does a fixed interrupt wait to be taken? */
bool lapic_requested(struct lapic *, uint8_t vector);
/* Does the 8259's output reach this CPU? */
bool lapic_accepts_intr(struct lapic *);
/* The 8259's output rose. */
void lapic_intr(struct lapic *);

/* ---- pci.c, pci_lock held ---- */
/* NULL: there is none. */
struct pci_device *pci_function(const struct bus *, unsigned devfn);
/* Does each device's record have a place of its own? */
int pci_bus_loaded(const struct bus *, struct error *);

/* Offsets and bits of the configuration space's header, type 0 */
#define PCI_VENDOR	   0x00
#define PCI_DEVICE	   0x02
#define PCI_COMMAND	   0x04
#define PCI_STATUS	   0x06
#define PCI_REVISION	   0x08
#define PCI_CACHE_LINE	   0x0c
#define PCI_LATENCY	   0x0d
#define PCI_BARS	   0x10
#define PCI_SUBSYSTEM	   0x2c
#define PCI_ROM_BAR	   0x30
#define PCI_CAPABILITIES   0x34
#define PCI_INTERRUPT_LINE 0x3c
#define PCI_INTERRUPT_PIN  0x3d
#define PCI_HEADER_SIZE	   0x40
#define ROM_ENABLE	   1u
#define ROM_FIXED	   0x7ffu /* bits that are no address */
#define COMMAND_IO	   BIT(0)
#define COMMAND_MEMORY	   BIT(1)
#define COMMAND_MASTER	   BIT(2)
#define COMMAND_WRITABLE   0x0547 /* I/O, memory, master, parity, SERR, interrupt disable */
#define COMMAND_NO_INTX	   BIT(10)
#define STATUS_INTERRUPT   BIT(3)
#define STATUS_LIST	   BIT(4) /* there are capabilities */
#define STATUS_W1C	   0xf900

/* ---- msix.c, pci_lock held, or nobody else there ---- */
/* The configuration space has changed: what may be sent now, is. */
void msix_update(struct msix *);
/* By the configuration space alone: as soon as that was loaded. */
bool msix_replaces_intx(const struct msix *);
/* Everything masked, nothing pending. */
void msix_reset(struct msix *);
int msix_loaded(const struct msix *, struct error *);
void msix_remove(struct msix *);

/* ---- i440fx.c ---- */
int i440fx_create(struct bus *, struct error *);

/* ---- pic.c, irq_lock held ---- */
struct pic *pic_create(struct irq_chip *, struct error *);
void pic_set_line(struct pic *, unsigned n, bool level);
enum irq_receiver pic_receiver(struct pic *, unsigned n);
/* The two INTA cycles: the vector. *timer: it is ISA interrupt 0's, see irq_timer_taken(). */
uint8_t pic_acknowledge(struct pic *, bool *timer);
/* irq.c: the pair's INTR output changed */
void irq_pic_output(struct irq_chip *, bool level);

/* ---- ioapic.c, irq_lock held ---- */
struct ioapic *ioapic_create(struct irq_chip *, struct error *);
void ioapic_set_line(struct ioapic *, unsigned pin, bool level);
enum irq_receiver ioapic_receiver(struct ioapic *, unsigned pin);
/* The vector that an edge on the input sends, 0 when it is masked or level-triggered. */
uint8_t ioapic_edge_vector(struct ioapic *, unsigned pin);
void ioapic_eoi(struct ioapic *, uint8_t vector);

#endif
