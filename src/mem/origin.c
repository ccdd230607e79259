/*
 * Pages whose contents are elsewhere until they are needed.
 */
#include "mem/private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static uint64_t page_count(const struct memory *memory) { return memory->file.size >> PAGE_SHIFT; }

bool mem_is_absent(const struct memory *memory, uint64_t page)
{
	return memory->absent && (atomic_load(&memory->absent[page / 64]) & BIT(page % 64));
}

static void fetch(struct guest_mem *mem, struct memory *memory, uint64_t page)
{
	pthread_mutex_lock(&mem->fetch_lock);
	if (mem_is_absent(memory, page)) {
		memory->origin.fetch(memory->origin.opaque, page, memory->file.base + (page << PAGE_SHIFT));
		atomic_fetch_and(&memory->absent[page / 64], ~BIT(page % 64));
		if (atomic_fetch_sub(&memory->absent_count, 1) == 1)
			atomic_fetch_sub(&mem->origins, 1);
	}
	pthread_mutex_unlock(&mem->fetch_lock);
}

void origin_fetch(struct guest_mem *mem, const struct mem_page *record)
{
	uint64_t number = (uint64_t)(record - mem->pages);
	struct memory *memory = mem_memory_of(mem, number);

	if (mem_is_absent(memory, number - memory->first))
		fetch(mem, memory, number - memory->first);
}

void origin_fetch_all(struct guest_mem *mem, struct memory *memory)
{
	for (uint64_t n = 0; atomic_load(&memory->absent_count) && n < page_count(memory); n++)
		if (mem_is_absent(memory, n))
			fetch(mem, memory, n);
}

void origin_forget(struct guest_mem *mem, struct memory *memory)
{
	if (atomic_exchange(&memory->absent_count, 0))
		atomic_fetch_sub(&mem->origins, 1);
	free((void *)memory->absent);
	memory->absent = NULL;
}

int mem_set_origin(struct guest_mem *mem, struct memory *memory, const struct mem_origin *origin, struct error *err)
{
	uint64_t count = page_count(memory);
	_Atomic uint64_t *absent = calloc((count + 63) / 64, sizeof(*absent));

	if (!absent)
		return error_set(err, ENOMEM, "no memory for the record of %" PRIu64 " pages", count);
	origin_forget(mem, memory);
	for (uint64_t n = 0; n < count; n++)
		absent[n / 64] |= BIT(n % 64);
	memory->origin = *origin;
	memory->absent = absent;
	atomic_store(&memory->absent_count, count);
	atomic_fetch_add(&mem->origins, 1);
	map_renew(mem);
	return 0;
}
