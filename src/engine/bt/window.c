/*
 * Windows of a machine: the reserved address space, creation and end, and what the engine calls when translated code faulted.
 */
#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include "engine/bt/bt.h"
#include "engine/bt/window_private.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

/*
 * Linux allows a process this many mappings if nothing else is known. A quarter of what it allows is left to everybody else, and
 * the tables' and some of our own come off as well.
 */
#define HOST_MAPPINGS	  65530
#define RESERVED_MAPPINGS 2048
#define FEWEST_MAPPINGS	  64

/* Neighbouring windows share the guard zone between them: an access leaves a window by less than WINDOW_GUARD. */
#define WINDOW_STRIDE (WINDOW_SIZE + WINDOW_GUARD)

/* ---- memory ---- */

static int no_address_space(uint64_t size, struct error *err)
{
	return error_set_errno(err, errno,
			       "cannot reserve %llu GiB of address space for translation (is there a limit on virtual "
			       "memory, ulimit -v?)",
			       (unsigned long long)(size >> 30));
}

/* One more than are used: absent slots lead there. And room to align the first. */
static uint64_t arena_size(unsigned windows) { return (windows + 1) * WINDOW_STRIDE + WINDOW_GUARD + BIT(GIB_SHIFT); }

/* So many windows, or as many as the host has address space for. */
static int reserve_arena(struct bt_windows *w, unsigned count, struct error *err)
{
	for (;; count -= MAX(count / 8, 1u)) {
		w->arena_size = arena_size(count);
		w->arena = windows_reserve(w->arena_size);
		if (w->arena)
			break;
		if (count <= MIN_WINDOWS)
			return no_address_space(w->arena_size, err);
	}
	w->window_count = count;
	w->first =
		align_up(w->arena + WINDOW_GUARD, BIT(GIB_SHIFT)); /* a GiB of a window is one page table of the host */
	w->absent = w->first + count * WINDOW_STRIDE;
	for (unsigned n = 0; n < count; n++) {
		w->window[n].base = w->first + n * WINDOW_STRIDE;
		list_init(&w->window[n].local_regions);
		list_init(&w->window[n].global_regions);
	}
	return 0;
}

/* The arrays that records are found by; host pages that are never touched cost nothing. */
static int create_index(struct bt_windows *w, struct error *err)
{
	uint64_t count = w->mem->page_count, large = BIT(CPU_PHYS_BITS - REGION_SHIFT);
	size_t hash = sizeof(*w->hash) << REGION_HASH_BITS, pages = align_up(count * sizeof(*w->page_mappings), 8);
	size_t larges = align_up(large * sizeof(*w->large_mappings), 8), guarded = align_up(count, 64) / 8;
	uint8_t *at;

	w->index_size = hash + pages + larges + guarded;
	at = mmap(NULL, w->index_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		return error_set_errno(err, errno, "cannot map %zu bytes for windows' records", w->index_size);
	w->index_memory = at;
	w->hash = (pool_index *)at;
	w->page_mappings = (uint32_t *)(at += hash);
	w->large_mappings = (pool_index *)(at += pages);
	w->guarded = (uint64_t *)(at + larges);
	return 0;
}

static uint64_t default_mapping_limit(void)
{
	int64_t host = host_proc_number("/proc/sys/vm/max_map_count");

	if (host <= 0)
		host = HOST_MAPPINGS;
	host = host / 4 * 3 - MIN(RESERVED_MAPPINGS, host / 2);
	return (uint64_t)MAX(MIN(host, 1 << 20), FEWEST_MAPPINGS);
}

/* Every span takes at least two host mappings; whole regions may take none of their own. */
static int create_pools(struct bt_windows *w, struct error *err)
{
	uint64_t spans = w->mapping_limit / 2 + 64, whole = w->mem->ram.file.size >> REGION_SHIFT;
	int rc = pool_create(&w->spans, sizeof(struct span), (uint32_t)spans, err);

	return rc ? rc : pool_create(&w->regions, sizeof(struct region), (uint32_t)(spans + 2 * whole + 1024), err);
}

uint64_t bt_windows_limits(const struct bt_windows *w) { return w->limits; }

/* At the start: with the host's page tables of slot tables, each of which has pages of its own, and of the limits' zeros. */
static int take_overhead(struct bt_windows *w, struct error *err)
{
	uint64_t size = sizeof(*w) + (sizeof(*w->hash) << REGION_HASH_BITS) +
			w->space_count * TABLE_VIEWS * 3 * PAGE_SIZE + (BT_LIMITS_REACH >> 9) +
			MAX_CPUS * sizeof(struct window_cpu);

	if (!overhead_take(&w->mem->overhead, OVERHEAD_WINDOWS, size))
		return error_set(err, ENOMEM, "no room for translation windows in memory beyond the guest's");
	w->overhead = size;
	return 0;
}

static void map_changes(void *windows, uint64_t start, uint64_t size)
{
	(void)start, (void)size;
	windows_forget(windows);
}

static void withdraw(void *windows)
{
	struct bt_windows *w = windows;

	windows_lock(w);
	windows_protect(w);
	windows_unlock(w);
}

struct bt_windows *windows_create(struct guest_mem *mem, const struct window_limits *limits, struct error *err)
{
	struct bt_windows *w = calloc(1, sizeof(*w));
	unsigned windows = limits->windows ? limits->windows : MAX_WINDOWS;

	if (!w) {
		error_set_errno(err, ENOMEM, "cannot create translation windows");
		return NULL;
	}
	pthread_mutex_init(&w->lock, NULL);
	w->mem = mem;
	w->epoch = 1;
	w->trim.floor = host_shared_pages();
	w->space_count = limits->spaces ? limits->spaces : MAX_SPACES;
	w->mapping_limit = limits->mappings ? limits->mappings : default_mapping_limit();
	if (take_overhead(w, err) || reserve_arena(w, windows, err) || create_index(w, err) || create_pools(w, err) ||
	    !(w->limits = bt_limits_create(err)))
		goto fail;
	w->tables_size = windows_tables_size(w->space_count);
	w->tables = windows_reserve(w->tables_size);
	if (!w->tables) {
		no_address_space(w->tables_size, err);
		goto fail;
	}
	spares_take(w);
	host_backed_add((void *)(uintptr_t)w->arena, w->arena_size, "guest memory");
	w->listener = (struct mem_listener){ .changes = map_changes, .withdraw = withdraw, .opaque = w };
	mem_listen(mem, &w->listener);
	return w;
fail:
	bt_windows_destroy(w);
	return NULL;
}

struct bt_windows *bt_windows_create(struct guest_mem *mem, const struct engine_options *options, struct error *err)
{
	return windows_create(mem,
			      &(struct window_limits){ .windows = options->windows,
						       .mappings = MIN(options->mappings, default_mapping_limit()) },
			      err);
}

int bt_windows_probe(struct error *err)
{
	uint64_t size = arena_size(MIN_WINDOWS) + windows_tables_size(MAX_SPACES) + BT_LIMITS_SIZE,
		 at = windows_reserve(size);

	windows_release(at, size);
	return at ? 0 : no_address_space(size, err);
}

void bt_windows_destroy(struct bt_windows *w)
{
	if (!w)
		return;
	if (w->listener.opaque)
		mem_unlisten(&w->listener);
	spares_release(w);
	host_backed_remove((void *)(uintptr_t)w->arena);
	windows_release(w->arena, w->arena_size);
	windows_release(w->tables, w->tables_size);
	bt_limits_destroy(w->limits);
	overhead_give(&w->mem->overhead, OVERHEAD_WINDOWS, w->overhead);
	if (w->index_memory)
		munmap(w->index_memory, w->index_size);
	pool_destroy(&w->regions);
	pool_destroy(&w->spans);
	for (unsigned n = 0; n < w->cpu_count; n++)
		free(w->cpu[n]);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

/* ---- accesses ---- */

/* The window with this host address, and where in it; NULL for guard zones, the absent window and everything else. */
static struct window *window_at(struct bt_windows *w, uint64_t at, uint64_t *offset)
{
	uint64_t number = (at - w->first) / WINDOW_STRIDE;

	*offset = (at - w->first) % WINDOW_STRIDE;
	if (at < w->first || number >= w->window_count || *offset >= WINDOW_SIZE)
		return NULL;
	return &w->window[number];
}

/*
 * A window that this vCPU can still reach is not given a new meaning meanwhile, so its slot can be read without the lock; whether
 * its table leads there now is looked at under it.
 */
enum window_result bt_windows_fault(struct bt_windows *w, struct vcpu *v, uint64_t at, bool write)
{
	struct window_cpu *c = windows_cpu(w, v);
	uint64_t offset;
	struct window *window = window_at(w, at, &offset);
	enum window_result result = WINDOW_SLOW;

	if (c && c->current && window && window->pml4e)
		result = windows_fill(w, c, window, slot_start(window->slot) + offset, write);
	atomic_fetch_add_explicit(&w->faults, 1, memory_order_relaxed);
	if (result == WINDOW_SLOW)
		atomic_fetch_add_explicit(&w->slow, 1, memory_order_relaxed);
	return result;
}

bool bt_windows_accessed(struct bt_windows *w, uint64_t at, uint64_t *lin)
{
	uint64_t offset, beyond;
	const struct window *window = window_at(w, at, &offset);

	if (window) {
		*lin = slot_start(window->slot) + offset;
		return window->pml4e;
	}
	if (at - (w->absent - WINDOW_GUARD) >= WINDOW_SIZE + 2 * WINDOW_GUARD)
		return false;
	beyond = (at - w->absent - *lin) & (WINDOW_SIZE - 1); /* in the next page, of an access to two */
	*lin += beyond;
	return beyond < 64;
}

void bt_windows_missed(struct bt_windows *w, struct vcpu *v, uint64_t lin, bool write)
{
	struct window_cpu *c = windows_cpu(w, v);

	if (c && c->current && is_canonical(lin))
		windows_note_missed(c, lin, write);
}

/* v is in C code, so no window's address is in its registers. */
enum window_result bt_windows_fill_missed(struct bt_windows *w, struct vcpu *v)
{
	struct window_cpu *c = windows_cpu(w, v);

	return c && c->current ? windows_fill_missed(w, c) : WINDOW_SLOW;
}

void bt_windows_graduate(struct bt_windows *w, struct vcpu *v)
{
	if (bt_windows_table(w, v))
		windows_graduate(w, windows_cpu(w, v));
}

void bt_windows_stats(struct bt_windows *w, struct bt_window_stats *out)
{
	windows_lock(w);
	*out = w->stats;
	out->faults = atomic_load(&w->faults);
	out->slow = atomic_load(&w->slow);
	for (unsigned n = 0; n < w->window_count; n++)
		out->windows += w->window[n].pml4e != 0;
	for (unsigned n = 0; n < w->space_count; n++)
		out->spaces += w->space[n].key != 0;
	windows_unlock(w);
}
