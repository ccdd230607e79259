/* Printing a difference: the instructions, the registers before, and after on both sides. */
#include "lockstep.h"

#include <inttypes.h>
#include <stdio.h>

#define INSNS_MAX 64

static void print_code(const struct difference *d)
{
	uint64_t count = d->to - d->from, rip = d->before.rip;
	unsigned at = 0;

	if (!d->code_len)
		printf("  (code that cannot be read at %#" PRIx64 ")\n", rip);
	for (uint64_t n = 0; n < MIN(count, INSNS_MAX) && at < d->code_len; n++) {
		char text[128];
		struct insn i;

		if (!cpu_decode(&d->model, d->mode, d->code + at, d->code_len - at, 0, &i, NULL))
			break;
		cpu_disassemble(d->mode, d->code + at, d->code_len - at, rip + at, text, sizeof(text));
		printf("  %16" PRIx64 ":  %s\n", rip + at, text);
		at += i.len;
	}
}

static void print_row(const char *name, uint64_t before, uint64_t reference, uint64_t tested)
{
	printf("  %-8s %016" PRIx64 "  %016" PRIx64 "  %016" PRIx64 "%s\n", name, before, reference, tested,
	       reference != tested ? "  <<<" : "");
}

static void print_registers(const struct difference *d)
{
	static const char *const names[16] = { "RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
					       "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15" };
	const struct cpu_state *b = &d->before, *r = &d->after[REFERENCE], *t = &d->after[TESTED];

	printf("  %-8s %-16s  %-16s  %s\n", "CPU state", "before", "reference", "tested");
	for (unsigned n = 0; n < 16; n++)
		print_row(names[n], b->gpr[n], r->gpr[n], t->gpr[n]);
	print_row("RIP", b->rip, r->rip, t->rip);
	print_row("RFLAGS", b->rflags, r->rflags, t->rflags);
	print_row("CR0", b->cr0, r->cr0, t->cr0);
	print_row("CR2", b->cr2, r->cr2, t->cr2);
	print_row("CR3", b->cr3, r->cr3, t->cr3);
	print_row("CR4", b->cr4, r->cr4, t->cr4);
	print_row("CS", b->seg_sel[CS], r->seg_sel[CS], t->seg_sel[CS]);
	print_row("SS", b->seg_sel[SS], r->seg_sel[SS], t->seg_sel[SS]);
	print_row("FS base", b->seg_base[FS], r->seg_base[FS], t->seg_base[FS]);
	print_row("GS base", b->seg_base[GS], r->seg_base[GS], t->seg_base[GS]);
}

void report(const struct difference *d)
{
	printf("DIFFERENCE: instruction%s %" PRIu64, d->to - d->from == 1 ? "" : "s", d->from + 1);
	if (d->to - d->from > 1)
		printf(" to %" PRIu64, d->to);
	printf(", CPU %u\n", d->cpu);
	print_code(d);
	printf("Reference, tested:\n%s", d->text);
	print_registers(d);
	fflush(stdout);
}
