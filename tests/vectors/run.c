/*
 * A vector on one of our processors: real mode, RAM without holes, as small computers had it. Up to the 8086 the address space ends at
 * 1 MiB and begins again. From the 80286 on a recorded instruction ends with the HLT behind it, or the first of a handler.
 */
#include "vectors.h"

#include "cpu/cpu.h"
#include "engine/engine.h"
#include "lib/no_machine.h"

#include <errno.h>
#include <stdlib.h>

#define RAM_SIZE     (2ull << 20)
#define FLAGS_IN_USE 0x0fd5u /* the others are of later modes, or the same on every processor */
#define HLT	     0xf4

struct runner {
	struct engine engine;
	struct cpu_model model;
	struct trace trace;
	struct guest_mem *mem;
	struct clock *clock;
	struct vcpu *v, *peers[1];
	const struct engine_ops *ops;
	struct cpu_state start;
	unsigned laid_out; /* regions of memory now */
	struct mem_layer layers[2];
	char text[160];
};

static const struct vcpu_env environment = { NO_DEVICES, NO_INTERRUPTS, ALONE };

static int create(struct runner *r, const char *engine, struct error *err)
{
	int ret;

	r->ops = engine_find(engine, &r->engine.options, err);
	if (!r->ops)
		return -EINVAL;
	ret = cpu_model_init(&r->model, "v2", true, 1, err);
	if (ret)
		return ret;
	r->mem = mem_create(RAM_SIZE, err);
	r->clock = r->mem ? clock_create(CLOCK_VIRTUAL, 1, err) : NULL;
	r->v = r->clock
		       ? vcpu_create(r->ops->vcpu_size, 0, &r->model, r->mem, r->clock, &r->trace, &environment, r, err)
		       : NULL;
	if (!r->v)
		return -ENOMEM;
	return alone_on_engine(&r->engine, r->v, r->peers, r->ops, &r->engine.options, err);
}

struct runner *runner_create(const char *engine, struct error *err)
{
	struct runner *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	if (create(r, engine, err)) {
		free(r);
		return NULL;
	}
	r->ops->pull(r->v, &r->start);
	return r;
}

void runner_destroy(struct runner *r)
{
	alone_destroy(r->v);
	clock_destroy(r->clock);
	mem_destroy(r->mem);
	free(r);
}

static struct mem_layer show_beginning(struct guest_mem *mem, uint64_t start, uint64_t size)
{
	return (struct mem_layer){ .memory = &mem->ram,
				   .start = start,
				   .size = size,
				   .priority = MEM_PRIORITY_SHADOW,
				   .reads = true,
				   .writes = true };
}

/*
 * One region from 0 on: all of RAM, or its first MiB and, behind it, the beginning once more. Under a running engine memory never
 * moves like this, so it begins anew.
 */
static void lay_out_memory(struct runner *r, bool wraps)
{
	unsigned count = wraps ? 2 : 1;

	if (r->laid_out == count)
		return;
	engine_remove_vcpu(r->v);
	r->laid_out = count;
	for (unsigned n = 0; n < ARRAY_SIZE(r->layers); n++)
		mem_layer_remove(r->mem, &r->layers[n]);
	r->layers[0] = show_beginning(r->mem, 0, wraps ? 1u << 20 : RAM_SIZE);
	r->layers[1] = show_beginning(r->mem, 1u << 20, 1u << 16);
	for (unsigned n = 0; n < count; n++)
		BUG_ON(mem_layer_add(r->mem, &r->layers[n], NULL));
	mem_commit(r->mem);
	BUG_ON(engine_add_vcpu(&r->engine, r->v, NULL));
}

static void set_segment(struct cpu_state *s, enum seg seg, uint32_t selector)
{
	s->seg_sel[seg] = (uint16_t)selector;
	s->seg_base[seg] = (uint64_t)s->seg_sel[seg] << 4;
	s->seg_limit[seg] = 0xffff;
	s->seg_attr[seg] = ATTR_P | ATTR_S | ATTR_WRITABLE | ATTR_ACCESSED | (seg == CS ? ATTR_CODE : 0);
}

/* (register of a vector, general register) */
#define GENERAL_REGISTERS(_)                                                                                           \
	_(ax, RAX)                                                                                                     \
	_(bx, RBX)                                                                                                     \
	_(cx, RCX)                                                                                                     \
	_(dx, RDX)                                                                                                     \
	_(sp, RSP)                                                                                                     \
	_(bp, RBP)                                                                                                     \
	_(si, RSI)                                                                                                     \
	_(di, RDI)
#define SEGMENT_REGISTERS(_)                                                                                           \
	_(cs, CS)                                                                                                      \
	_(ss, SS)                                                                                                      \
	_(ds, DS)                                                                                                      \
	_(es, ES)                                                                                                      \
	_(fs, FS)                                                                                                      \
	_(gs, GS)

static void start(struct runner *r, enum processor processor, const struct vector_state *before)
{
	struct cpu_state s = r->start;

	s.rip = before->reg[V_ip];
	s.rflags = (before->reg[V_flags] & FLAGS_IN_USE) | 2;
#define _(name, gpr_number) s.gpr[gpr_number] = before->reg[V_##name];
	GENERAL_REGISTERS(_)
#undef _
#define _(name, seg) set_segment(&s, seg, before->reg[V_##name]);
	SEGMENT_REGISTERS(_)
#undef _
	s.idtr_base = 0;
	s.idtr_limit = 0x3ff;
	for (unsigned n = 0; n < before->memory_count; n++)
		mem_write(r->mem, gpa(before->memory[n].address & (processor == CPU_8086 ? 0xfffff : RAM_SIZE - 1)),
			  &before->memory[n].value, 1);
	r->ops->push(r->v, &s);
}

/* The 8086's stop where the next instruction begins; the others behind a HLT, which handlers are given. */
static void run(struct runner *r, enum processor processor, uint64_t *exceptions)
{
	struct vcpu *v = r->v;
	const uint8_t hlt = HLT;
	struct exit exit;

	v->budget = 1;
	r->ops->run(v, &exit);
	*exceptions = v->count[COUNT_EXCEPTIONS];
	if (processor == CPU_8086 || v->s.activity == CPU_HALTED)
		return;
	mem_write(r->mem, gpa(v->s.seg_base[CS] + v->s.rip), &hlt, 1);
	v->budget = 1;
	r->ops->run(v, &exit);
}

static uint32_t register_now(const struct cpu_state *s, enum vector_register reg)
{
	switch (reg) {
#define _(name, gpr_number)                                                                                            \
	case V_##name: return (uint32_t)s->gpr[gpr_number];
		GENERAL_REGISTERS(_)
#undef _
#define _(name, seg)                                                                                                   \
	case V_##name: return s->seg_sel[seg];
		SEGMENT_REGISTERS(_)
#undef _
	case V_ip: return (uint32_t)s->rip;
	case V_flags: return (uint32_t)s->rflags;
	default: return 0;
	}
}

static const char *compare_registers(struct runner *r, enum processor processor, const struct test_vector *vector)
{
	static const char *const names[] = {
#define _(name, at_16, at_32) #name,
		VECTOR_REGISTERS(_)
#undef _
	};
	struct cpu_state s;

	r->ops->pull(r->v, &s);
	for (unsigned n = 0; n <= (processor == CPU_80386 ? V_gs : V_flags); n++) {
		uint32_t mask = vector->mask[n] & (processor == CPU_80386 ? UINT32_MAX : 0xffff);
		uint32_t now = register_now(&s, n), then = vector->after.reg[n];

		if (n == V_flags)
			mask &= FLAGS_IN_USE;
		if ((now ^ then) & mask) {
			snprintf(r->text, sizeof(r->text), "%s is %#x, expected %#x (of %#x), before %#x", names[n],
				 now & mask, then & mask, mask, vector->before.reg[n]);
			return r->text;
		}
	}
	return NULL;
}

/* Bits of this byte that say something: of pushed flags, those that exist and are defined. */
static uint8_t memory_mask(enum processor processor, const struct test_vector *vector, uint32_t address)
{
	uint32_t flags = vector->exception >= 0 ? vector->flags_address : UINT32_MAX;
	struct opcode op = vector_opcode(vector);

	/* PUSHF, INT3, INT, INTO push the 8086's four upper bits, which are 1. */
	if (processor == CPU_8086 && (op.code == 0x9c || (op.code >= 0xcc && op.code <= 0xce)))
		flags = ((vector->before.reg[V_ss] << 4) + ((vector->before.reg[V_sp] - 2) & 0xffff)) & 0xfffff;
	if (address == flags)
		return (uint8_t)(vector->mask[V_flags] & FLAGS_IN_USE);
	return address == flags + 1 ? (uint8_t)((vector->mask[V_flags] & FLAGS_IN_USE) >> 8) : 0xff;
}

static const char *compare_memory(struct runner *r, enum processor processor, const struct test_vector *vector)
{
	for (unsigned n = 0; n < vector->after.memory_count; n++) {
		uint32_t address = vector->after.memory[n].address;
		uint8_t then = vector->after.memory[n].value, now = 0, mask = memory_mask(processor, vector, address);

		mem_read(r->mem, gpa(address), &now, 1);
		if ((now ^ then) & mask) {
			snprintf(r->text, sizeof(r->text), "memory at %#x is %#x, expected %#x", address, now, then);
			return r->text;
		}
	}
	return NULL;
}

/* What it wrote, or should have written, is not to be the next one's. */
static void forget_memory(struct runner *r, const struct vector_state *s)
{
	for (unsigned n = 0; n < s->memory_count; n++)
		mem_write(r->mem, gpa(s->memory[n].address & (RAM_SIZE - 1)), &(uint8_t){ 0 }, 1);
}

const char *runner_run(struct runner *r, enum processor processor, const struct test_vector *vector, int *exception)
{
	uint64_t before = r->v->count[COUNT_EXCEPTIONS], after;
	const char *wrong;

	lay_out_memory(r, processor == CPU_8086);
	start(r, processor, &vector->before);
	run(r, processor, &after);
	*exception = after > before ? r->v->delivered.vector : -1;
	wrong = compare_registers(r, processor, vector);
	if (!wrong)
		wrong = compare_memory(r, processor, vector);
	forget_memory(r, &vector->before);
	forget_memory(r, &vector->after);
	return wrong;
}
