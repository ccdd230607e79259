/*
 * The firmware configuration device: items by port and by DMA, files, the directory, what may be written, hostile requests, the order of starting, ACPI's files made when
 * they are asked for, records.
 */
#include "lib/board.h"

#include <errno.h>

#define REQUEST 0x1000u
#define BUFFER	0x2000u
#define RAM	(2u << 20)

enum { DMA_ERROR = 1, DMA_READ = 2, DMA_SKIP = 4, DMA_SELECT = 8, DMA_WRITE = 16 };

/* ---- devices to start from ---- */

struct source {
	struct device device;
	struct device_boot boot;
};

static void source_destroy(struct device *device) { free(device); }

static bool source_boots(const struct device *device, struct device_boot *boot)
{
	*boot = ((const struct source *)device)->boot;
	return true;
}

static const struct device_ops source_ops = { .boots = source_boots, .destroy = source_destroy };

static void add_source(struct board *b, const char *path, unsigned kind, uint64_t order)
{
	struct source *source = calloc(1, sizeof(*source));

	device_init(&source->device, b->bus, "source", &source_ops);
	source->boot.kind = kind;
	source->boot.order = order;
	snprintf(source->boot.path, sizeof(source->boot.path), "%s", path);
}

/* ---- the board ---- */

static struct device_plug *plug(struct board *b, const char *spec, struct error *err)
{
	return device_plug(b->bus, NULL, &(struct device_request){ .spec = spec }, err);
}

static struct board *board_with(const char *spec)
{
	struct board *b = board_create(2);

	board_add_memory(b, RAM);
	assert_int_equal(pci_bus_create(b->bus, NULL), 0);
	assert_non_null(plug(b, "piix", NULL));
	assert_int_equal(rtc_create(b->bus, 2, NULL), 0);
	assert_non_null(plug(b, spec, NULL));
	return b;
}

static void select_key(struct board *b, unsigned key) { outw(b, 0x510, (uint16_t)key); }

static void read_port(struct board *b, void *data, size_t size)
{
	for (size_t n = 0; n < size; n++)
		((uint8_t *)data)[n] = inb(b, 0x511);
}

static uint64_t read_number(struct board *b, unsigned key, unsigned size)
{
	uint64_t value = 0;

	select_key(b, key);
	read_port(b, &value, size);
	return value;
}

/* What became of its control field. */
static uint32_t dma(struct board *b, uint32_t control, uint32_t length, uint64_t address)
{
	uint8_t request[16];

	store_be32(request, control);
	store_be32(request + 4, length);
	store_be64(request + 8, address);
	assert_int_equal(mem_write(b->mem, gpa(REQUEST), request, sizeof(request)), 0);
	outl(b, 0x514, 0);
	outl(b, 0x518, __builtin_bswap32(REQUEST));
	assert_int_equal(mem_read(b->mem, gpa(REQUEST), request, sizeof(request)), 0);
	return load_be32(request);
}

/* Key and size of a file, by the directory; 0: it is not there. */
static unsigned find_file(struct board *b, const char *name, uint32_t *size)
{
	uint8_t entry[64];
	uint32_t count;

	select_key(b, 0x19);
	read_port(b, entry, 4);
	count = load_be32(entry);
	for (uint32_t n = 0; n < count; n++) {
		read_port(b, entry, sizeof(entry));
		*size = load_be32(entry);
		if (!strcmp((const char *)entry + 8, name))
			return load_be16(entry + 4);
	}
	return 0;
}

static void expect_file(struct board *b, const char *name, const char *content)
{
	char text[1024] = "";
	uint32_t size = 0;
	unsigned key = find_file(b, name, &size);

	assert_true(key >= 0x20);
	assert_in_range(size, strlen(content), sizeof(text) - 1);
	select_key(b, key);
	read_port(b, text, size);
	assert_string_equal(text, content);
}

/* ---- tests ---- */

static void items(void **state)
{
	struct board *b = board_with("fw-cfg,menu");
	char signature[5] = "";

	(void)state;
	select_key(b, 0);
	read_port(b, signature, 4);
	assert_string_equal(signature, "QEMU");
	assert_int_equal(inb(b, 0x511), 0); /* behind the end */
	assert_int_equal(read_number(b, 1, 4), 3);
	assert_int_equal(read_number(b, 3, 8), RAM);
	assert_int_equal(read_number(b, 5, 2), 2);
	assert_int_equal(read_number(b, 0xf, 2), 2);
	assert_int_equal(read_number(b, 0xe, 2), 1);
	assert_int_equal(read_number(b, 0x8002, 4), 1);
	assert_int_equal(read_number(b, 0x8000, 8), 0);
	assert_int_equal(read_number(b, 0xffff, 8), 0); /* no key */
	assert_int_equal(read_number(b, 0x1fff, 8), 0);
	assert_int_equal(read_number(b, 0x4001, 4), 3); /* its bit for writing */
	assert_int_equal(inl(b, 0x514), load_le32("QEMU"));
	assert_int_equal(inl(b, 0x518), load_le32(" CFG"));
	outb(b, 0x511, 7); /* nothing is written so */
	assert_int_equal(read_number(b, 1, 4), 3);
	board_unplug(b);
}

static void files_of_users(void **state)
{
	struct board *b = board_with("fw-cfg");
	struct device_plug *file = plug(b, "fw-cfg-file,name=opt/a,string=text", NULL);
	struct error error;
	uint32_t size;

	(void)state;
	expect_file(b, "opt/a", "text");
	assert_null(plug(b, "fw-cfg-file,name=opt/a,string=other", &error));
	assert_non_null(strstr(error.text, "already"));
	assert_null(plug(b, "fw-cfg-file,name=opt/b", &error));
	assert_non_null(strstr(error.text, "no contents"));
	assert_null(plug(b, "fw-cfg-file,name=opt/b,string=x,file=y", &error));
	assert_null(plug(b, "fw-cfg-file,string=x", &error));
	assert_null(plug(b, "fw-cfg-file,name=opt/b,file=/nowhere/at/all", &error));
	assert_non_null(strstr(error.text, "/nowhere/at/all"));
	assert_null(
		plug(b, "fw-cfg-file,string=x,name=opt/4567890123456789012345678901234567890123456789012345", &error));
	assert_non_null(
		plug(b, "fw-cfg-file,string=x,name=opt/456789012345678901234567890123456789012345678901234", &error));
	device_unplug(file);
	assert_int_equal(find_file(b, "opt/a", &size), 0);
	board_unplug(b);
}

static void requests(void **state)
{
	struct board *b = board_with("fw-cfg");
	uint8_t bytes[16];

	(void)state;
	assert_int_equal(mem_fill(b->mem, gpa(BUFFER), 0xff, 64), 0);
	assert_int_equal(dma(b, DMA_SELECT | DMA_READ, 8, BUFFER), 0);
	assert_int_equal(mem_read(b->mem, gpa(BUFFER), bytes, 9), 0);
	assert_memory_equal(bytes, "QEMU\0\0\0\0\xff", 9);
	assert_int_equal(dma(b, DMA_SELECT | DMA_SKIP, 2, UINT64_MAX - 4), 0);
	assert_int_equal(dma(b, DMA_READ, 1, BUFFER), 0);
	assert_int_equal(mem_read(b->mem, gpa(BUFFER), bytes, 2), 0);
	assert_memory_equal(bytes, "ME", 2);
	assert_int_equal(inb(b, 0x511), 'U');
	assert_int_equal(dma(b, 3 << 16 | DMA_SELECT, 99, 0), 0); /* selects, and moves nothing */
	assert_int_equal(dma(b, DMA_READ, 8, BUFFER), 0);
	assert_int_equal(mem_read(b->mem, gpa(BUFFER), bytes, 8), 0);
	assert_int_equal(load_le64(bytes), RAM);
	board_unplug(b);
}

static void hostile_requests(void **state)
{
	static const uint64_t nowhere[] = { RAM, RAM - 2, 0xa0000, UINT64_MAX - 3, UINT64_MAX, 1ull << 52 };
	struct board *b = board_with("fw-cfg");

	(void)state;
	for (unsigned n = 0; n < ARRAY_SIZE(nowhere); n++) {
		assert_int_equal(dma(b, DMA_SELECT | DMA_READ, 8, nowhere[n]), DMA_ERROR);
		outl(b, 0x514, __builtin_bswap32((uint32_t)(nowhere[n] >> 32)));
		outl(b, 0x518, __builtin_bswap32((uint32_t)nowhere[n])); /* the request itself */
	}
	assert_int_equal(dma(b, DMA_SELECT | DMA_READ, UINT32_MAX, BUFFER), DMA_ERROR);
	assert_int_equal(dma(b, DMA_SELECT | DMA_SKIP, UINT32_MAX, 0), 0);
	assert_int_equal(dma(b, DMA_READ, 4, BUFFER), 0);
	assert_int_equal(dma(b, DMA_SELECT | DMA_WRITE, 4, BUFFER), DMA_ERROR); /* read-only */
	assert_int_equal(dma(b, 0xffffu << 16 | DMA_SELECT | DMA_WRITE, 4, BUFFER), DMA_ERROR);
	assert_int_equal(dma(b, DMA_SELECT | DMA_READ, 4, REQUEST), 0); /* over the request */
	board_unplug(b);
}

static void note_written(void *opaque) { ++*(unsigned *)opaque; }

static void written_files(void **state)
{
	struct board *b = board_with("fw-cfg");
	uint8_t content[8] = { 0 };
	unsigned times = 0, key;
	uint32_t size;

	(void)state;
	assert_int_equal(fw_cfg_add_shared(b->bus, "etc/x", content, 8, note_written, &times, NULL), 0);
	key = find_file(b, "etc/x", &size);
	assert_int_equal(mem_write(b->mem, gpa(BUFFER), "01234567", 8), 0);
	assert_int_equal(dma(b, key << 16 | DMA_SELECT | DMA_SKIP, 6, 0), 0);
	assert_int_equal(dma(b, DMA_WRITE, 3, BUFFER), DMA_ERROR); /* more than is left */
	assert_int_equal(times, 0);
	assert_int_equal(dma(b, DMA_WRITE, 2, BUFFER), 0);
	assert_int_equal(times, 1);
	assert_memory_equal(content,
			    "\0\0\0\0\0\0"
			    "01",
			    8);
	assert_int_equal(dma(b, DMA_WRITE | DMA_READ, 0, BUFFER), 0);
	assert_int_equal(dma(b, DMA_WRITE, 1, BUFFER), DMA_ERROR);
	assert_int_equal(times, 1);
	fw_cfg_remove_file(b->bus, "etc/x");
	fw_cfg_remove_file(b->bus, "etc/x");
	board_unplug(b);
}

static uint8_t cmos(struct board *b, uint8_t index)
{
	outb(b, 0x70, index);
	return inb(b, 0x71);
}

static void boot_order(void **state)
{
	struct board *b = board_with("fw-cfg,order=dc,once=n");
	struct error error;

	(void)state;
	add_source(b, "/disk", DEVICE_BOOT_DISK, 0);
	add_source(b, "/cd", DEVICE_BOOT_CD, 0);
	add_source(b, "/second", DEVICE_BOOT_DISK, 2);
	add_source(b, "/first", DEVICE_BOOT_FLOPPY, 1);
	add_source(b, "/net", DEVICE_BOOT_NET, 0);
	bus_reset(b->bus);
	expect_file(b, "bootorder", "/first\n/second\n/net\n");
	assert_int_equal(cmos(b, 0x3d), 0x04);
	bus_reset(b->bus);
	expect_file(b, "bootorder", "/first\n/second\n/cd\n/disk\n");
	assert_int_equal(cmos(b, 0x3d), 0x23);
	assert_int_equal(cmos(b, 0x38), 0);
	board_unplug(b);
	b = board_create(1);
	assert_null(plug(b, "fw-cfg,order=cc", &error));
	assert_null(plug(b, "fw-cfg,once=x", &error));
	assert_non_null(strstr(error.text, "once"));
	board_unplug(b);
}

static unsigned made;
static struct fw_cfg_choices chosen;

static void make(void *opaque, const struct fw_cfg_choices *choices, struct fw_cfg_acpi *files)
{
	assert_ptr_equal(opaque, &made);
	made++;
	chosen = *choices;
	store_le16(files->rsdp, choices->pm_base);
	files->tables[FW_CFG_TABLES_SIZE - 1] = 1;
	files->loader[FW_CFG_LOADER_SIZE - 1] = 1;
}

static void acpi_when_it_is_asked_for(void **state)
{
	struct board *b = board_with("fw-cfg");
	unsigned rsdp, loader;
	struct writer records;
	uint32_t size = 0;

	(void)state;
	made = 0;
	assert_int_equal(fw_cfg_add_acpi(b->bus, make, &made, NULL), 0);
	bus_reset(b->bus);
	loader = find_file(b, "etc/table-loader", &size);
	assert_int_equal(size, FW_CFG_LOADER_SIZE);
	rsdp = find_file(b, "etc/acpi/rsdp", &size);
	assert_int_equal(made, 0);
	board_config_write(b, PIIX_SLOT << 3 | 3, 0x40, 4, 0xb001);
	assert_int_equal(read_number(b, rsdp, 2), 0xb000);
	board_config_write(b, PIIX_SLOT << 3 | 3, 0x40, 4, 0xc001); /* too late */
	select_key(b, loader);
	assert_int_equal(read_number(b, rsdp, 2), 0xb000);
	assert_int_equal(made, 1);
	records = board_save(b);
	bus_reset(b->bus);
	assert_int_equal(read_number(b, rsdp, 2), ACPI_PM_BASE);
	assert_int_equal(made, 2);
	outw(b, 0x510, 0);
	assert_int_equal(board_load(b, &records, 0, NULL), 0);
	assert_int_equal(made, 3);
	assert_int_equal(chosen.pm_base, 0xb000);
	assert_int_equal(inb(b, 0x511), 0); /* in the middle of reading rsdp */
	assert_int_equal(read_number(b, rsdp, 2), 0xb000);
	writer_free(&records);
	board_unplug(b);
}

static void damaged_records(void **state)
{
	struct board *b = board_with("fw-cfg");
	struct device *device = bus_find_device(b->bus, "fw-cfg", 0);
	struct writer writer = { 0 };
	struct error error;

	(void)state;
	select_key(b, 3);
	assert_int_equal(state_save(device->ops->state, 0, device, &writer), 0);
	for (size_t n = 0; n < writer.size; n++) {
		struct reader reader = { writer.data, n, 0 };

		assert_int_not_equal(state_load(device->ops->state, 0, device, &reader, &error), 0);
	}
	for (size_t n = 0; n + 2 <= writer.size; n++) {
		struct reader reader = { writer.data, writer.size, 0 };
		uint8_t old[2];

		memcpy(old, writer.data + n, 2);
		memcpy(writer.data + n, "\xf0\xf0", 2);
		if (!state_load(device->ops->state, 0, device, &reader, &error)) {
			bus_attach(b->bus);
			inb(b, 0x511);
		}
		memcpy(writer.data + n, old, 2);
	}
	writer_free(&writer);
	board_unplug(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(items),
		cmocka_unit_test(files_of_users),
		cmocka_unit_test(requests),
		cmocka_unit_test(hostile_requests),
		cmocka_unit_test(written_files),
		cmocka_unit_test(boot_order),
		cmocka_unit_test(acpi_when_it_is_asked_for),
		cmocka_unit_test(damaged_records),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
