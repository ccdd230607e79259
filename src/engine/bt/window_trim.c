/*
 * What windows weigh. A page of guest RAM that is mapped in windows takes no memory there, but page tables of the host, and the
 * host counts it once more as the process's own each time it is mapped. So page tables are emptied now and then, above all of what
 * was touched once: the mappings stay, and what is used again comes back by small faults of the host's own.
 */
#define _GNU_SOURCE /* MADV_DONTNEED */
#include "engine/bt/window_private.h"

#include <sys/mman.h>

/* Resident pages that may come between two trims, 16 MiB; windows are some of them. */
#define TRIM_PAGES 4096
/* How often the host is asked for that number; and after how many pages that were mapped. */
#define LOOK_INTERVAL 20000000ull
#define FILLED_PAGES  (16 * TRIM_PAGES)
/* Coming back costs less than 1 us a page. Both that and the trim itself, which visits each mapping, take less than 2 % of the time, unless there are far too many. */
#define NS_PER_PAGE 1000ull
#define REST	    50

/* Of how much of each window: what waits for the vCPU waits no longer than for one. False: something does. */
static bool trim_window(struct bt_windows *w, const struct window *window, const struct vcpu *v)
{
	for (unsigned gib = 0; gib < WINDOW_GIBS; gib++) {
		if (!window->regions_in[gib])
			continue;
		if (is_wanted(w, v))
			return false;
		madvise((void *)(uintptr_t)(window->base + ((uint64_t)gib << GIB_SHIFT)), BIT(GIB_SHIFT),
			MADV_DONTNEED);
		w->host_calls++;
	}
	return true;
}

static bool trim_all(struct bt_windows *w, const struct vcpu *v)
{
	for (unsigned n = 0; n < w->window_count; n++)
		if (w->window[n].region_count && !trim_window(w, &w->window[n], v))
			return false;
	return true;
}

/* All RAM once for C and once for windows, and some more. */
static uint64_t too_many(const struct bt_windows *w)
{
	return 2 * (w->mem->ram.file.size >> PAGE_SHIFT) + 4 * TRIM_PAGES;
}

void windows_trim(struct bt_windows *w, struct vcpu *v)
{
	vtime_t now = clock_now(v->clock);
	uint64_t resident, left, cost;

	if (now < w->trim.next && w->stats.pages_filled < w->trim.look_at)
		return;
	resident = host_shared_pages();
	w->trim.next = now + LOOK_INTERVAL;
	w->trim.look_at = w->stats.pages_filled + FILLED_PAGES;
	w->trim.floor = MIN(w->trim.floor, resident);
	if (resident - w->trim.floor < TRIM_PAGES || (now < w->trim.rest && resident < too_many(w)))
		return;
	if (!trim_all(w, v))
		return;
	left = host_shared_pages();
	w->trim.floor = left;
	cost = clock_now(v->clock) - now + NS_PER_PAGE * (resident - MIN(left, resident));
	w->trim.rest = now + REST * cost;
	w->stats.trims++;
}
