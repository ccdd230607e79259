/*
 * guest: the same instruction under an engine. A vCPU in long mode at CPL 3, with descriptor tables like Linux's, the
 * areas mapped where the host has them, and an IDT whose every handler halts: an exception is read from the frame it pushed.
 */
#include "oracle.h"

#include "engine/bt/runtime.h"
#include "lib/no_machine.h"

#include <asm/hwcap2.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/auxv.h>

/* ---- guest physical memory; the first 2 MiB are at SYSTEM too, for CPL 0 only ---- */

#define RAM	 (4ull << 20)
#define SYSTEM	 0xffff800000000000ull
#define PML4	 0x1000u
#define PDPT_LOW 0x2000u
#define PD_LOW	 0x3000u
#define PT_CODE	 0x4000u
#define PT_DATA	 0x5000u
#define PT_STACK 0x6000u
#define PDPT_SYS 0x7000u
#define PD_SYS	 0x8000u
#define GDT	 0x9000u
#define TSS	 0xa000u
#define IDT	 0xb000u
#define HANDLERS 0xc000u /* one every 16 bytes */
#define RSP0	 0xe000u
#define LDT	 0xe000u
#define USER	 0x200000u /* the areas' pages: code, data, stack */

/* Linux's, arch/x86/include/asm/segment.h, as user mode can look at them with LAR and LSL. */
#define GDT_LIMIT	127
#define LDT_LIMIT	(8 * LDT_SIZE - 1)
#define SEL_TSS		0x40
#define SEL_KERNEL_CODE 0x10
#define SEL_LDT		0x50
#define HANDLER_SIZE	16
#define HLT		0xf4

#define CHANGES_KEPT 128

/* One guest_run() may take so many returns of the engine: repeated string instructions. */
#define RUNS_MAX 20000

struct guest {
	struct cpu_model model;
	struct trace trace;
	struct guest_mem *mem;
	struct clock *clock;
	struct vcpu *v, *peers[1];
	const struct engine_ops *ops;
	struct engine engine;
	bool counts; /* the engine can stop after so many instructions: others go on to the filler */
	struct areas areas;
	unsigned changes;      /* of code */
	struct cpu_state base; /* what cases have in common */
};

static const struct vcpu_env no_machine = { NO_DEVICES, NO_INTERRUPTS, NO_APIC, ALONE };

/* ---- tables ---- */

static void poke(struct guest *g, uint64_t at, uint64_t value) { mem_write(g->mem, gpa(at), &value, sizeof(value)); }

static void map_pages(struct guest *g, uint32_t table, uint64_t linear, unsigned first, unsigned count, uint64_t rights)
{
	poke(g, PD_LOW + 8 * (linear >> 21), table | PTE_P | PTE_W | PTE_U);
	for (unsigned n = 0; n < count; n++)
		poke(g, table + 8 * ((linear >> 12 & 511) + n),
		     (USER + (first + n) * PAGE_SIZE) | rights | PTE_P | PTE_U);
}

static void make_page_tables(struct guest *g)
{
	poke(g, PML4, PDPT_LOW | PTE_P | PTE_W | PTE_U);
	poke(g, PML4 + 8 * (SYSTEM >> 39 & 511), PDPT_SYS | PTE_P | PTE_W);
	poke(g, PDPT_LOW, PD_LOW | PTE_P | PTE_W | PTE_U);
	poke(g, PDPT_SYS, PD_SYS | PTE_P | PTE_W);
	poke(g, PD_SYS, PTE_P | PTE_W | PTE_PS);
	map_pages(g, PT_CODE, CODE, 0, 2, 0);
	map_pages(g, PT_DATA, DATA, 2, 2, PTE_W | PTE_NX);
	map_pages(g, PT_DATA, READ_ONLY, 4, 1, PTE_NX);
	map_pages(g, PT_STACK, STACK, 5, 1, PTE_W | PTE_NX);
}

/* A descriptor's second dword without the base; the limit is 4 GiB where G is set. */
static uint64_t descriptor(uint16_t attr) { return (uint64_t)attr << 40 | (attr & ATTR_G ? 0xf00000000ffffull : 0); }

static void make_gdt(struct guest *g)
{
	const uint16_t data = ATTR_P | ATTR_S | ATTR_WRITABLE | ATTR_ACCESSED | ATTR_G, code = data | ATTR_CODE;
	static const uint64_t tss_base = SYSTEM + TSS, ldt_base = SYSTEM + LDT;

	poke(g, GDT + 0x08, descriptor(code | ATTR_DB));
	poke(g, GDT + 0x10, descriptor(code | ATTR_L));
	poke(g, GDT + 0x18, descriptor(data | ATTR_DB));
	for (uint16_t selector = 0x20; selector <= 0x30; selector += 8)
		poke(g, GDT + selector, segment_descriptor(selector));
	poke(g, GDT + SEL_TSS,
	     (uint64_t)(ATTR_P | 11) << 40 | 103 | (tss_base & 0xffffff) << 16 | (tss_base >> 24 & 0xff) << 56);
	poke(g, GDT + SEL_TSS + 8, tss_base >> 32);
	poke(g, GDT + SEL_LDT,
	     (uint64_t)(ATTR_P | 2) << 40 | LDT_LIMIT | (ldt_base & 0xffffff) << 16 | (ldt_base >> 24 & 0xff) << 56);
	poke(g, GDT + SEL_LDT + 8, ldt_base >> 32);
	for (uint16_t n = 0; n < LDT_SIZE; n++)
		poke(g, LDT + 8 * n, segment_descriptor((uint16_t)(n << 3 | 4)));
	poke(g, TSS + 4, SYSTEM + RSP0);
	poke(g, TSS + 0x60, 104ull << 48); /* no I/O permission bitmap */
}

static void make_idt(struct guest *g)
{
	for (unsigned n = 0; n < 256; n++) {
		uint64_t handler = SYSTEM + HANDLERS + HANDLER_SIZE * n;
		uint64_t dpl = n == EXC_BP || n == EXC_OF || n == 0x80 ? 3 : 0;

		poke(g, IDT + 16 * n,
		     (handler & 0xffff) | SEL_KERNEL_CODE << 16 | (0x8eull | dpl << 5) << 40 |
			     (handler >> 16 & 0xffff) << 48);
		poke(g, IDT + 16 * n + 8, handler >> 32);
		mem_fill(g->mem, gpa(HANDLERS + HANDLER_SIZE * n), HLT, HANDLER_SIZE);
	}
}

static void set_segment(struct cpu_state *s, enum seg seg, uint16_t sel, uint16_t attr, uint64_t base, uint32_t limit)
{
	s->seg_sel[seg] = sel;
	s->seg_attr[seg] = attr;
	s->seg_base[seg] = base;
	s->seg_limit[seg] = limit;
}

static void make_base_state(struct guest *g)
{
	struct cpu_state *s = &g->base;

	*s = g->v->s;
	s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
	s->cr3 = PML4;
	s->cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT;
	if (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE) /* as this kernel has it */
		s->cr4 |= CR4_FSGSBASE;
	s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	if (g->model.features[FEATURE_XSAVE]) {
		s->cr4 |= CR4_OSXSAVE;
		s->xcr0 = XCR0_X87 | XCR0_SSE | (g->model.features[FEATURE_AVX] ? XCR0_AVX : 0);
	}
	s->gdtr_base = SYSTEM + GDT;
	s->gdtr_limit = GDT_LIMIT;
	s->idtr_base = SYSTEM + IDT;
	s->idtr_limit = 0xfff;
	set_segment(s, LDTR, SEL_LDT, ATTR_P | 2, SYSTEM + LDT, LDT_LIMIT);
	set_segment(s, TR, SEL_TSS, ATTR_P | 11, SYSTEM + TSS, 103);
}

/* ---- life ---- */

static int create_vcpu(struct guest *g, const char *engine, struct error *err)
{
	int ret;

	g->ops = engine_find(engine, &g->engine.options, err);
	if (!g->ops)
		return -EINVAL;
	ret = cpu_model_init(&g->model, "host", true, 1, err);
	if (ret)
		return ret;
	g->counts = g->ops->can & ENGINE_COUNTS;
	g->mem = mem_create(RAM, err);
	g->clock = g->mem ? clock_create(g->counts ? CLOCK_VIRTUAL : CLOCK_HOST, 0, err) : NULL;
	g->v = g->clock ? vcpu_create(g->ops->vcpu_size, 0, &g->model, g->mem, g->clock, &g->trace, &no_machine, g, err)
			: NULL;
	if (!g->v)
		return -ENOMEM;
	return alone_on_engine(&g->engine, g->v, g->peers, g->ops, &g->engine.options, err);
}

struct guest *guest_create(const char *engine, struct error *err)
{
	struct guest *g = calloc(1, sizeof(*g));

	if (!g || create_vcpu(g, engine, err)) {
		free(g);
		return NULL;
	}
	make_page_tables(g);
	make_gdt(g);
	make_idt(g);
	make_base_state(g);
	g->areas.code = mem_map(g->mem, gpa(USER), CODE_SIZE + DATA_SIZE + STACK_SIZE, true);
	g->areas.data = g->areas.code + CODE_SIZE;
	g->areas.stack = g->areas.data + DATA_SIZE;
	return g;
}

const struct cpu_model *guest_model(const struct guest *g) { return &g->model; }
const struct areas *guest_areas(struct guest *g) { return &g->areas; }

void guest_code_changed(struct guest *g)
{
	mem_note_write(g->mem, gpa(USER), CODE_SIZE);
	/* The translator keeps a page's stale blocks until there is no room, and looks through them: nobody else changes code so often. */
	if (++g->changes % CHANGES_KEPT == 0)
		g->ops->invalidate(g->v, gpa(0), RAM);
}

/* ---- state ---- */

/* Two bits a register from one: SDM vol. 1 8.1.7. */
static uint16_t full_tags(const struct user_state *u)
{
	unsigned top = u->fsw >> 11 & 7, tags = 0;

	for (unsigned n = 0; n < 8; n++) {
		unsigned st = (n - top) & 7, exponent = u->st_exponent[st] & 0x7fff, tag;
		uint64_t mantissa = u->st_mantissa[st];

		if (!(u->tags >> n & 1))
			tag = 3;
		else if (!exponent && !mantissa)
			tag = 1;
		else
			tag = !exponent || exponent == 0x7fff || !(mantissa >> 63) ? 2 : 0;
		tags |= tag << (2 * n);
	}
	return (uint16_t)tags;
}

static void put_state(const struct guest *g, struct cpu_state *s, const struct user_state *u)
{
	uint64_t icount = g->v->s.icount;

	*s = g->base;
	s->icount = icount;
	memcpy(s->gpr, u->gpr, sizeof(s->gpr));
	s->rip = u->rip;
	s->rflags = u->rflags;
	for (enum seg seg = ES; seg <= GS; seg++) {
		struct segment d = segment_of(u->sel[seg]);

		set_segment(s, seg, u->sel[seg], d.attr, d.base, d.limit);
	}
	s->seg_base[FS] = u->fs_base;
	s->seg_base[GS] = u->gs_base;
	memcpy(s->vec, u->vec, sizeof(s->vec));
	s->mxcsr = u->mxcsr;
	memcpy(s->st_mantissa, u->st_mantissa, sizeof(s->st_mantissa));
	memcpy(s->st_exponent, u->st_exponent, sizeof(s->st_exponent));
	s->fcw = u->fcw;
	s->fsw = u->fsw;
	s->ftw = full_tags(u);
	s->fop = u->fop;
	s->fip = u->fip;
	s->fdp = u->fdp;
	s->fcs = u->fcs;
	s->fds = u->fds;
}

static void get_state(const struct cpu_state *s, struct user_state *u)
{
	memset(u, 0, sizeof(*u));
	memcpy(u->gpr, s->gpr, sizeof(u->gpr));
	u->rip = s->rip;
	u->rflags = s->rflags;
	u->fs_base = s->seg_base[FS];
	u->gs_base = s->seg_base[GS];
	memcpy(u->sel, s->seg_sel, sizeof(u->sel));
	memcpy(u->vec, s->vec, sizeof(u->vec));
	u->mxcsr = s->mxcsr;
	memcpy(u->st_mantissa, s->st_mantissa, sizeof(u->st_mantissa));
	memcpy(u->st_exponent, s->st_exponent, sizeof(u->st_exponent));
	u->fcw = s->fcw;
	u->fsw = s->fsw;
	for (unsigned n = 0; n < 8; n++)
		u->tags |= (uint8_t)((s->ftw >> (2 * n) & 3) != 3) << n;
	u->fop = s->fop;
	u->fip = s->fip;
	u->fdp = s->fdp;
	u->fcs = s->fcs;
	u->fds = s->fds;
}

/* The engine is at the handler of an exception: what the instruction had is in the frame. */
static void read_frame(struct guest *g, const struct cpu_state *s, struct outcome *o)
{
	bool has_error;
	uint64_t frame[6] = { 0 };

	o->vector = (int)((s->rip - (SYSTEM + HANDLERS)) / HANDLER_SIZE);
	has_error = o->vector == EXC_DF || (o->vector >= EXC_TS && o->vector <= EXC_PF) || o->vector == EXC_AC;
	mem_read(g->mem, gpa(s->gpr[RSP] - SYSTEM), has_error ? frame : frame + 1, has_error ? 48 : 40);
	o->error = (uint32_t)frame[0];
	o->cr2 = o->vector == EXC_PF ? s->cr2 : 0;
	o->s.rip = frame[1];
	o->s.sel[CS] = (uint16_t)frame[2];
	o->s.rflags = frame[3];
	o->s.gpr[RSP] = frame[4];
	o->s.sel[SS] = (uint16_t)frame[5];
}

/* ---- running ---- */

static int run_once(struct guest *g, const struct user_state *in, enum run_mode mode, struct outcome *o,
		    struct error *err)
{
	struct cpu_state s;
	struct exit exit;
	enum exit_kind kind;

	put_state(g, &s, in);
	if (mode == RUN_TRAP)
		s.rflags |= FLAG_TF;
	g->ops->push(g->v, &s);
	g->v->budget = mode == RUN_BLOCK ? 1000000 : mode == RUN_TRAP ? 2 : 1;
	kind = g->ops->run(g->v, &exit);
	if (kind == EXIT_ERROR)
		return error_set(err, EIO, "%s", exit.error.text);
	if (kind != EXIT_BUDGET && kind != EXIT_HALT)
		return error_set(err, EIO, "engine %s ended with exit %d", g->ops->name, kind);
	g->ops->pull(g->v, &s);
	memset(o, 0, sizeof(*o));
	get_state(&s, &o->s);
	o->vector = -1;
	if (s.seg_sel[CS] == SEL_KERNEL_CODE)
		read_frame(g, &s, o);
	return 0;
}

int guest_run(struct guest *g, const struct user_state *in, unsigned len, enum run_mode mode, struct outcome *o,
	      struct error *err)
{
	struct user_state again = *in;
	bool trap_wanted = in->rflags & FLAG_TF;
	int ret = 0;

	for (unsigned n = 0; n < RUNS_MAX; n++) {
		ret = run_once(g, &again, mode, o, err);
		if (ret)
			return ret;
		if (mode == RUN_TRAP && o->vector == EXC_DB && !trap_wanted)
			o->vector = -1;
		/* The next one, or a repeated string instruction that has more to do. */
		if (o->vector != -1 || o->s.rip - in->rip >= len)
			break;
		again = o->s;
	}
	if (o->vector == -1)
		o->s.rflags &= ~FLAG_RF;
	outcome_settle(o, &g->areas, in->rip);
	return 0;
}

bool guest_report_translation(const struct guest *g)
{
	const struct bt_cpu *bt = bt_of(g->v);
	uint64_t callouts = 0;

	if (g->ops != &bt_engine)
		return true;
	/* All cases end in HLT. */
	for (unsigned op = 0; op < OP_COUNT; op++)
		callouts += op == OP_HLT ? 0 : bt->stats.callouts[op];
	printf("# translated code was entered %llu times; %llu instructions were translated, %llu run by C besides "
	       "HLT\n",
	       (unsigned long long)bt->stats.enters, (unsigned long long)bt->stats.guest_insns,
	       (unsigned long long)callouts);
	return bt->stats.enters > callouts;
}
