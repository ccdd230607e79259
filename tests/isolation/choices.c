/* Everything random: from a seed, or first from a fuzzer's bytes, of which each choice takes as few as it needs. */
#include "isolation.h"

static uint64_t take(struct choices *c, unsigned bytes)
{
	uint64_t value = 0;

	for (; bytes && c->left; bytes--, c->left--)
		value = value << 8 | *c->bytes++;
	return value;
}

/* SplitMix64 */
static uint64_t random_number(struct choices *c)
{
	uint64_t z = c->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

uint64_t choose(struct choices *c) { return c->left ? take(c, 8) : random_number(c); }

unsigned choose_below(struct choices *c, unsigned n)
{
	if (c->left)
		return (unsigned)(take(c, n > 256 ? 2 : 1) % n);
	return (unsigned)((random_number(c) >> 32) * n >> 32);
}
