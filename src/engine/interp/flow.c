/* Near transfers, conditions and flag instructions; also the handlers that leave a block. */
#include "engine/interp/interp.h"

/* Macros that make functions, which the formatter takes for expressions. */
/* clang-format off */

/* ---- conditions, on the status word: SF ZF AF PF CF in bits 15 14 12 10 8, OF in bit 0 ---- */

#define ST_OF 0x0001u
#define ST_CF 0x0100u
#define ST_PF 0x0400u
#define ST_AF 0x1000u
#define ST_ZF 0x4000u
#define ST_SF 0x8000u

#define LESS(st) (((st) >> 15 ^ (st)) & 1)

/* (suffix, its negation, whether it holds) in the order of the opcodes */
#define CONDITIONS(_)                                                                                                  \
	_(O, NO, st & ST_OF) _(B, NB, st & ST_CF) _(Z, NZ, st & ST_ZF) _(BE, NBE, st & (ST_CF | ST_ZF))                \
	_(S, NS, st & ST_SF) _(P, NP, st & ST_PF) _(L, NL, LESS(st)) _(LE, NLE, LESS(st) | (st & ST_ZF))

/* ---- jumps ---- */

/* Near transfer to target: in 64-bit mode just a canonical check, elsewhere truncation and the segment's limit. */
static inline void jump_to(struct vcpu *v, const struct insn *i, uint64_t target)
{
	if (likely(v->code_mode == MODE_64 && i->opsize == 8 && is_canonical(target))) {
		v->s.rip = target;
		return;
	}
	v->current = i;
	cpu_jump(v, target, i->opsize);
}

static inline void not_taken(struct vcpu *v, const struct insn *i)
{
	v->s.rip = after_rip(v, i);
}

#define JCC(cc, ncc, holds)                                                                                            \
	static HANDLER(j##cc)                                                                                          \
	{                                                                                                              \
		unsigned st = v->status;                                                                               \
		if (holds)                                                                                             \
			jump_to(v, i, after_rip(v, i) + i->imm);                                                       \
		else                                                                                                   \
			not_taken(v, i);                                                                               \
		LEAVE;                                                                                                 \
	}                                                                                                              \
	static HANDLER(j##ncc)                                                                                         \
	{                                                                                                              \
		unsigned st = v->status;                                                                               \
		if (!(holds))                                                                                          \
			jump_to(v, i, after_rip(v, i) + i->imm);                                                       \
		else                                                                                                   \
			not_taken(v, i);                                                                               \
		LEAVE;                                                                                                 \
	}
CONDITIONS(JCC)

static HANDLER(jmp_rel)
{
	jump_to(v, i, after_rip(v, i) + i->imm);
	LEAVE;
}

/* Target of an indirect transfer. */
static inline uint64_t indirect(struct vcpu *v, const struct insn *i)
{
	v->current = i;
	if (i->form == FORM_R)
		return cpu_reg(v, i->reg, i->opsize);
	return cpu_load(v, cpu_operand(v, i, i->opsize, ACCESS_READ), i->opsize, i->seg == SS);
}

static HANDLER(jmp_indirect)
{
	jump_to(v, i, indirect(v, i));
	LEAVE;
}

static void call_to(struct vcpu *v, const struct insn *i, uint64_t target)
{
	uint64_t after = after_rip(v, i);

	v->current = i;
	if (likely(v->code_mode == MODE_64 && i->opsize == 8)) {
		uint64_t rsp = REG64(v, 8 * RSP) - 8;

		/* The target is checked before anything is pushed. */
		if (unlikely(!is_canonical(target)))
			cpu_raise_error(v, EXC_GP, 0);
		cpu_store(v, rsp, after, 8, true);
		REG64(v, 8 * RSP) = rsp;
		v->s.rip = target;
		return;
	}
	/* cpu_jump may fault, and must not once rSP has moved: try it, then push, then go. */
	uint64_t here = v->s.rip;
	cpu_jump(v, target, i->opsize);
	target = v->s.rip;
	v->s.rip = here;
	cpu_push(v, after, i->opsize);
	v->s.rip = target;
}

static HANDLER(call_rel)
{
	call_to(v, i, after_rip(v, i) + i->imm);
	LEAVE;
}

static HANDLER(call_indirect)
{
	call_to(v, i, indirect(v, i));
	LEAVE;
}

static HANDLER(ret)
{
	uint64_t target, rsp = REG64(v, 8 * RSP);

	v->current = i;
	if (likely(v->code_mode == MODE_64 && i->opsize == 8)) {
		target = cpu_load(v, rsp, 8, true);
		jump_to(v, i, target);
		REG64(v, 8 * RSP) = rsp + 8 + (i->imm & 0xffff);
		LEAVE;
	}
	target = cpu_load(v, cpu_linear(v, SS, cpu_reg(v, 8 * RSP, v->stack_size), i->opsize, ACCESS_READ), i->opsize, true);
	jump_to(v, i, target);
	cpu_set_reg(v, 8 * RSP, v->stack_size, rsp + i->opsize + (i->imm & 0xffff));
	LEAVE;
}

/* JCXZ, LOOP: the count register has the address size. */
static HANDLER(jcxz)
{
	if (!cpu_reg(v, 8 * RCX, i->addrsize))
		jump_to(v, i, after_rip(v, i) + i->imm);
	else
		not_taken(v, i);
	LEAVE;
}

static HANDLER(loop)
{
	uint64_t count = cpu_reg(v, 8 * RCX, i->addrsize) - 1;
	bool zero = v->status & ST_ZF, taken;

	if (i->addrsize != 8)
		count = i->addrsize == 4 ? (u32)count : (u16)count;
	taken = count && (i->op == OP_LOOP || zero == (i->op == OP_LOOPE));
	if (taken)
		jump_to(v, i, after_rip(v, i) + i->imm);
	else
		not_taken(v, i);
	cpu_set_reg(v, 8 * RCX, i->addrsize, count);
	LEAVE;
}

/* ---- SETcc, CMOVcc ---- */

#define CONDITIONAL(cc, ncc, holds)                                                                                    \
	static HANDLER(set##cc)                                                                                        \
	{                                                                                                              \
		unsigned st = v->status;                                                                               \
		set_byte(v, i, (holds) != 0);                                                                          \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static HANDLER(set##ncc)                                                                                       \
	{                                                                                                              \
		unsigned st = v->status;                                                                               \
		set_byte(v, i, (holds) == 0);                                                                          \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static HANDLER(cmov##cc)                                                                                       \
	{                                                                                                              \
		unsigned st = v->status;                                                                               \
		conditional_move(v, i, (holds) != 0);                                                                  \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static HANDLER(cmov##ncc)                                                                                      \
	{                                                                                                              \
		unsigned st = v->status;                                                                               \
		conditional_move(v, i, (holds) == 0);                                                                  \
		NEXT;                                                                                                  \
	}

static inline void set_byte(struct vcpu *v, const struct insn *i, bool value)
{
	if (i->form == FORM_R)
		REG8(v, i->reg) = value;
	else
		STORE(8, value);
}

/* The source is read and a 32-bit destination cleared above also when the condition does not hold. */
static inline void conditional_move(struct vcpu *v, const struct insn *i, bool move)
{
	uint64_t value;

	if (i->form == FORM_RR)
		value = cpu_reg(v, i->rm, i->opsize);
	else
		value = cpu_load(v, operand(v, i, i->opsize, ACCESS_READ), i->opsize, i->seg == SS);
	if (!move)
		value = cpu_reg(v, i->reg, i->opsize);
	cpu_set_reg(v, i->reg, i->opsize, value);
}
CONDITIONS(CONDITIONAL)

/* ---- flag instructions ---- */

static HANDLER(clc) { v->status = (u16)(v->status & ~ST_CF); NEXT; }
static HANDLER(stc) { v->status = (u16)(v->status | ST_CF); NEXT; }
static HANDLER(cmc) { v->status = (u16)(v->status ^ ST_CF); NEXT; }
static HANDLER(cld) { v->s.rflags &= ~FLAG_DF; NEXT; }
static HANDLER(std) { v->s.rflags |= FLAG_DF; NEXT; }
static HANDLER(lahf) { REG8(v, 8 * RAX + 1) = (u8)(cpu_status(v) | 2); NEXT; }
static HANDLER(sahf)
{
	v->status = (u16)((v->status & ST_OF) | (REG8(v, 8 * RAX + 1) & 0xd5) << 8 | 0x200);
	NEXT;
}
static HANDLER(salc) { REG8(v, 8 * RAX) = v->status & ST_CF ? 0xff : 0; NEXT; }

/* ---- leaving a block ---- */

/* Behind the last instruction of a block that does not end in a transfer. */
HANDLER(interp_op_fall_through)
{
	v->s.rip = this_rip(v, i);
	LEAVE;
}

/* In place of what follows in the current block when a store changed the code: go back and decode again. */
HANDLER(interp_op_poisoned)
{
	v->s.rip = this_rip(v, i);
	interp_refund(v, i);
	return NULL;
}

/* ---- selection ---- */

handler_fn *select_flow(const struct vcpu *v, const struct insn *i)
{
	(void)v;
	switch (i->op) {
#define _(cc, ncc, holds)                                                                                              \
	case OP_J##cc: return j##cc;                                                                                   \
	case OP_J##ncc: return j##ncc;                                                                                 \
	case OP_SET##cc: return set##cc;                                                                               \
	case OP_SET##ncc: return set##ncc;                                                                             \
	case OP_CMOV##cc: return cmov##cc;                                                                             \
	case OP_CMOV##ncc: return cmov##ncc;
	CONDITIONS(_)
#undef _
	case OP_JMP: return i->form == FORM_I ? jmp_rel : jmp_indirect;
	case OP_CALL: return i->form == FORM_I ? call_rel : call_indirect;
	case OP_RET: return ret;
	case OP_JCXZ:
	case OP_JECXZ:
	case OP_JRCXZ: return jcxz;
	case OP_LOOP:
	case OP_LOOPE:
	case OP_LOOPNE: return loop;
	case OP_CLC: return clc;
	case OP_STC: return stc;
	case OP_CMC: return cmc;
	case OP_CLD: return cld;
	case OP_STD: return std;
	case OP_LAHF: return lahf;
	case OP_SAHF: return sahf;
	case OP_SALC: return salc;
	default: return NULL;
	}
}
