/*
 * host_stub: writes the small pieces of host code that run one guest instruction each: load what it reads from the
 * vCPU, the instruction itself, store what it wrote. Vector registers keep their numbers; the memory operand becomes
 * (%rsi), an explicit general register becomes %rcx; implicit ones (at most RAX, RCX, RDX) are what they are.
 *
 * A stub does not push and leaves %rdi alone: wherever it faults, the stack is that of its first instruction, so that
 * host.c can go on as if another function had been called in its place.
 */
#include "engine/interp/host_exec.h"

#define MODRM_MEM_RSI 6 /* mod 0, r/m RSI */

/* ---- the key: the guest's bytes, rewritten ---- */

struct parts {
	bool has_66;
	uint8_t repeat; /* 0xf2, 0xf3 or 0 */
	uint8_t rex;	/* 0: none */
	unsigned start; /* of the VEX prefix or the opcode */
	unsigned modrm; /* 0: none */
	unsigned tail;	/* bytes behind ModRM, SIB and displacement */
};

/* Bytes of SIB and displacement that follow a ModRM byte. */
static unsigned address_length(const struct insn *i, unsigned modrm)
{
	unsigned mod = i->bytes[modrm] >> 6, rm = i->bytes[modrm] & 7, sib = 0;

	if (mod == 3)
		return 0;
	if (i->addrsize == 2)
		return mod == 1 ? 1 : mod == 2 || rm == 6 ? 2 : 0;
	if (rm == 4) {
		sib = 1;
		rm = i->bytes[modrm + 1] & 7;
	}
	return sib + (mod == 1 ? 1 : mod == 2 || rm == 5 ? 4 : 0);
}

static struct parts take_apart(const struct vcpu *v, const struct insn *i, const struct insn_host *h)
{
	struct parts p = { 0 };

	for (;; p.start++) {
		uint8_t b = i->bytes[p.start];

		switch (b) {
		case 0x66: p.has_66 = true; break;
		case 0xf2:
		case 0xf3: p.repeat = b; break;
		case 0x26:
		case 0x2e:
		case 0x36:
		case 0x3e:
		case 0x64:
		case 0x65:
		case 0x67: break;
		default:
			if (v->code_mode == MODE_64 && (b & 0xf0) == 0x40) {
				p.rex = b;
				continue;
			}
			goto out;
		}
		p.rex = 0; /* only the last byte before the opcode is one */
	}
out:
	p.modrm = h->modrm_offset;
	p.tail = p.modrm ? p.modrm + 1 + address_length(i, p.modrm) : i->len;
	return p;
}

/*
 * Opcodes whose VEX.W means a 64-bit general register or memory operand; outside 64-bit mode it is ignored (SDM vol. 2
 * 2.3.5.5): VCVTSI2Sx, VCVT(T)Sx2SI, VMOVD, VPEXTRD, VPINSRD; and the lengths of VPCMPESTRx.
 */
static bool vex_w_selects_gpr(unsigned map, unsigned opcode, unsigned pp)
{
	if (map == 1)
		return ((opcode == 0x2a || opcode == 0x2c || opcode == 0x2d) && pp >= 2) ||
		       ((opcode == 0x6e || opcode == 0x7e) && pp == 1);
	return map == 3 && (opcode == 0x16 || opcode == 0x22 || opcode == 0x60 || opcode == 0x61);
}

/* VBLENDVPS, VBLENDVPD, VPBLENDVB: imm8[7:4] is a register; bit 7 is ignored outside 64-bit mode. */
static bool imm_names_register(unsigned map, unsigned opcode) { return map == 3 && opcode >= 0x4a && opcode <= 0x4c; }

/* Copies VEX prefix and opcode, all in the three-byte form; register bits of operands that move are cleared. */
static uint8_t *copy_vex(uint8_t *to, const struct vcpu *v, const struct insn *i, const struct insn_host *h,
			 const struct parts *p)
{
	const uint8_t *from = i->bytes + p->start;
	bool two = from[0] == 0xc5;
	unsigned rxb_map = two ? (from[1] & 0x80) | 0x61 : from[1];
	unsigned last = two ? from[1] & 0x7f : from[2];
	uint8_t opcode = from[two ? 2 : 3];

	if (v->code_mode != MODE_64) {
		rxb_map |= 0xe0;
		last |= 0x40;
		if (vex_w_selects_gpr(rxb_map & 0x1f, opcode, last & 3))
			last &= 0x7f;
	}
	if (h->mem_size)
		rxb_map |= 0x60;
	if (h->gpr_place == 1)
		rxb_map |= 0x80;
	else if (h->gpr_place == 2)
		rxb_map |= 0x20;
	*to++ = 0xc4;
	*to++ = (uint8_t)rxb_map;
	*to++ = (uint8_t)last;
	*to++ = opcode;
	return to;
}

static uint8_t *copy_legacy(uint8_t *to, const struct insn *i, const struct insn_host *h, const struct parts *p)
{
	unsigned end = p->modrm ? p->modrm : p->tail;
	uint8_t rex = p->rex;

	if (h->mem_size)
		rex &= (uint8_t)~3;
	if (h->gpr_place == 1)
		rex &= (uint8_t)~4;
	else if (h->gpr_place == 2)
		rex &= (uint8_t)~1;
	if (p->has_66 && !h->x87)
		*to++ = 0x66;
	if (p->repeat && !h->x87)
		*to++ = p->repeat;
	if (rex & 15 && !h->x87)
		*to++ = rex;
	memcpy(to, i->bytes + p->start, end - p->start);
	return to + (end - p->start);
}

static unsigned explicit_register(const struct insn_host *h)
{
	unsigned all = h->gpr_read | h->gpr_written;

	return h->gpr_place ? (unsigned)__builtin_ctz(all) : 0;
}

void host_key_make(struct host_key *key, const struct vcpu *v, const struct insn *i, const struct insn_host *h)
{
	struct parts p = take_apart(v, i, h);
	uint8_t buffer[24], *to = buffer;

	to = h->vex ? copy_vex(to, v, i, h, &p) : copy_legacy(to, i, h, &p);
	if (p.modrm) {
		uint8_t modrm = i->bytes[p.modrm];

		if (h->mem_size)
			modrm = (modrm & 0x38) | MODRM_MEM_RSI;
		if (h->gpr_place == 1)
			modrm = (uint8_t)((modrm & ~0x38) | RCX << 3);
		else if (h->gpr_place == 2)
			modrm = (uint8_t)((modrm & ~7) | RCX);
		*to++ = modrm;
	}
	memcpy(to, i->bytes + p.tail, i->len - p.tail);
	to += i->len - p.tail;
	if (h->vex && v->code_mode != MODE_64 && imm_names_register(buffer[1] & 0x1f, buffer[3]))
		to[-1] &= 0x7f;

	*key = (struct host_key){ .len = (uint8_t)(to - buffer), .code_mode = v->code_mode };
	key->gpr = (uint8_t)explicit_register(h);
	BUG_ON(key->len > sizeof(key->bytes));
	memcpy(key->bytes, buffer, key->len);
}

/* ---- the stub ---- */

static uint8_t *emit(uint8_t *p, const void *bytes, unsigned count)
{
	memcpy(p, bytes, count);
	return p + count;
}
#define EMIT(p, ...) emit(p, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

/* ModRM and displacement: register `reg` and a field of the vCPU, at disp32(%rdi). */
static uint8_t *emit_field(uint8_t *p, unsigned reg, size_t offset)
{
	*p++ = (uint8_t)(0x87 | (reg & 7) << 3);
	store_le32(p, (uint32_t)offset);
	return p + 4;
}

static uint8_t *emit_vector_move(uint8_t *p, unsigned n, bool store, bool vex, bool wide)
{
	if (vex) /* VMOVDQU */
		p = EMIT(p, 0xc5, (uint8_t)((n < 8 ? 0x80 : 0) | 0x78 | (wide ? 4 : 0) | 2), store ? 0x7f : 0x6f);
	else { /* MOVUPS */
		if (n >= 8)
			*p++ = 0x44;
		p = EMIT(p, 0x0f, store ? 0x11 : 0x10);
	}
	return emit_field(p, n, offsetof(struct vcpu, s.vec) + 32 * n);
}

static uint8_t *emit_gpr_move(uint8_t *p, unsigned host, unsigned guest, bool store)
{
	p = EMIT(p, 0x48, store ? 0x89 : 0x8b);
	return emit_field(p, host, offsetof(struct vcpu, s.gpr) + 8 * guest);
}

static uint8_t *emit_gpr_moves(uint8_t *p, const struct host_key *key, const struct insn_host *h, unsigned set,
			       bool store)
{
	for (unsigned n = 0; n < 16; n++)
		if (set & 1u << n)
			p = emit_gpr_move(p, h->gpr_place && n == key->gpr ? RCX : n, n, store);
	return p;
}

uint8_t *host_stub_emit(uint8_t *p, const struct host_key *key, const struct insn_host *h)
{
	/*
	 * A legacy instruction may write a part of its destination: it is loaded whatever it is said to read. The same goes for
	 * general registers, as FNSTSW AX.
	 */
	unsigned load = h->vec_read | (h->vex ? 0 : h->vec_written);

	for (unsigned n = 0; n < 16; n++)
		if (load & 1u << n)
			p = emit_vector_move(p, n, false, h->vex, h->wide);
	if (h->reads_flags || (h->writes_flags && h->x87)) {
		p = EMIT(p, 0x0f, 0xb7); /* movzwl status(%rdi), %eax */
		p = emit_field(p, RAX, offsetof(struct vcpu, status));
		p = EMIT(p, 0x04, 0x7f, 0x9e); /* add $0x7f, %al: OF; sahf */
	}
	p = emit_gpr_moves(p, key, h, h->gpr_read | h->gpr_written, false);

	p = emit(p, key->bytes, key->len);

	for (unsigned n = 0; n < 16; n++)
		if (h->vec_written & 1u << n)
			p = emit_vector_move(p, n, true, h->vex, h->vex); /* above the result the host wrote zeros */
	p = emit_gpr_moves(p, key, h, h->gpr_written, true);
	if (h->writes_flags) {
		p = EMIT(p, 0x9f, 0x0f, 0x90, 0xc0, 0x66, 0x89); /* lahf; seto %al; mov %ax, status(%rdi) */
		p = emit_field(p, RAX, offsetof(struct vcpu, status));
	}
	if (h->vex && h->wide)
		p = EMIT(p, 0xc5, 0xf8, 0x77); /* vzeroupper */
	return EMIT(p, 0xc3);
}
