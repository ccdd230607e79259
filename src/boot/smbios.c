/*
 * SMBIOS 2.8 (DMTF DSP0134): what inventories and kernels' tables of quirks look at. Structures that the standard requires, with the
 * chipset's names and not ours: a pure machine is told nothing of doppel. The user may have said otherwise (--smbios), by QEMU's names of fields.
 */
#include "boot/pc.h"
#include "boot/private.h"

#include <errno.h>
#include <stdlib.h>

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

/* The table is written structure by structure: `begin`, fields, `end`. */
#define STRINGS_MOST 64u
struct smbios {
	const struct pc *pc;
	uint8_t *bytes;
	size_t size, start; /* start: of the structure at hand */
	size_t largest;
	uint16_t structures;
	unsigned type; /* of the structure at hand, as what follows */
	struct {
		const char *text, *suffix; /* text: up to a comma, of two commas each is one */
	} strings[STRINGS_MOST];
	unsigned string_count;
};

enum type {
	TYPE_BIOS = 0,
	TYPE_SYSTEM = 1,
	TYPE_BOARD = 2,
	TYPE_CHASSIS = 3,
	TYPE_PROCESSOR = 4,
	TYPE_OEM_STRINGS = 11,
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
	s->type = type;
	s->string_count = 0;
	put_byte(s, type);
	put_byte(s, 0); /* its length */
	put_word(s, HANDLE(type, n));
}

static void put_string(struct smbios *s, const char *text, const char *suffix)
{
	for (; *text && (*text != ',' || text[1] == ','); text++) {
		text += *text == ',';
		put_byte(s, (uint8_t)*text);
	}
	put(s, suffix, strlen(suffix) + 1);
}

static void end(struct smbios *s)
{
	s->bytes[s->start + 1] = (uint8_t)(s->size - s->start);
	for (unsigned n = 0; n < s->string_count; n++)
		put_string(s, s->strings[n].text, s->strings[n].suffix);
	if (!s->string_count)
		put_byte(s, 0);
	put_byte(s, 0);
	s->structures++;
	s->largest = MAX(s->largest, s->size - s->start);
}

/* ---- what the user said ---- */

#define SPEC_MOST 1536u /* characters, so that all of them have room in the tables */
_Static_assert(SMBIOS_ROOM >= BOOT_SMBIOS_MOST * SPEC_MOST + 0x1000, "and what there is otherwise, too");

/* _(type, its fields) */
#define KNOWN_FIELDS(_)                                                                                                \
	_(TYPE_BIOS, "vendor version date release uefi")                                                               \
	_(TYPE_SYSTEM, "manufacturer product version serial uuid sku family")                                          \
	_(TYPE_BOARD, "manufacturer product version serial asset location")                                            \
	_(TYPE_CHASSIS, "manufacturer version serial asset sku")                                                       \
	_(TYPE_PROCESSOR, "sock_pfx manufacturer version serial asset part max-speed current-speed")                   \
	_(TYPE_OEM_STRINGS, "value")                                                                                   \
	_(TYPE_MEMORY_DEVICE, "loc_pfx bank manufacturer serial asset part speed")

struct option {
	const char *name, *value; /* value NULL: it has none; else up to a comma that stands alone */
	size_t length;		  /* of the name */
};

/* False: *at is the end. */
static bool next_option(const char **at, struct option *o)
{
	const char *p = *at;

	o->name = p;
	o->length = strcspn(p, "=,");
	p += o->length;
	o->value = *p == '=' ? p + 1 : NULL;
	while (*p && (*p != ',' || p[1] == ','))
		p += *p == ',' ? 2 : 1;
	*at = *p ? p + 1 : p;
	return *o->name;
}

static bool is_named(const struct option *o, const char *name)
{
	return o->length == strlen(name) && !strncmp(o->name, name, o->length);
}

static const char *fields_of(unsigned long type)
{
	switch (type) {
#define _(type, fields)                                                                                                \
	case type: return fields;
		KNOWN_FIELDS(_)
#undef _
	default: return NULL;
	}
}

static bool is_among(const struct option *o, const char *fields)
{
	for (; *fields; fields += strcspn(fields, " "), fields += *fields == ' ')
		if (strcspn(fields, " ") == o->length && !strncmp(fields, o->name, o->length))
			return true;
	return false;
}

/* A value without commas, as a string. */
static void copy_value(const char *value, char *text, size_t size)
{
	snprintf(text, size, "%.*s", (int)strcspn(value, ","), value);
}

static bool value_is_right(const struct option *o)
{
	uint8_t uuid[GUID_SIZE];
	char text[40], rest;
	unsigned a, b;

	copy_value(o->value, text, sizeof(text));
	if (is_named(o, "uuid"))
		return guid_parse(text, uuid);
	if (is_named(o, "release"))
		return sscanf(text, "%3u.%3u%c", &a, &b, &rest) == 2 && a <= UINT8_MAX && b <= UINT8_MAX;
	if (is_named(o, "uefi"))
		return !strcmp(text, "on") || !strcmp(text, "off");
	if (is_named(o, "speed") || is_named(o, "max-speed") || is_named(o, "current-speed"))
		return sscanf(text, "%5u%c", &a, &rest) == 1 && a <= UINT16_MAX;
	return true;
}

/* A spec's type, from what it begins with; NULL: it is none of ours. */
static const char *fields_of_spec(const char **spec, unsigned *type)
{
	struct option o;
	unsigned long number;
	char *rest;

	if (!next_option(spec, &o) || !is_named(&o, "type") || !o.value || *o.value < '0' || *o.value > '9')
		return NULL;
	number = strtoul(o.value, &rest, 10);
	*type = (unsigned)number;
	return !*rest || *rest == ',' ? fields_of(number) : NULL;
}

int smbios_check(const char *spec, struct error *err)
{
	const char *at = spec, *fields;
	struct option o;
	unsigned type;

	if (strlen(spec) > SPEC_MOST)
		return error_set(err, EINVAL, "it has %zu characters; expected at most %u", strlen(spec), SPEC_MOST);
	fields = fields_of_spec(&at, &type);
	if (!fields)
		return error_set(err, EINVAL,
				 "'%.64s'; expected type=N,FIELD=VALUE... with a type of 0, 1, 2, 3, 4, 11 or 17",
				 spec);
	while (next_option(&at, &o)) {
		if (!is_among(&o, fields) || !o.value)
			return error_set(err, EINVAL, "'%.*s' is no FIELD=VALUE of type %u; fields are %s",
					 (int)MIN(o.length, 64), o.name, type, fields);
		if (!value_is_right(&o))
			return error_set(err, EINVAL, "field '%.*s': '%.64s' is not possible", (int)o.length, o.name,
					 o.value);
	}
	return 0;
}

/* The nth value of a field of the structure at hand, or the last one for UINT_MAX; NULL: nobody said any. */
#define LAST UINT32_MAX
static const char *said(const struct smbios *s, const char *field, uint32_t nth)
{
	const char *found = NULL;
	struct option o;
	unsigned type;

	for (unsigned n = 0; n < s->pc->smbios_count; n++) {
		const char *at = s->pc->smbios[n];

		if (!fields_of_spec(&at, &type) || type != s->type)
			continue;
		while (next_option(&at, &o))
			if (is_named(&o, field)) {
				found = o.value;
				if (!nth--)
					return found;
			}
	}
	return nth > UINT32_MAX / 2 ? found : NULL;
}

static bool says_anything(const struct smbios *s, unsigned wanted)
{
	unsigned type;

	for (unsigned n = 0; n < s->pc->smbios_count; n++) {
		const char *at = s->pc->smbios[n];

		if (fields_of_spec(&at, &type) && type == wanted)
			return true;
	}
	return false;
}

/* A field that is the number of a string; 0, if that is empty. suffix: behind what either said. */
static void put_text_with(struct smbios *s, const char *field, const char *otherwise, const char *suffix)
{
	const char *text = said(s, field, LAST);

	text = text ? text : otherwise;
	if ((!*text || (*text == ',' && text[1] != ',')) && !*suffix) {
		put_byte(s, 0);
		return;
	}
	BUG_ON(s->string_count == STRINGS_MOST);
	s->strings[s->string_count].text = text;
	s->strings[s->string_count].suffix = suffix;
	put_byte(s, ++s->string_count);
}

static void put_text(struct smbios *s, const char *field, const char *otherwise)
{
	put_text_with(s, field, otherwise, "");
}

static unsigned said_number(const struct smbios *s, const char *field)
{
	const char *value = said(s, field, LAST);

	return value ? (unsigned)strtoul(value, NULL, 10) : 0;
}

static void put_uuid(struct smbios *s)
{
	const char *value = said(s, "uuid", LAST);
	uint8_t uuid[GUID_SIZE] = { 0 }; /* not set */
	char text[40];

	if (value) {
		copy_value(value, text, sizeof(text));
		guid_parse(text, uuid);
	}
	put(s, uuid, sizeof(uuid));
}

/* ---- structures ---- */

/* 7.1 */
static void add_bios(struct smbios *s)
{
	const char *release, *uefi;
	unsigned major = 1, minor = 0;

	begin(s, TYPE_BIOS, 0);
	release = said(s, "release", LAST);
	if (release)
		sscanf(release, "%u.%u", &major, &minor);
	uefi = said(s, "uefi", LAST);
	put_text(s, "vendor", "Intel");
	put_text(s, "version", "1.0");
	put_word(s, 0xf000); /* where it starts */
	put_text(s, "date", "01/01/2026");
	put_byte(s, 0);							       /* 64 KiB */
	put_qword(s, BIT(7));						       /* PCI */
	put_word(s, BIT(0) | (uefi && !strncmp(uefi, "on", 2) ? BIT(11) : 0)); /* ACPI; UEFI */
	put_byte(s, major);
	put_byte(s, minor);
	put_word(s, 0xffff); /* no embedded controller */
	end(s);
}

/* 7.2 */
static void add_system(struct smbios *s)
{
	begin(s, TYPE_SYSTEM, 0);
	put_text(s, "manufacturer", "Intel");
	put_text(s, "product", "440FX");
	put_text(s, "version", "1.0");
	put_text(s, "serial", "");
	put_uuid(s);
	put_byte(s, 6); /* woken up by the power switch */
	put_text(s, "sku", "");
	put_text(s, "family", "");
	end(s);
}

/* 7.3: only where somebody describes one */
static void add_board(struct smbios *s)
{
	if (!says_anything(s, TYPE_BOARD))
		return;
	begin(s, TYPE_BOARD, 0);
	put_text(s, "manufacturer", "Intel");
	put_text(s, "product", "");
	put_text(s, "version", "");
	put_text(s, "serial", "");
	put_text(s, "asset", "");
	put_byte(s, BIT(0)); /* it hosts the others */
	put_text(s, "location", "");
	put_word(s, HANDLE(TYPE_CHASSIS, 0));
	put_byte(s, 10); /* a motherboard */
	put_byte(s, 0);	 /* that lists nothing */
	end(s);
}

/* 7.4 */
static void add_chassis(struct smbios *s)
{
	begin(s, TYPE_CHASSIS, 0);
	put_text(s, "manufacturer", "Intel");
	put_byte(s, 1); /* kind: other */
	put_text(s, "version", "");
	put_text(s, "serial", "");
	put_text(s, "asset", "");
	put_byte(s, 3); /* boot-up, power supply, thermal state: safe */
	put_byte(s, 3);
	put_byte(s, 3);
	put_byte(s, 2); /* security: unknown */
	put_dword(s, 0);
	put_byte(s, 0); /* height */
	put_byte(s, 0); /* power cords */
	put_byte(s, 0); /* contained elements */
	put_byte(s, 0);
	put_text(s, "sku", "");
	end(s);
}

/* 7.5: one package of all vCPUs, as CPUID says */
static void add_processor(struct smbios *s, const struct pc *pc)
{
	begin(s, TYPE_PROCESSOR, 0);
	put_text_with(s, "sock_pfx", "CPU", " 0");
	put_byte(s, 3); /* a central processor */
	put_byte(s, 1); /* family: other */
	put_text(s, "manufacturer", "Intel");
	put_dword(s, pc->cpu_signature);
	put_dword(s, pc->cpu_features);
	put_text(s, "version", "");
	put_byte(s, 0); /* voltage unknown */
	put_word(s, 0); /* clocks unknown */
	put_word(s, said_number(s, "max-speed"));
	put_word(s, said_number(s, "current-speed"));
	put_byte(s, 0x41); /* populated, enabled */
	put_byte(s, 1);	   /* upgrade: other */
	put_word(s, HANDLE_NONE);
	put_word(s, HANDLE_NONE);
	put_word(s, HANDLE_NONE); /* caches */
	put_text(s, "serial", "");
	put_text(s, "asset", "");
	put_text(s, "part", "");
	put_byte(s, pc->cpu_count); /* cores, enabled ones, threads */
	put_byte(s, pc->cpu_count);
	put_byte(s, pc->cpu_count);
	put_word(s, BIT(2)); /* 64 bits */
	put_word(s, 1);	     /* family, again */
	end(s);
}

/* 7.12: as many as there are */
static void add_oem_strings(struct smbios *s)
{
	const char *value;

	if (!says_anything(s, TYPE_OEM_STRINGS))
		return;
	begin(s, TYPE_OEM_STRINGS, 0);
	for (unsigned n = 0; n < STRINGS_MOST && (value = said(s, "value", n)); n++)
		if (*value && (*value != ',' || value[1] == ',')) {
			s->strings[s->string_count].text = value;
			s->strings[s->string_count++].suffix = "";
		}
	put_byte(s, s->string_count);
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
	put_text_with(s, "loc_pfx", "DIMM", " 0");
	put_text(s, "bank", "");
	put_byte(s, 7);	     /* RAM */
	put_word(s, BIT(1)); /* other */
	put_word(s, said_number(s, "speed"));
	put_text(s, "manufacturer", "Intel");
	put_text(s, "serial", "");
	put_text(s, "asset", "");
	put_text(s, "part", "");
	put_byte(s, 0);
	put_dword(s, mib < MB_EXTENDED ? 0 : (uint32_t)mib);
	put_word(s, said_number(s, "speed")); /* voltages unknown */
	put_word(s, 0);
	put_word(s, 0);
	put_word(s, 0);
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
	struct smbios s = { .pc = pc, .bytes = tables };
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
	add_board(&s);
	add_chassis(&s);
	add_processor(&s, pc);
	add_oem_strings(&s);
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
