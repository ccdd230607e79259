/*
 * operands: what an instruction asks for, beyond random values, to do something else than fault: addresses in string
 * registers, divisors that divide, bit offsets that stay near, selectors, return addresses, images to restore.
 */
#include "cases.h"

/* As Linux and guest.c lay out the GDT: null, user data and code, kernel code and data, TSS, empty, beyond the limit, LDT. */
static uint16_t selector(struct rng *r)
{
	static const uint16_t selectors[] = {
		0,    1,    2,	  3,	0x2b, 0x2a, 0x28, 0x23, 0x20, 0x33,   0x30, 0x10,
		0x13, 0x18, 0x1b, 0x40, 0x43, 0x48, 0x60, 0x63, 0x80, 0xfff8, 0x2f, 0x2b
	};

	if (rng_one_in(r, 2))
		return (uint16_t)(rng_below(r, LDT_SIZE + 2) << 3 | 4 | (rng_one_in(r, 4) ? rng_below(r, 4) : 3));
	return selectors[rng_below(r, ARRAY_SIZE(selectors))];
}

/* Where a branch may go: filler in the code area, no code at all, nowhere. */
static uint64_t branch_target(struct rng *r, const struct test_case *t)
{
	uint64_t at;

	switch (rng_below(r, 12)) {
	case 0: return rng_next(r);
	case 1: return (uint64_t)sign_extend(rng_next(r), 48);
	case 2: return 0x7ffffffff000ull + rng_below(r, 0x2000);
	case 3: return edge_value(r);
	default: at = CODE + rng_below(r, CODE_SIZE) - segment_of(t->before.sel[CS]).base;
	}
	return (uint16_t)(at - t->before.rip) < 15 ? at + 15 : at;
}

static uint64_t good_target(struct rng *r, uint16_t selector)
{
	return CODE_AREA + rng_below(r, PAGE_SIZE) - segment_of(selector).base;
}

/* What an image of the x87 environment may hold, so that it can be loaded. */
void fix_environment(struct cases *c, uint64_t at, unsigned step)
{
	struct rng *r = &c->rng;
	uint16_t fcw = (uint16_t)(rng_one_in(r, 4) ? rng_next(r) : (rng_next(r) & 0xf00) | 0x7f);

	put_value(c, at, fcw, 2);
	put_value(c, at + step, rng_next(r) & (rng_one_in(r, 4) ? 0xffff : 0x7f40), 2);
}

static void fix_fxsave(struct cases *c, uint64_t at)
{
	struct rng *r = &c->rng;

	fix_environment(c, at, 2);
	put_value(c, at + 8, (uint64_t)sign_extend(rng_next(r), 48), 8);
	put_value(c, at + 16, (uint64_t)sign_extend(rng_next(r), 48), 8);
	put_value(c, at + 24, rng_next(r) & (rng_one_in(r, 8) ? ~c->traits.mxcsr_mask | 0xffff : 0xffff), 4);
}

/* A component that neither side has. */
static uint64_t absent_component(const struct cases *c)
{
	unsigned n = 3;

	while (c->traits.xcr0 >> n & 1)
		n++;
	return BIT(n);
}

void fix_xsave(struct cases *c, uint64_t at)
{
	static const uint8_t zeros[48];
	struct rng *r = &c->rng;
	bool compacted = rng_one_in(r, 3), bad = rng_one_in(r, 8);

	fix_fxsave(c, at);
	put_value(c, at + 512, rng_next(r) & (MODEL_COMPONENTS | (bad ? absent_component(c) : 0)), 8);
	put_value(c, at + 520, compacted ? BIT(63) | (rng_next(r) & 7) | (rng_one_in(r, 2) ? 7 : 0) : rng_one_in(r, 16),
		  8);
	if (!rng_one_in(r, 12))
		put_bytes(c, at + 528, zeros, sizeof(zeros));
}

unsigned operand_alignment(const struct test_case *t)
{
	switch (t->insn.op) {
	case OP_HOST: return MAX(t->host.mem_align, 1);
	case OP_CMPXCHG16B:
	case OP_FXSAVE:
	case OP_FXSAVE64:
	case OP_FXRSTOR:
	case OP_FXRSTOR64: return 16;
	case OP_XSAVE:
	case OP_XSAVE64:
	case OP_XSAVEC:
	case OP_XSAVEC64:
	case OP_XSAVEOPT:
	case OP_XSAVEOPT64:
	case OP_XRSTOR:
	case OP_XRSTOR64: return 64;
	default: return 1;
	}
}

static void set_low(uint64_t *reg, uint64_t value, unsigned size)
{
	uint64_t mask = size == 8 ? UINT64_MAX : BIT(8 * size) - 1;

	*reg = (*reg & ~mask) | (value & mask);
}

/* Indices of a gather near zero, in the lanes that the opcode says. */
static void gather_indices(struct cases *c, struct test_case *t)
{
	const uint8_t *p = t->bytes;
	unsigned vex = 0, vector;
	bool quads;

	while (p[vex] != 0xc4)
		vex++;
	quads = p[vex + 3] & 1; /* opcodes 90, 92 have dword indices, 91, 93 qword */
	vector = (p[vex + 5] >> 3 & 7) | (p[vex + 1] & 0x40 ? 0 : 8);
	for (unsigned n = 0; n < 4; n++) {
		uint64_t a = (uint64_t)sign_extend(rng_next(&c->rng), rng_one_in(&c->rng, 30) ? 40 : 8);
		uint32_t b = (uint32_t)sign_extend(rng_next(&c->rng), 8);

		t->before.vec[vector][n] = quads ? a : (uint64_t)b << 32 | (uint32_t)a;
	}
}

static bool is_string(enum op op)
{
	return (op >= OP_MOVSB && op <= OP_SCASQ) || op == OP_MOVSD_STRING || op == OP_CMPSD_STRING;
}

static void string_registers(struct cases *c, struct test_case *t)
{
	struct user_state *s = &t->before;
	struct rng *r = &c->rng;
	uint64_t from = segment_address(c, s, t->insn.seg, 1), to, count;
	uint64_t low = t->insn.addrsize == 8 ? UINT64_MAX : t->insn.addrsize == 4 ? UINT32_MAX : 0xffff;
	uint64_t high = rng_next(r) & ~low;

	s->gpr[RSI] = (segment_offset(c->mode, s, t->insn.seg, from) & low) | high;
	to = rng_one_in(r, 4) ? from + rng_below(r, 32) : segment_address(c, s, ES, 1);
	s->gpr[RDI] = (segment_offset(c->mode, s, ES, to) & low) | high;
	count = rng_one_in(r, 6) ? rng_below(r, 300) : rng_below(r, 24);
	if (t->mode != RUN_TRAP && rng_one_in(r, 16))
		count = rng_one_in(r, 2) ? rng_below(r, 6000) : edge_value(r);
	s->gpr[RCX] = (count & low) | high;
}

/* Elements that compare equal for a while. */
static void string_contents(struct cases *c, struct test_case *t)
{
	struct user_state *s = &t->before;
	uint64_t rsi = s->gpr[RSI], rdi = s->gpr[RDI], value = rng_next(&c->rng);

	if (t->insn.addrsize != 8) {
		rsi &= t->insn.addrsize == 4 ? UINT32_MAX : 0xffff;
		rdi &= t->insn.addrsize == 4 ? UINT32_MAX : 0xffff;
	}
	rsi = linear_of(s, t->insn.seg, rsi);
	rdi = linear_of(s, ES, rdi);
	if (rng_one_in(&c->rng, 3))
		return;
	for (unsigned n = 0; n < 16 + rng_below(&c->rng, 100); n++) {
		uint64_t step = 8 * n * (s->rflags & FLAG_DF ? -1ull : 1);

		put_value(c, rsi + step, value, 8);
		put_value(c, rdi + step, value, 8);
	}
	value = (value & 0xff) * 0x0101010101010101;
	if (t->insn.op >= OP_SCASB && t->insn.op <= OP_SCASQ) {
		s->gpr[RAX] = value;
		for (unsigned n = 0; n < rng_below(&c->rng, 30); n++)
			put_value(c, rdi + 8 * n * (s->rflags & FLAG_DF ? -1ull : 1), value, 8);
	}
}

void operands_before(struct cases *c, struct test_case *t)
{
	struct user_state *s = &t->before;
	struct insn *i = &t->insn;
	struct rng *r = &c->rng;

	if (is_string(i->op)) {
		string_registers(c, t);
		string_contents(c, t);
		return;
	}
	switch (i->op) {
	case OP_BT:
	case OP_BTS:
	case OP_BTR:
	case OP_BTC:
		if (i->form == FORM_MR && i->seg >= FS) /* see segment_offset() */
			s->fs_base = s->gs_base = 0;
		if (i->form == FORM_MR && !rng_one_in(r, 10))
			set_low(&s->gpr[i->reg / 8], (uint64_t)sign_extend(rng_next(r), 12), i->opsize);
		break;
	case OP_DIV:
	case OP_IDIV:
		if (!rng_one_in(r, 3))
			s->gpr[RDX] = i->op == OP_IDIV && rng_one_in(r, 2) ? UINT64_MAX
									   : rng_next(r) >> (48 + rng_below(r, 16));
		if (i->opsize == 1)
			s->gpr[RAX] &= 0xfff;
		break;
	case OP_ROL:
	case OP_ROR:
	case OP_RCL:
	case OP_RCR:
	case OP_SHL:
	case OP_SHR:
	case OP_SAR:
	case OP_SHLD:
	case OP_SHRD:
	case OP_BEXTR:
	case OP_BZHI:
	case OP_SARX:
	case OP_SHLX:
	case OP_SHRX:
		if (!rng_one_in(r, 3))
			set_low(&s->gpr[RCX], rng_below(r, 70), 1);
		if (i->op >= OP_BEXTR && !rng_one_in(r, 3))
			set_low(&s->gpr[i->reg2 / 8], (uint64_t)rng_below(r, 70) << 8 | rng_below(r, 70), 2);
		break;
	case OP_JCXZ:
	case OP_JECXZ:
	case OP_JRCXZ:
	case OP_LOOP:
	case OP_LOOPE:
	case OP_LOOPNE:
		if (!rng_one_in(r, 3))
			s->gpr[RCX] = rng_below(r, 3) | (rng_one_in(r, 2) ? rng_next(r) << 32 : 0);
		break;
	case OP_XLAT:
		s->gpr[RBX] =
			segment_offset(c->mode, s, i->seg, segment_address(c, s, i->seg, 1)) - (s->gpr[RAX] & 0xff);
		break;
	case OP_MASKMOV:
		if (t->form->name[0] != 'v' || strstr(t->form->name, "dqu"))
			s->gpr[RDI] = segment_offset(c->mode, s, i->seg, segment_address(c, s, i->seg, 1));
		break;
	case OP_GATHER: gather_indices(c, t); break;
	case OP_LEAVE:
	case OP_ENTER: s->gpr[RBP] = stack_offset(c, s); break;
	case OP_MOV_SREG:
	case OP_VERR:
	case OP_VERW:
		if (i->form == FORM_R && !i->store)
			set_low(&s->gpr[i->reg / 8], selector(r), 2);
		break;
	case OP_LAR:
	case OP_LSL:
		if (!(i->flags & INSN_MEM))
			set_low(&s->gpr[i->rm / 8], selector(r), 2);
		break;
	case OP_WRFSBASE:
	case OP_WRGSBASE:
		if (!rng_one_in(r, 6))
			s->gpr[i->reg / 8] = (uint64_t)sign_extend(s->gpr[i->reg / 8], 48);
		break;
	case OP_XSAVE:
	case OP_XSAVE64:
	case OP_XSAVEC:
	case OP_XSAVEC64:
	case OP_XSAVEOPT:
	case OP_XSAVEOPT64:
	case OP_XRSTOR:
	case OP_XRSTOR64:
		s->gpr[RAX] = rng_one_in(r, 2) ? 7 : rng_next(r) & 7;
		s->gpr[RDX] = 0;
		break;
	case OP_CALL_FAR:
	case OP_JMP_FAR: /* perhaps to 32-bit code, which knows half of RSP */
		s->gpr[RSP] = segment_offset(c->mode, s, SS, STACK + 1024 + rng_below(r, 2048));
		break;
	case OP_CALL:
	case OP_JMP:
		if (i->form == FORM_R)
			s->gpr[i->reg / 8] = branch_target(r, t);
		break;
	case OP_HOST: /* lengths of PCMPESTRI and PCMPESTRM */
		if (strstr(t->form->name, "pcmpestr")) {
			s->gpr[RAX] = (uint64_t)sign_extend(rng_next(r), 6);
			s->gpr[RDX] = (uint64_t)sign_extend(rng_next(r), 6);
		}
		break;
	default: break;
	}
}

/* ---- branches ---- */

/*
 * No way to 64-bit code from stacks other than flat ones: behind an IRET to a 16-bit stack Linux lets the upper half of RSP be an address
 * of its own (espfix), which only 64-bit code can use; and whether a call's pushes still have the old base no manual says.
 */
static uint16_t far_selector(struct rng *r, const struct test_case *t)
{
	uint16_t to = selector(r);

	return (t->before.sel[SS] & 4) && (segment_of(to).attr & ATTR_L) ? t->before.sel[CS] : to;
}

/* An offset of `size` bytes, then a selector. Only one of them is bad: which is found first is the processor's business. */
static void far_pointer(struct cases *c, struct test_case *t, uint64_t at, unsigned size)
{
	bool good = rng_one_in(&c->rng, 2);
	uint16_t to = good ? t->before.sel[CS] : far_selector(&c->rng, t);

	put_value(c, at, good ? branch_target(&c->rng, t) : good_target(&c->rng, to), size);
	put_value(c, at + size, to, 2);
}

/* The same, in the instruction. */
static void far_immediate(struct cases *c, struct test_case *t)
{
	bool good = rng_one_in(&c->rng, 2);
	uint16_t to = good ? t->before.sel[CS] : far_selector(&c->rng, t);
	uint64_t target = good ? branch_target(&c->rng, t) : good_target(&c->rng, to);

	memcpy(t->bytes + c->body, &target, t->insn.opsize);
	store_le16(t->bytes + c->body + t->insn.opsize, to);
	cpu_decode(c->model, c->mode, t->bytes, 15, 0, &t->insn, NULL);
}

/* Flags that POPF and IRET may meet: single step is the one that ends cases elsewhere. */
static uint64_t popped_flags(struct rng *r) { return rng_next(r) & 0x3fffff & ~(rng_one_in(r, 8) ? 0 : FLAG_TF); }

/* A frame with one bad thing at most. */
static void iret_frame(struct cases *c, struct test_case *t)
{
	enum { RIP_ANY = 4, CS_ANY, SS_ANY, RSP_ANY };
	struct rng *r = &c->rng;
	unsigned n = t->insn.opsize, what = rng_below(r, 8);
	uint64_t at = stack_top(&t->before);

	put_value(c, at, what == RIP_ANY ? branch_target(r, t) : good_target(r, t->before.sel[CS]), n);
	put_value(c, at + n, what == CS_ANY ? far_selector(r, t) : t->before.sel[CS], n);
	put_value(c, at + 2 * n, popped_flags(r) & ~(FLAG_VM | FLAG_TF), n);
	put_value(c, at + 3 * n, what == RSP_ANY ? edge_value(r) : STACK + rng_below(r, STACK_SIZE), n);
	put_value(c, at + 4 * n, what == SS_ANY ? selector(r) : t->before.sel[SS], n);
}

/* A direct branch: not onto the instruction itself. */
static bool branch_direct(struct cases *c, struct test_case *t)
{
	struct insn *i = &t->insn;
	uint64_t target;

	if (t->len - c->body > 1 && !rng_one_in(&c->rng, 3)) {
		uint32_t offset = (uint32_t)(branch_target(&c->rng, t) - (t->before.rip + t->len));

		memcpy(t->bytes + c->body, &offset, t->len - c->body);
		cpu_decode(c->model, c->mode, t->bytes, 15, 0, i, NULL);
	}
	target = t->before.rip + t->len + i->imm;
	if (c->mode != MODE_64)
		target = (uint32_t)target;
	return target - t->before.rip >= t->len && (uint16_t)(target - t->before.rip) >= t->len;
}

/* LOOPE and LOOPNE with F2 or F3 are beyond the manuals, and AMD's processors take them for each other. */
static bool reserved_prefix(const struct insn *i)
{
	for (unsigned n = 0; n + 1u < i->len && i->op >= OP_LOOPE && i->op <= OP_LOOPNE; n++)
		if (i->bytes[n] == 0xf2 || i->bytes[n] == 0xf3)
			return true;
	return false;
}

static bool is_direct_branch(const struct insn *i)
{
	return i->form == FORM_I && i->op >= OP_CALL && i->op <= OP_LOOPNE && i->op != OP_RET;
}

/* ---- the rest ---- */

static void compare_equal(struct cases *c, struct test_case *t)
{
	struct user_state *s = &t->before;
	const struct insn *i = &t->insn;
	bool mem = i->flags & INSN_MEM;

	if (rng_one_in(&c->rng, 2))
		return;
	if (i->op == OP_CMPXCHG) {
		uint64_t value = mem ? peek_value(c, c->target, i->opsize) : s->gpr[i->reg / 8] >> 8 * (i->reg & 7);

		if (!mem && i->reg / 8 == RAX)
			return;
		set_low(&s->gpr[RAX], value, i->opsize);
		return;
	}
	unsigned half = i->op == OP_CMPXCHG8B ? 4 : 8;
	uint64_t lo = s->gpr[RAX], hi = s->gpr[RDX];

	put_value(c, c->target, lo, half);
	put_value(c, c->target + half, hi, half);
}

void element_values(struct cases *c)
{
	enum lanes kind = rng_below(&c->rng, LANES_KINDS);

	for (unsigned n = 0; n < 8; n++)
		put_value(c, c->target + 8 * n, lane_value(&c->rng, kind), 8);
}

/* MOV between the accumulator and an address that the instruction has in place of an immediate. */
static bool is_absolute(const struct cases *c, const struct test_case *t)
{
	return t->insn.form != FORM_MI && (t->insn.flags & INSN_MEM) && t->len > c->body;
}

bool operands_after(struct cases *c, struct test_case *t)
{
	struct user_state *s = &t->before;
	const struct insn *i = &t->insn;
	struct rng *r = &c->rng;
	uint64_t sp = stack_top(s);

	if (is_direct_branch(i))
		return !reserved_prefix(i) && branch_direct(c, t);
	if ((i->flags & INSN_MEM) && !is_string(i->op))
		element_values(c);
	switch (i->op) {
	case OP_CMPXCHG:
	case OP_CMPXCHG8B:
	case OP_CMPXCHG16B: compare_equal(c, t); break;
	case OP_MOV:
		if (is_absolute(c, t) && (i->seg >= FS || !rng_one_in(r, 8))) {
			uint64_t offset = segment_offset(c->mode, s, i->seg, c->target);

			memcpy(t->bytes + c->body, &offset, MIN(t->len - c->body, sizeof(offset)));
			cpu_decode(c->model, c->mode, t->bytes, 15, 0, &t->insn, NULL);
		}
		break;
	case OP_CALL:
	case OP_JMP:
		if (i->flags & INSN_MEM)
			put_value(c, c->target, branch_target(r, t), 8);
		break;
	case OP_RET: put_value(c, sp, branch_target(r, t), i->opsize); break;
	case OP_JMP_FAR:
	case OP_CALL_FAR:
		if (!(i->flags & INSN_MEM)) {
			far_immediate(c, t);
			break;
		}
		/* fall through */
	case OP_LDS:
	case OP_LES:
	case OP_LFS:
	case OP_LGS:
	case OP_LSS: far_pointer(c, t, c->target, i->srcsize); break;
	case OP_BOUND:
		put_value(c, c->target, edge_value(r) >> 33, i->opsize);
		put_value(c, c->target + i->opsize, edge_value(r) >> 33, i->opsize);
		break;
	case OP_RET_FAR:
		if (t->len - c->body == 2)
			store_le16(t->bytes + c->body, (uint16_t)rng_below(r, 600));
		cpu_decode(c->model, c->mode, t->bytes, 15, 0, &t->insn, NULL);
		far_pointer(c, t, sp, i->opsize);
		break;
	case OP_IRET:
	case OP_IRETD:
	case OP_IRETQ: iret_frame(c, t); break;
	case OP_POPF:
	case OP_POPFD:
	case OP_POPFQ: put_value(c, sp, popped_flags(r), i->opsize); break;
	case OP_PUSHF:
	case OP_PUSHFD:
	case OP_PUSHFQ:
		if (t->mode == RUN_TRAP && !(s->rflags & FLAG_TF)) /* TF is among them */
			t->mode = RUN_BUDGET;
		break;
	case OP_ENTER:
		store_le16(t->bytes + c->body, (uint16_t)(rng_one_in(r, 4) ? rng_next(r) : rng_below(r, 600)));
		cpu_decode(c->model, c->mode, t->bytes, 15, 0, &t->insn, NULL);
		break;
	case OP_INT: return (i->imm & 0xff) != 0x80; /* the host's system calls */
	case OP_MOV_SREG:
	case OP_LAR:
	case OP_LSL:
	case OP_VERR:
	case OP_VERW:
		if (i->flags & INSN_MEM)
			put_value(c, c->target, selector(r), 2);
		break;
	case OP_POP_SREG: put_value(c, sp, selector(r), 2); break;
	case OP_LDMXCSR:
	case OP_VLDMXCSR:
		put_value(c, c->target, rng_next(r) & (rng_one_in(r, 4) ? ~c->traits.mxcsr_mask | 0xffff : 0xffff), 4);
		break;
	case OP_FLDENV:
	case OP_FRSTOR: fix_environment(c, c->target, i->opsize == 2 ? 2 : 4); break;
	case OP_FXRSTOR:
	case OP_FXRSTOR64: fix_fxsave(c, c->target); break;
	case OP_XRSTOR:
	case OP_XRSTOR64: fix_xsave(c, c->target); break;
	default: break;
	}
	return true;
}
