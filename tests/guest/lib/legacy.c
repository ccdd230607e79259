/*
 * Tables of legacy mode, and what runs there: see legacy.h.
 */
#include "legacy.h"
#include "private.h"

void legacy_switch(void);
extern const u8 legacy_stubs[LEGACY_VECTORS][16], real_page[], real_page_end[], real_start_state[], real_stubs[];

#define ATTR_TSS32    0x89
#define GATE_32_RING0 0x8e
#define DPL_3	      0x60

u64 legacy_gdt[LEGACY_GDT_ENTRIES] __attribute__((aligned(16)));
static u64 idt[LEGACY_VECTORS] __attribute__((aligned(16)));
static u8 stack[STACK_SIZE] __attribute__((aligned(16))), ring0_stack[STACK_SIZE] __attribute__((aligned(16)));
struct legacy_system legacy_system;
struct legacy_state legacy_start;
struct legacy_trap legacy_trapped;
static bool initialised;

struct table_register {
	u16 limit;
	u64 base;
} __attribute__((packed)) legacy_gdtr, legacy_idtr;

u32 legacy_stack(void) { return LOW32(stack + STACK_SIZE - 64); }
u32 legacy_ring0_stack(void) { return LOW32(ring0_stack + STACK_SIZE - 64); }

static void initialise(void)
{
	static const struct {
		u16 selector;
		u32 base, attributes;
	} segments_16[] = {
		{ LEGACY_CS16, LOW_CODE, ATTR_CODE16 },
		{ LEGACY_DS16, LOW_DATA, ATTR_DATA16 },
		{ LEGACY_SS16, LOW_STACK, ATTR_DATA16 },
		{ LEGACY_USER_CS16, LOW_CODE, ATTR_CODE16 | ATTR_DPL3 },
		{ LEGACY_USER_DS16, LOW_DATA, ATTR_DATA16 | ATTR_DPL3 },
		{ LEGACY_USER_SS16, LOW_STACK, ATTR_DATA16 | ATTR_DPL3 },
		{ LEGACY_REAL_CS, REAL_PAGE, ATTR_CODE16 },
		{ LEGACY_REAL_DS, 0, ATTR_DATA16 },
	};

	if (initialised)
		return;
	initialised = true;
	memcpy(legacy_gdt, gdt_entry(0), LEGACY_TSS);
	for (unsigned n = 0; n < ARRAY_SIZE(segments_16); n++)
		legacy_gdt[segments_16[n].selector / 8] =
			descriptor(segments_16[n].base, 0xffff, segments_16[n].attributes);
	for (unsigned n = 0; n < LEGACY_VECTORS; n++)
		legacy_reset_gate((u8)n);
	legacy_gdtr = (struct table_register){ sizeof(legacy_gdt) - 1, (u64)legacy_gdt };
	legacy_idtr = (struct table_register){ sizeof(idt) - 1, (u64)idt };
	legacy_reset_tss();
}

u64 *legacy_descriptor(u16 selector)
{
	initialise();
	return &legacy_gdt[selector / 8];
}

u64 *legacy_gate(u8 vector)
{
	initialise();
	return &idt[vector];
}

u64 legacy_gate_to(u16 selector, u32 offset, u8 access, u8 parameters)
{
	return (offset & 0xffff) | (u64)selector << 16 | (u64)parameters << 32 | (u64)access << 40 |
	       (u64)(offset >> 16) << 48;
}

void legacy_reset_gate(u8 vector)
{
	idt[vector] = legacy_gate_to(KERNEL_CS32, LOW32(legacy_stubs[vector]),
				     GATE_32_RING0 | (vector == END_VECTOR ? DPL_3 : 0), 0);
}

void legacy_idt_limit(u16 limit)
{
	initialise();
	legacy_idtr.limit = limit;
}

void legacy_reset_tss(void)
{
	memset(&legacy_system, 0xff, sizeof(legacy_system));
	legacy_tss = (struct tss_32){ .stack = { { legacy_ring0_stack(), KERNEL_DS } }, .io_map = sizeof(legacy_tss) };
	*legacy_descriptor(LEGACY_TSS) = descriptor(LOW32(&legacy_tss), sizeof(legacy_tss) - 1, ATTR_TSS32);
}

u32 place_low(const u8 *from, const u8 *end)
{
	memcpy((void *)LOW_CODE, from, (size_t)(end - from));
	return 0;
}

static void prepare_real(const struct legacy_state *state)
{
	u32 *vectors = NULL;

	memcpy((void *)REAL_PAGE, real_page, (size_t)(real_page_end - real_page));
	memcpy((u8 *)REAL_PAGE + (real_start_state - real_page), state, sizeof(*state));
	asm("" : "+r"(vectors)); /* address 0 */
	for (unsigned n = 0; n < LEGACY_VECTORS; n++)
		vectors[n] = (u32)(REAL_PAGE << 12) + (u32)(real_stubs - real_page) + 8 * n;
}

struct legacy_trap legacy_run(const struct legacy_state *state)
{
	static u32 *const segments[] = { &legacy_trapped.cs, &legacy_trapped.ss, &legacy_trapped.ds,
					 &legacy_trapped.es, &legacy_trapped.fs, &legacy_trapped.gs };

	initialise();
	legacy_start = *state;
	memset(&legacy_trapped, 0, sizeof(legacy_trapped));
	*legacy_descriptor((u16)state->tr) &= ~BIT(41); /* not busy */
	if (state->real) {
		prepare_real(state);
	} else if (state->eflags & FLAG_VM) {
		legacy_start.vm_es = state->es;
		legacy_start.vm_ds = state->ds;
		legacy_start.vm_fs = state->fs;
		legacy_start.vm_gs = state->gs;
		legacy_start.es = legacy_start.ds = legacy_start.fs = legacy_start.gs = 0;
	}
	legacy_switch();
	*gdt_entry(GDT_TSS) &= ~BIT(41);
	asm volatile("ltr %w0" ::"r"(GDT_TSS));
	asm volatile("lldt %w0" ::"r"(0));
	/* Some processors leave the upper halves of pushed selectors alone. */
	for (unsigned n = 0; n < ARRAY_SIZE(segments); n++)
		*segments[n] &= 0xffff;
	return legacy_trapped;
}

/* ---- checks ---- */

static void print_trap_32(const struct legacy_trap *t)
{
	print("#   got vector %u error 0x%x cs:eip 0x%x:0x%x eflags 0x%x ss:esp 0x%x:0x%x cr2 0x%x tr 0x%x\n",
	      t->vector, t->error, t->cs, t->eip, t->eflags, t->ss, t->esp, t->cr2, t->tr);
	print("#   eax 0x%x ecx 0x%x edx 0x%x ebx 0x%x ebp 0x%x esi 0x%x edi 0x%x ds 0x%x es 0x%x fs 0x%x gs 0x%x\n",
	      t->eax, t->ecx, t->edx, t->ebx, t->ebp, t->esi, t->edi, t->ds, t->es, t->fs, t->gs);
}

bool check_fault_32(const struct legacy_trap *t, u32 vector, u32 error, const char *name, ...)
{
	bool good = t->vector == vector && t->error == error;
	va_list list;

	va_start(list, name);
	check_list(good, name, list);
	va_end(list);
	if (!good) {
		print("#   expected vector %u error 0x%x\n", vector, error);
		print_trap_32(t);
	}
	return good;
}

bool check_end_32(const struct legacy_trap *t, const char *name, ...)
{
	bool good = t->vector == END_VECTOR;
	va_list list;

	va_start(list, name);
	check_list(good, name, list);
	va_end(list);
	if (!good) {
		print("#   expected no fault\n");
		print_trap_32(t);
	}
	return good;
}
