/*
 * Links: jumps from block to block without a look-up, and what they rest on.
 *
 * A link inside of a page holds as long as the page's code does: whoever runs one block has fetched from this page. A link to another
 * page rests on that page's translation too. It holds in one address space, that of the page it comes from (struct code_page), until
 * a fetch translation of that space may change: then the space gets a new number (cpu/access.h), and nobody runs under the old one again.
 * Translations that are global outlive switches of CR3; supervisor code in them is one address space of its own, which gets a new
 * number when global translations are flushed.
 *
 * Why no stale link is followed: code of a page runs in address space S only after C has fetched from it in S (bt_enter_page), or
 * by jump table entries and links of S that C made after it had. A page whose links are those of a number that is gone loses
 * them there; a page that is wanted in two address spaces at a time (of a process and its child) loses its links to other pages for
 * good, and its blocks look such targets up.
 *
 * The pages of code that may be at any linear address are shared from the start: only links inside a page are relative to it.
 *
 * A block that crosses into a second page rests on two translations: links to it are always as those to another page.
 */
#include "engine/bt/runtime.h"

/* ---- address spaces ---- */

uint64_t bt_fetched_space(const struct vcpu *v)
{
	return v->cpl != 3 && v->fetched_global ? bt_global_space(v) : v->address_space;
}

static bool is_alive(const struct vcpu *v, uint64_t space)
{
	return space & BIT(63) ? space == bt_global_space(v) : cpu_space_is_alive(v, space);
}

/* ---- links ---- */

/*
 * Two opcodes before the same four bytes: JMP (with a prefix that means nothing), and MOV to R11, which nobody reads there. So a kick's handler may
 * come between any two stores here, to store its own.
 */
#define OPCODE_JUMP    0xe940
#define OPCODE_NOTHING 0xbb41

static void point(struct bt_cpu *bt, const struct bt_link *l, uint32_t code_offset)
{
	uint8_t *at = bt->cache.write + l->rel32;
	uint32_t next = l->rel32 + 4u;

	if (!l->rel32)
		return;
	store_le32(at, code_offset - next);
	if (l->last)
		store_le16(at - 2, code_offset == next ? OPCODE_NOTHING : OPCODE_JUMP);
}

/* A conditional jump to what comes right behind the block: the other way becomes the one that jumps. */
static void turn_round(struct bt_cpu *bt, const struct bt_block *from, struct bt_link *l, const struct bt_block *to)
{
	struct bt_link *other = &bt_links(from)[l == bt_links(from)];
	uint32_t rel32 = l->rel32;

	if (!l->conditional || !other->last || bt_link_entry(from, to) != from->code + from->code_size)
		return;
	bt->cache.write[rel32 - 1] ^= 1;
	l->rel32 = other->rel32;
	other->rel32 = rel32 & BT_REL32_MAX;
	l->conditional = other->last = false;
	l->last = other->conditional = true;
	point(bt, other, other->to ? bt_link_entry(from, bt_record(bt, other->to)) : other->stub);
}

static struct bt_block *from_of(const struct bt_cpu *bt, const struct bt_link *l) { return bt_record(bt, l->from); }

static bool is_in_page(const struct bt_block *from, const struct bt_block *to)
{
	return from->home == to->home && !to->crosses;
}

/* `to` was found in the current address space. */
static bool would_hold(const struct vcpu *v, const struct bt_block *from, const struct bt_block *to)
{
	const struct code_page *page = bt_record(bt_of(v), from->home), *to_page = bt_record(bt_of(v), to->home);
	uint64_t global = bt_global_space(v);

	if (is_in_page(from, to))
		return true;
	if (page->shared)
		return false;
	return page->space == v->address_space ||
	       (page->space == global && to_page->space == global && !to_page->shared &&
		(!to->crosses || bt_second(to)->space == global));
}

void bt_link(struct vcpu *v, struct bt_link *l, struct bt_block *to)
{
	struct bt_cpu *bt = bt_of(v);
	const struct bt_block *from = from_of(bt, l);
	struct bt_link *next;

	if (l->target != to->rip || from->dead || cpu_is_cut(v, to->gpa) || from->key != to->key ||
	    from->code_limit != to->code_limit || !would_hold(v, from, to))
		return;
	bt_unlink(v, l);
	l->to = bt_ref_of(bt, to);
	l->next = to->incoming;
	l->previous = 0;
	to->incoming = bt_ref_of(bt, l);
	if ((next = bt_record(bt, l->next)))
		next->previous = to->incoming;
	turn_round(bt, from, l, to);
	point(bt, l, bt_link_entry(from, to));
	bt->stats.links++;
}

void bt_unlink(struct vcpu *v, struct bt_link *l)
{
	struct bt_cpu *bt = bt_of(v);
	struct bt_link *next, *previous;

	if (!l->to)
		return;
	point(bt, l, l->stub);
	next = bt_record(bt, l->next);
	previous = bt_record(bt, l->previous);
	if (next)
		next->previous = l->previous;
	if (previous)
		previous->next = l->next;
	else
		((struct bt_block *)bt_record(bt, l->to))->incoming = l->next;
	l->to = 0;
	bt->stats.unlinked++;
}

/* `to` and the lists stay: the code alone is changed, and the next exit through the stub puts it back. */
void bt_unlink_exits(struct vcpu *v, struct bt_block *b)
{
	for (unsigned n = 0; n < b->link_count; n++)
		point(bt_of(v), &bt_links(b)[n], bt_links(b)[n].stub);
}

/* ---- pages ---- */

static bt_ref *page_slot(struct bt_cpu *bt, uint64_t gpa, uint64_t lin)
{
	return &bt->homes[((gpa ^ lin * 0x9e3779b97f4a7c15ull) >> PAGE_SHIFT) % BT_CODE_PAGES];
}

static struct code_page *find_page(struct vcpu *v, uint64_t gpa, uint64_t lin)
{
	struct bt_cpu *bt = bt_of(v);
	bt_ref *slot = page_slot(bt, gpa, lin);
	struct code_page *p = bt_record(bt, *slot);
	bool user = v->cpl == 3, anywhere = lin == BT_ANYWHERE;

	while (p && (p->gpa != gpa || p->lin != lin || p->user != user))
		p = bt_record(bt, p->hash_next);
	if (p || !(p = bt_meta_alloc(bt, sizeof(*p))))
		return p;
	*p = (struct code_page){ .hash_next = *slot, .gpa = gpa, .lin = lin, .user = user, .shared = anywhere };
	*slot = bt_ref_of(bt, p);
	return p;
}

/* The living block at *slot of a page's list, or behind it: dead ones are taken out. */
static struct bt_block *living(struct bt_cpu *bt, bt_ref *slot)
{
	struct bt_block *b;

	while ((b = bt_record(bt, *slot)) && b->dead)
		*slot = b->home_next;
	return b;
}

static void unlink_page(struct vcpu *v, struct code_page *p)
{
	struct bt_cpu *bt = bt_of(v);
	bt_ref *slot = &p->blocks;

	for (struct bt_block *b; (b = living(bt, slot)); slot = &b->home_next)
		for (unsigned n = 0; n < b->link_count; n++) {
			struct bt_link *l = &bt_links(b)[n];

			if (l->to && !is_in_page(b, bt_record(bt, l->to)))
				bt_unlink(v, l);
		}
}

/* Blocks with ways to other pages are translated anew when they are wanted. */
static void share_page(struct vcpu *v, struct code_page *p)
{
	struct bt_cpu *bt = bt_of(v);
	bt_ref *slot = &p->blocks;

	p->shared = true;
	for (struct bt_block *b; (b = living(bt, slot)); slot = &b->home_next)
		for (unsigned n = 0; n < b->link_count && !b->dead; n++)
			if (bt_links(b)[n].other_page)
				bt_invalidate_block(v, b);
}

struct code_page *bt_enter_page(struct vcpu *v, uint64_t gpa, uint64_t lin)
{
	struct code_page *p = find_page(v, gpa & PAGE_MASK, lin == BT_ANYWHERE ? lin : lin & PAGE_MASK);
	uint64_t space = bt_fetched_space(v);

	if (!p || p->shared || p->space == space)
		return p;
	unlink_page(v, p);
	if (is_alive(v, p->space))
		share_page(v, p);
	p->space = space;
	return p;
}
