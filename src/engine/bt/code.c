/* The code cache: blocks by physical and linear address, links between them, and forgetting them in time. */
#define _GNU_SOURCE /* MADV_DONTNEED */
#include "engine/bt/emit.h"
#include "engine/bt/runtime.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

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

/* The table for this use, or else the one that was not used for longest, emptied. */
static unsigned search_tables(struct bt_cpu *bt, const struct jump_use *wanted)
{
	unsigned oldest = 0;

	for (unsigned n = 0; n < bt->options.tables; n++) {
		if (is_for(&bt->uses[n], wanted))
			return n;
		if (bt->uses[n].used < bt->uses[oldest].used)
			oldest = n;
	}
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

struct bt_block *bt_jump_find(struct jump_table *t, uint64_t rip)
{
	unsigned n = bt_jump_index(rip);

	return t->to[n].nkey == -rip && !t->block[n]->dead ? t->block[n] : NULL;
}

void bt_jump_insert(struct vcpu *v, struct jump_table *t, uint64_t rip, struct bt_block *b)
{
	unsigned n = bt_jump_index(rip);

	t->to[n] = (struct jump_target){ .nkey = -rip, .code = bt_exec(bt_of(v), b) };
	t->block[n] = b;
	if (t->inserted < BT_JUMP_NOTED)
		t->noted[t->inserted] = (uint16_t)n;
	t->inserted = MIN(t->inserted + 1, BT_JUMP_NOTED + 1);
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
		uint8_t *code = bt->cache.write + b->code;

		code[0] = 0xe9;
		store_le32(code + 1, (uint32_t)(bt->cache.write - (code + 5)));
		return;
	}
	for (unsigned k = 0; k < BT_JUMP_TABLES; k++)
		if (bt->tables[k].to[n].code == bt_exec(bt, b))
			bt->tables[k].to[n].nkey = bt_jump_empty(n);
}

/* ---- blocks ---- */

struct bt_block *bt_find(struct vcpu *v, uint64_t gpa, uint64_t rip, uint32_t key)
{
	struct bt_block *b;

	if (key & BT_KEY_ANYWHERE)
		rip &= ~PAGE_MASK;
	b = bt_of(v)->hash[hash_of(gpa, rip, bt_of(v)->hash_bits)];
	while (b && (b->gpa != gpa || b->rip != rip || b->key != key || b->code_limit != bt_code_limit(v)))
		b = b->hash_next;
	return b;
}

static struct bt_block **page_list(struct bt_cpu *bt, uint64_t page)
{
	return &bt->pages[hash_of(page & PAGE_MASK, 0, BT_PAGE_BITS)];
}

static struct bt_block **hash_slot(const struct bt_cpu *bt, const struct bt_block *b)
{
	return &bt->hash[hash_of(b->gpa, b->rip, bt->hash_bits)];
}

/* Where there is no memory for a larger table the chains get longer. */
static void grow_hash(struct bt_cpu *bt)
{
	struct bt_block **old = bt->hash, **hash, *b, *next;
	size_t size = (size_t)1 << bt->hash_bits;

	if (bt->hash_bits == BT_HASH_BITS_MAX || !(hash = calloc(2 * size, sizeof(struct bt_block *))))
		return;
	bt->hash = hash;
	bt->hash_bits++;
	for (size_t n = 0; n < size; n++)
		for (b = old[n]; b; b = next) {
			struct bt_block **slot = hash_slot(bt, b);

			next = b->hash_next;
			b->hash_next = *slot;
			*slot = b;
		}
	free(old);
}

void bt_insert(struct vcpu *v, struct bt_block *b)
{
	struct bt_cpu *bt = bt_of(v);
	struct bt_block **slot;

	if (bt->block_count >> bt->hash_bits)
		grow_hash(bt);
	slot = hash_slot(bt, b);
	b->hash_next = *slot;
	*slot = b;
	slot = page_list(bt, b->gpa);
	b->page_next[0] = *slot;
	*slot = b;
	if (b->crosses && page_list(bt, b->gpa2) != slot) {
		slot = page_list(bt, b->gpa2);
		b->page_next[1] = *slot;
		*slot = b;
	}
	list_append(&b->home->blocks, &b->home_node);
	bt->blocks[bt->block_count++] = b;
}

/* In a list of this page, a block hangs by its first or its second page. */
static struct bt_block **next_in_page(struct bt_cpu *bt, struct bt_block *b, struct bt_block **list)
{
	return page_list(bt, b->gpa) == list ? &b->page_next[0] : &b->page_next[1];
}

void bt_invalidate_block(struct vcpu *v, struct bt_block *b)
{
	struct bt_cpu *bt = bt_of(v);
	struct bt_block **slot = hash_slot(bt, b);
	struct bt_link *l, *next;

	if (b->dead)
		return;
	b->dead = true;
	bt->stats.invalidated++;
	while (*slot != b)
		slot = &(*slot)->hash_next;
	*slot = b->hash_next;
	for (unsigned n = 0; n < b->link_count; n++)
		bt_unlink(v, &b->links[n]);
	list_for_each_safe (l, next, &b->incoming, node)
		bt_unlink(v, l);
	list_remove(&b->home_node);
	jump_remove(bt, b);
	/* Its page lists still hold it; the next invalidation of the page takes it out. */
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
	return b->crosses && (b->gpa2 & PAGE_MASK) == page ? end - PAGE_SIZE : 0;
}

uint64_t bt_invalidate_bytes(struct vcpu *v, uint64_t gpa, size_t len, bool *hit)
{
	struct bt_cpu *bt = bt_of(v);
	struct bt_block **list = page_list(bt, gpa), **slot = list;
	unsigned from = gpa & ~PAGE_MASK;
	uint64_t living = 0;

	while (*slot) {
		struct bt_block *b = *slot;
		struct bt_block **next = next_in_page(bt, b, list);
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
	uint32_t low = 0, high = bt->block_count;

	if (offset >= bt->code_used)
		return NULL;
	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;

		if (bt->blocks[middle]->code <= offset)
			low = middle;
		else
			high = middle;
	}
	if (low < bt->block_count && offset - bt->blocks[low]->code < bt->blocks[low]->code_size)
		return bt->blocks[low];
	return NULL;
}

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

struct block *bt_single_alloc(struct bt_cpu *bt, struct bt_insn *record)
{
	struct block *single = meta_alloc(bt, BT_SINGLE_SIZE, 0);

	if (single)
		record->single = (uint32_t)((uint8_t *)single - bt->meta);
	return single;
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
	memset(bt->pages, 0, sizeof(bt->pages));
	memset(bt->homes, 0, sizeof(bt->homes));
	for (unsigned n = 0; n < BT_JUMP_TABLES; n++) {
		clear_table(&bt->tables[n]);
		bt->uses[n].space = 0;
	}
	bt->jump = 0;
	if (bt->meta_used) {
		host_code_discard(&bt->cache);
		madvise(bt->meta, bt->meta_size, MADV_DONTNEED);
		bt->stats.flushes++;
		if (v->perf_map)
			move_code(v);
	}
	memory_taken_back(bt->meta, bt->meta_size);
	bt->meta_used = 0;
	make_gone_stub(bt);
	bt->block_count = 0;
}

void bt_code_destroy(struct vcpu *v)
{
	struct bt_cpu *bt = bt_of(v);

	if (bt->code_size)
		overhead_give(&v->mem->overhead, OVERHEAD_CODE, bt->code_size + bt->meta_size);
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
	uint64_t share = v->mem->overhead.code_share / BT_CACHE_PART_OF * BT_CACHE_PART;
	size_t size = MIN((size_t)bt->options.cache << 20, align_up(share, PAGE_SIZE));
	int ret;

	if (!overhead_take(&v->mem->overhead, OVERHEAD_CODE, size))
		return error_set(err, ENOMEM, "no room for a code cache in memory beyond the guest's");
	bt->code_size = align_up(size / 13 * BT_CODE_PART, PAGE_SIZE);
	bt->meta_size = size - bt->code_size;
	ret = host_code_create(&bt->cache, bt->code_size, err);
	if (ret)
		return ret;
	bt->meta = aligned_alloc(PAGE_SIZE, bt->meta_size);
	bt->hash_bits = BT_HASH_BITS;
	bt->hash = calloc((size_t)1 << BT_HASH_BITS, sizeof(struct bt_block *));
	bt->blocks = calloc(bt->options.blocks, sizeof(struct bt_block *));
	bt->tables = aligned_alloc(_Alignof(struct jump_table), BT_JUMP_TABLES * sizeof(struct jump_table));
	bt->nothing = aligned_alloc(_Alignof(struct jump_table), sizeof(struct jump_table));
	bt->tlb_lookups[0] = bt_tlb_lookup_create(false);
	bt->tlb_lookups[1] = bt_tlb_lookup_create(true);
	if (!bt->tlb_lookups[0] || !bt->tlb_lookups[1] || !bt->meta || !bt->hash || !bt->blocks || !bt->tables ||
	    !bt->nothing)
		return error_set(err, ENOMEM, "no memory for the translator");
	BUG_ON(bt_jump_index(0) || !bt_jump_index(1)); /* bt_jump_empty() */
	make_empty(bt->nothing);
	for (unsigned n = 0; n < BT_JUMP_TABLES; n++)
		make_empty(&bt->tables[n]);
	bt->space = &bt->spaces[0];
	bt_code_flush(v);
	return 0;
}
