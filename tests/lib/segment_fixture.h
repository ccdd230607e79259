/*
 * On top of cpu_fixture.h: descriptor tables, a TSS and stacks, in 64-bit mode and in 32-bit protected mode, for tests of
 * segment loads and transfers of control.
 */
#ifndef SEGMENT_FIXTURE_H
#define SEGMENT_FIXTURE_H

#include "lib/cpu_fixture.h"

#define RAM_BASE    0x100000u /* guest physical; in long mode FIXTURE_LIN is mapped to it, user and writable */
#define GDT_OFFSET  0x0000u
#define LDT_OFFSET  0x0800u
#define TSS_OFFSET  0x1000u
#define TSS2_OFFSET 0x1400u
#define IDT_OFFSET  0x2000u
#define DATA_OFFSET 0x4000u
#define STACK_TOP   0x7000u /* ring 0's in the TSS */
#define USER_STACK  0x9000u
#define PAGES	    16

/* Selectors */
enum {
	KERNEL_CODE = 0x08,
	KERNEL_DATA = 0x10,
	USER_CODE = 0x18 | 3,
	USER_DATA = 0x20 | 3,
	CODE_64 = 0x28,
	USER_CODE_64 = 0x30 | 3,
	READ_ONLY = 0x38,
	NOT_PRESENT = 0x40,
	CONFORMING = 0x48,
	TASK_STATE = 0x50 /* two slots */,
	LOCAL_TABLE = 0x60 /* two slots */,
	GATE = 0x70 /* two slots */,
	OTHER_TASK = 0x80,
	EXECUTE_ONLY = 0x88,
	RING1_DATA = 0x90,
	TASK_GATE = 0x98,
	BEYOND = 0x100,
};

#define CODE(dpl) (ATTR_P | ATTR_S | 0xau | (dpl) << 5)
#define DATA(dpl) (ATTR_P | ATTR_S | 0x2u | (dpl) << 5)
#define FLAT_32	  (ATTR_G | ATTR_DB)

struct segment_fixture {
	struct cpu_fixture f;
	uint64_t base; /* linear address of RAM_BASE */
	uint8_t tpr;
};

static inline uint64_t make_descriptor(uint32_t base, uint32_t limit, uint32_t attr)
{
	return bits(limit, 15, 0) | bits(base, 23, 0) << 16 | (uint64_t)(attr & 0xff) << 40 |
	       bits(limit, 19, 16) << 48 | bits(attr, 15, 12) << 52 | bits(base, 31, 24) << 56;
}

static inline void poke(struct segment_fixture *s, uint64_t offset, uint64_t value)
{
	fixture_poke(&s->f, RAM_BASE + offset, value);
}

static inline uint64_t peek(struct segment_fixture *s, uint64_t offset, unsigned size)
{
	uint64_t value = 0;

	assert_int_equal(mem_read(s->f.mem, gpa(RAM_BASE + offset), &value, size), 0);
	return value;
}

static inline void set_descriptor(struct segment_fixture *s, uint16_t selector, uint64_t raw)
{
	poke(s, GDT_OFFSET + (selector & ~7u), raw);
}

static inline uint64_t get_descriptor(struct segment_fixture *s, uint16_t selector)
{
	return peek(s, GDT_OFFSET + (selector & ~7u), 8);
}

static inline void fill_gdt(struct segment_fixture *s)
{
	set_descriptor(s, KERNEL_CODE, make_descriptor(0, 0xfffff, CODE(0) | FLAT_32));
	set_descriptor(s, KERNEL_DATA, make_descriptor(0, 0xfffff, DATA(0) | FLAT_32));
	set_descriptor(s, USER_CODE, make_descriptor(0, 0xfffff, CODE(3u) | FLAT_32));
	set_descriptor(s, USER_DATA, make_descriptor(0, 0xfffff, DATA(3u) | FLAT_32));
	set_descriptor(s, CODE_64, make_descriptor(0, 0xfffff, CODE(0) | ATTR_G | ATTR_L));
	set_descriptor(s, USER_CODE_64, make_descriptor(0, 0xfffff, CODE(3u) | ATTR_G | ATTR_L));
	set_descriptor(s, READ_ONLY, make_descriptor(0, 0xfffff, ATTR_P | ATTR_S | FLAT_32));
	set_descriptor(s, NOT_PRESENT, make_descriptor(0, 0xfffff, (DATA(0) | FLAT_32) & ~(uint32_t)ATTR_P));
	set_descriptor(s, CONFORMING, make_descriptor(0, 0xfffff, CODE(0) | ATTR_EXPAND_DOWN | FLAT_32));
	set_descriptor(s, EXECUTE_ONLY, make_descriptor(0, 0xfffff, ATTR_P | ATTR_S | 8 | FLAT_32));
	set_descriptor(s, RING1_DATA, make_descriptor(0, 0xfffff, DATA(1u) | FLAT_32));
	set_descriptor(s, TASK_STATE, make_descriptor((uint32_t)s->base + TSS_OFFSET, 103, ATTR_P | 9));
	set_descriptor(s, TASK_STATE + 8, s->base >> 32);
	set_descriptor(s, LOCAL_TABLE, make_descriptor((uint32_t)s->base + LDT_OFFSET, 0xff, ATTR_P | 2));
	set_descriptor(s, LOCAL_TABLE + 8, s->base >> 32);
	set_descriptor(s, OTHER_TASK, make_descriptor((uint32_t)s->base + TSS2_OFFSET, 103, ATTR_P | 9));
}

/* As cpu_load_segment() would leave it, for a level that could not load it itself. */
static inline void put_segment(struct vcpu *v, enum seg seg, uint16_t selector, uint32_t limit, uint32_t attr)
{
	v->s.seg_sel[seg] = selector;
	v->s.seg_base[seg] = 0;
	v->s.seg_limit[seg] = limit;
	v->s.seg_attr[seg] = (uint16_t)(attr | ATTR_ACCESSED);
}

static inline uint8_t fixture_tpr_read(struct vcpu *v) { return ((struct segment_fixture *)v->env_opaque)->tpr; }

static inline void fixture_tpr_write(struct vcpu *v, uint8_t value)
{
	((struct segment_fixture *)v->env_opaque)->tpr = value;
}

static const struct vcpu_env segment_env = { .tpr_read = fixture_tpr_read, .tpr_write = fixture_tpr_write };

static inline void enter_level(struct segment_fixture *s, unsigned cpl, bool wide)
{
	struct vcpu *v = s->f.v;
	uint16_t code = wide ? (cpl ? USER_CODE_64 : CODE_64) : cpl ? USER_CODE : KERNEL_CODE;

	put_segment(v, CS, code, UINT32_MAX, CODE(cpl) | ATTR_G | (wide ? ATTR_L : ATTR_DB));
	put_segment(v, SS, cpl ? USER_DATA : KERNEL_DATA, UINT32_MAX, DATA(cpl) | FLAT_32);
	cpu_update_mode(v);
}

/* Ring 0, 64-bit or 32-bit with flat segments and no paging; TR loaded, interrupts off, RSP at the ring 0 stack. */
static inline void segment_setup(struct segment_fixture *s, bool wide, const char *model)
{
	struct vcpu *v;

	memset(s, 0, sizeof(*s));
	fixture_setup(&s->f, model, true, &segment_env);
	v = s->f.v;
	s->base = wide ? FIXTURE_LIN : RAM_BASE;
	if (wide) {
		fixture_long_mode(&s->f);
		for (unsigned n = 0; n < PAGES; n++)
			fixture_map(&s->f, n, RAM_BASE + n * PAGE_SIZE, 7);
	} else {
		v->s.cr0 = CR0_PE | CR0_ET;
	}
	fill_gdt(s);
	v->s.gdtr_base = s->base + GDT_OFFSET;
	v->s.gdtr_limit = 0xff;
	v->s.idtr_base = s->base + IDT_OFFSET;
	v->s.idtr_limit = 0xfff;
	for (enum seg seg = ES; seg <= GS; seg++)
		put_segment(v, seg, KERNEL_DATA, UINT32_MAX, DATA(0) | FLAT_32);
	enter_level(s, 0, wide);
	v->s.seg_sel[TR] = TASK_STATE;
	v->s.seg_base[TR] = s->base + TSS_OFFSET;
	v->s.seg_limit[TR] = 103;
	v->s.seg_attr[TR] = ATTR_P | 11;
	v->s.seg_attr[LDTR] = 0;
	poke(s, TSS_OFFSET + 4,
	     wide ? s->base + STACK_TOP : (uint32_t)(s->base + STACK_TOP) | (uint64_t)KERNEL_DATA << 32);
	v->s.gpr[RSP] = s->base + STACK_TOP;
	v->s.rip = s->base + DATA_OFFSET;
}

static inline void segment_teardown(struct segment_fixture *s) { fixture_teardown(&s->f); }

/* Decode one instruction in the current mode and run it. False if it raised v->fault. */
static inline bool run_bytes(struct segment_fixture *s, const void *code, size_t size)
{
	struct vcpu *v = s->f.v;
	uint8_t bytes[15] = { 0 };
	struct insn i;

	memset(bytes, 0x90, sizeof(bytes));
	memcpy(bytes, code, size);
	assert_int_equal(cpu_decode(v->model, v->code_mode, bytes, sizeof(bytes), 0, &i, NULL), size);
	assert_true(i.flags & INSN_SYSTEM);
	v->s.ip_base = v->s.rip;
	if (!fixture_run(v, cpu_system_ops[i.op], &i, NULL))
		return false;
	if (!(i.flags & INSN_ENDS))
		v->s.rip += i.len;
	return true;
}
#define RUN(fixture, ...) run_bytes(fixture, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

/* The expression raised this, and RIP and RSP are as before. */
#define assert_fault(fixture, ran, vector_, error_)                                                                    \
	do {                                                                                                           \
		struct vcpu *vcpu_ = (fixture)->f.v;                                                                   \
		uint64_t rip_ = vcpu_->s.rip, rsp_ = vcpu_->s.gpr[RSP];                                                \
		assert_false(ran);                                                                                     \
		assert_int_equal(vcpu_->fault.vector, vector_);                                                        \
		assert_int_equal(vcpu_->fault.error, error_);                                                          \
		assert_int_equal(vcpu_->s.rip, rip_);                                                                  \
		assert_int_equal(vcpu_->s.gpr[RSP], rsp_);                                                             \
	} while (0)

/* ---- what the tests of a program run on: each test has it made anew ---- */

static struct segment_fixture s;

static inline int setup_32(void **state)
{
	(void)state;
	segment_setup(&s, false, "v3");
	return 0;
}

static inline int setup_64(void **state)
{
	(void)state;
	segment_setup(&s, true, "v3");
	return 0;
}

static inline int teardown(void **state)
{
	(void)state;
	segment_teardown(&s);
	return 0;
}

#define TEST_32(name) cmocka_unit_test_setup_teardown(name, setup_32, teardown)
#define TEST_64(name) cmocka_unit_test_setup_teardown(name, setup_64, teardown)

#endif
