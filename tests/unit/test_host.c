/*
 * host: threads, memory, code mapped twice, files, what the host is. (The event loop and terminals have tests of
 * their own.)
 */
#define _GNU_SOURCE
#include "host/host.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- threads ---- */

struct seen {
	char name[16];
	sigset_t mask;
	void *arg;
};

static void *look_around(void *opaque)
{
	struct seen *seen = opaque;

	pthread_getname_np(pthread_self(), seen->name, sizeof(seen->name));
	pthread_sigmask(SIG_SETMASK, NULL, &seen->mask);
	return seen;
}

static void threads_have_names_and_no_signals(void **state)
{
	sigset_t before, after;
	struct seen seen;
	pthread_t thread;
	void *result;
	int n;

	(void)state;
	pthread_sigmask(SIG_SETMASK, NULL, &before);
	assert_int_equal(host_thread_create(&thread, "a name far too long", look_around, &seen, NULL), 0);
	pthread_join(thread, &result);
	assert_ptr_equal(result, &seen);
	assert_string_equal(seen.name, "a name far too ");
	for (n = 1; n < 32; n++) {
		bool fault = n == SIGSEGV || n == SIGBUS || n == SIGFPE || n == SIGILL;

		if (n != SIGKILL && n != SIGSTOP)
			assert_int_equal(sigismember(&seen.mask, n), !fault);
	}
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	for (n = 1; n < 32; n++)
		assert_int_equal(sigismember(&before, n), sigismember(&after, n));
}

/* ---- signals ---- */

#define FAULTS 2000

struct sleeper {
	const struct host_signals *signals;
	long woken; /* times that it went to sleep */
	int number;
};

static void *sleep_until_one_comes(void *opaque)
{
	struct sleeper *s = opaque;
	struct pollfd fd = { .fd = s->signals->fd, .events = POLLIN };
	struct rusage before, after;

	getrusage(RUSAGE_THREAD, &before);
	while (!(s->number = host_signals_read(s->signals)))
		poll(&fd, 1, -1);
	getrusage(RUSAGE_THREAD, &after);
	s->woken = after.ru_nvcsw - before.ru_nvcsw;
	return NULL;
}

static void count_fault(int number) { (void)number; }

/* Translated code has thousands of faults a second, which are no business of the thread that waits for signals that end the process. */
static void who_waits_for_the_end_sleeps_through_faults(void **state)
{
	struct sigaction fault = { .sa_handler = count_fault }, old;
	struct host_signals signals;
	struct sleeper sleeper = { .signals = &signals };
	struct error err = { 0 };
	pthread_t thread;

	(void)state;
	assert_int_equal(host_signals_open(&signals, &err), 0);
	assert_int_equal(sigaction(SIGSEGV, &fault, &old), 0);
	assert_int_equal(host_thread_create(&thread, "sleeper", sleep_until_one_comes, &sleeper, &err), 0);
	for (unsigned n = 0; n < FAULTS; n++)
		raise(SIGSEGV);
	kill(getpid(), SIGTERM);
	pthread_join(thread, NULL);
	sigaction(SIGSEGV, &old, NULL);
	assert_int_equal(sleeper.number, SIGTERM);
	assert_true(sleeper.woken < FAULTS / 10);
	host_signals_close(&signals);
	assert_int_equal(signals.fd, -1);
	host_signals_close(&signals);
}

/* ---- memory ---- */

static void memory_is_shared(void **state)
{
	struct host_memory memory;
	uint8_t *again;

	(void)state;
	assert_int_equal(host_memory_create(&memory, "test", 1 << 20, NULL), 0);
	assert_int_equal(memory.base[12345], 0);
	memory.base[12345] = 7;
	again = mmap(NULL, memory.size, PROT_READ, MAP_SHARED, memory.fd, 0);
	assert_ptr_not_equal(again, MAP_FAILED);
	assert_int_equal(again[12345], 7);
	munmap(again, memory.size);
	host_memory_destroy(&memory);
	host_memory_destroy(&memory);
}

static void impossible_memory_is_an_error(void **state)
{
	struct host_memory memory;
	struct error err;

	(void)state;
	assert_true(host_memory_create(&memory, "huge", (size_t)1 << 60, &err) < 0);
	assert_non_null(strstr(err.text, "'huge'"));
	host_memory_destroy(&memory);
	assert_true(host_memory_create(&memory, "none", 0, &err) < 0);
}

/* The permissions that /proc/self/maps shows for the mapping at `at`. */
static void expect_permissions(const void *at, const char *expected)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512], permissions[5];
	unsigned long start, end;
	bool found = false;

	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx %4s", &start, &end, permissions) != 3)
			continue;
		if ((unsigned long)at < start || (unsigned long)at >= end)
			continue;
		assert_string_equal(permissions, expected);
		found = true;
	}
	fclose(maps);
	assert_true(found);
}

static void code_is_written_here_and_run_there(void **state)
{
	static const uint8_t return_42[] = { 0xb8, 42, 0, 0, 0, 0xc3 }, return_43[] = { 0xb8, 43, 0, 0, 0, 0xc3 };
	struct host_code code;
	uint8_t *before;
	int (*fn)(void);

	(void)state;
	assert_int_equal(host_code_create(&code, 65536, NULL), 0);
	expect_permissions(code.write, "rw-s");
	expect_permissions(code.exec, "r-xs");
	fn = (int (*)(void))(uintptr_t)(code.exec + 100);
	memcpy(code.write + 100, return_42, sizeof(return_42));
	assert_int_equal(fn(), 42);
	memcpy(code.write + 100, return_43, sizeof(return_43));
	assert_int_equal(fn(), 43);

	before = code.exec;
	assert_int_equal(host_code_move(&code, NULL), 0);
	assert_ptr_not_equal(code.exec, before);
	expect_permissions(before, "---p");
	expect_permissions(code.write, "rw-s");
	expect_permissions(code.exec, "r-xs");
	fn = (int (*)(void))(uintptr_t)(code.exec + 100);
	assert_int_equal(fn(), 43);
	host_code_discard(&code);
	assert_int_equal(code.exec[100], 0);
	host_code_destroy(&code);
}

/* ---- files ---- */

static char folder[] = "/tmp/doppel-host-XXXXXX";
static char path[64];

static int make_folder(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/file", folder);
	return 0;
}

static int remove_folder(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(folder);
}

static void write_file(size_t size)
{
	FILE *file = fopen(path, "w");
	size_t i;

	assert_non_null(file);
	for (i = 0; i < size; i++)
		fputc((int)(i * 3 % 251), file);
	assert_int_equal(fclose(file), 0);
}

static void files_are_read_whole(void **state)
{
	static const size_t sizes[] = { 0, 1, 4095, 4096, 100000 };
	struct error err;
	uint8_t *data;
	size_t i, k, size;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		write_file(sizes[i]);
		assert_int_equal(host_file_read(path, sizes[i], &data, &size, &err), 0);
		assert_int_equal(size, sizes[i]);
		for (k = 0; k < size; k++)
			assert_int_equal(data[k], k * 3 % 251);
		assert_int_equal(data[size], 0);
		free(data);
		if (!sizes[i])
			continue;
		assert_int_equal(host_file_read(path, sizes[i] - 1, &data, &size, &err), -EFBIG);
		assert_null(data);
		assert_non_null(strstr(err.text, path));
	}
	assert_int_equal(host_file_read(path, SIZE_MAX, &data, &size, &err), 0);
	free(data);
}

/* Files that say that they are empty. */
static void proc_files_are_read_whole(void **state)
{
	uint8_t *data;
	size_t size;

	(void)state;
	assert_int_equal(host_file_read("/proc/self/maps", 1 << 20, &data, &size, NULL), 0);
	assert_true(size > 100);
	free(data);
	assert_int_equal(host_file_read("/proc/self/maps", 100, &data, &size, NULL), -EFBIG);
}

static void other_things_are_no_files(void **state)
{
	struct error err;
	uint8_t *data;
	size_t size;

	(void)state;
	assert_int_equal(host_file_read(folder, 100, &data, &size, &err), -EINVAL);
	assert_non_null(strstr(err.text, "directory"));
	assert_int_equal(host_file_read("/dev/zero", 100, &data, &size, &err), -EINVAL);
	unlink(path);
	assert_int_equal(host_file_read(path, 100, &data, &size, &err), -ENOENT);
	assert_non_null(strstr(err.text, path));
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(host_file_read(path, 100, &data, &size, &err), -EINVAL);
	unlink(path);
}

static void *read_slowly(void *opaque)
{
	char buffer[777];
	size_t total = 0;
	ssize_t n;

	while ((n = read(*(int *)opaque, buffer, sizeof(buffer))) > 0)
		total += (size_t)n;
	return (void *)total;
}

static void all_is_written(void **state)
{
	static uint8_t data[500000];
	pthread_t thread;
	int fds[2];
	void *total;

	(void)state;
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	assert_int_equal(host_set_nonblocking(fds[1], true), 0);
	assert_true(fcntl(fds[1], F_GETFL) & O_NONBLOCK);
	assert_int_equal(host_thread_create(&thread, "reader", read_slowly, &fds[0], NULL), 0);
	assert_int_equal(host_write_all(fds[1], data, sizeof(data)), 0);
	close(fds[1]);
	pthread_join(thread, &total);
	assert_int_equal((size_t)total, sizeof(data));
	close(fds[0]);
	fds[0] = open("/dev/full", O_WRONLY | O_CLOEXEC);
	assert_int_equal(host_write_all(fds[0], data, 1), -ENOSPC);
	close(fds[0]);
	assert_int_equal(host_write_all(-1, data, 1), -EBADF);
	assert_int_equal(host_set_nonblocking(-1, true), -EBADF);
}

/* ---- signals ---- */

/* Runs in a child, whose standard error is read into text. Returns how it ended. */
static int in_child(void (*fn)(void), char *text, size_t size)
{
	int fds[2], status;
	ssize_t got;
	pid_t child;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		dup2(fds[1], STDERR_FILENO);
		signal(SIGBUS, SIG_DFL); /* cmocka's */
		fn();
		_exit(0);
	}
	close(fds[1]);
	got = read(fds[0], text, size - 1);
	text[got > 0 ? got : 0] = 0;
	close(fds[0]);
	assert_int_equal(waitpid(child, &status, 0), child);
	return status;
}

/* A file that is shorter than its mapping stands for memory that the host cannot give: the second page of two. */
static void touch_missing(size_t named)
{
	int fd = memfd_create("short", MFD_CLOEXEC);
	volatile uint8_t *at = mmap(NULL, 8192, PROT_READ, MAP_SHARED, fd, 0);

	host_backed_add((const void *)at, named, "memory of this test");
	(void)at[4097];
}

static void touch_named(void) { touch_missing(8192); }
static void touch_unnamed(void) { touch_missing(4096); }

static void send_it(void)
{
	static uint8_t memory[8];

	host_backed_add(memory, sizeof(memory), "memory of this test");
	raise(SIGBUS);
}

/* First of all tests: the handler is installed once. */
static void missing_memory_is_named(void **state)
{
	static const struct {
		void (*fn)(void);
		const char *text;
	} cases[] = {
		{ touch_named, "doppel: the host has no memory left for memory of this test\n" },
		{ touch_unnamed, "" },
		{ send_it, "" },
	};

	(void)state;
	for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
		char text[200];
		int status = in_child(cases[n].fn, text, sizeof(text));

		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
		assert_string_equal(text, cases[n].text);
	}
}

/* ---- the host ---- */

static void host_knows_itself(void **state)
{
	(void)state;
	assert_int_equal(host_page_size(), 4096);
	assert_in_range(host_cpu_count(), 1, 100000);
	assert_true(host_memory_total() > 1 << 20);
	assert_true(host_realtime_ns() > 1577836800ull * 1000000000);
	assert_true(host_proc_number("/proc/sys/kernel/pid_max") > 0);
	assert_int_equal(host_proc_number("/nonexistent"), -1);
	assert_int_equal(host_proc_number("/proc/version"), -1);
	assert_int_equal(host_proc_number("/proc"), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(missing_memory_is_named),
		cmocka_unit_test(threads_have_names_and_no_signals),
		cmocka_unit_test(who_waits_for_the_end_sleeps_through_faults),
		cmocka_unit_test(memory_is_shared),
		cmocka_unit_test(impossible_memory_is_an_error),
		cmocka_unit_test(code_is_written_here_and_run_there),
		cmocka_unit_test(files_are_read_whole),
		cmocka_unit_test(proc_files_are_read_whole),
		cmocka_unit_test(other_things_are_no_files),
		cmocka_unit_test(all_is_written),
		cmocka_unit_test(host_knows_itself),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
