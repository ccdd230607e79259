/*
 * The block at RIP: found, or translated.
 */
#include "engine/bt/runtime.h"

/* A page that code is about to run from; NULL: no room. */
static struct code_page *fetch_page(struct vcpu *v, uint64_t lin, uint64_t *gpa)
{
	uint8_t *host;

	*gpa = cpu_fetch_translate(v, gva(lin), &host).v;
	if (v->cpl != 3 && !v->fetched_global)
		bt_of(v)->local_code = v->global_space;
	return bt_enter_page(v, *gpa, bt_key(v) & BT_KEY_ANYWHERE ? BT_ANYWHERE : lin);
}

/* Does a block that crosses go on where it did? */
static bool check_second(struct vcpu *v, struct bt_block *b)
{
	uint64_t second = (bt_linear(v, bt_address(v)) | (PAGE_SIZE - 1)) + 1, gpa2;

	if (!b->crosses)
		return true;
	fetch_page(v, v->code_mode == MODE_64 ? second : (uint32_t)second, &gpa2);
	bt_second(b)->space = bt_fetched_space(v);
	return gpa2 == bt_second(b)->gpa;
}

/* NULL: no room. */
static struct bt_block *try_to_find(struct vcpu *v)
{
	uint64_t at;
	struct code_page *home = fetch_page(v, bt_linear(v, bt_address(v)), &at);
	struct bt_block *b = bt_find(v, at, bt_address(v), bt_key(v));

	/* Fetching may wait for other vCPUs' sections, which may change the code and forget the block. */
	if (b && check_second(v, b) && !b->dead)
		return b;
	if (b)
		bt_invalidate_block(v, b);
	while (home && (b = bt_translate(v, home))) {
		check_second(v, b);
		if (bt_is_fresh(v))
			return b;
		bt_invalidate_block(v, b);
	}
	return NULL;
}

struct bt_block *bt_find_or_translate(struct vcpu *v)
{
	struct bt_block *b;

	if (unlikely(!bt_has_reserve(bt_of(v))))
		bt_code_flush(v);
	b = bt_jump_find(bt_of(v), bt_jump_table(v, bt_key(v)), bt_address(v));
	if (b)
		return b;
	v->count[COUNT_BLOCK_LOOKUPS]++;
	while (!(b = try_to_find(v)))
		bt_code_flush(v);
	if (!cpu_is_cut(v, b->gpa))
		bt_jump_insert(v, bt_jump_table(v, b->key), bt_address(v), b);
	return b;
}
