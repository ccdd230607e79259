/*
 * fpu_env: FNSTENV, FLDENV, FNSAVE and FRSTOR: the x87 environment in its four layouts (SDM vol. 1 8.1.10), by operand
 * size and by protected mode or not, with or without the registers behind it.
 */
#include "cpu/fpu.h"

#define ENVIRONMENT_MAX 28
#define REGISTERS	80

static unsigned environment_size(const struct insn *i) { return i->opsize == 2 ? 14 : 28; }

/* Writes the environment's image; the layouts of real mode hold linear addresses. */
static void encode(const struct vcpu *v, const struct insn *i, uint8_t *p)
{
	const struct cpu_state *s = &v->s;
	bool protected = in_protected_mode(v);
	uint32_t fip = (uint32_t)s->fip, fdp = (uint32_t)s->fdp;
	const uint16_t words[3] = { s->fcw, s->fsw, s->ftw };

	if (!protected) {
		fip += (uint32_t)s->fcs << 4;
		fdp += (uint32_t)s->fds << 4;
	}
	if (i->opsize == 2) {
		for (unsigned n = 0; n < 3; n++)
			store_le16(p + 2 * n, words[n]);
		store_le16(p + 6, (uint16_t)fip);
		store_le16(p + 8, (uint16_t)(protected ? s->fcs : (fip >> 16 & 15) << 12 | s->fop));
		store_le16(p + 10, (uint16_t)fdp);
		store_le16(p + 12, (uint16_t)(protected ? s->fds : (fdp >> 16 & 15) << 12));
		return;
	}
	for (unsigned n = 0; n < 3; n++)
		store_le32(p + 4 * n, 0xffff0000u | words[n]);
	if (protected) {
		store_le32(p + 12, fip);
		store_le32(p + 16, s->fcs | (uint32_t)s->fop << 16);
		store_le32(p + 20, fdp);
		store_le32(p + 24, 0xffff0000u | s->fds);
	} else {
		store_le32(p + 12, 0xffff0000u | (fip & 0xffff));
		store_le32(p + 16, (fip >> 16) << 12 | s->fop);
		store_le32(p + 20, 0xffff0000u | (fdp & 0xffff));
		store_le32(p + 24, (fdp >> 16) << 12);
	}
}

static void decode(struct vcpu *v, const struct insn *i, const uint8_t *p)
{
	struct cpu_state *s = &v->s;
	bool small = i->opsize == 2, protected = in_protected_mode(v);
	unsigned step = small ? 2 : 4;

	s->fcw = load_le16(p);
	s->fsw = load_le16(p + step);
	s->ftw = load_le16(p + 2 * step);
	p += 3 * step;
	if (protected) {
		s->fip = small ? load_le16(p) : load_le32(p);
		s->fcs = load_le16(p + step);
		s->fop = small ? 0
			       : load_le16(p + 6) &
					 0x7ff; /* the 16-bit layout has none: no manual says what becomes of it */
		s->fdp = small ? load_le16(p + 2 * step) : load_le32(p + 2 * step);
		s->fds = load_le16(p + 3 * step);
		return;
	}
	s->fop = load_le16(p + step) & 0x7ff;
	s->fip = load_le16(p);
	s->fdp = load_le16(p + 2 * step);
	if (small) {
		s->fip |= (uint32_t)(load_le16(p + 2) >> 12) << 16;
		s->fdp |= (uint32_t)(load_le16(p + 6) >> 12) << 16;
	} else {
		s->fip |= (load_le32(p + 4) >> 12 & 0xffff) << 16;
		s->fdp |= (load_le32(p + 12) >> 12 & 0xffff) << 16;
	}
	s->fcs = s->fds = 0; /* the addresses are linear */
}

/* ST(i) names a physical register by FSW.TOP: what the names become when TOP does, the physical registers being kept. */
static void turn_stack(struct cpu_state *s, unsigned new_top)
{
	unsigned turn = (new_top - (s->fsw >> 11)) & 7;
	uint64_t mantissa[8];
	uint16_t exponent[8];

	memcpy(mantissa, s->st_mantissa, sizeof(mantissa));
	memcpy(exponent, s->st_exponent, sizeof(exponent));
	for (unsigned n = 0; n < 8; n++) {
		s->st_mantissa[n] = mantissa[(n + turn) & 7];
		s->st_exponent[n] = exponent[(n + turn) & 7];
	}
}

static void reset_x87(struct vcpu *v)
{
	struct cpu_state *s = &v->s;

	turn_stack(s, 0);
	s->fcw = FCW_DEFAULT;
	s->fsw = 0;
	s->ftw = TAGS_EMPTY;
	cpu_fpu_clear_pointers(v);
}

/* #AC asks alignment by the operand size, SDM vol. 3A table 6-7. */
static uint64_t environment_operand(struct vcpu *v, const struct insn *i, unsigned size, enum access access)
{
	uint64_t address = cpu_operand(v, i, size, access);

	cpu_check_alignment(v, address, i->opsize == 2 ? 2 : 4);
	return address;
}

static void store_environment(struct vcpu *v, const struct insn *i, bool registers)
{
	uint8_t image[ENVIRONMENT_MAX + REGISTERS];
	unsigned size = environment_size(i);
	uint64_t address;

	cpu_fpu_check_x87(v, false);
	fpu_sync(v);
	encode(v, i, image);
	if (registers) {
		for (unsigned n = 0; n < 8; n++) {
			store_le64(image + size + 10 * n, v->s.st_mantissa[n]);
			store_le16(image + size + 10 * n + 8, v->s.st_exponent[n]);
		}
		size += REGISTERS;
	}
	address = environment_operand(v, i, size, ACCESS_WRITE);
	cpu_store_bytes(v, address, image, size, i->seg == SS);
	if (registers)
		reset_x87(v);
	else
		v->s.fcw |= 0x3f;
	cpu_fpu_load(v);
}

static void load_environment(struct vcpu *v, const struct insn *i, bool registers)
{
	uint8_t image[ENVIRONMENT_MAX + REGISTERS];
	unsigned environment = environment_size(i), size = environment + (registers ? REGISTERS : 0);

	cpu_fpu_check_x87(v, true);
	cpu_load_bytes(v, environment_operand(v, i, size, ACCESS_READ), image, size, i->seg == SS);
	fpu_sync(v);
	if (!registers)
		turn_stack(&v->s, load_le16(image + (i->opsize == 2 ? 2 : 4)) >> 11);
	decode(v, i, image);
	for (unsigned n = 0; registers && n < 8; n++) {
		v->s.st_mantissa[n] = load_le64(image + environment + 10 * n);
		v->s.st_exponent[n] = load_le16(image + environment + 10 * n + 8);
	}
	cpu_fpu_load(v);
}

void op_fnstenv(struct vcpu *v, const struct insn *i) { store_environment(v, i, false); }
void op_fnsave(struct vcpu *v, const struct insn *i) { store_environment(v, i, true); }
void op_fldenv(struct vcpu *v, const struct insn *i) { load_environment(v, i, false); }
void op_frstor(struct vcpu *v, const struct insn *i) { load_environment(v, i, true); }
