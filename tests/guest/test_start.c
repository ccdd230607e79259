/*
 * The library itself: run() carries registers there and back, in both rings, and tells faults. If this fails, look here first.
 */
#include "guest.h"

CODE(nothing, "nop")
CODE(swap_all, "xchg %rax, %r15; xchg %rcx, %r14; xchg %rdx, %r13; xchg %rbx, %r12; xchg %rsi, %r11; xchg %rdi, %r10;"
	       "xchg %rbp, %r9")
CODE(read_rdi, "mov (%rdi), %rax")

void guest(void)
{
	struct trap t = KERNEL(swap_all, .rax = 1, .rcx = 2, .rdx = 3, .rbx = 4, .rsi = 5, .rdi = 6, .rbp = 7, .r8 = 8,
			       .r9 = 9, .r10 = 10, .r11 = 11, .r12 = 12, .r13 = 13, .r14 = 14, .r15 = 15);

	check_end(&t, "run() in ring 0");
	check(t.rax == 15 && t.rcx == 14 && t.rdx == 13 && t.rbx == 12 && t.rsi == 11 && t.rdi == 10 && t.rbp == 9 &&
		      t.r8 == 8 && t.r9 == 7 && t.r10 == 6 && t.r11 == 5 && t.r12 == 4 && t.r13 == 3 && t.r14 == 2 &&
		      t.r15 == 1,
	      "all registers go there and come back");
	t = USER_MODE(nothing);
	check_end(&t, "run() in ring 3");
	check(t.cs == USER_CS && t.ss == USER_DS && t.rsp == user_stack(), "with its stack");
	t = USER_MODE(read_rdi, .rdi = 0x1000);
	check_page_fault(&t, PF_P | PF_U, 0x1000, "3A 4.6: ring 3 reads a supervisor page");
}
