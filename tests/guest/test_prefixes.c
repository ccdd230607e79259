/*
 * What is an instruction and what is not: prefixes and their order, LOCK, VEX, the 15 bytes, encodings that no mode or only some
 * modes have, aliases and NOPs that the opcode maps leave out. Each row of bytes runs in every mode: it must take just these bytes,
 * or fault at the first. SDM vol. 2 chapter 2 and appendix A, AMD's APM vol. 3 chapter 1.
 */
#include "legacy.h"

#define CR4_OSFXSR     BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_OSXSAVE    BIT(18)
#define OPERAND	       0x200 /* offset of memory operands in low segments; in DI, BX, SI */

/* ---- modes ---- */

#define IN_64	BIT(0)
#define IN_32	BIT(1) /* compatibility mode */
#define IN_16	BIT(2) /* protected mode */
#define IN_V86	BIT(3)
#define IN_REAL BIT(4)
#define MODES	5
#define OLD	(IN_32 | IN_16 | IN_V86 | IN_REAL)
#define ALL	(IN_64 | OLD)
static const char *const mode_names[MODES] = { "64-bit mode", "compatibility mode", "16-bit protected mode",
					       "virtual-8086 mode", "real mode" };

struct outcome {
	u64 vector, error, rip; /* rip: from the first byte */
};

static u8 code[64] __attribute__((aligned(64)));
static u8 operand[256] __attribute__((aligned(64)));

static void put_code(u8 *to, const u8 *bytes, unsigned len)
{
	memcpy(to, bytes, len);
	to[len] = 0xcd; /* INT END_VECTOR */
	to[len + 1] = END_VECTOR;
}

static struct outcome run_64(u64 cs)
{
	u64 at = (u64)operand;
	struct trap t = KERNEL(code, .cs = cs, .rdi = at, .rbx = at, .rsi = at, .rbp = at, .rcx = 1);

	return (struct outcome){ t.vector, t.error, t.rip - (u64)code };
}

static struct outcome run_low(const struct legacy_state *base)
{
	struct legacy_state s = *base;
	struct legacy_trap t;

	s.edi = s.ebx = s.esi = s.ebp = OPERAND;
	s.ecx = 1;
	s.cr4 |= (u32)(read_cr4() & (CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE));
	t = legacy_run(&s);
	return (struct outcome){ t.vector, t.error, t.eip };
}

static struct outcome run_in(unsigned mode, const u8 *bytes, unsigned len)
{
	put_code(mode < 2 ? code : (u8 *)LOW_CODE, bytes, len);
	memset(operand, 0, sizeof(operand));
	memset(low_data(OPERAND), 0, 64);
	switch (mode) {
	case 0: return run_64(KERNEL_CS);
	case 1: return run_64(KERNEL_CS32);
	case 2: return run_low(&(struct legacy_state){ LEGACY_RING0_16 });
	case 3: return run_low(&(struct legacy_state){ LEGACY_V86, .eflags = 2 | FLAG_VM | FLAG_IOPL });
	default: return run_low(&(struct legacy_state){ LEGACY_REAL });
	}
}

/* ---- rows ---- */

#define RUNS END_VECTOR

struct row {
	const char *name, *bytes;
	unsigned len;
	unsigned modes;
	u8 vector; /* in these modes; in the others #UD */
};
#define ROW(name, bytes, modes, vector)                                                                                \
	{                                                                                                              \
		name, bytes, sizeof(bytes) - 1, modes, vector                                                          \
	}

static bool as_wanted(const struct row *r, unsigned mode)
{
	u64 vector = r->modes & BIT(mode) ? r->vector : EXC_UD, rip = vector == RUNS ? r->len + 2 : 0;
	struct outcome o = run_in(mode, (const u8 *)r->bytes, r->len);

	if (o.vector == vector && o.error == 0 && o.rip == rip)
		return true;
	print("# %s in %s: vector %lu error 0x%lx at +%lu, wanted vector %lu at +%lu\n", r->name, mode_names[mode],
	      o.vector, o.error, o.rip, vector, rip);
	return false;
}

/* tested: these modes, where others have another instruction. */
static void test_rows(const char *section, unsigned tested, const struct row *r, size_t count)
{
	for (; count--; r++) {
		bool good = true;

		for (unsigned mode = 0; mode < MODES; mode++)
			if (tested & BIT(mode))
				good &= as_wanted(r, mode);
		check(good, "%s: %s", section, r->name);
	}
}

/* ---- LOCK: SDM vol. 2 LOCK. Each with its ModRM byte for memory, (%rdi) or (%bx), and for a register ---- */

#define LOCKABLE(_)                                                                                                    \
	_("ADD", "\x01", 0)                                                                                            \
	_("OR", "\x08", 0)                                                                                             \
	_("ADC", "\x11", 0)                                                                                            \
	_("SBB", "\x18", 0)                                                                                            \
	_("AND", "\x21", 0)                                                                                            \
	_("SUB", "\x29", 0)                                                                                            \
	_("XOR", "\x31", 0)                                                                                            \
	_("XCHG", "\x87", 0)                                                                                           \
	_("XCHG of bytes", "\x86", 0)                                                                                  \
	_("INC", "\xff", 0)                                                                                            \
	_("DEC", "\xfe", 1)                                                                                            \
	_("NOT", "\xf7", 2)                                                                                            \
	_("NEG", "\xf6", 3)                                                                                            \
	_("XADD", "\x0f\xc1", 0)                                                                                       \
	_("CMPXCHG", "\x0f\xb1", 0)                                                                                    \
	_("BTS", "\x0f\xab", 0)                                                                                        \
	_("BTR", "\x0f\xb3", 0)                                                                                        \
	_("BTC", "\x0f\xbb", 0)                                                                                        \
	_("CMPXCHG8B", "\x0f\xc7", 1)
#define NOT_LOCKABLE(_)                                                                                                \
	_("CMP", "\x39", 0)                                                                                            \
	_("TEST", "\x85", 0)                                                                                           \
	_("MOV", "\x89", 0)                                                                                            \
	_("ADD to a register", "\x03", 0)                                                                              \
	_("XOR to a register", "\x32", 0)                                                                              \
	_("MOV from memory", "\x8b", 0)                                                                                \
	_("BT", "\x0f\xa3", 0)                                                                                         \
	_("SHL", "\xd1", 4)                                                                                            \
	_("MUL", "\xf7", 4)                                                                                            \
	_("PUSH", "\xff", 6)                                                                                           \
	_("POP", "\x8f", 0)                                                                                            \
	_("CALL", "\xff", 2)                                                                                           \
	_("JMP", "\xff", 4)                                                                                            \
	_("MOV of a segment register", "\x8c", 0)                                                                      \
	_("SETO", "\x0f\x90", 0)                                                                                       \
	_("CMOVO", "\x0f\x40", 0)                                                                                      \
	_("SHLD", "\x0f\xa5", 0)                                                                                       \
	_("BSF", "\x0f\xbc", 0)                                                                                        \
	_("MOVZX", "\x0f\xb6", 0)                                                                                      \
	_("FLD", "\xd9", 0)                                                                                            \
	_("MOVUPS", "\x0f\x11", 0)                                                                                     \
	_("IMUL", "\x0f\xaf", 0)                                                                                       \
	_("LEA", "\x8d", 0)                                                                                            \
	_("a long NOP", "\x0f\x1f", 0)
#define NO_OPERAND(_)                                                                                                  \
	_("NOP", "\x90")                                                                                               \
	_("MOVSB", "\xa4")                                                                                             \
	_("STOSB", "\xaa")                                                                                             \
	_("CLD", "\xfc")                                                                                               \
	_("CWDE", "\x98")                                                                                              \
	_("CPUID", "\x0f\xa2")                                                                                         \
	_("INT3", "\xcc")                                                                                              \
	_("HLT", "\xf4")                                                                                               \
	_("IN", "\xe4\x80")                                                                                            \
	_("JMP", "\xeb\x00")                                                                                           \
	_("RET", "\xc3")                                                                                               \
	_("PUSHF", "\x9c")                                                                                             \
	_("FWAIT", "\x9b")                                                                                             \
	_("XCHG of registers", "\x91")                                                                                 \
	_("RDTSC", "\x0f\x31")                                                                                         \
	_("INT n", "\xcd\x50")                                                                                         \
	_("MOV imm", "\xb8\0\0\0\0")                                                                                   \
	_("MOV CR0", "\x0f\x20\xc0")

struct opcode {
	const char *name, *bytes;
	u8 reg; /* ModRM.reg */
};

static void test_lock(const struct opcode *o, bool lockable)
{
	char bytes[8] = { (char)0xf0 };
	unsigned len = o->bytes[0] == 0x0f ? 2 : 1;
	struct row memory = { o->name, bytes, len + 2, lockable ? ALL : 0, RUNS };
	struct row reg = { o->name, bytes, len + 2, 0, RUNS };
	bool good = true;

	memcpy(bytes + 1, o->bytes, len);
	bytes[len + 1] = (char)(o->reg << 3 | 7);
	for (unsigned mode = 0; mode < MODES; mode++)
		good &= as_wanted(&memory, mode);
	check(good, "2 LOCK: %s of memory: %s", o->name, lockable ? "locked" : "#UD");
	bytes[len + 1] = (char)(0xc0 | o->reg << 3 | 2);
	good = true;
	for (unsigned mode = 0; mode < MODES; mode++)
		good &= as_wanted(&reg, mode);
	check(good, "2 LOCK: %s of registers: #UD", o->name);
}

static void test_locks(void)
{
#define _(...) { __VA_ARGS__ },
	static const struct opcode lockable[] = { LOCKABLE(_) }, not_lockable[] = { NOT_LOCKABLE(_) };
#undef _
#define _(name, bytes) ROW("LOCK " name, "\xf0" bytes, 0, RUNS),
	static const struct row plain[] = { NO_OPERAND(_) };
#undef _

	for (unsigned n = 0; n < ARRAY_SIZE(lockable); n++)
		test_lock(&lockable[n], true);
	for (unsigned n = 0; n < ARRAY_SIZE(not_lockable); n++)
		test_lock(&not_lockable[n], false);
	test_rows("2 LOCK", ALL, plain, ARRAY_SIZE(plain));
}

/* ---- order, number and length of prefixes ---- */

static const struct row prefixes[] = {
	ROW("66 twice", "\x66\x66\x90", ALL, RUNS),
	ROW("all segment overrides", "\x26\x2e\x36\x3e\x64\x65\x90", ALL, RUNS),
	ROW("F2 and F3 before NOP", "\xf2\xf3\x90", ALL, RUNS),
	ROW("F3 before what does not repeat", "\xf3\x01\xc0", ALL, RUNS),
	ROW("F2 before JMP", "\xf2\xeb\x00", ALL, RUNS),
	ROW("a branch hint before Jcc", "\x2e\x70\x00", ALL, RUNS),
	ROW("67 before an instruction without memory", "\x67\x90", ALL, RUNS),
	ROW("REP and REPNE: the last counts", "\xf2\xf3\xaa", ALL, RUNS),
	ROW("15 bytes", "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90", ALL, RUNS),
	ROW("16 bytes", "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90", ALL, EXC_GP),
	ROW("16 bytes, the last immediate", "\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x04\x01", ALL, RUNS),
	ROW("16 bytes of two prefixes", "\x2e\x66\x2e\x66\x2e\x66\x2e\x66\x2e\x66\x2e\x66\x2e\x66\x04\x01", ALL,
	    EXC_GP),
	ROW("16 bytes, and LOCK where it must not be",
	    "\xf0\x66\x2e\x66\x2e\x66\x2e\x66\x2e\x66\x2e\x66\x2e\x66\x66\x90", ALL, EXC_GP),
};
static const struct row rex[] = {
	ROW("two REX", "\x41\x48\x90", IN_64, RUNS),
	ROW("REX before 66", "\x48\x66\x90", IN_64, RUNS),
	ROW("REX before LOCK and ADD of memory", "\x48\xf0\x01\x07", IN_64, RUNS),
	ROW("REX before VEX", "\x48\xc5\xf8\x10\xc0", 0, RUNS),
};

/* In 64-bit mode: what REX does depends on where it stands. (%rdi) is all ones. */
CODE(rex_last, ".byte 0x66, 0x48, 0x89, 0x07")
CODE(rex_first, ".byte 0x48, 0x66, 0x89, 0x07")
CODE(rex_twice, ".byte 0x48, 0x40, 0x89, 0x07")
CODE(xchg_r8, ".byte 0x41, 0x90")
CODE(pause_rex, ".byte 0xf3, 0x41, 0x90")
CODE(nop_rex_w, ".byte 0x48, 0x90")
CODE(nop_66, ".byte 0x66, 0x90")
CODE(mov_addr32, ".byte 0x67, 0x89, 0x07") /* mov %eax, (%edi) */
CODE(movabs_addr32, ".byte 0x67, 0xa0; .long scratch_byte")
CODE(spl, ".byte 0x40, 0xb4, 0x55") /* mov $0x55, %spl */
CODE(ah, ".byte 0xb4, 0x55")
u8 scratch_byte = 0x77;

static void test_rex(void)
{
	static const struct {
		const char *name;
		const u8 *code;
		u64 wanted;
	} stores[] = {
		{ "66 REX.W: 64 bits", rex_last, 0 },
		{ "REX.W 66: REX is ignored, 16 bits", rex_first, 0xffffffffffff0000 },
		{ "REX.W REX: the last one counts, 32 bits", rex_twice, 0xffffffff00000000 },
		{ "67: 32 bits of the address, operands of 32", mov_addr32, 0xffffffff00000000 },
	};
	struct trap t;

	for (unsigned n = 0; n < ARRAY_SIZE(stores); n++) {
		u64 value = ~0ull;

		memset(operand, 0xff, 8);
		t = KERNEL(stores[n].code, .rdi = (u64)operand);
		memcpy(&value, operand, 8);
		check(t.vector == END_VECTOR && value == stores[n].wanted, "2A 2.2.1: %s", stores[n].name);
	}
	t = KERNEL(mov_addr32, .rdi = BIT(40) | (u64)operand);
	check_end(&t, "2A 2.2.1.4: 67 drops the address's upper half");
	t = KERNEL(xchg_r8, .rax = 1, .r8 = 0x1234567890);
	check(t.r8 == 1 && t.rax == 0x34567890, "2 XCHG: 90 with REX.B exchanges R8D and EAX");
	t = KERNEL(nop_rex_w, .rax = ~0ull);
	check_equal(t.rax, ~0ull, "2 NOP: 90 with REX.W is none but a NOP");
	t = KERNEL(nop_66, .rax = ~0ull);
	check_equal(t.rax, ~0ull, "2 NOP: 66 90");
	t = KERNEL(pause_rex, .rax = 1, .r8 = 2);
	check_end(&t, "2 PAUSE: F3 REX.B 90");
	t = KERNEL(movabs_addr32);
	check_equal(t.rax & 0xff, 0x77, "2A 2.2.1.4: 67 before A0: an address of 32 bits in the instruction");
	t = KERNEL(spl, .rsp = 0x1100, .rax = 0);
	check(t.rax == 0, "2A 2.2.1.2: with REX there is no AH");
	t = KERNEL(ah, .rax = 0);
	check_equal(t.rax, 0x5500, "2A 2.2.1.2: without there is");
}

/* ---- VEX ---- */

#define NO_VEX (IN_V86 | IN_REAL)
#define VEX    (ALL & ~NO_VEX)
static const struct row vex[] = {
	ROW("VMOVUPS (C5)", "\xc5\xf8\x10\x07", VEX, RUNS),
	ROW("VMOVUPS (C4)", "\xc4\xe1\x78\x10\x07", VEX, RUNS),
	ROW("VADDPS", "\xc5\xf8\x58\xc1", VEX, RUNS),
	ROW("66 before VEX", "\x66\xc5\xf8\x10\x07", 0, RUNS),
	ROW("F2 before VEX", "\xf2\xc5\xf8\x10\x07", 0, RUNS),
	ROW("F3 before VEX", "\xf3\xc5\xf8\x10\x07", 0, RUNS),
	ROW("LOCK before VEX", "\xf0\xc5\xf8\x10\x07", 0, RUNS),
	ROW("a segment override before VEX", "\x3e\xc5\xf8\x10\x07", VEX, RUNS),
	ROW("VEX.vvvv where there is no such operand", "\xc5\xf0\x10\x07", 0, RUNS),
	ROW("VEX.vvvv of VPBROADCASTB", "\xc4\xe2\x71\x78\xc0", 0, RUNS),
	ROW("VEX.mmmmm of 0", "\xc4\xe0\x78\x10\x07", 0, RUNS),
	ROW("VEX.mmmmm of 4", "\xc4\xe4\x78\x10\x07", 0, RUNS),
	ROW("VEX.L of VMOVD", "\xc5\xfd\x6e\xc0", 0, RUNS),
	ROW("VEX.W of VPERMPS", "\xc4\xe2\xfd\x16\xc0", 0, RUNS),
	ROW("VPERMPS of 128 bits", "\xc4\xe2\x79\x16\xc0", 0, RUNS),
	ROW("VLDMXCSR with VEX.L", "\xc5\xfc\xae\x17", 0, RUNS),
	ROW("VZEROUPPER", "\xc5\xf8\x77", VEX, RUNS),
	ROW("VZEROALL", "\xc5\xfc\x77", VEX, RUNS),
	ROW("VMOVMSKPS of memory", "\xc5\xf8\x50\x07", 0, RUNS),
};
static const struct row vex_bmi[] = {
	ROW("ANDN", "\xc4\xe2\x78\xf2\xc0", VEX, RUNS),
	ROW("BEXTR", "\xc4\xe2\x78\xf7\xc0", VEX, RUNS),
	ROW("BLSR", "\xc4\xe2\x78\xf3\xc8", VEX, RUNS),
	ROW("BZHI", "\xc4\xe2\x78\xf5\xc0", VEX, RUNS),
	ROW("MULX", "\xc4\xe2\x7b\xf6\xc1", VEX, RUNS),
	ROW("RORX", "\xc4\xe3\x7b\xf0\xc1\x03", VEX, RUNS),
	ROW("SHLX", "\xc4\xe2\x79\xf7\xc1", VEX, RUNS),
	ROW("PDEP", "\xc4\xe2\x7b\xf5\xc1", VEX, RUNS),
	ROW("ANDN with VEX.L", "\xc4\xe2\x7c\xf2\xc0", 0, RUNS),
	ROW("BLSR /0", "\xc4\xe2\x78\xf3\xc0", 0, RUNS),
	ROW("66 before ANDN", "\x66\xc4\xe2\x78\xf2\xc0", 0, RUNS),
	ROW("LOCK before ANDN", "\xf0\xc4\xe2\x78\xf2\x07", 0, RUNS),
};

/* ---- opcodes ---- */

static const struct row undefined[] = {
	ROW("UD2", "\x0f\x0b", 0, RUNS),
	ROW("UD1", "\x0f\xb9\xc0", 0, RUNS),
	ROW("UD0", "\x0f\xff\xc0", 0, RUNS),
	ROW("3DNow!", "\x0f\x0f\xc1\x9e", 0, RUNS),
	ROW("FEMMS", "\x0f\x0e", 0, RUNS),
	ROW("0F 04", "\x0f\x04", 0, RUNS),
	ROW("0F 0A", "\x0f\x0a", 0, RUNS),
	ROW("0F 0C", "\x0f\x0c", 0, RUNS),
	ROW("MOV of test registers (0F 24)", "\x0f\x24\xc0", 0, RUNS),
	ROW("0F 26", "\x0f\x26\xc0", 0, RUNS),
	ROW("GETSEC (0F 37)", "\x0f\x37", 0, RUNS),
	ROW("0F 36", "\x0f\x36", 0, RUNS),
	ROW("0F A6", "\x0f\xa6\xc0", 0, RUNS),
	ROW("0F A7", "\x0f\xa7\xc0", 0, RUNS),
	ROW("RSM outside of SMM", "\x0f\xaa", 0, RUNS),
	ROW("MOV to CS", "\x8e\xc8", 0, RUNS),
	ROW("MOV of segment register 6", "\x8c\xf0", 0, RUNS),
	ROW("MOV to segment register 7", "\x8e\xf8", 0, RUNS),
	ROW("MOV of CR1", "\x0f\x20\xc8", 0, RUNS),
	ROW("MOV of CR5", "\x0f\x20\xe8", 0, RUNS),
	ROW("FE /2", "\xfe\xd0", 0, RUNS),
	ROW("FE /7", "\xfe\xf8", 0, RUNS),
	ROW("FF /7", "\xff\xf8", 0, RUNS),
	ROW("C6 /1", "\xc6\xc8\x00", 0, RUNS),
	ROW("C7 /1", "\xc7\xc8\x00\x00", 0, RUNS),
	ROW("0F BA /0", "\x0f\xba\xc0\x01", 0, RUNS),
	ROW("0F BA /3", "\x0f\xba\xd8\x01", 0, RUNS),
	ROW("0F C7 /0", "\x0f\xc7\x07", 0, RUNS),
	ROW("0F 00 /6", "\x0f\x00\xf0", 0, RUNS),
	ROW("LEA of a register", "\x8d\xc0", 0, RUNS),
	ROW("CMPXCHG8B of a register", "\x0f\xc7\xc8", 0, RUNS),
	ROW("MOVNTI of a register", "\x0f\xc3\xc0", 0, RUNS),
	ROW("MOVMSKPS of memory", "\x0f\x50\x07", 0, RUNS),
	ROW("LDDQU of a register", "\xf2\x0f\xf0\xc0", 0, RUNS),
	ROW("far JMP by a register", "\xff\xe8", 0, RUNS),
	ROW("far CALL by a register", "\xff\xd8", 0, RUNS),
	ROW("LSS of a register", "\x0f\xb2\xc0", 0, RUNS),
	ROW("LFS of a register", "\x0f\xb4\xc0", 0, RUNS),
	ROW("PSLLW by memory (0F 71)", "\x0f\x71\x37\x01", 0, RUNS),
	ROW("MASKMOVQ to memory", "\x0f\xf7\x07", 0, RUNS),
	ROW("0F D0 without 66 or F2", "\x0f\xd0\xc0", 0, RUNS),
	ROW("0F D6 without a prefix", "\x0f\xd6\xc0", 0, RUNS),
	ROW("0F E6 without a prefix", "\x0f\xe6\xc0", 0, RUNS),
	ROW("0F 38 0C without 66", "\x0f\x38\x0c\xc0", 0, RUNS),
	ROW("0F 3A 00", "\x0f\x3a\x00\xc0\x00", 0, RUNS),
	ROW("0F B8 without F3", "\x0f\xb8\xc0", 0, RUNS),
	ROW("D9 D1", "\xd9\xd1", 0, RUNS),
	ROW("D9 E2", "\xd9\xe2", 0, RUNS),
	ROW("DA E8", "\xda\xe8", 0, RUNS),
	ROW("DD F0", "\xdd\xf0", 0, RUNS),
	ROW("DE D8", "\xde\xd8", 0, RUNS),
	ROW("DF E1", "\xdf\xe1", 0, RUNS),
	ROW("DF F8", "\xdf\xf8", 0, RUNS),
	ROW("D9 /1 of memory", "\xd9\x0f", 0, RUNS),
	ROW("DB /4 of memory", "\xdb\x27", 0, RUNS),
	ROW("DB /6 of memory", "\xdb\x37", 0, RUNS),
	ROW("DD /5 of memory", "\xdd\x2f", 0, RUNS),
};

/* By far most of them are SDM vol. 2 table A-2's superscripts i64 and o64. */
static const struct row by_mode[] = {
	ROW("PUSH ES", "\x06", OLD, RUNS),
	ROW("PUSH CS", "\x0e", OLD, RUNS),
	ROW("PUSH SS", "\x16", OLD, RUNS),
	ROW("PUSH DS", "\x1e", OLD, RUNS),
	ROW("DAA", "\x27", OLD, RUNS),
	ROW("DAS", "\x2f", OLD, RUNS),
	ROW("AAA", "\x37", OLD, RUNS),
	ROW("AAS", "\x3f", OLD, RUNS),
	ROW("PUSHA", "\x60", OLD, RUNS),
	ROW("AAM", "\xd4\x0a", OLD, RUNS),
	ROW("AAD", "\xd5\x0a", OLD, RUNS),
	ROW("AAM 0", "\xd4\x00", OLD, EXC_DE),
	ROW("82 /0, a copy of 80 /0", "\x82\xc0\x01", OLD, RUNS),
	ROW("SALC (D6)", "\xd6", OLD, RUNS),
	ROW("INTO without overflow", "\xce", OLD, RUNS),
	ROW("LES", "\xc4\x07", IN_32 | IN_16 | IN_V86 | IN_REAL, RUNS),
	ROW("LDS", "\xc5\x07", OLD, RUNS),
	ROW("ARPL, in 64-bit mode MOVSXD", "\x63\xc0", IN_64 | IN_32 | IN_16, RUNS),
	ROW("SWAPGS", "\x0f\x01\xf8", IN_64, RUNS),
	ROW("SLDT", "\x0f\x00\xc0", IN_64 | IN_32 | IN_16, RUNS),
	ROW("STR", "\x0f\x00\xc8", IN_64 | IN_32 | IN_16, RUNS),
	ROW("VERR", "\x0f\x00\xe0", IN_64 | IN_32 | IN_16, RUNS),
	ROW("LAR", "\x0f\x02\xc0", IN_64 | IN_32 | IN_16, RUNS),
	ROW("LSL", "\x0f\x03\xc0", IN_64 | IN_32 | IN_16, RUNS),
	ROW("SMSW", "\x0f\x01\xe0", ALL, RUNS),
};

static const struct row privileged[] = { ROW("MOV of CR0 with mod 0, which means nothing", "\x0f\x20\x00", ALL, RUNS) };

/* Encodings that the manuals do not list, or call reserved, and that all processors have. */
static const struct row aliases[] = {
	ROW("TEST F6 /1", "\xf6\xc8\x01", ALL, RUNS),
	ROW("SHL C0 /6", "\xc0\xf0\x01", ALL, RUNS),
	ROW("SHL D0 /6", "\xd0\xf0", ALL, RUNS),
	ROW("SHL D3 /6", "\xd3\x37", ALL, RUNS),
	ROW("FREEP (DF C0)", "\xdf\xc0", ALL, RUNS),
	ROW("FCOM2 (DC D0)", "\xdc\xd0", ALL, RUNS),
	ROW("FCOMP3 (DC D8)", "\xdc\xd8", ALL, RUNS),
	ROW("FXCH4 (DD C8)", "\xdd\xc8", ALL, RUNS),
	ROW("FCOMP5 (DE D0)", "\xde\xd0", ALL, RUNS),
	ROW("FXCH7 (DF C8)", "\xdf\xc8", ALL, RUNS),
	ROW("FSTP8 (DF D0)", "\xdf\xd0", ALL, RUNS),
	ROW("FSTP9 (DF D8)", "\xdf\xd8", ALL, RUNS),
	ROW("FSTPNCE (D9 D8)", "\xd9\xd8", ALL, RUNS),
	ROW("FENI (DB E0)", "\xdb\xe0", ALL, RUNS),
	ROW("FDISI (DB E1)", "\xdb\xe1", ALL, RUNS),
	ROW("FSETPM (DB E4)", "\xdb\xe4", ALL, RUNS),
	ROW("LFENCE with rm 7", "\x0f\xae\xef", ALL, RUNS),
	ROW("MFENCE with rm 1", "\x0f\xae\xf1", ALL, RUNS),
	ROW("SFENCE with rm 3", "\x0f\xae\xfb", ALL, RUNS),
	ROW("BSWAP of 16 bits or 32", "\x66\x0f\xc8", ALL, RUNS),
	ROW("SETO with reg 7", "\x0f\x90\xf8", ALL, RUNS),
	ROW("RDTSCP's neighbour PAUSE (F3 90)", "\xf3\x90", ALL, RUNS),
	ROW("REP RET's prefix before CLC", "\xf3\xf8", ALL, RUNS),
};

static const struct row nops[] = {
	ROW("PREFETCH (0F 0D /0)", "\x0f\x0d\x07", ALL, RUNS),
	ROW("PREFETCHW (0F 0D /1)", "\x0f\x0d\x0f", ALL, RUNS),
	ROW("0F 0D /7", "\x0f\x0d\x3f", ALL, RUNS),
	ROW("PREFETCHNTA", "\x0f\x18\x07", ALL, RUNS),
	ROW("0F 18 /4", "\x0f\x18\x27", ALL, RUNS),
	ROW("0F 18 /7", "\x0f\x18\x3f", ALL, RUNS),
	ROW("0F 18 of a register", "\x0f\x18\xc0", ALL, RUNS),
	ROW("0F 19 /0", "\x0f\x19\x07", ALL, RUNS),
	ROW("0F 19 of a register", "\x0f\x19\xc7", ALL, RUNS),
	ROW("0F 1A", "\x0f\x1a\x07", ALL, RUNS),
	ROW("0F 1A of a register", "\x0f\x1a\xc7", ALL, RUNS),
	ROW("66 0F 1A", "\x66\x0f\x1a\x07", ALL, RUNS),
	ROW("0F 1B", "\x0f\x1b\x07", ALL, RUNS),
	ROW("F3 0F 1B", "\xf3\x0f\x1b\x07", ALL, RUNS),
	ROW("0F 1C", "\x0f\x1c\x07", ALL, RUNS),
	ROW("0F 1C /7 of a register", "\x0f\x1c\xff", ALL, RUNS),
	ROW("0F 1D", "\x0f\x1d\x07", ALL, RUNS),
	ROW("0F 1E", "\x0f\x1e\x07", ALL, RUNS),
	ROW("ENDBR64", "\xf3\x0f\x1e\xfa", ALL, RUNS),
	ROW("RDSSP", "\xf3\x0f\x1e\xc8", ALL, RUNS),
	ROW("0F 1F /0", "\x0f\x1f\x07", ALL, RUNS),
	ROW("0F 1F /7", "\x0f\x1f\x3f", ALL, RUNS),
	ROW("0F 1F of a register", "\x0f\x1f\xc0", ALL, RUNS),
};

static void test_not_offered(void)
{
	static const struct row monitor[] = {
		ROW("MONITOR", "\x0f\x01\xc8", 0, RUNS),
		ROW("MWAIT", "\x0f\x01\xc9", 0, RUNS),
	};
	static const struct row never[] = {
		ROW("VMXON", "\xf3\x0f\xc7\x37", 0, RUNS),	 ROW("VMLAUNCH", "\x0f\x01\xc2", 0, RUNS),
		ROW("VMRUN", "\x0f\x01\xd8", 0, RUNS),		 ROW("SKINIT", "\x0f\x01\xde", 0, RUNS),
		ROW("XBEGIN", "\xc7\xf8\x00\x00", 0, RUNS),	 ROW("XTEST", "\x0f\x01\xd6", 0, RUNS),
		ROW("ENCLU", "\x0f\x01\xd7", 0, RUNS),		 ROW("RDPKRU", "\x0f\x01\xee", 0, RUNS),
		ROW("XOP", "\x8f\xe8\x78\xa2\xc1\x00", 0, RUNS), ROW("EXTRQ", "\x66\x0f\x79\xc1", 0, RUNS),
	};

	if (!has_monitor())
		test_rows("2 MONITOR: not offered", ALL, monitor, ARRAY_SIZE(monitor));
	test_rows("2: not offered", ALL, never, ARRAY_SIZE(never));
}

/* ---- at the end of a page, with nothing behind it: what is fetched before the verdict ---- */

#define PAGE_AT 0x8000000000ull
CODE(jump_there, "jmp *%rdi")

struct cut {
	const char *name, *bytes;
	unsigned len;
	u8 vector;
};
#define CUT(name, bytes, vector)                                                                                       \
	{                                                                                                              \
		name, bytes, sizeof(bytes) - 1, vector                                                                 \
	}

static void test_cut(void)
{
	static const struct cut rows[] = {
		CUT("UD2", "\x0f\x0b", EXC_UD),
		CUT("06, none in 64-bit mode", "\x06", EXC_UD),
		CUT("D6", "\xd6", EXC_UD),
		CUT("0F 04", "\x0f\x04", EXC_UD),
		CUT("0F 0A", "\x0f\x0a", EXC_UD),
		CUT("LOCK NOP", "\xf0\x90", EXC_UD),
		CUT("0F", "\x0f", EXC_PF),
		CUT("TEST without its immediate", "\xf6\xc0", EXC_PF),
		CUT("LOCK ADD without its displacement", "\xf0\x03\x80", EXC_PF),
		CUT("3DNow! without its last byte", "\x0f\x0f\xc0", EXC_PF),
		CUT("half a VEX prefix", "\xc5", EXC_PF),
		CUT("VEX without its opcode", "\xc5\xf8", EXC_PF),
		CUT("14 prefixes", "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66", EXC_PF),
		CUT("15 prefixes", "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66", EXC_GP),
	};
	u8 *page = frame_alloc();

	map_page(PAGE_AT, (u64)page, PTE_P | PTE_W);
	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		u64 at = PAGE_AT + 4096 - rows[n].len;
		struct trap t;

		memcpy(page + 4096 - rows[n].len, rows[n].bytes, rows[n].len);
		t = KERNEL(jump_there, .rdi = at);
		check(t.vector == rows[n].vector && t.rip == at && (t.vector != EXC_PF || t.cr2 == PAGE_AT + 4096),
		      "3A table 6-2: at the end of a page: %s: %s", rows[n].name,
		      t.vector == EXC_PF ? "the next page is fetched" : "it is not");
	}
	unmap_page(PAGE_AT);
}

#define TEST(section, rows) test_rows(section, ALL, rows, ARRAY_SIZE(rows))

void guest(void)
{
	bool avx = cpuid(1, 0).c & BIT(28), bmi2 = has_bmi2();

	write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT | (avx ? CR4_OSXSAVE : 0));
	if (avx)
		asm volatile("xsetbv" ::"c"(0), "a"(7), "d"(0));
	asm volatile("fninit");
	test_locks();
	TEST("2A 2.1.1", prefixes);
	test_rows("2A 2.2.1", IN_64, rex, ARRAY_SIZE(rex));
	test_rex();
	if (avx)
		TEST("2A 2.3", vex);
	else
		skip("2A 2.3: VEX", "no AVX");
	if (bmi2)
		TEST("2A 2.3", vex_bmi);
	else
		skip("2A 2.3: VEX with general registers", "no BMI2");
	TEST("2 A.2: undefined", undefined);
	TEST("2 A.2: where it is", by_mode);
	TEST("APM vol. 3 A: aliases", aliases);
	test_rows("2 MOV", ALL & ~IN_V86, privileged, ARRAY_SIZE(privileged));
	TEST("2 NOP", nops);
	test_not_offered();
	test_cut();
}
