/*
 * What the recorded processors do otherwise than those of today, and so than ours: SDM vol. 3B 23 ("architecture compatibility"), and for the
 * 8086's undocumented encodings what the set's own notes say. A vector that one of these rules covers is left out and counted.
 */
#include "vectors.h"

#include "cpu/cpu.h"

struct opcode vector_opcode(const struct test_vector *v)
{
	struct opcode op = { 0 };
	unsigned n = 0;

	for (; n < v->length; n++) {
		uint8_t b = v->bytes[n];

		if ((b & 0xe7) != 0x26 && b != 0xf0 && b != 0xf2 && b != 0xf3)
			break;
		op.lock |= b == 0xf0;
		op.repeat |= b == 0xf2 || b == 0xf3;
	}
	op.prefixes = n;
	op.code = n < v->length ? v->bytes[n++] : 0;
	if (op.code == 0x0f && n < v->length)
		op.code = 0x0f00 | v->bytes[n++];
	op.modrm = n < v->length ? v->bytes[n] : 0;
	return op;
}

#define ANY 0xff

/* Up to which processor, first and last opcode, digits of ModRM.reg (a bit each), mod (ANY: both kinds), why. */
static const struct {
	enum processor up_to;
	uint16_t first, last;
	uint8_t digits, mod;
	const char *why;
} rules[] = {
	{ CPU_8086, 0x0f00, 0x0fff, ANY, ANY, "0F: POP CS; from the 80286 on the first byte of two-byte opcodes" },
	{ CPU_8086, 0x54, 0x54, ANY, ANY, "PUSH SP: pushes what SP is afterwards; from the 80286 on what it was" },
	{ CPU_8086, 0x60, 0x6f, ANY, ANY, "60 to 6F: conditional jumps again; from the 80186 on other instructions" },
	{ CPU_8086, 0x8c, 0x8c, 0xf0, ANY,
	  "MOV from segment registers 4 to 7: the first four again; today FS, GS and #UD" },
	{ CPU_8086, 0x8e, 0x8e, 0xf0, ANY,
	  "MOV to segment registers 4 to 7: the first four again; today FS, GS and #UD" },
	{ CPU_8086, 0x8e, 0x8e, 0x02, ANY, "MOV to CS: jumps; from the 80286 on #UD" },
	{ CPU_8086, 0x8f, 0x8f, 0xfe, ANY, "8F with a digit: undefined; from the 80286 on #UD" },
	{ CPU_8086, 0xc0, 0xc1, ANY, ANY, "C0, C1: RET again; from the 80186 on shifts" },
	{ CPU_8086, 0xc6, 0xc7, 0xfe, ANY, "C6, C7 with a digit: MOV again; from the 80286 on #UD" },
	{ CPU_8086, 0xc8, 0xc9, ANY, ANY, "C8, C9: RETF again; from the 80186 on ENTER and LEAVE" },
	{ CPU_8086, 0xd0, 0xd3, 0x40, ANY, "shift /6: sets all bits; from the 80186 on SHL again" },
	{ CPU_80286, 0xd8, 0xdf, ANY, ANY, "ESC: no coprocessor was there; today's executes it" },
	{ CPU_8086, 0xf1, 0xf1, ANY, ANY, "F1: LOCK again; today INT1" },
	{ CPU_8086, 0xf6, 0xf7, 0x02, ANY, "F6, F7 /1: undefined there, TEST again here" },
	{ CPU_8086, 0xfe, 0xfe, 0xfc, ANY, "FE /2 to /7: odd jumps and calls; from the 80286 on #UD" },
	{ CPU_8086, 0xff, 0xff, 0x80, ANY, "FF /7: PUSH again; from the 80286 on #UD" },
	{ CPU_8086, 0xff, 0xff, 0x28, 3,
	  "far CALL and JMP of a register: whatever was in a latch; from the 80286 on #UD" },
	{ CPU_8086, 0x8d, 0x8d, ANY, 3, "LEA of a register: whatever was in a latch; from the 80286 on #UD" },
	{ CPU_8086, 0xc4, 0xc5, ANY, 3, "LES, LDS of a register: whatever was in a latch; from the 80286 on #UD" },
	{ CPU_80286, 0x0f01, 0x0f01, 0x03, ANY,
	  "SGDT, SIDT: the last byte is FF; from the 80386 on 0 or part of the base" },
	{ CPU_80286, 0x0f01, 0x0f01, 0x50, ANY, "SMSW, LMSW: the 80286's machine status word has other bits than CR0" },
	{ CPU_80286, 0x0f04, 0x0f05, ANY, ANY, "STOREALL, LOADALL: the 80286's alone" },
	{ CPU_80286, 0x8c, 0x8c, 0x30, ANY, "MOV from FS and GS: #UD; from the 80386 on there are such" },
	{ CPU_80286, 0x8e, 0x8e, 0x30, ANY, "MOV to FS and GS: #UD; from the 80386 on there are such" },
	{ CPU_80286, 0x64, 0x67, ANY, ANY, "64 to 67: #UD; from the 80386 on prefixes" },
};

/* AAA and AAS of the 8086 adjust AL and AH by themselves, later ones AX as a whole. */
static bool adjusts_both(const struct test_vector *v, unsigned opcode)
{
	uint8_t al = (uint8_t)v->before.reg[V_ax];

	return (opcode == 0x37 && al > 0xf9) || (opcode == 0x3f && al < 6);
}

const char *difference_before(enum processor processor, const struct test_vector *v)
{
	struct opcode op = vector_opcode(v);
	unsigned digit = op.modrm >> 3 & 7;

	for (unsigned n = 0; n < ARRAY_SIZE(rules); n++)
		if (processor <= rules[n].up_to && op.code >= rules[n].first && op.code <= rules[n].last &&
		    (rules[n].digits == ANY || (rules[n].digits >> digit & 1)) &&
		    (rules[n].mod == ANY || op.modrm >> 6 == rules[n].mod))
			return rules[n].why;
	if (op.lock)
		return "LOCK: earlier processors take it before more instructions; today #UD";
	if (processor == CPU_8086 && (op.code == 0xd2 || op.code == 0xd3) && (v->before.reg[V_cx] & 0xe0))
		return "shifts by CL: not masked; from the 80186 on to 5 bits";
	if (processor == CPU_8086 && op.code == 0xff && op.modrm == 0xf4)
		return "PUSH SP: pushes what SP is afterwards; from the 80286 on what it was";
	if (processor == CPU_8086 && op.repeat && (op.code & 0xfffe) == 0xf6)
		return "REP before MUL, IMUL, DIV, IDIV: changes the sign; today ignored";
	if (processor == CPU_8086 && adjusts_both(v, op.code))
		return "AAA, AAS: AL and AH are adjusted apart; from the 80286 on as AX";
	if (processor == CPU_80286 && v->length > 10)
		return "more than 10 bytes: #UD or #GP; from the 80386 on more than 15";
	return NULL;
}

/*
 * The upper digit: up to the 80286 adjusted for AL above 9Fh where AF was set, from the 80386 on always above 99h (SDM vol. 2 DAA, DAS).
 */
static bool adjusts_upper_late(const struct test_vector *v, unsigned opcode)
{
	uint8_t al = (uint8_t)v->before.reg[V_ax];
	uint32_t flags = v->before.reg[V_flags];

	return (opcode == 0x27 || opcode == 0x2f) && (flags & FLAG_AF) && !(flags & FLAG_CF) && al > 0x99 && al <= 0x9f;
}

static bool is_string(unsigned code)
{
	return (code >= 0x6c && code <= 0x6f) || (code >= 0xa4 && code <= 0xa7) || (code >= 0xaa && code <= 0xaf);
}

/* Exceptions of the 80286 where ours has one of its own. */
static const char *other_exception(const struct test_vector *v, unsigned code, int exception)
{
	if (exception == 12 && v->exception == 13)
		return "beyond the stack's FFFF: #13; from the 80386 on #SS (12)";
	if (exception != v->exception || (exception != 12 && exception != 13))
		return NULL;
	if (is_string(code))
		return "string operations that fault: their pointers have moved; from the 80386 on they have not";
	return code == 0x8f ? "POP to memory that faults: SP has moved; from the 80386 on it has not" : NULL;
}

static const char *difference_of_8086(const struct test_vector *v, unsigned code, int exception)
{
	if (exception == 12 || exception == 13)
		return "offsets beyond FFFF: go on at 0; from the 80286 on #GP or #SS";
	if (exception == 0)
		return "divide error: the return address is the next instruction's; from the 80286 on its own";
	if (code == 0xf6 || code == 0xf7)
		return v->after.reg[V_cs] != v->before.reg[V_cs] || v->after.reg[V_ip] == 0x400
			       ? "IDIV with the most negative quotient: divide error; from the 80286 on a result"
			       : NULL;
	return NULL;
}

const char *difference_after(enum processor processor, const struct test_vector *v, int exception)
{
	unsigned code = vector_opcode(v).code;

	if (processor <= CPU_80286 && adjusts_upper_late(v, code))
		return "DAA, DAS with AF and AL of 9A to 9F: the upper digit stays; from the 80386 on it is adjusted";
	if (processor == CPU_80286)
		return other_exception(v, code, exception);
	return processor == CPU_8086 ? difference_of_8086(v, code, exception) : NULL;
}
