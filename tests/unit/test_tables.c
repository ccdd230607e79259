/*
 * Tables for systems without ACPI, as these look for them and read them: MP, $PIR, SMBIOS. Sums, lengths, and every field that says
 * something of the machine. (ACPI: test_acpi.c.)
 */
#include "lib/tables.h"

#include <errno.h>

#define GIB	 (1ull << 30)
#define SEARCHED 0xf0000u /* from here to 1 MiB */

static struct guest *build_machine(unsigned cpus, uint64_t memory)
{
	const struct boot_config config = { .cpu_count = cpus,
					    .cpu_signature = 0x12345,
					    .cpu_features = 0x6789abcd,
					    .serial_ports = 1,
					    .virtio_windows = 0x80000201 };

	return build(&config, memory);
}

static struct guest *build_said(const char *const *said, unsigned count)
{
	return build(&(struct boot_config){ .cpu_count = 1, .smbios = said, .smbios_count = count }, 1 << 20);
}

/* On 16-byte boundaries; exactly one. */
static const uint8_t *find(const struct guest *g, const char *signature)
{
	const uint8_t *found = NULL;

	for (size_t i = SEARCHED - AREA; i < sizeof(g->area); i += 16) {
		if (memcmp(g->area + i, signature, 4) != 0)
			continue;
		assert_null(found);
		found = g->area + i;
	}
	assert_non_null(found);
	return found;
}

/* ---- MP ---- */

struct seen {
	unsigned cpus, buses, ioapics, isa, pci, local, virtio;
};

static void check_interrupt(const uint8_t *p, unsigned ioapic_id, struct seen *seen)
{
	static const uint8_t lines[] = PIIX_PIRQ_LINES;
	unsigned bus = p[4], source = p[5], input = p[7], flags = load_le16(p + 2);

	assert_int_equal(p[1], 0);
	assert_int_equal(p[6], ioapic_id);
	if (bus == 1 && source >= 16) {
		seen->virtio++;
		assert_int_equal(input, source);
		assert_int_equal(flags, 0xd);
	} else if (bus == 1) {
		bool level = source == 5 || source == 9 || source == 10 || source == 11;

		seen->isa++;
		assert_true(source < 16 && source != 2);
		assert_int_equal(input, source ? source : 2);
		assert_int_equal(flags, level ? 0xd : 0);
	} else {
		seen->pci++;
		assert_int_equal(bus, 0);
		assert_int_equal(flags, 0xd);
		assert_int_equal(input, lines[((source >> 2) + (source & 3) + 3) & 3]);
	}
}

static void check_mp(unsigned cpus)
{
	struct guest *g = build_machine(cpus, 1 << 20);
	const uint8_t *pointer = find(g, "_MP_"), *table, *p;
	unsigned id = cpus < 15 ? cpus : 0, length;
	struct seen seen = { 0 };

	assert_int_equal(pointer[8], 1);
	assert_int_equal(sum(pointer, 16), 0);
	assert_int_equal(pointer[9], 4);
	assert_int_equal(pointer[11], 0); /* there is a table */
	table = at(g, load_le32(pointer + 4), 44);
	assert_memory_equal(table, "PCMP", 4);
	length = load_le16(table + 4);
	at(g, load_le32(pointer + 4), length);
	assert_int_equal(sum(table, length), 0);
	assert_int_equal(table[6], 4);
	assert_true(load_le32(table + 36) == 0xfee00000);
	p = table + 44;
	for (unsigned n = load_le16(table + 34); n; n--) {
		switch (*p) {
		case 0:
			assert_int_equal(p[1], seen.cpus);
			assert_int_equal(p[3], seen.cpus++ ? 1 : 3);
			assert_int_equal(load_le32(p + 4), 0x12345);
			assert_int_equal(load_le32(p + 8), 0x6789abcd);
			p += 12;
			break;
		case 1:
			assert_int_equal(p[1], seen.buses);
			assert_memory_equal(p + 2, seen.buses++ ? "ISA   " : "PCI   ", 6);
			break;
		case 2:
			seen.ioapics++;
			assert_int_equal(p[1], id);
			assert_int_equal(p[3], 1);
			assert_true(load_le32(p + 4) == 0xfec00000);
			break;
		case 3: check_interrupt(p, id, &seen); break;
		case 4:
			assert_int_equal(p[1], seen.local ? 1 : 3); /* LINT0: the 8259s; LINT1: NMI */
			assert_int_equal(p[6], 0xff);
			assert_int_equal(p[7], seen.local++);
			break;
		default: fail_msg("MP entry of type %u", *p);
		}
		p += 8;
	}
	assert_ptr_equal(p, table + length);
	assert_int_equal(seen.cpus, cpus);
	assert_int_equal(seen.buses, 2);
	assert_int_equal(seen.ioapics, 1);
	assert_int_equal(seen.isa, 15);
	assert_int_equal(seen.pci, 128);
	assert_int_equal(seen.local, 2);
	assert_int_equal(seen.virtio, 3); /* windows 0, 9 and 31 */
	destroy(g);
}

static void test_mp(void **state)
{
	(void)state;
	for (unsigned cpus = 1; cpus <= 64; cpus++)
		check_mp(cpus);
}

/* ---- $PIR ---- */

static void test_pir(void **state)
{
	struct guest *g = build_machine(1, 1 << 20);
	const uint8_t *pir = find(g, "$PIR");
	unsigned size = load_le16(pir + 6);

	(void)state;
	at(g, (uint32_t)(AREA + (pir - g->area)), size);
	assert_int_equal(size, 32 + 32 * 16);
	assert_int_equal(sum(pir, size), 0);
	assert_int_equal(load_le16(pir + 4), 0x100);
	assert_int_equal(pir[8], 0);
	assert_int_equal(pir[9], 1 << 3);
	assert_int_equal(load_le32(pir + 12), 0x70008086);
	for (unsigned slot = 0; slot < 32; slot++) {
		const uint8_t *p = pir + 32 + 16 * slot;

		assert_int_equal(p[0], 0);
		assert_int_equal(p[1], slot << 3);
		for (unsigned pin = 0; pin < 4; pin++) {
			assert_int_equal(p[2 + 3 * pin], 0x60 + ((slot + pin + 3) & 3));
			assert_int_equal(load_le16(p + 3 + 3 * pin), 1 << 5 | 1 << 10 | 1 << 11);
		}
	}
	destroy(g);
}

/* ---- SMBIOS ---- */

static const char *string_of(const uint8_t *structure, unsigned n)
{
	const char *s = (const char *)structure + structure[1];

	while (--n)
		s += strlen(s) + 1;
	return s;
}

static const uint8_t *next_structure(const uint8_t *p)
{
	p += p[1];
	while (p[0] || p[1])
		p++;
	return p + 2;
}

static void check_smbios(unsigned cpus, uint64_t memory)
{
	struct guest *g = build_machine(cpus, memory);
	const uint8_t *entry = find(g, "_SM_"), *p;
	unsigned lengths[128] = { 0 }, length = load_le16(entry + 0x16), largest = 0;
	uint64_t mapped = 0;

	assert_int_equal(entry[5], 0x1f);
	assert_int_equal(sum(entry, 0x1f), 0);
	assert_memory_equal(entry + 0x10, "_DMI_", 5);
	assert_int_equal(sum(entry + 0x10, 0xf), 0);
	p = at(g, load_le32(entry + 0x18), length);
	for (unsigned n = load_le16(entry + 0x1c); n; n--) {
		const uint8_t *next = next_structure(p);

		assert_true(p[0] < 128);
		lengths[p[0]] = p[1];
		largest = MAX(largest, (unsigned)(next - p));
		switch (p[0]) {
		case 0:
			assert_string_equal(string_of(p, p[5]), "1.0");
			assert_string_equal(string_of(p, p[8]), "01/01/2026");
			break;
		case 1:
			assert_string_equal(string_of(p, p[4]), "Intel");
			assert_string_equal(string_of(p, p[5]), "440FX");
			break;
		case 4:
			assert_int_equal(load_le32(p + 8), 0x12345);
			assert_int_equal(load_le32(p + 12), 0x6789abcd);
			assert_int_equal(p[0x23], cpus);
			assert_int_equal(p[0x25], cpus);
			break;
		case 16:
			if (memory >> 10 < 0x80000000)
				assert_true(load_le32(p + 7) == memory >> 10);
			else
				assert_true(load_le32(p + 7) == 0x80000000 && load_le64(p + 15) == memory);
			break;
		case 17:
			if (memory >> 20 < 0x7fff)
				assert_int_equal(load_le16(p + 12), memory >> 20);
			else
				assert_true(load_le16(p + 12) == 0x7fff && load_le32(p + 0x1c) == memory >> 20);
			break;
		case 19: mapped += load_le64(p + 0x17) + 1 - load_le64(p + 0xf); break;
		default: break;
		}
		p = next;
	}
	assert_ptr_equal(p, at(g, load_le32(entry + 0x18), length) + length);
	assert_int_equal(load_le16(entry + 8), largest);
	/* lengths of version 2.8 */
	assert_true(lengths[0] == 0x18 && lengths[1] == 0x1b && lengths[3] == 0x16 && lengths[4] == 0x2a);
	assert_true(lengths[16] == 0x17 && lengths[17] == 0x28 && lengths[19] == 0x1f && lengths[127] == 4);
	assert_true(mapped == memory);
	destroy(g);
}

static void test_smbios(void **state)
{
	(void)state;
	check_smbios(1, 2 << 20);
	check_smbios(64, GIB);
	check_smbios(2, 5 * GIB);
	check_smbios(2, 40 * GIB);
}

/* What the user says, with commas, again, and in structures that are there for that alone. */
static void test_smbios_said(void **state)
{
	static const char *const said[] = {
		"type=0,vendor=A,version=B,date=03/04/2025,release=7.8,uefi=on",
		"type=1,manufacturer=Some,, "
		"Inc.,product=P,serial=S-1,sku=K,family=F,uuid=324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87",
		"type=1,product=Q",
		"type=2,product=board,asset=",
		"type=4,sock_pfx=U,max-speed=3000,part=N",
		"type=11,value=first",
		"type=11,value=,value=second",
		"type=17,loc_pfx=L,speed=4800,manufacturer=",
	};
	static const uint8_t uuid[16] = { 0xaf, 0x6e, 0x4e, 0x32, 0xd1, 0xd1, 0xf6, 0x4b,
					  0xbf, 0x41, 0xb9, 0xbb, 0x6c, 0x91, 0xfb, 0x87 };
	struct guest *g = build_said(said, ARRAY_SIZE(said));
	const uint8_t *entry = find(g, "_SM_"), *p = at(g, load_le32(entry + 0x18), load_le16(entry + 0x16));
	unsigned seen = 0;

	(void)state;
	for (unsigned n = load_le16(entry + 0x1c); n; n--, p = next_structure(p)) {
		seen |= p[0] < 32 ? 1u << p[0] : 0;
		switch (p[0]) {
		case 0:
			assert_string_equal(string_of(p, p[4]), "A");
			assert_string_equal(string_of(p, p[8]), "03/04/2025");
			assert_true(p[0x14] == 7 && p[0x15] == 8 && p[0x13] & 8);
			break;
		case 1:
			assert_string_equal(string_of(p, p[4]), "Some, Inc.");
			assert_string_equal(string_of(p, p[5]), "Q");
			assert_string_equal(string_of(p, p[7]), "S-1");
			assert_memory_equal(p + 8, uuid, 16);
			assert_string_equal(string_of(p, p[0x1a]), "F");
			break;
		case 2:
			assert_string_equal(string_of(p, p[5]), "board");
			assert_int_equal(p[8], 0);
			break;
		case 4:
			assert_string_equal(string_of(p, p[4]), "U 0");
			assert_int_equal(load_le16(p + 0x14), 3000);
			assert_string_equal(string_of(p, p[0x22]), "N");
			break;
		case 11:
			assert_int_equal(p[4], 2);
			assert_string_equal(string_of(p, 1), "first");
			assert_string_equal(string_of(p, 2), "second");
			break;
		case 17:
			assert_string_equal(string_of(p, p[0x10]), "L 0");
			assert_int_equal(load_le16(p + 0x15), 4800);
			assert_int_equal(p[0x17], 0);
			break;
		default: break;
		}
	}
	assert_int_equal(seen & (1 << 2 | 1 << 11), 1 << 2 | 1 << 11);
	destroy(g);
}

static void test_smbios_check(void **state)
{
	static const struct {
		const char *spec, *says;
	} wrong[] = {
		{ "", "expected type=N" },
		{ "vendor=A", "expected type=N" },
		{ "type=5", "expected type=N" },
		{ "type=1x", "expected type=N" },
		{ "type=0,product=A", "fields are vendor version" },
		{ "type=0,vendor", "FIELD=VALUE" },
		{ "type=0,release=1", "release" },
		{ "type=0,release=1.256", "release" },
		{ "type=0,uefi=maybe", "uefi" },
		{ "type=1,uuid=324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb8", "uuid" },
		{ "type=1,uuid=324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb878", "uuid" },
		{ "type=4,max-speed=fast", "max-speed" },
		{ "type=17,speed=65536", "speed" },
	};
	struct error err;
	char *longest = calloc(1, 2000);

	(void)state;
	for (unsigned n = 0; n < ARRAY_SIZE(wrong); n++) {
		assert_int_equal(smbios_check(wrong[n].spec, &err), -EINVAL);
		if (!strstr(err.text, wrong[n].says))
			fail_msg("'%s': %s", wrong[n].spec, err.text);
	}
	assert_int_equal(smbios_check("type=3", NULL), 0);
	memset(longest, 'x', 1999);
	memcpy(longest, "type=11,value=", 14);
	assert_int_equal(smbios_check(longest, &err), -EINVAL);
	longest[1536] = 0;
	assert_int_equal(smbios_check(longest, &err), 0);
	free(longest);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mp),	    cmocka_unit_test(test_pir),		 cmocka_unit_test(test_smbios),
		cmocka_unit_test(test_smbios_said), cmocka_unit_test(test_smbios_check),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
