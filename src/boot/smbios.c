/*
 * SMBIOS 2.8 (DMTF DSP0134): what inventories and kernels' tables of quirks look at. Structures that the standard requires, with the
 * chipset's names and not ours: a pure machine is told nothing of doppel.
 */
#include "boot/pc.h"
#include "boot/private.h"

struct entry_point {
	char anchor[4];
	uint8_t checksum, length, major, minor;
	uint16_t largest;
	uint8_t revision, formatted[5];
	char dmi_anchor[5];
	uint8_t dmi_checksum;
	uint16_t table_length;
	uint32_t table;
	uint16_t structures;
	uint8_t bcd_revision;
} __attribute__((packed));

/* The table is written structure by structure: `begin`, fields, strings, `end`. */
struct smbios {
	uint8_t *bytes;
	size_t size, start; /* start: of the structure at hand */
	size_t largest;
	uint16_t structures;
	bool strings;
};

enum type {
	TYPE_BIOS = 0,
	TYPE_SYSTEM = 1,
	TYPE_CHASSIS = 3,
	TYPE_PROCESSOR = 4,
	TYPE_MEMORY_ARRAY = 16,
	TYPE_MEMORY_DEVICE = 17,
	TYPE_MEMORY_MAPPED = 19,
	TYPE_BOOT = 32,
	TYPE_END = 127
};

/* The high byte is the type. */
#define HANDLE(type, n)	    ((uint16_t)((type) << 8 | (n)))
#define HANDLE_NOT_PROVIDED 0xfffe
#define HANDLE_NONE	    0xffff

static void put(struct smbios *s, const void *data, size_t size)
{
	BUG_ON(!range_ok(s->size, size, SMBIOS_ROOM));
	memcpy(s->bytes + s->size, data, size);
	s->size += size;
}

static void put_byte(struct smbios *s, unsigned value)
{
	uint8_t byte = (uint8_t)value;

	put(s, &byte, 1);
}

static void put_word(struct smbios *s, unsigned value)
{
	uint16_t word = (uint16_t)value;

	put(s, &word, 2);
}

static void put_dword(struct smbios *s, uint32_t value) { put(s, &value, 4); }

static void put_qword(struct smbios *s, uint64_t value) { put(s, &value, 8); }

static void begin(struct smbios *s, enum type type, unsigned n)
{
	s->start = s->size;
	s->strings = false;
	put_byte(s, type);
	put_byte(s, 0); /* its length */
	put_word(s, HANDLE(type, n));
}

/* Behind the fields: strings are numbered from 1 in the order in which they come. */
static void put_string(struct smbios *s, const char *text)
{
	if (!s->strings)
		s->bytes[s->start + 1] = (uint8_t)(s->size - s->start);
	s->strings = true;
	put(s, text, strlen(text) + 1);
}

static void end(struct smbios *s)
{
	if (!s->strings) {
		s->bytes[s->start + 1] = (uint8_t)(s->size - s->start);
		put_byte(s, 0);
	}
	put_byte(s, 0);
	s->structures++;
	s->largest = MAX(s->largest, s->size - s->start);
}

/* 7.1 */
static void add_bios(struct smbios *s)
{
	begin(s, TYPE_BIOS, 0);
	put_byte(s, 1);	      /* vendor */
	put_byte(s, 2);	      /* version */
	put_word(s, 0xf000);  /* where it starts */
	put_byte(s, 3);	      /* date */
	put_byte(s, 0);	      /* 64 KiB */
	put_qword(s, BIT(7)); /* PCI */
	put_word(s, BIT(0));  /* ACPI */
	put_byte(s, 1);	      /* release 1.0 */
	put_byte(s, 0);
	put_word(s, 0xffff); /* no embedded controller */
	put_string(s, "Intel");
	put_string(s, "1.0");
	put_string(s, "01/01/2026");
	end(s);
}

/* 7.2 */
static void add_system(struct smbios *s)
{
	static const uint8_t uuid[16] = { 0 }; /* not set */

	begin(s, TYPE_SYSTEM, 0);
	put_byte(s, 1); /* manufacturer */
	put_byte(s, 2); /* product */
	put_byte(s, 3); /* version */
	put_byte(s, 0); /* no serial number */
	put(s, uuid, sizeof(uuid));
	put_byte(s, 6); /* woken up by the power switch */
	put_byte(s, 0); /* no SKU */
	put_byte(s, 0); /* no family */
	put_string(s, "Intel");
	put_string(s, "440FX");
	put_string(s, "1.0");
	end(s);
}

/* 7.4 */
static void add_chassis(struct smbios *s)
{
	begin(s, TYPE_CHASSIS, 0);
	put_byte(s, 1); /* manufacturer */
	put_byte(s, 1); /* kind: other */
	put_byte(s, 0);
	put_byte(s, 0);
	put_byte(s, 0);
	put_byte(s, 3); /* boot-up, power supply, thermal state: safe */
	put_byte(s, 3);
	put_byte(s, 3);
	put_byte(s, 2); /* security: unknown */
	put_dword(s, 0);
	put_byte(s, 0); /* height */
	put_byte(s, 0); /* power cords */
	put_byte(s, 0); /* contained elements */
	put_byte(s, 0);
	put_byte(s, 0); /* no SKU */
	put_string(s, "Intel");
	end(s);
}

/* 7.5: one package of all vCPUs, as CPUID says */
static void add_processor(struct smbios *s, const struct pc *pc)
{
	begin(s, TYPE_PROCESSOR, 0);
	put_byte(s, 1); /* socket */
	put_byte(s, 3); /* a central processor */
	put_byte(s, 1); /* family: other */
	put_byte(s, 2); /* manufacturer */
	put_dword(s, pc->cpu_signature);
	put_dword(s, pc->cpu_features);
	put_byte(s, 0); /* no version */
	put_byte(s, 0); /* voltage unknown */
	put_word(s, 0); /* clocks unknown */
	put_word(s, 0);
	put_word(s, 0);
	put_byte(s, 0x41); /* populated, enabled */
	put_byte(s, 1);	   /* upgrade: other */
	put_word(s, HANDLE_NONE);
	put_word(s, HANDLE_NONE);
	put_word(s, HANDLE_NONE); /* caches */
	put_byte(s, 0);
	put_byte(s, 0);
	put_byte(s, 0);		    /* no serial number, asset tag, part number */
	put_byte(s, pc->cpu_count); /* cores, enabled ones, threads */
	put_byte(s, pc->cpu_count);
	put_byte(s, pc->cpu_count);
	put_word(s, BIT(2)); /* 64 bits */
	put_word(s, 1);	     /* family, again */
	put_string(s, "CPU 0");
	put_string(s, "Intel");
	end(s);
}

#define KIB_EXTENDED 0x80000000u /* then the extended field has it */
#define MB_EXTENDED  0x7fff
#define MB_UNIT	     20

/* 7.17, 7.18: one device holds it all */
static void add_memory(struct smbios *s, const struct pc *pc)
{
	uint64_t kib = pc->memory >> 10, mib = pc->memory >> MB_UNIT;

	begin(s, TYPE_MEMORY_ARRAY, 0);
	put_byte(s, 1); /* other */
	put_byte(s, 3); /* system memory */
	put_byte(s, 6); /* multi-bit correction */
	put_dword(s, kib < KIB_EXTENDED ? (uint32_t)kib : KIB_EXTENDED);
	put_word(s, HANDLE_NOT_PROVIDED);
	put_word(s, 1);
	put_qword(s, kib < KIB_EXTENDED ? 0 : pc->memory);
	end(s);

	begin(s, TYPE_MEMORY_DEVICE, 0);
	put_word(s, HANDLE(TYPE_MEMORY_ARRAY, 0));
	put_word(s, HANDLE_NOT_PROVIDED);
	put_word(s, 0xffff); /* widths unknown */
	put_word(s, 0xffff);
	put_word(s, mib < MB_EXTENDED ? (unsigned)mib : MB_EXTENDED);
	put_byte(s, 9); /* DIMM */
	put_byte(s, 0); /* of no set */
	put_byte(s, 1); /* locator */
	put_byte(s, 0);
	put_byte(s, 7);	     /* RAM */
	put_word(s, BIT(1)); /* other */
	put_word(s, 0);
	put_byte(s, 2); /* manufacturer */
	put_byte(s, 0);
	put_byte(s, 0);
	put_byte(s, 0);
	put_byte(s, 0);
	put_dword(s, mib < MB_EXTENDED ? 0 : (uint32_t)mib);
	put_word(s, 0); /* speed, voltages unknown */
	put_word(s, 0);
	put_word(s, 0);
	put_word(s, 0);
	put_string(s, "DIMM 0");
	put_string(s, "Intel");
	end(s);
}

/* 7.20: of each range of RAM from 1 MiB on, and of the base memory with it */
static void add_mapped_addresses(struct smbios *s, const struct guest_mem *mem)
{
	struct memory_range map[MEMORY_RANGES_MAX];
	unsigned ranges = boot_memory_map(mem, map), n = 0;

	for (unsigned i = 0; i < ranges; i++) {
		uint64_t first = map[i].start == FIRMWARE_END ? 0 : map[i].start, last = map[i].start + map[i].size;

		if (map[i].type != MEMORY_RAM || map[i].start < FIRMWARE_END)
			continue;
		begin(s, TYPE_MEMORY_MAPPED, n++);
		put_dword(
			s,
			UINT32_MAX); /* KiB that need more than 32 bits are in the extended fields; we use these always */
		put_dword(s, UINT32_MAX);
		put_word(s, HANDLE(TYPE_MEMORY_ARRAY, 0));
		put_byte(s, 1);
		put_qword(s, first);
		put_qword(s, last - 1);
		end(s);
	}
}

static void add_ends(struct smbios *s)
{
	static const uint8_t status[] = { 0, 0, 0, 0, 0, 0, 0 }; /* six reserved ones, then: no errors */

	begin(s, TYPE_BOOT, 0);
	put(s, status, sizeof(status));
	end(s);
	begin(s, TYPE_END, 0);
	end(s);
}

void smbios_make(const struct guest_mem *mem, const struct pc *pc, uint8_t entry[SMBIOS_ENTRY_SIZE],
		 uint8_t tables[SMBIOS_ROOM], size_t *size)
{
	struct smbios s = { .bytes = tables };
	struct entry_point e = {
		.anchor = { '_', 'S', 'M', '_' },
		.length = sizeof(e),
		.major = 2,
		.minor = 8,
		.dmi_anchor = { '_', 'D', 'M', 'I', '_' },
		.bcd_revision = 0x28,
	};

	_Static_assert(sizeof(e) == SMBIOS_ENTRY_SIZE, "as the standard says");
	add_bios(&s);
	add_system(&s);
	add_chassis(&s);
	add_processor(&s, pc);
	add_memory(&s, pc);
	add_mapped_addresses(&s, mem);
	add_ends(&s);
	e.largest = (uint16_t)s.largest;
	e.structures = s.structures;
	e.table_length = (uint16_t)s.size;
	memcpy(entry, &e, sizeof(e));
	*size = s.size;
}

void smbios_build(struct table_area *area, const struct pc *pc)
{
	uint8_t entry[SMBIOS_ENTRY_SIZE], tables[SMBIOS_ROOM];
	struct entry_point e;
	size_t size;

	smbios_make(area->mem, pc, entry, tables, &size);
	memcpy(&e, entry, sizeof(e));
	e.table = table_place(area, tables, size, 16);
	e.dmi_checksum = table_checksum(e.dmi_anchor, sizeof(e) - offsetof(struct entry_point, dmi_anchor));
	e.checksum = table_checksum(&e, sizeof(e));
	table_place(area, &e, sizeof(e), 16);
}
