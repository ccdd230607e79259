/*
 * gbench: the benchmark program that runs inside guests and on the host: the same binary, so that each figure is a ratio to
 * this machine's own speed.
 *
 *	gbench list			names and what one operation is
 *	gbench [-m] [-p PERCENT] all	or names. -p scales the number of operations
 *	gbench -j THREADS		the same work by so many threads: parallel1, parallel2...
 *
 * A line a benchmark: "NAME NS ns": nanoseconds an operation by the clock of whoever runs it. -m prints "@ NAME OPERATIONS"
 * before the clock starts, so that the host can measure too: a guest's clock need not be right. Results are compared with
 * known ones; a wrong one prints "WRONG NAME ..." and makes the exit status 1.
 */
#include "gbench.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static const struct bench {
	const char *name, *kind, *what;
	uint64_t (*run)(long n);
	long operations;
	uint64_t want;
} benches[] = {
#define _(name_, kind_, ops_, want_, what_)                                                                            \
	{ .name = #name_, .kind = #kind_, .what = what_, .run = bench_##name_, .operations = ops_, .want = want_ },
	BENCHES(_)
#undef _
};
#define BENCH_COUNT (sizeof(benches) / sizeof(benches[0]))

int threads = 1;
static const struct bench *current;
static long operations;
static bool marks;
static uint64_t started, elapsed;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void timer_start(void)
{
	if (marks) {
		printf("@ %s %ld\n", current->name, operations);
		fflush(stdout);
		/* The console has it before the work begins. */
		if (isatty(1))
			tcdrain(1);
	}
	started = now_ns();
}

void timer_stop(void) { elapsed = now_ns() - started; }

void die(const char *what)
{
	printf("WRONG %s: %s: %s\n", current->name, what, strerror(errno));
	exit(1);
}

void *memory_take(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

void memory_give(void *p, size_t size) { munmap(p, size); }

static bool run(const struct bench *b, double percent)
{
	uint64_t got;

	current = b;
	operations = (long)((double)b->operations * percent / 100);
	if (operations < 1)
		operations = 1;
	got = b->run(operations);
	if (got == ABSENT) {
		printf("ABSENT %s: not on this processor\n", b->name);
		return true;
	}
	printf("%s %.2f ns\n", b->name, (double)elapsed / (double)operations);
	if (got != b->want)
		printf("WRONG %s: result %#" PRIx64 ", expected %#" PRIx64 "\n", b->name, got, b->want);
	fflush(stdout);
	return got == b->want;
}

static int run_parallel(int count, double percent)
{
	char name[32];
	struct bench b = { name, "OTHER", "", bench_parallel, PARALLEL_OPERATIONS, PARALLEL_RESULT };

	snprintf(name, sizeof(name), "parallel%d", count);
	threads = count;
	return !run(&b, percent);
}

int main(int argc, char **argv)
{
	double percent = 100;
	bool good = true;
	int option;

	if (argc == 2 && !strcmp(argv[1], "nothing")) /* what the exec benchmark runs */
		return 0;
	if (argc == 2 && !strcmp(argv[1], "drain")) /* waits until the console has written all */
		return tcdrain(1) != 0;
	while ((option = getopt(argc, argv, "mp:j:")) != -1) {
		if (option == 'm')
			marks = true;
		else if (option == 'j' && atoi(optarg) > 0 && atoi(optarg) <= MAX_THREADS)
			return run_parallel(atoi(optarg), percent);
		else if (option == 'p')
			percent = atof(optarg);
		else
			return 2;
	}
	for (size_t i = 0; i < BENCH_COUNT; i++) {
		const struct bench *b = &benches[i];
		bool wanted = optind < argc && !strcmp(argv[optind], "all");

		if (optind < argc && !strcmp(argv[optind], "list"))
			printf("%-10s %-8s %9ld  %s\n", b->name, b->kind, b->operations, b->what);
		for (int a = optind; a < argc; a++)
			wanted |= !strcmp(argv[a], b->name);
		if (wanted)
			good &= run(b, percent);
	}
	return !good;
}
