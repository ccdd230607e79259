/*
 * Pages of RAM side by side: guest pages that follow each other for the guest mostly do not in the host's memory, where they are shown once
 * more for this. One locked instruction of the host's can then do one of the guest's across their boundary.
 */
#include "mem/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PLACES	   4u
#define PLACE_SIZE (2u * PAGE_SIZE)

struct mem_pairs {
	uint8_t *places; /* NULL: the host has none */
	struct {
		const uint8_t *first, *second; /* NULL: nothing is shown */
	} shown[PLACES];
};

struct mem_pairs *mem_pairs_create(void)
{
	struct mem_pairs *pairs = calloc(1, sizeof(*pairs));
	void *at;

	if (!pairs)
		return NULL;
	at = mmap(NULL, PLACES * PLACE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	pairs->places = at == MAP_FAILED ? NULL : at;
	return pairs;
}

void mem_pairs_destroy(struct mem_pairs *pairs)
{
	if (pairs && pairs->places)
		munmap(pairs->places, PLACES * PLACE_SIZE);
	free(pairs);
}

static int show(const struct guest_mem *mem, const uint8_t *page, uint8_t *at)
{
	uint64_t offset = (uint64_t)(page - mem->ram.file.base);

	if (page < mem->ram.file.base || offset >= mem->ram.file.size)
		return -EINVAL;
	return host_memory_show(&mem->ram.file, offset, PAGE_SIZE, at);
}

uint8_t *mem_pair(const struct guest_mem *mem, struct mem_pairs *pairs, uint8_t *first, const uint8_t *second)
{
	unsigned n = (unsigned)(((uintptr_t)first ^ (uintptr_t)second) >> PAGE_SHIFT) % PLACES;
	uint8_t *at;

	if (second == first + PAGE_SIZE)
		return first;
	if (!pairs || !pairs->places)
		return NULL;
	at = pairs->places + n * PLACE_SIZE;
	if (pairs->shown[n].first == first && pairs->shown[n].second == second)
		return at;
	pairs->shown[n].first = NULL;
	if (show(mem, first, at) || show(mem, second, at + PAGE_SIZE))
		return NULL;
	pairs->shown[n].first = first;
	pairs->shown[n].second = second;
	return at;
}
