/*
 * Code: instructions one behind the other, mostly ones that touch the machine, with any prefixes, operands and encodings, so that what is
 * undefined comes as well. Jumps lead to where instructions begin.
 */
#include "step.h"

enum operand { NONE, MODRM, MEMORY, REGISTER, FAR_POINTER };

/* What is worth more than a random opcode. digit: of ModRM.reg, 8 for any. */
static const struct system_instruction {
	uint8_t bytes[3], length, operand, digit;
} system_instructions[] = {
	/* far transfers */
	{ { 0xea }, 1, FAR_POINTER, 0 },
	{ { 0x9a }, 1, FAR_POINTER, 0 },
	{ { 0xff }, 1, MEMORY, 3 },
	{ { 0xff }, 1, MEMORY, 5 },
	{ { 0xca }, 1, NONE, 0 },
	{ { 0xcb }, 1, NONE, 0 },
	{ { 0xcb }, 1, NONE, 0 },
	{ { 0xcf }, 1, NONE, 0 },
	{ { 0xcf }, 1, NONE, 0 },
	{ { 0xcd }, 1, NONE, 0 },
	{ { 0xcc }, 1, NONE, 0 },
	{ { 0xce }, 1, NONE, 0 },
	{ { 0xf1 }, 1, NONE, 0 },
	/* segments */
	{ { 0x8e }, 1, MODRM, 8 },
	{ { 0x8e }, 1, REGISTER, 8 },
	{ { 0x8e }, 1, REGISTER, 2 },
	{ { 0x8c }, 1, MODRM, 8 },
	{ { 0x07 }, 1, NONE, 0 },
	{ { 0x17 }, 1, NONE, 0 },
	{ { 0x1f }, 1, NONE, 0 },
	{ { 0x06 }, 1, NONE, 0 },
	{ { 0x0f, 0xa1 }, 2, NONE, 0 },
	{ { 0x0f, 0xa9 }, 2, NONE, 0 },
	{ { 0x0f, 0xa8 }, 2, NONE, 0 },
	{ { 0xc4 }, 1, MEMORY, 8 },
	{ { 0xc5 }, 1, MEMORY, 8 },
	{ { 0x0f, 0xb2 }, 2, MEMORY, 8 },
	{ { 0x0f, 0xb4 }, 2, MEMORY, 8 },
	{ { 0x0f, 0xb5 }, 2, MEMORY, 8 },
	/* descriptor tables, LAR to ARPL */
	{ { 0x0f, 0x00 }, 2, MODRM, 8 },
	{ { 0x0f, 0x00 }, 2, REGISTER, 8 },
	{ { 0x0f, 0x01 }, 2, MODRM, 8 },
	{ { 0x0f, 0x01 }, 2, MEMORY, 8 },
	{ { 0x0f, 0x01 }, 2, REGISTER, 8 },
	{ { 0x0f, 0x02 }, 2, MODRM, 8 },
	{ { 0x0f, 0x03 }, 2, MODRM, 8 },
	{ { 0x63 }, 1, MODRM, 8 },
	/* system registers */
	{ { 0x0f, 0x20 }, 2, REGISTER, 8 },
	{ { 0x0f, 0x21 }, 2, REGISTER, 8 },
	{ { 0x0f, 0x22 }, 2, REGISTER, 8 },
	{ { 0x0f, 0x22 }, 2, REGISTER, 0 },
	{ { 0x0f, 0x22 }, 2, REGISTER, 3 },
	{ { 0x0f, 0x22 }, 2, REGISTER, 4 },
	{ { 0x0f, 0x23 }, 2, REGISTER, 8 },
	{ { 0x0f, 0x23 }, 2, REGISTER, 7 },
	{ { 0x44, 0x0f, 0x22 }, 3, REGISTER, 0 }, /* in 64-bit mode: CR8 */
	{ { 0x44, 0x0f, 0x20 }, 3, REGISTER, 0 },
	{ { 0x0f, 0x01, 0xc8 }, 3, NONE, 0 }, /* MONITOR, MWAIT, XGETBV, XSETBV */
	{ { 0x0f, 0x01, 0xc9 }, 3, NONE, 0 },
	{ { 0x0f, 0x01, 0xd0 }, 3, NONE, 0 },
	{ { 0x0f, 0x01, 0xd1 }, 3, NONE, 0 },
	{ { 0x0f, 0x05 }, 2, NONE, 0 },
	{ { 0x0f, 0x07 }, 2, NONE, 0 },
	{ { 0x0f, 0x34 }, 2, NONE, 0 },
	{ { 0x0f, 0x35 }, 2, NONE, 0 },
	{ { 0x0f, 0x06 }, 2, NONE, 0 },
	{ { 0x0f, 0x30 }, 2, NONE, 0 },
	{ { 0x0f, 0x30 }, 2, NONE, 0 },
	{ { 0x0f, 0x32 }, 2, NONE, 0 },
	{ { 0x0f, 0x31 }, 2, NONE, 0 },
	{ { 0x0f, 0x33 }, 2, NONE, 0 },
	{ { 0x0f, 0xa2 }, 2, NONE, 0 },
	{ { 0x0f, 0x38, 0x82 }, 3, MEMORY, 8 }, /* with 66: INVPCID */
	{ { 0x0f, 0x01 }, 2, MEMORY, 7 },	/* INVLPG */
	{ { 0xfa }, 1, NONE, 0 },
	{ { 0xfb }, 1, NONE, 0 },
	{ { 0xf4 }, 1, NONE, 0 },
	{ { 0x9c }, 1, NONE, 0 },
	{ { 0x9d }, 1, NONE, 0 },
	{ { 0x9d }, 1, NONE, 0 },
	/* ports, strings */
	{ { 0xe4 }, 1, NONE, 0 },
	{ { 0xe7 }, 1, NONE, 0 },
	{ { 0xed }, 1, NONE, 0 },
	{ { 0xee }, 1, NONE, 0 },
	{ { 0x6c }, 1, NONE, 0 },
	{ { 0x6d }, 1, NONE, 0 },
	{ { 0x6e }, 1, NONE, 0 },
	{ { 0x6f }, 1, NONE, 0 },
	{ { 0xa4 }, 1, NONE, 0 },
	{ { 0xa5 }, 1, NONE, 0 },
	{ { 0xa6 }, 1, NONE, 0 },
	{ { 0xa7 }, 1, NONE, 0 },
	{ { 0xaa }, 1, NONE, 0 },
	{ { 0xab }, 1, NONE, 0 },
	{ { 0xad }, 1, NONE, 0 },
	{ { 0xae }, 1, NONE, 0 },
	{ { 0xaf }, 1, NONE, 0 },
	/* the stack */
	{ { 0xc8 }, 1, NONE, 0 },
	{ { 0xc9 }, 1, NONE, 0 },
	{ { 0x60 }, 1, NONE, 0 },
	{ { 0x61 }, 1, NONE, 0 },
	{ { 0x62 }, 1, MEMORY, 8 },
	{ { 0xff }, 1, MODRM, 2 },
	{ { 0xff }, 1, MODRM, 4 },
	{ { 0xff }, 1, MODRM, 6 },
	{ { 0x8f }, 1, MODRM, 0 },
	{ { 0xc2 }, 1, NONE, 0 },
	{ { 0xc3 }, 1, NONE, 0 },
	/* floating point and its state */
	{ { 0xd8 }, 1, MODRM, 8 },
	{ { 0xd9 }, 1, MODRM, 8 },
	{ { 0xdb }, 1, MODRM, 8 },
	{ { 0xdd }, 1, MODRM, 8 },
	{ { 0xdf }, 1, MODRM, 8 },
	{ { 0x9b }, 1, NONE, 0 },
	{ { 0x0f, 0xae }, 2, MEMORY, 8 },
	{ { 0x0f, 0xae }, 2, MODRM, 8 },
	{ { 0x0f, 0xc7 }, 2, MODRM, 8 },
	{ { 0x0f, 0x77 }, 2, NONE, 0 },
	{ { 0x0f, 0xf7 }, 2, REGISTER, 8 },
	/* odds and ends */
	{ { 0xd4 }, 1, NONE, 0 },
	{ { 0xd5 }, 1, NONE, 0 },
	{ { 0x27 }, 1, NONE, 0 },
	{ { 0xd6 }, 1, NONE, 0 },
	{ { 0xd7 }, 1, NONE, 0 },
	{ { 0xe2 }, 1, NONE, 0 },
	{ { 0x0f, 0x0b }, 2, NONE, 0 },
	{ { 0x0f, 0xaa }, 2, NONE, 0 },
	{ { 0x0f, 0xc7 }, 2, MEMORY, 1 },
	{ { 0x0f, 0xab }, 2, MEMORY, 8 },
	{ { 0x86 }, 1, MODRM, 8 },
	{ { 0xf0, 0x01 }, 2, MEMORY, 8 }, /* locked */
	{ { 0xf0, 0x87 }, 2, MEMORY, 8 },
	{ { 0xf0, 0x0f, 0xb1 }, 3, MEMORY, 8 },
	{ { 0xf0, 0x0f, 0xc7 }, 3, MEMORY, 1 },
	{ { 0xf0, 0x0f, 0xba }, 3, MEMORY, 8 },
	{ { 0xf6 }, 1, MODRM, 6 },
	{ { 0xf7 }, 1, MODRM, 7 },
};

static enum code_mode code_mode(const struct plan *p)
{
	switch (p->mode) {
	case LONG: return MODE_64;
	case PROTECTED_32:
	case COMPATIBILITY: return MODE_32;
	default: return MODE_16;
	}
}

static unsigned put_prefixes(struct plan *p, uint8_t *b)
{
	static const uint8_t prefixes[] = { 0x66, 0x66, 0x66, 0x67, 0x26, 0x2e, 0x36,
					    0x3e, 0x64, 0x65, 0xf0, 0xf2, 0xf3, 0xf3 };
	unsigned n = 0;

	while (n < 3 && choose_one_in(p->choices, 4))
		b[n++] = prefixes[choose_below(p->choices, ARRAY_SIZE(prefixes))];
	if (choose_one_in(p->choices, 400)) /* too long an instruction */
		for (; n < 15; n++)
			b[n] = 0x66;
	else if (p->mode == LONG && choose_one_in(p->choices, 2))
		b[n++] = (uint8_t)(0x40 | choose_below(p->choices, 16));
	return n;
}

/* Immediates and displacements: enough of them, of which the decoder says how many count. */
static unsigned put_tail(struct plan *p, uint8_t *b, bool address)
{
	uint64_t value = choose_one_in(p->choices, 3) ? choose(p->choices) : any_number(p);

	if (address && !choose_one_in(p->choices, 4))
		value = any_address(p);

	store_le64(b, value);
	store_le64(b + 8, choose_one_in(p->choices, 2) ? choose(p->choices) : any_number(p));
	return 16;
}

static unsigned put_far_pointer(struct plan *p, uint8_t *b, bool wide)
{
	unsigned size = wide ? 4 : 2;

	store_le64(b, any_code_offset(p));
	store_le16(b + size, any_target(p));
	return size + 2;
}

static unsigned put_modrm(struct plan *p, uint8_t *b, unsigned operand, unsigned digit)
{
	unsigned mod = choose_below(p->choices, 4), rm = choose_below(p->choices, 8);

	if (operand == REGISTER || (operand == MODRM && choose_one_in(p->choices, 3)))
		mod = 3;
	else if (operand == MEMORY && mod == 3)
		mod = 0;
	/* Often an address by itself, which is likely to be there. */
	if (mod != 3 && choose_one_in(p->choices, 2)) {
		mod = 0;
		rm = code_mode(p) == MODE_16 ? 6 : 5;
	}
	b[0] = (uint8_t)(mod << 6 | (digit < 8 ? digit : choose_below(p->choices, 8)) << 3 | rm);
	if (rm != 4 || mod == 3 || code_mode(p) == MODE_16)
		return 1;
	b[1] = (uint8_t)choose_below(p->choices, 256);
	return 2;
}

static unsigned put_system(struct plan *p, uint8_t *b, bool wide)
{
	const struct system_instruction *s =
		&system_instructions[choose_below(p->choices, ARRAY_SIZE(system_instructions))];
	unsigned n = s->length;

	memcpy(b, s->bytes, n);
	if (s->operand == FAR_POINTER)
		return n + put_far_pointer(p, b + n, wide);
	if (s->operand != NONE)
		n += put_modrm(p, b + n, s->operand, s->digit);
	return n + put_tail(p, b + n, s->operand != NONE);
}

/* VEX: gathers and masked moves, which go to memory element by element. */
static unsigned put_masked(struct plan *p, uint8_t *b)
{
	static const uint8_t opcodes[] = { 0x8c, 0x8e, 0x90, 0x91, 0x92, 0x93, 0x2c, 0x2d, 0x2e, 0x2f };
	unsigned n = 3;

	b[0] = 0xc4;
	b[1] = 0xe2;
	b[2] = (uint8_t)(0x41 | choose_below(p->choices, 8) << 3 | choose_below(p->choices, 4) << 6 |
			 choose_below(p->choices, 2) << 2);
	b[n++] = opcodes[choose_below(p->choices, ARRAY_SIZE(opcodes))];
	n += put_modrm(p, b + n, MEMORY, 8);
	if (choose_one_in(p->choices, 2)) { /* a SIB byte, which gathers must have */
		b[n - 1] = (uint8_t)((b[n - 1] & 0x38) | 4);
		b[n++] = (uint8_t)choose_below(p->choices, 256);
	}
	return n + put_tail(p, b + n, true);
}

static unsigned put_any(struct plan *p, uint8_t *b)
{
	unsigned n = 0;

	switch (choose_below(p->choices, 12)) {
	case 0:
		b[n++] = 0x0f;
		b[n++] = 0x38;
		break;
	case 1:
		b[n++] = 0x0f;
		b[n++] = 0x3a;
		break;
	case 2: /* VEX of three bytes, with register fields that every mode has */
		b[n++] = 0xc4;
		b[n++] = (uint8_t)(0xe0 | choose_below(p->choices, 4));
		b[n++] = (uint8_t)(0x40 | choose_below(p->choices, 256));
		break;
	case 3: return put_masked(p, b);
	case 4:
	case 5:
	case 6: b[n++] = 0x0f; break;
	default: break;
	}
	b[n++] = (uint8_t)choose_below(p->choices, 256);
	n += put_modrm(p, b + n, MODRM, 8);
	return n + put_tail(p, b + n, true);
}

static unsigned put_instruction(struct plan *p, uint8_t *b)
{
	unsigned n = put_prefixes(p, b);
	bool wide = (code_mode(p) != MODE_16) != (n && b[0] == 0x66);

	return n + (choose_below(p->choices, 5) < 3 ? put_system(p, b + n, wide) : put_any(p, b + n));
}

void code_make(struct plan *p)
{
	uint8_t *code = p->image + CODE, bytes[64];
	struct insn insn;
	unsigned at = 0;

	while (at < CODE_SIZE - 16 && p->start_count < ARRAY_SIZE(p->starts)) {
		unsigned length;

		memset(bytes, 0, sizeof(bytes));
		put_instruction(p, bytes);
		length = cpu_decode(p->model, code_mode(p), bytes, 15, 0, &insn, NULL);
		if (insn.op == OP_INVALID && !choose_one_in(p->choices, 6))
			continue;
		p->starts[p->start_count++] = (uint16_t)at;
		length = MIN(MAX(length, 1u), 15u);
		memcpy(code + at, bytes, length);
		at += length;
	}
}
