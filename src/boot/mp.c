/*
 * The MP configuration table (MultiProcessor Specification 1.4, chapter 4), for systems that know nothing of ACPI or are told not to
 * use it: processors, buses, the I/O APIC, and to which of its inputs interrupts go.
 */
#include "boot/pc.h"

struct floating_pointer {
	char signature[4];
	uint32_t table;
	uint8_t length; /* in paragraphs */
	uint8_t revision, checksum, features[5];
} __attribute__((packed));

struct mp_header {
	char signature[4];
	uint16_t length;
	uint8_t revision, checksum;
	char oem[8], product[12];
	uint32_t oem_table;
	uint16_t oem_size, entries;
	uint32_t lapic;
	uint16_t extended_length;
	uint8_t extended_checksum, reserved;
} __attribute__((packed));

struct mp_processor {
	uint8_t type, lapic_id, lapic_version, flags;
	uint32_t signature, features;
	uint64_t reserved;
} __attribute__((packed));

struct mp_bus {
	uint8_t type, id;
	char name[6];
} __attribute__((packed));

struct mp_ioapic {
	uint8_t type, id, version, flags;
	uint32_t address;
} __attribute__((packed));

/* Of an I/O APIC, or of local ones. */
struct mp_interrupt {
	uint8_t type, kind;
	uint16_t flags;
	uint8_t bus, line, apic, input;
} __attribute__((packed));

#define REVISION_1_4	 4
#define CPU_ENABLED	 BIT(0)
#define CPU_BOOT	 BIT(1)
#define IOAPIC_ENABLED	 BIT(0)
#define BUS_PCI		 0 /* as it is numbered on PCI */
#define BUS_ISA		 1
#define KIND_INT	 0
#define KIND_NMI	 1
#define KIND_EXTINT	 3
#define FLAGS_CONFORM	 0
#define FLAGS_LEVEL_HIGH 0xd
#define ALL_LAPICS	 0xff

enum entry { PROCESSOR, BUS, IOAPIC, IO_INTERRUPT, LOCAL_INTERRUPT };

/* Written where it is, entry by entry. */
#define MP_ROOM 0x1000
struct mp_table {
	uint8_t bytes[MP_ROOM];
	size_t size;
	uint16_t entries;
};

static void add(struct mp_table *t, const void *entry, size_t size)
{
	BUG_ON(!range_ok(t->size, size, sizeof(t->bytes)));
	memcpy(t->bytes + t->size, entry, size);
	t->size += size;
	t->entries++;
}

static void add_processors(struct mp_table *t, const struct pc *pc)
{
	for (unsigned i = 0; i < pc->cpu_count; i++) {
		struct mp_processor cpu = {
			.type = PROCESSOR,
			.lapic_id = (uint8_t)i,
			.lapic_version = PC_LAPIC_VERSION,
			.flags = i ? CPU_ENABLED : CPU_ENABLED | CPU_BOOT,
			.signature = pc->cpu_signature,
			.features = pc->cpu_features,
		};

		add(t, &cpu, sizeof(cpu));
	}
}

static void add_buses(struct mp_table *t)
{
	static const struct mp_bus buses[] = {
		{ BUS, BUS_PCI, { 'P', 'C', 'I', ' ', ' ', ' ' } },
		{ BUS, BUS_ISA, { 'I', 'S', 'A', ' ', ' ', ' ' } },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(buses); i++)
		add(t, &buses[i], sizeof(buses[i]));
}

static void add_interrupt(struct mp_table *t, enum entry type, unsigned kind, unsigned flags, unsigned bus,
			  unsigned line, unsigned apic, unsigned input)
{
	struct mp_interrupt interrupt = { (uint8_t)type, (uint8_t)kind, (uint16_t)flags, (uint8_t)bus,
					  (uint8_t)line, (uint8_t)apic, (uint8_t)input };

	add(t, &interrupt, sizeof(interrupt));
}

static void add_isa_interrupts(struct mp_table *t, const struct pc *pc)
{
	for (unsigned line = 0; line < PC_ISA_LINES; line++)
		if (line != PC_CASCADE)
			add_interrupt(t, IO_INTERRUPT, KIND_INT,
				      pc_line_is_level(line) ? FLAGS_LEVEL_HIGH : FLAGS_CONFORM, BUS_ISA, line,
				      pc->ioapic_id, pc_ioapic_input(line));
}

/* A PCI interrupt comes in where the bridge has steered it: the table is right as long as nobody steers it elsewhere. */
static void add_pci_interrupts(struct mp_table *t, const struct pc *pc)
{
	for (unsigned slot = 0; slot < PC_PCI_SLOTS; slot++)
		for (unsigned pin = 0; pin < PC_PCI_PINS; pin++)
			add_interrupt(t, IO_INTERRUPT, KIND_INT, FLAGS_LEVEL_HIGH, BUS_PCI, slot << 2 | pin,
				      pc->ioapic_id, pc_ioapic_input(pc_pirq_line(pc_pirq(slot, pin))));
}

/* Inputs that no ISA line has, as if ISA had more lines: so kernels find them by number. */
static void add_virtio_interrupts(struct mp_table *t, const struct pc *pc)
{
	uint32_t lines = 0;

	for (unsigned window = 0; window < VIRTIO_MMIO_WINDOWS; window++)
		if (pc->virtio_windows & 1u << window)
			lines |= 1u << VIRTIO_MMIO_LINE(window);
	for (unsigned line = 0; lines >> line; line++)
		if (lines & 1u << line)
			add_interrupt(t, IO_INTERRUPT, KIND_INT, FLAGS_LEVEL_HIGH, BUS_ISA, line, pc->ioapic_id, line);
}

static void write_header(struct mp_table *t)
{
	struct mp_header h = {
		.signature = { 'P', 'C', 'M', 'P' },
		.length = (uint16_t)t->size,
		.revision = REVISION_1_4,
		.oem = { 'I', 'N', 'T', 'E', 'L', ' ', ' ', ' ' },
		.product = { '4', '4', '0', 'F', 'X', ' ', ' ', ' ', ' ', ' ', ' ', ' ' },
		.entries = t->entries,
		.lapic = PC_LAPIC_ADDRESS,
	};

	memcpy(t->bytes, &h, sizeof(h));
	h.checksum = table_checksum(t->bytes, t->size);
	memcpy(t->bytes, &h, sizeof(h));
}

void mp_build(struct table_area *area, const struct pc *pc)
{
	struct floating_pointer pointer = { .signature = { '_', 'M', 'P', '_' },
					    .length = sizeof(pointer) / 16,
					    .revision = REVISION_1_4 };
	struct mp_ioapic ioapic = { IOAPIC, pc->ioapic_id, PC_IOAPIC_VERSION, IOAPIC_ENABLED, PC_IOAPIC_ADDRESS };
	struct mp_table t = { .size = sizeof(struct mp_header) };

	add_processors(&t, pc);
	add_buses(&t);
	add(&t, &ioapic, sizeof(ioapic));
	add_isa_interrupts(&t, pc);
	add_pci_interrupts(&t, pc);
	add_virtio_interrupts(&t, pc);
	add_interrupt(&t, LOCAL_INTERRUPT, KIND_EXTINT, FLAGS_CONFORM, BUS_ISA, 0, ALL_LAPICS, 0);
	add_interrupt(&t, LOCAL_INTERRUPT, KIND_NMI, FLAGS_CONFORM, BUS_ISA, 0, ALL_LAPICS, 1);
	write_header(&t);
	pointer.table = table_place(area, t.bytes, t.size, 16);
	pointer.checksum = table_checksum(&pointer, sizeof(pointer));
	table_place(area, &pointer, sizeof(pointer), 16);
}
