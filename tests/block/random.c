/*
 * Random requests of all kinds and sizes.
 */
#include "block.h"

#include <stdlib.h>

#define LONGEST (1u << 20)

struct session {
	struct block *block;
	uint8_t *model, *data;
	uint64_t size, state;
};

static int mismatch(const char *what, uint64_t offset)
{
	fprintf(stderr, "%s at %llu: not what was written\n", what, (unsigned long long)offset);
	return 1;
}

static int step(struct session *s)
{
	uint64_t sectors = s->size / BLOCK_SECTOR, first = next_random(&s->state) % sectors;
	uint64_t most = next_random(&s->state) % 4 ? 32 : LONGEST / BLOCK_SECTOR;
	uint64_t size = (1 + next_random(&s->state) % MIN(most, sectors - first)) * BLOCK_SECTOR,
		 offset = first * BLOCK_SECTOR;

	switch (next_random(&s->state) % 8) {
	case 0:
	case 1:
		must_do(s->block, BLOCK_READ, offset, s->data, size);
		return memcmp(s->data, s->model + offset, size) ? mismatch("read", offset) : 0;
	case 2: must_do(s->block, BLOCK_FLUSH, 0, NULL, 0); return 0;
	case 3:
		memset(s->model + offset, 0, size);
		must_do(s->block, BLOCK_WRITE_ZEROES, offset, NULL, size);
		return 0;
	case 4:
		/* What is there then is learnt: as before, or zeros. */
		must_do(s->block, BLOCK_DISCARD, offset, NULL, size);
		must_do(s->block, BLOCK_READ, offset, s->data, size);
		for (uint64_t n = 0; n < size; n++)
			if (s->data[n] && s->data[n] != s->model[offset + n])
				return mismatch("discard", offset);
		memcpy(s->model + offset, s->data, size);
		return 0;
	default:
		memset(s->model + offset, (int)(next_random(&s->state) & 0xff), size);
		memcpy(s->model + offset, &s->state, 8);
		must_do(s->block, BLOCK_WRITE, offset, s->model + offset, size);
		return 0;
	}
}

static int write_model(const struct session *s, const char *file)
{
	char name[256];
	FILE *out;
	bool good;

	if (strchr(file, ':'))
		return 0;
	snprintf(name, sizeof(name), "%s.model", file);
	out = fopen(name, "we");
	good = out && fwrite(s->model, s->size, 1, out) == 1;
	if (out && fclose(out))
		good = false;
	return good ? 0 : 1;
}

int random_requests(const struct block_options *options, uint64_t seed, unsigned steps)
{
	struct session s = { .block = must_open(options), .state = (seed + 1) * 0x9e3779b97f4a7c15u };
	int status = 0;

	s.size = block_info(s.block)->size;
	s.model = malloc(s.size);
	s.data = malloc(LONGEST);
	if (!s.model || !s.data)
		return 1;
	must_do(s.block, BLOCK_READ, 0, s.model, s.size);
	for (unsigned n = 0; n < steps && !status; n++)
		status = step(&s);
	block_close(s.block);
	if (!status)
		status = write_model(&s, options->file);
	free(s.model);
	free(s.data);
	return status;
}
