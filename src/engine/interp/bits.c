/* Shifts, rotates, bit tests and scans, BMI1, BMI2, ADX, CRC32 and the decimal adjustments. */
#include "engine/interp/interp.h"

#include <immintrin.h>

/* Macros that make functions, which the formatter takes for expressions. */
/* clang-format off */

/* OF, then SF ZF AF PF CF, from the status word in AX; AX is then free. */
#define LOAD_FLAGS "addb $0x7f, %%al\n\tsahf\n\t"


/* ---- shifts and rotates by a count ---- */

/* The host does it with the guest's flags loaded: a masked count of 0 then changes nothing, as it must. */
#define SHIFT(name, N)                                                                                                 \
	static inline u##N name##_##N(struct vcpu *v, u##N a, u8 count)                                                \
	{                                                                                                              \
		u16 st = v->status;                                                                                    \
		__asm__(LOAD_FLAGS #name SUFFIX_##N " %%cl, %" OPERAND_##N "[a]\n\t" SAVE_FLAGS                        \
			: [a] "+r"(a), [st] "+&a"(st)                                                                  \
			: "c"(count)                                                                                   \
			: "cc");                                                                                       \
		v->status = st;                                                                                        \
		return a;                                                                                              \
	}                                                                                                              \
	static HANDLER(name##_rr_##N)                                                                                  \
	{                                                                                                              \
		SET##N(i->reg, name##_##N(v, REG##N(v, i->reg), REG8(v, 8 * RCX)));                                    \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static HANDLER(name##_ri_##N)                                                                                  \
	{                                                                                                              \
		SET##N(i->reg, name##_##N(v, REG##N(v, i->reg), (u8)i->imm));                                          \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static uint64_t name##_calc_##N(struct vcpu *v, const struct insn *i, uint64_t old)                            \
	{                                                                                                              \
		return name##_##N(v, (u##N)old, i->form == FORM_MI ? (u8)i->imm : REG8(v, 8 * RCX));                   \
	}                                                                                                              \
	static HANDLER(name##_m_##N)                                                                                   \
	{                                                                                                              \
		uint64_t lin = operand(v, i, N / 8, ACCESS_WRITE);                                                     \
		void *p = cpu_rmw(v, lin, N / 8, i->seg == SS);                                                        \
		if (unlikely(!p))                                                                                      \
			interp_rmw_slow(v, i, lin, N / 8, name##_calc_##N);                                            \
		else                                                                                                   \
			host_store(p, name##_calc_##N(v, i, host_load(p, N / 8)), N / 8);                              \
		NEXT;                                                                                                  \
	}
#define SHIFTS(name) SHIFT(name, 8) SHIFT(name, 16) SHIFT(name, 32) SHIFT(name, 64)
SHIFTS(rol) SHIFTS(ror) SHIFTS(rcl) SHIFTS(rcr) SHIFTS(shl) SHIFTS(shr) SHIFTS(sar)

#define DOUBLE_SHIFT(name, N)                                                                                          \
	static inline u##N name##_##N(struct vcpu *v, u##N a, u##N b, u8 count)                                        \
	{                                                                                                              \
		u16 st = v->status;                                                                                    \
		__asm__(LOAD_FLAGS #name SUFFIX_##N " %%cl, %" OPERAND_##N "[b], %" OPERAND_##N "[a]\n\t" SAVE_FLAGS   \
			: [a] "+r"(a), [st] "+&a"(st)                                                                  \
			: "c"(count), [b] "r"(b)                                                                       \
			: "cc");                                                                                       \
		v->status = st;                                                                                        \
		return a;                                                                                              \
	}                                                                                                              \
	static HANDLER(name##_r_##N)                                                                                   \
	{                                                                                                              \
		u8 count = i->form == FORM_RRI ? (u8)i->imm : REG8(v, 8 * RCX);                                        \
		SET##N(i->reg, name##_##N(v, REG##N(v, i->reg), REG##N(v, i->rm), count));                             \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static uint64_t name##_calc_##N(struct vcpu *v, const struct insn *i, uint64_t old)                            \
	{                                                                                                              \
		u8 count = i->form == FORM_MRI ? (u8)i->imm : REG8(v, 8 * RCX);                                        \
		return name##_##N(v, (u##N)old, REG##N(v, i->reg), count);                                             \
	}                                                                                                              \
	static HANDLER(name##_m_##N)                                                                                   \
	{                                                                                                              \
		interp_rmw_slow(v, i, operand(v, i, N / 8, ACCESS_WRITE), N / 8, name##_calc_##N);                     \
		NEXT;                                                                                                  \
	}
#define DOUBLE_SHIFTS(name) DOUBLE_SHIFT(name, 16) DOUBLE_SHIFT(name, 32) DOUBLE_SHIFT(name, 64)
DOUBLE_SHIFTS(shld) DOUBLE_SHIFTS(shrd)

/* ---- BT, BTS, BTR, BTC ---- */

/* CF from the bit; the other status flags as the host leaves them. */
#define BIT_TEST(name, lock, N)                                                                                              \
	static inline u##N name##_##N(struct vcpu *v, u##N a, u##N bit)                                                \
	{                                                                                                              \
		u16 st = v->status;                                                                                    \
		__asm__(LOAD_FLAGS #name SUFFIX_##N " %" OPERAND_##N "[bit], %" OPERAND_##N "[a]\n\t" SAVE_FLAGS       \
			: [a] "+r"(a), [st] "+&a"(st)                                                                  \
			: [bit] "r"(bit)                                                                               \
			: "cc");                                                                                       \
		v->status = st;                                                                                        \
		return a;                                                                                              \
	}                                                                                                              \
	static HANDLER(name##_rr_##N)                                                                                  \
	{                                                                                                              \
		u##N r = name##_##N(v, REG##N(v, i->reg), REG##N(v, i->rm));                                           \
		if (i->op != OP_BT)                                                                                    \
			SET##N(i->reg, r);                                                                             \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static HANDLER(name##_ri_##N)                                                                                  \
	{                                                                                                              \
		u##N r = name##_##N(v, REG##N(v, i->reg), (u##N)i->imm);                                               \
		if (i->op != OP_BT)                                                                                    \
			SET##N(i->reg, r);                                                                             \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static uint64_t name##_calc_##N(struct vcpu *v, const struct insn *i, uint64_t old)                            \
	{                                                                                                              \
		return name##_##N(v, (u##N)old, i->form == FORM_MI ? (u##N)i->imm : REG##N(v, i->reg));                \
	}                                                                                                              \
	static HANDLER(name##_m_##N)                                                                                   \
	{                                                                                                              \
		uint64_t lin = bit_operand(v, i, N, i->op == OP_BT ? ACCESS_READ : ACCESS_WRITE);                      \
		void *p;                                                                                               \
		if (i->op == OP_BT) {                                                                                  \
			name##_calc_##N(v, i, cpu_load(v, lin, N / 8, i->seg == SS));                                  \
			NEXT;                                                                                          \
		}                                                                                                      \
		p = cpu_rmw(v, lin, N / 8, i->seg == SS);                                                              \
		if (unlikely(!p) || ((i->flags & INSN_LOCK) && splits_lock(v, lin, N / 8))) {                                                                                    \
			interp_rmw_slow(v, i, lin, N / 8, name##_calc_##N);                                            \
		} else {                                                                                               \
			u16 st = v->status;                                                                            \
			u##N bit = (i->form == FORM_MI ? (u##N)i->imm : REG##N(v, i->reg)) & (N - 1);                  \
			if (i->flags & INSN_LOCK)                                                                      \
				__asm__ volatile(LOAD_FLAGS lock #name SUFFIX_##N " %" OPERAND_##N "[bit], %[m]\n\t" \
						 SAVE_FLAGS                                                            \
						 : [m] "+m"(*(u##N##_any *)p), [st] "+&a"(st)                          \
						 : [bit] "r"(bit)                                                      \
						 : "cc", "memory");                                                    \
			else                                                                                           \
				__asm__ volatile(LOAD_FLAGS #name SUFFIX_##N " %" OPERAND_##N "[bit], %[m]\n\t" SAVE_FLAGS \
						 : [m] "+m"(*(u##N##_any *)p), [st] "+&a"(st)                          \
						 : [bit] "r"(bit)                                                      \
						 : "cc", "memory");                                                    \
			v->status = st;                                                                                \
		}                                                                                                      \
		NEXT;                                                                                                  \
	}

/* A register bit offset reaches any word, as far as its sign says; an immediate one stays inside the operand. */
static uint64_t bit_operand(struct vcpu *v, const struct insn *i, unsigned width, enum access access)
{
	int64_t bit, words;

	v->current = i;
	if (i->form == FORM_MI)
		return cpu_operand(v, i, width / 8, access);
	bit = sign_extend(cpu_reg(v, i->reg, i->opsize), width);
	words = bit >> (width == 64 ? 6 : width == 32 ? 5 : 4);
	uint64_t ea = cpu_ea(v, i) + (uint64_t)(words * (int64_t)(width / 8));
	if (i->ea_flat)
		return ea;
	if (i->addrsize != 8)
		ea = i->addrsize == 4 ? (u32)ea : (u16)ea;
	return cpu_linear(v, i->seg, ea, width / 8, access);
}

#define BIT_TESTS(name, lock) BIT_TEST(name, lock, 16) BIT_TEST(name, lock, 32) BIT_TEST(name, lock, 64)
BIT_TESTS(bt, "") BIT_TESTS(bts, "lock ") BIT_TESTS(btr, "lock ") BIT_TESTS(btc, "lock ")

/* ---- instructions of one source into a register, through the host ---- */

/* dst = OP src with the destination's old value going in (BSF of zero leaves it, on processors that we know). */
#define SCAN(name, N)                                                                                                  \
	static inline u##N name##_##N(struct vcpu *v, u##N old, u##N src)                                              \
	{                                                                                                              \
		u16 st = v->status;                                                                                    \
		__asm__(LOAD_FLAGS #name SUFFIX_##N " %" OPERAND_##N "[src], %" OPERAND_##N "[old]\n\t" SAVE_FLAGS     \
			: [old] "+r"(old), [st] "+&a"(st)                                                              \
			: [src] "r"(src)                                                                               \
			: "cc");                                                                                       \
		v->status = st;                                                                                        \
		return old;                                                                                            \
	}                                                                                                              \
	static HANDLER(name##_rr_##N)                                                                                  \
	{                                                                                                              \
		u##N src = REG##N(v, i->rm);                                                                           \
		u##N result = name##_##N(v, REG##N(v, i->reg), src);                                                   \
		if (!scan_keeps(i, src))                                                                               \
			SET##N(i->reg, result);                                                                        \
		NEXT;                                                                                                  \
	}                                                                                                              \
	static HANDLER(name##_rm_##N)                                                                                  \
	{                                                                                                              \
		u##N src = (u##N)LOAD(N);                                                                              \
		u##N result = name##_##N(v, REG##N(v, i->reg), src);                                                   \
		if (!scan_keeps(i, src))                                                                               \
			SET##N(i->reg, result);                                                                        \
		NEXT;                                                                                                  \
	}

/* BSF and BSR of zero write nothing, not even the upper half of a 64-bit register. */
static inline bool scan_keeps(const struct insn *i, uint64_t src)
{
	return !src && (i->op == OP_BSF || i->op == OP_BSR);
}
#define SCANS(name) SCAN(name, 16) SCAN(name, 32) SCAN(name, 64)
SCANS(bsf) SCANS(bsr) SCANS(tzcnt) SCANS(lzcnt) SCANS(popcnt)

/* ---- BMI1, BMI2, ADX: 32 and 64 bits ---- */

static uint64_t source_rm(struct vcpu *v, const struct insn *i, unsigned off)
{
	if (i->flags & INSN_MEM)
		return cpu_load(v, operand(v, i, i->opsize, ACCESS_READ), i->opsize, i->seg == SS);
	return cpu_reg(v, off, i->opsize);
}

/* text: reads %[a], %[b], writes %[r]; all in AT&T order */
#define TWO_SOURCES(name, N, text)                                                                                     \
	static inline u##N name##_##N(struct vcpu *v, u##N a, u##N b)                                                  \
	{                                                                                                              \
		u16 st = v->status;                                                                                    \
		u##N r;                                                                                                \
		__asm__(LOAD_FLAGS text "\n\t" SAVE_FLAGS                                                              \
			: [r] "=&r"(r), [st] "+&a"(st)                                                                 \
			: [a] "r"(a), [b] "r"(b)                                                                       \
			: "cc");                                                                                       \
		v->status = st;                                                                                        \
		return r;                                                                                              \
	}
#define BOTH(M, name, text) M(name, 32, text) M(name, 64, text)
BOTH(TWO_SOURCES, andn, "andn %[b], %[a], %[r]")
BOTH(TWO_SOURCES, pdep, "pdep %[b], %[a], %[r]")
BOTH(TWO_SOURCES, pext, "pext %[b], %[a], %[r]")
BOTH(TWO_SOURCES, bextr, "bextr %[b], %[a], %[r]")
BOTH(TWO_SOURCES, bzhi, "bzhi %[b], %[a], %[r]")
BOTH(TWO_SOURCES, sarx, "sarx %[b], %[a], %[r]")
BOTH(TWO_SOURCES, shlx, "shlx %[b], %[a], %[r]")
BOTH(TWO_SOURCES, shrx, "shrx %[b], %[a], %[r]")
BOTH(TWO_SOURCES, blsi, "blsi %[b], %[r]\n\t")
BOTH(TWO_SOURCES, blsr, "blsr %[b], %[r]\n\t")
BOTH(TWO_SOURCES, blsmsk, "blsmsk %[b], %[r]\n\t")
BOTH(TWO_SOURCES, adcx, "mov %[a], %[r]\n\tadcx %[b], %[r]")
BOTH(TWO_SOURCES, adox, "mov %[a], %[r]\n\tadox %[b], %[r]")

/* reg, reg2, r/m */
#define VVVV_FIRST(name)                                                                                               \
	static HANDLER(name##_op)                                                                                      \
	{                                                                                                              \
		/* in the register form the operands are reg, rm, reg2 as written */                                   \
		uint64_t b = source_rm(v, i, i->reg2);                                                                 \
		uint64_t a = cpu_reg(v, i->flags & INSN_MEM ? i->reg2 : i->rm, i->opsize);                             \
		if (i->opsize == 8)                                                                                    \
			SET64(i->reg, name##_64(v, a, b));                                                             \
		else                                                                                                   \
			SET32(i->reg, name##_32(v, (u32)a, (u32)b));                                                   \
		NEXT;                                                                                                  \
	}
VVVV_FIRST(andn) VVVV_FIRST(pdep) VVVV_FIRST(pext)

/* reg, r/m, reg2 */
#define VVVV_SECOND(name)                                                                                              \
	static HANDLER(name##_op)                                                                                      \
	{                                                                                                              \
		uint64_t a = source_rm(v, i, i->rm), b = cpu_reg(v, i->reg2, i->opsize);                               \
		if (i->opsize == 8)                                                                                    \
			SET64(i->reg, name##_64(v, a, b));                                                             \
		else                                                                                                   \
			SET32(i->reg, name##_32(v, (u32)a, (u32)b));                                                   \
		NEXT;                                                                                                  \
	}
VVVV_SECOND(bextr) VVVV_SECOND(bzhi) VVVV_SECOND(sarx) VVVV_SECOND(shlx) VVVV_SECOND(shrx)

/* reg, r/m: the register is the first source too where there are two */
#define REG_RM(name)                                                                                                   \
	static HANDLER(name##_op)                                                                                      \
	{                                                                                                              \
		uint64_t b = source_rm(v, i, i->rm), a = cpu_reg(v, i->reg, i->opsize);                                \
		if (i->opsize == 8)                                                                                    \
			SET64(i->reg, name##_64(v, a, b));                                                             \
		else                                                                                                   \
			SET32(i->reg, name##_32(v, (u32)a, (u32)b));                                                   \
		NEXT;                                                                                                  \
	}
REG_RM(blsi) REG_RM(blsr) REG_RM(blsmsk) REG_RM(adcx) REG_RM(adox)

static HANDLER(rorx_op)
{
	uint64_t a = source_rm(v, i, i->rm);
	unsigned count = i->imm & (i->opsize * 8 - 1);

	if (i->opsize == 8)
		SET64(i->reg, count ? a >> count | a << (64 - count) : a);
	else
		SET32(i->reg, count ? (u32)a >> count | (u32)a << (32 - count) : a);
	NEXT;
}

/* reg:reg2 = rDX * r/m; if both destinations are one register it gets the high half */
static HANDLER(mulx_op)
{
	bool mem = i->flags & INSN_MEM;
	uint64_t a = source_rm(v, i, i->reg2), d = cpu_reg(v, 8 * RDX, i->opsize);
	unsigned low = mem ? i->reg2 : i->rm;

	if (i->opsize == 8) {
		unsigned __int128 p = (unsigned __int128)a * d;

		SET64(low, (u64)p);
		SET64(i->reg, (u64)(p >> 64));
	} else {
		u64 p = (u64)(u32)a * (u32)d;

		SET32(low, p);
		SET32(i->reg, p >> 32);
	}
	NEXT;
}

__attribute__((target("sse4.2"))) static uint32_t crc32_step(uint32_t crc, uint64_t src, unsigned size)
{
	switch (size) {
	case 1: return _mm_crc32_u8(crc, (u8)src);
	case 2: return _mm_crc32_u16(crc, (u16)src);
	case 4: return _mm_crc32_u32(crc, (u32)src);
	default: return (uint32_t)_mm_crc32_u64(crc, src);
	}
}

static HANDLER(crc32_op)
{
	uint64_t src;

	if (i->flags & INSN_MEM)
		src = cpu_load(v, operand(v, i, i->srcsize, ACCESS_READ), i->srcsize, i->seg == SS);
	else
		src = cpu_reg(v, i->rm, i->srcsize);
	SET64(i->reg, crc32_step(REG32(v, i->reg), src, i->srcsize));
	NEXT;
}

/* ---- decimal adjustments: 64-bit hosts lack them, so they follow the manual's pseudo-code ---- */

/* SF and ZF of a result of 8 or 16 bits, PF of its low byte; the rest as said. */
static void set_result_flags(struct vcpu *v, uint64_t result, unsigned width, bool cf, bool af, bool of)
{
	uint64_t f = (cf ? FLAG_CF : 0) | (af ? FLAG_AF : 0) | (of ? FLAG_OF : 0) | (result ? 0 : FLAG_ZF) |
		     (result >> (width - 1) ? FLAG_SF : 0) | (__builtin_parity(result & 0xff) ? 0 : FLAG_PF);

	cpu_set_status(v, f);
}

/* Did adding or subtracting b overflow? What the manuals leave undefined is as processors have it: of that addition. */
static bool overflowed(uint8_t a, uint8_t b, uint8_t result, bool add)
{
	return ((add ? ~(a ^ b) : a ^ b) & (a ^ result)) & 0x80;
}

static HANDLER(daa_das)
{
	uint8_t al = REG8(v, 8 * RAX), adjust = 0, result;
	bool cf = cpu_status(v) & FLAG_CF, af = cpu_status(v) & FLAG_AF, add = i->op == OP_DAA;
	bool low = (al & 15) > 9 || af, high = al > 0x99 || cf;

	if (low) {
		adjust = 6;
		cf |= add ? al > 0xf9 : al < 6;
	} else {
		cf = false;
	}
	if (high) {
		adjust += 0x60;
		cf = true;
	}
	result = (u8)(add ? al + adjust : al - adjust);
	REG8(v, 8 * RAX) = result;
	set_result_flags(v, result, 8, cf, low, overflowed(al, adjust, result, add));
	NEXT;
}

static HANDLER(aaa_aas)
{
	uint16_t ax = REG16(v, 8 * RAX), result = ax;
	bool adjust = (ax & 15) > 9 || (cpu_status(v) & FLAG_AF), add = i->op == OP_AAA;

	if (adjust)
		result = (u16)(add ? ax + 0x106 : ax - 0x106);
	REG16(v, 8 * RAX) = result & 0xff0f;
	/* What is undefined is of the 16-bit addition. */
	set_result_flags(v, result, 16, adjust, adjust, (add ? ~ax & result : ax & ~result) & 0x8000);
	NEXT;
}

static HANDLER(aam)
{
	uint8_t base = (u8)i->imm, al = REG8(v, 8 * RAX);

	v->current = i;
	if (!base)
		cpu_raise(v, EXC_DE);
	REG16(v, 8 * RAX) = (u16)(al / base << 8 | al % base);
	set_result_flags(v, REG8(v, 8 * RAX), 8, false, false, false);
	NEXT;
}

static HANDLER(aad)
{
	uint8_t al = REG8(v, 8 * RAX), more = (u8)(REG8(v, 8 * RAX + 1) * (u8)i->imm), sum = (u8)(al + more);

	REG16(v, 8 * RAX) = sum;
	set_result_flags(v, sum, 8, sum < al, (al ^ more ^ sum) & 0x10, overflowed(al, more, sum, true));
	NEXT;
}

/* BOUND: #BR unless lower <= index <= upper, signed. */
static HANDLER(bound)
{
	unsigned n = i->opsize;
	int64_t lower = sign_extend(cpu_load(v, operand(v, i, n, ACCESS_READ), n, i->seg == SS), 8 * n);
	int64_t upper = sign_extend(cpu_load(v, cpu_operand_part(v, i, n, n, ACCESS_READ), n, i->seg == SS), 8 * n);
	int64_t index = sign_extend(cpu_reg(v, i->reg, n), 8 * n);

	if (index < lower || index > upper)
		cpu_raise(v, EXC_BR);
	NEXT;
}

/* ---- selection ---- */

#define BY_SIZE2(name) { NULL, name##_16, name##_32, name##_64 }

handler_fn *select_bits(const struct insn *i)
{
	enum { REG_CL, REG_IMM, MEMORY };
	static handler_fn *const shifts[][3][4] = {
#define _(op, name) [OP_##op - OP_ROL] = { BY_SIZE(name##_rr), BY_SIZE(name##_ri), BY_SIZE(name##_m) }
		_(ROL, rol), _(ROR, ror), _(RCL, rcl), _(RCR, rcr), _(SHL, shl), _(SHR, shr), _(SAR, sar),
#undef _
	};
	static handler_fn *const doubles[][2][4] = {
		{ BY_SIZE2(shld_r), BY_SIZE2(shld_m) },
		{ BY_SIZE2(shrd_r), BY_SIZE2(shrd_m) },
	};
	static handler_fn *const tests[][3][4] = {
#define _(name) { BY_SIZE2(name##_rr), BY_SIZE2(name##_ri), BY_SIZE2(name##_m) }
		_(bt), _(bts), _(btr), _(btc),
#undef _
	};
	static handler_fn *const scans[][2][4] = {
#define _(name) { BY_SIZE2(name##_rr), BY_SIZE2(name##_rm) }
		_(bsf), _(bsr), _(tzcnt), _(lzcnt), _(popcnt),
#undef _
	};
	bool mem = i->flags & INSN_MEM;
	unsigned size = size_index(i->opsize), kind = mem ? MEMORY : i->form == FORM_RI ? REG_IMM : REG_CL;

	switch (i->op) {
	case OP_ROL: case OP_ROR: case OP_RCL: case OP_RCR: case OP_SHL: case OP_SHR: case OP_SAR:
		return shifts[i->op - OP_ROL][kind][size];
	case OP_SHLD: case OP_SHRD:
		return doubles[i->op - OP_SHLD][mem][size];
	case OP_BT: case OP_BTS: case OP_BTR: case OP_BTC:
		return tests[i->op - OP_BT][kind][size];
	case OP_BSF: case OP_BSR: case OP_TZCNT: case OP_LZCNT: case OP_POPCNT:
		return scans[i->op - OP_BSF][mem][size];
	case OP_ANDN: return andn_op;
	case OP_PDEP: return pdep_op;
	case OP_PEXT: return pext_op;
	case OP_BEXTR: return bextr_op;
	case OP_BZHI: return bzhi_op;
	case OP_SARX: return sarx_op;
	case OP_SHLX: return shlx_op;
	case OP_SHRX: return shrx_op;
	case OP_BLSI: return blsi_op;
	case OP_BLSR: return blsr_op;
	case OP_BLSMSK: return blsmsk_op;
	case OP_ADCX: return adcx_op;
	case OP_ADOX: return adox_op;
	case OP_RORX: return rorx_op;
	case OP_MULX: return mulx_op;
	case OP_CRC32: return crc32_op;
	case OP_DAA:
	case OP_DAS: return daa_das;
	case OP_AAA:
	case OP_AAS: return aaa_aas;
	case OP_AAM: return aam;
	case OP_AAD: return aad;
	case OP_BOUND: return bound;
	default: return NULL;
	}
}
