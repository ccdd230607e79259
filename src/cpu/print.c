/*
 * A processor's state as text for a person: what a triple fault leaves behind, what a debugger or monitor shows.
 */
#include "cpu/private.h"

static const char *mode_name(const struct vcpu *v)
{
	if (!(v->s.cr0 & CR0_PE))
		return "real mode";
	if (v->s.rflags & FLAG_VM)
		return "virtual-8086 mode";
	if (!in_long_mode(v))
		return v->code_mode == MODE_32 ? "32-bit protected mode" : "16-bit protected mode";
	return v->code_mode == MODE_64 ? "64-bit mode" : "compatibility mode";
}

static const char *activity_name(unsigned activity)
{
	static const char *const names[] = { "running", "halted", "waiting for SIPI", "shut down" };

	return activity < ARRAY_SIZE(names) ? names[activity] : "?";
}

static void print_general(const struct vcpu *v, FILE *out)
{
	static const char *const names[] = { "RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
					     "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15" };

	for (unsigned n = 0; n < 16; n++)
		fprintf(out, "%-3s %016lx%s", names[n], v->s.gpr[n], n % 4 == 3 ? "\n" : "  ");
}

static void print_flags(const struct vcpu *v, FILE *out)
{
	static const struct {
		uint64_t bit;
		const char *name;
	} flags[] = {
		{ FLAG_CF, "CF" }, { FLAG_PF, "PF" },	{ FLAG_AF, "AF" },   { FLAG_ZF, "ZF" },
		{ FLAG_SF, "SF" }, { FLAG_TF, "TF" },	{ FLAG_IF, "IF" },   { FLAG_DF, "DF" },
		{ FLAG_OF, "OF" }, { FLAG_NT, "NT" },	{ FLAG_RF, "RF" },   { FLAG_VM, "VM" },
		{ FLAG_AC, "AC" }, { FLAG_VIF, "VIF" }, { FLAG_VIP, "VIP" }, { FLAG_ID, "ID" },
	};
	uint64_t rflags = cpu_rflags(v);

	fprintf(out, "RIP %016lx  RFLAGS %08lx [", v->s.rip, rflags);
	for (unsigned n = 0; n < ARRAY_SIZE(flags); n++)
		if (rflags & flags[n].bit)
			fprintf(out, " %s", flags[n].name);
	fprintf(out, " IOPL=%u ]\n", (unsigned)bits(rflags, 13, 12));
}

static void print_segments(const struct vcpu *v, FILE *out)
{
	static const char *const names[SEG_COUNT] = { "ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR" };

	for (enum seg seg = ES; seg < SEG_COUNT; seg++)
		fprintf(out, "%-4s %04x base %016lx limit %08x attributes %04x\n", names[seg], v->s.seg_sel[seg],
			v->s.seg_base[seg], v->s.seg_limit[seg], v->s.seg_attr[seg]);
	fprintf(out, "GDTR      base %016lx limit %04x\n", v->s.gdtr_base, v->s.gdtr_limit);
	fprintf(out, "IDTR      base %016lx limit %04x\n", v->s.idtr_base, v->s.idtr_limit);
}

/* The code that RIP points to, as far as it can be read without asking devices. */
static void print_code(struct vcpu *v, FILE *out)
{
	uint64_t lin = v->s.rip + (v->code_mode == MODE_64 ? 0 : v->s.seg_base[CS]);
	uint8_t code[16];
	unsigned count = 0;
	char text[128];

	for (; count < sizeof(code); count++) {
		gpa_t address;

		if (cpu_translate_debug(v, gva(lin + count), &address) || mem_read(v->mem, address, &code[count], 1))
			break;
	}
	if (!count) {
		fprintf(out, "Code at RIP: not readable\n");
		return;
	}
	fprintf(out, "Code at RIP:");
	for (unsigned n = 0; n < count; n++)
		fprintf(out, " %02x", code[n]);
	cpu_disassemble((enum code_mode)v->code_mode, code, count, v->s.rip, text, sizeof(text));
	fprintf(out, "  %s\n", text);
}

void cpu_print(struct vcpu *v, FILE *out)
{
	fprintf(out, "CPU %u: %s, CPL %u, %s, %lu instructions\n", v->index, mode_name(v), v->cpl,
		activity_name(v->s.activity), v->s.icount);
	print_general(v, out);
	print_flags(v, out);
	print_segments(v, out);
	fprintf(out, "CR0 %08lx  CR2 %016lx  CR3 %016lx  CR4 %08lx  EFER %04lx\n", v->s.cr0, v->s.cr2, v->s.cr3,
		v->s.cr4, v->s.efer);
	fprintf(out, "DR0 %016lx  DR1 %016lx  DR2 %016lx  DR3 %016lx\nDR6 %08lx  DR7 %08lx\n", v->s.dr[0], v->s.dr[1],
		v->s.dr[2], v->s.dr[3], v->s.dr[6], v->s.dr[7]);
	print_code(v, out);
}
