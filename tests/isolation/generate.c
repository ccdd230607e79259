/*
 * Hostile code and registers: any instruction that decodes, and sequences that aim at what the translator emits: the window that is used
 * again while its base register moves, displacements that leave the slot, RSP that is no stack, offsets of bit strings, branches into
 * the middle of instructions, code that changes itself.
 */
#include "isolation.h"

/* ---- values ---- */

static uint64_t boundary(struct generator *g)
{
	static const uint64_t at[] = { 0,
				       0x80000000,
				       0x100000000,
				       0x180000000,
				       1ull << 39,
				       7ull << 39,
				       8ull << 39,
				       0x800000000000,
				       0xffff800000000000,
				       0xffffff8000000000,
				       0xffffffff00000000,
				       0xffffffff80000000,
				       1ull << 63,
				       1ull << 60 };

	return at[choose_below(g->choices, ARRAY_SIZE(at))];
}

static uint64_t distance(struct generator *g)
{
	static const uint64_t of[] = { 0,	   1,	       7,	   8,	       16,	   31,
				       64,	   0xfff,      0x1000,	   0x3ffffff0, 0x40000000, 0x40000001,
				       0x7ffffff8, 0x7fffffff, 0x80000000, 0xbfffffff, 0xc0000000, 0xfffffff8,
				       0x100000,   0x100008,   0xff000,	   0x20000000, 0x10000000, 0x7fffe000 };
	uint64_t d = of[choose_below(g->choices, ARRAY_SIZE(of))];

	return choose_one_in(g->choices, 2) ? -d : d;
}

static uint64_t mapped_address(struct generator *g)
{
	const struct spot *s =
		&spots[choose_below(g->choices, choose_one_in(g->choices, 2) ? FAVOURITE_SPOTS : spot_count)];
	uint64_t at = s->lin + choose_below(g->choices, s->pages) * PAGE_SIZE;

	return at + (choose_one_in(g->choices, 4) ? PAGE_SIZE - choose_below(g->choices, 40)
						  : choose_below(g->choices, PAGE_SIZE) & ~7u);
}

uint64_t hostile_address(struct generator *g)
{
	struct choices *c = g->choices;

	switch (choose_below(c, 10)) {
	case 0: return boundary(g) + distance(g);
	case 1: return ((uint64_t)choose_below(c, 1024) - 512) * (1ull << 39) + distance(g);
	case 2: return mapped_address(g) + distance(g);
	case 3: return choose(c);
	case 4: return g->secrets[choose_below(c, g->secret_count)] + (choose_one_in(c, 2) ? distance(g) : 0);
	case 5:
		/* What would be that address behind some slot's window. */
		return g->secrets[choose_below(c, g->secret_count)] - g->secrets[choose_below(c, g->secret_count)] +
		       distance(g);
	default: return mapped_address(g);
	}
}

/* The stack that the host puts signals on. */
static uint64_t hostile_stack(struct generator *g)
{
	return g->secrets[0] + (choose_below(g->choices, 0x6000) & ~7ull);
}

static uint64_t register_value(struct generator *g)
{
	switch (choose_below(g->choices, 8)) {
	case 0: return choose_below(g->choices, 256);
	case 1: return distance(g);
	case 2: return hostile_address(g);
	default: return mapped_address(g);
	}
}

/* ---- bytes ---- */

struct code {
	struct generator *g;
	uint8_t *bytes;
	unsigned at, end;
};

static void put(struct code *p, const void *bytes, unsigned len)
{
	if (p->at + len > p->end)
		return;
	memcpy(p->bytes + p->at, bytes, len);
	p->at += len;
}

#define PUT(p, ...) put(p, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

static void put32(struct code *p, uint64_t value)
{
	uint8_t b[4];

	store_le32(b, (uint32_t)value);
	put(p, b, 4);
}

static void put64(struct code *p, uint64_t value)
{
	uint8_t b[8];

	store_le64(b, value);
	put(p, b, 8);
}

/* REX.W opcode reg, disp32(base) */
static void put_op_mem(struct code *p, uint8_t opcode, unsigned reg, unsigned base, uint64_t disp)
{
	PUT(p, (uint8_t)(0x48 | (reg >> 3) << 2 | base >> 3), opcode, (uint8_t)(0x80 | (reg & 7) << 3 | (base & 7)));
	if ((base & 7) == RSP)
		PUT(p, 0x24);
	put32(p, disp);
}

/* REX.W opcode with both registers */
static void put_op_reg(struct code *p, uint8_t opcode, unsigned reg, unsigned rm)
{
	PUT(p, (uint8_t)(0x48 | (reg >> 3) << 2 | rm >> 3), opcode, (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7)));
}

static void put_mov_imm(struct code *p, unsigned reg, uint64_t value)
{
	PUT(p, (uint8_t)(0x48 | reg >> 3), (uint8_t)(0xb8 | (reg & 7)));
	put64(p, value);
}

/* REX.W 81 /n reg, imm32 */
static void put_alu_imm(struct code *p, unsigned n, unsigned reg, uint64_t value)
{
	PUT(p, (uint8_t)(0x48 | reg >> 3), 0x81, (uint8_t)(0xc0 | n << 3 | (reg & 7)));
	put32(p, value);
}

static unsigned any_register(struct code *p) { return choose_below(p->g->choices, 16); }

/* ---- one instruction: whatever decodes ---- */

static unsigned put_prefixes(struct choices *c, uint8_t *b)
{
	static const uint8_t prefixes[] = { 0x66, 0x66, 0x67, 0x64, 0x65, 0xf2, 0xf3, 0xf0 };
	unsigned n = 0;

	while (n < 3 && choose_one_in(c, 4))
		b[n++] = prefixes[choose_below(c, ARRAY_SIZE(prefixes))];
	return n;
}

static unsigned put_opcode(struct choices *c, uint8_t *b)
{
	static const uint8_t common[] = { 0x01, 0x03, 0x09, 0x0b, 0x11, 0x13, 0x21, 0x23, 0x29, 0x2b, 0x31, 0x33,
					  0x39, 0x3b, 0x63, 0x69, 0x6b, 0x80, 0x81, 0x83, 0x84, 0x85, 0x86, 0x87,
					  0x88, 0x89, 0x8a, 0x8b, 0x8d, 0x8f, 0xa1, 0xa3, 0xc0, 0xc1, 0xc6, 0xc7,
					  0xc8, 0xc9, 0xd1, 0xd3, 0xd7, 0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde,
					  0xdf, 0xf6, 0xf7, 0xfe, 0xff, 0xa4, 0xa5, 0xa6, 0xaa, 0xab, 0xac, 0xae,
					  0x50, 0x55, 0x58, 0x5c, 0x68, 0x6a, 0x9c, 0x9d };
	static const uint8_t common_0f[] = { 0x10, 0x11, 0x12, 0x13, 0x14, 0x16, 0x17, 0x28, 0x29, 0x2a, 0x2b,
					     0x2e, 0x38, 0x3a, 0x40, 0x4c, 0x51, 0x58, 0x5a, 0x6e, 0x6f, 0x7e,
					     0x7f, 0x94, 0xa3, 0xa4, 0xab, 0xac, 0xad, 0xae, 0xaf, 0xb0, 0xb1,
					     0xb3, 0xb6, 0xb7, 0xb8, 0xba, 0xbb, 0xbc, 0xbd, 0xbe, 0xbf, 0xc0,
					     0xc1, 0xc3, 0xc6, 0xc7, 0xd6, 0xe7, 0xf0, 0xf7 };
	unsigned n = 0;

	if (choose_one_in(c, 8)) {
		/* VEX: VPGATHER, VMASKMOV, BMI are in maps 2 and 3. */
		b[n++] = 0xc4;
		b[n++] = (uint8_t)(choose(c) << 5 | (1 + choose_below(c, 3)));
		b[n++] = (uint8_t)(choose_one_in(c, 2) ? choose(c) : (choose(c) & 0x87) | 0x78);
		b[n++] = (uint8_t)choose(c);
		return n;
	}
	if (!choose_one_in(c, 3))
		b[n++] = (uint8_t)(0x40 | choose_below(c, 16));
	switch (choose_below(c, 8)) {
	case 0: b[n++] = (uint8_t)choose(c); break;
	case 1:
		b[n++] = 0x0f;
		b[n++] = (uint8_t)choose(c);
		break;
	case 2:
	case 3:
		b[n++] = 0x0f;
		b[n++] = common_0f[choose_below(c, ARRAY_SIZE(common_0f))];
		if (b[n - 1] == 0x38 || b[n - 1] == 0x3a)
			b[n++] = (uint8_t)choose(c);
		break;
	default: b[n++] = common[choose_below(c, ARRAY_SIZE(common))]; break;
	}
	return n;
}

static unsigned any_instruction(struct generator *g, uint8_t b[15])
{
	struct choices *c = g->choices;
	struct insn i;

	for (unsigned tries = 0; tries < 30; tries++) {
		uint8_t bytes[32];
		unsigned n = put_prefixes(c, bytes), len;

		n += put_opcode(c, bytes + n);
		bytes[n] = (uint8_t)choose(c);
		if (choose_one_in(c, 3))
			bytes[n] = (uint8_t)((bytes[n] & 0x3f) | 0x80);
		if ((bytes[n] & 0xc7) == 0x84 || (bytes[n] & 0xc7) == 0x04 || (bytes[n] & 0xc7) == 0x44)
			bytes[++n] = (uint8_t)choose(c);
		n++;
		store_le32(bytes + n, (uint32_t)(choose_one_in(c, 2) ? choose_below(c, 64) * 8 : distance(g)));
		store_le64(bytes + n + 4, choose_one_in(c, 2) ? choose_below(c, 64) : choose(c));
		len = cpu_decode(g->model, g->code16 ? MODE_16 : g->code32 ? MODE_32 : MODE_64, bytes, 15, 0, &i, NULL);
		if (!len || i.op == OP_INVALID || i.op == OP_TOO_LONG)
			continue;
		/* HLT and what ends in time or in another mode seldom. */
		if ((i.flags & (INSN_TIME | INSN_IO | INSN_FAR) || i.op == OP_HLT) && !choose_one_in(c, 16))
			continue;
		memcpy(b, bytes, len);
		return len;
	}
	b[0] = 0x90;
	return 1;
}

/* ---- sequences ---- */

static void put_any(struct code *p)
{
	uint8_t b[15];

	put(p, b, any_instruction(p->g, b));
}

/* Accesses by one register while it, or its copy, moves; what else is written, the window must not outlive. */
static void put_drift(struct code *p)
{
	struct choices *c = p->g->choices;
	unsigned base = any_register(p), copy = any_register(p), value = any_register(p);

	if (choose_one_in(c, 2))
		put_mov_imm(p, base, hostile_address(p->g));
	for (unsigned k = 2 + choose_below(c, 8); k; k--) {
		switch (choose_below(c, 16)) {
		case 0: put_alu_imm(p, 0, base, distance(p->g)); break;		/* ADD */
		case 1: put_alu_imm(p, 5, base, distance(p->g)); break;		/* SUB */
		case 2: put_alu_imm(p, 4, base, distance(p->g)); break;		/* AND */
		case 3: put_op_mem(p, 0x8d, base, base, distance(p->g)); break; /* LEA */
		case 4: put_op_mem(p, 0x8d, copy, base, distance(p->g)); break;
		case 5: put_op_reg(p, 0x89, base, copy); break; /* MOV */
		case 6: put_op_reg(p, 0x87, base, copy); break; /* XCHG */
		case 7: put_mov_imm(p, choose_one_in(c, 2) ? base : copy, hostile_address(p->g)); break;
		case 8: put_op_reg(p, 0x01, value, base); break; /* ADD of a register */
		case 9: put_any(p); break;
		case 10: put_op_mem(p, 0x89, value, copy, distance(p->g)); break;
		case 11: put_op_mem(p, 0x8b, base, base, distance(p->g)); break;
		case 12: PUT(p, (uint8_t)(0x48 | base >> 3), 0xff, (uint8_t)(0xc0 | (base & 7))); break; /* INC */
		case 13: put_op_mem(p, 0x8b, value, copy, distance(p->g)); break;
		default: put_op_mem(p, choose_one_in(c, 2) ? 0x89 : 0x8b, value, base, distance(p->g)); break;
		}
	}
}

/* The same step again and again: far away from where the window was looked up. */
static void put_steps(struct code *p)
{
	struct choices *c = p->g->choices;
	unsigned base = any_register(p), kind = choose_below(c, 3);
	uint64_t step = distance(p->g);

	put_mov_imm(p, base, mapped_address(p->g));
	for (unsigned k = 2 + choose_below(c, 10); k; k--) {
		if (!choose_one_in(c, 3))
			put_op_mem(p, choose_one_in(c, 2) ? 0x89 : 0x8b, (base + 1) & 7, base, distance(p->g));
		if (kind == 2)
			put_op_mem(p, 0x8d, base, base, step);
		else
			put_alu_imm(p, kind ? 5 : 0, base, step);
	}
	put_op_mem(p, 0x8b, (base + 1) & 7, base, distance(p->g));
}

static void put_stack(struct code *p)
{
	struct choices *c = p->g->choices;

	if (choose_one_in(c, 2))
		put_mov_imm(p, RSP, choose_one_in(c, 8) ? hostile_stack(p->g) : hostile_address(p->g));
	if (choose_one_in(c, 3))
		put_mov_imm(p, RBP, hostile_address(p->g));
	for (unsigned k = 1 + choose_below(c, 6); k; k--) {
		unsigned reg = any_register(p);

		switch (choose_below(c, 12)) {
		case 0: PUT(p, (uint8_t)(0x40 | reg >> 3), (uint8_t)(0x50 | (reg & 7))); break;
		case 1: PUT(p, (uint8_t)(0x40 | reg >> 3), (uint8_t)(0x58 | (reg & 7))); break;
		case 2: PUT(p, 0xc9); break; /* LEAVE */
		case 3:
			PUT(p, 0xc8, (uint8_t)choose(c), (uint8_t)choose(c), (uint8_t)choose_below(c, 4));
			break; /* ENTER */
		case 4: /* CALL of what follows */ PUT(p, 0xe8, 0, 0, 0, 0); break;
		case 5: PUT(p, 0xe8, 1, 0, 0, 0, 0xc9); break;
		case 6: /* PUSH and POP of memory */
			PUT(p, (uint8_t)(0x40 | reg >> 3), 0xff, (uint8_t)(0xb0 | (reg & 7)));
			if ((reg & 7) == RSP)
				PUT(p, 0x24);
			put32(p, distance(p->g));
			break;
		case 7:
			PUT(p, (uint8_t)(0x40 | reg >> 3), 0x8f, (uint8_t)(0x80 | (reg & 7)));
			if ((reg & 7) == RSP)
				PUT(p, 0x24);
			put32(p, distance(p->g));
			break;
		case 8: put_alu_imm(p, choose_one_in(c, 2) ? 0 : 5, RSP, distance(p->g)); break;
		case 9:
			PUT(p, 0x68);
			put32(p, distance(p->g));
			break;
		case 10: put_op_mem(p, 0x8b, reg, RSP, distance(p->g)); break;
		default: PUT(p, 0x66, (uint8_t)(0x50 | (reg & 15))); break;
		}
	}
	if (choose_one_in(c, 6))
		PUT(p, 0xc3);
	if (choose_one_in(c, 12))
		PUT(p, 0xc2, (uint8_t)choose(c), (uint8_t)choose(c));
}

static void put_bit_string(struct code *p)
{
	static const uint8_t opcodes[] = { 0xa3, 0xab, 0xb3, 0xbb };
	struct choices *c = p->g->choices;
	unsigned base = any_register(p), offset = any_register(p);
	uint64_t far = choose_one_in(c, 2) ? (mapped_address(p->g) - mapped_address(p->g)) * 8 : choose(c);

	if (choose_one_in(c, 2))
		put_mov_imm(p, base, mapped_address(p->g));
	put_mov_imm(p, offset, choose_one_in(c, 3) ? distance(p->g) : far);
	if (choose_one_in(c, 6))
		PUT(p, (uint8_t)(choose_one_in(c, 2) ? 0xf0 : choose_one_in(c, 2) ? 0x67 : 0x64));
	PUT(p, (uint8_t)((choose_one_in(c, 4) ? 0x40 : 0x48) | (offset >> 3) << 2 | base >> 3), 0x0f,
	    opcodes[choose_below(c, 4)], (uint8_t)(0x80 | (offset & 7) << 3 | (base & 7)));
	if ((base & 7) == RSP)
		PUT(p, 0x24);
	put32(p, choose_one_in(c, 2) ? 0 : distance(p->g));
}

static void put_string(struct code *p)
{
	static const uint8_t opcodes[] = { 0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf };
	struct choices *c = p->g->choices;

	if (choose_one_in(c, 2))
		put_mov_imm(p, RSI, hostile_address(p->g));
	if (choose_one_in(c, 2))
		put_mov_imm(p, RDI, hostile_address(p->g));
	put_mov_imm(p, RCX, choose_one_in(c, 8) ? choose(c) : choose_below(c, 700));
	if (choose_one_in(c, 4))
		PUT(p, 0xfd); /* STD */
	if (choose_one_in(c, 8))
		PUT(p, (uint8_t)(choose_one_in(c, 2) ? 0x67 : 0x64));
	if (!choose_one_in(c, 4))
		PUT(p, (uint8_t)(choose_one_in(c, 3) ? 0xf2 : 0xf3));
	if (choose_one_in(c, 2))
		PUT(p, 0x48);
	PUT(p, opcodes[choose_below(c, ARRAY_SIZE(opcodes))]);
	PUT(p, 0xfc); /* CLD */
}

static void put_segment(struct code *p)
{
	struct choices *c = p->g->choices;
	unsigned reg = any_register(p), base = any_register(p);

	switch (choose_below(c, 6)) {
	case 0: /* WRFSBASE, WRGSBASE */
	case 1:
		put_mov_imm(p, reg, hostile_address(p->g));
		PUT(p, 0xf3, (uint8_t)(0x48 | reg >> 3), 0x0f, 0xae,
		    (uint8_t)((choose_one_in(c, 2) ? 0xd0 : 0xd8) | (reg & 7)));
		break;
	case 2: PUT(p, 0x0f, 0x01, 0xf8); break; /* SWAPGS */
	case 3:					 /* MOV to a segment register: null, or user data */
		PUT(p, 0xb8, (uint8_t)(choose_one_in(c, 2) ? 0x2b : choose_below(c, 4)), 0, 0, 0, 0x8e,
		    (uint8_t)(0xc0 | (choose_one_in(c, 2) ? 4 : 5) << 3));
		break;
	default: break;
	}
	for (unsigned k = 1 + choose_below(c, 3); k; k--) {
		PUT(p, choose_one_in(c, 2) ? 0x64 : 0x65);
		if (choose_one_in(c, 3))
			PUT(p, 0x67);
		if (choose_one_in(c, 3)) { /* absolute */
			PUT(p, 0x48, choose_one_in(c, 2) ? 0x8b : 0x89, (uint8_t)(4 | (reg & 7) << 3), 0x25);
			put32(p, distance(p->g));
		} else {
			put_op_mem(p, choose_one_in(c, 2) ? 0x8b : 0x89, reg, base, distance(p->g));
		}
	}
}

static void put_rip_relative(struct code *p)
{
	struct choices *c = p->g->choices;

	if (choose_one_in(c, 4))
		PUT(p, 0x67);
	PUT(p, 0x48, choose_one_in(c, 2) ? 0x8b : 0x89, (uint8_t)(5 | choose_below(c, 8) << 3));
	put32(p, choose_one_in(c, 3) ? choose_below(c, 0x4000) - 0x2000 : distance(p->g));
}

/* A branch: inside of the code, wherever that is, or to anywhere. */
static void put_branch(struct code *p)
{
	struct choices *c = p->g->choices;
	unsigned reg = any_register(p);
	int32_t near = (int32_t)choose_below(c, 64) - 24;

	switch (choose_below(c, 8)) {
	case 0: PUT(p, 0xeb, (uint8_t)near); break;
	case 1:
	case 2: PUT(p, (uint8_t)(0x70 | choose_below(c, 16)), (uint8_t)near); break;
	case 3:
		PUT(p, 0x0f, (uint8_t)(0x80 | choose_below(c, 16)));
		put32(p, choose_one_in(c, 3)   ? (uint64_t)(int64_t)near
			 : choose_one_in(c, 2) ? choose_below(c, 0x3000)
					       : distance(p->g));
		break;
	case 4:
		PUT(p, choose_one_in(c, 2) ? 0xe8 : 0xe9);
		put32(p, choose_one_in(c, 2) ? choose_below(c, 0x3000) : distance(p->g));
		break;
	case 5: PUT(p, (uint8_t)(0xe0 | choose_below(c, 4)), (uint8_t)near); break; /* LOOP, JRCXZ */
	case 6:									    /* JMP, CALL of a register */
		put_mov_imm(p, reg,
			    choose_one_in(c, 2) ? hostile_address(p->g)
						: spots[choose_below(c, CODE_SPOTS)].lin + choose_below(c, CODE_SIZE));
		PUT(p, (uint8_t)(0x40 | reg >> 3), 0xff, (uint8_t)((choose_one_in(c, 2) ? 0xe0 : 0xd0) | (reg & 7)));
		break;
	default: /* of memory */
		PUT(p, (uint8_t)(0x40 | reg >> 3), 0xff, (uint8_t)((choose_one_in(c, 2) ? 0xa0 : 0x90) | (reg & 7)));
		if ((reg & 7) == RSP)
			PUT(p, 0x24);
		put32(p, distance(p->g));
		break;
	}
}

/* Stores to code: what follows, or anything. */
static void put_self_modifying(struct code *p)
{
	struct choices *c = p->g->choices;

	if (choose_one_in(c, 2)) {
		PUT(p, 0xc6, 0x05); /* movb $, disp(%rip) */
		put32(p, choose_below(c, 64) - 16);
		PUT(p, (uint8_t)(choose_one_in(c, 2) ? 0x90 : choose(c)));
	} else {
		unsigned reg = any_register(p);

		put_mov_imm(p, reg, spots[choose_below(c, CODE_SPOTS)].lin + choose_below(c, CODE_SIZE));
		put_op_mem(p, 0x89, any_register(p), reg, 0);
	}
}

/* A few instructions several times: what they did at first, the translator then knows. */
static void put_loop(struct code *p)
{
	struct choices *c = p->g->choices;
	unsigned counter = choose_one_in(c, 4) ? R15 : R9, start;

	put_mov_imm(p, counter, 2 + choose_below(c, 20));
	start = p->at;
	for (unsigned k = 1 + choose_below(c, 3); k; k--)
		put_any(p);
	put_drift(p);
	if (p->at - start > 100)
		return;
	PUT(p, 0x49, 0xff, (uint8_t)(0xc8 | (counter & 7)));
	PUT(p, 0x75, (uint8_t)(start - (p->at + 2)));
}

/* What CPL 0 does with its tables: flushes of all kinds; what may pass. */
static void put_system(struct code *p)
{
	struct choices *c = p->g->choices;
	unsigned reg = any_register(p);

	switch (choose_below(c, 10)) {
	case 0: /* CR3 to itself */ PUT(p, 0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8); break;
	case 1: /* INVLPG */
		put_mov_imm(p, RAX, hostile_address(p->g));
		PUT(p, 0x0f, 0x01, 0x38);
		break;
	case 2: /* CR4.PGE, or SMAP, SMEP */
		PUT(p, 0x0f, 0x20, 0xe0, 0x48, 0x35);
		put32(p, choose_one_in(c, 2) ? CR4_PGE : choose_one_in(c, 2) ? CR4_SMAP : CR4_SMEP);
		PUT(p, 0x0f, 0x22, 0xe0);
		break;
	case 3: PUT(p, 0x0f, 0x01, choose_one_in(c, 2) ? 0xcb : 0xca); break; /* STAC, CLAC */
	case 4:								      /* POPF of anything but TF */
		PUT(p, 0x68);
		put32(p, choose(c) & 0x3fffff & ~FLAG_TF & ~FLAG_VM);
		PUT(p, 0x9d);
		break;
	case 5: /* CR0.WP */
		PUT(p, 0x0f, 0x20, 0xc0, 0x48, 0x0f, 0xba, 0xf8, choose_one_in(c, 2) ? 16 : 3, 0x0f, 0x22, 0xc0);
		break;
	case 6: /* WRMSR of bases */
		put_mov_imm(p, RAX, hostile_address(p->g));
		PUT(p, 0x48, 0x89, 0xc2, 0x48, 0xc1, 0xea, 0x20, 0xb9, (uint8_t)choose_below(c, 3), 0x01, 0x00, 0xc0,
		    0x0f, 0x30);
		break;
	case 7: PUT(p, 0x0f, 0x05); break; /* SYSCALL */
	case 8:				   /* IRET to CPL 3, or to itself */
		put_mov_imm(p, reg == RSP ? RAX : reg,
			    spots[choose_below(c, CODE_SPOTS)].lin + choose_below(c, CODE_SIZE));
		PUT(p, 0x6a, 0x2b, 0x54, 0x68, 2, 2, 0, 0, 0x6a, 0x33, 0x50, 0x48, 0xcf);
		break;
	default: /* SYSRET */
		put_mov_imm(p, RCX,
			    choose_one_in(c, 3) ? hostile_address(p->g)
						: spots[choose_below(c, CODE_SPOTS)].lin + choose_below(c, CODE_SIZE));
		PUT(p, 0x41, 0xbb, 2, 2, 0, 0, 0x48, 0x0f, 0x07);
		break;
	}
}

static void put_bytes(struct code *p)
{
	for (unsigned k = 1 + choose_below(p->g->choices, 12); k; k--)
		PUT(p, (uint8_t)choose(p->g->choices));
}

static void put_something(struct code *p)
{
	static void (*const kinds[])(struct code *) = { put_drift,     put_drift,  put_steps,	put_stack,
							put_stack,     put_string, put_segment, put_rip_relative,
							put_branch,    put_branch, put_loop,	put_self_modifying,
							put_bit_string };

	if (p->g->kernel && choose_one_in(p->g->choices, 8)) {
		put_system(p);
		return;
	}
	switch (choose_below(p->g->choices, 8)) {
	case 0:
	case 1:
	case 2:
	case 3: put_any(p); break;
	case 4:
		if (choose_one_in(p->g->choices, 6))
			put_bytes(p);
		break;
	default: kinds[choose_below(p->g->choices, ARRAY_SIZE(kinds))](p); break;
	}
}

/* Flip bits of what is there. */
static void mutate(struct generator *g, uint8_t *bytes, unsigned len)
{
	for (unsigned k = choose_below(g->choices, 4); k; k--)
		bytes[choose_below(g->choices, len)] ^= (uint8_t)BIT(choose_below(g->choices, 8));
}

void generate_code(struct generator *g, uint8_t code[CODE_SIZE], unsigned *entry)
{
	struct choices *c = g->choices;
	unsigned pieces = 2 + choose_below(c, 4);

	memset(code, 0xf4, CODE_SIZE);
	for (unsigned k = 0; k < pieces; k++) {
		unsigned at = choose_one_in(c, 3) ? (1 + choose_below(c, 3)) * PAGE_SIZE - choose_below(c, 60)
						  : choose_below(c, CODE_SIZE - 0x400);
		struct code p = {
			.g = g, .bytes = code, .at = at, .end = MIN(at + 20 + choose_below(c, 300), CODE_SIZE)
		};

		*entry = at;
		for (unsigned tries = 0; p.at < p.end && tries < 100; tries++)
			put_something(&p);
		if (choose_one_in(c, 4))
			mutate(g, code + at, p.at - at + 1);
	}
}

/* ---- registers ---- */

static void set_segment(struct cpu_state *s, enum seg seg, uint16_t sel, uint16_t attr, uint64_t base)
{
	s->seg_sel[seg] = sel;
	s->seg_attr[seg] = attr;
	s->seg_base[seg] = base;
	s->seg_limit[seg] = attr ? UINT32_MAX : 0;
}

/* Where the code is, with EIP in the first 64 KiB; others mostly where their offsets of 16 bits lead to something. */
static void set_segments16(struct generator *g, struct cpu_state *s)
{
	static const enum seg data[] = { ES, SS, DS, FS, GS };

	s->seg_attr[CS] &= (uint16_t)~ATTR_DB;
	s->seg_base[CS] = s->rip & PAGE_MASK & UINT32_MAX;
	s->seg_limit[CS] = choose_one_in(g->choices, 4) ? (uint32_t)choose(g->choices) | 0xfff : 0xffff;
	s->rip &= ~PAGE_MASK;
	for (unsigned n = 0; n < ARRAY_SIZE(data); n++) {
		if (choose_one_in(g->choices, 2))
			s->seg_base[data[n]] = (uint32_t)hostile_address(g);
		if (choose_one_in(g->choices, 2))
			s->seg_limit[data[n]] = choose_one_in(g->choices, 4) ? (uint32_t)choose(g->choices) : 0xffff;
	}
	if (choose_one_in(g->choices, 2))
		s->seg_attr[SS] &= (uint16_t)~ATTR_DB;
	if (choose_one_in(g->choices, 8))
		s->seg_attr[data[choose_below(g->choices, ARRAY_SIZE(data))]] ^= ATTR_EXPAND_DOWN;
}

static void set_segments(struct generator *g, struct cpu_state *s)
{
	const uint16_t data = ATTR_P | ATTR_S | ATTR_WRITABLE | ATTR_ACCESSED | ATTR_G | ATTR_DB;
	const uint16_t code = ATTR_P | ATTR_S | ATTR_WRITABLE | ATTR_ACCESSED | ATTR_G | ATTR_CODE | ATTR_L;
	bool user = !g->kernel;

	set_segment(s, CS, user ? 0x33 : 0x10, code | (user ? ATTR_DPL : 0), 0);
	set_segment(s, SS, user ? 0x2b : 0x18, data | (user ? ATTR_DPL : 0), 0);
	set_segment(s, DS, 0x2b, data | ATTR_DPL, 0);
	set_segment(s, ES, 0x2b, data | ATTR_DPL, 0);
	set_segment(s, FS, 0, 0, 0);
	set_segment(s, GS, 0, 0, 0);
	/* WRMSR and WRFSBASE refuse what is not canonical. */
	s->seg_base[FS] = (uint64_t)sign_extend(hostile_address(g), 48);
	s->seg_base[GS] = (uint64_t)sign_extend(hostile_address(g), 48);
	s->msr_kernel_gs_base = (uint64_t)sign_extend(hostile_address(g), 48);
	if (!g->code32)
		return;
	set_segment(s, CS, 0x23, (uint16_t)((code & ~ATTR_L) | ATTR_DB | ATTR_DPL), 0);
	set_segment(s, FS, 0x2b, data | ATTR_DPL, (uint32_t)s->seg_base[FS]);
	if (choose_one_in(g->choices, 4))
		set_segment(s, DS, 0x2b, data | ATTR_DPL, (uint32_t)hostile_address(g));
	if (choose_one_in(g->choices, 8))
		set_segment(s, SS, 0x2b, data | ATTR_DPL, (uint32_t)hostile_address(g));
	if (choose_one_in(g->choices, 8))
		s->seg_limit[choose_below(g->choices, 6)] = (uint32_t)choose(g->choices) | 0xfff;
	if (g->code16)
		set_segments16(g, s);
	s->seg_attr[DS] &= (uint16_t) ~(choose_one_in(g->choices, 16) ? ATTR_WRITABLE : 0);
}

void generate_registers(struct generator *g, struct cpu_state *s)
{
	struct choices *c = g->choices;

	for (unsigned n = 0; n < 16; n++)
		s->gpr[n] = register_value(g);
	if (!choose_one_in(c, 4))
		s->gpr[RSP] = choose_one_in(c, 16) ? hostile_stack(g)
						   : (spots[CODE_SPOTS + choose_below(c, 4)].lin + PAGE_SIZE +
						      choose_below(c, PAGE_SIZE)) &
							     ~7ull;
	s->rflags = 2 | (choose(c) & (FLAGS_STATUS | FLAG_IF));
	if (choose_one_in(c, 8))
		s->rflags |= choose(c) & (FLAG_AC | FLAG_NT | FLAG_ID | FLAG_DF | FLAG_RF);
	if (choose_one_in(c, 40))
		s->rflags |= FLAG_TF;
	set_segments(g, s);
	for (unsigned n = 0; n < 16 && g->code32; n++)
		s->gpr[n] = (uint32_t)s->gpr[n];
	for (unsigned n = 0; n < 64; n++)
		s->vec[n] = choose_one_in(c, 3) ? hostile_address(g) : choose(c);
	s->mxcsr = choose_one_in(c, 4) ? (uint32_t)choose(c) & 0xffc0 : 0x1f80;
	for (unsigned n = 0; n < 8; n++) {
		s->st_mantissa[n] = choose(c) | BIT(63);
		s->st_exponent[n] = 0x3fff;
	}
	s->fcw = choose_one_in(c, 8) ? 0x340 : 0x37f;
	s->fsw = 0;
	s->ftw = choose_one_in(c, 2) ? 0xffff : 0;
	s->fop = s->fcs = s->fds = 0;
	s->fip = s->fdp = 0;
}
