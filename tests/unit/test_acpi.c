/*
 * ACPI tables: an operating system's way through them, from the search for the RSDP to every entry of the MADT, with checksums
 * and lengths checked, for every number of CPUs.
 */
#define _GNU_SOURCE
#include "lib/tables.h"

#define HEADER_SIZE 36

static struct guest *build_cpus(unsigned count) { return build(&(struct boot_config){ .cpu_count = count }, 1 << 20); }

/* The table there, if its header is right. */
static const uint8_t *table_at(const struct guest *g, uint64_t address, const char *signature)
{
	const uint8_t *p = at(g, address, HEADER_SIZE);
	uint32_t length = load_le32(p + 4);

	assert_memory_equal(p, signature, 4);
	assert_true(length >= HEADER_SIZE);
	at(g, address, length);
	assert_int_equal(sum(p, length), 0);
	assert_memory_equal(p + 10, "INTEL ", 6);
	return p;
}

/* As operating systems search: on 16-byte boundaries. */
static const uint8_t *find_rsdp(const struct guest *g)
{
	for (size_t i = 0; i < sizeof(g->area); i += 16)
		if (!memcmp(g->area + i, "RSD PTR ", 8) && !sum(g->area + i, 20))
			return g->area + i;
	return NULL;
}

static void test_rsdp(void **state)
{
	struct guest *g = build_cpus(1);
	const uint8_t *rsdp = find_rsdp(g);

	(void)state;
	assert_ptr_equal(rsdp, at(g, g->rsdp.v, 36));
	assert_int_equal(rsdp[15], 2);
	assert_int_equal(load_le32(rsdp + 20), 36);
	assert_int_equal(sum(rsdp, 36), 0);
	destroy(g);
}

static void test_roots_agree(void **state)
{
	struct guest *g = build_cpus(3);
	const uint8_t *rsdp = find_rsdp(g);
	const uint8_t *rsdt = table_at(g, load_le32(rsdp + 16), "RSDT");
	const uint8_t *xsdt = table_at(g, load_le64(rsdp + 24), "XSDT");
	unsigned count = (load_le32(rsdt + 4) - HEADER_SIZE) / 4;

	(void)state;
	assert_int_equal(count, 2);
	assert_int_equal((load_le32(xsdt + 4) - HEADER_SIZE) / 8, count);
	for (unsigned i = 0; i < count; i++)
		assert_true(load_le32(rsdt + HEADER_SIZE + 4 * i) == load_le64(xsdt + HEADER_SIZE + 8 * i));
	table_at(g, load_le32(rsdt + HEADER_SIZE), "FACP");
	table_at(g, load_le32(rsdt + HEADER_SIZE + 4), "APIC");
	destroy(g);
}

static const uint8_t *find_table(const struct guest *g, unsigned index, const char *signature)
{
	const uint8_t *xsdt = table_at(g, load_le64(find_rsdp(g) + 24), "XSDT");

	return table_at(g, load_le64(xsdt + HEADER_SIZE + 8 * index), signature);
}

/* Generic address structure in the I/O space. */
static void check_register(const uint8_t *p, unsigned port, unsigned bytes)
{
	assert_int_equal(p[0], 1);
	assert_int_equal(p[1], bytes * 8);
	assert_int_equal(p[2], 0);
	assert_true(load_le64(p + 4) == port);
}

/* Offsets of ACPI 6.4 table 5.9. */
static void test_fadt(void **state)
{
	struct guest *g = build_cpus(1);
	const uint8_t *fadt = find_table(g, 0, "FACP");
	const uint8_t *facs;

	(void)state;
	assert_int_equal(fadt[8], 5);
	assert_int_equal(load_le32(fadt + 4), 268);
	assert_int_equal(load_le16(fadt + 46), ACPI_SCI_IRQ);
	assert_int_equal(load_le32(fadt + 48), 0); /* no SMI command: always ACPI */
	assert_int_equal(load_le32(fadt + 56), ACPI_PM_BASE);
	assert_int_equal(load_le32(fadt + 64), ACPI_PM_BASE + 4);
	assert_int_equal(load_le32(fadt + 76), ACPI_PM_BASE + 8);
	assert_int_equal(load_le32(fadt + 80), ACPI_GPE0_BASE);
	assert_int_equal(fadt[88], 4);
	assert_int_equal(fadt[89], 2);
	assert_int_equal(fadt[91], 4);
	assert_int_equal(fadt[92], 4);
	assert_int_equal(fadt[108], 0x32);
	assert_false(load_le32(fadt + 112) & BIT(4)); /* fixed power button */
	assert_true(load_le32(fadt + 112) & BIT(10)); /* reset register */
	check_register(fadt + 116, ACPI_RESET_PORT, 1);
	assert_int_equal(fadt[128], ACPI_RESET_VALUE);
	check_register(fadt + 148, ACPI_PM_BASE, 4);
	check_register(fadt + 172, ACPI_PM_BASE + 4, 2);
	check_register(fadt + 208, ACPI_PM_BASE + 8, 4);
	check_register(fadt + 220, ACPI_GPE0_BASE, 4);
	assert_true(load_le64(fadt + 140) == load_le32(fadt + 40));
	table_at(g, load_le32(fadt + 40), "DSDT");
	facs = at(g, load_le32(fadt + 36), 64);
	assert_memory_equal(facs, "FACS", 4);
	assert_int_equal(load_le32(facs + 4), 64);
	assert_int_equal(load_le32(fadt + 36) % 64, 0);
	destroy(g);
}

/* Package length of two to four bytes, ACPI 6.4, 20.2.4; *bytes: how many it has. */
static uint32_t package_length(const uint8_t *p, unsigned *bytes)
{
	unsigned more = p[0] >> 6;
	uint32_t length = more ? p[0] & 0xf : p[0] & 0x3f;

	for (unsigned i = 0; i < more; i++)
		length |= (uint32_t)p[1 + i] << (4 + 8 * i);
	*bytes = 1 + more;
	return length;
}

/* Walks what encloses others and checks that lengths nest and end where their parents do. Returns the number of devices. */
static unsigned walk_devices(const uint8_t *p, const uint8_t *end)
{
	unsigned devices = 0;

	for (; p + 6 < end; p++) {
		unsigned bytes;
		uint32_t length;

		if (p[0] != 0x5b || p[1] != 0x82)
			continue;
		length = package_length(p + 2, &bytes);
		assert_true(length >= bytes + 4 && length <= (size_t)(end - (p + 2)));
		for (unsigned i = 0; i < 4; i++)
			assert_non_null(strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789", p[2 + bytes + i]));
		devices += 1 + walk_devices(p + 2 + bytes, p + 2 + length);
		p += 1 + length;
	}
	return devices;
}

static void check_dsdt(unsigned cpu_count)
{
	struct guest *g = build_cpus(cpu_count);
	const uint8_t *dsdt = table_at(g, load_le32(find_table(g, 0, "FACP") + 40), "DSDT");
	const uint8_t *p = dsdt + HEADER_SIZE, *end = dsdt + load_le32(dsdt + 4);
	unsigned bytes, processors = 0;
	uint32_t length;

	/* Name (\_S5, Package (4) {...}) */
	assert_memory_equal(p, "\x08\\_S5_\x12", 7);
	p += 7 + package_length(p + 7, &bytes);
	/* Scope (\_SB): devices; then Scope (\_SB.PCI0): the interrupt routing; and nothing else */
	assert_int_equal(*p++, 0x10);
	length = package_length(p, &bytes);
	assert_memory_equal(p + bytes, "\\_SB_", 5);
	/* PCI0, ISA, COM1, COM2, RTC, keyboard, mouse, four links */
	assert_int_equal(walk_devices(p + bytes, p + length), 11);
	for (const uint8_t *q = p; q + 1 < p + length; q++)
		processors += q[0] == 0x5b && q[1] == 0x83;
	assert_int_equal(processors, cpu_count);
	p += length;
	assert_int_equal(*p++, 0x10);
	length = package_length(p, &bytes);
	assert_memory_equal(p + bytes, "\\\x2e_SB_PCI0\x08_PRT\x12", 16);
	assert_ptr_equal(p + length, end);
	destroy(g);
}

static void test_dsdt(void **state)
{
	(void)state;
	check_dsdt(1);
	check_dsdt(2);
	check_dsdt(64);
}

/* What an operating system needs of virtio devices that are not on PCI: ID, window, level-triggered interrupt. */
static void test_virtio_devices(void **state)
{
	struct guest *g = build(&(struct boot_config){ .cpu_count = 1, .virtio_windows = 0x80000201 }, 1 << 20);
	const uint8_t *dsdt = table_at(g, load_le32(find_table(g, 0, "FACP") + 40), "DSDT");
	static const uint8_t windows[] = { 0, 9, 31 };
	unsigned found = 0;

	(void)state;
	for (const uint8_t *p = dsdt; p + 64 < dsdt + load_le32(dsdt + 4); p++) {
		uint8_t crs[] = { 0x86, 9, 0, 1, 0, 0, 0xc1, 0xfe, 0, 0x10, 0, 0, 0x89, 6, 0, 9, 1, 0, 0, 0, 0, 0x79 };

		if (memcmp(p, "\x08_HID\x0dLNRO0005", 15) != 0)
			continue;
		assert_in_range(found, 0, 2);
		assert_memory_equal(p + 15, "\x08_UID", 5);
		store_le32(crs + 4, 0xfec10000u + windows[found] * 0x1000u);
		store_le32(crs + 17, 16u + windows[found] % 8);
		/* behind the number, of one byte or two, Name (_CRS, Buffer () { */
		p += windows[found] > 1 ? 22 : 21;
		assert_memory_equal(p, "\x08_CRS\x11", 6);
		assert_memory_equal(p + 12, crs, sizeof(crs));
		found++;
	}
	assert_int_equal(found, ARRAY_SIZE(windows));
	destroy(g);
}

/* IA-PC HPET Specification 1.0a, 3.2.4; and devices that are there for who asks for them */
static void test_hpet_and_generation_id(void **state)
{
	static const uint8_t address[] = { 0, 0, 0, 0, 0x00, 0x00, 0xd0, 0xfe, 0, 0, 0, 0 };
	static const uint8_t integers[] = {
		2, 0x0c, 0, 0, 0xd1, 0xfe, 0
	}; /* of a package: the address, and its upper half */
	struct guest *g = build(&(struct boot_config){ .cpu_count = 1, .hpet = true, .vmgenid = true }, 1 << 20);
	const uint8_t *hpet = find_table(g, 2, "HPET");
	const uint8_t *dsdt = table_at(g, load_le32(find_table(g, 0, "FACP") + 40), "DSDT");
	size_t size = load_le32(dsdt + 4);

	(void)state;
	assert_int_equal(load_le32(hpet + 4), 56);
	assert_int_equal(load_le32(hpet + 36), 0x8086a201);
	assert_memory_equal(hpet + 40, address, sizeof(address));
	assert_non_null(memmem(dsdt, size, "VM_Gen_Counter", 15));
	assert_non_null(memmem(dsdt, size, integers, sizeof(integers)));
	assert_non_null(memmem(dsdt, size, "_E05", 4));
	destroy(g);
}

static void check_madt(unsigned cpu_count)
{
	struct guest *g = build_cpus(cpu_count);
	const uint8_t *madt = find_table(g, 1, "APIC");
	const uint8_t *p = madt + 44, *end = madt + load_le32(madt + 4);
	unsigned cpus = 0, ioapics = 0, overrides = 0, nmis = 0;

	assert_int_equal(load_le32(madt + 36), 0xfee00000);
	assert_int_equal(load_le32(madt + 40), 1); /* 8259s too */
	for (; p < end; p += p[1]) {
		assert_true(p[1] >= 6 && p[1] <= end - p);
		switch (p[0]) {
		case 0:
			assert_int_equal(p[1], 8);
			assert_int_equal(p[3], cpus++);
			assert_int_equal(load_le32(p + 4), 1);
			break;
		case 1:
			ioapics++;
			assert_int_equal(p[2], cpu_count < 15 ? cpu_count : 0);
			assert_int_equal(load_le32(p + 4), 0xfec00000);
			assert_int_equal(load_le32(p + 8), 0);
			break;
		case 2:
			overrides++;
			if (p[3] == 0)
				assert_int_equal(load_le32(p + 4), 2);
			else
				assert_int_equal(load_le32(p + 4), p[3]);
			assert_int_equal(load_le16(p + 8), p[3] == 0 ? 0 : 0xd);
			break;
		case 4:
			nmis++;
			assert_int_equal(p[2], 0xff);
			assert_int_equal(p[5], 1);
			break;
		default: fail_msg("MADT entry of type %u", p[0]);
		}
	}
	assert_ptr_equal(p, end);
	assert_int_equal(cpus, cpu_count);
	assert_int_equal(ioapics, 1);
	assert_int_equal(overrides, 5);
	assert_int_equal(nmis, 1);
	destroy(g);
}

static void test_madt(void **state)
{
	(void)state;
	for (unsigned n = 1; n <= 64; n++)
		check_madt(n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rsdp),	       cmocka_unit_test(test_roots_agree),
		cmocka_unit_test(test_fadt),	       cmocka_unit_test(test_dsdt),
		cmocka_unit_test(test_madt),	       cmocka_unit_test(test_hpet_and_generation_id),
		cmocka_unit_test(test_virtio_devices),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
