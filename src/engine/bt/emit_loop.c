/*
 * Loops: a block whose branch leads to its own start finds R11 and R10 as it left them.
 *
 * The windows, or sums, that it uses most are looked up before its first instruction, and its branch goes on behind that (loop_entry) when
 * they are still the same there. Their registers may have moved from round to round; what keeps them beside their slot is that
 * each round accesses memory through them. An access that did not fault was inside the window, so its register points into the slot, give or
 * take the displacement, the operand's size and how far registers moved in this round (emit_accessed). An access that did fault is
 * done by C, which looks the window up again (single.c). So from round to round a register gets no farther than
 * EMIT_LOOP_DRIFT from its slot; a round moves it by EMIT_MAX_DRIFT at most, and 2^29 + 2^30 + 2^31 + 64 < WINDOW_GUARD.
 */
#include "engine/bt/emit.h"

#define MAX_KEYS 3 /* more need not be told apart */

struct key {
	struct host_memory_operand m; /* without a displacement */
	unsigned uses;
};

/* The memory operand as what can be kept; false: it is something else. */
static bool get_key(const struct insn *i, struct host_memory_operand *m)
{
	*m = guest_operand(i);
	if (i->addrsize != 8 || i->seg >= FS || (i->flags & INSN_RIPREL) || m->base == HOST_NONE ||
	    bt_spilled(m->base) || m->disp < EMIT_FAR_DISPLACEMENT || (m->index != HOST_NONE && bt_spilled(m->index)))
		return false;
	m->disp = 0;
	return true;
}

/* Does the instruction use memory or scratch registers otherwise than by its operand? */
static bool is_special(const struct insn *i, const struct insn_host *h)
{
	if ((i->flags & (INSN_SYSTEM | INSN_IO)) || (h->mem_size && !(i->flags & INSN_MEM)))
		return true;
	return (i->op >= OP_PUSH && i->op <= OP_RET) || emit_is_for_c(i);
}

static bool steps(const struct insn *i, unsigned reg)
{
	return i->opsize == 8 && i->reg == 8 * reg &&
	       (((i->op == OP_INC || i->op == OP_DEC) && i->form == FORM_R) ||
		((i->op == OP_ADD || i->op == OP_SUB) && i->form == FORM_RI));
}

/* Is the key's value moved by steps alone in a round? */
static bool is_steady(const struct key *k, const struct insn *insns, const struct insn_host *hosts, unsigned count)
{
	bool sum = k->m.index != HOST_NONE;
	unsigned moving = sum ? k->m.index : k->m.base;

	for (unsigned n = 0; n < count; n++)
		if ((sum && (hosts[n].gpr_written >> k->m.base & 1)) ||
		    ((hosts[n].gpr_written >> moving & 1) && !steps(&insns[n], moving)))
			return false;
	return true;
}

/* Returns how many keys there are, MAX_KEYS at most; 0: there is something that cannot be kept, or takes R11. */
static unsigned collect(struct key keys[MAX_KEYS], const struct insn *insns, const struct insn_host *hosts,
			unsigned count)
{
	unsigned used = 0;

	for (unsigned n = 0; n < count; n++) {
		struct host_memory_operand m;
		unsigned k = 0;

		if (n + 1 < count && is_special(&insns[n], &hosts[n]))
			return 0;
		if (!(insns[n].flags & INSN_MEM) || insns[n].op == OP_LEA || emit_is_nothing(insns[n].op))
			continue;
		if (!get_key(&insns[n], &m))
			return 0;
		while (k < used &&
		       (keys[k].m.base != m.base || keys[k].m.index != m.index || keys[k].m.scale != m.scale))
			k++;
		if (k == MAX_KEYS)
			continue;
		used = MAX(used, k + 1);
		keys[k] = (struct key){ .m = m, .uses = keys[k].uses + 1 };
	}
	return used;
}

static bool takes_scratch(const struct insn_host *hosts, unsigned count)
{
	for (unsigned n = 0; n < count; n++)
		if ((hosts[n].gpr_read | hosts[n].gpr_written) & (1u << R10 | 1u << R11 | 1u << R15))
			return true;
	return false;
}

bool emit_loop_begin(struct emitter *e, const struct insn *insns, const struct insn_host *hosts, unsigned count)
{
	struct key keys[MAX_KEYS] = { 0 };
	unsigned used = collect(keys, insns, hosts, count), kept = 0;
	/* One register is for what is not kept. */
	unsigned most = used == EMIT_WINDOWS && !takes_scratch(hosts, count) ? EMIT_WINDOWS : 1;

	while (kept < most) {
		struct key *best = NULL;

		for (unsigned k = 0; k < used; k++)
			if (keys[k].uses > (best ? best->uses : 0) && is_steady(&keys[k], insns, hosts, count))
				best = &keys[k];
		if (!best)
			break;
		emit_keep(e, kept++, &best->m);
		best->uses = 0;
	}
	return kept;
}

bool emit_loop_holds(const struct emitter *e)
{
	for (unsigned n = 0; n < EMIT_WINDOWS; n++) {
		const struct emit_window *w = &e->window[n], *first = &e->loop[n];

		if (first->regs &&
		    (!w->regs || w->sum != first->sum || w->near > EMIT_LOOP_DRIFT ||
		     (w->regs & first->regs) != first->regs ||
		     (w->sum && (w->base != first->base || w->index != first->index || w->scale != first->scale))))
			return false;
	}
	return true;
}
