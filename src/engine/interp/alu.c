/*
 * Arithmetic and logic: each operation is the host's own instruction on the guest's values, so that its flags are the
 * host's, undefined ones too. The status word keeps them as LAHF and SETO leave them (see struct vcpu).
 */
#include "engine/interp/interp.h"

/* Macros that make functions, which the formatter takes for expressions. */
/* clang-format off */

/* Before one: CF alone from the status word (bit 8), or SF ZF AF PF CF; OF needs no loading where it is overwritten. */
#define LOAD_CF	   "btl $8, %k[st]\n\t"


/* dst = dst OP src */
#define CALC_BINARY(name, N, text)                                                                                     \
	static inline u##N name##_##N(struct vcpu *v, u##N a, u##N b)                                                  \
	{                                                                                                              \
		u16 st;                                                                                                \
		__asm__(text SUFFIX_##N " %" OPERAND_##N "[b], %" OPERAND_##N "[a]\n\t" SAVE_FLAGS                     \
			: [a] "+r"(a), [st] "=&a"(st)                                                                  \
			: [b] "r"(b)                                                                                   \
			: "cc");                                                                                       \
		v->status = st;                                                                                        \
		return a;                                                                                              \
	}

#define CALC_BINARY_CARRY(name, N, text)                                                                               \
	static inline u##N name##_##N(struct vcpu *v, u##N a, u##N b)                                                  \
	{                                                                                                              \
		u16 st = v->status;                                                                                    \
		__asm__(LOAD_CF text SUFFIX_##N " %" OPERAND_##N "[b], %" OPERAND_##N "[a]\n\t" SAVE_FLAGS             \
			: [a] "+r"(a), [st] "+&a"(st)                                                                  \
			: [b] "r"(b)                                                                                   \
			: "cc");                                                                                       \
		v->status = st;                                                                                        \
		return a;                                                                                              \
	}

/* One operand; CF goes in, so that INC and DEC keep it. */
#define CALC_UNARY(name, N, text)                                                                                      \
	static inline u##N name##_##N(struct vcpu *v, u##N a)                                                          \
	{                                                                                                              \
		u16 st = v->status;                                                                                    \
		__asm__(LOAD_CF text SUFFIX_##N " %" OPERAND_##N "[a]\n\t" SAVE_FLAGS                                  \
			: [a] "+r"(a), [st] "+&a"(st)                                                                  \
			:                                                                                              \
			: "cc");                                                                                       \
		v->status = st;                                                                                        \
		return a;                                                                                              \
	}

/* Handlers of OP dst, src with a result. */
#define HANDLERS_BINARY(name, N)                                                                                       \
	static HANDLER(name##_rr_##N)                                                                                  \
	{                                                                                                              \
		SET##N(i->reg, name##_##N(v, REG##N(v, i->reg), REG##N(v, i->rm)));                                    \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static HANDLER(name##_ri_##N)                                                                                  \
	{                                                                                                              \
		SET##N(i->reg, name##_##N(v, REG##N(v, i->reg), (u##N)i->imm));                                        \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static HANDLER(name##_rm_##N)                                                                                  \
	{                                                                                                              \
		u##N src = (u##N)LOAD(N);                                                                              \
		SET##N(i->reg, name##_##N(v, REG##N(v, i->reg), src));                                                 \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static uint64_t name##_mr_calc_##N(struct vcpu *v, const struct insn *i, uint64_t old)                         \
	{                                                                                                              \
		return name##_##N(v, (u##N)old, REG##N(v, i->reg));                                                    \
	}                                                                                                              \
	static uint64_t name##_mi_calc_##N(struct vcpu *v, const struct insn *i, uint64_t old)                         \
	{                                                                                                              \
		return name##_##N(v, (u##N)old, (u##N)i->imm);                                                         \
	}

/*
 * Handlers with a memory destination. text is applied to host memory directly: with LOCK when the guest says so, else plain;
 * both are one host instruction, so another vCPU sees what it would see of a real processor.
 */
#define MEMORY_ASM(N, load, lock, text, value)                                                                         \
	do {                                                                                                           \
		u16 st = v->status;                                                                                    \
		__asm__ volatile(load lock text SUFFIX_##N " %" OPERAND_##N "[b], %[m]\n\t" SAVE_FLAGS                 \
				 : [m] "+m"(*(u##N##_any *)p), [st] "+&a"(st)                                          \
				 : [b] "r"((u##N)(value))                                                              \
				 : "cc", "memory");                                                                    \
		v->status = st;                                                                                        \
	} while (0)
#define MEMORY_ASM_UNARY(N, load, lock, text)                                                                          \
	do {                                                                                                           \
		u16 st = v->status;                                                                                    \
		__asm__ volatile(load lock text SUFFIX_##N " %[m]\n\t" SAVE_FLAGS                                      \
				 : [m] "+m"(*(u##N##_any *)p), [st] "+&a"(st)                                          \
				 :                                                                                     \
				 : "cc", "memory");                                                                    \
		v->status = st;                                                                                        \
	} while (0)
typedef uint8_t u8_any;

#define HANDLER_MEMORY(name, form, N, load, text, value)                                                               \
	static HANDLER(name##_##form##_##N)                                                                            \
	{                                                                                                              \
		uint64_t lin = operand(v, i, N / 8, ACCESS_WRITE);                                                     \
		void *p = cpu_rmw(v, lin, N / 8, i->seg == SS);                                                        \
		if (likely(p && !(i->flags & INSN_LOCK))) \
			MEMORY_ASM(N, load, "", text, value); \
		else if (!p || splits_lock(v, lin, N / 8)) \
			interp_rmw_slow(v, i, lin, N / 8, name##_##form##_calc_##N); \
		else \
			MEMORY_ASM(N, load, "lock ", text, value); \
		NEXT;                                                                                                  \
	}

#define BINARY(name, CALC, load, text, N)                                                                              \
	CALC(name, N, text)                                                                                            \
	HANDLERS_BINARY(name, N)                                                                                       \
	HANDLER_MEMORY(name, mr, N, load, text, REG##N(v, i->reg))                                                     \
	HANDLER_MEMORY(name, mi, N, load, text, i->imm)

#define UNARY(name, text, N)                                                                                           \
	CALC_UNARY(name, N, text)                                                                                      \
	static HANDLER(name##_r_##N)                                                                                   \
	{                                                                                                              \
		SET##N(i->reg, name##_##N(v, REG##N(v, i->reg)));                                                      \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static uint64_t name##_m_calc_##N(struct vcpu *v, const struct insn *i, uint64_t old)                          \
	{                                                                                                              \
		(void)i;                                                                                               \
		return name##_##N(v, (u##N)old);                                                                       \
	}                                                                                                              \
	static HANDLER(name##_m_##N)                                                                                   \
	{                                                                                                              \
		uint64_t lin = operand(v, i, N / 8, ACCESS_WRITE);                                                     \
		void *p = cpu_rmw(v, lin, N / 8, i->seg == SS);                                                        \
		if (likely(p && !(i->flags & INSN_LOCK))) \
			MEMORY_ASM_UNARY(N, LOAD_CF, "", text); \
		else if (!p || splits_lock(v, lin, N / 8)) \
			interp_rmw_slow(v, i, lin, N / 8, name##_m_calc_##N); \
		else \
			MEMORY_ASM_UNARY(N, LOAD_CF, "lock ", text); \
		NEXT;                                                                                                  \
	}

/* CMP and TEST: no result. */
#define COMPARE(name, text, N)                                                                                         \
	CALC_BINARY(name, N, text)                                                                                     \
	static HANDLER(name##_rr_##N)                                                                                  \
	{                                                                                                              \
		name##_##N(v, REG##N(v, i->reg), REG##N(v, i->rm));                                                    \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static HANDLER(name##_ri_##N)                                                                                  \
	{                                                                                                              \
		name##_##N(v, REG##N(v, i->reg), (u##N)i->imm);                                                        \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static HANDLER(name##_rm_##N)                                                                                  \
	{                                                                                                              \
		u##N src = (u##N)LOAD(N);                                                                              \
		name##_##N(v, REG##N(v, i->reg), src);                                                                 \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static HANDLER(name##_mr_##N)                                                                                  \
	{                                                                                                              \
		u##N dst = (u##N)LOAD(N);                                                                              \
		name##_##N(v, dst, REG##N(v, i->reg));                                                                 \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static HANDLER(name##_mi_##N)                                                                                  \
	{                                                                                                              \
		u##N dst = (u##N)LOAD(N);                                                                              \
		name##_##N(v, dst, (u##N)i->imm);                                                                      \
		NEXT;                                                                                                  \
	}

#define SIZES(M, ...) M(__VA_ARGS__, 8) M(__VA_ARGS__, 16) M(__VA_ARGS__, 32) M(__VA_ARGS__, 64)

SIZES(BINARY, add, CALC_BINARY, "", "add")
SIZES(BINARY, sub, CALC_BINARY, "", "sub")
SIZES(BINARY, and, CALC_BINARY, "", "and")
SIZES(BINARY, or, CALC_BINARY, "", "or")
SIZES(BINARY, xor, CALC_BINARY, "", "xor")
SIZES(BINARY, adc, CALC_BINARY_CARRY, LOAD_CF, "adc")
SIZES(BINARY, sbb, CALC_BINARY_CARRY, LOAD_CF, "sbb")
SIZES(COMPARE, cmp, "cmp")
SIZES(COMPARE, test, "test")
SIZES(UNARY, inc, "inc")
SIZES(UNARY, dec, "dec")
SIZES(UNARY, neg, "neg")

/* NOT writes no flags. */
#define NOT(N)                                                                                                         \
	static HANDLER(not_r_##N)                                                                                      \
	{                                                                                                              \
		SET##N(i->reg, ~REG##N(v, i->reg));                                                                    \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static uint64_t not_m_calc_##N(struct vcpu *v, const struct insn *i, uint64_t old)                             \
	{                                                                                                              \
		(void)v, (void)i;                                                                                      \
		return (u##N)~old;                                                                                     \
	}                                                                                                              \
	static HANDLER(not_m_##N)                                                                                      \
	{                                                                                                              \
		uint64_t lin = operand(v, i, N / 8, ACCESS_WRITE);                                                     \
		void *p = cpu_rmw(v, lin, N / 8, i->seg == SS);                                                        \
		if (unlikely(!p) || splits_lock(v, lin, N / 8))                                                                                      \
			interp_rmw_slow(v, i, lin, N / 8, not_m_calc_##N);                                             \
		else                                                                                                   \
			__asm__ volatile("lock not" SUFFIX_##N " %0" : "+m"(*(u##N##_any *)p) : : "memory");           \
		NEXT;                                                                                                  \
	}
NOT(8) NOT(16) NOT(32) NOT(64)

/* ---- multiplication and division ---- */

/*
 * AX = AL * src; rDX:rAX = rAX * src. The guest's status flags go in, so that those which MUL leaves undefined come out as
 * the host's own instruction would leave them.
 */
#define CALC_WIDE(name, N, text)                                                                                       \
	static inline void name##_##N(struct vcpu *v, u##N src)                                                        \
	{                                                                                                              \
		uint64_t lo = REG64(v, 8 * RAX), hi;                                                                   \
		uint32_t st = v->status;                                                                               \
		__asm__("movl %[st], %%eax\n\tsahf\n\tmovq %[lo], %%rax\n\t" text SUFFIX_##N " %" OPERAND_##N          \
			"[src]\n\tmovq %%rax, %[lo]\n\t" SAVE_FLAGS "\n\tmovl %%eax, %[st]"                            \
			: [st] "+&r"(st), [lo] "+&r"(lo), "=&d"(hi)                                                    \
			: [src] "r"(src)                                                                               \
			: "rax", "cc");                                                                                \
		v->status = (u16)st;                                                                                   \
		store_product_##N(v, lo, hi);                                                                          \
	}

/* What MUL leaves in rAX and rDX, or DIV. */
static inline void store_product_8(struct vcpu *v, uint64_t lo, uint64_t hi)
{
	(void)hi;
	REG16(v, 8 * RAX) = (u16)lo;
}
static inline void store_product_16(struct vcpu *v, uint64_t lo, uint64_t hi)
{
	REG16(v, 8 * RAX) = (u16)lo;
	REG16(v, 8 * RDX) = (u16)hi;
}
static inline void store_product_32(struct vcpu *v, uint64_t lo, uint64_t hi)
{
	REG64(v, 8 * RAX) = (u32)lo;
	REG64(v, 8 * RDX) = (u32)hi;
}
static inline void store_product_64(struct vcpu *v, uint64_t lo, uint64_t hi)
{
	REG64(v, 8 * RAX) = lo;
	REG64(v, 8 * RDX) = hi;
}

/* Instructions with one operand, register or memory, that only read it. */
#define READ_ONE(name, N)                                                                                              \
	static HANDLER(name##_r_##N)                                                                                   \
	{                                                                                                              \
		v->current = i;                                                                                        \
		name##_##N(v, REG##N(v, i->reg));                                                                      \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static HANDLER(name##_m_##N)                                                                                   \
	{                                                                                                              \
		u##N src = (u##N)LOAD(N);                                                                              \
		name##_##N(v, src);                                                                                    \
		NEXT;                                                                                                  \
	}

#define MULTIPLY(name, text, N) CALC_WIDE(name, N, text) READ_ONE(name, N)
SIZES(MULTIPLY, mul, "mul")
SIZES(MULTIPLY, imul1, "imul")

/* IMUL with two or three operands. */
#define IMUL(N)                                                                                                        \
	static inline u##N imul2_##N(struct vcpu *v, u##N a, u##N b)                                                   \
	{                                                                                                              \
		u16 st = v->status;                                                                                    \
		__asm__("sahf\n\timul" SUFFIX_##N " %" OPERAND_##N "[b], %" OPERAND_##N "[a]\n\t" SAVE_FLAGS           \
			: [a] "+r"(a), [st] "+&a"(st)                                                                  \
			: [b] "r"(b)                                                                                   \
			: "cc");                                                                                       \
		v->status = st;                                                                                        \
		return a;                                                                                              \
	}                                                                                                              \
	static HANDLER(imul_rr_##N)                                                                                    \
	{                                                                                                              \
		SET##N(i->reg, imul2_##N(v, REG##N(v, i->reg), REG##N(v, i->rm)));                                     \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static HANDLER(imul_rm_##N)                                                                                    \
	{                                                                                                              \
		u##N src = (u##N)LOAD(N);                                                                              \
		SET##N(i->reg, imul2_##N(v, REG##N(v, i->reg), src));                                                  \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static HANDLER(imul_rri_##N)                                                                                   \
	{                                                                                                              \
		SET##N(i->reg, imul2_##N(v, REG##N(v, i->rm), (u##N)i->imm));                                          \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static HANDLER(imul_rmi_##N)                                                                                   \
	{                                                                                                              \
		u##N src = (u##N)LOAD(N);                                                                              \
		SET##N(i->reg, imul2_##N(v, src, (u##N)i->imm));                                                       \
		NEXT;                                                                                                  \
	}
IMUL(16) IMUL(32) IMUL(64)

/*
 * Division: the host's own, once it is known not to overflow there, with the guest's status flags going in: all of them are
 * undefined afterwards.
 */
#define CALC_DIVIDE(name, N)                                                                                           \
	static inline void host_##name##_##N(struct vcpu *v, u##N d)                                                   \
	{                                                                                                              \
		uint64_t lo = REG64(v, 8 * RAX), hi = REG64(v, 8 * RDX);                                               \
		uint32_t st = v->status;                                                                               \
		__asm__("movl %[st], %%eax\n\taddb $0x7f, %%al\n\tsahf\n\tmovq %[lo], %%rax\n\t" #name SUFFIX_##N      \
			" %" OPERAND_##N "[d]\n\tmovq %%rax, %[lo]\n\t" SAVE_FLAGS "\n\tmovl %%eax, %[st]"            \
			: [st] "+&r"(st), [lo] "+&r"(lo), "+&d"(hi)                                                    \
			: [d] "r"(d)                                                                                   \
			: "rax", "cc");                                                                                \
		v->status = (u16)st;                                                                                   \
		store_product_##N(v, lo, hi);                                                                          \
	}

/*
 * #DE when the quotient does not fit, which a divisor of 0 is a case of: when the dividend is at least the divisor times the
 * first quotient that is too large.
 */
#define DIVIDE(N, wide, DIVIDEND)                                                                                      \
	CALC_DIVIDE(div, N)                                                                                            \
	CALC_DIVIDE(idiv, N)                                                                                           \
	static inline void div_##N(struct vcpu *v, u##N d)                                                             \
	{                                                                                                              \
		wide n = DIVIDEND;                                                                                     \
		if ((n >> N) >= d)                                                                                     \
			cpu_raise(v, EXC_DE);                                                                          \
		host_div_##N(v, d);                                                                                    \
	}                                                                                                              \
	static inline void idiv_##N(struct vcpu *v, u##N d)                                                            \
	{                                                                                                              \
		wide n = DIVIDEND, limit = (wide)1 << (N - 1);                                                         \
		bool n_negative = n >> (2 * N - 1), d_negative = d >> (N - 1);                                         \
		wide n_size = n_negative ? (wide)-n : n, d_size = d_negative ? (u##N)-d : d;                           \
		if (n_negative != d_negative)                                                                          \
			limit++;                                                                                       \
		if (n_size >= (wide)(limit * d_size))                                                                  \
			cpu_raise(v, EXC_DE);                                                                          \
		host_idiv_##N(v, d);                                                                                   \
	}                                                                                                              \
	READ_ONE(div, N)                                                                                               \
	READ_ONE(idiv, N)

typedef unsigned __int128 u128;
DIVIDE(8, u16, REG16(v, 8 * RAX))
DIVIDE(16, u32, ((u32)REG16(v, 8 * RDX) << 16 | REG16(v, 8 * RAX)))
DIVIDE(32, u64, (REG64(v, 8 * RDX) << 32 | REG32(v, 8 * RAX)))
DIVIDE(64, u128, ((u128)REG64(v, 8 * RDX) << 64 | REG64(v, 8 * RAX)))

/* ---- selection ---- */

#define ROW(name, form) { name##_##form##_8, name##_##form##_16, name##_##form##_32, name##_##form##_64 }
#define ROWS_BINARY(name)                                                                                              \
	{                                                                                                              \
		[FORM_RR] = ROW(name, rr), [FORM_RI] = ROW(name, ri), [FORM_RM] = ROW(name, rm),                       \
		[FORM_MR] = ROW(name, mr), [FORM_MI] = ROW(name, mi)                                                   \
	}
#define ROWS_UNARY(name) { [FORM_R] = ROW(name, r), [FORM_M] = ROW(name, m) }

handler_fn *select_alu(const struct insn *i)
{
	enum { FORMS = FORM_MRI + 1 };
	static handler_fn *const binary[][FORMS][4] = {
		[OP_ADD - OP_ADD] = ROWS_BINARY(add), [OP_ADC - OP_ADD] = ROWS_BINARY(adc),
		[OP_AND - OP_ADD] = ROWS_BINARY(and), [OP_OR - OP_ADD] = ROWS_BINARY(or),
		[OP_XOR - OP_ADD] = ROWS_BINARY(xor), [OP_SUB - OP_ADD] = ROWS_BINARY(sub),
		[OP_SBB - OP_ADD] = ROWS_BINARY(sbb), [OP_CMP - OP_ADD] = ROWS_BINARY(cmp),
		[OP_TEST - OP_ADD] = ROWS_BINARY(test),
		[OP_INC - OP_ADD] = ROWS_UNARY(inc), [OP_DEC - OP_ADD] = ROWS_UNARY(dec),
		[OP_NEG - OP_ADD] = ROWS_UNARY(neg), [OP_NOT - OP_ADD] = ROWS_UNARY(not),
		[OP_MUL - OP_ADD] = ROWS_UNARY(mul), [OP_DIV - OP_ADD] = ROWS_UNARY(div),
		[OP_IDIV - OP_ADD] = ROWS_UNARY(idiv),
		[OP_IMUL - OP_ADD] = {
			[FORM_R] = ROW(imul1, r), [FORM_M] = ROW(imul1, m),
			[FORM_RR] = { NULL, imul_rr_16, imul_rr_32, imul_rr_64 },
			[FORM_RM] = { NULL, imul_rm_16, imul_rm_32, imul_rm_64 },
			[FORM_RRI] = { NULL, imul_rri_16, imul_rri_32, imul_rri_64 },
			[FORM_RMI] = { NULL, imul_rmi_16, imul_rmi_32, imul_rmi_64 },
		},
	};

	if (i->op < OP_ADD || i->op > OP_IDIV || i->form >= FORMS)
		return NULL;
	return binary[i->op - OP_ADD][i->form][size_index(i->opsize)];
}
