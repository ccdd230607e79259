/*
 * Private to window*.c: the windows of a machine, what is mapped in them, and the address spaces whose slot tables name them.
 *
 * Windows are a TLB that is made of host mappings. As a TLB, they may go on using what the guest's tables said some time ago,
 * until the guest does what the architecture (SDM vol. 3A 4.10.4) says invalidates it. Then nothing is thrown away, but looked at
 * again: each mapping remembers the entries of the guest's tables that it came from, and stays if they are what they were.
 *
 * Time is counted by windows.clock, which every flush of every vCPU advances. A window has the time when all of it was last
 * compared with the guest's tables (`validated`; mappings made later are younger), a vCPU the time of its last flush. Before
 * a vCPU uses a table, its windows are brought up to that time. What one vCPU looked at again is good for the others too,
 * and what it drops they fault in again.
 *
 * One lock holds all of it. A vCPU's SIGSEGV handler takes it as well: that is no different from a call, since the fault came
 * from translated code, never from code that holds the lock or is inside a C library function. Only translated code uses
 * windows; C reaches guest memory through mem/, so nobody who holds the lock faults into one.
 */
#ifndef DOPPEL_BT_WINDOW_PRIVATE_H
#define DOPPEL_BT_WINDOW_PRIVATE_H

#include "engine/bt/window.h"

#include <pthread.h>

#define SLOTS		 512
#define REGION_SHIFT	 21
#define PAGES_PER_SPAN	 64
#define SPANS_PER_REGION 8
#define GIB_SHIFT	 30
#define WINDOW_GIBS	 (1u << (SLOT_SHIFT - GIB_SHIFT))

/*
 * So many mappings of a physical page, or of whole regions of its 2 MiB, that could be written; a further one takes the place of the oldest.
 * When code is decoded from the page all of them must go at once, while everybody waits.
 */
#define MAX_ALIASES 1024u
/* Mappings of the host that are kept for when it gives no more: giving back what is in windows may take some first. */
#define SPARE_MAPPINGS 16u
#define FEWEST_SPARES  4u
/* After so many calls of the host somebody may be waiting for the vCPU. */
#define CALLS_AT_ONCE 32u
/* More than such a call takes is not its own: the host's processor was somebody else's meanwhile. */
#define CALL_NS 20000ull

/* The most of each that a machine has. */
#define MAX_WINDOWS 128
#define MIN_WINDOWS 8
#define MAX_SPACES  64
#define MAX_CPUS    64

/*
 * A window holds pages that user mode may use, or those it may not: user mode's table must not lead to the others. Outside long mode, where
 * one slot has all pages, a third kind holds what the supervisor may use when that is both.
 */
enum window_kind { WINDOW_USER, WINDOW_SUPERVISOR, WINDOW_BOTH, WINDOW_KINDS };

enum paging { PAGING_4_LEVEL, PAGING_PAE, PAGING_32_BIT, PAGING_32_BIT_PSE, PAGING_OFF };
/* Page tables have 1,024 entries of 4 bytes, which are handled as if they had 8: see window_walk.c. */
static inline bool has_narrow_entries(enum paging p) { return p == PAGING_32_BIT || p == PAGING_32_BIT_PSE; }

#define UPPER_ENTRIES 4 /* GiB: outside long mode there are no more */

/* Index into a pool, from 1; 0: none. */
typedef uint32_t pool_index;

struct pool {
	uint8_t *items;
	size_t item_size;
	uint32_t capacity, taken, fresh; /* items from `fresh` on were never used */
	pool_index free;		 /* linked through the items' first bytes */
};

/*
 * 64 pages of a window that are mapped one by one or in runs. A page that is mapped writable is on the list of its physical page
 * (windows.page_mappings), by its identifier: span * 64 + page.
 */
struct span {
	uint64_t filled, writable; /* bit n: page n */
	pool_index region;
	uint16_t mappings; /* host mappings this takes at most */
	uint8_t number;	   /* in the region */
	uint64_t seen
		[PAGES_PER_SPAN]; /* LEAF_4K: the table's entries as last compared; those of pages that are filled were fine */
	uint32_t frame[PAGES_PER_SPAN]; /* guest physical page numbers */
	uint32_t next[PAGES_PER_SPAN], previous[PAGES_PER_SPAN];
};

/* Which level of the guest's tables maps the pages of a region. */
enum leaf { LEAF_4K, LEAF_2M, LEAF_1G };

/* 2 MiB of a window: what one page table maps, or one large page, or 2 MiB of a huge one. */
struct region {
	pool_index hash_next;
	uint32_t number;  /* in the window */
	struct list node; /* in the window's list: by `local` */
	struct window *window;
	const void *page_table; /* LEAF_4K: the entry of the first page */
	const void *pde_at;	/* all but LEAF_1G */
	uint64_t pdpte, pde;	/* as they were */
	uint8_t leaf;
	bool user_above;      /* all entries above the leaf allow user mode */
	bool whole, writable; /* all 2 MiB are one mapping, which may be written (but for holes) */
	bool local, global;   /* has pages that are not global, that are */
	uint16_t holes;	      /* pages of a whole, writable mapping that are read-only: windows.guarded */
	uint32_t mappings;
	uint32_t frame;			       /* whole: first page's guest physical page number */
	pool_index large_next, large_previous; /* whole: on the list of its physical 2 MiB */
	pool_index span[SPANS_PER_REGION];
};

/* 512 GiB of host addresses for one top-level entry of the guest, shared by all address spaces that have this entry. */
struct window {
	uint64_t base;	/* host address */
	uint64_t pml4e; /* the entry it is for, 0: the window is free */
	const uint64_t *pdpt;
	uint64_t upper[UPPER_ENTRIES]; /* outside long mode pdpt is this: see struct space */
	uint8_t paging;		       /* enum paging */
	uint16_t slot;		       /* 0..511 */
	uint8_t kind;		       /* enum window_kind */
	bool nxe;		       /* EFER.NXE: bit 63 of entries is not reserved */
	bool narrow;		       /* nothing is mapped in the last page below 4 GiB: see window_narrow() */
	unsigned references;	       /* slots of address spaces that name it */
	uint64_t holders; /* bit n: vCPU n was using a table when that stopped naming it, and may have its address */
	uint64_t removed; /* epoch in which that happened last */
	uint64_t used;	  /* time of last use: for eviction */
	uint64_t validated, validated_local;	   /* all pages; those that are not global */
	struct list local_regions, global_regions; /* with any page that is not global; others */
	unsigned global_count;			   /* regions with global pages */
	unsigned huge_count;			   /* regions that 1 GiB pages map */
	unsigned region_count;
	uint16_t regions_in[WINDOW_GIBS]; /* of each GiB */
	uint64_t mappings;
	bool unclean; /* what is mapped there, or may not be used, is not what records say: see windows_host_unmap() */
};

enum table_view { TABLE_USER, TABLE_SUPERVISOR, TABLE_BOTH, TABLE_VIEWS };

/* Outside long mode. */
static inline enum window_kind kind_of_view(enum table_view view)
{
	return view == TABLE_USER ? WINDOW_USER : view == TABLE_SUPERVISOR ? WINDOW_SUPERVISOR : WINDOW_BOTH;
}

/* What one CR3 stands for. */
struct space {
	uint64_t key; /* see space_key(); 0: free */
	enum paging paging;
	const uint64_t *pml4; /* in guest RAM */
	/*
	 * Outside long mode there is slot 0 alone. Its entry, and below it one for each GiB, are made up from CR3, for PAE from the
	 * registers that have the PDPTEs: so all that follows is as with four levels.
	 */
	uint64_t upper_pml4e, upper[UPPER_ENTRIES];
	struct slot_table table[TABLE_VIEWS];
	uint64_t in_use[SLOTS / 64];	     /* slots with a window of either kind */
	uint8_t window[SLOTS][WINDOW_KINDS]; /* number + 1 */
	bool nxe;
	uint64_t used;
	uint64_t created, fills; /* time of its first use, and fills since: how young it is */
};

/* A vCPU's part. */
struct window_cpu {
	struct vcpu *vcpu;
	struct space *space;	  /* whose table it may be using; protected by the lock */
	bool current;		  /* the table it got last is still the right one */
	bool young;		  /* nothing is mapped for user addresses of its space */
	_Atomic uint64_t entered; /* epoch when it last was not in translated code */
	uint64_t flushed;	  /* time of the last flush of everything */
	struct {
		uint64_t flushed; /* time of the last flush of what is not global */
		uint64_t cr3;
	} pcid[4096];
	vtime_t churn;	    /* see bt_windows_churn() */
	uint64_t repeat_at; /* where the last fault was, and how often in a row */
	unsigned repeated;
	/* What was missing last: see windows_fill_missed(). */
	struct {
		uint64_t lin;
		const struct space *space; /* NULL: nothing */
		enum table_view view;
		bool write;
	} missed;
};

struct bt_windows {
	pthread_mutex_t lock;
	_Atomic unsigned lock_wanted; /* how many wait for it */
	struct guest_mem *mem;
	struct mem_listener listener;
	uint64_t arena, arena_size, first, absent; /* host addresses */
	uint64_t tables, tables_size;
	uint64_t limits;	/* see bt_windows_limits() */
	uint64_t overhead;	/* taken for all of this */
	_Atomic uint64_t clock; /* of flushes */
	_Atomic uint64_t epoch; /* of windows leaving tables */
	uint64_t page_flushed;	/* time of the last INVLPG of any vCPU */
	uint64_t uses;		/* counts what `used` is set to */
	uint64_t mapping_limit; /* lowered when the host gives fewer */
	uint64_t host_calls;	/* counts those that change mappings */
	uint64_t spare[SPARE_MAPPINGS];
	unsigned spare_count;
	bool unclean; /* one of the windows is */

	struct window window[MAX_WINDOWS];
	unsigned window_count;
	struct space space[MAX_SPACES];
	unsigned space_count;
	unsigned swept; /* counts address spaces looked at for being dead */
	struct window_cpu *cpu[MAX_CPUS];
	unsigned cpu_count;
	unsigned slot_global[SLOTS]; /* regions with global pages in this slot's windows */

	struct pool regions, spans;
	pool_index *hash;	    /* of regions */
	uint32_t *page_mappings;    /* [page's number]: writable mappings of it in spans, first identifier */
	pool_index *large_mappings; /* [physical address >> 21]: whole regions */
	uint64_t *guarded;	    /* bit a page's number: read-only in every writable whole region that has it */
	void *index_memory;	    /* all of the arrays above */
	size_t index_size;

	_Atomic uint64_t faults, slow; /* counted without the lock */
	struct {
		vtime_t next;	  /* when to look again */
		vtime_t rest;	  /* no trimming until then, unless it is too much */
		uint64_t look_at; /* or when stats.pages_filled is this */
		uint64_t floor;	  /* resident pages that trimming left */
	} trim;
	struct bt_window_stats stats;
};

/* How much of everything; 0 takes the default. Tests make it small. */
struct window_limits {
	unsigned windows, spaces;
	uint64_t mappings; /* of the host */
};

#define REGION_HASH_BITS 14

struct bt_windows *windows_create(struct guest_mem *, const struct window_limits *, struct error *);

static inline void windows_lock(struct bt_windows *w)
{
	if (!pthread_mutex_trylock(&w->lock))
		return;
	atomic_fetch_add(&w->lock_wanted, 1);
	pthread_mutex_lock(&w->lock);
	atomic_fetch_sub(&w->lock_wanted, 1);
}
static inline void windows_unlock(struct bt_windows *w) { pthread_mutex_unlock(&w->lock); }

/* ---- window_walk.c: reading the guest's tables ---- */

/* What the tables say about one address. Entries were read once, from the top. */
struct table_walk {
	uint64_t pml4e, pdpte, pde, pte; /* pde, pte: if leaf is below */
	const uint64_t *pdpt;
	const void *pde_at, *page_table; /* as in struct region */
	const void *at[4];		 /* every entry used, of the guest's, and what it was there */
	uint64_t entry[4];
	unsigned depth;
	enum leaf leaf;
	gpa_t page;
	bool user_above, user, writable, global;
	bool accessed, dirty; /* accessed: at every level */
};

/* False when the address is not mapped, or by something that is not in RAM or that faults for any access. */
bool windows_walk(struct bt_windows *, const struct space *, const struct vcpu *, uint64_t lin, struct table_walk *);
/* The page of guest RAM that holds a table, NULL when there is none: RAM stays where it is in the host, whatever the map becomes. */
const uint64_t *windows_table_page(struct bt_windows *, uint64_t entry);
/* The number of the page (struct memory) and the offset in it, as one: false unless all of it is one region's that can be read. */
bool windows_offset(struct bt_windows *, gpa_t, uint64_t size, uint64_t *offset);

/* What of an entry that points to a table matters: if this is the same, so is everything below. */
#define TABLE_ENTRY_BITS (PTE_P | PTE_W | PTE_U | PTE_A | PTE_PS | PTE_FRAME)
static inline bool table_entry_same(uint64_t now, uint64_t then, uint64_t reserved)
{
	return !((now ^ then) & TABLE_ENTRY_BITS) && !(now & reserved);
}

/* Above the frame: XD without EFER.NXE; PAE reserves the others too (SDM vol. 3A tables 4-9 to 4-11), four levels ignore them. */
static inline uint64_t entry_reserved(enum paging paging, bool nxe)
{
	return (nxe ? 0 : PTE_NX) | (paging == PAGING_PAE ? BIT(63) - BIT(52) : 0);
}

static inline uint64_t entry_read(const uint64_t *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }

/* Entry `index` of a page table, or of a part of it. */
static inline uint64_t pte_read(enum paging paging, const void *table, unsigned index)
{
	if (has_narrow_entries(paging))
		return __atomic_load_n((const uint32_t *)table + index, __ATOMIC_ACQUIRE);
	return entry_read((const uint64_t *)table + index);
}

/* Set bits of an entry. False: it is not what it was. */
static inline bool entry_mark(enum paging paging, const void *at, uint64_t was, uint64_t with)
{
	uint32_t narrow = (uint32_t)was;

	if (has_narrow_entries(paging))
		return __atomic_compare_exchange_n((uint32_t *)at, &narrow, (uint32_t)with, false, __ATOMIC_SEQ_CST,
						   __ATOMIC_SEQ_CST);
	return __atomic_compare_exchange_n((uint64_t *)at, &was, with, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* The page directory's entry for a region; where that of region `to` is, when region `from` has its there, in the same directory. */
uint64_t pde_read(enum paging, const void *at, uint32_t region);
const void *pde_move(enum paging, const void *at, uint32_t from, uint32_t to);

/* The top-level entry of a slot. */
static inline uint64_t space_entry(const struct space *space, unsigned slot)
{
	if (space->paging == PAGING_4_LEVEL)
		return entry_read(&space->pml4[slot]);
	return slot ? 0 : space->upper_pml4e;
}
/* Outside long mode: what the vCPU's registers say. */
void space_set_upper(struct space *, const struct vcpu *);

/* ---- window_pool.c: records, and memory beyond the guest's; the lock is held ---- */

/* False: the machine's budget has no room for so many bytes more. */
bool windows_take(struct bt_windows *, uint64_t size);
void windows_give(struct bt_windows *, uint64_t size);
int pool_create(struct pool *, size_t item_size, uint32_t capacity, struct error *);
void pool_destroy(struct pool *);
/* A zeroed item, 0 when there is none left. */
pool_index pool_take(struct bt_windows *, struct pool *);
void pool_give(struct pool *, pool_index);
pool_index pool_index_of(const struct pool *, const void *item);
static inline void *pool_item(const struct pool *p, pool_index i) { return p->items + (size_t)(i - 1) * p->item_size; }
static inline uint32_t pool_left(const struct pool *p) { return p->capacity - p->taken; }

/*
 * The host's page tables: one page for each region that anything is mapped in, one for each GiB that has any, two for a window.
 * Records are never given back to the host.
 */
#define REGION_TABLES PAGE_SIZE
#define GIB_TABLES    PAGE_SIZE
#define WINDOW_TABLES (2 * PAGE_SIZE)
/* What a fill of so many regions takes at most. */
static inline uint64_t overhead_of_regions(unsigned count)
{
	return count * (sizeof(struct region) + REGION_TABLES + GIB_TABLES) + WINDOW_TABLES + sizeof(struct span);
}

/* ---- window_host.c: the host's mappings; the lock is held ---- */

/* Addresses that nothing is mapped at; 0 and errno when there are not that many. */
uint64_t windows_reserve(uint64_t size);
void windows_release(uint64_t at, uint64_t size);
/* Reserved, from now on it may be read and written. False: the host has no mappings left for that. */
bool windows_open_page(struct bt_windows *, uint64_t at);
/* Take the spare mappings that are missing. False: the host does not give them. */
bool spares_take(struct bt_windows *);
void spares_release(struct bt_windows *);
/*
 * Addresses of a window: show guest memory from this offset (windows_offset()) on there; make it read-only; give them back to the reservation.
 * Where mapping or protecting fails nothing is mapped there afterwards: both may need more mappings than the host gives.
 */
int windows_host_map(struct bt_windows *, uint64_t at, uint64_t size, uint64_t offset, bool writable, bool populate);
bool windows_host_protect(struct bt_windows *, uint64_t at, uint64_t size);
void windows_host_unmap(struct bt_windows *, uint64_t at, uint64_t size);
/* The same as one call of the host: 0, or -errno and nothing has changed. */
int windows_host_reserve(uint64_t at, uint64_t size);

/* ---- window_map.c: what is mapped; the lock is held ---- */

static inline struct region *region_of(const struct bt_windows *w, pool_index i)
{
	return i ? pool_item(&w->regions, i) : NULL;
}
static inline struct span *span_of(const struct bt_windows *w, pool_index i)
{
	return i ? pool_item(&w->spans, i) : NULL;
}

#define PAGES_PER_REGION (PAGES_PER_SPAN * SPANS_PER_REGION)
/* Host address. */
static inline uint64_t region_base(const struct region *r)
{
	return r->window->base + ((uint64_t)r->number << REGION_SHIFT);
}

struct region *region_find(struct bt_windows *, const struct window *, uint32_t number);
struct region *region_add(struct bt_windows *, struct window *, uint32_t number, const struct table_walk *);
/* Unmaps what it has. */
void region_drop(struct bt_windows *, struct region *);
/* Its record, when nothing is mapped any more. */
void region_release(struct bt_windows *, struct region *);
/* How many host mappings it takes has changed; of a whole one, so it may have for the next. */
void region_recount(struct bt_windows *, struct region *);
void whole_changed(struct bt_windows *, struct region *);
/* Say that the region has pages that are global, or not. */
void region_note_global(struct bt_windows *, struct region *, bool global);
/*
 * Pages [first, first + count) of a span: frames from `frame` on; entries: what the span's part of the page table says, as far as
 * these pages go. 0 or -errno, then they are not mapped.
 */
int span_map(struct bt_windows *, struct region *, unsigned number, unsigned first, unsigned count, uint32_t frame,
	     bool writable, const uint64_t entries[PAGES_PER_SPAN]);
/* Pages of the region's spans, by number 0..511, that must go, or lose the right to be written. */
struct page_set {
	uint64_t bits[SPANS_PER_REGION];
};
/* Pages [first, first + count) of a span, all of them writable, lose write access. */
void span_protect(struct bt_windows *, struct span *, unsigned first, unsigned count);
void region_unmap_pages(struct bt_windows *, struct region *, const struct page_set *);
void region_protect_pages(struct bt_windows *, struct region *, const struct page_set *);
/* Unmap all of a window. */
void window_clear(struct bt_windows *, struct window *);
/* Would so many mappings, each cut in three, be too many? */
static inline bool may_split(const struct bt_windows *w, unsigned count)
{
	return w->stats.mappings + 2ull * count <= w->mapping_limit;
}
/* Empties windows that are unclean. False: the host did not let it, and they cannot be used. */
bool windows_clean(struct bt_windows *);

/* ---- window_whole.c; the lock is held ---- */

/* Regions [number, number + count) of a window, all new and added, as whole mappings from guest page `frame` on. */
int regions_map_whole(struct bt_windows *, struct window *, uint32_t number, unsigned count, uint32_t frame,
		      bool writable, bool populate);
/* Take write access from a whole region. */
void region_protect_whole(struct bt_windows *, struct region *);
/* Take write access from all there is. */
void windows_protect(struct bt_windows *);

/* ---- window_alias.c: the mappings of a page that may be written; the lock is held ---- */

/* Page n of a span may be written from now on, or not any more; a region is mapped whole from now on, or not any more. */
void page_link(struct bt_windows *, pool_index span, struct span *, unsigned n);
void page_unlink(struct bt_windows *, struct span *, unsigned n);
void whole_link(struct bt_windows *, struct region *);
void whole_unlink(struct bt_windows *, struct region *);
bool page_is_guarded(const struct bt_windows *, uint32_t ram_page);
/* page_guard() for whole regions only. */
void page_guard_in_whole_regions(struct bt_windows *, uint32_t frame, uint32_t ram_page);
/* No mapping of this page may be written any more; or those of whole regions may again. */
void page_guard(struct bt_windows *, gpa_t);
void page_unguard(struct bt_windows *, gpa_t);
/* One more mapping of this page, or whole region with it, may follow. Drops the oldest if there are too many. */
void page_limit_aliases(struct bt_windows *, gpa_t, bool whole);
bool page_has_all_aliases(struct bt_windows *, gpa_t, bool whole);
/* Of regions to be mapped whole: pages that would be read-only since they have code. */
unsigned region_code_pages(struct bt_windows *, gpa_t);

/* ---- window_check.c: comparing with the guest's tables; the lock is held ---- */

/*
 * Everything, or all that is not global, was compared at time `now` or later. False: not all of it, because the vCPU has something
 * else to do after many calls of the host. Each of them leaves less to be done next time.
 */
bool window_validate(struct bt_windows *, struct window *, bool all, const struct vcpu *);
/* The page with this address. */
void window_validate_page(struct bt_windows *, struct window *, uint64_t lin);
bool region_matches(const struct region *, const struct table_walk *);

/* ---- window_fill.c ---- */

/*
 * Translated code's access went to window `at` and faulted there: map what it needs, and more that is alike. Accessed and dirty bits are set
 * as the access would.
 */
enum window_result windows_fill(struct bt_windows *, struct window_cpu *, struct window *at, uint64_t lin, bool write);
void windows_note_missed(struct window_cpu *, uint64_t lin, bool write);
/*
 * The same for what was noted, once, when the vCPU is in the view that it was in then. Makes a window if need be, but marks nothing: the access
 * did, or its page fault's handler, or it is not mapped.
 */
enum window_result windows_fill_missed(struct bt_windows *, struct window_cpu *);
void windows_graduate(struct bt_windows *, struct window_cpu *);

/* ---- window_trim.c; the lock is held ---- */

/* From time to time, empty the host's page tables of windows. */
void windows_trim(struct bt_windows *, struct vcpu *);

/* ---- window_table.c; the lock is held ---- */

/* Bytes of reserved address space for the tables of so many address spaces, at bt_windows.tables. */
uint64_t windows_tables_size(unsigned spaces);
/* Of a space that never had any. False: the host has no mappings left for that. */
bool space_make_tables(struct bt_windows *, struct space *);
/* Does this view's table lead to this window? */
bool table_names(const struct space *, enum table_view, const struct window *);
/* Let this view's table lead to this window, if it may. */
void table_name(struct bt_windows *, struct space *, enum table_view, const struct window *);
struct window *space_window(struct bt_windows *, const struct space *, unsigned slot, enum window_kind);
/* The space has this window in its slot; it has none in this slot any more, and its tables lead to none. */
void space_set_window(struct bt_windows *, struct space *, struct window *);
void space_remove_slot(struct bt_windows *, struct space *, unsigned slot);
/* The vCPUs that may be using this address space's tables, bit n: vCPU n. */
uint64_t space_users(const struct bt_windows *, const struct space *);

/* ---- window_evict.c; the lock is held, but for windows_forget() ---- */

/* A window for a new use. NULL: all are in use, or wait for a vCPU to come out of translated code. */
struct window *window_take(struct bt_windows *, const struct window_cpu *self);
/* Forget what a window was for, when no table names it. Where that takes long, it is the next to go, piece by piece. */
void window_retire(struct bt_windows *, struct window *);
/* Forget the address space used longest ago, but none that a vCPU is in. NULL: there is none. */
struct space *space_evict(struct bt_windows *);
/*
 * Host mappings and pool items for one fill. False: there is no room, whatever is evicted; or it would take long, and the vCPU has
 * something else to do.
 */
bool windows_make_room(struct bt_windows *, const struct vcpu *, unsigned mappings, unsigned regions);
/* Drop something of a window. False: nothing is mapped. */
bool windows_evict(struct bt_windows *);
/* All of it, whoever uses it: addresses are about to show something else. Every vCPU is stopped. */
void windows_forget(struct bt_windows *);

/* ---- window_space.c; the lock is held ---- */

/* The address space of what v's CR3 is; NULL when it is not known. */
struct space *space_find(struct bt_windows *, const struct vcpu *);
/* Put the vCPU into the address space of its CR3, and what that has is what the guest's tables say. False: it is not, or not all of it. */
bool space_enter(struct bt_windows *, struct window_cpu *);
/* The top-level entry is this now: a slot with windows for another one is emptied, and what they had is not coming back. */
void space_check_slot(struct bt_windows *, struct space *, unsigned slot, uint64_t pml4e);
/* Around what is done to user windows since the guest flushed: counts what calls of the host took there. */
struct churn {
	vtime_t start;
	uint64_t calls;
};
static inline struct churn churn_begin(const struct bt_windows *w, const struct window_cpu *c)
{
	return (struct churn){ clock_now(c->vcpu->clock), w->host_calls };
}
static inline void churn_end(const struct bt_windows *w, struct window_cpu *c, const struct churn *churn)
{
	uint64_t calls = w->host_calls - churn->calls;

	if (calls)
		c->churn += MIN(clock_now(c->vcpu->clock) - churn->start, calls * CALL_NS);
}
/* Its user addresses have no windows any more. */
void space_shed(struct bt_windows *, struct space *);
/* 16- and 32-bit code is going to run in it. */
void space_narrow(struct bt_windows *, struct space *);
/* The window of this slot and kind for the entry that the walk found; NULL when there is none and `make` is false or none is free. */
struct window *space_get_window(struct bt_windows *, struct window_cpu *, unsigned slot, enum window_kind,
				const struct table_walk *, bool make);

/* ---- window_cpu.c ---- */

struct window_cpu *windows_cpu(struct bt_windows *, const struct vcpu *);
enum table_view windows_view(const struct vcpu *);
static inline unsigned pcid_of(const struct vcpu *v) { return v->s.cr4 & CR4_PCIDE ? v->s.cr3 & 0xfff : 0; }

/* Does something wait for the vCPU, or another vCPU for the lock? */
static inline bool is_wanted(const struct bt_windows *w, const struct vcpu *v)
{
	return atomic_load_explicit(&v->events, memory_order_relaxed) ||
	       atomic_load_explicit(&w->lock_wanted, memory_order_relaxed);
}

/* The same after so many calls of the host since there were `calls` of them: then what is being done is left for later. */
static inline bool is_awaited(const struct bt_windows *w, const struct vcpu *v, uint64_t calls)
{
	return unlikely(w->host_calls - calls >= CALLS_AT_ONCE) && is_wanted(w, v);
}

static inline unsigned slot_of(uint64_t lin) { return bits(lin, 47, SLOT_SHIFT); }
static inline uint64_t slot_start(unsigned slot)
{
	return (uint64_t)sign_extend((uint64_t)slot << SLOT_SHIFT, SLOT_SHIFT + 9);
}
static inline uint32_t region_number(uint64_t lin) { return (uint32_t)bits(lin, SLOT_SHIFT - 1, REGION_SHIFT); }
static inline unsigned page_number(uint64_t lin) { return (unsigned)bits(lin, REGION_SHIFT - 1, PAGE_SHIFT); }

/* The page that a narrow window has to do without; is it this one, is it in this region? */
#define CLOSED_PAGE (UINT32_MAX >> PAGE_SHIFT)
static inline bool is_closed(const struct window *window, uint64_t lin)
{
	return window->narrow && lin >> PAGE_SHIFT == CLOSED_PAGE;
}
static inline bool has_closed(const struct window *window, uint32_t region)
{
	return window->narrow && region == UINT32_MAX >> REGION_SHIFT;
}

#endif
