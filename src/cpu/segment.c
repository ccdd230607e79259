/*
 * Segmentation: linear addresses, the checks of segment register loads, stacks, near transfers, and the instructions that
 * move segment registers and their bases. SDM vol. 3A chapters 3 and 5, APM vol. 2 chapter 4.
 */
#include "cpu/segment.h"

/* ---- linear addresses ---- */

static _Noreturn void raise_limit(struct vcpu *v, enum seg seg) { cpu_raise_error(v, seg == SS ? EXC_SS : EXC_GP, 0); }

bool cpu_segment_contains(uint16_t attr, uint32_t limit, uint32_t offset, unsigned size)
{
	uint64_t last = (uint64_t)offset + size - 1;

	if ((attr & (ATTR_S | ATTR_CODE | ATTR_EXPAND_DOWN)) == (ATTR_S | ATTR_EXPAND_DOWN))
		return offset > limit && last <= ((attr & ATTR_DB) ? UINT32_MAX : 0xffffu);
	return last <= limit;
}

static bool type_allows(uint16_t attr, enum access access)
{
	if (!(attr & ATTR_P))
		return false;
	return access == ACCESS_WRITE  ? attr_is_writable_data(attr)
	       : access == ACCESS_READ ? attr_is_readable(attr)
				       : true;
}

uint64_t cpu_linear(struct vcpu *v, enum seg seg, uint64_t offset, unsigned size, enum access access)
{
	if (v->code_mode == MODE_64)
		return seg >= FS ? v->s.seg_base[seg] + offset : offset;
	if (in_protected_mode(v) && !type_allows(v->s.seg_attr[seg], access))
		raise_limit(v, seg);
	if (unlikely(!cpu_segment_contains(v->s.seg_attr[seg], v->s.seg_limit[seg], (uint32_t)offset, size)))
		raise_limit(v, seg);
	return (uint32_t)(v->s.seg_base[seg] + offset);
}

void cpu_check_aligned(struct vcpu *v, const struct insn *i, unsigned alignment)
{
	uint64_t base = v->code_mode == MODE_64 && i->seg < FS ? 0 : v->s.seg_base[i->seg];

	if ((base + cpu_ea(v, i)) & (alignment - 1))
		cpu_raise_error(v, EXC_GP, 0);
}

/* ---- descriptors ---- */

bool cpu_find_descriptor(struct vcpu *v, uint16_t selector, struct descriptor *d)
{
	uint64_t base = v->s.gdtr_base;
	uint32_t limit = v->s.gdtr_limit;

	if (selector & 4) {
		if (!(v->s.seg_attr[LDTR] & ATTR_P))
			return false;
		base = v->s.seg_base[LDTR];
		limit = v->s.seg_limit[LDTR];
	}
	if ((selector | 7u) > limit)
		return false;
	d->selector = selector;
	d->address = base + (selector & ~7u);
	if (!in_long_mode(v))
		d->address = (uint32_t)d->address;
	d->raw = table_load(v, d->address);
	d->attr = (uint16_t)(bits(d->raw, 47, 40) | bits(d->raw, 55, 52) << 12);
	d->base = bits(d->raw, 39, 16) | bits(d->raw, 63, 56) << 24;
	d->limit = (uint32_t)(bits(d->raw, 15, 0) | bits(d->raw, 51, 48) << 16);
	if (d->attr & ATTR_G)
		d->limit = d->limit << 12 | 0xfff;
	return true;
}

void cpu_read_descriptor(struct vcpu *v, uint16_t selector, struct descriptor *d, enum vector vector, uint32_t ext)
{
	if (unlikely(!cpu_find_descriptor(v, selector, d)))
		cpu_raise_error(v, vector, (selector & ~3u) | ext);
}

bool cpu_upper_half(struct vcpu *v, const struct descriptor *d, uint64_t *upper)
{
	uint32_t limit = (d->selector & 4) ? v->s.seg_limit[LDTR] : v->s.gdtr_limit;

	if ((d->selector | 7u) + 8 > limit)
		return false;
	*upper = table_load(v, d->address + 8);
	return !bits(*upper, 44, 40);
}

bool cpu_widen_descriptor(struct vcpu *v, struct descriptor *d)
{
	uint64_t upper;

	if (!in_long_mode(v))
		return true;
	if (!cpu_upper_half(v, d, &upper))
		return false;
	d->base |= upper << 32;
	return is_canonical(d->base);
}

/* The page of a supervisor write, or what it raises. */
static gpa_t system_write_page(struct vcpu *v, uint64_t lin)
{
	struct page_walk walk;
	struct fault fault;
	int failed = cpu_walk(v, gva(lin), ACCESS_WRITE, false, false, &walk, &fault);

	cpu_check_memory(v);
	if (failed) {
		if (fault.vector == EXC_PF)
			cpu_raise_page_fault(v, gva(lin), fault.error);
		cpu_raise_error(v, fault.vector, fault.error);
	}
	return gpa(walk.page.v + (lin & ~PAGE_MASK));
}

void cpu_probe_system_write(struct vcpu *v, uint64_t lin, unsigned size)
{
	system_write_page(v, lin);
	if ((lin ^ (lin + size - 1)) & PAGE_MASK)
		system_write_page(v, lin + size - 1);
}

/* The access byte, bits 8..15 of the second doubleword, is written alone: other CPUs may mark the same descriptor. */
static void change_access_byte(struct vcpu *v, uint64_t address, uint8_t set, uint8_t clear)
{
	gpa_t byte = system_write_page(v, address + 5);
	uint8_t *host = mem_map(v->mem, byte, 1, true);

	if (!host) {
		uint64_t old = cpu_system_load(v, address + 5, 1);

		cpu_system_store(v, address + 5, (old | set) & (uint8_t)~clear, 1);
		return;
	}
	if (set)
		__atomic_fetch_or(host, set, __ATOMIC_SEQ_CST);
	if (clear)
		__atomic_fetch_and(host, (uint8_t)~clear, __ATOMIC_SEQ_CST);
	cpu_note_write(v, byte, 1);
}

void cpu_mark_descriptor(struct vcpu *v, const struct descriptor *d, uint8_t set)
{
	if (unlikely((d->attr & set) != set))
		change_access_byte(v, d->address, set, 0);
}

void cpu_unmark_descriptor(struct vcpu *v, const struct descriptor *d, uint8_t clear)
{
	change_access_byte(v, d->address, 0, clear);
}

/* ---- segment registers ---- */

void cpu_set_segment(struct vcpu *v, enum seg seg, uint16_t selector, const struct descriptor *d)
{
	v->s.seg_sel[seg] = selector;
	v->s.seg_base[seg] = d->base;
	v->s.seg_limit[seg] = d->limit;
	v->s.seg_attr[seg] = d->attr | ((d->attr & ATTR_S) ? ATTR_ACCESSED : 0);
}

void cpu_set_null_segment(struct vcpu *v, enum seg seg, uint16_t selector)
{
	v->s.seg_sel[seg] = selector;
	v->s.seg_base[seg] = 0;
	v->s.seg_attr[seg] = 0;
}

void cpu_drop_inner_segments(struct vcpu *v)
{
	static const uint8_t data_segments[] = { ES, DS, FS, GS };

	for (unsigned n = 0; n < ARRAY_SIZE(data_segments); n++) {
		unsigned seg = data_segments[n];
		uint16_t attr = v->s.seg_attr[seg];

		bool inner = (attr & ATTR_P) && !attr_is_conforming(attr) && attr_dpl(attr) < v->cpl;

		if (inner || selector_is_null(v->s.seg_sel[seg])) {
			v->s.seg_sel[seg] = 0;
			v->s.seg_attr[seg] = 0;
		}
	}
}

void cpu_check_stack_segment(struct vcpu *v, const struct descriptor *d, unsigned cpl, enum vector vector, uint32_t ext)
{
	uint32_t error = (d->selector & ~3u) | ext;

	if ((d->selector & 3) != cpl || !attr_is_writable_data(d->attr) || attr_dpl(d->attr) != cpl)
		cpu_raise_error(v, vector, error);
	if (!(d->attr & ATTR_P))
		cpu_raise_error(v, EXC_SS, error);
}

static void load_null_segment(struct vcpu *v, enum seg seg, uint16_t selector)
{
	if (seg == SS) {
		if (v->code_mode != MODE_64 || v->cpl == 3 || (selector & 3) != v->cpl)
			cpu_raise_error(v, EXC_GP, 0);
		cpu_set_null_segment(v, SS, selector);
		v->s.seg_attr[SS] = (uint16_t)(v->cpl << ATTR_DPL_SHIFT);
		return;
	}
	cpu_set_null_segment(v, seg, selector);
}

static void load_protected_segment(struct vcpu *v, enum seg seg, uint16_t selector)
{
	uint32_t error = selector & ~3u;
	struct descriptor d;

	if (selector_is_null(selector)) {
		load_null_segment(v, seg, selector);
		return;
	}
	cpu_read_descriptor(v, selector, &d, EXC_GP, 0);
	if (seg == SS) {
		cpu_check_stack_segment(v, &d, v->cpl, EXC_GP, 0);
	} else {
		if (!attr_is_readable(d.attr))
			cpu_raise_error(v, EXC_GP, error);
		if (!attr_is_conforming(d.attr) && MAX(selector & 3u, v->cpl) > attr_dpl(d.attr))
			cpu_raise_error(v, EXC_GP, error);
		if (!(d.attr & ATTR_P))
			cpu_raise_error(v, EXC_NP, error);
	}
	cpu_mark_descriptor(v, &d, ATTR_ACCESSED);
	cpu_set_segment(v, seg, selector, &d);
}

void cpu_load_segment(struct vcpu *v, enum seg seg, uint16_t selector)
{
	if (in_protected_mode(v))
		load_protected_segment(v, seg, selector);
	else
		cpu_set_real_segment(v, seg, selector);
	/* In 64-bit mode nothing derived depends on the data segments. */
	if (seg == SS || v->code_mode != MODE_64)
		cpu_update_mode(v);
}

/* ---- stack and near transfers ---- */

void cpu_push(struct vcpu *v, uint64_t value, unsigned size)
{
	uint64_t rsp = v->s.gpr[RSP];

	stack_push(v, &rsp, value, size);
	set_stack_pointer(v, rsp);
}

uint64_t cpu_pop(struct vcpu *v, unsigned size)
{
	uint64_t rsp = v->s.gpr[RSP], value = stack_pop(v, &rsp, size);

	set_stack_pointer(v, rsp);
	return value;
}

void cpu_jump(struct vcpu *v, uint64_t target, unsigned opsize)
{
	if (opsize == 2)
		target &= 0xffff;
	else if (opsize == 4)
		target = (uint32_t)target;
	if (v->code_mode == MODE_64 ? !is_canonical(target) : target > v->s.seg_limit[CS])
		cpu_raise_error(v, EXC_GP, 0);
	v->s.rip = target;
}

/* ---- instructions ---- */

/* The next instruction runs without an interrupt or debug trap before it (SDM vol. 3A 6.8.3). */
static void shadow_stack_load(struct vcpu *v)
{
	v->s.shadow = SHADOW_MOV_SS;
	vcpu_post(v, EVENT_STEP);
}

static uint16_t read_selector(struct vcpu *v, const struct insn *i)
{
	if (i->form == FORM_M)
		return (uint16_t)cpu_load(v, cpu_operand(v, i, 2, ACCESS_READ), 2, i->seg == SS);
	return REG16(v, i->reg);
}

void op_mov_sreg(struct vcpu *v, const struct insn *i)
{
	if (i->sreg > GS)
		cpu_raise(v, EXC_UD);
	if (i->store) {
		uint16_t selector = v->s.seg_sel[i->sreg];

		if (i->form == FORM_M)
			cpu_store(v, cpu_operand(v, i, 2, ACCESS_WRITE), selector, 2, i->seg == SS);
		else
			cpu_set_reg(v, i->reg, i->opsize, selector);
	} else {
		if (i->sreg == CS)
			cpu_raise(v, EXC_UD);
		cpu_load_segment(v, i->sreg, read_selector(v, i));
		if (i->sreg == SS)
			shadow_stack_load(v);
	}
	v->s.rip = cpu_next_rip(v, i);
}

void op_push_sreg(struct vcpu *v, const struct insn *i) { cpu_push(v, v->s.seg_sel[i->sreg], i->opsize); }

void op_pop_sreg(struct vcpu *v, const struct insn *i)
{
	uint64_t rsp = v->s.gpr[RSP];
	uint16_t selector = (uint16_t)stack_pop(v, &rsp, i->opsize);
	uint8_t stack_size = v->stack_size; /* before POP SS changes it */

	cpu_load_segment(v, i->sreg, selector);
	cpu_set_reg(v, 8 * RSP, stack_size, rsp);
	if (i->sreg == SS)
		shadow_stack_load(v);
	v->s.rip = cpu_next_rip(v, i);
}

void op_load_far_pointer(struct vcpu *v, const struct insn *i)
{
	uint64_t offset;
	uint16_t selector;

	if (!(i->flags & INSN_MEM))
		cpu_raise(v, EXC_UD);
	offset = cpu_load(v, cpu_operand(v, i, i->srcsize, ACCESS_READ), i->srcsize, i->seg == SS);
	selector = (uint16_t)cpu_load(v, cpu_operand_part(v, i, i->srcsize, 2, ACCESS_READ), 2, i->seg == SS);
	cpu_load_segment(v, i->sreg, selector);
	cpu_set_reg(v, i->reg, i->opsize, offset);
	v->s.rip = cpu_next_rip(v, i);
}

void op_swapgs(struct vcpu *v, const struct insn *i)
{
	uint64_t base = v->s.seg_base[GS];

	(void)i;
	if (unlikely(v->code_mode != MODE_64))
		cpu_raise(v, EXC_UD);
	if (unlikely(v->cpl))
		cpu_raise_error(v, EXC_GP, 0);
	v->s.seg_base[GS] = v->s.msr_kernel_gs_base;
	v->s.msr_kernel_gs_base = base;
}

static void check_base_access(struct vcpu *v)
{
	if (v->code_mode != MODE_64 || !(v->s.cr4 & CR4_FSGSBASE))
		cpu_raise(v, EXC_UD);
}

static void read_base(struct vcpu *v, const struct insn *i, enum seg seg)
{
	check_base_access(v);
	cpu_set_reg(v, i->reg, i->opsize, v->s.seg_base[seg]);
}

static void write_base(struct vcpu *v, const struct insn *i, enum seg seg)
{
	uint64_t base = cpu_reg(v, i->reg, i->opsize);

	check_base_access(v);
	if (!is_canonical(base))
		cpu_raise_error(v, EXC_GP, 0);
	v->s.seg_base[seg] = base;
}

void op_rdfsbase(struct vcpu *v, const struct insn *i) { read_base(v, i, FS); }
void op_rdgsbase(struct vcpu *v, const struct insn *i) { read_base(v, i, GS); }
void op_wrfsbase(struct vcpu *v, const struct insn *i) { write_base(v, i, FS); }
void op_wrgsbase(struct vcpu *v, const struct insn *i) { write_base(v, i, GS); }
