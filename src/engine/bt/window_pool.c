/*
 * Records of windows are taken from pools, so that nothing is allocated in a signal handler and there is a limit; and memory beyond
 * the guest's, for these and for the host's page tables, from the machine's budget.
 */
#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include "engine/bt/window_private.h"

#include <errno.h>
#include <sys/mman.h>

bool windows_take(struct bt_windows *w, uint64_t size)
{
	if (!overhead_take(&w->mem->overhead, OVERHEAD_WINDOWS, size))
		return false;
	w->overhead += size;
	return true;
}

void windows_give(struct bt_windows *w, uint64_t size)
{
	overhead_give(&w->mem->overhead, OVERHEAD_WINDOWS, size);
	w->overhead -= size;
}

int pool_create(struct pool *p, size_t item_size, uint32_t capacity, struct error *err)
{
	void *items = mmap(NULL, item_size * capacity, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (items == MAP_FAILED)
		return error_set_errno(err, errno, "cannot map %zu bytes for windows' records", item_size * capacity);
	*p = (struct pool){ .items = items, .item_size = item_size, .capacity = capacity };
	return 0;
}

void pool_destroy(struct pool *p)
{
	if (p->items)
		munmap(p->items, p->item_size * p->capacity);
	p->items = NULL;
}

pool_index pool_take(struct bt_windows *w, struct pool *p)
{
	pool_index i = p->free;

	if (i)
		memcpy(&p->free, pool_item(p, i), sizeof(p->free));
	else if (p->fresh < p->capacity && windows_take(w, p->item_size))
		i = ++p->fresh;
	else
		return 0;
	p->taken++;
	memset(pool_item(p, i), 0, p->item_size);
	return i;
}

void pool_give(struct pool *p, pool_index i)
{
	memcpy(pool_item(p, i), &p->free, sizeof(p->free));
	p->free = i;
	p->taken--;
}

pool_index pool_index_of(const struct pool *p, const void *item)
{
	return (pool_index)((size_t)((const uint8_t *)item - p->items) / p->item_size) + 1;
}
