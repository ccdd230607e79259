/*
 * The log of pages that are written: mem.h says when a page is marked.
 */
#include "mem/mem.h"

static void withdraw(struct guest_mem *mem)
{
	struct mem_listener *listener;

	list_for_each (listener, &mem->listeners, node)
		if (listener->withdraw)
			listener->withdraw(listener->opaque);
}

void mem_mark_dirty(struct guest_mem *mem, const struct mem_page *page)
{
	uint64_t number = (uint64_t)(page - mem->pages);
	_Atomic uint64_t *word = &mem->dirty[number / 64];

	/* Most are marked many times. */
	if (!(atomic_load_explicit(word, memory_order_relaxed) & BIT(number % 64)))
		atomic_fetch_or(word, BIT(number % 64));
}

static void forget(struct guest_mem *mem)
{
	for (uint64_t n = 0; n < mem->page_count / 64; n++)
		if (atomic_load(&mem->dirty[n]))
			atomic_store(&mem->dirty[n], 0);
}

void mem_dirty_start(struct guest_mem *mem)
{
	forget(mem);
	atomic_store(&mem->logging, true);
	withdraw(mem);
}

void mem_dirty_stop(struct guest_mem *mem)
{
	atomic_store(&mem->logging, false);
	forget(mem);
}

void mem_dirty_collect(struct guest_mem *mem, uint64_t first, uint64_t count, uint64_t *bitmap)
{
	BUG_ON(first % 64 || count % 64 || !range_ok(first, count, mem->page_count) || !mem_is_logging(mem));
	withdraw(mem);
	for (uint64_t n = 0; n < count / 64; n++) {
		_Atomic uint64_t *word = &mem->dirty[first / 64 + n];

		bitmap[n] = atomic_load(word) ? atomic_exchange(word, 0) : 0;
	}
}
