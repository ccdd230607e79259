/*
 * The ACPI tables that firmware would leave (ACPI 6.4 chapter 5): RSDP, RSDT and XSDT, FADT with FACS and DSDT, MADT, HPET. They describe
 * what devices/ and bus/ build (pc.h). They are the same whether they are put into memory here, for a kernel that is booted directly, or by a firmware that is
 * given them as files, but for what that firmware has decided.
 */
#include "boot/dsdt.h"
#include "boot/pc.h"
#include "boot/private.h"

#define TABLE_ALIGNMENT 64 /* FACS needs it */
#define DSDT_ROOM	0x4000
#define ACPI_ROOM	0xf000 /* of all tables */
#define RSDP_OLD_SIZE	20     /* what ACPI 1.0 has of the RSDP */
#define MADT_CPUS_MAX	255    /* local APIC entries have one byte for the ID, 0xff is all */

struct acpi_header {
	char signature[4];
	uint32_t length;
	uint8_t revision, checksum;
	char oem_id[6], oem_table_id[8];
	uint32_t oem_revision;
	char creator_id[4];
	uint32_t creator_revision;
} __attribute__((packed));

/* Generic address structure, ACPI 6.4, 5.2.3.2 */
struct acpi_address {
	uint8_t space, bit_width, bit_offset, access_size;
	uint64_t address;
} __attribute__((packed));

struct acpi_rsdp {
	char signature[8];
	uint8_t checksum;
	char oem_id[6];
	uint8_t revision;
	uint32_t rsdt, length;
	uint64_t xsdt;
	uint8_t extended_checksum, reserved[3];
} __attribute__((packed));

struct acpi_facs {
	char signature[4];
	uint32_t length, hardware_signature, waking_vector, global_lock, flags;
	uint64_t x_waking_vector;
	uint8_t version, reserved[31];
} __attribute__((packed));

/* FADT, revision 5 (ACPI 6.4, 5.2.9); its names of fields. */
struct acpi_fadt {
	struct acpi_header header;
	uint32_t firmware_ctrl, dsdt;
	uint8_t reserved1, preferred_pm_profile;
	uint16_t sci_int;
	uint32_t smi_cmd;
	uint8_t acpi_enable, acpi_disable, s4bios_req, pstate_cnt;
	uint32_t pm1a_evt_blk, pm1b_evt_blk, pm1a_cnt_blk, pm1b_cnt_blk, pm2_cnt_blk, pm_tmr_blk, gpe0_blk, gpe1_blk;
	uint8_t pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len, gpe0_blk_len, gpe1_blk_len, gpe1_base, cst_cnt;
	uint16_t p_lvl2_lat, p_lvl3_lat, flush_size, flush_stride;
	uint8_t duty_offset, duty_width, day_alrm, mon_alrm, century;
	uint16_t iapc_boot_arch;
	uint8_t reserved2;
	uint32_t flags;
	struct acpi_address reset_reg;
	uint8_t reset_value;
	uint16_t arm_boot_arch;
	uint8_t minor_version;
	uint64_t x_firmware_ctrl, x_dsdt;
	struct acpi_address x_pm1a_evt_blk, x_pm1b_evt_blk, x_pm1a_cnt_blk, x_pm1b_cnt_blk, x_pm2_cnt_blk, x_pm_tmr_blk,
		x_gpe0_blk, x_gpe1_blk, sleep_control_reg, sleep_status_reg;
} __attribute__((packed));

#define FADT_WBINVD		 BIT(0)
#define FADT_PROC_C1		 BIT(2)
#define FADT_SLP_BUTTON		 BIT(5) /* no fixed sleep button; the power button is fixed, its bit 4 stays clear */
#define FADT_FIX_RTC		 BIT(6) /* the RTC does not wake through PM1 */
#define FADT_RESET_REG_SUP	 BIT(10)
#define BOOT_ARCH_LEGACY_DEVICES BIT(0)
#define BOOT_ARCH_8042		 BIT(1)
#define BOOT_ARCH_NO_VGA	 BIT(2)
#define NO_C2			 0xfff /* latencies beyond what C2 and C3 may have: they do not exist */
#define NO_C3			 0xfff
#define CMOS_CENTURY		 0x32

/*
 * Tables, one behind the other, as they are wherever they will be. What depends on that is a list of fixups, to be done in turn: a pointer is an offset among the
 * tables to which their address is added, a checksum is 0 until it is made.
 */
#define FIXUPS_MOST 40u

struct fixup {
	uint32_t at;
	uint8_t bytes;	      /* of a pointer; 0: a checksum */
	uint32_t start, size; /* of what it is the checksum */
};

struct tables {
	uint8_t *data;
	size_t size;
	struct fixup fixups[FIXUPS_MOST];
	unsigned count;
};

/* A pointer in a table: its offset there, its bytes. */
struct pointer {
	uint16_t at;
	uint8_t bytes;
};

static uint32_t place(struct tables *t, const void *table, size_t size)
{
	uint32_t at = (uint32_t)align_up(t->size, TABLE_ALIGNMENT);

	BUG_ON(!range_ok(at, size, ACPI_ROOM));
	memcpy(t->data + at, table, size);
	t->size = at + size;
	return at;
}

static void add_fixup(struct tables *t, struct fixup fixup)
{
	BUG_ON(t->count == FIXUPS_MOST);
	t->fixups[t->count++] = fixup;
}

/* Fills the header of a table whose contents follow it, and places it. Returns its offset. */
static uint32_t place_table(struct tables *t, const char *signature, unsigned revision, void *table, size_t size,
			    const struct pointer *pointers, unsigned count)
{
	struct acpi_header *h = table;
	uint32_t at;

	*h = (struct acpi_header){
		.length = (uint32_t)size,
		.revision = (uint8_t)revision,
		.oem_revision = 1,
		.creator_revision = 1,
	};
	memcpy(h->signature, signature, 4);
	/* The chipset's names, not ours: a pure machine is told nothing of doppel. */
	memcpy(h->oem_id, "INTEL ", 6);
	memcpy(h->oem_table_id, "440FX   ", 8);
	memcpy(h->creator_id, "INTL", 4);
	at = place(t, table, size);
	for (unsigned n = 0; n < count; n++)
		add_fixup(t, (struct fixup){ .at = at + pointers[n].at, .bytes = pointers[n].bytes });
	add_fixup(t, (struct fixup){ .at = at + (uint32_t)offsetof(struct acpi_header, checksum),
				     .start = at,
				     .size = (uint32_t)size });
	return at;
}

static uint32_t place_dsdt(struct tables *t, const struct pc *pc)
{
	uint8_t table[DSDT_ROOM];
	struct aml aml = { .data = table, .size = sizeof(struct acpi_header), .capacity = sizeof(table) };

	dsdt_build(&aml, pc);
	return place_table(t, "DSDT", 2, table, aml.size, NULL, 0);
}

static uint32_t place_facs(struct tables *t)
{
	struct acpi_facs facs = { .signature = { 'F', 'A', 'C', 'S' }, .length = sizeof(facs), .version = 2 };

	return place(t, &facs, sizeof(facs));
}

/* Registers of `bytes` bytes in the I/O space, accessed as dwords at most. */
static struct acpi_address io_register(uint32_t port, unsigned bytes)
{
	return (struct acpi_address){
		.space = 1,
		.bit_width = (uint8_t)(bytes * 8),
		.access_size = bytes == 1   ? 1
			       : bytes == 2 ? 2
					    : 3,
		.address = port,
	};
}

static uint32_t place_fadt(struct tables *t, const struct pc *pc, uint32_t facs, uint32_t dsdt)
{
	static const struct pointer pointers[] = {
		{ offsetof(struct acpi_fadt, firmware_ctrl), 4 },
		{ offsetof(struct acpi_fadt, dsdt), 4 },
		{ offsetof(struct acpi_fadt, x_dsdt), 8 },
	};
	struct acpi_fadt fadt = {
		.firmware_ctrl = facs,
		.dsdt = dsdt,
		.preferred_pm_profile = 1, /* desktop */
		.sci_int = ACPI_SCI_IRQ,
		/* SMI_CMD 0: always in ACPI mode */
		.pm1a_evt_blk = pc->pm_base,
		.pm1_evt_len = 4,
		.pm1a_cnt_blk = pc->pm_base + 4,
		.pm1_cnt_len = 2,
		.pm_tmr_blk = pc->pm_base + 8,
		.pm_tmr_len = 4,
		.gpe0_blk = ACPI_GPE0_BASE,
		.gpe0_blk_len = 4,
		.p_lvl2_lat = NO_C2,
		.p_lvl3_lat = NO_C3,
		.century = CMOS_CENTURY,
		.iapc_boot_arch = BOOT_ARCH_LEGACY_DEVICES | BOOT_ARCH_8042 | BOOT_ARCH_NO_VGA,
		.flags = FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_FIX_RTC | FADT_RESET_REG_SUP,
		.reset_reg = io_register(ACPI_RESET_PORT, 1),
		.reset_value = ACPI_RESET_VALUE,
		.x_dsdt = dsdt, /* X_FIRMWARE_CTRL stays 0 when the 32-bit one is used */
		.x_pm1a_evt_blk = io_register(pc->pm_base, 4),
		.x_pm1a_cnt_blk = io_register(pc->pm_base + 4, 2),
		.x_pm_tmr_blk = io_register(pc->pm_base + 8, 4),
		.x_gpe0_blk = io_register(ACPI_GPE0_BASE, 4),
	};

	/* PM1 registers are words, whatever the length of their block. */
	fadt.x_pm1a_evt_blk.access_size = 2;
	fadt.x_gpe0_blk.access_size = 1;
	return place_table(t, "FACP", 5, &fadt, sizeof(fadt), pointers, ARRAY_SIZE(pointers));
}

/* MADT flags of an interrupt source: MPS INTI, ACPI 6.4 table 5.26 */
#define INTI_CONFORMS	    0
#define INTI_LEVEL_HIGH	    0xd
#define MADT_LAPIC_ENABLED  1
#define MADT_PCAT_COMPAT    1
#define MADT_ALL_PROCESSORS 0xff

static void madt_local_apics(struct aml *out, const struct pc *pc)
{
	for (unsigned i = 0; i < pc->cpu_count && i < MADT_CPUS_MAX; i++) {
		aml_byte(out, 0);
		aml_byte(out, 8);
		aml_byte(out, i);
		aml_byte(out, i);
		aml_dword(out, MADT_LAPIC_ENABLED);
	}
}

static void madt_override(struct aml *out, unsigned line, unsigned flags)
{
	aml_byte(out, 2);
	aml_byte(out, 10);
	aml_byte(out, 0); /* ISA */
	aml_byte(out, line);
	aml_dword(out, pc_ioapic_input(line));
	aml_word(out, flags);
}

/* Lines that are not what ISA's are: the same input, rising edges. */
static void madt_overrides(struct aml *out)
{
	for (unsigned line = 0; line < PC_ISA_LINES; line++) {
		if (pc_line_is_level(line))
			madt_override(out, line, INTI_LEVEL_HIGH);
		else if (line != PC_CASCADE && pc_ioapic_input(line) != line)
			madt_override(out, line, INTI_CONFORMS);
	}
}

static uint32_t place_madt(struct tables *t, const struct pc *pc)
{
	uint8_t table[0x1000];
	struct aml out = { .data = table, .size = sizeof(struct acpi_header), .capacity = sizeof(table) };

	aml_dword(&out, PC_LAPIC_ADDRESS);
	aml_dword(&out, MADT_PCAT_COMPAT);
	madt_local_apics(&out, pc);
	aml_byte(&out, 1); /* IOAPIC */
	aml_byte(&out, 12);
	aml_byte(&out, pc->ioapic_id);
	aml_byte(&out, 0);
	aml_dword(&out, PC_IOAPIC_ADDRESS);
	aml_dword(&out, 0); /* first GSI */
	madt_overrides(&out);
	aml_byte(&out, 4); /* NMI on LINT1 */
	aml_byte(&out, 6);
	aml_byte(&out, MADT_ALL_PROCESSORS);
	aml_word(&out, INTI_CONFORMS);
	aml_byte(&out, 1);
	return place_table(t, "APIC", 3, table, out.size, NULL, 0);
}

/* IA-PC HPET Specification 1.0a, 3.2.4 */
struct acpi_hpet {
	struct acpi_header header;
	uint32_t id;
	struct acpi_address address;
	uint8_t number;
	uint16_t minimum_tick;
	uint8_t attributes;
} __attribute__((packed));

static uint32_t place_hpet(struct tables *t)
{
	struct acpi_hpet hpet = { .id = HPET_ID, .address = { .address = HPET_ADDRESS } };

	return place_table(t, "HPET", 1, &hpet, sizeof(hpet), NULL, 0);
}

#define ROOTS_MOST 8

static uint32_t place_root(struct tables *t, const uint32_t *tables, unsigned count, bool wide)
{
	uint8_t table[sizeof(struct acpi_header) + ROOTS_MOST * 8];
	size_t size = sizeof(struct acpi_header), entry = wide ? 8 : 4;
	struct pointer pointers[ROOTS_MOST];

	BUG_ON(count > ROOTS_MOST);
	memset(table, 0, sizeof(table));
	for (unsigned i = 0; i < count; i++, size += entry) {
		store_le32(table + size, tables[i]);
		pointers[i] = (struct pointer){ (uint16_t)size, (uint8_t)entry };
	}
	return place_table(t, wide ? "XSDT" : "RSDT", 1, table, size, pointers, count);
}

/* All tables; returns the RSDP with offsets among them, without its checksums. */
static struct acpi_rsdp make_tables(struct tables *t, const struct pc *pc)
{
	uint32_t dsdt = place_dsdt(t, pc), facs = place_facs(t);
	uint32_t roots[ROOTS_MOST] = { place_fadt(t, pc, facs, dsdt), place_madt(t, pc) };
	unsigned count = 2;

	if (pc->hpet)
		roots[count++] = place_hpet(t);
	return (struct acpi_rsdp){
		.signature = { 'R', 'S', 'D', ' ', 'P', 'T', 'R', ' ' },
		.oem_id = { 'I', 'N', 'T', 'E', 'L', ' ' },
		.revision = 2,
		.rsdt = place_root(t, roots, count, false),
		.length = sizeof(struct acpi_rsdp),
		.xsdt = place_root(t, roots, count, true),
	};
}

/* ---- in memory, at once ---- */

static void fix(struct tables *t, uint32_t address)
{
	for (const struct fixup *f = t->fixups; f < t->fixups + t->count; f++)
		if (f->bytes)
			store_le32(t->data + f->at, load_le32(t->data + f->at) + address);
		else
			t->data[f->at] = table_checksum(t->data + f->start, f->size);
}

gpa_t acpi_build(struct guest_mem *mem, const struct pc *pc)
{
	const uint32_t start = (uint32_t)align_up(FIRMWARE_START + sizeof(struct acpi_rsdp), TABLE_ALIGNMENT);
	uint8_t data[ACPI_ROOM] = { 0 };
	struct tables t = { .data = data };
	struct acpi_rsdp rsdp = make_tables(&t, pc);

	_Static_assert(FIRMWARE_START + sizeof(rsdp) + TABLE_ALIGNMENT + ACPI_ROOM <= LEGACY_TABLES_START,
		       "there is room");
	fix(&t, start);
	boot_write(mem, start, data, t.size);
	rsdp.rsdt += start;
	rsdp.xsdt += start;
	rsdp.checksum = table_checksum(&rsdp, RSDP_OLD_SIZE);
	rsdp.extended_checksum = table_checksum(&rsdp, sizeof(rsdp));
	boot_write(mem, FIRMWARE_START, &rsdp, sizeof(rsdp));
	return gpa(FIRMWARE_START);
}

/* ---- for a firmware: what is to be done with the files, as QEMU's "linker/loader" has it ---- */

#define RSDP_FILE   "etc/acpi/rsdp"
#define TABLES_FILE "etc/acpi/tables"

enum loader_command { LOADER_ALLOCATE = 1, LOADER_ADD_POINTER, LOADER_ADD_CHECKSUM };
enum loader_zone { LOADER_ANYWHERE = 1, LOADER_F_SEGMENT };

struct loader_entry {
	uint32_t command;
	union {
		struct {
			char file[FW_CFG_NAME_SIZE];
			uint32_t alignment;
			uint8_t zone;
		} __attribute__((packed)) allocate;
		struct {
			char file[FW_CFG_NAME_SIZE], pointee[FW_CFG_NAME_SIZE];
			uint32_t at;
			uint8_t bytes;
		} __attribute__((packed)) pointer;
		struct {
			char file[FW_CFG_NAME_SIZE];
			uint32_t at, start, size;
		} __attribute__((packed)) checksum;
		uint8_t bytes[124];
	};
} __attribute__((packed));

struct loader {
	uint8_t *data;
	size_t size;
};

static void put_entry(struct loader *l, const struct loader_entry *entry)
{
	_Static_assert(sizeof(*entry) == 128, "as firmware reads it");
	BUG_ON(!range_ok(l->size, sizeof(*entry), FW_CFG_LOADER_SIZE));
	memcpy(l->data + l->size, entry, sizeof(*entry));
	l->size += sizeof(*entry);
}

static void load_file(struct loader *l, const char *file, unsigned alignment, enum loader_zone zone)
{
	struct loader_entry entry = { .command = LOADER_ALLOCATE,
				      .allocate = { .alignment = alignment, .zone = (uint8_t)zone } };

	snprintf(entry.allocate.file, sizeof(entry.allocate.file), "%s", file);
	put_entry(l, &entry);
}

static void load_fixup(struct loader *l, const char *file, struct fixup fixup)
{
	struct loader_entry entry = { .command = fixup.bytes ? LOADER_ADD_POINTER : LOADER_ADD_CHECKSUM };

	if (fixup.bytes) {
		snprintf(entry.pointer.file, sizeof(entry.pointer.file), "%s", file);
		snprintf(entry.pointer.pointee, sizeof(entry.pointer.pointee), TABLES_FILE);
		entry.pointer.at = fixup.at;
		entry.pointer.bytes = fixup.bytes;
	} else {
		snprintf(entry.checksum.file, sizeof(entry.checksum.file), "%s", file);
		entry.checksum.at = fixup.at;
		entry.checksum.start = fixup.start;
		entry.checksum.size = fixup.size;
	}
	put_entry(l, &entry);
}

void boot_make_acpi(const struct boot_config *config, const struct guest_mem *mem, const struct fw_cfg_choices *choices,
		    struct fw_cfg_acpi *files)
{
	static const struct fixup rsdp_fixups[] = {
		{ offsetof(struct acpi_rsdp, rsdt), 4, 0, 0 },
		{ offsetof(struct acpi_rsdp, xsdt), 8, 0, 0 },
		{ offsetof(struct acpi_rsdp, checksum), 0, 0, RSDP_OLD_SIZE },
		{ offsetof(struct acpi_rsdp, extended_checksum), 0, 0, sizeof(struct acpi_rsdp) },
	};
	struct tables t = { .data = files->tables };
	struct loader l = { .data = files->loader };
	struct acpi_rsdp rsdp;
	struct pc pc;

	_Static_assert(sizeof(rsdp) == FW_CFG_RSDP_SIZE && ACPI_ROOM <= FW_CFG_TABLES_SIZE, "it has room");
	pc_describe(&pc, config, mem);
	pc.pm_base = choices->pm_base;
	pc.window_first = choices->window_first;
	pc.window_last = choices->window_last;
	rsdp = make_tables(&t, &pc);
	memcpy(files->rsdp, &rsdp, sizeof(rsdp));
	load_file(&l, RSDP_FILE, 16, LOADER_F_SEGMENT);
	load_file(&l, TABLES_FILE, TABLE_ALIGNMENT, LOADER_ANYWHERE);
	for (unsigned n = 0; n < t.count; n++)
		load_fixup(&l, TABLES_FILE, t.fixups[n]);
	for (unsigned n = 0; n < ARRAY_SIZE(rsdp_fixups); n++)
		load_fixup(&l, RSDP_FILE, rsdp_fixups[n]);
}
