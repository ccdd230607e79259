/*
 * mem: where RAM is, copies at every edge, and that no write to decoded code goes unnoticed, also when threads race.
 */
#include "mem/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

/* ---- the map ---- */

static void check_ranges(uint64_t ram_size, unsigned count, const uint64_t *expected)
{
	struct guest_mem *mem = mem_create(ram_size, NULL);
	uint64_t starts[4], sizes[4], total = 0;
	unsigned i;

	assert_non_null(mem);
	assert_int_equal(mem_ram_ranges(mem, starts, sizes), count);
	for (i = 0; i < count; i++) {
		assert_true(starts[i] == expected[2 * i]);
		assert_true(sizes[i] == expected[2 * i + 1]);
		total += sizes[i];
		assert_non_null(mem_map(mem, gpa(starts[i]), sizes[i], true));
		assert_null(mem_map(mem, gpa(starts[i]), sizes[i] + 1, true));
		assert_null(mem_map(mem, gpa(starts[i]), SIZE_MAX, true));
		assert_non_null(mem_find(mem, gpa(starts[i] + sizes[i] - 1)));
		assert_null(mem_find(mem, gpa(starts[i] + sizes[i])));
		assert_null(mem_page(mem, gpa(starts[i] + sizes[i])));
		if (starts[i])
			assert_null(mem_find(mem, gpa(starts[i] - 1)));
	}
	assert_true(total == ram_size - 0x20000);
	assert_null(mem_find(mem, gpa(UINT64_MAX)));
	mem_destroy(mem);
}

static void ram_is_where_a_pc_has_it(void **state)
{
	(void)state;
	check_ranges(MIB, 2, (uint64_t[]){ 0, 0xa0000, 0xc0000, 0x40000 });
	check_ranges(512 * MIB, 2, (uint64_t[]){ 0, 0xa0000, 0xc0000, 512 * MIB - 0xc0000 });
	check_ranges(3072 * MIB, 2, (uint64_t[]){ 0, 0xa0000, 0xc0000, 0xc0000000 - 0xc0000 });
	check_ranges(3073 * MIB, 3, (uint64_t[]){ 0, 0xa0000, 0xc0000, 0xc0000000 - 0xc0000, 0x100000000, MIB });
	check_ranges(8192 * MIB, 3, (uint64_t[]){ 0, 0xa0000, 0xc0000, 0xc0000000 - 0xc0000, 0x100000000, 5120 * MIB });
}

static void odd_sizes_are_refused(void **state)
{
	static const uint64_t sizes[] = { 0, 1, MIB - 1, MIB + 4096, MEM_MAX + MIB, UINT64_MAX };
	struct error err;
	size_t i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		char number[32];

		assert_null(mem_create(sizes[i], &err));
		snprintf(number, sizeof(number), "%" PRIu64, sizes[i]);
		assert_non_null(strstr(err.text, number));
	}
}

static void high_and_low_ram_are_different(void **state)
{
	struct guest_mem *mem = mem_create(3073 * MIB, NULL);
	uint32_t value = 1;

	(void)state;
	assert_int_equal(mem_write(mem, gpa(0x100000000), &value, 4), 0);
	value = 2;
	assert_int_equal(mem_write(mem, gpa(0), &value, 4), 0);
	assert_int_equal(mem_write(mem, gpa(0xc0000000 - 4), &value, 4), 0);
	assert_int_equal(mem_read(mem, gpa(0x100000000), &value, 4), 0);
	assert_int_equal(value, 1);
	mem_destroy(mem);
}

/* ---- copies ---- */

static void copies_stop_at_holes(void **state)
{
	struct guest_mem *mem = mem_create(2 * MIB, NULL);
	static uint8_t data[0x10000], back[0x10000];
	static const struct {
		uint64_t at;
		size_t len;
		int rc;
	} cases[] = {
		{ 0, 0x10000, 0 },
		{ 0x9fff8, 8, 0 },
		{ 0x9fff9, 8, -EFAULT },
		{ 0xa0000, 1, -EFAULT },
		{ 0xbffff, 2, -EFAULT },
		{ 0xc0000, 0x10000, 0 },
		{ 2 * MIB - 1, 1, 0 },
		{ 2 * MIB - 1, 2, -EFAULT },
		{ 2 * MIB, 1, -EFAULT },
		{ UINT64_MAX, 1, -EFAULT },
		{ UINT64_MAX, 8, -EFAULT },
		{ UINT64_MAX - 0xffff, 0x10000, -EFAULT },
		{ 0x9fff8, 0x10000, -EFAULT },
		{ 0xfff, 2, 0 },
		{ 0x123, 0, 0 },
	};
	size_t i, k;

	(void)state;
	for (k = 0; k < sizeof(data); k++)
		data[k] = (uint8_t)(k * 7 + 1);
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(mem_fill(mem, gpa(cases[i].at), 0x55, cases[i].len), cases[i].rc);
		assert_int_equal(mem_write(mem, gpa(cases[i].at), data, cases[i].len), cases[i].rc);
		memset(back, 0, sizeof(back));
		assert_int_equal(mem_read(mem, gpa(cases[i].at), back, cases[i].len), cases[i].rc);
		if (!cases[i].rc)
			assert_memory_equal(back, data, cases[i].len);
	}
	/* A refused write has written nothing. */
	assert_int_equal(mem_fill(mem, gpa(0x9fff0), 0xee, 16), 0);
	assert_int_equal(mem_write(mem, gpa(0x9fff0), data, 17), -EFAULT);
	assert_int_equal(mem_read(mem, gpa(0x9fff0), back, 16), 0);
	for (k = 0; k < 16; k++)
		assert_int_equal(back[k], 0xee);
	mem_destroy(mem);
}

/* A ROM over RAM: what is around stays as it was. */
static void a_rom_hides_ram(void **state)
{
	static const uint8_t rom[0x1000] = { 0xea };
	struct guest_mem *mem = mem_create(4 * MIB, NULL);
	uint64_t starts[4], sizes[4];
	uint8_t *below, *above;

	(void)state;
	assert_non_null(mem);
	below = mem_map(mem, gpa(0xfefff), 1, true);
	above = mem_map(mem, gpa(0x100000), 1, true);
	assert_int_equal(mem_add_rom(mem, gpa(0xff000), rom, sizeof(rom), NULL), 0);
	assert_ptr_equal(mem_map(mem, gpa(0xfefff), 1, true), below);
	assert_ptr_equal(mem_map(mem, gpa(0x100000), 1, true), above);
	assert_null(mem_map(mem, gpa(0xfefff), 2, true));
	assert_null(mem_map(mem, gpa(0xff000), 1, true));
	assert_int_equal(*mem_map(mem, gpa(0xff000), 1, false), 0xea);
	assert_ptr_not_equal(mem_page(mem, gpa(0xfefff)), mem_page(mem, gpa(0xff000)));
	assert_true(mem_page(mem, gpa(0x100000)) - mem_page(mem, gpa(0xfe000)) == 2);
	assert_int_equal(mem_ram_ranges(mem, starts, sizes), 2);
	assert_true(starts[1] == 0xc0000 && sizes[1] == 4 * MIB - 0xc0000);
	mem_destroy(mem);
}

static void rom_is_read_and_not_written(void **state)
{
	struct guest_mem *mem = mem_create(2 * MIB, NULL);
	static uint8_t rom[0x2000];
	uint8_t data[4];
	struct error err;

	(void)state;
	memset(rom, 0x90, sizeof(rom));
	assert_int_equal(mem_add_rom(mem, gpa(0xffffe000), rom, sizeof(rom), &err), 0);
	assert_int_equal(mem_write(mem, gpa(0xffffe000), "abcd", 4), 0);
	assert_int_equal(mem_fill(mem, gpa(0xffffefff), 1, 2), 0);
	assert_int_equal(mem_read(mem, gpa(0xffffeffe), data, 4), 0);
	assert_memory_equal(data, "\x90\x90\x90\x90", 4);
	assert_null(mem_map(mem, gpa(0xffffe000), 1, true));
	assert_int_equal(*mem_map(mem, gpa(0xffffe010), 1, false), 0x90);
	assert_non_null(mem_page(mem, gpa(0xfffff000)));
	assert_int_equal(mem_read(mem, gpa(0xfffffffe), data, 4), -EFAULT);

	assert_int_equal(mem_add_rom(mem, gpa(0xfffe0001), rom, 0x1000, &err), -EINVAL);
	assert_int_equal(mem_add_rom(mem, gpa(0xfffe0000), rom, 0, &err), -EINVAL);
	assert_int_equal(mem_add_rom(mem, gpa(0xfffffffffffff000), rom, 0x2000, &err), -EINVAL);
	for (unsigned n = 1; n < MEM_MAX_ROMS; n++)
		assert_int_equal(mem_add_rom(mem, gpa(0xf0000000 - 0x2000 * n), rom, 0x1000, &err), 0);
	assert_int_equal(mem_add_rom(mem, gpa(0xe0000000), rom, 0x1000, &err), -ENOSPC);
	mem_destroy(mem);
}

/* ---- layers ---- */

/* What is at an address, by page of the memory that shows there. */
static uint64_t shown(struct guest_mem *mem, uint64_t at)
{
	const struct mem_page *page = mem_page(mem, gpa(at));

	return page ? (uint64_t)(page - mem->pages) : UINT64_MAX;
}

struct told {
	struct mem_listener listener;
	struct guest_mem *mem;
	struct {
		uint64_t start, size, was, is;
	} change[8];
	unsigned count, after;
};

static void told_before(void *opaque, uint64_t start, uint64_t size)
{
	struct told *t = opaque;

	t->change[t->count].start = start;
	t->change[t->count].size = size;
	t->change[t->count++].was = shown(t->mem, start);
}

static void told_after(void *opaque, uint64_t start, uint64_t size)
{
	struct told *t = opaque;

	assert_true(t->change[t->after].start == start && t->change[t->after].size == size);
	t->change[t->after++].is = shown(t->mem, start);
}

/* A device's memory comes, moves, goes behind RAM and away; who listens hears what is different, and no more. */
static void memory_comes_and_goes(void **state)
{
	struct guest_mem *mem = mem_create(2 * MIB, NULL);
	struct memory *video = memory_create(mem, MEMORY_KIND_VIDEO, "test-video", 0x4000, NULL);
	struct mem_layer layer = {
		.memory = video, .start = 0xe0000000, .size = 0x3000, .offset = 0x1000, .reads = true, .writes = true
	};
	struct told told = { .mem = mem, .listener = { .changes = told_before, .changed = told_after } };
	uint32_t value = 0x11223344;

	(void)state;
	assert_non_null(video);
	told.listener.opaque = &told;
	mem_listen(mem, &told.listener);
	assert_int_equal(mem_layer_add(mem, &layer, NULL), 0);
	assert_true(mem_is_stale(mem));
	assert_null(mem_find(mem, gpa(0xe0000000)));
	mem_commit(mem);
	assert_false(mem_is_stale(mem));
	assert_int_equal(told.count, 1);
	assert_true(told.change[0].start == 0xe0000000 && told.change[0].size == 0x3000);
	assert_true(told.change[0].was == UINT64_MAX && told.change[0].is == video->first + 1);
	assert_int_equal(mem_write(mem, gpa(0xe0000004), &value, 4), 0);
	assert_memory_equal(video->file.base + 0x1004, &value, 4);
	assert_ptr_equal(mem_memory_of(mem, shown(mem, 0xe0002000)), video);
	assert_null(mem_find(mem, gpa(0xe0003000)));

	/* by one page: the ends differ, and what is between is another page as well */
	told.count = told.after = 0;
	mem_layer_set(mem, &layer, 0xe0001000, true, true);
	mem_commit(mem);
	assert_int_equal(told.count, 3);
	assert_true(told.change[0].size == 0x1000 && told.change[0].is == UINT64_MAX);
	assert_true(told.change[1].size == 0x2000 && told.change[1].is == video->first + 1);
	assert_true(told.change[2].size == 0x1000 && told.change[2].was == UINT64_MAX);

	/* behind RAM, half of it */
	told.count = told.after = 0;
	mem_layer_set(mem, &layer, 2 * MIB - 0x1000, true, true);
	mem_commit(mem);
	assert_true(shown(mem, 2 * MIB - 0x1000) < video->first && shown(mem, 2 * MIB) == video->first + 2);
	assert_int_equal(told.count, 2);

	mem_layer_remove(mem, &layer);
	mem_commit(mem);
	assert_null(mem_find(mem, gpa(2 * MIB)));
	memory_destroy(mem, video);
	mem_unlisten(&told.listener);
	mem_destroy(mem);
}

/* What a PC's shadow RAM is made of: reads and writes go different ways, in all four combinations. */
static void reads_and_writes_go_different_ways(void **state)
{
	static uint8_t rom[0x1000];
	struct guest_mem *mem = mem_create(2 * MIB, NULL);
	struct mem_layer layer = { .memory = &mem->ram,
				   .start = 0xf0000,
				   .offset = 0xf0000,
				   .size = 0x1000,
				   .priority = MEM_PRIORITY_SHADOW };
	uint8_t *ram = mem->ram.file.base + 0xf0000, byte;

	(void)state;
	memset(rom, 0x33, sizeof(rom));
	assert_int_equal(mem_add_rom(mem, gpa(0xf0000), rom, sizeof(rom), NULL), 0);
	assert_int_equal(mem_layer_add(mem, &layer, NULL), 0);
	for (unsigned how = 0; how < 4; how++) {
		bool reads = how & 1, writes = how & 2;

		*ram = 0x55;
		mem_layer_set(mem, &layer, 0xf0000, reads, writes);
		mem_commit(mem);
		assert_int_equal(mem_read(mem, gpa(0xf0000), &byte, 1), 0);
		assert_int_equal(byte, reads ? 0x55 : 0x33);
		assert_int_equal(mem_fill(mem, gpa(0xf0000), 0x77, 1), 0);
		assert_int_equal(*ram, writes ? 0x77 : 0x55);
		assert_int_equal(mem_map(mem, gpa(0xf0000), 1, true) != NULL, reads && writes);
		assert_non_null(mem_map(mem, gpa(0xf0000), 1, false));
	}
	mem_layer_remove(mem, &layer);
	mem_destroy(mem);
}

/* Code that was decoded there is no more, even if the pages stay as they are. */
static void what_moves_is_no_code(void **state)
{
	struct guest_mem *mem = mem_create(2 * MIB, NULL);
	struct memory *memory = memory_create(mem, MEMORY_KIND_DEVICE, "test-device", 0x1000, NULL);
	struct mem_layer layer = {
		.memory = memory, .start = 0xe0000000, .size = 0x1000, .reads = true, .writes = true
	};
	struct mem_page *page;
	uint32_t generation;
	uint16_t direct;

	(void)state;
	assert_int_equal(mem_layer_add(mem, &layer, NULL), 0);
	mem_commit(mem);
	page = mem_page(mem, gpa(0xe0000000));
	generation = mem_code_begin(page, gpa(0xe0000000), 4, &direct);
	mem_layer_set(mem, &layer, 0xd0000000, true, true);
	mem_commit(mem);
	assert_ptr_equal(mem_page(mem, gpa(0xd0000000)), page);
	assert_int_not_equal(page->code_gen, generation);
	assert_true(!page->code_chunks);
	mem_layer_remove(mem, &layer);
	mem_commit(mem);
	memory_destroy(mem, memory);
	mem_destroy(mem);
}

/* ---- origins ---- */

struct source {
	uint8_t pages[4][PAGE_SIZE];
	unsigned fetched[4];
	uint64_t fails; /* page */
	unsigned told;
};

static int fetch_page(void *opaque, uint64_t page, void *to, struct error *err)
{
	struct source *s = opaque;

	assert_true(page < 4);
	s->fetched[page]++;
	if (page == s->fails)
		return error_set(err, ENOENT, "it is not there");
	memcpy(to, s->pages[page], PAGE_SIZE);
	return 0;
}

static void check_fetched(const struct source *s, unsigned a, unsigned b, unsigned c, unsigned d)
{
	assert_true(s->fetched[0] == a && s->fetched[1] == b && s->fetched[2] == c && s->fetched[3] == d);
}

/* A page comes when it is first asked for, however that is, and once. */
static void pages_come_from_their_origin(void **state)
{
	struct guest_mem *mem = mem_create(2 * MIB, NULL);
	struct memory *memory = memory_create(mem, MEMORY_KIND_DEVICE, "test-device", 4 * PAGE_SIZE, NULL);
	struct mem_layer layer = {
		.memory = memory, .start = 0xe0000000, .size = 4 * PAGE_SIZE, .reads = true, .writes = true
	};
	struct source *s = calloc(1, sizeof(*s));
	const struct mem_origin origin = { fetch_page, s };
	uint8_t bytes[2];

	(void)state;
	s->fails = UINT64_MAX;
	for (unsigned n = 0; n < 4; n++)
		memset(s->pages[n], (int)n + 1, PAGE_SIZE);
	assert_int_equal(mem_layer_add(mem, &layer, NULL), 0);
	mem_commit(mem);
	assert_int_equal(mem_set_origin(mem, memory, &origin, NULL), 0);
	check_fetched(s, 0, 0, 0, 0);
	assert_int_equal(mem_read(mem, gpa(0xe0000fff), bytes, 2), 0);
	assert_memory_equal(bytes, "\1\2", 2);
	check_fetched(s, 1, 1, 0, 0);
	assert_int_equal(mem_write(mem, gpa(0xe0002001), "\x99", 1), 0);
	check_fetched(s, 1, 1, 1, 0);
	assert_memory_equal(memory->file.base + 2 * PAGE_SIZE, "\3\x99\3", 3);
	assert_true(!mem_is_absent(memory, 2) && mem_is_absent(memory, 3));
	assert_int_equal(mem_map(mem, gpa(0xe0000000), 4 * PAGE_SIZE, false)[3 * PAGE_SIZE], 4);
	check_fetched(s, 1, 1, 1, 1);
	assert_false(mem_has_origins(mem));
	/* what was written is kept, until there is an origin again */
	assert_int_equal(mem_read(mem, gpa(0xe0002001), bytes, 1), 0);
	assert_int_equal(bytes[0], 0x99);
	assert_int_equal(mem_set_origin(mem, memory, &origin, NULL), 0);
	assert_int_equal(mem_read(mem, gpa(0xe0002001), bytes, 1), 0);
	assert_int_equal(bytes[0], 3);
	check_fetched(s, 1, 1, 2, 1);
	mem_layer_remove(mem, &layer);
	mem_commit(mem);
	memory_destroy(mem, memory);
	assert_false(mem_has_origins(mem));
	mem_destroy(mem);
	free(s);
}

static void note_loss(void *opaque, const struct error *why)
{
	((struct source *)opaque)->told++;
	assert_string_equal(why->text, "page 0x2 of the memory 'test-device' cannot be fetched: it is not there");
}

/* Nobody gets it, in whatever way he asks; what was there is still. */
static void a_lost_page_is_nobodys(void **state)
{
	struct guest_mem *mem = mem_create(2 * MIB, NULL);
	struct memory *memory = memory_create(mem, MEMORY_KIND_DEVICE, "test-device", 4 * PAGE_SIZE, NULL);
	struct mem_layer layer = {
		.memory = memory, .start = 0xe0000000, .size = 4 * PAGE_SIZE, .reads = true, .writes = true
	};
	struct source *s = calloc(1, sizeof(*s));
	const struct mem_origin origin = { fetch_page, s };
	struct writer writer = { 0 };
	uint8_t *bytes = calloc(4, PAGE_SIZE);
	struct error err = { 0 };

	(void)state;
	s->fails = 2;
	memset(s->pages, 7, sizeof(s->pages));
	mem->lost = note_loss;
	mem->lost_opaque = s;
	assert_int_equal(mem_layer_add(mem, &layer, NULL), 0);
	mem_commit(mem);
	assert_int_equal(mem_set_origin(mem, memory, &origin, NULL), 0);
	assert_int_equal(mem_read(mem, gpa(0xe0000000), bytes, 2 * PAGE_SIZE), 0);
	assert_int_equal(mem_loss(mem, &err), 0);
	bytes[0] = 1;
	assert_int_equal(mem_read(mem, gpa(0xe0000000), bytes, 4 * PAGE_SIZE), -EFAULT);
	assert_true(bytes[0] == 1 && !bytes[2 * PAGE_SIZE]);
	assert_int_equal(mem_write(mem, gpa(0xe0001fff), bytes, 2), -EFAULT);
	assert_int_equal(memory->file.base[2 * PAGE_SIZE - 1], 7); /* all or nothing */
	assert_null(mem_map(mem, gpa(0xe0001000), 2 * PAGE_SIZE, true));
	assert_null(mem_find(mem, gpa(0xe0002000)));
	assert_null(mem_find(mem, gpa(0xe0003000))); /* it is not asked for any more */
	assert_non_null(mem_find(mem, gpa(0xe0001000)));
	check_fetched(s, 1, 1, 1, 0);
	assert_int_equal(s->told, 1);
	assert_int_equal(mem_loss(mem, &err), -EIO);
	assert_int_equal(mem_save(mem, &writer, &err), -EIO);
	assert_non_null(strstr(err.text, "it is not there"));
	writer_free(&writer);
	mem_destroy(mem);
	free(bytes);
	free(s);
}

/* ---- code ---- */

static void writes_to_code_change_the_generation(void **state)
{
	struct guest_mem *mem = mem_create(2 * MIB, NULL);
	struct mem_page *page = mem_page(mem, gpa(0x1000)), *next = mem_page(mem, gpa(0x2000));
	uint32_t generation, other;
	uint16_t direct;

	(void)state;
	generation = mem_code_begin(page, gpa(0x1040), 16, &direct);
	assert_int_equal(mem_code_begin(page, gpa(0x10ff), 2, &direct), generation);
	assert_int_equal(direct, 0);
	assert_true(page->code_chunks == (BIT(1) | BIT(3) | BIT(4)));

	/* Other chunks, other pages: nothing happens. */
	mem_note_write(mem, gpa(0x1000), 64);
	mem_note_write(mem, gpa(0x1080), 64);
	mem_note_write(mem, gpa(0x1140), 0x4000);
	mem_note_write(mem, gpa(0xfff), 65);
	mem_note_write(mem, gpa(0x1040), 0);
	mem_note_write(mem, gpa(0xa0000), 4);
	assert_int_equal(page->code_gen, generation);

	mem_note_write(mem, gpa(0x103f), 2);
	assert_int_not_equal(page->code_gen, generation);
	assert_true(page->code_chunks == 0);
	assert_int_equal(page->changing, 0);
	generation = page->code_gen;
	mem_note_write(mem, gpa(0x1040), 1);
	assert_int_equal(page->code_gen, generation);

	/* A range over several pages touches each. */
	mem_code_begin(page, gpa(0x1fff), 1, &direct);
	other = mem_code_begin(next, gpa(0x2000), 4096, &direct);
	assert_true(next->code_chunks == ~0ull);
	assert_int_equal(mem_fill(mem, gpa(0x1ffe), 0, 4), 0);
	assert_int_not_equal(page->code_gen, generation);
	assert_int_not_equal(next->code_gen, other);
	mem_destroy(mem);
}

/* Nobody holds a direct write entry for a page with code; who made one before must give it up. */
/* From a change's begin to its end, whoever writes to the page changes code, and nobody writes directly. */
static void a_change_is_everybodys_until_it_ends(void **state)
{
	struct guest_mem *mem = mem_create(MEM_MIN, NULL);
	struct mem_page *page = mem_page(mem, gpa(0x1000));
	uint32_t generation;
	uint16_t direct;

	(void)state;
	generation = mem_code_begin(page, gpa(0x1040), 16, &direct);
	assert_false(mem_change_begin(page, gpa(0x1080), 4));
	assert_true(mem_change_begin(page, gpa(0x103f), 2));
	assert_int_not_equal(page->code_gen, generation);
	generation = page->code_gen;
	assert_false(mem_allow_direct(mem, page, 7));
	assert_true(mem_change_begin(page, gpa(0x1800), 1));
	assert_int_not_equal(page->code_gen, generation);
	mem_change_end(page);
	assert_false(mem_allow_direct(mem, page, 7));
	mem_change_end(page);
	assert_false(mem_change_begin(page, gpa(0x1040), 1));
	assert_true(mem_allow_direct(mem, page, 7));
	mem_destroy(mem);
}

static void code_and_direct_writes(void **state)
{
	struct guest_mem *mem = mem_create(2 * MIB, NULL);
	struct mem_page *page = mem_page(mem, gpa(0x1000));
	uint32_t generation;
	uint16_t direct;

	(void)state;
	assert_true(mem_allow_direct(mem, page, 7));
	assert_true(mem_allow_direct(mem, page, 7));
	mem_code_begin(page, gpa(0x1040), 16, &direct);
	assert_int_equal(direct, 7);
	mem_direct_dropped(page);
	generation = mem_code_begin(page, gpa(0x1040), 16, &direct);
	assert_int_equal(direct, 0);
	assert_false(mem_allow_direct(mem, page, 7));

	/* Code that is overwritten is not written directly yet: nothing is to be dropped before the next. */
	mem_note_write(mem, gpa(0x1040), 1);
	assert_int_not_equal(mem_code_begin(page, gpa(0x1040), 16, &direct), generation);
	assert_int_equal(direct, 0);

	mem_note_write(mem, gpa(0x1040), 1);
	assert_true(mem_allow_direct(mem, page, 7));
	assert_true(mem_allow_direct(mem, page, 8));
	assert_true(mem_allow_direct(mem, page, 8));
	mem_code_begin(page, gpa(0x1fff), 1, &direct);
	assert_int_equal(direct, MEM_DIRECT_ANY);
	mem_destroy(mem);
}

/*
 * Writers store a count in the two chunks of a page and note it; decoders "decode" a chunk and later look whether
 * their generation still holds. If it does, the bytes must be those that they decoded: a write that nobody noticed
 * shows as a difference. Each writer, too, decodes what it has just written: it must never find an older block
 * valid.
 */
#define RACE_ROUNDS 20000

struct race {
	struct guest_mem *mem;
	uint64_t at;
	_Atomic unsigned *running;
	unsigned failures;
};

struct block {
	uint32_t generation;
	uint64_t value;
	bool decoded;
};

static uint64_t race_load(struct race *race)
{
	return __atomic_load_n((uint64_t *)(void *)mem_map(race->mem, gpa(race->at), 8, false), __ATOMIC_RELAXED);
}

/* Runs a block, decoding it first if there is none that is valid; the value that the guest would compute. */
static uint64_t run_block(struct race *race, struct block *block)
{
	struct mem_page *page = mem_page(race->mem, gpa(race->at));
	uint16_t direct;

	if (!block->decoded || atomic_load(&page->code_gen) != block->generation) {
		block->generation = mem_code_begin(page, gpa(race->at), 8, &direct);
		block->value = race_load(race);
		block->decoded = true;
	}
	return block->value;
}

/* The only writer of its chunk, so what it runs next is what it wrote last. */
static void *race_write(void *opaque)
{
	struct race *race = opaque;
	struct block block = { 0 };
	uint64_t *host = (uint64_t *)(void *)mem_map(race->mem, gpa(race->at), 8, true);
	unsigned i;

	for (i = 1; i <= RACE_ROUNDS; i++) {
		__atomic_store_n(host, i, __ATOMIC_RELAXED);
		mem_note_write(race->mem, gpa(race->at), 8);
		if (run_block(race, &block) != i)
			race->failures++;
	}
	atomic_fetch_sub(race->running, 1);
	return NULL;
}

/* Somebody else's chunk: values only go up, and the last one is seen in the end. */
static void *race_decode(void *opaque)
{
	struct race *race = opaque;
	struct block block = { 0 };
	uint64_t last = 0;

	while (atomic_load(race->running)) {
		uint64_t value = run_block(race, &block);

		if (value < last)
			race->failures++;
		last = value;
	}
	if (run_block(race, &block) != RACE_ROUNDS)
		race->failures++;
	return NULL;
}

static void racing_writes_are_noticed(void **state)
{
	struct guest_mem *mem = mem_create(2 * MIB, NULL);
	_Atomic unsigned running = 2;
	struct race races[4];
	pthread_t threads[4];
	unsigned i;

	(void)state;
	for (i = 0; i < 4; i++) {
		races[i] = (struct race){ .mem = mem, .at = 0x1000 + 0x400 * (i & 1), .running = &running };
		assert_int_equal(
			host_thread_create(&threads[i], "race", i < 2 ? race_write : race_decode, &races[i], NULL), 0);
	}
	for (i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	for (i = 0; i < 4; i++)
		assert_int_equal(races[i].failures, 0);
	assert_int_equal(mem_page(mem, gpa(0x1000))->changing, 0);
	mem_destroy(mem);
}

/* ---- memory beyond the guest's ---- */

static void overhead_is_kept(void **state)
{
	static const uint64_t rams[] = { MEM_MIN, 512 * MIB, 64ull << 30, MEM_MAX };
	static const unsigned cpus[] = { 1, 2, 5, 64 };
	struct overhead o;

	(void)state;
	for (size_t r = 0; r < ARRAY_SIZE(rams); r++) {
		for (size_t c = 0; c < ARRAY_SIZE(cpus); c++) {
			uint64_t least = overhead_least(rams[r], cpus[c]), usual = overhead_default(rams[r], cpus[c]);
			const uint64_t limits[] = { least, usual, 4 * usual };

			assert_true(least < usual);
			for (size_t n = 0; n < ARRAY_SIZE(limits); n++) {
				overhead_init(&o, limits[n], rams[r], cpus[c]);
				for (unsigned cpu = 0; cpu < cpus[c]; cpu++)
					assert_true(overhead_take(&o, OVERHEAD_CODE, o.code_share));
				assert_true(o.code_share >= 8 * MIB);
				assert_true(overhead_left(&o) >= 16 * MIB); /* for windows */
			}
		}
	}
	assert_true(overhead_default(512 * MIB, 64) < 32 * overhead_default(512 * MIB, 1));
}

static void overhead_is_taken_and_given(void **state)
{
	struct overhead o;
	uint64_t left;

	(void)state;
	overhead_init(&o, overhead_default(MIB, 1), MIB, 1);
	left = overhead_left(&o);
	assert_false(overhead_take(&o, OVERHEAD_WINDOWS, left + 1));
	assert_false(overhead_take(&o, OVERHEAD_WINDOWS, UINT64_MAX));
	assert_int_equal(overhead_left(&o), left);
	assert_true(overhead_take(&o, OVERHEAD_WINDOWS, left));
	assert_false(overhead_take(&o, OVERHEAD_CODE, 1));
	overhead_give(&o, OVERHEAD_WINDOWS, left);
	assert_true(overhead_take(&o, OVERHEAD_CODE, 1));
	assert_int_equal(o.most, o.limit);
	assert_int_equal(o.of_kind[OVERHEAD_WINDOWS], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ram_is_where_a_pc_has_it),
		cmocka_unit_test(odd_sizes_are_refused),
		cmocka_unit_test(high_and_low_ram_are_different),
		cmocka_unit_test(copies_stop_at_holes),
		cmocka_unit_test(a_rom_hides_ram),
		cmocka_unit_test(rom_is_read_and_not_written),
		cmocka_unit_test(memory_comes_and_goes),
		cmocka_unit_test(reads_and_writes_go_different_ways),
		cmocka_unit_test(what_moves_is_no_code),
		cmocka_unit_test(pages_come_from_their_origin),
		cmocka_unit_test(a_lost_page_is_nobodys),
		cmocka_unit_test(writes_to_code_change_the_generation),
		cmocka_unit_test(a_change_is_everybodys_until_it_ends),
		cmocka_unit_test(code_and_direct_writes),
		cmocka_unit_test(racing_writes_are_noticed),
		cmocka_unit_test(overhead_is_kept),
		cmocka_unit_test(overhead_is_taken_and_given),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
