/*
 * The border between C and translated 16- and 32-bit code: see emit32.c for the registers, glue.c for the same of 64-bit code. Of the
 * guest's vector registers such code reaches eight, but all stay in the host's while bt_fast() goes from one kind of code to the other.
 */
#include "engine/bt/glue.h"
#include "engine/bt/runtime.h"

/* Macros that make functions, which the formatter takes for expressions. */
/* clang-format off */

#define BASE(n)	"%c[bases] + 8 * " #n
#define STATE	[gpr] "i"(offsetof(struct vcpu, s.gpr)), [bases] "i"(offsetof(struct vcpu, s.seg_base)),               \
		[vec] "i"(offsetof(struct vcpu, s.vec)), [status] "i"(offsetof(struct vcpu, status)),                  \
		[host_rsp] "i"(offsetof(struct bt_vcpu, frame.host_rsp)),                                              \
		[resume] "i"(offsetof(struct bt_vcpu, frame.resume)),                                                  \
		[reload] "i"(offsetof(struct bt_vcpu, frame.reload_glue)),                                             \
		[arg] "i"(offsetof(struct bt_vcpu, frame.exit_arg)),                                                   \
		[target] "i"(offsetof(struct bt_vcpu, frame.target))

/* RDI = vCPU. 32-bit loads: the upper halves are 0 from here on. Segments by number: SS is 2, DS 3, FS 4, GS 5. */
#define GO																\
	"movzwl %c[status](%%rdi), %%eax\n\t"                                                                          \
	"add $0x7f, %%al\n\t"                                                                                          \
	"sahf\n\t"                                                                                                     \
	"mov " GPR(0) "(%%rdi), %%eax\n\tmov " GPR(1) "(%%rdi), %%ecx\n\t"                                             \
	"mov " GPR(2) "(%%rdi), %%edx\n\tmov " GPR(3) "(%%rdi), %%ebx\n\t"                                             \
	"mov " GPR(4) "(%%rdi), %%esp\n\tmov " GPR(5) "(%%rdi), %%ebp\n\t"                                             \
	"mov " GPR(6) "(%%rdi), %%esi\n\t"                                                                             \
	"mov " BASE(3) "(%%rdi), %%r8d\n\tmov " BASE(2) "(%%rdi), %%r9d\n\t"                                           \
	"mov " BASE(4) "(%%rdi), %%r13d\n\tmov " BASE(5) "(%%rdi), %%r14d\n\t"                                         \
	"mov %%rdi, %%r15\n\t"                                                                                         \
	"mov " GPR(7) "(%%rdi), %%edi\n\t"                                                                             \
	"jmp *%c[resume](%%r15)\n\t"

/* R11 = exit argument; then RDI = vCPU, RSP the host's */
#define SAVE_GENERAL                                                                                                   \
	"mov %%r11, %c[arg](%%r15)\n\t"                                                                                \
	"mov %%rax, " GPR(0) "(%%r15)\n\t"                                                                             \
	"lahf\n\tseto %%al\n\tmov %%ax, %c[status](%%r15)\n\t"                                                         \
	"mov %%rcx, " GPR(1) "(%%r15)\n\tmov %%rdx, " GPR(2) "(%%r15)\n\t"                                             \
	"mov %%rbx, " GPR(3) "(%%r15)\n\tmov %%rsp, " GPR(4) "(%%r15)\n\t"                                             \
	"mov %%rbp, " GPR(5) "(%%r15)\n\tmov %%rsi, " GPR(6) "(%%r15)\n\t"                                             \
	"mov %%rdi, " GPR(7) "(%%r15)\n\t"                                                                             \
	"mov %%r15, %%rdi\n\t"                                                                                         \
	"mov %c[host_rsp](%%rdi), %%rsp\n\t"

#define RETURN_TO_C                                                                                                    \
	"pop %%r15\n\tpop %%r14\n\tpop %%r13\n\tpop %%r12\n\tpop %%rbp\n\tpop %%rbx\n\t"                               \
	"ret\n\t"

#define ENTER(name, LOAD)                                                                                              \
	__attribute__((naked)) static void name(struct vcpu *v __attribute__((unused)))                                \
	{                                                                                                              \
		__asm__("push %%rbx\n\tpush %%rbp\n\tpush %%r12\n\tpush %%r13\n\tpush %%r14\n\tpush %%r15\n\t"         \
			"mov %%rsp, %c[host_rsp](%%rdi)\n\t" EACH_VECTOR(LOAD) GO                                      \
			:                                                                                              \
			: STATE);                                                                                      \
	}

#define LEAVE_TO_C(name, STORE, CLEAN)                                                                                 \
	__attribute__((naked)) static void name(void)                                                                  \
	{                                                                                                              \
		__asm__(SAVE_GENERAL EACH_VECTOR(STORE) CLEAN RETURN_TO_C : : STATE);                                  \
	}

#define FAST(name, STORE, CLEAN)                                                                                       \
	__attribute__((naked)) static void name(void)                                                                  \
	{                                                                                                              \
		__asm__(SAVE_GENERAL                                                                                   \
			"sub $8, %%rsp\n\t"                                                                            \
			"mov %%rdi, %%rbx\n\t"                                                                         \
			"call bt_fast\n\t"                                                                             \
			"mov %%rbx, %%rdi\n\t"                                                                         \
			"add $8, %%rsp\n\t"                                                                            \
			"test %%al, %%al\n\t"                                                                          \
			"jz 1f\n\t"                                                                                    \
			"jmp *%c[reload](%%rdi)\n"                                                                     \
			"1:\n\t" EACH_VECTOR(STORE) CLEAN RETURN_TO_C                                                  \
			:                                                                                              \
			: STATE);                                                                                      \
	}

ENTER(enter_avx, LOAD_YMM)
LEAVE_TO_C(exit_avx, STORE_YMM, "vzeroupper\n\t")
FAST(fast_avx, STORE_YMM, "vzeroupper\n\t")
ENTER(enter_sse, LOAD_XMM)
LEAVE_TO_C(exit_sse, STORE_XMM, "")
FAST(fast_sse, STORE_XMM, "")

__attribute__((naked)) static void reload(void)
{
	__asm__(GO : : STATE);
}

/* R10 = linear address that is not in the jump table, R11 = exit argument. RCX is in memory. */
__attribute__((naked)) static void miss(void)
{
	__asm__("mov " GPR(1) "(%%r15), %%rcx\n\t"
		"mov %%r10, %c[target](%%r15)\n\t"
		"jmp *%c[fast](%%r15)\n\t"
		:
		: STATE, [fast] "i"(offsetof(struct bt_vcpu, frame.fast_glue)));
}

/* clang-format on */

const struct bt_glue bt_glue32_avx = { enter_avx, exit_avx, miss, fast_avx, reload };
const struct bt_glue bt_glue32_sse = { enter_sse, exit_sse, miss, fast_sse, reload };
