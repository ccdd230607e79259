/*
 * Memory beyond guest RAM: a budget for all of it. What is known at the start is taken then: records of guest pages, each processor's state,
 * room for its code. Windows have the rest, take it as they grow, and give back what was used longest ago when it is used up.
 */
#include "mem/mem.h"

#include <errno.h>
#include <inttypes.h>

/*
 * Besides its code, for each processor: what vcpu_create() and the engine allocate at once (TLBs, hashes, stubs for host
 * instructions), and its thread's stacks.
 */
#define EACH_CPU (6 * MIB)
/* What code, and jump tables to it, get by default: enough for large programs on the first processors, less on each of many. */
#define CODE_EACH     (152 * MIB)
#define CODE_MANY     4u
#define CODE_EACH_TOO (20 * MIB)
#define CODE_FEWEST   (8 * MIB)
/* And windows: the host's page tables of guest RAM are 1/512 of it, once. */
#define WINDOWS_BASE   (96 * MIB)
#define WINDOWS_RAM    64u
#define WINDOWS_FEWEST (16 * MIB)

/*
 * struct mem_page, the windows' records and bits (engine/bt/window.c), the host's page tables of the mapping that C uses: 16, 4 and 8 bytes
 * a page, and little else.
 */
uint64_t overhead_of_pages(uint64_t size) { return (size >> PAGE_SHIFT) * 29; }

static uint64_t page_records(uint64_t ram) { return overhead_of_pages(ram) + MIB; }

static uint64_t code_by_default(unsigned cpus)
{
	return MIN(cpus, CODE_MANY) * CODE_EACH + (cpus - MIN(cpus, CODE_MANY)) * CODE_EACH_TOO;
}

static uint64_t windows_by_default(uint64_t ram) { return WINDOWS_BASE + ram / WINDOWS_RAM; }

static uint64_t known_at_start(uint64_t ram, unsigned cpus) { return page_records(ram) + cpus * EACH_CPU; }

uint64_t overhead_default(uint64_t ram, unsigned cpus)
{
	return known_at_start(ram, cpus) + code_by_default(cpus) + windows_by_default(ram);
}

uint64_t overhead_least(uint64_t ram, unsigned cpus)
{
	return align_up(known_at_start(ram, cpus) + cpus * CODE_FEWEST + WINDOWS_FEWEST, MIB);
}

void overhead_init(struct overhead *o, uint64_t limit, uint64_t ram, unsigned cpus)
{
	uint64_t known = known_at_start(ram, cpus), code = code_by_default(cpus), windows = windows_by_default(ram);
	uint64_t rest = limit - known;

	*o = (struct overhead){ .limit = limit };
	/* In parts as by default; in MiB, so that products have room. */
	o->code_share = (rest / MIB) * (code / MIB) / ((code + windows) / MIB) * MIB / cpus;
	o->code_share = MIN(MAX(o->code_share, CODE_FEWEST), (rest - WINDOWS_FEWEST) / cpus);
	BUG_ON(!overhead_take(o, OVERHEAD_PAGES, page_records(ram)));
	BUG_ON(!overhead_take(o, OVERHEAD_CPUS, cpus * EACH_CPU));
}

bool overhead_take(struct overhead *o, enum overhead_kind kind, uint64_t size)
{
	uint64_t taken = atomic_load(&o->taken), most;

	do {
		if (size > o->limit - taken)
			return false;
	} while (!atomic_compare_exchange_weak(&o->taken, &taken, taken + size));
	atomic_fetch_add(&o->of_kind[kind], size);
	most = atomic_load(&o->most);
	while (taken + size > most && !atomic_compare_exchange_weak(&o->most, &most, taken + size))
		continue;
	return true;
}

bool overhead_take_spare(struct overhead *o, enum overhead_kind kind, uint64_t size)
{
	return overhead_left(o) >= o->limit / 4 + size && overhead_take(o, kind, size);
}

void overhead_give(struct overhead *o, enum overhead_kind kind, uint64_t size)
{
	atomic_fetch_sub(&o->taken, size);
	atomic_fetch_sub(&o->of_kind[kind], size);
}

void overhead_print(const struct overhead *o, FILE *out)
{
	static const char *const names[] = {
#define _(id, what) [OVERHEAD_##id] = what,
		OVERHEAD_KINDS(_)
#undef _
	};

	fprintf(out, "  memory beyond the guest's, KiB\n");
	fprintf(out, "    %-46s %14" PRIu64 "\n", "at most", o->limit >> 10);
	fprintf(out, "    %-46s %14" PRIu64 "\n", "most that was taken", atomic_load(&o->most) >> 10);
	for (unsigned n = 0; n < OVERHEAD_KIND_COUNT; n++)
		fprintf(out, "    %-46s %14" PRIu64 "\n", names[n], atomic_load(&o->of_kind[n]) >> 10);
}
