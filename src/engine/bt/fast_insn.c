/*
 * Which system instructions are done at once, and when: all that they need is at hand. See fast.c, whose rules are this file's too.
 */
#include "engine/bt/runtime.h"

/* ---- what must be at hand ---- */

static bool in_page(const struct tlb_entry *e, const struct vcpu *v, uint64_t lin, unsigned size, bool write)
{
	uint64_t last = (lin + size - 1) & PAGE_MASK, tag = write ? e->write_tag : e->read_tag;

	/* Without the access the tag is 0, which is also page 0 of no address space. */
	if (last != (lin & PAGE_MASK) || (tag & PAGE_MASK) != last || !tag)
		return false;
	return (tag & ~PAGE_MASK) == v->asid || (e->gpa & ~PAGE_MASK) == v->global_tag;
}

/* The TLB has it, so that an access by it ends without a walk. (A global one of another address space is renewed without, too.) */
static bool is_reachable(struct vcpu *v, enum tlb_view view, uint64_t lin, unsigned size, bool write)
{
	return in_page(&v->tlbs[view][(lin >> PAGE_SHIFT) & (TLB_SIZE - 1)], v, lin, size, write);
}

/* Where the stack pointer + from is. */
static uint64_t stack_at(const struct vcpu *v, int64_t from)
{
	uint64_t offset = v->s.gpr[RSP] + (uint64_t)from;

	if (v->code_mode == MODE_64)
		return offset;
	return (uint32_t)(v->s.seg_base[SS] + (v->stack_size == 2 ? (uint16_t)offset : offset));
}

/* from: relative to the top of the stack. What wraps around inside is none; what is beyond a limit raises. */
static bool stack_is_reachable(struct vcpu *v, int64_t from, unsigned size, bool write)
{
	uint64_t first = stack_at(v, from);

	return v->tlb != v->tlb_never &&
	       (v->code_mode == MODE_64 || stack_at(v, from + size - 1) == first + size - 1) &&
	       is_reachable(v, v->tlb_view, first, size, write);
}

/* A word of it that is. */
static uint64_t stack_word(struct vcpu *v, unsigned from, unsigned size)
{
	return cpu_load(v, stack_at(v, from), size, true);
}

/* None, or a descriptor of the GDT that was used before: its accessed bit need not be written. */
static bool descriptor_is_reachable(struct vcpu *v, uint16_t selector)
{
	uint64_t at = v->s.gdtr_base + (selector & ~7u);
	uint64_t descriptor;

	if (!(selector & ~3u))
		return true;
	if (selector & 4 || (selector | 7u) > v->s.gdtr_limit || !is_reachable(v, TLB_KERNEL, at, 8, false))
		return false;
	descriptor = cpu_system_load(v, at, 8);
	return descriptor & BIT(40);
}

/* ---- which instructions, and when ---- */

static bool is_real_address(const struct vcpu *v) { return !(v->s.cr0 & CR0_PE); }

static bool can_kernel(struct vcpu *v, const struct insn *i)
{
	(void)i;
	return v->cpl == 0;
}

static bool can_always(struct vcpu *v, const struct insn *i)
{
	(void)v, (void)i;
	return true;
}

/* An interrupt that waits is taken behind the next instruction: bt.c's business. */
static bool can_sti(struct vcpu *v, const struct insn *i)
{
	(void)i;
	return v->cpl == 0 && !v->interrupt_wanted;
}

static bool can_push(struct vcpu *v, const struct insn *i)
{
	return stack_is_reachable(v, -(int64_t)i->opsize, i->opsize, true);
}

static bool can_pop(struct vcpu *v, const struct insn *i) { return stack_is_reachable(v, 0, i->opsize, false); }

static bool can_iret(struct vcpu *v, const struct insn *i)
{
	uint64_t rsp = v->s.gpr[RSP];

	return i->opsize == 8 && v->cpl == 0 && !v->s.nmi_blocked && stack_is_reachable(v, 0, 40, false) &&
	       descriptor_is_reachable(v, (uint16_t)cpu_load(v, rsp + 8, 8, true)) &&
	       descriptor_is_reachable(v, (uint16_t)cpu_load(v, rsp + 32, 8, true));
}

/* Without long mode: EIP, CS and EFLAGS, and the stack of an outer level. */
static bool can_iretd(struct vcpu *v, const struct insn *i)
{
	uint16_t cs;

	if (i->opsize != 4 || v->code_mode != MODE_32 || in_long_mode(v) || v->cpl || v->s.nmi_blocked ||
	    (v->s.rflags & FLAG_NT) || !stack_is_reachable(v, 0, 12, false) || (stack_word(v, 8, 4) & FLAG_VM))
		return false;
	cs = (uint16_t)stack_word(v, 4, 4);
	if (!descriptor_is_reachable(v, cs))
		return false;
	return !(cs & 3) ||
	       (stack_is_reachable(v, 0, 20, false) && descriptor_is_reachable(v, (uint16_t)stack_word(v, 16, 4)));
}

/* Three words, and no descriptors. Flags that it sets may have to be looked at: go_on_elsewhere() sees events. */
static bool can_iret16(struct vcpu *v, const struct insn *i)
{
	return i->opsize == 2 && is_real_address(v) && !v->s.nmi_blocked && stack_is_reachable(v, 0, 6, false);
}

/* Through the vector table of real-address mode. */
static bool can_int(struct vcpu *v, const struct insn *i)
{
	uint32_t vector = (uint32_t)(v->s.idtr_base + (i->imm & 0xff) * 4);

	return is_real_address(v) && is_reachable(v, TLB_KERNEL, vector, 4, false) &&
	       stack_is_reachable(v, -6, 6, true);
}

static bool can_load_segment(struct vcpu *v, unsigned seg, uint16_t selector)
{
	return seg != CS && seg != SS && (!in_protected_mode(v) || descriptor_is_reachable(v, selector));
}

static bool can_pop_sreg(struct vcpu *v, const struct insn *i)
{
	return can_pop(v, i) && can_load_segment(v, i->sreg, (uint16_t)stack_word(v, 0, i->opsize));
}

/* The operand in memory is reachable, at *lin; in a segment that needs no look, as all of 64-bit code's. */
static bool operand_is_reachable(struct vcpu *v, const struct insn *i, unsigned size, bool write, uint64_t *lin)
{
	if (i->flags & INSN_RIPREL) /* ip_base is set where the interpreter runs the instruction */
		return false;
	*lin = cpu_ea(v, i);
	if (v->code_mode != MODE_64) {
		if (!v->flat || i->seg >= FS)
			return false;
		*lin = (uint32_t)*lin;
	} else if (i->seg >= FS) {
		*lin += v->s.seg_base[i->seg];
	}
	return v->tlb != v->tlb_never && is_reachable(v, v->tlb_view, *lin, size, write);
}

static bool can_mov_sreg(struct vcpu *v, const struct insn *i)
{
	uint64_t lin;

	if (!(i->flags & INSN_MEM))
		return i->store || can_load_segment(v, i->sreg, REG16(v, i->reg));
	if (!operand_is_reachable(v, i, 2, i->store, &lin))
		return false;
	return i->store || can_load_segment(v, i->sreg, (uint16_t)cpu_load(v, lin, 2, i->seg == SS));
}

static bool can_mov_cr(struct vcpu *v, const struct insn *i)
{
	return v->cpl == 0 && i->sreg != 8 && (i->store || i->sreg == 2);
}

static void do_turn(struct vcpu *v, const struct insn *i)
{
	v->s.rflags = i->op == OP_STD ? v->s.rflags | FLAG_DF : v->s.rflags & ~FLAG_DF;
}

static const struct {
	bool (*can)(struct vcpu *, const struct insn *);
	void (*do_it)(struct vcpu *, const struct insn *);
	bool falls_through; /* of those that end a block */
} fast[OP_COUNT] = {
	[OP_CLI] = { can_kernel, op_cli, true },
	[OP_STI] = { can_sti, op_sti, false },
	[OP_CLAC] = { can_kernel, op_clac, true },
	[OP_STAC] = { can_kernel, op_stac, true },
	[OP_PUSHF] = { can_push, op_pushf, false },
	[OP_POPF] = { can_pop, op_popf, true },
	[OP_PUSHFQ] = { can_push, op_pushf, false },
	[OP_POPFQ] = { can_pop, op_popf, true },
	[OP_PUSHFD] = { can_push, op_pushf, false },
	[OP_POPFD] = { can_pop, op_popf, true },
	[OP_CLD] = { can_always, do_turn, false },
	[OP_STD] = { can_always, do_turn, false },
	[OP_SWAPGS] = { can_kernel, op_swapgs, false },
	[OP_RDFSBASE] = { can_always, op_rdfsbase, false },
	[OP_RDGSBASE] = { can_always, op_rdgsbase, false },
	[OP_WRFSBASE] = { can_always, op_wrfsbase, false },
	[OP_WRGSBASE] = { can_always, op_wrgsbase, false },
	[OP_SYSCALL] = { can_always, op_syscall, false },
	[OP_SYSRET] = { can_kernel, op_sysret, false },
	[OP_SYSENTER] = { can_always, op_sysenter, false },
	[OP_SYSEXIT] = { can_kernel, op_sysexit, false },
	[OP_IRETQ] = { can_iret, op_iret, false },
	[OP_IRETD] = { can_iretd, op_iret, false },
	[OP_MOV_SREG] = { can_mov_sreg, op_mov_sreg, true },
	[OP_PUSH_SREG] = { can_push, op_push_sreg, false },
	[OP_POP_SREG] = { can_pop_sreg, op_pop_sreg, true },
	[OP_IRET] = { can_iret16, op_iret, false },
	[OP_INT] = { can_int, op_int_n, false },
	[OP_MOV_CR] = { can_mov_cr, op_mov_cr, true },
};

/* What sanitizers and fuzzers put in between uses vector registers. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define POSSIBLE false
#else
#define POSSIBLE true
#endif

bool bt_is_fast(const struct insn *i) { return POSSIBLE && fast[i->op].can; }

bool bt_is_fast_and_falls_through(const struct insn *i) { return bt_is_fast(i) && fast[i->op].falls_through; }

bool bt_fast_can(struct vcpu *v, const struct insn *i) { return fast[i->op].can(v, i); }

void bt_fast_do(struct vcpu *v, const struct insn *i) { fast[i->op].do_it(v, i); }
