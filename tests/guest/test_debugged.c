/*
 * What tests/gdb looks at with GDB: places with names in every mode. It passes with nobody looking, and with a debugger that changes nothing.
 */
#include "legacy.h"

#define EXPECTED 45
#define VECTOR	 0x50

volatile u64 watched, sum;
u8 buffer[16];
volatile u32 interrupted, second;

/* add_up+0 is where breakpoints are. */
noinline void add_up(u64 n)
{
	sum += n;
	asm volatile(LABEL(added_up));
}

/* A debugger may say 42 by writing one byte: warm by then. */
asm(".pushsection .text\n.globl answer\nanswer: mov $41, %eax\nret\n.popsection");
u32 answer(void);

CODE(user_code, "inc %rax\n" LABEL(user_place) "inc %rax\n mov %rax, (%rdi)\n" LABEL(user_stored) "nop")
CODE(invalid, "nop\n" LABEL(invalid_place) "ud2")
CODE(repeated, LABEL(repeated_place) "rep stosb\n" LABEL(repeated_end) "nop")
CODE(allowed, "sti\n" LABEL(allowed_shadow) "nop\n" LABEL(allowed_next) "nop\ncli")
CODE_LOW(real_code, "mov $0x1234, %ax\n inc %ax\n mov %ax, 0x10")

static void on_interrupt(struct frame *f)
{
	(void)f;
	interrupted++;
	apic_eoi();
}

static void in_other_modes(void)
{
	struct legacy_state s = { LEGACY_REAL };
	struct legacy_trap t;

	s.eip = place_low(real_code, real_code_end);
	t = legacy_run(&s);
	check(t.vector == END_VECTOR && (u16)t.eax == 0x1235, "real mode");
}

noinline void on_the_second(u64 argument)
{
	second += (u32)argument;
	asm volatile(LABEL(second_place));
}

void guest(void)
{
	struct trap t;

	for (u64 n = 0; n < 10; n++)
		add_up(n);
	check_equal(sum, EXPECTED, "a loop");
	check(*(const volatile u8 *)(u64)add_up != 0xcc, "no breakpoint is to be seen");
	check(read_dr7() == 0x400, "nor are the debug registers in use");
	for (u32 n = 0; n < 100; n++)
		(void)answer();
	t = USER_MODE(user_code, .rax = 1, .rdi = USER(&watched));
	check(t.rax == 3 && watched == 3, "user mode");
	t = KERNEL(invalid);
	check(t.vector == EXC_UD && t.rip == (u64)invalid + 1, "an exception");
	t = KERNEL(repeated, .rax = 7, .rcx = 16, .rdi = (u64)buffer);
	check(!t.rcx && buffer[15] == 7, "a repeated instruction");
	set_handler(VECTOR, on_interrupt);
	apic_ipi(apic_id_of(0), VECTOR);
	t = KERNEL(allowed);
	check(interrupted == 1, "an interrupt");
	in_other_modes();
	if (smp_start() > 1) {
		smp_run(1, on_the_second, 5);
		smp_wait(1);
		check(second == 5, "the second processor");
	}
	print("# the answer is %u\n", answer());
}
