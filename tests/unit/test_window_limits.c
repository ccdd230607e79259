/*
 * Windows when something is used up: mappings that the host allows, by the guest itself or by others in the process. The guest goes on,
 * more slowly, and nothing that it may not reach can be reached.
 */
#define _GNU_SOURCE /* REG_ERR */
#include "lib/window_bench.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- the process's mappings, counted and used up ---- */

/* Above this, using them up takes too long. */
#define MOST_TO_USE_UP 300000

static struct {
	uint8_t *striped; /* every other page may be read */
	size_t size;
	uint64_t single[16];
	unsigned singles;
} crowd;

/* Until the host gives no more. */
static void use_up_mappings(void)
{
	crowd.size = (size_t)MOST_TO_USE_UP * PAGE_SIZE;
	crowd.striped = mmap(NULL, crowd.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(crowd.striped, MAP_FAILED);
	for (size_t n = 1; n < MOST_TO_USE_UP; n += 2)
		if (mprotect(crowd.striped + n * PAGE_SIZE, PAGE_SIZE, PROT_READ))
			break;
	while (crowd.singles < ARRAY_SIZE(crowd.single)) {
		long at = syscall(SYS_mmap, 0, PAGE_SIZE, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

		if (at == -1)
			break;
		crowd.single[crowd.singles++] = (uint64_t)at;
	}
	assert_true(crowd.singles < ARRAY_SIZE(crowd.single));
}

static void give_mappings_back(void)
{
	munmap(crowd.striped, crowd.size);
	while (crowd.singles)
		syscall(SYS_munmap, crowd.single[--crowd.singles], PAGE_SIZE);
}

static bool can_be_used_up(void)
{
	int64_t maps = host_proc_number("/proc/sys/vm/max_map_count");

#ifdef __SANITIZE_ADDRESS__
	print_message("# the address sanitizer ends a process that has no mappings left\n");
	return false;
#endif
	if (maps > 0 && maps <= MOST_TO_USE_UP)
		return true;
	print_message("# vm.max_map_count is %lld: too many to use up\n", (long long)maps);
	return false;
}

/* ---- accesses that may be slow, but not wrong ---- */

static unsigned slow, quick;

/* Where there is no table, the interpreter runs the guest. */
static bool works(struct bench *b, uint64_t lin, bool write, uint64_t *value)
{
	bool done = bt_windows_table(b->w, b->v) && translated_twice(b->w, b->v, lin, write, value);

	slow += !done;
	quick += done;
	return done;
}

static void reads_if_at_all(struct bench *b, uint64_t lin, uint64_t expected)
{
	uint64_t value;

	if (works(b, lin, false, &value))
		assert_int_equal(value, expected);
}

static void writes_if_at_all(struct bench *b, uint64_t lin, uint64_t value) { works(b, lin, true, &value); }

static void must_not_work(struct bench *b, uint64_t lin, bool write)
{
	uint64_t value = 0x510e510e;

	if (bt_windows_table(b->w, b->v))
		assert_false(translated_twice(b->w, b->v, lin, write, &value));
}

/* ---- what takes many mappings ---- */

#define LINES 300u

/* Every other page of user addresses leads to a page of its own, and what is between leads nowhere. */
static void map_scattered(struct bench *b, unsigned shift, uint64_t rights)
{
	for (unsigned n = 0; n < 512; n += 2)
		poke(b, user_entry(n), data((n * 7 + shift) % LINES) | rights);
	cpu_tlb_flush(b->v);
}

static void use_scattered(struct bench *b, unsigned shift, bool write)
{
	for (unsigned n = 0; n < 512; n += 2) {
		reads_if_at_all(b, user(n), (n * 7 + shift) % LINES);
		if (write)
			writes_if_at_all(b, user(n) + 8, n);
		must_not_work(b, user(n + 1), false);
	}
}

static void map_large(struct bench *b, unsigned count, uint64_t rights)
{
	for (unsigned n = 0; n < count; n++)
		poke(b, PD_U + 8 * (n + 4), DATA | rights | PTE_PS);
	cpu_tlb_flush(b->v);
}

static uint64_t large(unsigned n) { return (n + 4) * LARGE_STEP; }

/* Everything that cuts, drops and protects. */
static void use_everything(struct bench *b)
{
	const uint64_t all = FLAGS_ALL | PTE_D;

	set_cpl(b->v, 3);
	map_scattered(b, 0, all);
	use_scattered(b, 0, true);
	map_large(b, 300, all);
	for (unsigned n = 0; n < 300; n++) {
		reads_if_at_all(b, large(n) + data(3) - DATA, 3);
		writes_if_at_all(b, large(n) + 8, n);
	}
	for (unsigned page = 0; page < 40; page += 2) {
		decode_from(b, data(page));
		must_not_work(b, large(page) + data(page) - DATA + 8, true);
		reads_if_at_all(b, large(page) + data(page) - DATA, page);
	}
	for (unsigned n = 0; n < 512; n += 4)
		poke(b, user_entry(n), data((n * 7) % LINES) | (all & ~PTE_W));
	cpu_tlb_flush(b->v);
	for (unsigned n = 0; n < 512; n += 4) {
		reads_if_at_all(b, user(n), (n * 7) % LINES);
		must_not_work(b, user(n) + 8, true);
	}
	for (unsigned n = 2; n < 512; n += 4)
		poke(b, user_entry(n), 0);
	cpu_tlb_flush(b->v);
	for (unsigned n = 2; n < 512; n += 4)
		must_not_work(b, user(n), false);
	map_scattered(b, 5, all);
	use_scattered(b, 5, true);
	map_large(b, 300, FLAGS_ALL & ~PTE_W);
	for (unsigned n = 0; n < 300; n++)
		must_not_work(b, large(n) + 8, true);
	for (unsigned n = 0; n < 300; n++)
		poke(b, PD_U + 8 * (n + 4), 0);
	cpu_tlb_flush(b->v);
	for (unsigned n = 0; n < 300; n++)
		must_not_work(b, large(n), false);
	for (unsigned page = 0; page < 40; page += 2)
		mem_note_write(b->b->mem, gpa(data(page)), 64);
}

static void check_counts(struct bench *b, uint64_t limit)
{
	struct bt_window_stats stats;

	bt_windows_stats(b->w, &stats);
	if (stats.mappings > limit)
		fail_msg("%lu mappings, of %lu at most", stats.mappings, limit);
}

static void test_everything(void **state)
{
	static const unsigned limits[] = { 48, 64, 200, 1024, 0 };
	(void)state;

	for (unsigned n = 0; n < ARRAY_SIZE(limits); n++) {
		struct bench *b =
			bench_create(&(struct window_limits){ .windows = 8, .spaces = 4, .mappings = limits[n] });

		slow = quick = 0;
		use_everything(b);
		check_counts(b, limits[n] ? limits[n] : 60000);
		/* With room there is no reason for the slow way. */
		if (!limits[n])
			assert_int_equal(slow, 0);
		assert_true(quick > 10 * slow);
		bench_destroy(b);
	}
}

static void use_everything_often(struct bench *b, unsigned times)
{
	slow = quick = 0;
	while (times--)
		use_everything(b);
}

/* Others take all that the host allows and give it back, as use goes on: more slowly, and then as before. */
static void use_without_mappings(struct bench *b, unsigned times, const char *what)
{
	use_up_mappings();
	use_everything_often(b, times);
	print_message("# %s: %u accesses, %u of them the slow way\n", what, slow + quick, slow);
	give_mappings_back();
	use_everything_often(b, 2);
	assert_true(quick > 10 * slow);
}

/* While windows were in use, and before anything was in them. */
static void test_used_up_by_others(void **state)
{
	(void)state;
	if (!can_be_used_up())
		return;
	for (unsigned first = 0; first < 2; first++) {
		struct bench *b = bench_create(&(struct window_limits){ .windows = 8, .spaces = 4 });

		set_cpl(b->v, 3);
		if (first)
			use_everything(b);
		map_scattered(b, 9, FLAGS_ALL | PTE_D);
		if (first)
			use_scattered(b, 9, true);
		use_without_mappings(b, 2, "used up");
		bench_destroy(b);
	}
}

/* Even those that were kept to spare are gone, and there is none for any call. */
static void test_nothing_to_spare(void **state)
{
	(void)state;
	if (!can_be_used_up())
		return;
	struct bench *b = bench_create(&(struct window_limits){ .windows = 8, .spaces = 4 });

	set_cpl(b->v, 3);
	use_everything(b);
	map_scattered(b, 9, FLAGS_ALL | PTE_D);
	use_scattered(b, 9, true);
	spares_release(b->w);
	use_without_mappings(b, 1, "nothing to spare");
	bench_destroy(b);
}

static uint64_t host_calls_of_decoding(struct bench *b, uint64_t page)
{
	uint64_t before = b->w->host_calls;

	decode_from(b, page);
	return b->w->host_calls - before;
}

/* However often a page is mapped, there is a bound on what must be done when it gets code. */
static void test_many_aliases(void **state)
{
	struct bench *b = bench_create(&(struct window_limits){ .windows = 8, .spaces = 4 });
	(void)state;

	set_cpl(b->v, 3);
	map_large(b, 508, FLAGS_ALL | PTE_D);
	for (unsigned gib = 1; gib < 16; gib++)
		poke(b, PDPT_U + 8 * gib, PD_U | FLAGS_ALL);
	for (unsigned n = 0; n < 4000; n++) {
		uint64_t lin = large(n % 500) + ((uint64_t)(n / 500) << 30);

		writes(b, lin + 8, n);
		reads(b, lin + data(5) - DATA, 5);
	}
	assert_true(host_calls_of_decoding(b, data(5)) <= 2 * MAX_ALIASES);
	for (unsigned n = 0; n < 4000; n += 100)
		is_slow(b, large(n % 500) + ((uint64_t)(n / 500) << 30) + data(5) - DATA + 8, true);
	/* Small pages. */
	for (unsigned n = 0; n < 512; n++)
		poke(b, user_entry(n), data(7) | FLAGS_ALL | PTE_D);
	cpu_tlb_flush(b->v);
	for (unsigned gib = 0; gib < 16; gib++)
		for (unsigned n = 0; n < 512; n++)
			writes(b, user(n) + ((uint64_t)gib << 30) + 8, n);
	assert_true(host_calls_of_decoding(b, data(7)) <= 2 * MAX_ALIASES);
	for (unsigned n = 0; n < 512; n++)
		is_slow(b, user(n) + 8, true);
	bench_destroy(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_everything),
		cmocka_unit_test(test_many_aliases),
		cmocka_unit_test(test_used_up_by_others),
		cmocka_unit_test(test_nothing_to_spare),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
