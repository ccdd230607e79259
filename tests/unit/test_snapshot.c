/*
 * A whole board saved and loaded into another: no interrupt comes again that was served, the same bytes come out when it is saved
 * again, and from then on both do the same. A record that is refused leaves all devices as they were.
 */
#define _GNU_SOURCE
#include "devices/virtio/virtio.h"
#include "lib/board.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

/* A function with BARs that can be put one onto the other, and an interrupt pin. */
struct card {
	struct pci_device pci;
};

static uint64_t card_read(struct device *device, uint64_t offset, unsigned size)
{
	(void)size;
	return ((struct card *)device)->pci.devfn + offset;
}

#include "lib/card.h"

#define CARDS 2
#define CPUS  2

struct full_board {
	struct board *b;
	struct card *cards[CARDS];
};

static struct card *card_plug(struct board *b, unsigned slot)
{
	struct card *card = calloc(1, sizeof(*card));

	device_init(&card->pci.device, b->bus, "card", &card_ops);
	pci_init_config(&card->pci, 1, 2, 3, 4, 5, 1);
	card->pci.bars[0].size = 4096;
	card->pci.bars[1].size = 64;
	card->pci.bars[1].io = true;
	for (unsigned n = 0; n < 2; n++) {
		card->pci.bars[n].range.sizes = 1 | 2 | 4;
		card->pci.bars[n].range.read = card_read;
	}
	assert_int_equal(pci_add(b->bus, &card->pci, slot, 0, NULL), 0);
	return card;
}

/* Of virtio-rng, at 00:03.0 */
#define VIRTIO_PORTS	 0xc080u
#define VIRTIO_REGISTERS 0xe8000000u
#define VIRTIO_MESSAGES	 0xe8100000u
static const struct {
	uint8_t offset;
	uint32_t address;
} virtio_bars[] = { { 0x10, VIRTIO_PORTS }, { 0x14, VIRTIO_MESSAGES }, { 0x20, VIRTIO_REGISTERS } };

static void floppy_plug(struct bus *bus)
{
	int fd = memfd_create("floppy", 0);
	char spec[64];

	assert_int_equal(ftruncate(fd, 1440 << 10), 0);
	snprintf(spec, sizeof(spec), "floppy,file=/proc/self/fd/%d,format=raw", fd);
	assert_non_null(device_plug(bus, NULL, &(struct device_request){ .spec = spec }, NULL));
	close(fd);
}

#define GENERATION "vmgenid,guid=324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87"

static struct full_board full_board(void)
{
	struct full_board f = { .b = board_create(CPUS) };
	struct bus *bus = f.b->bus;

	board_add_memory(f.b, MEM_MIN);
	floppy_plug(bus);
	assert_int_equal(pci_bus_create(bus, NULL) || dma_type.create(bus, NULL, NULL) ||
				 piix_type.create(bus, NULL, NULL) || hpet_type.create(bus, NULL, NULL) ||
				 pit_type.create(bus, NULL, NULL) || rtc_create(bus, CPUS, NULL) ||
				 kbc_type.create(bus, NULL, NULL) || coprocessor_type.create(bus, NULL, NULL) ||
				 uart_create(bus, 0, NULL, NULL) || uart_create(bus, 1, NULL, NULL) ||
				 !device_plug(bus, NULL, &(struct device_request){ .spec = "fw-cfg" }, NULL) ||
				 debug_exit_type.create(bus, NULL, NULL) || testdev_type.create(bus, NULL, NULL) ||
				 virtio_rng_type.create(bus, &(struct virtio_options){ .legacy = true }, NULL) ||
				 virtio_rng_type.create(
					 bus, &(struct virtio_options){ .transport = "mmio", .packed = true }, NULL),
			 0);
	assert_non_null(device_plug(bus, NULL, &(struct device_request){ .spec = "vga" }, NULL));
	assert_non_null(device_plug(bus, NULL, &(struct device_request){ .spec = GENERATION }, NULL));
	for (unsigned i = 0; i < CARDS; i++)
		f.cards[i] = card_plug(f.b, 4 + i);
	bus_reset(bus);
	for (unsigned n = 0; n < ARRAY_SIZE(virtio_bars); n++)
		board_config_write(f.b, 0x18, virtio_bars[n].offset, 4, virtio_bars[n].address);
	board_config_write(f.b, 0x18, 0x04, 2, 7);
	return f;
}

static void set_pin(struct card *card, bool level)
{
	lock_take(card->pci.device.lock);
	irq_set(&card->pci.intx, level);
	lock_drop(card->pci.device.lock);
}

/* Into a fresh one; the same bytes come out of that. */
static struct full_board copy_of(struct board *b)
{
	struct full_board copy = full_board();
	struct writer saved = board_save(b), again;
	struct error err = { 0 };

	for (unsigned i = 0; i < CPUS; i++)
		copy.b->cpus[i].tsc_offset = b->cpus[i].tsc_offset;
	if (board_load(copy.b, &saved, clock_now(b->clock), &err))
		fail_msg("%s", err.text);
	again = board_save(copy.b);
	assert_int_equal(again.size, saved.size);
	assert_memory_equal(again.data, saved.data, saved.size);
	writer_free(&saved);
	writer_free(&again);
	return copy;
}

/* ---- interrupts that were served ---- */

static void check_quiet(struct board *b)
{
	struct full_board copy = copy_of(b);

	for (unsigned i = 0; i < CPUS; i++) {
		assert_int_equal(lapic_take(irq_lapic(copy.b->bus, i)), -1);
		assert_int_equal(copy.b->cpus[i].nmis, 0);
	}
	board_unplug(copy.b);
}

/* PIRQ 3 to line 5, whose IOAPIC input is edge-triggered. */
static void served_edge_of_a_pirq(void **state)
{
	struct full_board f = full_board();

	(void)state;
	lapic_wr(f.b, 0, 0xf0, 0x1ff);
	board_config_write(f.b, 8, 0x63, 1, 5);
	board_ioapic_entry(f.b, 5, 0x50);
	set_pin(f.cards[0], true);
	assert_int_equal(board_take(f.b), 0x50);
	check_quiet(f.b);
	lapic_wr(f.b, 0, 0xb0, 0);
	check_quiet(f.b);
	board_unplug(f.b);
}

static void served_edges_of_isa_lines(void **state)
{
	for (unsigned line = 0; line < 24; line++) {
		struct full_board f = full_board();
		unsigned pin = line ? line : 2;

		(void)state;
		if (line == 2) {
			board_unplug(f.b);
			continue;
		}
		lapic_wr(f.b, 0, 0xf0, 0x1ff);
		board_ioapic_entry(f.b, pin, 0x50 + pin);
		outb(f.b, (uint16_t)(0x2000 + line), 1);
		assert_int_equal(board_take(f.b), 0x50 + pin);
		check_quiet(f.b);
		lapic_wr(f.b, 0, 0xb0, 0);
		check_quiet(f.b);
		outb(f.b, (uint16_t)(0x2000 + line), 0);
		check_quiet(f.b);
		board_unplug(f.b);
	}
}

/* The 8259's output as an NMI: its edge was sent. */
static void served_edge_of_the_8259_as_nmi(void **state)
{
	struct full_board f = full_board();

	(void)state;
	lapic_wr(f.b, 0, 0xf0, 0x1ff);
	lapic_wr(f.b, 0, 0x350, DELIVER_NMI << 8);
	board_pic_init(f.b);
	outb(f.b, 0x2005, 1);
	assert_int_equal(f.b->cpus[0].nmis, 1);
	check_quiet(f.b);
	board_unplug(f.b);
}

static void level_in_service_comes_again_after_eoi_only(void **state)
{
	struct full_board f = full_board(), copy;

	(void)state;
	lapic_wr(f.b, 0, 0xf0, 0x1ff);
	board_ioapic_entry(f.b, 10, 0x8000 | 0x60);
	outb(f.b, 0x200a, 1);
	assert_int_equal(board_take(f.b), 0x60);
	copy = copy_of(f.b);
	assert_int_equal(board_take(copy.b), -1);
	lapic_wr(copy.b, 0, 0xb0, 0);
	assert_int_equal(board_take(copy.b), 0x60);
	board_unplug(copy.b);
	board_unplug(f.b);
}

/* ---- any state, and what comes of it ---- */

/* splitmix64 */
static uint64_t next(uint64_t *seed)
{
	uint64_t z = *seed += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static const uint16_t ports[] = {
	0x510, 0x511, 0x514, 0x518, 0x20,  0x21,  0xa0,	 0xa1,	0x4d0, 0x4d1, 0x40,   0x41,   0x42,  0x43,  0x61,
	0x70,  0x71,  0x60,  0x64,  0x92,  0xf0,  0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc,  0x3fd,  0x3fe, 0x3ff, 0x2f8,
	0x2f9, 0x2fa, 0x3c0, 0x3c2, 0x3c5, 0x3c9, 0x3ce, 0x3cf, 0x3d4, 0x3d5, 0x3da,  0x1ce,  0x1cf, 0x2fb, 0x2fc,
	0xcf8, 0xcfc, 0xcfd, 0x600, 0x601, 0x602, 0x604, 0x608, 0xe0,  0xe8,  0xc000, 0xc010,
};

static uint64_t access_port(struct board *b, uint64_t *seed)
{
	uint16_t port = ports[next(seed) % ARRAY_SIZE(ports)];
	unsigned size = next(seed) % 4 ? 1 : 1u << next(seed) % 3;

	if (next(seed) % 3 == 0)
		return board_read(b, BUS_PIO, port, size);
	board_write(b, BUS_PIO, port, size, next(seed) & (BIT(8 * size) - 1));
	return 0;
}

/* Registers of ISA DMA and of the floppy controller; most often a byte of a command, from a few that are read and write among others. */
static uint64_t access_floppy(struct board *b, uint64_t *seed)
{
	static const uint16_t registers[] = { 0x04, 0x05, 0x08, 0x0a, 0x0b, 0x0c,  0x0d,  0x0f,	 0x81,
					      0xc4, 0xd0, 0xd4, 0xd6, 0xde, 0x3f2, 0x3f3, 0x3f4, 0x3f7 };
	static const uint8_t bytes[] = { 0, 0, 0,    0,	   1,	 1,    2,    2,	   3,	 4,    7,
					 8, 8, 0x0f, 0x12, 0x18, 0x44, 0x45, 0x46, 0xe6, 0x4a, 0x4d };
	uint16_t port = next(seed) % 4 ? 0x3f5 : registers[next(seed) % ARRAY_SIZE(registers)];
	uint8_t value = port == 0x3f2 ? 0x1c : bytes[next(seed) % ARRAY_SIZE(bytes)];

	if (next(seed) % 3)
		outb(b, port, value);
	return next(seed) % 2 ? inb(b, port) : 0;
}

static uint64_t access_config(struct board *b, uint64_t *seed)
{
	static const struct {
		uint8_t devfn, offset, size;
	} places[] = {
		{ 0x08, 0x60, 4 }, { 0x08, 0x60, 1 }, { 0x08, 0x63, 1 }, { 0x0b, 0x40, 4 }, { 0x0b, 0x80, 1 },
		{ 0x20, 0x04, 2 }, { 0x20, 0x10, 4 }, { 0x20, 0x14, 4 }, { 0x28, 0x04, 2 }, { 0x28, 0x10, 4 },
		{ 0x28, 0x14, 4 }, { 0x00, 0x59, 1 }, { 0x20, 0x3c, 1 }, { 0x18, 0x04, 2 },
	};
	static const uint32_t values[] = { 0, 3,	  0x403,      0xe0000000, 0xc001, 0xc041,
					   5, 0x0a0b0509, 0x80808080, 0x601,	  0xc001 };
	unsigned n = next(seed) % ARRAY_SIZE(places);

	board_config_write(b, places[n].devfn, places[n].offset, places[n].size,
			   values[next(seed) % ARRAY_SIZE(values)] & (uint32_t)(BIT(8 * places[n].size) - 1));
	return board_config_read(b, places[n].devfn, places[n].offset, places[n].size);
}

static uint64_t access_lapic(struct board *b, uint64_t *seed)
{
	static const uint16_t registers[] = { 0x80,  0xb0,  0xb0,  0xd0,  0xe0,	 0xf0,	0x280, 0x300, 0x310,
					      0x320, 0x350, 0x360, 0x370, 0x380, 0x3e0, 0x390, 0x20,  0xa0 };
	unsigned cpu = next(seed) % CPUS, offset = registers[next(seed) % ARRAY_SIZE(registers)];
	struct lapic *lapic = irq_lapic(b->bus, cpu);

	switch (next(seed) % 8) {
	case 0: return lapic_rd(b, cpu, offset);
	case 1: lapic_wr(b, cpu, 0xf0, 0x1ff); return 0;
	case 2: return (uint64_t)lapic_msr_write(lapic, 0x6e0, clock_now(b->clock) + next(seed) % 1000000);
	case 3: lapic_wr(b, cpu, 0x320, (uint32_t)(next(seed) % 3 << 17 | (next(seed) & 0xff))); return 0;
	case 4: lapic_wr(b, cpu, 0x380, (uint32_t)(next(seed) % 1000000)); return 0;
	default: lapic_wr(b, cpu, offset, (uint32_t)next(seed)); return 0;
	}
}

/* Most of it is nonsense; its memory is zeros. */
static uint64_t access_virtio(struct board *b, uint64_t *seed)
{
	static const struct {
		uint32_t offset, size;
	} registers[] = { { 0x00, 4 }, { 0x04, 4 }, { 0x08, 4 },   { 0x0c, 4 },	 { 0x10, 2 }, { 0x14, 1 },
			  { 0x16, 2 }, { 0x18, 2 }, { 0x1a, 2 },   { 0x1c, 2 },	 { 0x20, 4 }, { 0x28, 4 },
			  { 0x30, 4 }, { 0x3a, 2 }, { 0x1000, 1 }, { 0x3000, 2 } };
	static const uint32_t values[] = { 0, 1, 3, 0xb, 0xf, 64, 0x1000, 0x2000, UINT32_MAX };
	unsigned n = next(seed) % ARRAY_SIZE(registers);
	uint32_t value = values[next(seed) % ARRAY_SIZE(values)] & (uint32_t)(BIT(8 * registers[n].size) - 1);

	switch (next(seed) % 8) {
	case 0: outl(b, VIRTIO_PORTS + 8, value & 0xff); return inl(b, VIRTIO_PORTS + 4);
	case 1: outb(b, VIRTIO_PORTS + 0x12, (uint8_t)value); return inb(b, VIRTIO_PORTS + 0x13);
	case 2: board_write(b, BUS_MMIO, VIRTIO_MESSAGES + 4 * (next(seed) % 8), 4, value); return 0;
	case 3 ... 5:
		board_write(b, BUS_MMIO, VIRTIO_REGISTERS + registers[n].offset, registers[n].size, value);
		return 0;
	default: return board_read(b, BUS_MMIO, VIRTIO_REGISTERS + registers[n].offset, registers[n].size);
	}
}

/* The same of the one in a window: its registers, and values that they may have. */
static uint64_t access_virtio_mmio(struct board *b, uint64_t *seed)
{
	static const uint8_t registers[] = { 0x10, 0x14, 0x20, 0x24, 0x30, 0x34, 0x38, 0x44, 0x50,
					     0x60, 0x64, 0x70, 0x80, 0x90, 0xa0, 0xc0, 0xfc };
	static const uint32_t values[] = { 0, 1, 3, 5, 0xb, 0xf, 64, 0x1000, 0x2000, UINT32_MAX };
	uint64_t at = VIRTIO_MMIO_ADDRESS(0) + registers[next(seed) % ARRAY_SIZE(registers)];

	if (next(seed) % 4)
		board_write(b, BUS_MMIO, at, 4, values[next(seed) % ARRAY_SIZE(values)]);
	return board_read(b, BUS_MMIO, at, 4);
}

static void program_ioapic(struct board *b, uint64_t *seed)
{
	uint64_t mode = next(seed) % 4 ? next(seed) % 2 : next(seed) % 8;

	board_ioapic_entry(b, next(seed) % 24,
			   (next(seed) % 4) << 56 | (next(seed) % 4 ? 0 : BIT(16)) | (next(seed) & BIT(15)) |
				   (next(seed) & BIT(11)) | mode << 8 | (0x10 + next(seed) % 0xf0));
}

/* What the guest, the cards or time do next; what is seen of it. */
static uint64_t act(struct full_board *f, uint64_t *seed)
{
	struct board *b = f->b;

	switch (next(seed) % 36) {
	case 28 ... 35: return access_floppy(b, seed);
	case 20 ... 23: return access_virtio(b, seed);
	case 24 ... 27: return access_virtio_mmio(b, seed);
	case 0 ... 4: return access_port(b, seed);
	case 5: board_pic_init(b); return 0;
	case 6 ... 7: return access_config(b, seed);
	case 8 ... 9: return access_lapic(b, seed);
	case 10: program_ioapic(b, seed); return board_ioapic_read(b, next(seed) % 0x40);
	case 11: outb(b, (uint16_t)(0x2000 + next(seed) % 24), next(seed) % 2); return 0;
	case 12: set_pin(f->cards[next(seed) % CARDS], next(seed) % 2); return 0;
	case 13: return (uint64_t)lapic_take(irq_lapic(b->bus, next(seed) % CPUS));
	case 14: board_run(b, next(seed) % 3000000); return 0;
	case 15: clock_set(b->clock, clock_now(b->clock) + next(seed) % 3000000); return 0; /* timers are late */
	case 16: return coprocessor_error(b->bus, next(seed) % 2);
	case 17: irq_msi(b->bus, 0xfee00000 | (next(seed) & 0xff00f), (uint32_t)next(seed) & 0x7ff); return 0;
	case 18: return board_read(b, BUS_MMIO, 0xe0000000, 4);
	default: outb(b, 0x43, (uint8_t)next(seed)); return 0;
	}
}

static void check_same_future(struct full_board *a, struct full_board *b, uint64_t seed)
{
	struct writer one, other;

	for (unsigned i = 0; i < CPUS; i++) {
		a->b->cpus[i].nmis = a->b->cpus[i].inits = a->b->cpus[i].sipis = 0;
		b->b->cpus[i].nmis = b->b->cpus[i].inits = b->b->cpus[i].sipis = 0;
	}
	for (unsigned n = 0; n < 150; n++) {
		uint64_t same = seed, seen = act(a, &seed), seen_too = act(b, &same);

		assert_int_equal(seen, seen_too);
		assert_int_equal(seed, same);
		for (unsigned i = 0; i < CPUS; i++) {
			assert_int_equal(a->b->cpus[i].nmis, b->b->cpus[i].nmis);
			assert_int_equal(a->b->cpus[i].inits, b->b->cpus[i].inits);
			assert_int_equal(a->b->cpus[i].sipis, b->b->cpus[i].sipis);
		}
		assert_int_equal(clock_next_deadline(a->b->clock), clock_next_deadline(b->b->clock));
	}
	one = board_save(a->b);
	other = board_save(b->b);
	assert_int_equal(one.size, other.size);
	assert_memory_equal(one.data, other.data, one.size);
	writer_free(&one);
	writer_free(&other);
}

static struct full_board random_board(uint64_t *seed)
{
	struct full_board f = full_board();
	unsigned actions = (unsigned)(next(seed) % 400);

	for (unsigned i = 0; i < CPUS; i++)
		f.b->cpus[i].tsc_offset = next(seed) % 100000;
	for (unsigned n = 0; n < actions; n++)
		act(&f, seed);
	return f;
}

/* Sanitizers see what they are for in a tenth of them. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define BOARDS 10u
#else
#define BOARDS 100u
#endif

static void any_state_goes_on_as_it_would_have(void **state)
{
	(void)state;
	for (uint64_t n = 0; n < 3 * BOARDS; n++) {
		uint64_t seed = n;
		struct full_board f = random_board(&seed), copy = copy_of(f.b);

		check_same_future(&f, &copy, seed);
		board_unplug(copy.b);
		board_unplug(f.b);
	}
}

/* Into one that has a past of its own: nothing of it is left. */
static void a_used_board_forgets(void **state)
{
	(void)state;
	for (uint64_t n = 0; n < BOARDS; n++) {
		uint64_t seed = 1000 + n, other_seed = 2000 + n;
		struct full_board f = random_board(&seed), used = random_board(&other_seed);
		struct writer saved = board_save(f.b);
		struct error err = { 0 };

		for (unsigned i = 0; i < CPUS; i++)
			used.b->cpus[i].tsc_offset = f.b->cpus[i].tsc_offset;
		if (board_load(used.b, &saved, clock_now(f.b->clock), &err))
			fail_msg("%s", err.text);
		check_same_future(&f, &used, seed);
		writer_free(&saved);
		board_unplug(used.b);
		board_unplug(f.b);
	}
}

/* ---- what is refused ---- */

static void a_bad_record_changes_nothing(void **state)
{
	uint64_t seed = 7;
	struct full_board f = random_board(&seed), other = random_board(&seed);
	struct writer good = board_save(other.b), before = board_save(f.b), after;
	unsigned refused = 0;

	(void)state;
	for (unsigned n = 0; n < 20 * BOARDS; n++) {
		struct writer bad = { 0 };
		struct error err = { 0 };
		size_t at = next(&seed) % good.size;

		writer_bytes(&bad, good.data, good.size);
		if (n & 1)
			bad.size = at;
		else
			bad.data[at] ^= (uint8_t)(1 << next(&seed) % 8);
		if (board_load(f.b, &bad, clock_now(other.b->clock), &err)) {
			refused++;
			assert_int_equal(err.code, EINVAL);
			assert_non_null(strstr(err.text, "record '"));
			after = board_save(f.b);
			assert_int_equal(after.size, before.size);
			assert_memory_equal(after.data, before.data, after.size);
			writer_free(&after);
		} else {
			assert_false(n & 1); /* every truncation is noticed */
			writer_free(&before);
			before = board_save(f.b);
		}
		writer_free(&bad);
	}
	assert_in_range(refused, 10 * BOARDS, 20 * BOARDS);
	writer_free(&good);
	writer_free(&before);
	board_unplug(f.b);
	board_unplug(other.b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(served_edge_of_a_pirq),
		cmocka_unit_test(served_edges_of_isa_lines),
		cmocka_unit_test(served_edge_of_the_8259_as_nmi),
		cmocka_unit_test(level_in_service_comes_again_after_eoi_only),
		cmocka_unit_test(any_state_goes_on_as_it_would_have),
		cmocka_unit_test(a_used_board_forgets),
		cmocka_unit_test(a_bad_record_changes_nothing),
	};

	log_set_level(LOG_ERROR);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
