/*
 * Host addresses of guest memory for a device's I/O: which pieces there are, that what is written is noted, and that nobody waits for such a
 * device who changes the map.
 */
#include "mem/mem.h"

#include <errno.h>
#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

#define ROOM  4
#define BLOCK 0xe0000000

struct pieces {
	struct iovec iov[ROOM];
	unsigned count;
};

static int map(struct guest_mem *mem, uint64_t at, size_t len, bool write, struct pieces *p)
{
	return mem_dma_map(mem, gpa(at), len, write, p->iov, &p->count, ROOM);
}

static void check_piece(const struct pieces *p, unsigned n, const void *base, size_t len)
{
	assert_true(n < p->count);
	assert_ptr_equal(p->iov[n].iov_base, base);
	assert_int_equal(p->iov[n].iov_len, len);
}

static void pieces_are_what_the_map_says(void **state)
{
	static uint8_t contents[PAGE_SIZE];
	struct guest_mem *mem = mem_create(3073 * MIB, NULL);
	uint8_t *ram = mem->ram.file.base;
	struct pieces p = { .count = 0 };

	(void)state;
	assert_int_equal(mem_add_rom(mem, gpa(0xf0000), contents, PAGE_SIZE, NULL), 0);
	assert_int_equal(map(mem, 0x1ffe, 4, true, &p), 0);
	assert_int_equal(map(mem, 0x2002, 8, true, &p), 0); /* behind it: one piece */
	assert_int_equal(p.count, 1);
	check_piece(&p, 0, ram + 0x1ffe, 12);
	assert_int_equal(map(mem, 0x5000, 0, true, &p), 0);
	assert_int_equal(p.count, 1);
	/* a ROM is read, and no RAM of those around it */
	assert_int_equal(map(mem, 0xeffff, PAGE_SIZE + 2, false, &p), 0);
	assert_int_equal(p.count, 4);
	check_piece(&p, 1, ram + 0xeffff, 1);
	assert_memory_equal(p.iov[2].iov_base, contents, PAGE_SIZE);
	check_piece(&p, 3, ram + 0xf1000, 1);
	assert_int_equal(map(mem, 0x5000, 1, true, &p), -E2BIG);
	p.count = 0;
	assert_int_equal(map(mem, 0xeffff, PAGE_SIZE + 2, true, &p), -EFAULT);
	p.count = 0;
	/* holes and the ends of the world */
	assert_int_equal(map(mem, 0x9ffff, 2, false, &p), -EFAULT);
	assert_int_equal(map(mem, MEM_LOW_TOP - 1, 2, false, &p), -EFAULT);
	assert_int_equal(map(mem, MEM_HIGH_BASE + MIB - 1, 2, false, &p), -EFAULT);
	assert_int_equal(map(mem, UINT64_MAX, 1, false, &p), -EFAULT);
	assert_int_equal(map(mem, UINT64_MAX - 1, 3, false, &p), -EFAULT);
	assert_int_equal(map(mem, 0x1000, SIZE_MAX, false, &p), -EFAULT);
	p.count = 0;
	assert_int_equal(map(mem, MEM_HIGH_BASE, MIB, true, &p), 0);
	check_piece(&p, 0, ram + MEM_LOW_TOP, MIB);
	mem_destroy(mem);
}

/* ---- writes ---- */

static struct {
	uint64_t at;
	size_t len;
	unsigned count;
} changed;

static uint64_t code_changed(void *opaque, gpa_t at, size_t len)
{
	(void)opaque;
	changed.at = at.v;
	changed.len = len;
	changed.count++;
	return 0;
}

static void writes_are_noted(void **state)
{
	struct guest_mem *mem = mem_create(2 * MIB, NULL);
	struct mem_page *page = mem_page(mem, gpa(0x2000));
	uint64_t bitmap[8];
	struct pieces p = { .count = 0 };
	uint32_t generation;
	uint16_t direct;

	(void)state;
	mem->code_changed = code_changed;
	changed.count = 0;
	assert_int_equal(map(mem, 0x1000, 3 * PAGE_SIZE, true, &p), 0);
	generation = mem_code_begin(page, gpa(0x2040), 4, &direct);
	mem_dma_written(mem, p.iov[0].iov_base, PAGE_SIZE + 64); /* up to the code */
	assert_int_equal(page->code_gen, generation);
	mem_dma_written(mem, p.iov[0].iov_base, PAGE_SIZE + 65);
	assert_int_not_equal(page->code_gen, generation);
	assert_int_equal(changed.count, 1);
	assert_true(changed.at == 0x2000 && changed.len == 65);
	mem_dirty_start(mem);
	mem_dma_written(mem, (uint8_t *)p.iov[0].iov_base + PAGE_SIZE - 1, 2);
	mem_dma_written(mem, p.iov[0].iov_base, 0);
	mem_dirty_collect(mem, 0, 512, bitmap);
	assert_true(bitmap[0] == (BIT(1) | BIT(2)));
	mem_dirty_stop(mem);
	mem_destroy(mem);
}

/* A map that changes under a request waits for nobody; the write still counts, at the place that the memory is shown at by then, or nowhere. */
static void the_map_changes_meanwhile(void **state)
{
	struct guest_mem *mem = mem_create(2 * MIB, NULL);
	struct memory *memory = memory_create(mem, MEMORY_KIND_DEVICE, "test-device", PAGE_SIZE, NULL);
	struct mem_layer layer = { .memory = memory, .start = BLOCK, .size = PAGE_SIZE, .reads = true, .writes = true };
	struct pieces p = { .count = 0 };
	uint64_t bitmap[1], generation = atomic_load(&mem->map_generation);
	uint16_t direct;

	(void)state;
	mem->code_changed = code_changed;
	assert_int_equal(mem_layer_add(mem, &layer, NULL), 0);
	mem_commit(mem);
	assert_true(atomic_load(&mem->map_generation) != generation);
	assert_int_equal(map(mem, BLOCK, 8, true, &p), 0);
	mem_layer_set(mem, &layer, 2 * BLOCK / 4, true, true);
	mem_commit(mem);
	mem_code_begin(&mem->pages[memory->first], gpa(2 * BLOCK / 4), 4, &direct);
	memset(p.iov[0].iov_base, 0x99, 8);
	changed.count = 0;
	mem_dma_written(mem, p.iov[0].iov_base, 8);
	assert_int_equal(changed.count, 1);
	assert_true(changed.at == 2 * BLOCK / 4);
	mem_layer_set(mem, &layer, 2 * BLOCK / 4, false, false);
	mem_commit(mem);
	changed.count = 0;
	mem_dirty_start(mem);
	mem_dma_written(mem, p.iov[0].iov_base, 8);
	mem_dirty_collect(mem, memory->first, 64, bitmap);
	assert_true(bitmap[0] == 1);
	assert_int_equal(changed.count, 0);
	mem_dirty_stop(mem);
	mem_layer_remove(mem, &layer);
	mem_commit(mem);
	memory_destroy(mem, memory);
	mem_destroy(mem);
}

/* ---- origins ---- */

static int fetch(void *opaque, uint64_t page, void *to, struct error *err)
{
	(void)opaque, (void)err;
	memset(to, (int)page + 1, PAGE_SIZE);
	return 0;
}

static void pages_are_fetched_before(void **state)
{
	static const struct mem_origin origin = { fetch, NULL };
	struct guest_mem *mem = mem_create(2 * MIB, NULL);
	struct pieces p = { .count = 0 };
	const uint8_t *bytes;

	(void)state;
	assert_int_equal(mem_set_origin(mem, &mem->ram, &origin, NULL), 0);
	assert_int_equal(map(mem, 0x1fff, PAGE_SIZE + 2, false, &p), 0);
	assert_int_equal(p.count, 1);
	bytes = p.iov[0].iov_base;
	assert_int_equal(bytes[0], 2);
	assert_int_equal(bytes[1], 3);
	assert_int_equal(bytes[PAGE_SIZE + 1], 4);
	assert_true(mem_is_absent(&mem->ram, 0) && mem_is_absent(&mem->ram, 4));
	mem_destroy(mem);
}

/* ---- what is given back ---- */

static void discarded_pages_are_zeros(void **state)
{
	struct guest_mem *mem = mem_create(4 * MIB, NULL);
	struct memory *other = memory_create(mem, MEMORY_KIND_VIDEO, "block", MIB, NULL);
	struct pieces p = { .count = 0 };
	uint8_t *ram = mem->ram.file.base;
	uint64_t bitmap[4 * MIB / PAGE_SIZE / 64];
	struct iovec piece = { other->file.base, MIB };
	size_t size;

	(void)state;
	memset(ram, 1, 4 * MIB);
	memset(other->file.base, 1, MIB);
	mem_dirty_start(mem);
	assert_int_equal(map(mem, 0x200fff, 0x3000, true, &p), 0);
	mem_dma_discard(mem, p.iov);
	assert_int_equal(host_memory_data(&mem->ram.file, 0x201000, &size), 0x203000); /* the host has them back */
	assert_int_equal(ram[0x200fff], 1);
	assert_int_equal(ram[0x201000], 0);
	assert_int_equal(ram[0x202fff], 0);
	assert_int_equal(ram[0x203000], 1);
	assert_int_equal(ram[0x203fff], 1);
	mem_dirty_collect(mem, 0, ARRAY_SIZE(bitmap) * 64, bitmap);
	for (unsigned n = 0; n < ARRAY_SIZE(bitmap); n++)
		assert_int_equal(bitmap[n], n == 0x200 / 64 ? 6 : 0);
	/* What is smaller than a page, and what is no RAM, stays. */
	piece = (struct iovec){ ram + 0x300001, 2 * PAGE_SIZE - 2 };
	mem_dma_discard(mem, &piece);
	assert_int_equal(ram[0x300001], 1);
	piece = (struct iovec){ other->file.base, MIB };
	mem_dma_discard(mem, &piece);
	assert_int_equal(other->file.base[0], 1);
	memory_destroy(mem, other);
	mem_destroy(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_are_what_the_map_says), cmocka_unit_test(writes_are_noted),
		cmocka_unit_test(the_map_changes_meanwhile),	cmocka_unit_test(pages_are_fetched_before),
		cmocka_unit_test(discarded_pages_are_zeros),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
