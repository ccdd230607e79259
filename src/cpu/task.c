/*
 * Hardware task switches, SDM vol. 3A chapter 7: from a JMP, CALL, IRET or an interrupt's task gate to another TSS of 16
 * or 32 bits. They exist outside long mode only.
 *
 * Everything that can be found wrong before the switch is found before anything is written; what is wrong with the new
 * task's own registers is its own fault, raised with s.rip in it.
 */
#include "cpu/segment.h"

#define TSS_SEGMENTS 6	    /* in the order of enum seg */
#define DR7_LOCAL    0x155u /* L0..L3, LE */

/* Where things are in a TSS: SDM vol. 3A figures 7-2 and 7-10. */
struct tss_layout {
	uint8_t limit;	       /* the smallest */
	uint8_t width;	       /* of EIP, EFLAGS and general registers */
	uint8_t cr3;	       /* 0: none */
	uint8_t ip;	       /* followed by the flags and the general registers */
	uint8_t segments;      /* each `width` apart */
	uint8_t segment_count; /* FS and GS are not in the 16-bit one */
	uint8_t ldt;
	uint8_t trap; /* 0: none */
	/*
	 * Set in general registers that are loaded from it: vol. 3A 7.6 has the upper halves "modified and not maintained"; an 80386 sets
	 * them.
	 */
	uint32_t upper;
};

static const struct tss_layout layout_16 = { 43, 2, 0, 14, 34, 4, 42, 0, 0xffff0000 };
static const struct tss_layout layout_32 = { 103, 4, 28, 32, 72, 6, 96, 100, 0 };

struct task_image {
	uint32_t cr3, eip, eflags, gpr[8];
	uint16_t segments[TSS_SEGMENTS], ldt;
	bool trap;
};

static const struct tss_layout *layout_of(uint16_t attr)
{
	return (attr_type(attr) & ~TSS_BUSY) == SYSTEM_TSS_16 ? &layout_16 : &layout_32;
}

static bool is_tss(uint16_t attr, bool busy)
{
	unsigned type = attr & (ATTR_S | ATTR_TYPE);

	return (type & ~TSS_BUSY) == SYSTEM_TSS_16 || (type & ~TSS_BUSY) == SYSTEM_TSS_32 ? !!(type & TSS_BUSY) == busy
											  : false;
}

/* ---- before the switch ---- */

static void read_new_tss(struct vcpu *v, uint16_t selector, enum task_switch_kind kind, uint32_t ext,
			 struct descriptor *d)
{
	/* An IRET goes back to a task that is busy, all others to one that is not. */
	enum vector vector = kind == TASK_SWITCH_IRET ? EXC_TS : EXC_GP;
	uint32_t error = (selector & ~3u) | ext;

	if (selector_is_null(selector) || (selector & 4))
		cpu_raise_error(v, vector, error);
	cpu_read_descriptor(v, selector, d, vector, ext);
	if (!is_tss(d->attr, kind == TASK_SWITCH_IRET))
		cpu_raise_error(v, vector, error);
	if (!(d->attr & ATTR_P))
		cpu_raise_error(v, EXC_NP, error);
	if (d->limit < layout_of(d->attr)->limit)
		cpu_raise_error(v, EXC_TS, error);
}

static struct task_image read_image(struct vcpu *v, uint64_t base, const struct tss_layout *layout)
{
	struct task_image image = { 0 };
	uint64_t at = base + layout->ip;

	if (layout->cr3)
		image.cr3 = (uint32_t)cpu_system_load(v, base + layout->cr3, 4);
	image.eip = (uint32_t)cpu_system_load(v, at, layout->width);
	image.eflags = (uint32_t)cpu_system_load(v, at += layout->width, layout->width);
	for (unsigned n = 0; n < 8; n++)
		image.gpr[n] = (uint32_t)cpu_system_load(v, at += layout->width, layout->width) | layout->upper;
	for (unsigned n = 0; n < layout->segment_count; n++)
		image.segments[n] = (uint16_t)cpu_system_load(v, base + layout->segments + n * layout->width, 2);
	image.ldt = (uint16_t)cpu_system_load(v, base + layout->ldt, 2);
	if (layout->trap)
		image.trap = cpu_system_load(v, base + layout->trap, 2) & 1;
	return image;
}

static void save_old_task(struct vcpu *v, uint64_t base, const struct tss_layout *layout, uint64_t rip, uint64_t flags)
{
	uint64_t at = base + layout->ip;

	cpu_system_store(v, at, rip, layout->width);
	cpu_system_store(v, at += layout->width, flags, layout->width);
	for (unsigned n = 0; n < 8; n++)
		cpu_system_store(v, at += layout->width, v->s.gpr[n], layout->width);
	for (unsigned n = 0; n < layout->segment_count; n++)
		cpu_system_store(v, base + layout->segments + n * layout->width, v->s.seg_sel[n], 2);
}

/* ---- the new task's segments: faults from here on are its own ---- */

static _Noreturn void raise_in_task(struct vcpu *v, enum vector vector, uint16_t selector, uint32_t ext)
{
	cpu_raise_error(v, vector, (selector & ~3u) | ext);
}

static void load_ldt(struct vcpu *v, uint16_t selector, uint32_t ext)
{
	struct descriptor d;

	if (selector_is_null(selector))
		return;
	if ((selector & 4) || !cpu_find_descriptor(v, selector, &d) || (d.attr & (ATTR_S | ATTR_TYPE)) != SYSTEM_LDT ||
	    !(d.attr & ATTR_P))
		raise_in_task(v, EXC_TS, selector, ext);
	cpu_set_segment(v, LDTR, selector, &d);
}

static void load_stack(struct vcpu *v, uint16_t selector, uint32_t ext)
{
	struct descriptor d;

	if (selector_is_null(selector))
		raise_in_task(v, EXC_TS, selector, ext);
	cpu_read_descriptor(v, selector, &d, EXC_TS, ext);
	cpu_check_stack_segment(v, &d, v->cpl, EXC_TS, ext);
	cpu_mark_descriptor(v, &d, ATTR_ACCESSED);
	cpu_set_segment(v, SS, selector, &d);
}

static void load_code(struct vcpu *v, uint16_t selector, uint32_t ext)
{
	unsigned rpl = selector & 3;
	struct descriptor d;

	if (selector_is_null(selector))
		raise_in_task(v, EXC_TS, selector, ext);
	cpu_read_descriptor(v, selector, &d, EXC_TS, ext);
	if (!attr_is_code(d.attr) || (attr_is_conforming(d.attr) ? attr_dpl(d.attr) > rpl : attr_dpl(d.attr) != rpl))
		raise_in_task(v, EXC_TS, selector, ext);
	if (!(d.attr & ATTR_P))
		raise_in_task(v, EXC_NP, selector, ext);
	cpu_mark_descriptor(v, &d, ATTR_ACCESSED);
	cpu_set_segment(v, CS, selector, &d);
}

static void load_data(struct vcpu *v, enum seg seg, uint16_t selector, uint32_t ext)
{
	struct descriptor d;

	if (selector_is_null(selector))
		return;
	cpu_read_descriptor(v, selector, &d, EXC_TS, ext);
	if (!attr_is_readable(d.attr) || (!attr_is_conforming(d.attr) && MAX(v->cpl, selector & 3u) > attr_dpl(d.attr)))
		raise_in_task(v, EXC_TS, selector, ext);
	if (!(d.attr & ATTR_P))
		raise_in_task(v, EXC_NP, selector, ext);
	cpu_mark_descriptor(v, &d, ATTR_ACCESSED);
	cpu_set_segment(v, seg, selector, &d);
}

static void load_segments(struct vcpu *v, const struct task_image *image, uint32_t ext)
{
	static const uint8_t data_segments[] = { ES, DS, FS, GS };

	load_ldt(v, image->ldt, ext);
	if (v->s.rflags & FLAG_VM)
		return;
	load_code(v, image->segments[CS], ext);
	load_stack(v, image->segments[SS], ext);
	for (unsigned n = 0; n < ARRAY_SIZE(data_segments); n++)
		load_data(v, data_segments[n], image->segments[data_segments[n]], ext);
	cpu_update_mode(v);
}

/* ---- the switch ---- */

/* Registers, with segments that have their selectors and, but in virtual-8086 mode, nothing behind them yet. */
static void take_registers(struct vcpu *v, const struct task_image *image, uint64_t flags)
{
	unsigned cpl = image->segments[CS] & 3;

	for (unsigned n = 0; n < 8; n++)
		v->s.gpr[n] = image->gpr[n];
	v->s.rip = image->eip;
	cpu_set_null_segment(v, LDTR, image->ldt);
	for (unsigned seg = ES; seg <= GS; seg++)
		cpu_set_null_segment(v, seg, image->segments[seg]);
	v->s.seg_attr[SS] = (uint16_t)(cpl << ATTR_DPL_SHIFT);
	v->s.cr0 |= CR0_TS;
	v->s.dr[7] &= ~(uint64_t)DR7_LOCAL;
	cpu_set_rflags(v, flags);
	for (unsigned seg = ES; (v->s.rflags & FLAG_VM) && seg <= GS; seg++)
		cpu_set_real_segment(v, seg, image->segments[seg]);
	cpu_update_mode(v);
}

static void switch_page_tables(struct vcpu *v, uint32_t cr3)
{
	if (!(v->s.cr0 & CR0_PG) || cr3 == v->s.cr3)
		return;
	cpu_write_cr3(v, cr3);
}

/* Busy bits, the old task's registers, the link back: all of it was probed. */
static void write_tables(struct vcpu *v, const struct descriptor *new, enum task_switch_kind kind, uint64_t next_rip,
			 bool resume)
{
	uint64_t flags = cpu_rflags(v) | (resume ? FLAG_RF : 0);
	struct descriptor old;

	if (kind == TASK_SWITCH_IRET)
		flags &= ~FLAG_NT;
	save_old_task(v, v->s.seg_base[TR], layout_of(v->s.seg_attr[TR]), next_rip, flags);
	if (kind == TASK_SWITCH_CALL || kind == TASK_SWITCH_GATE)
		cpu_system_store(v, new->base, v->s.seg_sel[TR], 2);
	else if (cpu_find_descriptor(v, v->s.seg_sel[TR], &old))
		cpu_unmark_descriptor(v, &old, TSS_BUSY);
	if (kind != TASK_SWITCH_IRET)
		cpu_mark_descriptor(v, new, TSS_BUSY);
}

/* Every write of write_tables(), and nothing else: a TSS that is only read may be on a read-only page. */
static void probe_tables(struct vcpu *v, const struct descriptor *new, enum task_switch_kind kind)
{
	const struct tss_layout *layout = layout_of(v->s.seg_attr[TR]);
	unsigned end = layout->segments + layout->segment_count * layout->width;
	bool nested = kind == TASK_SWITCH_CALL || kind == TASK_SWITCH_GATE;
	struct descriptor old;

	if (!(v->s.seg_attr[TR] & ATTR_P) || v->s.seg_limit[TR] < layout->limit)
		cpu_raise_error(v, EXC_TS, v->s.seg_sel[TR] & ~3u);
	cpu_probe_system_write(v, v->s.seg_base[TR] + layout->ip, end - layout->ip);
	if (nested)
		cpu_probe_system_write(v, new->base, 2);
	else if (cpu_find_descriptor(v, v->s.seg_sel[TR], &old))
		cpu_probe_system_write(v, old.address + 5, 1);
	if (kind != TASK_SWITCH_IRET)
		cpu_probe_system_write(v, new->address + 5, 1);
}

/* The error code of an exception, as wide as the new TSS's registers. */
static void push_error_code(struct vcpu *v, uint32_t error, unsigned size, uint32_t ext)
{
	uint32_t offset = (uint32_t)((v->s.gpr[RSP] - size) & stack_mask(v));

	if (!cpu_segment_contains(v->s.seg_attr[SS], v->s.seg_limit[SS], offset, size))
		cpu_raise_error(v, EXC_SS, ext);
	cpu_push(v, error, size);
}

void cpu_task_switch(struct vcpu *v, uint16_t selector, enum task_switch_kind kind, uint64_t next_rip,
		     const struct delivery *d)
{
	uint32_t ext = d && d->kind != DELIVERY_SOFTWARE;
	const struct tss_layout *layout;
	struct task_image image;
	struct descriptor new;
	uint64_t flags;

	read_new_tss(v, selector, kind, ext, &new);
	layout = layout_of(new.attr);
	image = read_image(v, new.base, layout);
	probe_tables(v, &new, kind);

	TRACE(v->trace, CONTROL, "cpu%u task %#x -> %#x at rip %#lx", v->index, v->s.seg_sel[TR], selector, v->s.rip);
	write_tables(v, &new, kind, next_rip, d && d->resume);
	v->switching = true;
	new.attr |= TSS_BUSY;
	cpu_set_segment(v, TR, selector, &new);
	flags = image.eflags;
	if (kind == TASK_SWITCH_CALL || kind == TASK_SWITCH_GATE)
		flags |= FLAG_NT;
	take_registers(v, &image, flags);
	if (layout->cr3)
		switch_page_tables(v, image.cr3);
	load_segments(v, &image, ext);
	if (d && d->has_error)
		push_error_code(v, d->error, layout->width, ext);
	if (image.eip > v->s.seg_limit[CS])
		cpu_raise_error(v, EXC_GP, ext);
	if (image.trap) {
		v->s.pending_debug |= DR6_BT;
		vcpu_post(v, EVENT_STEP);
	}
	v->switching = false;
}
