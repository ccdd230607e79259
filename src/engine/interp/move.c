/* Moves, conversions, exchanges, stack operations: what writes no status flags or all of them by a comparison. */
#include "engine/interp/interp.h"

/* Macros that make functions, which the formatter takes for expressions. */
/* clang-format off */

/* ---- MOV, MOVZX, MOVSX, LEA ---- */

#define MOV(N)                                                                                                         \
	static HANDLER(mov_rr_##N)                                                                                     \
	{                                                                                                              \
		SET##N(i->reg, REG##N(v, i->rm));                                                                      \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static HANDLER(mov_ri_##N)                                                                                     \
	{                                                                                                              \
		SET##N(i->reg, i->imm);                                                                                \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static HANDLER(mov_rm_##N)                                                                                     \
	{                                                                                                              \
		SET##N(i->reg, LOAD(N));                                                                               \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static HANDLER(mov_mr_##N)                                                                                     \
	{                                                                                                              \
		STORE(N, REG##N(v, i->reg));                                                                           \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static HANDLER(mov_mi_##N)                                                                                     \
	{                                                                                                              \
		STORE(N, (u##N)i->imm);                                                                                \
		NEXT;                                                                                                  \
	}                                                                                                              \
	/* accumulator to or from an absolute 64-bit address */                                                       \
	static HANDLER(mov_moffs_##N)                                                                                  \
	{                                                                                                              \
		uint64_t lin;                                                                                          \
		v->current = i;                                                                                        \
		lin = cpu_linear(v, i->seg, i->imm, N / 8, i->store ? ACCESS_WRITE : ACCESS_READ);                     \
		if (i->store)                                                                                          \
			cpu_store(v, lin, REG##N(v, i->reg), N / 8, i->seg == SS);                                     \
		else                                                                                                   \
			SET##N(i->reg, cpu_load(v, lin, N / 8, i->seg == SS));                                         \
		NEXT;                                                                                                  \
	}
MOV(8) MOV(16) MOV(32) MOV(64)

/* MOVZX and MOVSX by source S and destination D; MOVSXD is MOVSX from 32 bits. */
#define EXTEND(name, type, S, D)                                                                                       \
	static HANDLER(name##_rr_##S##_##D)                                                                            \
	{                                                                                                              \
		SET##D(i->reg, (type##D)(type##S)REG##S(v, i->rm));                                                    \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static HANDLER(name##_rm_##S##_##D)                                                                            \
	{                                                                                                              \
		SET##D(i->reg, (type##D)(type##S)LOAD(S));                                                             \
		NEXT;                                                                                                  \
	}
#define EXTENDS(name, type)                                                                                            \
	EXTEND(name, type, 8, 16) EXTEND(name, type, 8, 32) EXTEND(name, type, 8, 64) EXTEND(name, type, 16, 16)       \
	EXTEND(name, type, 16, 32) EXTEND(name, type, 16, 64) EXTEND(name, type, 32, 32) EXTEND(name, type, 32, 64)    \
	EXTEND(name, type, 32, 16)
EXTENDS(movzx, u)
EXTENDS(movsx, s)

#define LEA(N)                                                                                                         \
	static HANDLER(lea_##N)                                                                                        \
	{                                                                                                              \
		SET##N(i->reg, cpu_ea(v, i));                                                                          \
		NEXT;                                                                                                  \
	}
LEA(16) LEA(32) LEA(64)

static handler_fn *select_extend(const struct insn *i, bool sign)
{
#define COLUMN(name, form, D) { name##_##form##_8_##D, name##_##form##_16_##D, name##_##form##_32_##D }
#define TABLE(name, form)                                                                                              \
	{                                                                                                              \
		COLUMN(name, form, 16), COLUMN(name, form, 32), COLUMN(name, form, 64)                                 \
	}
	static handler_fn *const table[2][2][3][3] = {
		{ TABLE(movzx, rr), TABLE(movzx, rm) },
		{ TABLE(movsx, rr), TABLE(movsx, rm) },
	};

	unsigned to = size_index(i->opsize), from = size_index(i->srcsize);

	if (!to || from > 2)
		return NULL;
	return table[sign][i->form == FORM_RM][to - 1][from];
}

/* ---- XCHG, XADD, CMPXCHG ---- */

#define EXCHANGE(N)                                                                                                    \
	static HANDLER(xchg_rr_##N)                                                                                    \
	{                                                                                                              \
		u##N a = REG##N(v, i->reg), b = REG##N(v, i->rm);                                                      \
		SET##N(i->reg, b);                                                                                     \
		SET##N(i->rm, a);                                                                                      \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static uint64_t xchg_calc_##N(struct vcpu *v, const struct insn *i, uint64_t old)                              \
	{                                                                                                              \
		u##N new = REG##N(v, i->reg);                                                                          \
		SET##N(i->reg, old);                                                                                   \
		return new;                                                                                            \
	}                                                                                                              \
	static HANDLER(xchg_mr_##N)                                                                                    \
	{                                                                                                              \
		uint64_t lin = operand(v, i, N / 8, ACCESS_WRITE);                                                     \
		void *p = cpu_rmw(v, lin, N / 8, i->seg == SS);                                                        \
		if (unlikely(!p) || splits_lock(v, lin, N / 8))                                                                                      \
			interp_rmw_slow(v, i, lin, N / 8, xchg_calc_##N);                                              \
		else                                                                                                   \
			SET##N(i->reg, __atomic_exchange_n((u##N *)p, REG##N(v, i->reg), __ATOMIC_SEQ_CST));           \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static inline u##N add_flags_##N(struct vcpu *v, u##N a, u##N b)                                               \
	{                                                                                                              \
		u16 st;                                                                                                \
		__asm__("add %[b], %[a]\n\tlahf\n\tseto %%al" : [a] "+r"(a), [st] "=&a"(st) : [b] "r"(b) : "cc");      \
		v->status = st;                                                                                        \
		return a;                                                                                              \
	}                                                                                                              \
	static inline void cmp_flags_##N(struct vcpu *v, u##N a, u##N b)                                               \
	{                                                                                                              \
		u16 st;                                                                                                \
		__asm__("cmp %[b], %[a]\n\tlahf\n\tseto %%al" : [st] "=&a"(st) : [a] "r"(a), [b] "r"(b) : "cc");       \
		v->status = st;                                                                                        \
	}                                                                                                              \
	static HANDLER(xadd_rr_##N)                                                                                    \
	{                                                                                                              \
		u##N a = REG##N(v, i->reg), b = REG##N(v, i->rm);                                                      \
		SET##N(i->rm, a);                                                                                      \
		SET##N(i->reg, add_flags_##N(v, a, b));                                                                \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static uint64_t xadd_calc_##N(struct vcpu *v, const struct insn *i, uint64_t old)                              \
	{                                                                                                              \
		u##N sum = add_flags_##N(v, (u##N)old, REG##N(v, i->reg));                                             \
		SET##N(i->reg, old);                                                                                   \
		return sum;                                                                                            \
	}                                                                                                              \
	static HANDLER(xadd_mr_##N)                                                                                    \
	{                                                                                                              \
		uint64_t lin = operand(v, i, N / 8, ACCESS_WRITE);                                                     \
		void *p = cpu_rmw(v, lin, N / 8, i->seg == SS);                                                        \
		if (unlikely(!p) || splits_lock(v, lin, N / 8)) {                                                                                    \
			interp_rmw_slow(v, i, lin, N / 8, xadd_calc_##N);                                              \
		} else {                                                                                               \
			u##N b = REG##N(v, i->reg), a = __atomic_fetch_add((u##N *)p, b, __ATOMIC_SEQ_CST);            \
			add_flags_##N(v, a, b);                                                                        \
			SET##N(i->reg, a);                                                                             \
		}                                                                                                      \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static HANDLER(cmpxchg_rr_##N)                                                                                 \
	{                                                                                                              \
		u##N dst = REG##N(v, i->reg), expected = REG##N(v, 8 * RAX);                                           \
		cmp_flags_##N(v, expected, dst);                                                                       \
		if (dst == expected)                                                                                   \
			SET##N(i->reg, REG##N(v, i->rm));                                                              \
		else                                                                                                   \
			SET##N(8 * RAX, dst);                                                                          \
		NEXT;                                                                                                  \
	}                                                                                                              \
	/* The destination is written in both cases, as the manual says: with its old value when they differ. */       \
	static uint64_t cmpxchg_calc_##N(struct vcpu *v, const struct insn *i, uint64_t old)                           \
	{                                                                                                              \
		u##N expected = REG##N(v, 8 * RAX);                                                                    \
		cmp_flags_##N(v, expected, (u##N)old);                                                                 \
		if ((u##N)old == expected)                                                                             \
			return REG##N(v, i->reg);                                                                      \
		SET##N(8 * RAX, old);                                                                                  \
		return old;                                                                                            \
	}                                                                                                              \
	static HANDLER(cmpxchg_mr_##N)                                                                                 \
	{                                                                                                              \
		uint64_t lin = operand(v, i, N / 8, ACCESS_WRITE);                                                     \
		void *p = cpu_rmw(v, lin, N / 8, i->seg == SS);                                                        \
		if (unlikely(!p) || splits_lock(v, lin, N / 8)) {                                                                                    \
			interp_rmw_slow(v, i, lin, N / 8, cmpxchg_calc_##N);                                           \
		} else {                                                                                               \
			u##N expected = REG##N(v, 8 * RAX), found = expected;                                          \
			bool same = __atomic_compare_exchange_n((u##N *)p, &found, REG##N(v, i->reg), false,           \
								__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);           \
			cmp_flags_##N(v, expected, found);                                                             \
			if (!same)                                                                                     \
				SET##N(8 * RAX, found);                                                                \
		}                                                                                                      \
		NEXT;                                                                                                  \
	}
EXCHANGE(8) EXCHANGE(16) EXCHANGE(32) EXCHANGE(64)

static void set_zf(struct vcpu *v, bool zero)
{
	v->status = (u16)(zero ? v->status | 0x4000u : v->status & ~0x4000u);
}

static uint64_t cmpxchg8b_calc(struct vcpu *v, const struct insn *i, uint64_t old)
{
	uint64_t expected = (uint64_t)REG32(v, 8 * RDX) << 32 | REG32(v, 8 * RAX);

	(void)i;
	set_zf(v, old == expected);
	if (old == expected)
		return (uint64_t)REG32(v, 8 * RCX) << 32 | REG32(v, 8 * RBX);
	SET32(8 * RAX, old);
	SET32(8 * RDX, old >> 32);
	return old;
}

static HANDLER(cmpxchg8b)
{
	uint64_t lin = operand(v, i, 8, ACCESS_WRITE);
	uint64_t *p = cpu_rmw(v, lin, 8, i->seg == SS);
	uint64_t found = (uint64_t)REG32(v, 8 * RDX) << 32 | REG32(v, 8 * RAX);

	if (unlikely(!p) || splits_lock(v, lin, 8)) {
		interp_rmw_slow(v, i, lin, 8, cmpxchg8b_calc);
		NEXT;
	}
	bool same = __atomic_compare_exchange_n(p, &found, (uint64_t)REG32(v, 8 * RCX) << 32 | REG32(v, 8 * RBX), false,
						__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	set_zf(v, same);
	if (!same) {
		SET32(8 * RAX, found);
		SET32(8 * RDX, found >> 32);
	}
	NEXT;
}

struct cmpxchg16b_request {
	uint64_t lin;
	bool ss;
};

static void cmpxchg16b_now(struct vcpu *v, void *arg)
{
	const struct cmpxchg16b_request *r = arg;
	uint64_t lo = cpu_load_slow(v, r->lin, 8, r->ss), hi = cpu_load_slow(v, r->lin + 8, 8, r->ss);
	bool same = lo == REG64(v, 8 * RAX) && hi == REG64(v, 8 * RDX);

	cpu_store_slow(v, r->lin, same ? REG64(v, 8 * RBX) : lo, 8, r->ss);
	cpu_store_slow(v, r->lin + 8, same ? REG64(v, 8 * RCX) : hi, 8, r->ss);
	set_zf(v, same);
	if (!same) {
		REG64(v, 8 * RAX) = lo;
		REG64(v, 8 * RDX) = hi;
	}
}

static HANDLER(cmpxchg16b)
{
	uint64_t lin = operand(v, i, 16, ACCESS_WRITE);
	bool ss = i->seg == SS, same;
	void *p;

	if (lin & 15)
		cpu_raise_error(v, EXC_GP, 0);
	p = cpu_rmw(v, lin, 16, ss);
	if (unlikely(!p)) {
		struct cmpxchg16b_request r = { lin, ss };

		cpu_probe_write(v, lin, 8, ss); /* aligned: one page */
		cpu_exclusive(v, cmpxchg16b_now, &r);
		NEXT;
	}
	uint64_t lo = REG64(v, 8 * RAX), hi = REG64(v, 8 * RDX);
	__asm__ volatile("lock cmpxchg16b %[m]\n\tsetz %[same]"
			 : [m] "+m"(*(__int128 *)p), "+a"(lo), "+d"(hi), [same] "=q"(same)
			 : "b"(REG64(v, 8 * RBX)), "c"(REG64(v, 8 * RCX))
			 : "cc", "memory");
	set_zf(v, same);
	if (!same) {
		REG64(v, 8 * RAX) = lo;
		REG64(v, 8 * RDX) = hi;
	}
	NEXT;
}

/* ---- the stack ---- */

/* 64-bit mode: the stack segment is flat. rsp changes after the access, so that a fault leaves it alone. */
static HANDLER(push_r_64)
{
	uint64_t rsp = REG64(v, 8 * RSP) - 8;

	v->current = i;
	cpu_store(v, rsp, REG64(v, i->reg), 8, true);
	REG64(v, 8 * RSP) = rsp;
	NEXT;
}

static HANDLER(pop_r_64)
{
	uint64_t rsp = REG64(v, 8 * RSP), value;

	v->current = i;
	value = cpu_load(v, rsp, 8, true);
	REG64(v, 8 * RSP) = rsp + 8;
	REG64(v, i->reg) = value;
	NEXT;
}

static HANDLER(push_any)
{
	uint64_t value;

	v->current = i;
	switch (i->form) {
	case FORM_R: value = cpu_reg(v, i->reg, i->opsize); break;
	case FORM_I: value = i->imm; break;
	default: value = cpu_load(v, operand(v, i, i->opsize, ACCESS_READ), i->opsize, i->seg == SS); break;
	}
	cpu_push(v, value, i->opsize);
	NEXT;
}

static HANDLER(pop_any)
{
	uint64_t rsp = REG64(v, 8 * RSP), value, popped;

	v->current = i;
	value = cpu_pop(v, i->opsize);
	if (i->form == FORM_R) {
		cpu_set_reg(v, i->reg, i->opsize, value);
		NEXT;
	}
	/* A memory destination is addressed with rSP as it is after the pop, and a fault there undoes the pop. */
	popped = REG64(v, 8 * RSP);
	uint64_t ea = cpu_ea(v, i);
	REG64(v, 8 * RSP) = rsp;
	cpu_store(v, cpu_linear(v, i->seg, ea, i->opsize, ACCESS_WRITE), value, i->opsize, i->seg == SS);
	REG64(v, 8 * RSP) = popped;
	NEXT;
}

static void set_stack_pointer(struct vcpu *v, unsigned off, uint64_t value)
{
	cpu_set_reg(v, off, v->stack_size, value);
}

static HANDLER(leave)
{
	uint64_t value;

	v->current = i;
	/* The pop reads where rBP points; a fault must find rSP as it was. */
	value = cpu_load(v, cpu_linear(v, SS, cpu_reg(v, 8 * RBP, v->stack_size), i->opsize, ACCESS_READ), i->opsize, true);
	set_stack_pointer(v, 8 * RSP, cpu_reg(v, 8 * RBP, v->stack_size) + i->opsize);
	cpu_set_reg(v, 8 * RBP, i->opsize, value);
	NEXT;
}

static HANDLER(enter)
{
	unsigned size = i->imm & 0xffff, level = (unsigned)(i->imm >> 16) & 31, n = i->opsize;
	uint64_t rbp = REG64(v, 8 * RBP), sp = cpu_reg(v, 8 * RSP, v->stack_size), frame;
	uint64_t mask = v->stack_size == 8 ? UINT64_MAX : v->stack_size == 4 ? UINT32_MAX : 0xffff;

	v->current = i;
	sp = (sp - n) & mask;
	cpu_store(v, cpu_linear(v, SS, sp, n, ACCESS_WRITE), rbp, n, true);
	/* The operand's size of the register, of which a smaller stack pointer is the lower part. */
	frame = (REG64(v, 8 * RSP) & ~mask) | sp;
	for (unsigned k = 1; k < level; k++) {
		uint64_t from = (rbp - (uint64_t)k * n) & mask;
		uint64_t outer = cpu_load(v, cpu_linear(v, SS, from, n, ACCESS_READ), n, true);

		sp = (sp - n) & mask;
		cpu_store(v, cpu_linear(v, SS, sp, n, ACCESS_WRITE), outer, n, true);
	}
	if (level) {
		sp = (sp - n) & mask;
		cpu_store(v, cpu_linear(v, SS, sp, n, ACCESS_WRITE), frame, n, true);
	}
	sp = (sp - size) & mask;
	/* The new top of the stack must be writable, or the instruction faults as a whole. */
	cpu_probe_write(v, cpu_linear(v, SS, sp, n, ACCESS_WRITE), n, true);
	cpu_set_reg(v, 8 * RBP, n, frame);
	set_stack_pointer(v, 8 * RSP, sp);
	NEXT;
}

/* PUSHA and POPA: everything is checked before rSP moves, in the order in which it is pushed or popped. */
static HANDLER(pusha)
{
	uint64_t mask = v->stack_size == 4 ? UINT32_MAX : 0xffff, sp = cpu_reg(v, 8 * RSP, v->stack_size);
	unsigned n = i->opsize;

	v->current = i;
	for (unsigned k = 1; k <= 8; k++) {
		uint64_t at = (sp - (uint64_t)k * n) & mask;

		cpu_probe_write(v, cpu_linear(v, SS, at, n, ACCESS_WRITE), n, true);
	}
	for (unsigned k = 0; k < 8; k++) {
		uint64_t at = (sp - (uint64_t)(k + 1) * n) & mask;

		cpu_store(v, cpu_linear(v, SS, at, n, ACCESS_WRITE), cpu_reg(v, 8 * k, n), n, true);
	}
	set_stack_pointer(v, 8 * RSP, sp - 8 * n);
	NEXT;
}

static HANDLER(popa)
{
	uint64_t mask = v->stack_size == 4 ? UINT32_MAX : 0xffff, sp = cpu_reg(v, 8 * RSP, v->stack_size), value[8];
	unsigned n = i->opsize;

	v->current = i;
	for (unsigned k = 8; k--;) {
		uint64_t at = (sp + (uint64_t)(7 - k) * n) & mask;

		value[k] = cpu_load(v, cpu_linear(v, SS, at, n, ACCESS_READ), n, true);
	}
	for (unsigned k = 0; k < 8; k++)
		if (k != RSP)
			cpu_set_reg(v, 8 * k, n, value[k]);
	set_stack_pointer(v, 8 * RSP, sp + 8 * n);
	NEXT;
}

/* ---- conversions and the rest ---- */

static HANDLER(cbw) { REG16(v, 8 * RAX) = (u16)(s8)REG8(v, 8 * RAX); NEXT; }
static HANDLER(cwde) { SET32(8 * RAX, (s16)REG16(v, 8 * RAX)); NEXT; }
static HANDLER(cdqe) { REG64(v, 8 * RAX) = (u64)(s32)REG32(v, 8 * RAX); NEXT; }
static HANDLER(cwd) { REG16(v, 8 * RDX) = (s16)REG16(v, 8 * RAX) < 0 ? 0xffff : 0; NEXT; }
static HANDLER(cdq) { SET32(8 * RDX, (s32)REG32(v, 8 * RAX) < 0 ? UINT32_MAX : 0); NEXT; }
static HANDLER(cqo) { REG64(v, 8 * RDX) = (s64)REG64(v, 8 * RAX) < 0 ? UINT64_MAX : 0; NEXT; }

static HANDLER(nop) { NEXT; }

static HANDLER(pause)
{
	v->current = i;
	if (v->env->pause)
		v->env->pause(v);
	if (atomic_load_explicit(&v->events, memory_order_relaxed))
		return interp_leave_behind(v, i);
	NEXT;
}

static HANDLER(fence)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	NEXT;
}

/* CLFLUSH and its kin are reads, of execute-only segments too (SDM vol. 2); host caches are coherent with everything. */
static HANDLER(clflush)
{
	cpu_load(v, operand(v, i, 1, ACCESS_FETCH), 1, i->seg == SS);
	NEXT;
}

static uint64_t byte_swap(uint64_t value, unsigned size)
{
	return size == 8 ? __builtin_bswap64(value) : size == 4 ? __builtin_bswap32((u32)value) : __builtin_bswap16((u16)value);
}

static HANDLER(movbe_rm)
{
	uint64_t value = cpu_load(v, operand(v, i, i->opsize, ACCESS_READ), i->opsize, i->seg == SS);

	cpu_set_reg(v, i->reg, i->opsize, byte_swap(value, i->opsize));
	NEXT;
}

static HANDLER(movbe_mr)
{
	uint64_t value = byte_swap(cpu_reg(v, i->reg, i->opsize), i->opsize);

	cpu_store(v, operand(v, i, i->opsize, ACCESS_WRITE), value, i->opsize, i->seg == SS);
	NEXT;
}

static HANDLER(bswap)
{
	/* With 16-bit operands the manual leaves the result undefined; processors give zero. */
	uint64_t value = i->opsize == 2 ? 0 : byte_swap(cpu_reg(v, i->reg, i->opsize), i->opsize);

	cpu_set_reg(v, i->reg, i->opsize, value);
	NEXT;
}

static HANDLER(xlat)
{
	uint64_t ea = cpu_reg(v, 8 * RBX, i->addrsize) + REG8(v, 8 * RAX);

	v->current = i;
	if (i->addrsize != 8)
		ea = i->addrsize == 4 ? (u32)ea : (u16)ea;
	REG8(v, 8 * RAX) = (u8)cpu_load(v, cpu_linear(v, i->seg, ea, 1, ACCESS_READ), 1, i->seg == SS);
	NEXT;
}

/* ---- selection ---- */


static handler_fn *select_mov(const struct insn *i)
{
	static handler_fn *const table[][4] = {
		[FORM_RR] = BY_SIZE(mov_rr), [FORM_RI] = BY_SIZE(mov_ri), [FORM_RM] = BY_SIZE(mov_rm),
		[FORM_MR] = BY_SIZE(mov_mr), [FORM_MI] = BY_SIZE(mov_mi), [FORM_OTHER] = BY_SIZE(mov_moffs),
	};

	return table[i->form][size_index(i->opsize)];
}

static handler_fn *by_form(const struct insn *i, handler_fn *const rr[4], handler_fn *const mr[4])
{
	return (i->form == FORM_MR ? mr : rr)[size_index(i->opsize)];
}

handler_fn *select_move(const struct insn *i)
{
	static handler_fn *const xchg_rr[] = BY_SIZE(xchg_rr), *const xchg_mr[] = BY_SIZE(xchg_mr);
	static handler_fn *const xadd_rr[] = BY_SIZE(xadd_rr), *const xadd_mr[] = BY_SIZE(xadd_mr);
	static handler_fn *const cmpxchg_rr[] = BY_SIZE(cmpxchg_rr), *const cmpxchg_mr[] = BY_SIZE(cmpxchg_mr);
	static handler_fn *const lea[] = { NULL, lea_16, lea_32, lea_64 };

	switch (i->op) {
	case OP_MOV: return select_mov(i);
	case OP_MOVNTI: return select_mov(i);
	case OP_MOVZX: return select_extend(i, false);
	case OP_MOVSX:
	case OP_MOVSXD: return select_extend(i, true);
	case OP_LEA: return lea[size_index(i->opsize)];
	case OP_XCHG: return by_form(i, xchg_rr, xchg_mr);
	case OP_XADD: return by_form(i, xadd_rr, xadd_mr);
	case OP_CMPXCHG: return by_form(i, cmpxchg_rr, cmpxchg_mr);
	case OP_CMPXCHG8B: return cmpxchg8b;
	case OP_CMPXCHG16B: return cmpxchg16b;
	/* PUSH and POP of 8 bytes exist in 64-bit mode only. */
	case OP_PUSH: return i->form == FORM_R && i->opsize == 8 ? push_r_64 : push_any;
	case OP_POP: return i->form == FORM_R && i->opsize == 8 ? pop_r_64 : pop_any;
	case OP_PUSHA:
	case OP_PUSHAD: return pusha;
	case OP_POPA:
	case OP_POPAD: return popa;
	case OP_ENTER: return enter;
	case OP_LEAVE: return leave;
	case OP_CBW: return cbw;
	case OP_CWDE: return cwde;
	case OP_CDQE: return cdqe;
	case OP_CWD: return cwd;
	case OP_CDQ: return cdq;
	case OP_CQO: return cqo;
	case OP_PAUSE: return pause;
	case OP_LFENCE:
	case OP_MFENCE:
	case OP_SFENCE: return fence;
	case OP_CLFLUSH:
	case OP_CLFLUSHOPT:
	case OP_CLWB: return clflush;
	case OP_MOVBE: return i->form == FORM_RM ? movbe_rm : movbe_mr;
	case OP_BSWAP: return bswap;
	case OP_XLAT: return xlat;
	case OP_NOP:
	case OP_PREFETCH:
	case OP_PREFETCHW:
	case OP_PREFETCHNTA:
	case OP_PREFETCHT0:
	case OP_PREFETCHT1:
	case OP_PREFETCHT2:
	case OP_ENDBR32:
	case OP_ENDBR64: return nop;
	default: return NULL;
	}
}
