/*
 * simd_memory: vector instructions that touch memory by elements, each under its own mask bit: gathers, masked loads and
 * stores; and VZEROUPPER and VZEROALL, which touch every register. Here in C, because an element may fault on its own.
 */
#include "engine/interp/host_exec.h"

/* The fields of a VEX instruction (SDM vol. 2 2.3), and of a legacy one of the 0F map. */
struct fields {
	unsigned opcode, map, pp;
	bool vex, w, wide;
	unsigned reg, rm, vvvv, index, scale;
	uint8_t seg; /* with overrides */
};

static struct fields parse(const struct vcpu *v, const struct insn *i)
{
	bool long_mode = v->code_mode == MODE_64;
	struct fields f = { .seg = DS };
	const uint8_t *p = i->bytes;
	unsigned inverted = 0; /* R X B of VEX or REX, set: extend */

	for (;; p++) {
		if (*p == 0x64 || *p == 0x65)
			f.seg = *p == 0x64 ? FS : GS;
		else if ((*p & 0xe7) == 0x26)
			f.seg = long_mode ? f.seg : *p >> 3 & 3;
		else if (*p == 0x66)
			f.pp = 1;
		else if (*p != 0x67 && *p != 0xf2 && *p != 0xf3)
			break;
	}
	if (long_mode && (*p & 0xf0) == 0x40)
		inverted = *p++ & 7;
	f.vex = *p == 0xc4 || *p == 0xc5;
	if (f.vex) {
		bool two = *p == 0xc5;
		unsigned last = p[two ? 1 : 2];

		inverted = two ? (~p[1] >> 5) & 4 : (~p[1] >> 5) & 7;
		f.map = two ? 1 : p[1] & 0x1f;
		f.w = !two && last & 0x80;
		f.vvvv = ~last >> 3 & 15;
		f.wide = last & 4;
		f.pp = last & 3;
		p += two ? 2 : 3;
	} else {
		f.map = 1;
		p++;
	}
	if (!long_mode) {
		inverted = 0;
		f.vvvv &= 7;
	}
	f.opcode = p[0];
	f.reg = (p[1] >> 3 & 7) | (inverted & 4) << 1;
	f.rm = (p[1] & 7) | (inverted & 1) << 3;
	f.index = (p[2] >> 3 & 7) | (inverted & 2) << 2;
	f.scale = p[2] >> 6;
	return f;
}

/* ---- elements of registers ---- */

static uint64_t element(const struct vcpu *v, unsigned reg, unsigned n, unsigned size)
{
	return host_load((const uint8_t *)&v->s.vec[4 * reg] + n * size, size);
}

static void set_element(struct vcpu *v, unsigned reg, unsigned n, unsigned size, uint64_t value)
{
	host_store((uint8_t *)&v->s.vec[4 * reg] + n * size, value, size);
}

static bool mask_bit(const struct vcpu *v, unsigned reg, unsigned n, unsigned size)
{
	return element(v, reg, n, size) >> (8 * size - 1);
}

static void zero_from(struct vcpu *v, unsigned reg, unsigned byte)
{
	memset((uint8_t *)&v->s.vec[4 * reg] + byte, 0, 32 - byte);
}

/* Linear address of an element at an offset that is truncated to the address size. */
static uint64_t element_address(struct vcpu *v, const struct insn *i, uint8_t seg, uint64_t offset, unsigned size,
				enum access access)
{
	if (i->addrsize != 8)
		offset = i->addrsize == 4 ? (uint32_t)offset : (uint16_t)offset;
	return cpu_linear(v, seg, offset, size, access);
}

/* Elements are never checked for alignment (SDM vol. 2 VPGATHERDD, 2.4.6: exceptions type 6): accessed as so many bytes. */
static uint64_t load_element(struct vcpu *v, uint64_t address, unsigned size, bool ss)
{
	uint64_t value = 0;

	cpu_load_bytes(v, address, &value, size, ss);
	return value;
}

/* What storing an element would raise. */
static void probe_element(struct vcpu *v, uint64_t address, unsigned size, bool ss)
{
	uint64_t last = address + size - 1;

	cpu_probe_write(v, address, 1, ss);
	if (size > 1)
		cpu_probe_write(v, v->code_mode == MODE_64 ? last : (uint32_t)last, 1, ss);
}

/* ---- gathers: SDM vol. 2, VPGATHERDD and after ---- */

void interp_gather(struct vcpu *v, const struct insn *i)
{
	struct fields f = parse(v, i);
	unsigned data_size = f.w ? 8 : 4, index_size = f.opcode & 1 ? 8 : 4;
	unsigned count = (f.wide ? 32 : 16) / MAX(data_size, index_size);
	uint64_t base;

	cpu_fpu_check_avx(v);
	if (f.reg == f.vvvv || f.reg == f.index || f.vvvv == f.index)
		cpu_raise(v, EXC_UD);
	base = REG64(v, i->base) + (uint64_t)(int64_t)i->disp;
	/*
	 * What a fault on the way leaves of the mask is seen: Intel's processors first make each element all ones or zeros,
	 * AMD's clear one after the other.
	 */
	for (unsigned n = 0; n < count && !is_amd(v->model); n++)
		set_element(v, f.vvvv, n, data_size, mask_bit(v, f.vvvv, n, data_size) ? UINT64_MAX : 0);
	for (unsigned n = 0; n < count; n++) {
		uint64_t offset, address;

		if (!mask_bit(v, f.vvvv, n, data_size)) {
			set_element(v, f.vvvv, n, data_size, 0);
			continue;
		}
		offset = (uint64_t)sign_extend(element(v, f.index, n, index_size), 8 * index_size);
		address = element_address(v, i, i->seg, base + (offset << f.scale), data_size, ACCESS_READ);
		set_element(v, f.reg, n, data_size, load_element(v, address, data_size, i->seg == SS));
		/* Done: if a later element faults, the instruction goes on from there. */
		set_element(v, f.vvvv, n, data_size, 0);
	}
	zero_from(v, f.reg, count * data_size);
	zero_from(v, f.vvvv, 0);
}

/* ---- masked moves ---- */

static void masked_load(struct vcpu *v, const struct insn *i, const struct fields *f, unsigned size, unsigned count)
{
	uint64_t offset = cpu_ea(v, i), values[8] = { 0 };

	for (unsigned n = 0; n < count; n++)
		if (mask_bit(v, f->vvvv, n, size)) {
			uint64_t address = element_address(v, i, i->seg, offset + n * size, size, ACCESS_READ);

			values[n] = load_element(v, address, size, i->seg == SS);
		}
	zero_from(v, f->reg, 0);
	for (unsigned n = 0; n < count; n++)
		set_element(v, f->reg, n, size, values[n]);
}

static void masked_store(struct vcpu *v, const struct insn *i, const struct fields *f, unsigned size, unsigned count)
{
	uint64_t offset = cpu_ea(v, i), addresses[8] = { 0 };

	for (unsigned n = 0; n < count; n++)
		if (mask_bit(v, f->vvvv, n, size)) {
			addresses[n] = element_address(v, i, i->seg, offset + n * size, size, ACCESS_WRITE);
			probe_element(v, addresses[n], size, i->seg == SS);
		}
	for (unsigned n = 0; n < count; n++)
		if (mask_bit(v, f->vvvv, n, size)) {
			uint64_t value = element(v, f->reg, n, size);

			cpu_store_bytes(v, addresses[n], &value, size, i->seg == SS);
		}
}

/* Operands of MASKMOVQ: MMX registers, which are in the host. Reading them leaves the unit as MASKMOVQ does: in MMX mode. */
static void read_mmx(struct vcpu *v, uint64_t registers[8])
{
	uint16_t hidden = cpu_fpu_hide_pending(v);

	__asm__ volatile("movq %%mm0, (%0)\n\tmovq %%mm1, 8(%0)\n\tmovq %%mm2, 16(%0)\n\tmovq %%mm3, 24(%0)\n\t"
			 "movq %%mm4, 32(%0)\n\tmovq %%mm5, 40(%0)\n\tmovq %%mm6, 48(%0)\n\tmovq %%mm7, 56(%0)"
			 :
			 : "r"(registers)
			 : "memory");
	cpu_fpu_show_pending(hidden);
}

/* MASKMOVDQU, VMASKMOVDQU, MASKMOVQ: bytes, to (seg:rDI). */
static void mask_bytes(struct vcpu *v, const struct insn *i, const struct fields *f)
{
	bool mmx = !f->vex && f->pp != 1;
	unsigned count = mmx ? 8 : 16;
	uint8_t data[16], mask[16];
	uint64_t addresses[16];

	if (f->vex) {
		cpu_fpu_check_avx(v);
	} else if (mmx) {
		cpu_fpu_check_mmx(v);
	} else {
		cpu_fpu_check_sse(v);
	}
	if (mmx) {
		uint64_t registers[8];

		read_mmx(v, registers);
		memcpy(data, &registers[f->reg & 7], 8);
		memcpy(mask, &registers[f->rm & 7], 8);
	} else {
		memcpy(data, &v->s.vec[4 * f->reg], 16);
		memcpy(mask, &v->s.vec[4 * f->rm], 16);
	}
	for (unsigned n = 0; n < count; n++)
		if (mask[n] & 0x80) {
			addresses[n] = element_address(v, i, f->seg, v->s.gpr[RDI] + n, 1, ACCESS_WRITE);
			cpu_check_alignment(v, addresses[n] - n,
					    8); /* as the host's processor; the manuals do not say */
			cpu_probe_write(v, addresses[n], 1, f->seg == SS);
		}
	for (unsigned n = 0; n < count; n++)
		if (mask[n] & 0x80)
			cpu_store(v, addresses[n], data[n], 1, f->seg == SS);
}

void interp_maskmov(struct vcpu *v, const struct insn *i)
{
	struct fields f = parse(v, i);
	unsigned size;
	bool store;

	if (f.map == 1) {
		mask_bytes(v, i, &f);
		return;
	}
	cpu_fpu_check_avx(v);
	if (f.opcode >= 0x8c) { /* VPMASKMOVD, VPMASKMOVQ */
		size = f.w ? 8 : 4;
		store = f.opcode == 0x8e;
	} else { /* VMASKMOVPS, VMASKMOVPD */
		size = f.opcode & 1 ? 8 : 4;
		store = f.opcode >= 0x2e;
	}
	if (store)
		masked_store(v, i, &f, size, (f.wide ? 32 : 16) / size);
	else
		masked_load(v, i, &f, size, (f.wide ? 32 : 16) / size);
}

void interp_vzero(struct vcpu *v, const struct insn *i)
{
	unsigned count = v->code_mode == MODE_64 ? 16 : 8;

	cpu_fpu_check_avx(v);
	for (unsigned n = 0; n < count; n++)
		zero_from(v, n, i->imm ? 0 : 16);
}
