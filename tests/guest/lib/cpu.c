/*
 * Descriptor tables, the dispatch of exceptions and interrupts, and run().
 */
#include "guest.h"
#include "private.h"

void leave_run(u64 jump) __attribute__((noreturn));
void run_from(const struct frame *, u64 *jump);
void trap_entry(struct frame *);
extern const u8 stubs[256][16];

u64 gdt[GDT_TSS / 8 + 2 * MAX_CPUS] __attribute__((aligned(16))) = {
	[KERNEL_CS32 / 8] = 0x00cf9b000000ffff, [KERNEL_CS / 8] = 0x00af9b000000ffff,
	[KERNEL_DS / 8] = 0x00cf93000000ffff,	[USER_CS32 / 8] = 0x00cffb000000ffff,
	[USER_DS / 8] = 0x00cff3000000ffff,	[USER_CS / 8] = 0x00affb000000ffff,
	[USER_DS2 / 8] = 0x00cff3000000ffff,	[KERNEL_CS16 / 8] = 0x00009b000000ffff,
	[KERNEL_DS16 / 8] = 0x000093000000ffff, [USER_CS16 / 8] = 0x008ffb000000ffff,
};
static struct gate idt[256] __attribute__((aligned(4096))); /* a page of its own */
u64 idt_base;
static handler_fn *handlers[256];

/* What belongs to one processor. */
static struct cpu {
	struct tss tss;
	u64 jump; /* of the innermost run(); 0: none */
	struct trap trap;
	u8 kernel_stack[STACK_SIZE] __attribute__((aligned(16)));
	u8 user_stack[STACK_SIZE] __attribute__((aligned(16)));
	u8 ring0_stack[STACK_SIZE] __attribute__((aligned(16)));
	u8 ist_stacks[7][0x1000] __attribute__((aligned(16)));
} cpus[MAX_CPUS] __attribute__((aligned(64)));

/* By the task register, which no test changes: needs no memory, no GS and no APIC. */
unsigned this_cpu(void)
{
	u16 selector;

	asm volatile("str %0" : "=r"(selector));
	return (selector - GDT_TSS) / 16u;
}

static struct cpu *self(void) { return &cpus[this_cpu()]; }
struct tss *tss(void) { return &self()->tss; }
u64 kernel_stack(void) { return (u64)self()->kernel_stack + STACK_SIZE; }
u64 user_stack(void) { return USER(self()->user_stack + STACK_SIZE); }
u64 *gdt_entry(u16 selector) { return &gdt[selector / 8]; }
struct gate *idt_gate(u8 vector) { return &idt[vector]; }
void set_handler(u8 vector, handler_fn *fn) { handlers[vector] = fn; }

void set_gate(u8 vector, u64 offset, u16 selector, unsigned type, unsigned dpl, unsigned ist)
{
	idt[vector].low = (offset & 0xffff) | (u64)selector << 16 | (u64)ist << 32 | (u64)type << 40 | (u64)dpl << 45 |
			  BIT(47) | (offset >> 16 & 0xffff) << 48;
	idt[vector].high = offset >> 32;
}

void reset_gate(u8 vector)
{
	set_gate(vector, (u64)stubs[vector], KERNEL_CS, GATE_INTERRUPT, vector == END_VECTOR ? 3 : 0, vector == EXC_DF);
}

void load_idt(u64 base, u16 limit)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) pointer = { limit, base };

	asm volatile("lidt %0" ::"m"(pointer) : "memory");
}

void idt_init(void)
{
	for (unsigned n = 0; n < 256; n++)
		reset_gate((u8)n);
	idt_base = (u64)idt;
}

void cpu_init(unsigned number)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) pointer = { sizeof(gdt) - 1, (u64)gdt };
	struct cpu *c = &cpus[number];
	u64 base = (u64)&c->tss;

	gdt[GDT_TSS / 8 + 2 * number] = descriptor((u32)base, sizeof(c->tss) - 1, 0x89);
	gdt[GDT_TSS / 8 + 2 * number + 1] = base >> 32;
	c->tss.rsp[0] = (u64)c->ring0_stack + STACK_SIZE;
	for (unsigned n = 0; n < 7; n++)
		c->tss.ist[n] = (u64)c->ist_stacks[n] + sizeof(c->ist_stacks[n]);
	c->tss.io_map = sizeof(c->tss);
	asm volatile("lgdt %0" ::"m"(pointer) : "memory");
	asm volatile("ltr %w0" ::"r"(GDT_TSS + 16 * number));
	asm volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%ss; mov %0, %%fs; mov %0, %%gs" ::"r"(KERNEL_DS));
	load_idt((u64)idt, sizeof(idt) - 1);
	write_cr0(CR0_PG | CR0_WP | CR0_NE | CR0_MP | CR0_PE);
	write_msr(MSR_EFER, (read_msr(MSR_EFER) & ~EFER_SCE) | (has_nx() ? EFER_NXE : 0));
}

void trap_entry(struct frame *f)
{
	struct cpu *c = self();

	if (handlers[f->vector]) {
		handlers[f->vector](f);
		return;
	}
	if (!c->jump)
		die("cpu %u: vector %lu error 0x%lx at 0x%lx:0x%lx, cr2 0x%lx, stack 0x%lx:0x%lx, rflags 0x%lx",
		    this_cpu(), f->vector, f->error, f->cs, f->rip, read_cr2(), f->ss, f->rsp, f->rflags);
	memcpy(&c->trap, f, sizeof(*f));
	c->trap.cr2 = read_cr2();
	c->trap.dr6 = read_dr6();
	leave_run(c->jump);
}

struct trap run(const struct frame *start)
{
	struct cpu *c = self();
	u64 outer = c->jump;

	run_from(start, &c->jump);
	c->jump = outer;
	return c->trap;
}

/* ---- features ---- */

static bool feature(u32 leaf, unsigned reg, unsigned bit)
{
	struct cpuid r;

	if (leaf > cpuid(leaf & 0x80000000, 0).a)
		return false;
	r = cpuid(leaf, 0);
	return (reg == 'b' ? r.b : reg == 'c' ? r.c : r.d) >> bit & 1;
}

bool has_nx(void) { return feature(0x80000001, 'd', 20); }
bool has_1g_pages(void) { return feature(0x80000001, 'd', 26); }
bool has_pge(void) { return feature(1, 'd', 13); }
bool has_pcid(void) { return feature(1, 'c', 17); }
bool has_invpcid(void) { return feature(7, 'b', 10); }
bool has_smep(void) { return feature(7, 'b', 7); }
bool has_smap(void) { return feature(7, 'b', 20); }
bool has_x2apic(void) { return feature(1, 'c', 21); }
bool has_tsc_deadline(void) { return feature(1, 'c', 24); }
bool has_cx16(void) { return feature(1, 'c', 13); }
bool has_umip(void) { return feature(7, 'c', 2); }
bool has_fsgsbase(void) { return feature(7, 'b', 0); }
bool has_bmi2(void) { return feature(7, 'b', 8); }
bool has_movbe(void) { return feature(1, 'c', 22); }
bool has_monitor(void) { return feature(1, 'c', 3); }
bool vendor_is_amd(void) /* "Auth", and "Hygo", who makes them under licence */
{
	u32 name = cpuid(0, 0).b;

	return name == 0x68747541 || name == 0x6f677948;
}
