/*
 * The list of tests and how they are run.
 *
 *	torture SECONDS [NAME...]	each test (or those named) for so long, at least one round; TAP
 */
#define _GNU_SOURCE
#include "torture.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

static const struct test {
	const char *name;
	test_fn *round;
} tests[] = {
	{ "fork", test_fork },
	{ "exec", test_exec },
	{ "pipes", test_pipes },
	{ "signal-registers", test_signal_registers },
	{ "fault-signals", test_fault_signals },
	{ "string-signals", test_string_signals },
	{ "mappings", test_mappings },
	{ "copy-on-write", test_copy_on_write },
	{ "shared-mappings", test_shared_mappings },
	{ "patched-code", test_patched_code },
	{ "code-ahead", test_code_ahead },
	{ "code-aliases", test_code_aliases },
	{ "code-and-data", test_code_and_data },
	{ "code-remapped", test_code_remapped },
	{ "many-functions", test_many_functions },
	{ "atomics", test_atomics },
	{ "futexes", test_futexes },
	{ "vectors", test_vectors },
	{ "shootdown", test_shootdown },
	{ "message-passing", test_message_passing },
	{ "store-buffering", test_store_buffering },
	{ "cross-modifying", test_cross_modifying },
};

/* ---- what tests use ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char problem[200];

void wrong(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	pthread_mutex_lock(&lock);
	if (!problem[0])
		vsnprintf(problem, sizeof(problem), format, arguments);
	pthread_mutex_unlock(&lock);
	va_end(arguments);
}

void need(bool condition, const char *what)
{
	if (condition)
		return;
	printf("Bail out! ");
	fflush(stdout);
	perror(what);
	exit(2);
}

void *map_memory(size_t size, int protection)
{
	void *p = mmap(NULL, size, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	need(p != MAP_FAILED, "mmap");
	return p;
}

static _Thread_local sigjmp_buf access_fault;
static _Thread_local volatile bool accessing;

static void on_access_fault(int number)
{
	if (!accessing) { /* a bug of the test, or of what runs it: the second fault ends the program */
		signal(number, SIG_DFL);
		return;
	}
	siglongjmp(access_fault, number);
}

uint8_t try_read(const volatile uint8_t *p, int *signal_number)
{
	uint8_t value = 0;

	*signal_number = sigsetjmp(access_fault, 1);
	accessing = true;
	if (!*signal_number)
		value = *p;
	accessing = false;
	return value;
}

void try_write(volatile uint8_t *p, uint8_t value, int *signal_number)
{
	*signal_number = sigsetjmp(access_fault, 1);
	accessing = true;
	if (!*signal_number)
		*p = value;
	accessing = false;
}

/* ---- running ---- */

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool run(const struct test *t, unsigned number, double seconds)
{
	uint64_t random = 1;
	unsigned rounds = 0;
	double start = now();

	problem[0] = 0;
	signal(SIGSEGV, on_access_fault);
	signal(SIGBUS, on_access_fault);
	do {
		t->round(&random);
		rounds++;
	} while (!problem[0] && now() - start < seconds);
	printf("%s %u - %s: %u rounds in %.2f s\n", problem[0] ? "not ok" : "ok", number, t->name, rounds,
	       now() - start);
	if (problem[0])
		printf("# %s\n", problem);
	fflush(stdout);
	return !problem[0];
}

static bool chosen(const struct test *t, char **names)
{
	if (!*names)
		return true;
	for (; *names; names++)
		if (!strcmp(*names, t->name))
			return true;
	return false;
}

int main(int argc, char **argv)
{
	unsigned count = 0, failed = 0;

	if (argc > 2 && !strcmp(argv[1], "exec-child"))
		return exec_child(argv + 2);
	if (argc < 2) {
		fprintf(stderr, "usage: torture SECONDS [NAME...]\n");
		return 2;
	}
	for (unsigned n = 0; n < sizeof(tests) / sizeof(tests[0]); n++)
		if (chosen(&tests[n], argv + 2))
			failed += !run(&tests[n], ++count, atof(argv[1]));
	printf("1..%u\ntorture: %u failed\n", count, failed);
	return failed ? 1 : 0;
}
