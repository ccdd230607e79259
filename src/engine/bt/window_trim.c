/*
 * What windows weigh. A page of guest RAM that is mapped in windows takes no memory there, but page tables of the host, and the
 * host counts it once more as the process's own each time it is mapped. So page tables are emptied now and then, above all of what
 * was touched once: the mappings stay, and what is used again comes back by small faults of the host's own.
 */
#define _GNU_SOURCE /* MADV_DONTNEED */
#include "engine/bt/window.h"

#include <sys/mman.h>

/* Resident pages that may come between two trims, 16 MiB; windows are some of them. */
#define TRIM_PAGES 4096
/* How often the host is asked for that number. */
#define LOOK_INTERVAL 20000000ull
/* Coming back costs less than 1 us a page: so trimming costs less than 2 % of the time. */
#define NS_PER_PAGE 50000ull

void windows_trim(struct bt_windows *w, struct vcpu *v)
{
	vtime_t now = clock_now(v->clock);
	uint64_t resident, left;

	if (now < w->trim.next)
		return;
	resident = host_shared_pages();
	w->trim.next = now + LOOK_INTERVAL;
	w->trim.floor = MIN(w->trim.floor, resident);
	if (resident - w->trim.floor < TRIM_PAGES)
		return;
	for (unsigned n = 0; n < w->window_count; n++) {
		const struct window *window = &w->window[n];

		/* An interrupt waits: the rest may, too. */
		if (atomic_load_explicit(&v->events, memory_order_relaxed))
			return;
		if (window->mappings)
			madvise((void *)(uintptr_t)window->base, WINDOW_SIZE, MADV_DONTNEED);
	}
	left = host_shared_pages();
	w->trim.floor = left;
	w->trim.next = now + MAX(LOOK_INTERVAL, NS_PER_PAGE * (resident - MIN(left, resident)));
	w->stats.trims++;
}
