/*
 * PCI: configuration accesses of every size, BAR sizing and mapping, INTx routing, the host bridge, loading of records.
 */
#include "lib/board.h"

#include <errno.h>
#include <unistd.h>

/* A card with a 64 KiB memory BAR, an I/O BAR and a 64-bit BAR. */
struct card {
	struct pci_device pci;
	uint32_t written;
};

static uint64_t card_read(struct device *device, uint64_t offset, unsigned size)
{
	(void)device;
	return 0x11111111ull * size + offset;
}

static void card_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	(void)offset;
	(void)size;
	((struct card *)device)->written = (uint32_t)value;
}

#include "lib/card.h"

static void route_pirq2(struct board *b, int line) { pci_set_pirqs(b->bus, (const int[PIRQS]){ -1, -1, line, -1 }); }

static struct card *card_plug_with(struct board *b, unsigned slot, unsigned function, uint8_t pin, const char *rom)
{
	struct card *card = calloc(1, sizeof(*card));

	device_init(&card->pci.device, b->bus, "card", &card_ops);
	pci_init_config(&card->pci, 0x1234, 0x5678, 0x01020304, 0x9abc, 0xdef0, pin);
	for (unsigned i = 0; i < 3; i++) {
		card->pci.bars[i].range.read = card_read;
		card->pci.bars[i].range.write = card_write;
		card->pci.bars[i].range.sizes = 1 | 2 | 4;
	}
	card->pci.bars[0].size = 0x10000;
	card->pci.bars[1].size = 32;
	card->pci.bars[1].io = true;
	card->pci.bars[2].size = 0x2000;
	card->pci.bars[2].wide = true;
	if (rom)
		assert_int_equal(pci_add_rom(&card->pci, rom, NULL), 0);
	assert_int_equal(pci_add(b->bus, &card->pci, slot, function, NULL), 0);
	return card;
}

static struct card *card_plug(struct board *b, unsigned slot, unsigned function, uint8_t pin)
{
	return card_plug_with(b, slot, function, pin, NULL);
}

static int setup(void **state)
{
	struct board *b = board_create(1);

	assert_int_equal(pci_bus_create(b->bus, NULL), 0);
	*state = b;
	return 0;
}

#define SLOT3 0x18

static void configuration_accesses(void **state)
{
	struct board *b = *state;

	card_plug(b, 3, 0, 1);
	assert_int_equal(board_config_read(b, SLOT3, 0, 4), 0x56781234);
	assert_int_equal(board_config_read(b, SLOT3, 2, 2), 0x5678);
	assert_int_equal(board_config_read(b, SLOT3, 1, 1), 0x12);
	assert_int_equal(board_config_read(b, SLOT3, 1, 2), 0x7812);
	assert_int_equal(board_config_read(b, SLOT3, 8, 4), 0x01020304);
	assert_int_equal(board_config_read(b, SLOT3, 0x2c, 4), 0xdef09abc);
	assert_int_equal(board_config_read(b, SLOT3, 0x3d, 1), 1);
	board_config_write(b, SLOT3, 0x3c, 1, 11);
	board_config_write(b, SLOT3, 0, 4, 0);
	assert_int_equal(board_config_read(b, SLOT3, 0x3c, 2), 0x010b);
	assert_int_equal(board_config_read(b, SLOT3, 0, 2), 0x1234);
	assert_int_equal(board_config_read(b, 0x20, 0, 4), 0xffffffff); /* empty slot */
	outl(b, 0xcf8, 0x80000000 | 1 << 16);				/* another bus */
	assert_int_equal(inl(b, 0xcfc), 0xffffffff);
	outl(b, 0xcf8, 0x00001800); /* not enabled */
	assert_int_equal(inl(b, 0xcfc), 0xffffffff);
	outl(b, 0xcf8, 0xffffffff);
	assert_int_equal(inl(b, 0xcf8), 0x80fffffc);
	outb(b, 0xcf8, 0); /* bytes do not reach the address register */
	assert_int_equal(inl(b, 0xcf8), 0x80fffffc);
	assert_int_equal(inw(b, 0xcf8), 0xffff);
}

static void status_bits_are_cleared_by_ones(void **state)
{
	struct board *b = *state;
	struct card *card = card_plug(b, 3, 0, 1);

	card->pci.config[7] = 0xf9;
	board_config_write(b, SLOT3, 6, 2, 0x1000);
	assert_int_equal(board_config_read(b, SLOT3, 6, 2), 0xe900);
	board_config_write(b, SLOT3, 4, 4, 0xf9000000);
	assert_int_equal(board_config_read(b, SLOT3, 6, 2), 0);
}

static void bars_are_sized_and_mapped(void **state)
{
	struct board *b = *state;
	struct card *card = card_plug(b, 3, 0, 1);

	assert_int_equal(board_config_read(b, SLOT3, 0x14, 4), 1);
	assert_int_equal(board_config_read(b, SLOT3, 0x18, 4), 4);
	for (unsigned offset = 0x10; offset < 0x28; offset += 4)
		board_config_write(b, SLOT3, offset, 4, 0xffffffff);
	assert_int_equal(board_config_read(b, SLOT3, 0x10, 4), 0xffff0000);
	assert_int_equal(board_config_read(b, SLOT3, 0x14, 4), 0xffffffe1);
	assert_int_equal(board_config_read(b, SLOT3, 0x18, 4), 0xffffe004);
	assert_int_equal(board_config_read(b, SLOT3, 0x1c, 4), 0xffffffff);
	assert_int_equal(board_config_read(b, SLOT3, 0x20, 4), 0);
	board_config_write(b, SLOT3, 4, 2, 0x3);
	assert_false(card->pci.bars[0].range.mapped || card->pci.bars[2].range.mapped);
	board_config_write(b, SLOT3, 0x10, 4, 0xe0000000);
	board_config_write(b, SLOT3, 0x14, 4, 0xc000);
	board_config_write(b, SLOT3, 0x18, 4, 0x40000000);
	board_config_write(b, SLOT3, 0x1c, 4, 0x12);
	assert_int_equal(board_read(b, BUS_MMIO, 0xe000fffc, 4), 0x44454440);
	assert_int_equal(inw(b, 0xc01e), 0x2240);
	assert_int_equal(inb(b, 0xc020), 0xff);
	assert_int_equal(board_read(b, BUS_MMIO, 0x1240001ff0, 1), 0x01);
	board_write(b, BUS_MMIO, 0x1240000000, 4, 77);
	assert_int_equal(card->written, 77);
	board_config_write(b, SLOT3, 0x10, 4, 0xe1000000); /* moved */
	assert_int_equal(board_read(b, BUS_MMIO, 0xe0000000, 4), 0xffffffff);
	assert_int_equal(board_read(b, BUS_MMIO, 0xe1000000, 4), 0x44444444);
	board_config_write(b, SLOT3, 4, 2, 0x1); /* memory off */
	assert_int_equal(board_read(b, BUS_MMIO, 0xe1000000, 4), 0xffffffff);
	assert_int_equal(inb(b, 0xc000), 0x11);
	bus_reset(b->bus);
	assert_int_equal(inb(b, 0xc000), 0xff);
	assert_int_equal(board_config_read(b, SLOT3, 0x14, 4), 1);
}

static void overlapping_bars_are_not_mapped(void **state)
{
	struct board *b = *state;
	struct card *card = card_plug(b, 3, 0, 1), *other = card_plug(b, 4, 0, 1);

	board_config_write(b, SLOT3, 4, 2, 3);
	board_config_write(b, 0x20, 4, 2, 3);
	board_config_write(b, SLOT3, 0x10, 4, 0xe0000000);
	board_config_write(b, 0x20, 0x10, 4, 0xe0000000);
	assert_true(card->pci.bars[0].range.mapped);
	assert_false(other->pci.bars[0].range.mapped);
	board_config_write(b, 0x20, 0x14, 4, 0xcf0); /* over the configuration ports: an I/O BAR from 0xce0 */
	assert_false(other->pci.bars[1].range.mapped);
	assert_int_equal(board_config_read(b, 0x20, 0, 4), 0x56781234);
}

static void interrupts_go_where_the_pirqs_say(void **state)
{
	struct board *b = *state;
	struct card *card = card_plug(b, 3, 0, 1), *other = card_plug(b, 7, 0, 1);

	board_pic_init(b);
	outb(b, 0x4d1, 0x0c);
	irq_set(&card->pci.intx, true); /* slot 3, pin A: PIRQ C, goes nowhere yet */
	assert_int_equal(board_take(b), -1);
	assert_int_equal(board_config_read(b, SLOT3, 6, 2) & 8, 8);
	route_pirq2(b, 11);
	assert_int_equal(board_take(b), 0x2b);
	outb(b, 0xa0, 0x20);
	outb(b, 0x20, 0x20);
	irq_set(&other->pci.intx, true); /* slot 7, pin A: the same */
	irq_set(&card->pci.intx, false);
	assert_int_equal(board_take(b), 0x2b);
	outb(b, 0xa0, 0x20);
	outb(b, 0x20, 0x20);
	route_pirq2(b, 10);
	assert_int_equal(board_take(b), 0x2a);
	outb(b, 0xa0, 0x20);
	outb(b, 0x20, 0x20);
	board_config_write(b, 0x38, 4, 2, 0x400); /* interrupt disable */
	assert_int_equal(board_take(b), -1);
	board_config_write(b, 0x38, 4, 2, 0);
	assert_int_equal(board_take(b), 0x2a);
}

static void place_is_taken_once(void **state)
{
	struct board *b = *state;
	struct card *card = calloc(1, sizeof(*card));
	struct error error;

	card_plug(b, 3, 0, 0);
	device_init(&card->pci.device, b->bus, "card", &card_ops);
	pci_init_config(&card->pci, 1, 2, 3, 4, 5, 0);
	assert_int_equal(pci_add(b->bus, &card->pci, 3, 0, &error), -EBUSY);
	assert_non_null(strstr(error.text, "00:03.0"));
}

static void host_bridge(void **state)
{
	struct board *b = *state;

	assert_int_equal(board_config_read(b, 0, 0, 4), 0x12378086);
	assert_int_equal(board_config_read(b, 0, 8, 4), 0x06000002);
	for (unsigned offset = 0x59; offset <= 0x5f; offset++) {
		board_config_write(b, 0, offset, 1, 0x33);
		assert_int_equal(board_config_read(b, 0, offset, 1), 0x33);
	}
	assert_int_equal(board_config_read(b, 0, 0x72, 1), 0x02);
	board_config_write(b, 0, 0x72, 1, 0x4a);
	assert_int_equal(board_config_read(b, 0, 0x72, 1), 0x4a);
}

static void records(void **state)
{
	struct board *b = *state;
	struct card *card = card_plug(b, 3, 0, 1);
	struct writer writer = { 0 };
	struct reader reader;
	struct error error;

	board_config_write(b, SLOT3, 0x14, 4, 0xc000);
	board_config_write(b, SLOT3, 4, 2, 1);
	assert_int_equal(state_save(&card_state_desc, 0, card, &writer), 0);
	bus_reset(b->bus);
	assert_int_equal(inb(b, 0xc000), 0xff);
	reader = (struct reader){ writer.data, writer.size, 0 };
	assert_int_equal(state_load(&card_state_desc, 0, card, &reader, &error), 0);
	bus_attach(b->bus);
	assert_int_equal(inb(b, 0xc000), 0x11);
	writer_free(&writer);
	writer = (struct writer){ 0 };
	card->pci.config[0] = 0x35; /* another card's */
	assert_int_equal(state_save(&card_state_desc, 0, card, &writer), 0);
	card->pci.config[0] = 0x34;
	reader = (struct reader){ writer.data, writer.size, 0 };
	assert_int_equal(state_load(&card_state_desc, 0, card, &reader, &error), -EINVAL);
	assert_int_equal(card->pci.config[0], 0x34);
	writer_free(&writer);
}

/* What the ROM shows at an address; 0xffffffff: nothing. */
static uint32_t rom_at(const struct board *b, uint64_t address)
{
	uint32_t value = UINT32_MAX;

	mem_read(b->mem, gpa(address), &value, sizeof(value));
	return value;
}

static void expansion_rom(void **state)
{
	struct board *b = board_create(1);
	char file[] = "/tmp/test_pci.XXXXXX";
	int fd = mkstemp(file);
	struct writer records;
	struct card *card;
	struct error error;

	(void)state;
	assert_int_equal(write(fd, "\x55\xaa\x0c\xe9", 4), 4);
	assert_int_equal(ftruncate(fd, 6144), 0);
	close(fd);
	board_add_memory(b, 1 << 20);
	assert_int_equal(pci_bus_create(b->bus, NULL), 0);
	card = card_plug_with(b, 3, 0, 1, file);
	unlink(file);
	assert_int_equal(board_config_read(b, SLOT3, 0x30, 4), 0);
	board_config_write(b, SLOT3, 0x30, 4, 0xfffffffe);
	assert_int_equal(board_config_read(b, SLOT3, 0x30, 4), 0xffffe000); /* 8 KiB */
	board_config_write(b, SLOT3, 0x30, 4, 0xfeb00000);
	board_config_write(b, SLOT3, 4, 2, 2);
	assert_int_equal(rom_at(b, 0xfeb00000), UINT32_MAX); /* it has an enable bit of its own */
	board_config_write(b, SLOT3, 0x30, 4, 0xfeb00001);
	assert_int_equal(rom_at(b, 0xfeb00000), 0xe90caa55);
	assert_int_equal(mem_write(b->mem, gpa(0xfeb00000), "x", 1), 0);
	assert_int_equal(rom_at(b, 0xfeb00000), 0xe90caa55);
	assert_int_equal(rom_at(b, 0xfeb01ffc), 0);
	records = board_save(b);
	board_config_write(b, SLOT3, 0x30, 4, 0xfeb10001); /* moved */
	assert_int_equal(rom_at(b, 0xfeb00000), UINT32_MAX);
	assert_int_equal(rom_at(b, 0xfeb10000), 0xe90caa55);
	board_config_write(b, SLOT3, 4, 2, 1);
	assert_int_equal(rom_at(b, 0xfeb10000), UINT32_MAX);
	assert_int_equal(board_load(b, &records, 0, NULL), 0);
	mem_commit(b->mem);
	assert_int_equal(rom_at(b, 0xfeb00000), 0xe90caa55);
	bus_reset(b->bus);
	bus_settle(b->bus);
	assert_int_equal(rom_at(b, 0xfeb00000), UINT32_MAX);
	writer_free(&records);
	device_destroy(&card->pci.device);
	assert_int_equal(pci_add_rom(&card_plug(b, 3, 0, 1)->pci, "/nowhere", &error), -ENOENT);
	assert_non_null(strstr(error.text, "/nowhere"));
	board_destroy(b);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, board_teardown)
	const struct CMUnitTest tests[] = {
		TEST(configuration_accesses),
		TEST(status_bits_are_cleared_by_ones),
		TEST(bars_are_sized_and_mapped),
		TEST(overlapping_bars_are_not_mapped),
		TEST(interrupts_go_where_the_pirqs_say),
		TEST(place_is_taken_once),
		TEST(host_bridge),
		cmocka_unit_test(expansion_rom),
		TEST(records),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
