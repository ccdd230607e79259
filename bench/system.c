/*
 * Benchmarks of what a monitor has to step in for: code written at run time, privileged and unusual instructions, page
 * faults, system calls, processes.
 */
#define _GNU_SOURCE
#include "gbench.h"

#include <cpuid.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef uint32_t function(void);

/* mov eax, value; ret */
static void write_function(uint8_t *at, uint32_t value)
{
	at[0] = 0xb8;
	memcpy(at + 1, &value, 4);
	at[5] = 0xc3;
}

static uint8_t *code_take(size_t size)
{
	void *p = memory_take(size);

	if (mprotect(p, size, PROT_READ | PROT_WRITE | PROT_EXEC))
		die("mprotect");
	return p;
}

uint64_t bench_patch(long n)
{
	uint8_t *code = code_take(4096);
	uint64_t wrong = 0;

	timer_start();
	for (long i = 0; i < n; i++) {
		write_function(code, (uint32_t)i);
		wrong += ((function *)(void *)code)() != (uint32_t)i;
	}
	timer_stop();
	memory_give(code, 4096);
	return wrong;
}

uint64_t bench_fresh(long n)
{
	uint8_t *code = code_take(4096);
	uint64_t wrong = 0;

	timer_start();
	for (long i = 0; i < n; i++) {
		uint32_t value = 0;

		/* A page of "add eax, imm32" after "xor eax, eax": nothing of it runs twice. */
		code[0] = 0x31;
		code[1] = 0xc0;
		for (size_t at = 2; at + 6 <= 4096; at += 5) {
			uint32_t step = (uint32_t)(at * 7 + (size_t)i);

			code[at] = 0x05;
			memcpy(code + at + 1, &step, 4);
			value += step;
		}
		code[4092] = 0xc3;
		wrong += ((function *)(void *)code)() != value;
	}
	timer_stop();
	memory_give(code, 4096);
	return wrong;
}

uint64_t bench_rdtsc(long n)
{
	uint64_t last = __builtin_ia32_rdtsc(), ordered = 1;

	timer_start();
	for (long i = 0; i < n; i++) {
		uint64_t t = __builtin_ia32_rdtsc();

		ordered &= t >= last;
		last = t;
	}
	timer_stop();
	return ordered;
}

uint64_t bench_clock(long n)
{
	struct timespec t;
	int64_t last = 0, ordered = 1;

	timer_start();
	for (long i = 0; i < n; i++) {
		int64_t now;

		clock_gettime(CLOCK_MONOTONIC, &t);
		now = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
		ordered &= now >= last;
		last = now;
	}
	timer_stop();
	return (uint64_t)ordered;
}

uint64_t bench_cpuid(long n)
{
	unsigned a, b, c, d, same = 1, first;

	__cpuid(0, first, b, c, d);
	timer_start();
	for (long i = 0; i < n; i++) {
		__cpuid(0, a, b, c, d);
		same &= a == first;
	}
	timer_stop();
	return same;
}

uint64_t bench_syscall(long n)
{
	long parent = getppid(), same = 1;

	timer_start();
	for (long i = 0; i < n; i++)
		same &= syscall(SYS_getppid) == parent;
	timer_stop();
	return (uint64_t)same;
}

uint64_t bench_fault(long n)
{
	enum { PAGES = 1000 };
	uint64_t dirty = 0;

	timer_start();
	for (long left = n; left > 0; left -= PAGES) {
		uint8_t *p = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED)
			die("mmap");
		for (long i = 0; i < PAGES && i < left; i++) {
			dirty += p[i * 4096];
			p[i * 4096] = 1;
		}
		munmap(p, PAGES * 4096);
	}
	timer_stop();
	return dirty;
}

uint64_t bench_protect(long n)
{
	volatile uint8_t *p = memory_take(4096);
	uint64_t result = 0;

	timer_start();
	for (long i = 0; i < n; i++) {
		if (mprotect((void *)p, 4096, PROT_READ) || mprotect((void *)p, 4096, PROT_READ | PROT_WRITE))
			die("mprotect");
		p[7] = (uint8_t)i;
	}
	timer_stop();
	result = p[7] - ((uint64_t)(n - 1) & 0xff);
	memory_give((void *)p, 4096);
	return result;
}

static volatile long signals;

static void count_signal(int number)
{
	(void)number;
	signals++;
}

uint64_t bench_signal(long n)
{
	signals = 0;
	signal(SIGUSR1, count_signal);
	timer_start();
	for (long i = 0; i < n; i++)
		raise(SIGUSR1);
	timer_stop();
	return (uint64_t)(n - signals);
}

uint64_t bench_pipe(long n)
{
	int there[2], back[2], status;
	uint8_t byte = 0;
	pid_t child;

	if (pipe(there) || pipe(back) || (child = fork()) < 0)
		die("pipe");
	if (child == 0) {
		close(there[1]);
		while (read(there[0], &byte, 1) == 1) {
			byte++;
			if (write(back[1], &byte, 1) != 1)
				_exit(1);
		}
		_exit(0);
	}
	timer_start();
	for (long i = 0; i < n; i++)
		if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
			die("pipe");
	timer_stop();
	close(there[0]);
	close(there[1]);
	close(back[0]);
	close(back[1]);
	waitpid(child, &status, 0);
	return (uint64_t)(uint8_t)(byte - n) + (uint64_t)status;
}

/* A word that says whose turn it is; who waits for it sleeps. */
static void hand_over(uint32_t *word, uint32_t turn)
{
	__atomic_store_n(word, turn, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void wait_while(uint32_t *word, uint32_t turn)
{
	while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == turn)
		syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, turn, NULL, NULL, 0);
}

enum turn { MINE, YOURS, NOBODYS };

struct futex_game {
	uint32_t turn;
	long moves;
};

static void *futex_player(void *arg)
{
	struct futex_game *game = arg;

	for (;;) {
		wait_while(&game->turn, MINE);
		if (__atomic_load_n(&game->turn, __ATOMIC_SEQ_CST) == NOBODYS)
			return NULL;
		game->moves++;
		hand_over(&game->turn, MINE);
	}
}

uint64_t bench_futex(long n)
{
	struct futex_game game = { .turn = MINE };
	pthread_t thread;

	if (pthread_create(&thread, NULL, futex_player, &game))
		die("pthread_create");
	timer_start();
	for (long i = 0; i < n; i++) {
		hand_over(&game.turn, YOURS);
		wait_while(&game.turn, YOURS);
	}
	timer_stop();
	hand_over(&game.turn, NOBODYS);
	pthread_join(thread, NULL);
	return (uint64_t)(n - game.moves);
}

uint64_t bench_fork(long n)
{
	uint64_t wrong = 0;

	timer_start();
	for (long i = 0; i < n; i++) {
		pid_t child = fork();
		int status;

		if (child == 0)
			_exit((int)(i & 0x7f));
		if (child < 0 || waitpid(child, &status, 0) != child)
			die("fork");
		wrong += !WIFEXITED(status) || WEXITSTATUS(status) != (i & 0x7f);
	}
	timer_stop();
	return wrong;
}

uint64_t bench_exec(long n)
{
	uint64_t wrong = 0;

	timer_start();
	for (long i = 0; i < n; i++) {
		pid_t child = fork();
		int status;

		if (child == 0) {
			execl("/proc/self/exe", "gbench", "nothing", NULL);
			_exit(1);
		}
		if (child < 0 || waitpid(child, &status, 0) != child)
			die("exec");
		wrong += (uint64_t)status;
	}
	timer_stop();
	return wrong;
}

uint64_t bench_file(long n)
{
	const char *folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	char path[64], page[4096];
	uint64_t wrong = 0;

	snprintf(path, sizeof(path), "%s/gbench.%d", folder, (int)getpid());
	memset(page, 0x42, sizeof(page));
	timer_start();
	for (long i = 0; i < n; i++) {
		int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

		if (fd < 0)
			die(path);
		wrong += write(fd, page, sizeof(page)) != sizeof(page);
		wrong += pread(fd, page, sizeof(page), 0) != sizeof(page);
		close(fd);
		unlink(path);
	}
	timer_stop();
	return wrong + (page[17] != 0x42);
}
