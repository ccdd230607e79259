/* Everything random: from a seed, or first from a fuzzer's bytes, of which each choice takes as few as it needs. */
#ifndef TESTS_CHOICES_H
#define TESTS_CHOICES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct choices {
	uint64_t state;
	const uint8_t *bytes; /* used up first */
	size_t left;
};

static inline uint64_t choice_from_bytes(struct choices *c, unsigned bytes)
{
	uint64_t value = 0;

	for (; bytes && c->left; bytes--, c->left--)
		value = value << 8 | *c->bytes++;
	return value;
}

/* SplitMix64 */
static inline uint64_t choice_from_seed(struct choices *c)
{
	uint64_t z = c->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static inline uint64_t choose(struct choices *c) { return c->left ? choice_from_bytes(c, 8) : choice_from_seed(c); }

/* 0 .. n-1 */
static inline unsigned choose_below(struct choices *c, unsigned n)
{
	if (c->left)
		return (unsigned)(choice_from_bytes(c, n > 256 ? 2 : 1) % n);
	return (unsigned)((choice_from_seed(c) >> 32) * n >> 32);
}

static inline bool choose_one_in(struct choices *c, unsigned n) { return choose_below(c, n) == 0; }

#endif
