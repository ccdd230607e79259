/*
 * A process writes and flushes until it is killed, at a moment that a counter of its requests decides and the host's scheduler. Every sector
 * holds which write it is of; memory that both processes share says which writes were begun, and which were there at a flush that came back.
 */
#include "block.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define SLOTS 1024
#define SLOT  4096u
#define EXTRA                                                                                                          \
	64 /* slots behind them that are written and discarded, to have clusters change hands; nobody looks at them */
#define REQUESTS 300 /* at most, until it is killed */

struct journal {
	_Atomic uint64_t requests;
	uint64_t begun[SLOTS], done[SLOTS], flushed[SLOTS];
};

struct stamp {
	uint64_t slot, write;
};

static void stamp_slot(uint8_t *data, uint64_t slot, uint64_t write)
{
	memset(data, (int)(write & 0xff), SLOT);
	for (uint64_t at = 0; at < SLOT; at += BLOCK_SECTOR)
		memcpy(data + at, &(struct stamp){ slot + 1, write }, sizeof(struct stamp));
}

static void flush(struct block *b, struct journal *j)
{
	uint64_t done[SLOTS];

	memcpy(done, j->done, sizeof(done));
	must_do(b, BLOCK_FLUSH, 0, NULL, 0);
	memcpy(j->flushed, done, sizeof(done));
}

static _Noreturn void write_until_killed(const struct block_options *options, struct journal *j, uint64_t state)
{
	struct block *b = must_open(options);
	static uint8_t data[SLOT];
	uint64_t n = 0;

	for (;;) {
		uint64_t slot = next_random(&state) % SLOTS, extra = SLOTS + next_random(&state) % EXTRA;

		stamp_slot(data, slot, j->begun[slot] + 1);
		j->begun[slot]++;
		must_do(b, BLOCK_WRITE, slot * SLOT, data, SLOT);
		j->done[slot] = j->begun[slot];
		must_do(b, n % 2 ? BLOCK_DISCARD : BLOCK_WRITE, extra * SLOT, data, SLOT);
		if (next_random(&state) % 8 == 0)
			flush(b, j);
		n++;
		atomic_fetch_add(&j->requests, 1);
	}
}

static int look(const uint8_t *sector, const struct journal *j, uint64_t slot)
{
	struct stamp stamp;

	memcpy(&stamp, sector, sizeof(stamp));
	if (!stamp.slot && !stamp.write)
		return j->flushed[slot] != 0;
	return stamp.slot != slot + 1 || stamp.write < j->flushed[slot] || stamp.write > j->begun[slot];
}

/* What was flushed is there, or a later write; nothing else is. */
static int verify(struct block_options options, struct journal *j)
{
	uint8_t data[SLOT];
	struct block *b;
	int wrong = 0;

	options.readonly = true;
	b = must_open(&options);
	for (uint64_t slot = 0; slot < SLOTS; slot++) {
		must_do(b, BLOCK_READ, slot * SLOT, data, SLOT);
		for (uint64_t at = 0; at < SLOT; at += BLOCK_SECTOR)
			if (look(data + at, j, slot) && !wrong++)
				fprintf(stderr, "slot %llu: flushed write %llu, begun %llu, there is %llu\n",
					(unsigned long long)slot, (unsigned long long)j->flushed[slot],
					(unsigned long long)j->begun[slot],
					(unsigned long long)load_le64(data + at + 8));
	}
	block_close(b);
	return wrong;
}

/* By somebody else, before it is repaired: leaks are no errors. */
static int check_by(const char *checker, const char *file)
{
	char command[512];
	int status;

	if (!*checker)
		return 0;
	snprintf(command, sizeof(command), "%s %s >/dev/null 2>&1", checker, file);
	status = system(command); /* NOLINT */
	return status == -1 || !WIFEXITED(status) || (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 3);
}

/*
 * Opened for writing it is repaired; then the tables agree, and nothing is leaked. Images of version 2 cannot say that they were not
 * closed: their leaks wait for a check.
 */
static int check_repaired(const struct block_options *options)
{
	struct block_details details;
	struct block_check_result result;
	struct error err = { 0 };
	unsigned version = 0;

	block_close(must_open(options));
	if (!block_examine(options, &details, &err))
		version = details.version;
	block_details_free(&details);
	if (!version)
		return 0; /* raw */
	if (version == 2)
		block_check(options, BLOCK_REPAIR_LEAKS, &result, NULL, NULL, &err);
	if (block_check(options, BLOCK_REPAIR_NONE, &result, NULL, NULL, &err)) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	if (result.errors || result.leaks)
		fprintf(stderr, "%llu errors, %llu leaks\n", (unsigned long long)result.errors,
			(unsigned long long)result.leaks);
	return result.errors || result.leaks;
}

static void kill_one(const struct block_options *options, struct journal *j, uint64_t *state)
{
	uint64_t target = 1 + next_random(state) % REQUESTS, seed = next_random(state);
	pid_t child;

	/* What the one before had not flushed may be lost. */
	memcpy(j->done, j->flushed, sizeof(j->done));
	atomic_store(&j->requests, 0);
	child = fork();
	if (child == 0)
		write_until_killed(options, j, seed);
	while (atomic_load(&j->requests) < target && waitpid(child, NULL, WNOHANG) == 0)
		sched_yield();
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

int kill_writers(const struct block_options *options, uint64_t seed, unsigned rounds, const char *checker)
{
	struct journal *j = mmap(NULL, sizeof(*j), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t state = (seed + 1) * 0x9e3779b97f4a7c15u;

	if (j == MAP_FAILED)
		return 1;
	for (unsigned n = 0; n < rounds; n++) {
		kill_one(options, j, &state);
		if (!atomic_load(&j->requests)) {
			fprintf(stderr, "round %u: nothing was written\n", n);
			return 1;
		}
		if (verify(*options, j) || check_by(checker, options->file) || check_repaired(options) ||
		    verify(*options, j)) {
			fprintf(stderr, "round %u of seed %llu\n", n, (unsigned long long)seed);
			return 1;
		}
	}
	printf("%u writers killed\n", rounds);
	return 0;
}
