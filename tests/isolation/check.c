/*
 * The translator's own records, as translated code relies on them: where links and jump tables lead, what slot tables name, what is
 * mapped in windows, and that the monitor's pointers are what they were.
 */
#include "engine/bt/runtime.h"
#include "engine/bt/window_private.h"
#include "isolation.h"

#include <stdio.h>

/* ---- code ---- */

static const char *check_link(const struct bt_cpu *bt, const struct bt_link *l)
{
	uint32_t end = l->rel32 + 4u, leads = end + load_le32(bt->cache.write + l->rel32);
	const struct bt_block *to = bt_record(bt, l->to), *from = bt_record(bt, l->from);
	uint16_t opcode;

	if (!l->rel32)
		return l->to ? "an exit that looks up is linked" : NULL;
	opcode = load_le16(bt->cache.write + l->rel32 - 2);
	if (l->last != (end == from->code + from->code_size && !l->conditional))
		return "which exit ends a block is not known";
	/* MOV to R11 where nothing has to be jumped over; a kick may have come while it was written */
	if (l->last && opcode == 0xbb41)
		leads = end;
	else if (l->conditional ? (opcode & 0xf0ff) != 0x800f : opcode != 0xe940)
		return "an exit is no jump";
	if (leads == l->stub)
		return NULL;
	if (!to || to->dead)
		return "a direct exit leads neither to its stub nor to a living block";
	return leads == bt_link_entry(from, to) ? NULL : "a linked exit leads elsewhere";
}

static const char *check_blocks(const struct bt_cpu *bt)
{
	const char *wrong;

	for (uint32_t n = 0; n < bt->block_count; n++) {
		const struct bt_block *b = bt_block(bt, n);

		if (b->index != n || b->code + b->code_size > bt->code_used || b->count > 64 || b->link_count > 2)
			return "a block's record is not right";
		for (unsigned k = 0; k < b->link_count; k++)
			if ((wrong = check_link(bt, &bt_links(b)[k])))
				return wrong;
	}
	return NULL;
}

/* key: of the code that it is for. */
static const char *check_jump_table(struct bt_cpu *bt, const struct jump_table *t, uint32_t key)
{
	for (unsigned n = 0; n < 1u << BT_JUMP_BITS; n++) {
		struct bt_block *b;

		if (bt_jump_index(-t->to[n].nkey) != n)
			continue; /* never found */
		b = bt_block_at(bt, t->to[n].code);
		if (!b || bt_exec_at(bt, bt_entry(b)) != t->to[n].code || b != bt_record(bt, t->block[n]))
			return "a jump table leads to what is no block";
		if (b->key & BT_KEY_ANYWHERE ? b->rip != (-t->to[n].nkey & ~PAGE_MASK)
					     : b->dead || b->rip != -t->to[n].nkey)
			return "a jump table leads elsewhere than to the block of its address";
		if ((b->key & ~BT_KEY_ANYWHERE) != key)
			return "a jump table leads to a block of another mode";
	}
	return NULL;
}

static const char *check_jump_tables(struct bt_cpu *bt)
{
	const char *wrong = check_jump_table(bt, bt->nothing, 0);

	for (unsigned n = 0; n < bt->tables_used && !wrong; n++)
		wrong = check_jump_table(bt, &bt->tables[n], bt->uses[n].key);
	for (unsigned n = 0; n < 1u << BT_JUMP_BITS && !wrong; n++)
		if (bt_jump_index(-bt->nothing->to[n].nkey) == n)
			wrong = "something is in the table in which nothing is found";
	return wrong;
}

/* ---- windows ---- */

static const char *check_entry(const struct bt_windows *w, const struct space *space, enum table_view view, int slot)
{
	uint64_t base = (uint64_t)space->table[view].entry[slot] + ((uint64_t)(int64_t)slot << SLOT_SHIFT);
	const struct window *window;
	uint64_t number = (base - w->first) / (WINDOW_SIZE + WINDOW_GUARD);

	if (base == w->absent)
		return NULL;
	if (base < w->first || number >= w->window_count || w->window[number].base != base)
		return "a slot table names what is no window";
	window = &w->window[number];
	if (!slot && space->table[view].narrow && !window->narrow)
		return "16- and 32-bit code may use a window that is not for it";
	if (window->slot != (slot & 511) || !window->pml4e)
		return "a slot table names another slot's window";
	if ((window->kind == WINDOW_SUPERVISOR && view == TABLE_USER) ||
	    (window->kind == WINDOW_USER && view == TABLE_SUPERVISOR))
		return "a slot table leads to a window of the other kind";
	return NULL;
}

static const char *check_slot_tables(const struct bt_windows *w)
{
	const char *wrong;

	for (unsigned n = 0; n < w->space_count; n++)
		for (enum table_view view = 0; view < TABLE_VIEWS && w->space[n].table[view].entry; view++)
			for (int slot = -256; slot < 256; slot++)
				if ((wrong = check_entry(w, &w->space[n], view, slot)))
					return wrong;
	return NULL;
}

/* Everything that is mapped where translated code can get: pages of RAM inside of windows, not executable. */
static const char *check_mapping(const struct bt_windows *w, uint64_t start, uint64_t end, const char *rights,
				 uint64_t offset)
{
	uint64_t number = (start - w->first) / (WINDOW_SIZE + WINDOW_GUARD);

	if (!strncmp(rights, "---", 3))
		return NULL;
	if (start < w->first || number >= w->window_count || start < w->window[number].base ||
	    end > w->window[number].base + WINDOW_SIZE)
		return "something is mapped between windows";
	if (!w->window[number].pml4e)
		return "something is mapped in a window that is free";
	if (w->window[number].narrow && start - w->window[number].base <= UINT32_MAX &&
	    end - w->window[number].base > (UINT32_MAX & PAGE_MASK))
		return "something is mapped where 16- and 32-bit code must fault";
	if (rights[2] != '-' || rights[3] != 's')
		return "a mapping in a window has wrong rights";
	if (offset >= w->mem->ram.file.size || end - start > w->mem->ram.file.size - offset)
		return "a mapping in a window goes beyond RAM";
	return NULL;
}

static const char *check_mappings(const struct bt_windows *w)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	const char *wrong = NULL;
	char line[512], rights[8], name[256];
	unsigned long long start, end, offset;

	if (!maps)
		return NULL;
	while (!wrong && fgets(line, sizeof(line), maps)) {
		name[0] = 0;
		if (sscanf(line, "%llx-%llx %7s %llx %*s %*s %255s", &start, &end, rights, &offset, name) < 4)
			continue;
		if (start >= w->arena + w->arena_size || end <= w->arena)
			continue;
		if (strncmp(rights, "---", 3) && strncmp(name, "/memfd:", 7))
			wrong = "something else than RAM is mapped in a window";
		else
			wrong = check_mapping(w, start, end, rights, offset);
		if (wrong)
			found_context(2, "%s", line);
	}
	fclose(maps);
	return wrong;
}

const char *check_records(struct vcpu *v)
{
	struct bt_cpu *bt = bt_of(v);
	const char *wrong;

	if (bt_frame(v)->self != v || (void *)bt->windows != v->engine->shared)
		return "the vCPU's own pointers changed";
	wrong = check_blocks(bt);
	if (!wrong)
		wrong = check_jump_tables(bt);
	if (!wrong)
		wrong = check_slot_tables(bt->windows);
	return wrong ? wrong : check_mappings(bt->windows);
}
