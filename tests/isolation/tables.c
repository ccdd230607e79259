/*
 * Hostile page tables. Pages lie where arithmetic on addresses is likely to go wrong: at the ends of slots, at the ends of the canonical
 * halves, around 2 and 4 GiB; they map each other's memory, with any rights. Closed tables never lead to themselves, so that what
 * the guest does to memory does not change them; in open ones any entry may be anything.
 */
#include "isolation.h"

#define FRAME 0x000ffffffffff000ull

/* The first CODE_SPOTS have code, in the order of the code's pages, in turns for CPL 0 and CPL 3. */
/* clang-format off */
const struct spot spots[] = {
	{ 0x7fffffe000, 4 },		/* across the end of slot 0 */
	{ 0x10000000, 4 },
	{ 0xffffffff81000000, 4 },
	{ 0x7fffffffc000, 4 },		/* the end of the lower half */
	{ 0x20000000, 8 },
	{ 0x7fffe000, 4 },		/* across 2 GiB */
	{ 0x555555554000, 8 },
	{ 0xffffb000, 4 },		/* before 4 GiB, but not up to it: what 32-bit code finds there is not defined (SDM vol. 3A 5.3) */
	{ 0x17fffe000, 4 },
	{ 0x7f7fffe000, 4 },		/* 2 GiB before the end of slot 0, */
	{ 0x7f00000000, 2 },		/* and 4 GiB; */
	{ 0x8080000000, 2 },		/* behind it */
	{ 0x8100000000, 2 },
	{ 0x3ffffffe000, 4 },
	{ 0xffff800000000000, 4 },
	{ 0xffff880000000000, 2 },
	{ 0xffffff7fffffe000, 4 },	/* across the last slot's start */
	{ 0xffffffff7fffe000, 4 },
	{ 0xfffffffffffff000, 1 },
	{ 0, 2 },
};
/* clang-format on */
const unsigned spot_count = ARRAY_SIZE(spots);

static uint64_t table_entry(unsigned table) { return (TABLES + (uint64_t)table * PAGE_SIZE) | PTE_P | PTE_W | PTE_U; }

static unsigned table_of(uint64_t entry) { return (unsigned)(((entry & FRAME) - TABLES) >> PAGE_SHIFT); }

/* The last level's entry for this address, with all tables above made as needed; NULL without room. */
static uint64_t *leaf_entry(struct page_tables *t, uint64_t lin, unsigned last_shift)
{
	unsigned table = 0;

	for (unsigned shift = 39; shift > last_shift; shift -= 9) {
		uint64_t *entry = &t->entry[table][lin >> shift & 511];

		if (!(*entry & PTE_P) || (*entry & PTE_PS)) {
			if (t->used == TABLE_MAX)
				return NULL;
			*entry = table_entry(t->used++);
		}
		table = table_of(*entry);
		if (table >= TABLE_MAX)
			return NULL;
	}
	return &t->entry[table][lin >> last_shift & 511];
}

static uint64_t any_rights(struct choices *c)
{
	uint64_t rights = PTE_P | PTE_W | PTE_U;

	for (unsigned k = choose_below(c, 4); k; k--)
		switch (choose_below(c, 8)) {
		case 0: rights &= ~PTE_P; break;
		case 1: rights &= ~PTE_W; break;
		case 2: rights &= ~PTE_U; break;
		case 3: rights |= PTE_G; break;
		case 4: rights |= PTE_NX; break;
		default: rights |= PTE_A | PTE_D; break;
		}
	return rights;
}

static uint64_t any_frame(struct choices *c, bool open)
{
	switch (choose_below(c, open ? 12 : 9)) {
	case 0: return CODE + choose_below(c, CODE_SIZE >> PAGE_SHIFT) * PAGE_SIZE;
	case 1: return DEVICE + choose_below(c, 4) * PAGE_SIZE;
	case 2: return RAM_SIZE - PAGE_SIZE + choose_below(c, 2) * PAGE_SIZE;
	case 3: return choose_one_in(c, 4) ? choose(c) & FRAME : 0xfee00000;
	case 9:
	case 10: return TABLES + choose_below(c, 24) * PAGE_SIZE;
	case 11: return SYSTEM + choose_below(c, 6) * PAGE_SIZE;
	default: return DATA + choose_below(c, DATA_SIZE >> PAGE_SHIFT) * PAGE_SIZE;
	}
}

static void map_system(struct page_tables *t)
{
	for (unsigned n = 0; n < 6; n++) {
		uint64_t *entry = leaf_entry(t, SYSTEM_LIN + n * PAGE_SIZE, 12);

		if (entry)
			*entry = (SYSTEM + n * PAGE_SIZE) | PTE_P | PTE_W | PTE_A | PTE_D;
	}
}

static void map_spots(struct page_tables *t, struct choices *c)
{
	for (unsigned k = 0; k < spot_count; k++) {
		bool user = k < CODE_SPOTS ? k & 1 : !choose_one_in(c, 4);

		for (unsigned n = 0; n < spots[k].pages; n++) {
			uint64_t *entry = leaf_entry(t, spots[k].lin + n * PAGE_SIZE, 12);

			if (!entry)
				return;
			if (k < CODE_SPOTS)
				*entry = (CODE + n * PAGE_SIZE) | PTE_P | (choose_one_in(c, 2) ? PTE_W : 0) |
					 (user ? PTE_U : 0);
			else
				*entry = choose_one_in(c, 3)
						 ? any_frame(c, t->open) | any_rights(c)
						 : ((DATA + choose_below(c, DATA_SIZE >> PAGE_SHIFT) * PAGE_SIZE) |
						    PTE_P | PTE_W | (user ? PTE_U : 0));
		}
	}
}

/* Of 2 MiB and 1 GiB: what is not RAM of them, and what lies below 1 MiB, only in open tables. */
static void map_large(struct page_tables *t, struct choices *c)
{
	static const uint64_t places[] = { 0x40000000, 0x7fc0000000, 0xffff900000000000, 0xffffffff80000000 };
	uint64_t *entry;

	for (unsigned k = 0; k < ARRAY_SIZE(places); k++) {
		entry = leaf_entry(t, places[k] + (uint64_t)choose_below(c, 4) * (2u << 20), 21);
		if (entry && !*entry)
			*entry = (LARGE + (choose_one_in(c, 4) ? (2u << 20) : 0)) | any_rights(c) | PTE_PS;
	}
	if (!t->open)
		return;
	entry = leaf_entry(t, 0xffffa00000000000, 30);
	if (entry)
		*entry = any_rights(c) | PTE_PS;
	/* All of the tables, by themselves. */
	t->entry[0][choose_below(c, 2) ? 493 : choose_below(c, 512)] =
		table_entry(0) & ~(choose_one_in(c, 2) ? PTE_U : 0);
}

void tables_make(struct page_tables *t, struct choices *c, bool open)
{
	memset(t, 0, sizeof(*t));
	t->used = 1;
	t->open = open;
	map_system(t);
	map_spots(t, c);
	map_large(t, c);
}

static uint64_t *any_leaf(struct page_tables *t, struct choices *c)
{
	const struct spot *s = &spots[choose_below(c, choose_one_in(c, 2) ? FAVOURITE_SPOTS : spot_count)];

	return leaf_entry(t, s->lin + choose_below(c, s->pages) * PAGE_SIZE, 12);
}

static void change_open(struct page_tables *t, struct choices *c)
{
	unsigned table = choose_below(c, t->used);

	for (unsigned tries = 0; tries < 64; tries++) {
		uint64_t *entry = &t->entry[table][choose_below(c, 512)];

		if (*entry || tries == 63) {
			*entry = choose_one_in(c, 3) ? choose(c) : any_frame(c, true) | any_rights(c);
			return;
		}
	}
}

void tables_change(struct page_tables *t, struct choices *c)
{
	for (unsigned k = 1 + choose_below(c, 6); k; k--) {
		uint64_t *entry;

		if (t->open && choose_one_in(c, 2)) {
			change_open(t, c);
			continue;
		}
		entry = any_leaf(t, c);
		if (!entry)
			continue;
		switch (choose_below(c, 6)) {
		case 0: *entry = 0; break;
		case 1: *entry ^= PTE_W; break;
		case 2: *entry ^= PTE_U; break;
		case 3: *entry &= ~(PTE_A | PTE_D); break;
		case 4: *entry = any_frame(c, t->open) | any_rights(c); break;
		default: *entry |= BIT(41 + choose_below(c, 11)); break; /* reserved */
		}
	}
	/* Rights that are given or taken above the leaves. */
	if (choose_one_in(c, 3)) {
		uint64_t *entry = &t->entry[choose_below(c, t->used)][choose_below(c, 512)];

		if ((*entry & PTE_P) && table_of(*entry) < TABLE_MAX && table_of(*entry))
			*entry ^= choose_one_in(c, 2) ? PTE_W : PTE_U;
	}
	map_system(t);
}
