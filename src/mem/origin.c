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

/* fetch_lock held. */
static bool fetch_page(struct guest_mem *mem, struct memory *memory, uint64_t page)
{
	struct error why = { 0 };

	if (memory->origin.fetch(memory->origin.opaque, page, memory->file.base + (page << PAGE_SHIFT), &why)) {
		error_set(&mem->loss, EIO, "page 0x%" PRIx64 " of the memory '%s' cannot be fetched: %.300s", page,
			  memory->name, why.text);
		atomic_store(&mem->has_lost, true);
		return false;
	}
	atomic_fetch_and(&memory->absent[page / 64], ~BIT(page % 64));
	if (atomic_fetch_sub(&memory->absent_count, 1) == 1)
		atomic_fetch_sub(&mem->origins, 1);
	return true;
}

static bool fetch(struct guest_mem *mem, struct memory *memory, uint64_t page)
{
	bool had_lost, there;

	pthread_mutex_lock(&mem->fetch_lock);
	had_lost = mem_has_lost(mem);
	there = !mem_is_absent(memory, page) || (!had_lost && fetch_page(mem, memory, page));
	pthread_mutex_unlock(&mem->fetch_lock);
	if (!there && !had_lost && mem->lost)
		mem->lost(mem->lost_opaque, &mem->loss);
	return there;
}

bool origin_fetch(struct guest_mem *mem, const struct mem_page *record)
{
	uint64_t number = (uint64_t)(record - mem->pages);
	struct memory *memory = mem_memory_of(mem, number);

	return !mem_is_absent(memory, number - memory->first) || fetch(mem, memory, number - memory->first);
}

bool origin_fetch_all(struct guest_mem *mem, struct memory *memory)
{
	for (uint64_t n = 0; atomic_load(&memory->absent_count) && n < page_count(memory); n++)
		if (mem_is_absent(memory, n) && !fetch(mem, memory, n))
			return false;
	return true;
}

int mem_loss(const struct guest_mem *mem, struct error *err)
{
	return mem_has_lost(mem) ? error_set(err, EIO, "%s", mem->loss.text) : 0;
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
