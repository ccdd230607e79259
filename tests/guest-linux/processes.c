/* Processes: fork and exec in numbers, each child with work whose result its parent knows; data through pipes. */
#define _GNU_SOURCE
#include "torture.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t sum_of(const void *data, size_t size)
{
	const uint8_t *p = data;
	uint64_t h = 14695981039346656037ull; /* FNV-1a */

	while (size--)
		h = (h ^ *p++) * 1099511628211ull;
	return h;
}

static int status_of(pid_t pid)
{
	int status = -1;

	need(waitpid(pid, &status, 0) == pid, "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

/* ---- fork: children change what they share with their parent ---- */

#define FORK_PAGES 64
#define CHILDREN   8

static int forked_child(uint8_t *memory, unsigned child)
{
	unsigned own = 0;

	for (unsigned page = child; page < FORK_PAGES; page += child + 1)
		memory[page * PAGE] = (uint8_t)(child + 100);
	for (unsigned page = 0; page < FORK_PAGES; page++)
		own += memory[page * PAGE] == (uint8_t)(child + 100);
	/* Grandchildren see what their parent wrote. */
	if (child == 3) {
		pid_t pid = fork();

		if (!pid)
			_exit(memory[3 * PAGE] == 103 ? 11 : 12);
		if (pid < 0 || status_of(pid) != 11)
			return 255;
	}
	return (int)own;
}

void test_fork(uint64_t *random)
{
	uint8_t *memory = map_memory(FORK_PAGES * PAGE, PROT_READ | PROT_WRITE);
	pid_t pids[CHILDREN];

	for (unsigned page = 0; page < FORK_PAGES; page++)
		memory[page * PAGE] = (uint8_t)page;
	for (unsigned n = 0; n < CHILDREN; n++) {
		pids[n] = fork();
		need(pids[n] >= 0, "fork");
		if (!pids[n])
			_exit(forked_child(memory, n));
	}
	/* The parent writes too, while they run. */
	for (unsigned n = 0; n < 100; n++) {
		unsigned page = random_below(random, FORK_PAGES);

		memory[page * PAGE + 8]++;
	}
	for (unsigned n = 0; n < CHILDREN; n++) {
		unsigned want = 0;
		int status = status_of(pids[n]);

		for (unsigned page = n; page < FORK_PAGES; page += n + 1)
			want++;
		expect(status == (int)want, "child %u: status %d, not %u", n, status, want);
	}
	for (unsigned page = 0; page < FORK_PAGES; page++)
		expect(memory[page * PAGE] == (uint8_t)page, "the parent's page %u changed to %u", page,
		       memory[page * PAGE]);
	munmap(memory, FORK_PAGES * PAGE);
}

/* ---- exec ---- */

/* What the program does when test_exec() starts it: NUMBER TEXT. */
int exec_child(char **argv)
{
	static uint8_t zeroed[3 * PAGE];
	static uint8_t data[2 * PAGE] = { 7 };
	unsigned number = (unsigned)atoi(argv[0]);

	for (size_t n = 0; n < sizeof(zeroed); n++)
		if (zeroed[n])
			return 254;
	if (data[0] != 7 || !argv[1] || strlen(argv[1]) != number || !getenv("TORTURE") || argv[2])
		return 253;
	memset(zeroed, 1, sizeof(zeroed));
	memset(data, 2, sizeof(data));
	return (int)(number % 200);
}

void test_exec(uint64_t *random)
{
	char number[16], text[600];
	unsigned length = random_below(random, 500);
	char *argv[] = { "torture", "exec-child", number, text, NULL }, *env[] = { "TORTURE=yes", NULL };
	pid_t pid = random_below(random, 2) ? fork() : vfork();

	if (!pid) {
		snprintf(number, sizeof(number), "%u", length);
		memset(text, 'x', length);
		text[length] = 0;
		execve("/proc/self/exe", argv, env);
		_exit(255);
	}
	need(pid > 0, "fork");
	int status = status_of(pid);
	expect(status == (int)(length % 200), "exec: status %d, not %u", status, length % 200);
}

/* ---- pipes: a chain of processes, each of which changes every byte ---- */

#define STAGES	   4
#define PIPE_BYTES 300000

static void stage(int in, int out, uint64_t random)
{
	uint8_t buffer[9000];
	ssize_t n;

	while ((n = read(in, buffer, 1 + random_below(&random, sizeof(buffer)))) > 0) {
		for (ssize_t k = 0; k < n; k++)
			buffer[k] = (uint8_t)(buffer[k] * 5 + 3);
		for (ssize_t done = 0, part; done < n; done += part)
			if ((part = write(out, buffer + done, (size_t)(n - done))) <= 0)
				_exit(1);
	}
	_exit(n ? 1 : 0);
}

void test_pipes(uint64_t *random)
{
	static uint8_t data[PIPE_BYTES], back[PIPE_BYTES];
	uint64_t want;
	size_t got = 0;
	ssize_t n;
	int ends[STAGES + 1][2];
	pid_t pids[STAGES + 1];

	for (size_t k = 0; k < sizeof(data); k += 8) {
		uint64_t word = random_next(random);
		memcpy(data + k, &word, 8);
	}
	for (unsigned k = 0; k <= STAGES; k++)
		need(!pipe(ends[k]), "pipe");
	for (unsigned k = 0; k <= STAGES; k++) {
		pids[k] = fork();
		need(pids[k] >= 0, "fork");
		if (pids[k])
			continue;
		for (unsigned other = 0; other <= STAGES; other++) {
			if (k == STAGES || other != k)
				close(ends[other][0]);
			if (other != (k == STAGES ? 0 : k + 1))
				close(ends[other][1]);
		}
		if (k < STAGES)
			stage(ends[k][0], ends[k + 1][1], *random + k);
		for (size_t done = 0; done < sizeof(data); done += (size_t)n)
			if ((n = write(ends[0][1], data + done, sizeof(data) - done)) <= 0)
				_exit(1);
		_exit(0);
	}
	for (unsigned k = 0; k <= STAGES; k++) {
		close(ends[k][1]);
		if (k < STAGES)
			close(ends[k][0]);
	}
	while ((n = read(ends[STAGES][0], back + got, sizeof(back) - got)) > 0)
		got += (size_t)n;
	close(ends[STAGES][0]);
	for (unsigned k = 0; k <= STAGES; k++)
		expect(!status_of(pids[k]), "process %u of the chain failed", k);
	for (size_t k = 0; k < sizeof(data); k++)
		for (unsigned times = 0; times < STAGES; times++)
			data[k] = (uint8_t)(data[k] * 5 + 3);
	want = sum_of(data, sizeof(data));
	expect(got == sizeof(back) && sum_of(back, sizeof(back)) == want, "%zu of %zu bytes came back, or others", got,
	       sizeof(back));
}
