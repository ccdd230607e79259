/*
 * The log of written pages, path by path: each way in which C code writes guest memory, before and after what it needs is in the TLB, and after write
 * access was taken away by collecting. What changed is in the log, and of what did not change only what may have.
 */
#include "lib/cpu_fixture.h"

#include "cpu/private.h"

#include <pthread.h>

#define PAGES	       (FIXTURE_RAM >> PAGE_SHIFT)
#define DATA	       0x100000ull /* page n of the window shows DATA + n pages */
#define LIN(n, offset) (FIXTURE_LIN + (n)*PAGE_SIZE + (offset))

static void in_section(struct vcpu *v, void (*fn)(struct vcpu *, void *), void *arg) { fn(v, arg); }

static const struct vcpu_env env = { .exclusive = in_section };

static uint64_t next_value = 0x0102030405060708;

/* ---- the ways ---- */

static void store(struct cpu_fixture *f) { cpu_store(f->v, LIN(1, 8), next_value, 8, false); }

static void store_crossing(struct cpu_fixture *f) { cpu_store(f->v, LIN(3, -4ull), next_value, 8, false); }

static void store_to_code(struct cpu_fixture *f)
{
	struct mem_page *page = mem_page(f->mem, gpa(DATA + 4 * PAGE_SIZE));

	cpu_code_begin(f->v, page, gpa(DATA + 4 * PAGE_SIZE), 64);
	cpu_store(f->v, LIN(4, 8), next_value, 8, false);
}

static void store_bytes(struct cpu_fixture *f)
{
	uint8_t bytes[2 * PAGE_SIZE];

	memset(bytes, (int)(next_value & 0xff), sizeof(bytes));
	cpu_store_bytes(f->v, LIN(5, 100), bytes, sizeof(bytes), false);
}

static void read_modify_write(struct cpu_fixture *f)
{
	uint64_t *at = cpu_rmw_map(f->v, LIN(8, 16), 8, false);

	assert_non_null(at);
	__atomic_fetch_add(at, next_value | 1, __ATOMIC_SEQ_CST);
}

static void read_modify_write_crossing(struct cpu_fixture *f)
{
	uint8_t *at = cpu_rmw_map(f->v, LIN(10, -4ull), 8, false);

	assert_non_null(at);
	memcpy(at, &next_value, 8);
}

static void system_store(struct cpu_fixture *f) { cpu_system_store(f->v, LIN(11, 0), next_value, 8); }

static void repeated_string(struct cpu_fixture *f)
{
	struct insn i = { .opsize = 1, .addrsize = 8, .seg = DS, .flags = INSN_REP };

	f->v->s.gpr[RDI] = LIN(12, 0xff0);
	f->v->s.gpr[RCX] = 0x20;
	f->v->s.gpr[RAX] = next_value & 0xff;
	assert_true(fixture_run(f->v, op_stos, &i, NULL));
}

static void physical(struct cpu_fixture *f)
{
	assert_int_equal(cpu_write_physical(f->v, gpa(DATA + 15 * PAGE_SIZE - 4), &next_value, 8), 0);
}

static void copy(struct cpu_fixture *f)
{
	assert_int_equal(mem_write(f->mem, gpa(DATA + 17 * PAGE_SIZE - 4), &next_value, 8), 0);
}

static void fill(struct cpu_fixture *f)
{
	assert_int_equal(mem_fill(f->mem, gpa(DATA + 18 * PAGE_SIZE), next_value & 0xff, 2 * PAGE_SIZE), 0);
}

static void *from_thread(void *fixture)
{
	copy(fixture);
	return NULL;
}

static void device_thread(struct cpu_fixture *f)
{
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, from_thread, f), 0);
	pthread_join(thread, NULL);
}

/* The walk marks what the guest unmarked. */
static void accessed_bit(struct cpu_fixture *f)
{
	uint64_t *entry = (uint64_t *)mem_map(f->mem, gpa(FIXTURE_PT + 8 * 20), 8, true);

	*entry = (*entry & ~(PTE_A | PTE_D)) ^ BIT(9); /* and leaves something changed */
	cpu_tlb_flush(f->v);
	cpu_load(f->v, LIN(20, 0), 8, false);
}

static const struct way {
	const char *name;
	void (*write)(struct cpu_fixture *);
	unsigned pages; /* that it changes each time */
} ways[] = {
	{ "store", store, 1 },
	{ "store to two pages", store_crossing, 2 },
	{ "store to code", store_to_code, 1 },
	{ "bytes", store_bytes, 3 },
	{ "read-modify-write", read_modify_write, 1 },
	{ "read-modify-write of two pages", read_modify_write_crossing, 2 },
	{ "repeated string", repeated_string, 2 },
	{ "system store", system_store, 1 },
	{ "physical", physical, 2 },
	{ "copy", copy, 2 },
	{ "fill", fill, 2 },
	{ "a device's thread", device_thread, 2 },
	{ "accessed bit", accessed_bit, 1 },
};

/* ---- comparing ---- */

static void compare(struct cpu_fixture *f, uint8_t *before, const char *name, unsigned pages)
{
	uint64_t bitmap[PAGES / 64];
	unsigned changed = 0, logged = 0;

	mem_dirty_collect(f->mem, f->mem->ram.first, PAGES, bitmap);
	for (unsigned n = 0; n < PAGES; n++) {
		bool in_log = bitmap[n / 64] & BIT(n % 64);

		logged += in_log;
		if (!memcmp(before + n * PAGE_SIZE, f->mem->ram.file.base + n * PAGE_SIZE, PAGE_SIZE))
			continue;
		changed++;
		if (!in_log)
			fail_msg("%s: page %#x is not in the log", name, n * PAGE_SIZE);
	}
	if (changed < pages || logged > changed)
		fail_msg("%s: %u pages changed, %u in the log; %u expected", name, changed, logged, pages);
	memcpy(before, f->mem->ram.file.base, FIXTURE_RAM);
}

static void every_way_is_logged(void **state)
{
	struct cpu_fixture fixture, *f = &fixture;
	uint8_t *before = malloc(FIXTURE_RAM);

	(void)state;
	fixture_setup(f, "v2", true, &env);
	fixture_long_mode(f);
	for (unsigned n = 0; n < 32; n++)
		fixture_map(f, n, DATA + n * PAGE_SIZE, 7);
	store(f); /* has write access when the log starts */
	memcpy(before, f->mem->ram.file.base, FIXTURE_RAM);
	mem_dirty_start(f->mem);
	for (unsigned n = 0; n < ARRAY_SIZE(ways); n++) {
		/* The first time page tables are marked too. */
		for (unsigned time = 0; time < 3; time++) {
			next_value += 0x0101010101010101;
			ways[n].write(f);
			compare(f, before, ways[n].name, ways[n].pages);
		}
	}
	mem_dirty_stop(f->mem);
	store(f);
	fixture_teardown(f);
	free(before);
}

static void it_starts_empty(void **state)
{
	struct guest_mem *mem = mem_create(2ull << 20, NULL);
	uint64_t bitmap[1];

	(void)state;
	mem_dirty_start(mem);
	assert_int_equal(mem_fill(mem, gpa(0x5000), 1, 1), 0);
	mem_dirty_stop(mem);
	assert_int_equal(mem_fill(mem, gpa(0x6000), 1, 1), 0);
	mem_dirty_start(mem);
	assert_int_equal(mem_fill(mem, gpa(0x7000), 1, 1), 0);
	mem_dirty_collect(mem, 0, 64, bitmap);
	assert_true(bitmap[0] == BIT(7));
	mem_dirty_collect(mem, 0, 64, bitmap);
	assert_true(!bitmap[0]);
	mem_destroy(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_way_is_logged),
		cmocka_unit_test(it_starts_empty),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
