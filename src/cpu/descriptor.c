/*
 * Instructions on descriptor tables: loading and storing their registers, and asking what a selector would give.
 * SDM vol. 3A 2.8.1, 5.10; vol. 2 for each.
 */
#include "cpu/segment.h"

/* ---- GDTR, IDTR ---- */

/* SGDT, SIDT, SLDT, STR, SMSW tell user code about the system unless CR4.UMIP is set. */
void cpu_check_umip(struct vcpu *v)
{
	if ((v->s.cr4 & CR4_UMIP) && v->cpl)
		cpu_raise_error(v, EXC_GP, 0);
}

struct table_register {
	uint64_t base;
	uint16_t limit;
};

static struct table_register load_table(struct vcpu *v, const struct insn *i)
{
	unsigned base_size = v->code_mode == MODE_64 ? 8 : 4;
	struct table_register table;
	uint64_t lin;

	check_privileged(v);
	lin = cpu_operand(v, i, 2 + base_size, ACCESS_READ);
	table.limit = (uint16_t)cpu_load(v, lin, 2, i->seg == SS);
	table.base = cpu_load(v, lin + 2, base_size, i->seg == SS);
	if (base_size == 8) {
		if (!is_canonical(table.base))
			cpu_raise_error(v, EXC_GP, 0);
	} else if (i->opsize == 2) {
		table.base &= 0xffffff;
	}
	return table;
}

static void store_table(struct vcpu *v, const struct insn *i, uint64_t base, uint16_t limit)
{
	unsigned base_size = v->code_mode == MODE_64 ? 8 : 4;
	uint8_t image[10];

	cpu_check_umip(v);
	store_le16(image, limit);
	store_le64(image + 2, base);
	cpu_store_bytes(v, cpu_operand(v, i, 2 + base_size, ACCESS_WRITE), image, 2 + base_size, i->seg == SS);
}

void op_lgdt(struct vcpu *v, const struct insn *i)
{
	struct table_register table = load_table(v, i);

	v->s.gdtr_base = table.base;
	v->s.gdtr_limit = table.limit;
	v->s.rip = cpu_next_rip(v, i);
}

void op_lidt(struct vcpu *v, const struct insn *i)
{
	struct table_register table = load_table(v, i);

	v->s.idtr_base = table.base;
	v->s.idtr_limit = table.limit;
	v->s.rip = cpu_next_rip(v, i);
}

void op_sgdt(struct vcpu *v, const struct insn *i) { store_table(v, i, v->s.gdtr_base, v->s.gdtr_limit); }
void op_sidt(struct vcpu *v, const struct insn *i) { store_table(v, i, v->s.idtr_base, v->s.idtr_limit); }

/* ---- LDTR, TR ---- */

static void check_protected(struct vcpu *v)
{
	if (!in_protected_mode(v))
		cpu_raise(v, EXC_UD);
}

static uint16_t load_word(struct vcpu *v, const struct insn *i, uint8_t reg)
{
	if (i->flags & INSN_MEM)
		return (uint16_t)cpu_load(v, cpu_operand(v, i, 2, ACCESS_READ), 2, i->seg == SS);
	return REG16(v, reg);
}

/* To a register as wide as it is, to memory always 2 bytes. */
void cpu_store_word(struct vcpu *v, const struct insn *i, uint64_t value)
{
	if (i->flags & INSN_MEM)
		cpu_store(v, cpu_operand(v, i, 2, ACCESS_WRITE), value, 2, i->seg == SS);
	else
		cpu_set_reg(v, i->reg, i->opsize, value);
}

/* The descriptor for LLDT or LTR: in the GDT, a system descriptor of this type, present. */
static void read_system_segment(struct vcpu *v, uint16_t selector, unsigned type, struct descriptor *d)
{
	uint32_t error = selector & ~3u;

	if (selector & 4)
		cpu_raise_error(v, EXC_GP, error);
	cpu_read_descriptor(v, selector, d, EXC_GP, 0);
	if ((d->attr & (ATTR_S | ATTR_TYPE)) != type)
		cpu_raise_error(v, EXC_GP, error);
	if (!(d->attr & ATTR_P))
		cpu_raise_error(v, EXC_NP, error);
	if (!cpu_widen_descriptor(v, d))
		cpu_raise_error(v, EXC_GP, error);
}

void op_lldt(struct vcpu *v, const struct insn *i)
{
	struct descriptor d;
	uint16_t selector;

	check_protected(v);
	check_privileged(v);
	selector = load_word(v, i, i->reg);
	if (selector_is_null(selector)) {
		cpu_set_null_segment(v, LDTR, selector);
	} else {
		read_system_segment(v, selector, SYSTEM_LDT, &d);
		cpu_set_segment(v, LDTR, selector, &d);
	}
	v->s.rip = cpu_next_rip(v, i);
}

void op_ltr(struct vcpu *v, const struct insn *i)
{
	struct descriptor d;
	uint16_t selector;

	check_protected(v);
	check_privileged(v);
	selector = load_word(v, i, i->reg);
	if (selector_is_null(selector))
		cpu_raise_error(v, EXC_GP, 0);
	if (!in_long_mode(v) && cpu_find_descriptor(v, selector, &d) &&
	    (d.attr & (ATTR_S | ATTR_TYPE)) == SYSTEM_TSS_16)
		read_system_segment(v, selector, SYSTEM_TSS_16, &d);
	else
		read_system_segment(v, selector, SYSTEM_TSS_32, &d);
	cpu_mark_descriptor(v, &d, TSS_BUSY);
	d.attr |= TSS_BUSY;
	cpu_set_segment(v, TR, selector, &d);
	v->s.rip = cpu_next_rip(v, i);
}

static void store_selector(struct vcpu *v, const struct insn *i, enum seg seg)
{
	check_protected(v);
	cpu_check_umip(v);
	cpu_store_word(v, i, v->s.seg_sel[seg]);
}

void op_sldt(struct vcpu *v, const struct insn *i) { store_selector(v, i, LDTR); }
void op_str(struct vcpu *v, const struct insn *i) { store_selector(v, i, TR); }

/* ---- LAR, LSL, VERR, VERW, ARPL: ZF is the answer ---- */

static void set_zero_flag(struct vcpu *v, bool zero)
{
	cpu_set_status(v, (cpu_status(v) & ~FLAG_ZF) | (zero ? FLAG_ZF : 0));
}

/* System descriptor types that LAR and LSL know, as bits; SDM vol. 2A, tables 3-53 and 3-58. */
#define LAR_TYPES      (BIT(1) | BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(9) | BIT(11) | BIT(12))
#define LAR_TYPES_LONG (BIT(2) | BIT(9) | BIT(11) | BIT(12))
#define LSL_TYPES      (BIT(1) | BIT(2) | BIT(3) | BIT(9) | BIT(11))
#define LSL_TYPES_LONG (BIT(2) | BIT(9) | BIT(11))

/* Does the selector lead to a descriptor that this privilege level may see, of a type in the set? */
static bool visible_descriptor(struct vcpu *v, uint16_t selector, uint64_t system_types, struct descriptor *d)
{
	if (selector_is_null(selector) || !cpu_find_descriptor(v, selector, d))
		return false;
	if (!(d->attr & ATTR_S)) {
		if (!(system_types & BIT(attr_type(d->attr))))
			return false;
		/* The second half of a gate holds no base. */
		if (attr_type(d->attr) != SYSTEM_CALL_GATE_32 && !cpu_widen_descriptor(v, d))
			return false;
	}
	return attr_is_conforming(d->attr) || MAX(v->cpl, selector & 3u) <= attr_dpl(d->attr);
}

void op_lar(struct vcpu *v, const struct insn *i)
{
	struct descriptor d;
	uint16_t selector;
	bool visible;

	check_protected(v);
	selector = load_word(v, i, i->rm);
	visible = visible_descriptor(v, selector, in_long_mode(v) ? LAR_TYPES_LONG : LAR_TYPES, &d);
	if (visible)
		cpu_set_reg(v, i->reg, i->opsize, (d.raw >> 32) & 0x00ffff00);
	set_zero_flag(v, visible);
}

void op_lsl(struct vcpu *v, const struct insn *i)
{
	struct descriptor d;
	uint16_t selector;
	bool visible;

	check_protected(v);
	selector = load_word(v, i, i->rm);
	visible = visible_descriptor(v, selector, in_long_mode(v) ? LSL_TYPES_LONG : LSL_TYPES, &d);
	if (visible)
		cpu_set_reg(v, i->reg, i->opsize, d.limit);
	set_zero_flag(v, visible);
}

static void verify(struct vcpu *v, const struct insn *i, bool write)
{
	struct descriptor d;
	uint16_t selector;

	check_protected(v);
	selector = load_word(v, i, i->reg);
	set_zero_flag(v, visible_descriptor(v, selector, 0, &d) &&
				 (write ? attr_is_writable_data(d.attr) : attr_is_readable(d.attr)));
}

void op_verr(struct vcpu *v, const struct insn *i) { verify(v, i, false); }

/*
 * VERW of memory also clears buffers that loads could be answered from, where the processor has microcode for that (MD_CLEAR,
 * VERW_CLEAR): the host's is asked to, at any privilege level.
 */
void op_verw(struct vcpu *v, const struct insn *i)
{
	static const uint16_t null_selector;

	verify(v, i, true);
	if (i->flags & INSN_MEM)
		__asm__ volatile("verw %0" ::"m"(null_selector) : "cc");
}

void op_arpl(struct vcpu *v, const struct insn *i)
{
	bool memory = i->flags & INSN_MEM;
	uint16_t source, destination;
	bool raise;

	check_protected(v);
	source = REG16(v, memory ? i->reg : i->rm);
	if (memory) {
		destination = (uint16_t)cpu_load(v, cpu_operand(v, i, 2, ACCESS_READ), 2, i->seg == SS);
	} else {
		destination = REG16(v, i->reg);
	}
	raise = (destination & 3) < (source & 3);
	if (raise) {
		destination = (uint16_t)((destination & ~3u) | (source & 3));
		if (memory)
			cpu_store(v, cpu_operand(v, i, 2, ACCESS_WRITE), destination, 2, i->seg == SS);
		else
			REG16(v, i->reg) = destination;
	}
	set_zero_flag(v, raise);
}
