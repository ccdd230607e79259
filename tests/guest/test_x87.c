/*
 * x87, MMX and MXCSR as the machine sees them: exceptions that wait for the next instruction, #MF and IRQ 13, the pointers to
 * the last instruction and its operand, the images of FSTENV, FSAVE, FXSAVE and XSAVE, #XM. SDM vol. 1 chapters 8 to 13.
 */
#include "legacy.h"

#define CR4_OSFXSR     BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_OSXSAVE    BIT(18)
#define EXC_XM	       19
#define IRQ_13	       0x2d /* its vector: see pic_init() */
#define PAGE_AT_T      0x8000000000ull

/* FSW */
#define IE	       0x01
#define DE	       0x02
#define ZE	       0x04
#define OE	       0x08
#define UE	       0x10
#define PE	       0x20
#define SF	       0x40
#define ES	       0x80
#define C1	       0x200
#define B	       0x8000
#define FCW_OF(masked) (0x340 | (masked)) /* all but precision and rounding: these exceptions are masked */

static struct {
	double one, zero, three;
	u64 denormal, huge, tiny, signalling_nan;
	u16 fcw, fsw;
	u32 mxcsr;
	u64 scratch;
} data = { 1.0, 0.0, 3.0, 1, 0x7fefffffffffffff, 0x0010000000000000, 0x7ff0000000000001, 0, 0, 0, 0 };
static u8 image[1024] __attribute__((aligned(64)));

static u16 read_word(const void *p)
{
	u16 value;

	memcpy(&value, p, 2);
	return value;
}
static u32 read_dword(const void *p)
{
	u32 value;

	memcpy(&value, p, 4);
	return value;
}
static u64 read_quad(const void *p)
{
	u64 value;

	memcpy(&value, p, 8);
	return value;
}

/* ---- exceptions ---- */

/*
 * (name, bits of FSW, instructions with RDI at `data`, FCW in CX): the last x87 instruction in the first part raises the
 * exception; SDM vol. 1 8.5.
 */
#define EXCEPTIONS(_)                                                                                                  \
	_(invalid, IE, "fldz; fldz; fdivp")                                                                            \
	_(signalling, IE, "fldl 48(%rdi)")                                                                             \
	_(underflow_of_stack, IE | SF, "fadd %st(1), %st")                                                             \
	_(overflow_of_stack, IE | SF | C1, "fld1;fld1;fld1;fld1;fld1;fld1;fld1;fld1;fld1")                             \
	_(denormal, DE, "fldl 24(%rdi)")                                                                               \
	_(division_by_zero, ZE, "fld1; fldz; fdivrp")                                                                  \
	_(overflow, OE | PE, "fldl 32(%rdi); fstps 60(%rdi)")                                                          \
	_(underflow, UE | PE, "fldl 40(%rdi); fstps 60(%rdi)")                                                         \
	_(precision, PE, "fld1; fdivl 16(%rdi)")
#define SET_UP "fninit; movw %cx, 56(%rdi); fldcw 56(%rdi); "
#define _(name, bits, text)                                                                                            \
	CODE(raise_##name, SET_UP text "\nnop\n" LABEL(wait_##name) "fwait")                                           \
	extern const u8 wait_##name[];
EXCEPTIONS(_)
#undef _

static u16 status(void)
{
	u16 value;

	asm volatile("fnstsw %0" : "=a"(value));
	return value;
}

/* An unmasked overflow or underflow of a store leaves the operand alone, so that there is no result to be inexact. */
static u16 unmasked_bits(u16 bits) { return bits & (OE | UE) ? bits & ~PE : bits & 0xff; }

static void test_exceptions(void)
{
	static const struct {
		const char *name;
		u16 bits;
		const u8 *code, *wait;
	} rows[] = {
#define _(name, bits, text) { #name, bits, raise_##name, wait_##name },
		EXCEPTIONS(_)
#undef _
	};

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		struct trap t = KERNEL(rows[n].code, .rdi = (u64)&data, .rcx = FCW_OF(0x3f));

		check(t.vector == END_VECTOR && (status() & (0xff | B)) == (rows[n].bits & 0xff),
		      "1 8.5: %s, masked: flags and no more", rows[n].name);
		t = KERNEL(rows[n].code, .rdi = (u64)&data, .rcx = FCW_OF(0x3f & ~(rows[n].bits & 0x3f)));
		if (!check(t.vector == EXC_MF && t.rip == (u64)rows[n].wait && !t.error &&
				   (status() & (0xff | B)) == (unmasked_bits(rows[n].bits) | ES | B),
			   "3A 6.15: %s, unmasked: #MF at the next waiting instruction, ES and B", rows[n].name))
			print("# vector %lu at 0x%lx, status 0x%x\n", t.vector, t.rip - (u64)rows[n].code, status());
		asm volatile("fnclex");
	}
}

#define PENDING SET_UP "fld1; fldz; fdivrp; "
#define WAITING(_)                                                                                                     \
	_(fwait, "fwait")                                                                                              \
	_(fld1, "fld1")                                                                                                \
	_(fnop, "fnop")                                                                                                \
	_(fldcw, "fldcw 56(%rdi)")                                                                                     \
	_(frstor, "frstor (%rsi)")                                                                                     \
	_(fldenv, "fldenv (%rsi)")                                                                                     \
	_(emms, "emms")                                                                                                \
	_(mmx, "movq %mm0, %mm1")                                                                                      \
	_(fcmov, "fcmovb %st(1), %st")                                                                                 \
	_(cvtpi2ps, "cvtpi2ps %mm0, %xmm0")                                                                            \
	_(maskmovq, "maskmovq %mm0, %mm1")
#define NOT_WAITING(_)                                                                                                 \
	_(fnclex, "fnclex")                                                                                            \
	_(fninit, "fninit")                                                                                            \
	_(fnstsw, "fnstsw %ax")                                                                                        \
	_(fnstsw_m, "fnstsw 58(%rdi)")                                                                                 \
	_(fnstcw, "fnstcw 58(%rdi)")                                                                                   \
	_(fnstenv, "fnstenv (%rsi)")                                                                                   \
	_(fnsave, "fnsave (%rsi)")                                                                                     \
	_(fxsave, "fxsave (%rsi)")                                                                                     \
	_(feni, ".byte 0xdb, 0xe0")                                                                                    \
	_(fsetpm, ".byte 0xdb, 0xe4")                                                                                  \
	_(sse, "movups (%rsi), %xmm0")
#define _(name, text)                                                                                                  \
	CODE(after_##name, PENDING LABEL(after_##name##_at) text)                                                      \
	extern const u8 after_##name##_at[];
WAITING(_)
NOT_WAITING(_)
#undef _

static void test_waiting(void)
{
	static const struct {
		const char *name;
		const u8 *code, *at;
		bool waits;
	} rows[] = {
#define _(name, text) { #name, after_##name, after_##name##_at, true },
		WAITING(_)
#undef _
#define _(name, text) { #name, after_##name, after_##name##_at, false },
			NOT_WAITING(_)
#undef _
	};

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		struct trap t;

		memset(image, 0, sizeof(image));
		t = KERNEL(rows[n].code, .rdi = (u64)&data, .rsi = (u64)image, .rcx = FCW_OF(0x3f & ~ZE));
		if (rows[n].waits)
			check(t.vector == EXC_MF && t.rip == (u64)rows[n].at, "1 8.6: %s reports what is pending",
			      rows[n].name);
		else
			check_end(&t, "1 8.3.12: %s does not", rows[n].name);
		asm volatile("fninit");
	}
}

CODE(pending_nm, PENDING "mov %cr0, %rax; or $8, %rax; mov %rax, %cr0\n" LABEL(pending_nm_at) "fld1")
CODE(fwait_only, "fwait")
CODE(unmask_later, "fninit; fld1; fldz; fdivrp; movw %cx, 56(%rdi); fldcw 56(%rdi)\n" LABEL(unmask_later_at) "fld1")
CODE(unmask_by_fldenv,
     "fninit; fnstenv (%rsi); movw %cx, (%rsi); fldenv (%rsi); fldz; fldz; fdivp\n" LABEL(unmasked_emms) "emms")
extern const u8 pending_nm_at[], unmask_later_at[], unmasked_emms[];

static void test_availability(void)
{
	u64 cr0 = read_cr0();
	struct trap t;

	t = KERNEL(pending_nm, .rdi = (u64)&data, .rcx = FCW_OF(0));
	check(t.vector == EXC_NM && t.rip == (u64)pending_nm_at, "3A table 6-2: #NM before #MF");
	write_cr0(cr0 | CR0_TS);
	t = KERNEL(fwait_only);
	check_fault(&t, EXC_NM, 0, "3A 2.5: FWAIT with MP and TS: #NM");
	write_cr0((cr0 | CR0_TS) & ~CR0_MP);
	t = KERNEL(fwait_only);
	check(t.vector != EXC_NM, "3A 2.5: FWAIT with TS alone: none");
	write_cr0(cr0 | CR0_EM);
	asm volatile("clts");
	write_cr0(cr0);
	asm volatile("fninit");
	t = KERNEL(unmask_later, .rdi = (u64)&data, .rcx = FCW_OF(0));
	check(t.vector == EXC_MF && t.rip == (u64)unmask_later_at, "1 8.1.4: an exception that is unmasked later");
	t = KERNEL(unmask_by_fldenv, .rsi = (u64)image, .rcx = FCW_OF(0));
	check(t.vector == EXC_MF && t.rip == (u64)unmasked_emms, "2 EMMS: reports what FLDENV unmasked");
	asm volatile("fninit");
}

/* ---- IRQ 13 ---- */

static unsigned irqs;
static u64 irq_rip;
static void (*irq_handler)(void);

static void on_irq_13(struct frame *f)
{
	irqs++;
	irq_rip = f->rip;
	if (irq_handler)
		irq_handler();
	else
		die("IRQ 13 again and again");
	out8(0xa0, 0x20);
	out8(0x20, 0x20);
}

static void clear_exceptions(void)
{
	asm volatile("fnclex");
	out8(0xf0, 0);
	irq_handler = NULL;
}

/* As D.2.2 recommends: IGNNE# until the exception is cleared. */
static u16 seen_status;
static void ignore_errors(void)
{
	out8(0xf0, 0);
	asm volatile("fld1; fstp %%st(0); fwait; fnstsw %0; fnclex" : "=a"(seen_status));
	irq_handler = NULL;
}

static void ignore_for_good(void)
{
	out8(0xf0, 0);
	irq_handler = NULL;
}

CODE(error_13, PENDING "mov $1, %eax\n" LABEL(error_13_at) "fld1; mov $2, %eax")
CODE(error_13_mmx, PENDING LABEL(error_13_mmx_at) "movq %mm0, %mm1; mov $2, %eax")
CODE(error_13_emms, PENDING LABEL(error_13_emms_at) "emms; add $64, %rdi; maskmovq %mm0, %mm0; mov $2, %eax")
extern const u8 error_13_at[], error_13_mmx_at[], error_13_emms_at[];

static struct trap run_13(const u8 *code, void (*handler)(void))
{
	irqs = 0;
	irq_handler = handler;
	return KERNEL(code, .rdi = (u64)&data, .rcx = FCW_OF(0x3f & ~ZE), .rflags = 2 | FLAG_IF);
}

static void test_irq_13(void)
{
	u64 cr0 = read_cr0();
	struct trap t;

	pic_init();
	pic_mask(0xffff & ~(BIT(13) | BIT(2)));
	apic_write(APIC_LVT_LINT0, 7 << 8); /* ExtINT */
	set_handler(IRQ_13, on_irq_13);
	write_cr0(cr0 & ~CR0_NE);

	t = run_13(error_13, clear_exceptions);
	check(t.vector == END_VECTOR && irqs == 1 && t.rax == 2, "1 8.7.1: CR0.NE = 0: IRQ 13 instead of #MF");
	check(irq_rip == (u64)error_13_at, "1 D.2.1: taken before the next waiting instruction, which then runs");
	t = run_13(error_13, ignore_errors);
	check(t.vector == END_VECTOR && irqs == 1 && t.rax == 2,
	      "1 D.2.2: after a write to port 0xf0 waiting instructions run (IGNNE#)");
	check((seen_status & (ZE | ES)) == (ZE | ES), "1 D.2.2: with the exception still there");
	t = run_13(error_13, ignore_for_good);
	check(t.vector == END_VECTOR && irqs == 1 && t.rax == 2 && (status() & (ZE | ES)) == (ZE | ES),
	      "1 D.2.2: until it is cleared");
	asm volatile("fnclex");
	t = run_13(error_13, clear_exceptions);
	check(t.vector == END_VECTOR && irqs == 1, "1 D.2.2: then IGNNE# is released: the next one interrupts again");
	t = run_13(error_13_mmx, clear_exceptions);
	check(irqs == 1 && irq_rip == (u64)error_13_mmx_at && t.rax == 2, "1 D.2.1: MMX waits as well");
	t = run_13(error_13_emms, ignore_for_good);
	check(irqs == 1 && irq_rip == (u64)error_13_emms_at && t.rax == 2,
	      "1 D.2.2: IGNNE# lets EMMS and MASKMOVQ go on");
	asm volatile("fninit");
	t = run_13(error_13, clear_exceptions);
	check(t.vector == END_VECTOR && irqs == 1, "1 D.2.1: FNINIT releases FERR#, too");

	write_cr0(cr0);
	asm volatile("fninit");
	t = run_13(error_13, clear_exceptions);
	check(t.vector == EXC_MF && !irqs, "1 8.7: CR0.NE = 1: #MF and no IRQ 13");
	asm volatile("fninit");
	set_handler(IRQ_13, NULL);
	pic_mask(0xffff);
	apic_write(APIC_LVT_LINT0, LVT_MASKED);
}

/* ---- pointers ---- */

CODE(pointer_memory, "fninit; nop\n" LABEL(pointer_memory_at) "fldl 8(%rdi); fnstcw 58(%rdi); fnclex; fldcw 58(%rdi); "
							      "fnstsw %ax; fnstenv (%rsi)")
CODE(pointer_register, "fninit; fldl (%rdi)\n" LABEL(pointer_register_at) "fld %st(0); fnstenv (%rsi)")
CODE(pointer_init, "fninit; fldl (%rdi); fninit; fnstenv (%rsi)")
CODE(pointer_word, "fninit; fldl (%rdi)\n.byte 0x66\nfnstenv (%rsi)")
CODE32(pointer_32, "fninit; mov %ss, %eax; mov %eax, %ds; mov %eax, %es; nop\n" LABEL(
			   pointer_32_at) "fldl %es:8(%edi); fnsave (%esi)")
extern const u8 pointer_memory_at[], pointer_register_at[], pointer_32_at[];

/* FSTENV's image of 28 bytes. */
static u32 env_dword(unsigned n) { return read_dword(image + 4 * n); }

static void test_pointers(void)
{
	u64 at = (u64)&data;
	struct trap t;

	KERNEL(pointer_memory, .rdi = at, .rsi = (u64)image);
	check_equal(env_dword(3), (u32)(u64)pointer_memory_at,
		    "1 8.1.8: the instruction pointer, kept by control instructions");
	check_equal(env_dword(5), (u32)at + 8, "1 8.1.8: the operand's address");
	check_equal(env_dword(4) >> 16, 0x547, "1 8.1.9: the opcode, without its first five bits");
	check(env_dword(0) == 0xffff037f && env_dword(2) == 0xffff7fff,
	      "1 8.1.10: control and tag words, upper halves set");
	KERNEL(pointer_register, .rdi = at, .rsi = (u64)image);
	check(env_dword(3) == (u32)(u64)pointer_register_at && env_dword(5) == (u32)at && env_dword(4) >> 16 == 0x1c0,
	      "1 8.1.8: an instruction without a memory operand leaves the data pointer");
	KERNEL(pointer_init, .rdi = at, .rsi = (u64)image);
	check(env_dword(3) == 0 && env_dword(5) == 0 && env_dword(4) >> 16 == 0, "2 FINIT: clears the pointers");
	memset(image, 0xee, sizeof(image));
	KERNEL(pointer_word, .rdi = at, .rsi = (u64)image);
	check(read_word(image) == 0x37f && read_word(image + 4) == 0x3fff &&
		      read_word(image + 6) == (u16)(u64)(pointer_word + 2) && read_word(image + 10) == (u16)at &&
		      image[14] == 0xee,
	      "1 8.1.10: 14 bytes with an operand-size prefix");
	t = USER_MODE(pointer_32, .rip = USER(pointer_32), .cs = USER_CS32, .rdi = USER(&data), .rsi = USER(image));
	check(t.vector == END_VECTOR && env_dword(3) == (u32)USER(pointer_32_at) &&
		      env_dword(5) == (u32)USER(&data) + 8,
	      "1 8.1.10: compatibility mode: the offsets");
	check((u16)env_dword(4) == USER_CS32 && env_dword(6) == (0xffff0000 | USER_DS), "1 8.1.10: and the selectors");
	check(read_quad(image + 28) == 0 && read_word(image + 36) == 0, "2 FSAVE: ST(0) behind it");
}

/* ---- the layouts of older modes, SDM vol. 1 figures 8-9 to 8-12 ---- */

#define OPERAND 0x210 /* in low segments */
#define IMAGE	0x300

CODE_LOW(layout_16, "fninit; nop; nop; fld1; fldl (%di); fnstenv (%si)")
CODE_LOW(layout_32, "fninit; nop; nop; fld1; fldl (%di)\n.byte 0x66\nfnstenv (%si)")
CODE_LOW(move_16, "fninit; fldl (%di); fnsave (%si); frstor (%si); fnstenv (%bx)")
#define FLDL_AT	 6 /* of the first two */
#define FLDL_OP	 0x505
#define WORD(n)	 read_word((u8 *)low_data(IMAGE) + 2 * (n))
#define DWORD(n) read_dword((u8 *)low_data(IMAGE) + 4 * (n))

static struct legacy_trap run_layout(u32 at, struct legacy_state s)
{
	memset(low_data(OPERAND), 0, 8);
	memset(low_data(IMAGE), 0xee, 256);
	s.eip = at;
	s.edi = OPERAND;
	s.esi = IMAGE;
	s.ebx = IMAGE + 128;
	return legacy_run(&s);
}

static void test_real_layouts(const char *mode, struct legacy_state s)
{
	u32 fip = LOW_CODE + FLDL_AT, fdp = LOW_DATA + OPERAND;
	struct legacy_trap t = run_layout(place_code(layout_16), s);

	check(t.vector == END_VECTOR && WORD(0) == 0x37f && (WORD(1) & 0x3800) == 0x3000 && WORD(2) == 0x1fff,
	      "1 figure 8-12: %s: control, status and tag words", mode);
	check(WORD(3) == (u16)fip && WORD(4) == ((fip >> 16) << 12 | FLDL_OP) && WORD(5) == (u16)fdp &&
		      WORD(6) == (fdp >> 16) << 12 && WORD(7) == 0xeeee,
	      "1 figure 8-12: %s: linear addresses of 20 bits, and the opcode; 14 bytes", mode);
	run_layout(place_code(layout_32), s);
	check(DWORD(0) == 0xffff037f && DWORD(3) == (0xffff0000 | (u16)fip) &&
		      DWORD(4) == ((fip >> 16) << 12 | FLDL_OP) && DWORD(5) == (0xffff0000 | (u16)fdp) &&
		      DWORD(6) == (fdp >> 16) << 12 && DWORD(7) == 0xeeeeeeee,
	      "1 figure 8-10: %s: the same in 28 bytes", mode);
	run_layout(place_code(move_16), s);
	check(!memcmp(low_data(IMAGE + 128), low_data(IMAGE), 14), "2 FRSTOR: %s: what FSAVE stored", mode);
}

static void test_layouts(void)
{
	struct legacy_trap t;

	test_real_layouts("real mode", (struct legacy_state){ LEGACY_REAL });
	test_real_layouts("virtual-8086 mode", (struct legacy_state){ LEGACY_V86, .eflags = 2 | FLAG_VM | FLAG_IOPL });
	t = run_layout(place_code(layout_16), (struct legacy_state){ LEGACY_RING3_16 });
	check(t.vector == END_VECTOR && WORD(3) == FLDL_AT && WORD(4) == LEGACY_USER_CS16 && WORD(5) == OPERAND &&
		      WORD(6) == LEGACY_USER_DS16 && WORD(7) == 0xeeee,
	      "1 figure 8-11: 16-bit protected mode: offsets and selectors");
	run_layout(place_code(layout_32), (struct legacy_state){ LEGACY_RING3_16 });
	check(DWORD(3) == FLDL_AT && DWORD(4) == (LEGACY_USER_CS16 | FLDL_OP << 16) && DWORD(5) == OPERAND &&
		      DWORD(6) == (0xffff0000 | LEGACY_USER_DS16),
	      "1 figure 8-9: 16-bit protected mode, 28 bytes: with the opcode");
	run_layout(place_code(move_16), (struct legacy_state){ LEGACY_RING3_16 });
	check(!memcmp(low_data(IMAGE + 128), low_data(IMAGE), 14),
	      "2 FRSTOR: 16-bit protected mode: what FSAVE stored");
}

/* ---- MMX and x87 share their registers ---- */

CODE(mmx_write, "fninit; fld1; fld1; mov $0x1234, %eax; movd %eax, %mm3; fnsave (%rsi)")
CODE(mmx_read, "fninit; fld1; movq %mm7, %rax; emms; fnstenv (%rsi)")
CODE(mmx_fxsave, "fninit; fldpi; movq %mm2, %mm2; fxsave (%rsi)")

static void test_mmx(void)
{
	struct trap t;

	t = KERNEL(mmx_write, .rsi = (u64)image);
	check_equal(read_word(image + 4) & 0x3800, 0, "1 9.5.1: an MMX instruction sets TOP to 0");
	check_equal(read_word(image + 8) & 0x00c0, 0x0080,
		    "1 9.5.1: the tag of what it wrote: special, for all ones in the exponent");
	check(read_quad(image + 28 + 30) == 0x1234 && read_word(image + 28 + 38) == 0xffff,
	      "1 9.5.1: the exponent of what it wrote is all ones");
	t = KERNEL(mmx_read, .rsi = (u64)image);
	check_equal(t.rax, 0x8000000000000000, "1 9.2.1: MM7 is the significand of R7");
	check_equal(read_word(image + 8), 0xffff, "2 EMMS: all registers are empty");
	KERNEL(mmx_fxsave, .rsi = (u64)image);
	check_equal(image[4], 0xff, "1 9.5.1: after any MMX instruction all tags are valid");
}

/* ---- FXSAVE and FXRSTOR ---- */

CODE(fxsave_64, "fninit; fldl 8(%rdi); fldl 16(%rdi); movupd (%rdi), %xmm9; rex.W fxsave (%rsi)")
CODE32(fxsave_32, "fninit; mov %ss, %eax; mov %eax, %ds; fldl 8(%edi); fxsave (%esi)")
CODE(fxrstor, LABEL(fxrstor_at) "fxrstor (%rsi)")
extern const u8 fxrstor_at[];

/* AMD's processors store zeros for opcode and pointers while no unmasked exception waits: APM vol. 2 11.4.4. */
static u64 stored(u64 intel) { return vendor_is_amd() ? 0 : intel; }

static void test_fxsave(void)
{
	struct trap t;

	memset(image, 0xee, sizeof(image));
	t = KERNEL(fxsave_64, .rdi = (u64)&data, .rsi = (u64)image);
	check(t.vector == END_VECTOR && read_word(image) == 0x37f && (read_word(image + 2) & 0x3800) == 0x3000 &&
		      image[4] == 0xc0 && read_word(image + 6) == stored(0x547),
	      "1 table 10-2: FCW, FSW, abridged FTW, FOP");
	check_equal(read_quad(image + 16), stored((u64)&data + 16), "2 FXSAVE64: a 64-bit data pointer");
	check(read_dword(image + 24) == 0x1f80 && (read_dword(image + 28) & 0xffbf) == 0xffbf,
	      "1 11.6.6: MXCSR and MXCSR_MASK");
	check(read_quad(image + 32) == 0xc000000000000000 && read_word(image + 40) == 0x4000, "1 table 10-2: ST(0)");
	check_equal(read_quad(image + 160 + 9 * 16), 0x3ff0000000000000, "1 table 10-2: XMM9");
	check_equal(image[464], 0xee, "1 10.5.1: bytes 464 to 511 are not written");
	memset(image, 0xee, sizeof(image));
	t = USER_MODE(fxsave_32, .cs = USER_CS32, .rdi = USER(&data), .rsi = USER(image));
	check(t.vector == END_VECTOR && read_dword(image + 16) == stored((u32)USER(&data) + 8) &&
		      read_word(image + 20) == stored(USER_DS) && read_word(image + 12) == stored(USER_CS32),
	      "1 10.5.1: 32-bit pointers with selectors");
	check_equal(image[160 + 8 * 16], 0xee, "1 10.5.1: XMM8 and above are left out in 32-bit mode");

	asm volatile("fninit; fxsave %0" : "=m"(image));
	image[24 + 2] = 1;
	image[0] = 0x7e;
	t = KERNEL(fxrstor, .rsi = (u64)image);
	check(t.vector == EXC_GP && t.error == 0 && t.rip == (u64)fxrstor_at,
	      "2 FXRSTOR: a reserved bit of MXCSR: #GP(0)");
	asm volatile("fnstcw %0" : "=m"(data.fcw));
	check_equal(data.fcw, 0x37f, "2 FXRSTOR: and nothing is loaded");
	t = KERNEL(fxrstor, .rsi = (u64)image + 8);
	check_fault(&t, EXC_GP, 0, "2 FXRSTOR: misaligned");
}

/* ---- XSAVE and XRSTOR ---- */

CODE(xsave, LABEL(xsave_at) "xsave (%rsi)")
CODE(xrstor, LABEL(xrstor_at) "xrstor (%rsi)")
CODE(xsavec, ".byte 0x0f, 0xc7, 0x26") /* xsavec (%rsi) */
CODE(xsaves, ".byte 0x0f, 0xc7, 0x2e")
CODE(xrstors, ".byte 0x0f, 0xc7, 0x1e")
CODE(load_state, "fninit; fld1; movups (%rdi), %xmm0; xsave (%rsi)")
extern const u8 xsave_at[], xrstor_at[];

/* A header with one thing wrong. */
static void bad_header(unsigned offset, u8 value, const char *name)
{
	struct trap t;

	memset(image, 0, sizeof(image));
	image[24] = 0x80;
	image[25] = 0x1f;
	image[offset] = value;
	t = KERNEL(xrstor, .rsi = (u64)image, .rax = 7);
	check_fault(&t, EXC_GP, 0, "1 13.8: XRSTOR: %s: #GP(0)", name);
}

static void test_xsave(void)
{
	bool avx = cpuid(1, 0).c & BIT(28);
	struct trap t;

	if (!(cpuid(1, 0).c & BIT(26))) {
		skip("1 13: XSAVE", "not offered");
		return;
	}
	t = KERNEL(xsave, .rsi = (u64)image);
	check_fault(&t, EXC_UD, 0, "1 13.2: XSAVE without CR4.OSXSAVE: #UD");
	write_cr4(read_cr4() | CR4_OSXSAVE);
	asm volatile("xsetbv" ::"c"(0), "a"(avx ? 7 : 3), "d"(0));
	memset(image, 0xee, sizeof(image));
	memset(image + 512, 0, 64);
	t = KERNEL(load_state, .rdi = (u64)&data, .rsi = (u64)image, .rax = 3);
	check(t.vector == END_VECTOR && read_quad(image + 512) == 3, "1 13.7: XSTATE_BV says what is in use");
	check_equal(read_quad(image + 160), 0x3ff0000000000000, "1 13.4.1: XMM0 in the legacy region");
	t = KERNEL(load_state, .rdi = (u64)&data, .rsi = (u64)image, .rax = 1);
	check_equal(read_quad(image + 512), 3, "1 13.7: and keeps the bits of components that were not asked for");
	t = KERNEL(xsave, .rsi = (u64)image + 32, .rax = 3);
	check(t.vector == EXC_GP && t.rip == (u64)xsave_at, "2 XSAVE: aligned to 32 only: #GP(0)");

	bad_header(512 + 7, 0x40, "a bit of XSTATE_BV that XCR0 has not");
	bad_header(512 + 8, 1, "XCOMP_BV in the standard form");
	bad_header(512 + 16, 1, "byte 16 of the header");
	bad_header(512 + 23, 0x80, "byte 23 of the header");
	bad_header(24 + 2, 1, "a reserved bit of MXCSR");
	memset(image, 0, sizeof(image));
	image[24] = 0x80;
	image[25] = 0x1f;
	image[512 + 24] = 1;
	t = KERNEL(xrstor, .rsi = (u64)image, .rax = 7);
	check_end(&t, "1 13.8.1: XRSTOR in the standard form does not look at bytes 24 to 63 of the header");
	memset(image + 512, 0, 64);
	image[26] = 1;
	t = KERNEL(xrstor, .rsi = (u64)image, .rax = 1);
	check_end(&t, "1 13.8.1: MXCSR is not looked at when neither SSE nor AVX is asked for");
	image[26] = 0;
	memset(image, 0xff, 24); /* what must not be loaded */
	asm volatile("fninit; fld1; fldcw %0" ::"m"((u16){ 0x27f }));
	t = KERNEL(xrstor, .rsi = (u64)image, .rax = 1);
	asm volatile("fnstcw %0; fnstsw %1" : "=m"(data.fcw), "=m"(data.fsw));
	check(t.vector == END_VECTOR && data.fcw == 0x37f && data.fsw == 0,
	      "1 13.8.1: a clear bit of XSTATE_BV initialises");

	if (!(cpuid(0xd, 1).a & BIT(1))) {
		t = KERNEL(xsavec, .rsi = (u64)image, .rax = 3);
		check_fault(&t, EXC_UD, 0, "2 XSAVEC: #UD where it is not offered");
	} else {
		memset(image, 0xee, sizeof(image));
		asm volatile("fninit; fld1");
		t = KERNEL(xsavec, .rsi = (u64)image, .rax = 1);
		check(t.vector == END_VECTOR && read_quad(image + 512) == 1 && read_quad(image + 520) == (BIT(63) | 1),
		      "1 13.10: XSAVEC: XSTATE_BV and XCOMP_BV");
		check_equal(image[512 + 16], 0xee, "1 13.10: and no more of the header");
		memset(image + 512 + 16, 0, 48);
		t = KERNEL(xrstor, .rsi = (u64)image, .rax = 1);
		check_end(&t, "1 13.8.2: XRSTOR in the compacted form");
		image[512 + 40] = 1;
		t = KERNEL(xrstor, .rsi = (u64)image, .rax = 1);
		check_fault(&t, EXC_GP, 0, "1 13.8.2: which wants bytes 16 to 63 of the header to be 0: #GP(0)");
	}
	if (!(cpuid(0xd, 1).a & BIT(3))) {
		t = KERNEL(xsaves, .rsi = (u64)image);
		check_fault(&t, EXC_UD, 0, "2 XSAVES: #UD where it is not offered");
		t = KERNEL(xrstors, .rsi = (u64)image);
		check_fault(&t, EXC_UD, 0, "2 XRSTORS: #UD where it is not offered");
	}
}

/* ---- SIMD floating-point exceptions ---- */

#define SIMD(_)                                                                                                        \
	_(invalid, IE, "movsd 8(%rdi), %xmm0; divsd %xmm0, %xmm0")                                                     \
	_(denormal, DE, "movsd 24(%rdi), %xmm0; addsd (%rdi), %xmm0")                                                  \
	_(division_by_zero, ZE, "movsd (%rdi), %xmm0; divsd 8(%rdi), %xmm0")                                           \
	_(overflow, OE, "movsd 32(%rdi), %xmm0; mulsd 32(%rdi), %xmm0")                                                \
	_(underflow, UE, "movsd 40(%rdi), %xmm0; mulsd 40(%rdi), %xmm0")                                               \
	_(precision, PE, "movsd (%rdi), %xmm0; divsd 16(%rdi), %xmm0")
#define _(name, bits, text) CODE(simd_##name, "mov %ecx, 60(%rdi); ldmxcsr 60(%rdi); " text)
SIMD(_)
#undef _
CODE(ldmxcsr, LABEL(ldmxcsr_at) "ldmxcsr 60(%rdi)")
CODE(packed, "mov %ecx, 60(%rdi); ldmxcsr 60(%rdi); movapd (%rsi), %xmm1; movapd %xmm1, %xmm0; divpd 16(%rsi), %xmm0")
extern const u8 ldmxcsr_at[];

static u32 mxcsr(void)
{
	u32 value;

	asm volatile("stmxcsr %0" : "=m"(value));
	return value;
}

static void test_simd(void)
{
	static const struct {
		const char *name;
		u32 bits;
		const u8 *code;
	} rows[] = {
#define _(name, bits, text) { #name, bits, simd_##name },
		SIMD(_)
#undef _
	};
	static const u64 pairs[4] __attribute__((aligned(16))) = { 0x3ff0000000000000, 0, 0, 0 }; /* 1, 0 by 0, 0 */
	struct trap t;

	for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
		u32 unmasked = 0x1f80 & ~(rows[n].bits << 7);

		t = KERNEL(rows[n].code, .rdi = (u64)&data, .rcx = 0x1f80);
		check(t.vector == END_VECTOR && (mxcsr() & rows[n].bits), "1 11.5.2: %s, masked", rows[n].name);
		t = KERNEL(rows[n].code, .rdi = (u64)&data, .rcx = unmasked);
		check(t.vector == EXC_XM && !t.error && (mxcsr() & rows[n].bits), "1 11.5.4: %s, unmasked: #XM",
		      rows[n].name);
		write_cr4(read_cr4() & ~CR4_OSXMMEXCPT);
		t = KERNEL(rows[n].code, .rdi = (u64)&data, .rcx = unmasked);
		check_fault(&t, EXC_UD, 0, "1 11.5.4: %s without CR4.OSXMMEXCPT: #UD", rows[n].name);
		write_cr4(read_cr4() | CR4_OSXMMEXCPT);
	}
	t = KERNEL(packed, .rdi = (u64)&data, .rsi = (u64)pairs, .rcx = 0x1f80 & ~(ZE << 7));
	check(t.vector == EXC_XM && (mxcsr() & 0x3f) == (IE | ZE), "1 11.5.3: packed: the flags of all elements");
	data.mxcsr = 0x10000;
	t = KERNEL(ldmxcsr, .rdi = (u64)&data);
	check(t.vector == EXC_GP && !t.error && t.rip == (u64)ldmxcsr_at, "2 LDMXCSR: a reserved bit: #GP(0)");
	data.mxcsr = 0x1f80;
	KERNEL(ldmxcsr, .rdi = (u64)&data);
}

CODE(x87_store, "fninit; fld1; movw %cx, 56(%rdi); fldcw 56(%rdi); fstpl (%rsi)\n" LABEL(x87_store_next) "fwait")
extern const u8 x87_store_next[];

static void test_stores(void)
{
	struct trap t;

	t = KERNEL(x87_store, .rdi = (u64)&data, .rcx = FCW_OF(0x3f), .rsi = PAGE_AT_T);
	check_page_fault(&t, PF_W, PAGE_AT_T, "3A 6.15: FSTP to an absent page");
	check_equal(status() & 0x3800, 0x3800, "3A 6.15: and the register stack is as it was");
	asm volatile("fninit");
}

void guest(void)
{
	write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
	apic_init();
	test_exceptions();
	test_waiting();
	test_availability();
	test_irq_13();
	test_pointers();
	test_layouts();
	test_mmx();
	test_fxsave();
	test_xsave();
	test_simd();
	test_stores();
}
