/*
 * mem: guest RAM and the physical address map: which guest physical addresses are RAM or ROM, where they are in the
 * host, which pages hold code that an engine has decoded, which were written. Devices are not here: an address that
 * is neither RAM nor ROM is the bus's business.
 *
 * Threads: the map changes while all vCPUs are stopped. Everything else here may
 * be called by any thread at any time.
 */
#ifndef DOPPEL_MEM_H
#define DOPPEL_MEM_H

#include "base/base.h"
#include "host/host.h"
#include "state/state.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>

/* The PC's hole below 4 GiB: RAM beyond this goes above 4 GiB. */
#define MEM_LOW_TOP   0xc0000000ull
#define MEM_HIGH_BASE 0x100000000ull
/* The end of all addresses (CPU_PHYS_BITS), and bytes of RAM a machine may have: they end there. */
#define MEM_TOP (1ull << 40)
#define MEM_MAX (MEM_TOP - (MEM_HIGH_BASE - MEM_LOW_TOP))
#define MEM_MIN (1ull << 20)

/*
 * Decoded code on a RAM page. `code_gen` changes whenever code on the page may have changed: an engine keeps it with
 * what it decoded and compares before it runs that again. `code_chunks` has a bit for each 64 bytes from which
 * something was decoded that still lives; a write to other chunks leaves the generation alone.
 * Invariant: while code_chunks is not zero, no vCPU holds a direct write entry for the page (in a TLB, or a host mapping), so every
 * write comes through mem_note_write. `direct` is not zero while anybody may hold one: who makes one asks mem_allow_direct, who
 * decodes code of such a page has them dropped first. It stays zero when code is overwritten the slow way: what rewrites
 * its code again and again pays for no dropping.
 */
struct mem_page {
	_Atomic uint32_t code_gen;
	_Atomic uint16_t changing; /* writers that are about to change code_gen: mem/code.c */
	_Atomic uint16_t direct;
	_Atomic uint64_t code_chunks;
};

/* ---- overhead.c: memory beyond guest RAM ---- */

/* clang-format off */
#define OVERHEAD_KINDS(_)                                                                                              \
	_(PAGES, "records of guest pages") _(CPUS, "processors and their TLBs")                                        \
	_(CODE, "room for decoded and translated code") _(WINDOWS, "windows: page tables of the host, records")        \
	_(DISKS, "tables of disk images")
/* clang-format on */

enum overhead_kind {
#define _(id, what) OVERHEAD_##id,
	OVERHEAD_KINDS(_)
#undef _
		OVERHEAD_KIND_COUNT
};

/* Of one machine, in bytes. Any thread. */
struct overhead {
	uint64_t limit;
	uint64_t code_share; /* what each processor's code may take */
	_Atomic uint64_t taken, most, of_kind[OVERHEAD_KIND_COUNT];
};
/* For so much RAM and so many processors. */
uint64_t overhead_default(uint64_t ram, unsigned cpus);
uint64_t overhead_least(uint64_t ram, unsigned cpus);
/* limit: overhead_least() or more. Takes what is known from the start. */
void overhead_init(struct overhead *, uint64_t limit, uint64_t ram, unsigned cpus);
/* False: there is no room for it, and nothing was taken. */
bool overhead_take(struct overhead *, enum overhead_kind, uint64_t size);
void overhead_give(struct overhead *, enum overhead_kind, uint64_t size);
/* The same for what can do with less: only while a quarter of the budget is left for what cannot. */
bool overhead_take_spare(struct overhead *, enum overhead_kind, uint64_t size);
static inline uint64_t overhead_left(const struct overhead *o) { return o->limit - atomic_load(&o->taken); }
/* What is known of so many bytes of guest memory. */
uint64_t overhead_of_pages(uint64_t size);
void overhead_print(const struct overhead *, FILE *);

/* ---- map.c: memories, and which addresses show them ---- */

/* Who has an address that several claim, from the bottom up: a BAR that a guest puts over RAM is behind it. */
enum mem_priority { MEM_PRIORITY_DEVICE, MEM_PRIORITY_RAM, MEM_PRIORITY_BUS, MEM_PRIORITY_ROM, MEM_PRIORITY_SHADOW };

enum memory_kind {
	MEMORY_KIND_RAM,
	MEMORY_KIND_ROM,    /* writes are dropped */
	MEMORY_KIND_VIDEO,  /* a frame buffer */
	MEMORY_KIND_DEVICE, /* a device's: its BAR shows it */
	MEMORY_KIND_FILE,   /* a file of the host's, whose contents are its own: no part of a saved machine */
};

/*
 * Where the contents of a memory's pages come from until somebody has needed them (a snapshot's file, another host): origin.c. fetch() fills a page of
 * the memory, by number in it; once for each page; any thread, in the middle of an access or a copy, so it waits for no lock of a device and no
 * exclusive section. 0, or -errno with a sentence that says why it cannot: see mem_loss().
 */
struct mem_origin {
	int (*fetch)(void *opaque, uint64_t page, void *to, struct error *);
	void *opaque;
};

/* Pages that have a file. Their records are mem.pages[first] and those behind: that number is the page's name wherever it is shown. */
struct memory {
	struct list node;
	enum memory_kind kind;
	char name[32]; /* and which one of those of that name */
	unsigned instance;
	struct host_memory file;
	uint64_t first;
	uint64_t records; /* bytes of the overhead that its pages' take; of RAM, and of small ones: none of its own */
	/* origin.c */
	struct mem_origin origin;
	_Atomic uint64_t *absent; /* bit a page: it is still its origin's; NULL: there never was one */
	_Atomic uint64_t absent_count;
};

/*
 * A range of addresses that shows a part of a memory, or hides what is below. Reads go to the topmost layer that takes reads, writes to the
 * topmost one that takes writes: so that a ROM can be read while writes go to the RAM behind it. Addresses and offset are page-aligned.
 * A page that is written is shown at one address at a time. Embedded in its owner.
 */
struct mem_layer {
	struct list node;
	struct memory *memory; /* NULL: the bus's, whatever is below */
	uint64_t start, size, offset;
	enum mem_priority priority;
	bool reads, writes;
	bool added; /* map.c's */
};

/* What the layers come to. A run of addresses that reads and writes the same way. */
struct mem_region {
	uint64_t start, size;
	uint8_t *host;		/* what is read; NULL: the bus answers */
	struct mem_page *pages; /* one a page */
	bool writable;		/* writes go to the same pages */
	uint8_t *write_host;	/* where writes go; NULL: they are dropped, or the bus's where reads are, or: */
	bool write_bus;		/* memory is read, but writes are the bus's: no layer takes them */
	struct mem_page *write_pages;
};

#define MEM_MAX_LAYERS 128
#define MEM_MAX_ROMS   8
/* Besides RAM, all memories together. */
#define MEM_MAX_OTHER (16ull << 30)

struct mem_map {
	unsigned count;
	struct mem_region regions[2 * MEM_MAX_LAYERS]; /* sorted by start, disjoint */
};

/*
 * Who keeps what the map says: TLBs, windows of host addresses. All are called with every vCPU stopped, where exclusive sections stop them, or before
 * there are any. The first two for each range of whole pages that does not show what it did; NULL: not wanted.
 */
struct mem_listener {
	struct list node;
	void (*changes)(void *opaque, uint64_t start, uint64_t size); /* the map is as it was */
	void (*changed)(void *opaque, uint64_t start, uint64_t size); /* it is as it will be */
	void (*withdraw)(void *opaque); /* no page may be written without being asked for */
	void *opaque;
};

struct guest_mem {
	struct memory ram; /* one memfd holds all RAM; its pages have the first numbers */
	uint64_t ram_size;
	struct mem_page *pages; /* of all memories, by number */
	uint64_t page_count;
	struct mem_layer ram_layers[3], rom_layers[MEM_MAX_ROMS];
	unsigned rom_count;

	pthread_mutex_t layers_lock; /* nobody waits who holds it */
	struct list layers, memories;
	unsigned layer_count;
	_Atomic bool stale;	       /* the layers are not what the map says */
	_Atomic(struct mem_map *) map; /* changed by mem_commit() */
	struct mem_map maps[2];
	_Atomic uint64_t map_generation; /* changes with what the map says: for who keeps what he found there */
	_Atomic unsigned readers;	 /* copies under way: the map that they look into stays */
	struct list listeners;
	pthread_mutex_t fetch_lock;
	_Atomic unsigned origins; /* memories of which pages are absent */
	/* mem_loss(), and who is told of it once, by the thread that needed the page, as fetch() is called; NULL: nobody */
	_Atomic bool has_lost;
	struct error loss;
	void (*lost)(void *opaque, const struct error *);
	void *lost_opaque;
	_Atomic bool logging;	 /* writes are logged: dirty.c */
	_Atomic uint64_t *dirty; /* bit a page, by number */
	/*
	 * Physical address bits that leave the processors: all, or all but bit 20 while the A20 gate is closed. Changed while all
	 * vCPUs are stopped; their TLBs are flushed then. For who translates addresses: functions of mem take what comes out.
	 */
	uint64_t address_lines;
	/*
	 * Told by mem_note_write when code in [gpa, gpa + len) of one page has changed; any thread. When it returns no engine runs what was
	 * decoded there. Returns the chunks of the page (as code_chunks) in which code still lives. Set by the first vCPU of the machine;
	 * NULL: nobody decodes.
	 */
	uint64_t (*code_changed)(void *opaque, gpa_t, size_t len);
	void *code_changed_opaque;
	/* cpu/code.c, in exclusive sections: where code was last found unharmed by a write to its chunk, and how often in a row near by */
	struct {
		uint64_t at;
		unsigned count;
	} code_missed;
	struct overhead overhead; /* at first for a few processors */
};

/*
 * RAM of ram_size bytes (a multiple of 1 MiB, MEM_MIN..MEM_MAX): [0, 0xa0000), [0xc0000, min(ram_size, MEM_LOW_TOP)) and the
 * rest from MEM_HIGH_BASE. 0xa0000..0xbffff is left to the VGA. NULL on error.
 */
struct guest_mem *mem_create(uint64_t ram_size, struct error *);
void mem_destroy(struct guest_mem *);
/* A ROM with these contents, shown at `start`: whole pages. The map is built, no vCPU runs. */
int mem_add_rom(struct guest_mem *, gpa_t start, const uint8_t *contents, uint64_t size, struct error *);

/* Memory of whole pages, zeros. It is the first instance of its name that is free, as devices are. NULL on error. Before vCPUs run, or while they stand between instructions. */
struct memory *memory_create(struct guest_mem *, enum memory_kind, const char *name, uint64_t size, struct error *);
/* The same of a file: its first `size` bytes. kind: MEMORY_KIND_ROM, opened for reading alone, or _FILE. fd is the memory's if this succeeds. */
struct memory *memory_create_of(struct guest_mem *, enum memory_kind, const char *name, int fd, uint64_t size,
				struct error *);
/* Nothing shows it any more, and mem_commit() was since. */
void memory_destroy(struct guest_mem *, struct memory *);

/* The layers as they are to be, any thread; what there is follows with mem_commit(). -ENOSPC, -EINVAL: not added. */
int mem_layer_add(struct guest_mem *, struct mem_layer *, struct error *);
void mem_layer_set(struct guest_mem *, struct mem_layer *, uint64_t start, bool reads, bool writes);
void mem_layer_remove(struct guest_mem *, struct mem_layer *);
static inline bool mem_is_stale(const struct guest_mem *mem)
{
	return atomic_load_explicit(&mem->stale, memory_order_relaxed);
}
/* Nothing is shown from here on. */
uint64_t mem_top(struct guest_mem *);
/*
 * Make the map what the layers say. All vCPUs stopped (vcpu_env.exclusive); code that was decoded from what changes is forgotten, listeners are told.
 * A vCPU that was in the middle of an access may still do it to what was there.
 */
void mem_commit(struct guest_mem *);
/* Before vCPUs run. */
void mem_listen(struct guest_mem *, struct mem_listener *);
void mem_unlisten(struct mem_listener *);

/*
 * The region that holds this address, or NULL (or its page is lost: mem_loss()). No lock: the answer is good while vCPUs are not stopped, in the thread of one that runs. Other threads
 * copy by mem_read() and its like. Of a memory with an origin only the page at this address may be used.
 */
const struct mem_region *mem_find(const struct guest_mem *, gpa_t);
/* The memory that has this page, as struct memory numbers them, NULL: none. */
struct memory *mem_memory_of(struct guest_mem *, uint64_t page);

/* Host address of [addr, addr + len) when all of it lies in one region (writable, if so asked), else NULL. */
uint8_t *mem_map(struct guest_mem *, gpa_t addr, size_t len, bool write);
/* The record of the page that is read here, NULL when the address is neither RAM nor ROM. */
struct mem_page *mem_page(struct guest_mem *, gpa_t);

/*
 * Copies. 0, or -EFAULT when part of the range is no RAM or ROM (for writes: then nothing was written; writes to ROM are
 * dropped without an error). mem_write notes the write.
 */
int mem_read(struct guest_mem *, gpa_t, void *, size_t);
int mem_write(struct guest_mem *, gpa_t, const void *, size_t);
int mem_fill(struct guest_mem *, gpa_t, uint8_t, size_t);

/*
 * ---- dma.c: guest memory that the host's kernel reads or writes for a device ----
 *
 * Appends host addresses of [addr, addr + len) to the *count pieces in iov; neighbours become one. They may be used, for as long as it takes, until the
 * device's pause() (bus.h) returns; the map may change meanwhile. write: where writes go. -EFAULT when part of it is no memory, or ROM that would be written;
 * -E2BIG when there would be more pieces than room. *count has then moved. Any thread, also with a device's lock.
 */
int mem_dma_map(struct guest_mem *, gpa_t addr, size_t len, bool write, struct iovec *iov, unsigned *count,
		unsigned room);
/* What mem_note_write() is for other writes: bytes at these addresses, which are of one piece, were written. */
void mem_dma_written(struct guest_mem *, const void *host, size_t len);
/*
 * A piece as mem_dma_map() gives it for writing: its whole pages of guest RAM hold zeros from now on, and the host has their memory until they are touched again. Other
 * memories' stay as they are.
 */
void mem_dma_discard(struct guest_mem *, const struct iovec *piece);

/*
 * Places where two pages are shown one behind the other; one thread's. NULL: no memory, which mem_pair() takes. What a pair needs of the
 * host is bounded.
 */
struct mem_pairs *mem_pairs_create(void);
void mem_pairs_destroy(struct mem_pairs *);
/*
 * Host address of the page at host address `first` followed by that at `second`, both as mem_map() gives them, until the next call; NULL when
 * one of them is no RAM, or the host does not grant it.
 */
uint8_t *mem_pair(const struct guest_mem *, struct mem_pairs *, uint8_t *first, const uint8_t *second);

/*
 * Whoever writes guest RAM through a host pointer calls this AFTER the write, unless a TLB write entry (see the invariant
 * of struct mem_page) allowed it: when it returns, nobody runs code decoded from what these bytes were before. To that end it may stop
 * all vCPUs, so the caller holds no lock but those that vCPUs wait for as bus_lock() does.
 */
void mem_note_write(struct guest_mem *, gpa_t, size_t);
/* The same inside one page, whose record is known; true: there was code. */
bool mem_note_page(struct guest_mem *, struct mem_page *, gpa_t, size_t);
/* The chunks that hold page offsets [offset, offset + len), which are inside of the page; len > 0. */
static inline uint64_t mem_chunks(unsigned offset, size_t len)
{
	return bits(~0ull, (unsigned)((offset + len - 1) >> 6) - (offset >> 6), 0) << (offset >> 6);
}
/*
 * Its parts. True: there was code, its generation has ended; the engines are to be told, then comes mem_change_end(). Others that
 * write to the page until then get true as well.
 */
bool mem_change_begin(struct mem_page *, gpa_t, size_t len);
void mem_change_end(struct mem_page *);

/*
 * An engine is about to decode code from [addr, addr+len) of one page. Returns the page's generation, to be kept with the
 * decoded code. Must be called BEFORE the bytes are read. If *direct is not 0, somebody may hold direct write entries: the caller
 * must have them dropped (with all vCPUs stopped, see vcpu_env.exclusive), call mem_direct_dropped, and begin again.
 */
uint32_t mem_code_begin(struct mem_page *, gpa_t, size_t len, uint16_t *direct);
void mem_direct_dropped(struct mem_page *);

/*
 * May a direct write entry be made for the page? Not while it holds code. `how` (not 0) is for the one who will drop it: what
 * kind of entry it is; MEM_DIRECT_ANY once there were several kinds.
 */
#define MEM_DIRECT_ANY UINT16_MAX
bool mem_allow_direct(struct guest_mem *, struct mem_page *, uint16_t how);

/*
 * ---- dirty.c: which pages are written ----
 *
 * A page is marked where somebody gets to write it: for a write entry of a TLB or a window before it is there (mem_allow_direct()), for any other write
 * when it was done (mem_note_page()). All write entries go when the log starts and when it is collected, so that the next write marks again.
 * Who copies a page after it was collected has all that was written before, or finds the page in the log once more.
 */
/* These with all vCPUs stopped. Page numbers are struct memory's. The log is empty then. */
void mem_dirty_start(struct guest_mem *);
void mem_dirty_stop(struct guest_mem *);
/* Bits of the pages [first, first + count), multiples of 64, that were written since the log started or this was last called for them. */
void mem_dirty_collect(struct guest_mem *, uint64_t first, uint64_t count, uint64_t *bitmap);

static inline bool mem_is_logging(const struct guest_mem *mem)
{
	return unlikely(atomic_load_explicit(&mem->logging, memory_order_relaxed));
}
void mem_mark_dirty(struct guest_mem *, const struct mem_page *);

/*
 * The contents of RAM as bytes (record.c): runs of pages that are not all zeros, each with a checksum, in the order of their numbers, which
 * count pages of mem->ram; behind them a run of none. Then those of the devices' memories, sorted by their names, each behind a header, and a header without a name. No
 * vCPU runs. -EIO: mem_loss().
 */
int mem_save(struct guest_mem *, struct writer *, struct error *);
/* Looks through what mem_save() wrote; changes nothing but the reader, which is then behind it. -EINVAL names the run. */
int mem_check(const struct guest_mem *, struct reader *, struct error *);
/* What mem_check() has found good: RAM, and devices' memories, have these contents and no others. Decoded code of what was there before is not run again. */
void mem_load(struct guest_mem *, struct reader *);
/* Of all ROM: for comparing machines. */
uint32_t mem_rom_checksum(const struct guest_mem *);

/*
 * From now on all pages of the memory are the origin's, whatever they hold (their file should have room for them: zeros). All vCPUs stopped. A page
 * is fetched before mem_find() answers with it, so before anybody holds an address of it.
 */
int mem_set_origin(struct guest_mem *, struct memory *, const struct mem_origin *, struct error *);
static inline bool mem_has_origins(const struct guest_mem *mem)
{
	return unlikely(atomic_load_explicit(&mem->origins, memory_order_acquire));
}
/* Is it still the origin's? */
bool mem_is_absent(const struct memory *, uint64_t page);
/*
 * Could a page not be fetched? Then nobody gets it, nor another one that is still elsewhere: mem_find() answers NULL, copies -EFAULT. Who asks for it is
 * not to go on: the guest is not to see what is not its memory. It stays so.
 */
static inline bool mem_has_lost(const struct guest_mem *mem)
{
	return unlikely(atomic_load_explicit(&mem->has_lost, memory_order_acquire));
}
/* -EIO with a sentence that names memory and page, and says why; 0: nothing is lost. */
int mem_loss(const struct guest_mem *, struct error *);

/* All RAM, whatever hides some of it now: number of ranges, filled into starts/sizes (room for 4). */
unsigned mem_ram_ranges(const struct guest_mem *, uint64_t starts[4], uint64_t sizes[4]);

#endif
