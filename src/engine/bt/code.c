/* The code cache: blocks by physical and linear address, links between them, and forgetting them in time. */
#define _GNU_SOURCE /* MADV_DONTNEED, MADV_HUGEPAGE */
#include "engine/bt/emit.h"
#include "engine/bt/runtime.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

/*
 * Memory that is looked at all over: in huge pages where the host gives them, since misses of its TLB would cost more than what is looked
 * for. All zero if that was asked for.
 */
#define HUGE_PAGE (2 * MIB)
static void *alloc_huge(size_t size, bool zero)
{
	void *p = aligned_alloc(HUGE_PAGE, align_up(size, HUGE_PAGE));

	if (!p)
		return NULL;
	madvise(p, align_up(size, HUGE_PAGE), MADV_HUGEPAGE);
	return zero ? memset(p, 0, size) : p;
}

static unsigned hash_of(uint64_t a, uint64_t b, unsigned bits)
{
	return (unsigned)((a ^ b * 0x9e3779b97f4a7c15ull) * 0x9e3779b97f4a7c15ull >> (64 - bits));
}

/* ---- jump tables ---- */

static void make_empty(struct jump_table *t)
{
	for (unsigned n = 0; n < 1u << BT_JUMP_BITS; n++)
		t->to[n].nkey = bt_jump_empty(n);
	t->inserted = 0;
}

/* Guests without PCIDs come here at each switch between processes: mostly little was put in. */
static void clear_table(struct jump_table *t)
{
	if (t->inserted > BT_JUMP_NOTED) {
		make_empty(t);
		return;
	}
	while (t->inserted) {
		unsigned n = t->noted[--t->inserted];

		t->to[n].nkey = bt_jump_empty(n);
	}
}

/* A kernel's table outlives changes of CR3, while all of its code is in global pages of the upper half. */
static uint64_t table_space(const struct vcpu *v, uint32_t key)
{
	return (key & BT_KEY_USER) || bt_of(v)->local_code == v->global_space ? v->address_space : bt_global_space(v);
}

static bool is_for(const struct jump_use *use, const struct jump_use *wanted)
{
	return use->space == wanted->space && use->key == wanted->key && use->code_limit == wanted->code_limit;
}

/* The table for this use, or else one never used so far, or the one that was not used for longest, emptied. */
static unsigned search_tables(struct bt_cpu *bt, const struct jump_use *wanted)
{
	unsigned oldest = 0;

	for (unsigned n = 0; n < bt->tables_used; n++) {
		if (is_for(&bt->uses[n], wanted))
			return n;
		if (bt->uses[n].used < bt->uses[oldest].used)
			oldest = n;
	}
	if (bt->tables_used < bt->table_count)
		make_empty(&bt->tables[oldest = bt->tables_used++]);
	else
		clear_table(&bt->tables[oldest]);
	bt->uses[oldest] = *wanted;
	return oldest;
}

struct jump_table *bt_jump_table(struct vcpu *v, uint32_t key)
{
	struct bt_cpu *bt = bt_of(v);
	/* User code of both kinds is in one. */
	const struct jump_use wanted = { .space = table_space(v, key),
					 .key = key & ~BT_KEY_ANYWHERE,
					 .code_limit = bt_code_limit(v) };
	uint8_t *guess = &bt->guesses[hash_of(wanted.space, wanted.key, BT_HASH_BITS) % BT_JUMP_GUESSES];

	if (is_for(&bt->uses[bt->jump], &wanted))
		return &bt->tables[bt->jump];
	if (!is_for(&bt->uses[*guess], &wanted))
		*guess = (uint8_t)search_tables(bt, &wanted);
	bt->jump = *guess;
	bt->uses[bt->jump].used = ++bt->table_clock;
	return &bt->tables[bt->jump];
}

struct bt_block *bt_jump_find(const struct bt_cpu *bt, const struct jump_table *t, uint64_t rip)
{
	unsigned n = bt_jump_index(rip);
	struct bt_block *b = t->to[n].nkey == -rip ? bt_record(bt, t->block[n]) : NULL;

	return b && !b->dead ? b : NULL;
}

void bt_jump_insert(struct vcpu *v, struct jump_table *t, uint64_t rip, struct bt_block *b)
{
	unsigned n = bt_jump_index(rip);

	t->to[n] = (struct jump_target){ .nkey = -rip, .code = bt_exec_at(bt_of(v), bt_entry(b)) };
	t->block[n] = bt_ref_of(bt_of(v), b);
	if (t->inserted < BT_JUMP_NOTED)
		t->noted[t->inserted] = (uint16_t)n;
	t->inserted = MIN(t->inserted + 1, BT_JUMP_NOTED + 1);
}

void bt_jump_forget_user(struct vcpu *v)
{
	struct bt_cpu *bt = bt_of(v);

	for (unsigned n = 0; n < bt->tables_used; n++)
		if (bt->uses[n].space == v->address_space && (bt->uses[n].key & BT_KEY_USER))
			clear_table(&bt->tables[n]);
}

/* Where entries of jump tables lead whose block is gone: R10 is the address. Always at the start of the cache. */
static void make_gone_stub(struct bt_cpu *bt)
{
	struct emitter e = { .at = bt->cache.write, .end = bt->cache.write + PAGE_SIZE };

	emit_store_state(&e, R10, (uint32_t)offsetof(struct bt_vcpu, frame.target));
	emit_leave(&e, BT_EXIT_ARG(0, 0, BT_EXIT_GONE));
	bt->code_used = align_up((uint64_t)(e.at - bt->cache.write), 16);
}

static void jump_remove(struct bt_cpu *bt, const struct bt_block *b)
{
	unsigned n = bt_jump_index(b->rip);

	/* It may have many entries; who follows one comes to C. */
	if (b->key & BT_KEY_ANYWHERE) {
		uint8_t *code = bt->cache.write + bt_entry(b);

		code[0] = 0xe9;
		store_le32(code + 1, (uint32_t)(bt->cache.write - (code + 5)));
		return;
	}
	for (unsigned k = 0; k < bt->tables_used; k++)
		if (bt->tables[k].to[n].code == bt_exec(bt, b))
			bt->tables[k].to[n].nkey = bt_jump_empty(n);
}

/* ---- blocks ---- */

static uint32_t tag_of(uint64_t gpa, uint64_t rip, uint32_t key)
{
	uint64_t sum = gpa ^ rip * 0x9e3779b97f4a7c15ull ^ key * 0xd6e8feb86659fd93ull;

	return (uint32_t)(sum * 0x9e3779b97f4a7c15ull >> 32);
}

static uint32_t tag_of_block(const struct bt_block *b) { return tag_of(b->gpa, b->rip, b->key); }

/* Where a search for this tag begins. */
static uint32_t first_place(const struct bt_cpu *bt, uint32_t tag) { return tag >> (32 - bt->hash_bits); }

static uint32_t place_mask(const struct bt_cpu *bt) { return (uint32_t)BIT(bt->hash_bits) - 1; }

struct bt_block *bt_find(struct vcpu *v, uint64_t gpa, uint64_t rip, uint32_t key)
{
	const struct bt_cpu *bt = bt_of(v);
	const struct block_slot *slot;
	uint32_t tag, n;

	if (key & BT_KEY_ANYWHERE)
		rip &= ~PAGE_MASK;
	tag = tag_of(gpa, rip, key);
	for (n = first_place(bt, tag); (slot = &bt->hash[n])->block; n = (n + 1) & place_mask(bt)) {
		struct bt_block *b = slot->tag == tag ? bt_record(bt, slot->block) : NULL;

		if (b && b->gpa == gpa && b->rip == rip && b->key == key && b->code_limit == bt_code_limit(v))
			return b;
	}
	return NULL;
}

/* There is an empty place. */
static void hash_insert(struct bt_cpu *bt, struct block_slot slot)
{
	uint32_t n = first_place(bt, slot.tag);

	while (bt->hash[n].block)
		n = (n + 1) & place_mask(bt);
	bt->hash[n] = slot;
	bt->hash_used++;
}

/* What follows moves up, as far as it is found there. */
static void hash_remove(struct bt_cpu *bt, const struct bt_block *b)
{
	uint32_t mask = place_mask(bt), hole = first_place(bt, tag_of_block(b)), n;
	bt_ref ref = bt_ref_of(bt, b);

	while (bt->hash[hole].block != ref)
		hole = (hole + 1) & mask;
	for (n = (hole + 1) & mask; bt->hash[n].block; n = (n + 1) & mask) {
		if (((n - first_place(bt, bt->hash[n].tag)) & mask) < ((n - hole) & mask))
			continue;
		bt->hash[hole] = bt->hash[n];
		hole = n;
	}
	bt->hash[hole].block = 0;
	bt->hash_used--;
}

static void hash_grow(struct bt_cpu *bt)
{
	struct block_slot *old = bt->hash, *hash;
	size_t size = (size_t)1 << bt->hash_bits;

	if (!(hash = alloc_huge(2 * size * sizeof(*hash), true)))
		return;
	bt->hash = hash;
	bt->hash_bits++;
	bt->hash_used = 0;
	for (size_t n = 0; n < size; n++)
		if (old[n].block)
			hash_insert(bt, old[n]);
	free(old);
}

/* Up to three quarters are taken; where there is no memory for a larger table, seven eighths. */
bool bt_make_place(struct bt_cpu *bt)
{
	if (bt->hash_used >= 3u << (bt->hash_bits - 2))
		hash_grow(bt);
	return bt->hash_used < 7u << (bt->hash_bits - 3);
}

static bt_ref *page_list(struct bt_cpu *bt, uint64_t page)
{
	return &bt->pages[hash_of(page & PAGE_MASK, 0, BT_PAGE_BITS)];
}

void bt_insert(struct vcpu *v, struct bt_block *b)
{
	struct bt_cpu *bt = bt_of(v);
	struct code_page *home = bt_record(bt, b->home);
	bt_ref ref = bt_ref_of(bt, b), *list;

	hash_insert(bt, (struct block_slot){ tag_of_block(b), ref });
	list = page_list(bt, b->gpa);
	b->page_next = *list;
	*list = ref;
	if (b->crosses && page_list(bt, bt_second(b)->gpa) != list) {
		list = page_list(bt, bt_second(b)->gpa);
		bt_second(b)->page_next = *list;
		*list = ref;
	}
	b->home_next = home->blocks;
	home->blocks = ref;
	bt->blocks[bt->block_count++] = ref;
}

/* In a list of this page, a block hangs by its first or its second page. */
static bt_ref *next_in_page(struct bt_cpu *bt, struct bt_block *b, const bt_ref *list)
{
	return page_list(bt, b->gpa) == list ? &b->page_next : &bt_second(b)->page_next;
}

void bt_invalidate_block(struct vcpu *v, struct bt_block *b)
{
	struct bt_cpu *bt = bt_of(v);

	if (b->dead)
		return;
	b->dead = true;
	bt->stats.invalidated++;
	hash_remove(bt, b);
	for (unsigned n = 0; n < b->link_count; n++)
		bt_unlink(v, &bt_links(b)[n]);
	while (b->incoming)
		bt_unlink(v, bt_record(bt, b->incoming));
	jump_remove(bt, b);
	/* The lists of its page and its home still hold it: who goes through them next takes it out. */
}

static unsigned bytes_of(const struct bt_block *b)
{
	const struct bt_insn *last = &b->insns[b->count - 1];

	return last->guest + last->len;
}

/* Which bytes of this physical page the block was translated from: from *offset on so many. 0: none. */
static unsigned bytes_in_page(const struct bt_block *b, uint64_t page, unsigned *offset)
{
	unsigned start = b->gpa & ~PAGE_MASK, end = start + bytes_of(b);

	*offset = start;
	if ((b->gpa & PAGE_MASK) == page)
		return MIN(end, PAGE_SIZE) - start;
	*offset = 0;
	return b->crosses && (bt_second(b)->gpa & PAGE_MASK) == page ? end - PAGE_SIZE : 0;
}

uint64_t bt_invalidate_bytes(struct vcpu *v, uint64_t gpa, size_t len, bool *hit)
{
	struct bt_cpu *bt = bt_of(v);
	bt_ref *list = page_list(bt, gpa), *slot = list;
	unsigned from = gpa & ~PAGE_MASK;
	uint64_t living = 0;

	while (*slot) {
		struct bt_block *b = bt_record(bt, *slot);
		bt_ref *next = next_in_page(bt, b, list);
		unsigned offset, size = b->dead ? 0 : bytes_in_page(b, gpa & PAGE_MASK, &offset);

		if (size && from < offset + size && offset < from + len) {
			bt_invalidate_block(v, b);
			*hit = true;
		} else if (size) {
			living |= mem_chunks(offset, size);
		}
		if (b->dead)
			*slot = *next;
		else
			slot = next;
	}
	return living;
}

struct bt_block *bt_block_at(struct bt_cpu *bt, uint64_t exec)
{
	uint64_t offset = exec - (uint64_t)(uintptr_t)bt->cache.exec;
	bool cold = offset >= bt->cold;
	uint32_t low = 0, high = bt->block_count;
	struct bt_block *b;

	if (offset >= (cold ? bt->code_size : bt->code_used) || !high)
		return NULL;
	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;

		if (cold ? bt_block(bt, middle - 1)->cold > offset : bt_block(bt, middle)->code <= offset)
			low = middle;
		else
			high = middle;
	}
	b = bt_block(bt, low);
	return cold || offset - b->code < b->code_size ? b : NULL;
}

/* Nothing is where a reference of 0 would lead. */
#define BT_META_START 16u

/* `kept`: what must be left behind it. */
static void *meta_alloc(struct bt_cpu *bt, size_t size, size_t kept)
{
	void *p = bt->meta + bt->meta_used;

	size = align_up(size, 16);
	if (bt->meta_used + size + kept > bt->meta_size)
		return NULL;
	bt->meta_used += size;
	memory_given_out(p, size);
	return p;
}

void *bt_meta_alloc(struct bt_cpu *bt, size_t size) { return meta_alloc(bt, size, BT_SINGLE_SIZE); }

bool bt_has_reserve(const struct bt_cpu *bt) { return bt->meta_used + BT_SINGLE_SIZE <= bt->meta_size; }

struct block *bt_single_of(const struct bt_cpu *bt, const struct bt_block *b, unsigned n)
{
	struct bt_single *single = bt_record(bt, b->singles);

	while (single && single->insn != n)
		single = bt_record(bt, single->next);
	return single ? (struct block *)(single + 1) : NULL;
}

struct block *bt_single_alloc(struct bt_cpu *bt, struct bt_block *b, unsigned n)
{
	struct bt_single *single = meta_alloc(bt, BT_SINGLE_SIZE, 0);

	if (!single)
		return NULL;
	*single = (struct bt_single){ .next = b->singles, .insn = n };
	b->singles = bt_ref_of(bt, single);
	return (struct block *)(single + 1);
}

void bt_meta_trim(struct bt_cpu *bt, const void *end)
{
	bt->meta_used = align_up((uint64_t)((const uint8_t *)end - bt->meta), 16);
}

/* ---- instructions that C does better ---- */

static uint64_t *forced_slot(const struct bt_cpu *bt, uint64_t gpa)
{
	return (uint64_t *)&bt->forced[hash_of(gpa, 1, BT_HASH_BITS) % BT_FORCED];
}

bool bt_is_forced(const struct bt_cpu *bt, uint64_t gpa) { return *forced_slot(bt, gpa) == gpa; }

void bt_force(struct bt_cpu *bt, uint64_t gpa)
{
	*forced_slot(bt, gpa) = gpa;
	bt->stats.forced++;
}

/* ---- creation, forgetting ---- */

/* For a profiler that asks what was at an address: never two blocks at one. */
static void move_code(struct vcpu *v)
{
	struct error err;

	if (host_code_move(&bt_of(v)->cache, &err))
		log_warning("perf map: names of code translated from now on may be wrong: %s", err.text);
}

void bt_code_flush(struct vcpu *v)
{
	struct bt_cpu *bt = bt_of(v);

	/* First: a kick's handler changes code of this block. */
	bt->entering = NULL;
	atomic_signal_fence(memory_order_seq_cst);
	bt->pending = NULL;
	bt->code_epoch++;
	memset(bt->hash, 0, sizeof(bt->hash[0]) << bt->hash_bits);
	bt->hash_used = 0;
	memset(bt->pages, 0, sizeof(bt->pages));
	memset(bt->homes, 0, sizeof(bt->homes));
	for (unsigned n = 0; n < bt->tables_used; n++) {
		clear_table(&bt->tables[n]);
		bt->uses[n].space = 0;
	}
	bt->jump = 0;
	if (bt->meta_used > BT_META_START) {
		host_code_discard(&bt->cache);
		/* The first huge page is wanted again at once. */
		if (bt->meta_size > HUGE_PAGE)
			madvise(bt->meta + HUGE_PAGE, bt->meta_size - HUGE_PAGE, MADV_DONTNEED);
		bt->stats.flushes++;
		if (v->perf_map)
			move_code(v);
	}
	memory_taken_back(bt->meta, bt->meta_size);
	bt->meta_used = BT_META_START;
	make_gone_stub(bt);
	bt->cold = bt->code_size;
	bt->block_count = 0;
}

void bt_code_destroy(struct vcpu *v)
{
	struct bt_cpu *bt = bt_of(v);

	if (bt->code_size)
		overhead_give(&v->mem->overhead, OVERHEAD_CODE,
			      bt->code_size + bt->meta_size + bt->table_count * sizeof(struct jump_table));
	host_code_destroy(&bt->cache);
	free(bt->meta);
	free(bt->hash);
	free(bt->blocks);
	free(bt->tables);
	free(bt->nothing);
	free(bt->tlb_lookups[0]);
	free(bt->tlb_lookups[1]);
}

int bt_code_create(struct vcpu *v, struct error *err)
{
	struct bt_cpu *bt = bt_of(v);
	uint64_t share = align_up(v->mem->overhead.code_share / BT_CACHE_PART_OF * BT_CACHE_PART, PAGE_SIZE);
	uint64_t most = MAX(share / BT_TABLES_PART / sizeof(struct jump_table), 1u);
	size_t size, tables;
	int ret;

	bt->table_count = (unsigned)MIN(bt->options.tables, most);
	tables = bt->table_count * sizeof(struct jump_table);
	size = MIN((size_t)bt->options.cache << 20, align_up(share - tables, PAGE_SIZE));
	if (!overhead_take(&v->mem->overhead, OVERHEAD_CODE, size + tables))
		return error_set(err, ENOMEM, "no room for a code cache in memory beyond the guest's");
	bt->code_size = align_up(size / 13 * BT_CODE_PART, PAGE_SIZE);
	bt->meta_size = size - bt->code_size;
	ret = host_code_create(&bt->cache, bt->code_size, err);
	if (ret)
		return ret;
	bt->meta = alloc_huge(bt->meta_size, false);
	bt->hash_bits = BT_HASH_BITS;
	bt->hash = calloc((size_t)1 << BT_HASH_BITS, sizeof(*bt->hash));
	bt->blocks = calloc(bt->options.blocks, sizeof(*bt->blocks));
	bt->tables = alloc_huge(tables, false);
	bt->nothing = aligned_alloc(_Alignof(struct jump_table), sizeof(struct jump_table));
	bt->tlb_lookups[0] = bt_tlb_lookup_create(false);
	bt->tlb_lookups[1] = bt_tlb_lookup_create(true);
	if (!bt->tlb_lookups[0] || !bt->tlb_lookups[1] || !bt->meta || !bt->hash || !bt->blocks || !bt->tables ||
	    !bt->nothing)
		return error_set(err, ENOMEM, "no memory for the translator");
	BUG_ON(bt_jump_index(0) || !bt_jump_index(1)); /* bt_jump_empty() */
	make_empty(bt->nothing);
	make_empty(&bt->tables[bt->tables_used++]);
	bt->space = &bt->spaces[0];
	bt_code_flush(v);
	return 0;
}
