/*
 * block COMMAND FILE ...
 *   random FILE SEED STEPS [OPTION...]            random requests; FILE.model is what the disk must show then
 *   many FILE - ROUNDS [OPTION...]                requests that are on their way together
 *   kill FILE SEED ROUNDS [CHECKER] [OPTION...]   writers are killed; CHECKER FILE is run after each, status 2 is an error
 *   speed FILE KIND SIZE COUNT [OPTION...]        KIND write, read: one after the other, in line where that is possible
 *   hold FILE - -                                 has it open until standard input ends
 * Options: discard, none, unsafe, any, readonly
 */
#include "block.h"

#include <errno.h>
#include <stdlib.h>

uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

struct block *must_open(const struct block_options *options)
{
	struct error err = { 0 };
	struct block *block = block_open(options, &err);

	if (!block) {
		fprintf(stderr, "%s\n", err.text);
		exit(1);
	}
	return block;
}

void must_do(struct block *block, enum block_op op, uint64_t offset, void *data, uint64_t size)
{
	struct iovec iov = { data, size };
	struct block_request r = { .op = op, .offset = offset, .size = size, .iov = &iov, .iov_count = 1 };

	if (block_do(block, &r)) {
		fprintf(stderr, "request %d at %llu, %llu bytes: %s\n", op, (unsigned long long)offset,
			(unsigned long long)size, strerror(-r.result));
		exit(1);
	}
}

static void take_options(struct block_options *options, char **words)
{
	for (; *words; words++) {
		if (!strcmp(*words, "discard"))
			options->discard = true;
		else if (!strcmp(*words, "none"))
			options->cache = BLOCK_NONE;
		else if (!strcmp(*words, "unsafe"))
			options->cache = BLOCK_UNSAFE;
		else if (!strcmp(*words, "any"))
			options->backing = BLOCK_BACKING_ANY;
		else if (!strcmp(*words, "readonly"))
			options->readonly = true;
	}
}

static int hold(const struct block_options *options)
{
	struct block *block = must_open(options);

	printf("open\n");
	fflush(stdout);
	while (getchar() != EOF)
		;
	block_close(block);
	return 0;
}

int main(int argc, char **argv)
{
	struct block_options options = { .file = argc > 2 ? argv[2] : NULL };

	if (argc < 5) {
		fprintf(stderr, "usage: block random|kill FILE SEED COUNT ..., block speed FILE KIND SIZE COUNT ...\n");
		return 2;
	}
	take_options(&options, argv + 4);
	if (!strcmp(argv[1], "random"))
		return random_requests(&options, strtoull(argv[3], NULL, 0), (unsigned)atoi(argv[4]));
	if (!strcmp(argv[1], "many"))
		return many_requests(&options, (unsigned)atoi(argv[4]));
	if (!strcmp(argv[1], "kill"))
		return kill_writers(&options, strtoull(argv[3], NULL, 0), (unsigned)atoi(argv[4]),
				    argc > 5 ? argv[5] : "");
	if (!strcmp(argv[1], "hold"))
		return hold(&options);
	if (!strcmp(argv[1], "speed") && argc > 5)
		return measure(&options, argv[3], strtoull(argv[4], NULL, 0), (unsigned)atoi(argv[5]));
	fprintf(stderr, "block: '%s' is unknown\n", argv[1]);
	return 2;
}
