/*
 * The border between C and translated code: entering it with the guest's registers, leaving it with why.
 */
#include "engine/bt/glue.h"
#include "engine/bt/runtime.h"

/* Macros that make functions, which the formatter takes for expressions. */
/* clang-format off */

#define STATE	[gpr] "i"(offsetof(struct vcpu, s.gpr)), [vec] "i"(offsetof(struct vcpu, s.vec)),                      \
		[status] "i"(offsetof(struct vcpu, status)), [self] "i"(offsetof(struct bt_vcpu, frame.self)),         \
		[host_rsp] "i"(offsetof(struct bt_vcpu, frame.host_rsp)),                                              \
		[resume] "i"(offsetof(struct bt_vcpu, frame.resume)),                                                  \
		[reload] "i"(offsetof(struct bt_vcpu, frame.reload_glue)),                                             \
		[arg] "i"(offsetof(struct bt_vcpu, frame.exit_arg)),                                                   \
		[r11] "i"(offsetof(struct bt_vcpu, frame.r11)), [r10] "i"(offsetof(struct bt_vcpu, frame.r10)),        \
		[r15] "i"(offsetof(struct bt_vcpu, slot_r15)),            \
		[target] "i"(offsetof(struct bt_vcpu, frame.target))

/* RDI = vCPU */
#define LOAD_GENERAL                                                                                                   \
	"movzwl %c[status](%%rdi), %%eax\n\t"                                                                          \
	"add $0x7f, %%al\n\t"                                                                                          \
	"sahf\n\t"                                                                                                     \
	"mov " GPR(0) "(%%rdi), %%rax\n\tmov " GPR(1) "(%%rdi), %%rcx\n\t"                                             \
	"mov " GPR(2) "(%%rdi), %%rdx\n\tmov " GPR(3) "(%%rdi), %%rbx\n\t"                                             \
	"mov " GPR(4) "(%%rdi), %%rsp\n\tmov " GPR(5) "(%%rdi), %%rbp\n\t"                                             \
	"mov " GPR(6) "(%%rdi), %%rsi\n\t"                                                                             \
	"mov " GPR(8) "(%%rdi), %%r8\n\tmov " GPR(9) "(%%rdi), %%r9\n\t"                                               \
	"mov " GPR(12) "(%%rdi), %%r12\n\tmov " GPR(13) "(%%rdi), %%r13\n\t"                                           \
	"mov " GPR(14) "(%%rdi), %%r14\n\t"                                                                            \
	"mov %c[r15](%%rdi), %%r15\n\tmov %c[r11](%%rdi), %%r11\n\tmov %c[r10](%%rdi), %%r10\n\t"                        \
	"mov " GPR(7) "(%%rdi), %%rdi\n\t"

/* R11 = exit argument; then RDI = vCPU */
#define SAVE_GENERAL                                                                                                   \
	"mov %%r11, %%gs:%c[arg]\n\t"                                                                                  \
	"mov %%rax, %%gs:" GPR(0) "\n\t"                                                                               \
	"lahf\n\tseto %%al\n\tmov %%ax, %%gs:%c[status]\n\t"                                                           \
	"mov %%rcx, %%gs:" GPR(1) "\n\tmov %%rdx, %%gs:" GPR(2) "\n\t"                                                 \
	"mov %%rbx, %%gs:" GPR(3) "\n\tmov %%rsp, %%gs:" GPR(4) "\n\t"                                                 \
	"mov %%rbp, %%gs:" GPR(5) "\n\tmov %%rsi, %%gs:" GPR(6) "\n\t"                                                 \
	"mov %%rdi, %%gs:" GPR(7) "\n\tmov %%r8, %%gs:" GPR(8) "\n\t"                                                  \
	"mov %%r9, %%gs:" GPR(9) "\n\tmov %%r12, %%gs:" GPR(12) "\n\t"                                                 \
	"mov %%r13, %%gs:" GPR(13) "\n\tmov %%r14, %%gs:" GPR(14) "\n\t"                                               \
	"mov %%gs:%c[self], %%rdi\n\t"

#define RETURN_TO_C                                                                                                    \
	"mov %c[host_rsp](%%rdi), %%rsp\n\t"                                                                           \
	"pop %%r15\n\tpop %%r14\n\tpop %%r13\n\tpop %%r12\n\tpop %%rbp\n\tpop %%rbx\n\t"                               \
	"ret\n\t"

/* void enter(struct vcpu *): returns when translated code leaves through the matching exit. */
#define ENTER(name, LOAD)                                                                                              \
	__attribute__((naked)) static void name(struct vcpu *v __attribute__((unused)))                                \
	{                                                                                                              \
		__asm__("push %%rbx\n\tpush %%rbp\n\tpush %%r12\n\tpush %%r13\n\tpush %%r14\n\tpush %%r15\n\t"         \
			"mov %%rsp, %c[host_rsp](%%rdi)\n\t" EACH_VECTOR(LOAD) LOAD_GENERAL                            \
			"jmp *%%gs:%c[resume]\n\t"                                                                     \
			:                                                                                              \
			: STATE);                                                                                      \
	}

/* Jumped to by translated code. RSP is the guest's until the host's is back. */
#define LEAVE_TO_C(name, STORE, CLEAN)                                                                                 \
	__attribute__((naked)) static void name(void)                                                                  \
	{                                                                                                              \
		__asm__(SAVE_GENERAL EACH_VECTOR(STORE) CLEAN RETURN_TO_C : : STATE);                                  \
	}

/* Jumped to by translated code, R11 = exit argument: bt_fast(), with the vector registers as they are. */
#define FAST(name, STORE, CLEAN)                                                                                       \
	__attribute__((naked)) static void name(void)                                                                  \
	{                                                                                                              \
		__asm__(SAVE_GENERAL                                                                                   \
			"mov %c[host_rsp](%%rdi), %%rsp\n\t"                                                           \
			"sub $8, %%rsp\n\t"                                                                            \
			"mov %%rdi, %%rbx\n\t"                                                                         \
			"call bt_fast\n\t"                                                                             \
			"mov %%rbx, %%rdi\n\t"                                                                         \
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

/* What bt_fast() goes on in 64-bit code by. */
__attribute__((naked)) static void reload(void)
{
	__asm__(LOAD_GENERAL
		"jmp *%%gs:%c[resume]\n\t"
		:
		: STATE);
}

/* Goes on at RIP with an RSP that the host's kernel refuses to return with. */
__attribute__((naked)) void bt_return(void)
{
	__asm__("mov %%gs:%c[rsp], %%rsp\n\t"
		"jmp *%%gs:%c[rip]\n"
		".globl bt_return_end\n"
		"bt_return_end:\n\t"
		:
		: [rsp] "i"(offsetof(struct bt_vcpu, frame.return_rsp)),
		  [rip] "i"(offsetof(struct bt_vcpu, frame.return_rip)));
}

/* R10 = linear address that is not in the jump table, R11 = exit argument. RCX is in memory. */
__attribute__((naked)) static void miss(void)
{
	__asm__("mov %%gs:" GPR(1) ", %%rcx\n\t"
		"mov %%r10, %%gs:%c[target]\n\t"
		"jmp *%%gs:%c[exit]\n\t"
		:
		: STATE, [exit] "i"(offsetof(struct bt_vcpu, frame.fast_glue)));
}

/* clang-format on */

const struct bt_glue bt_glue_avx = { enter_avx, exit_avx, miss, fast_avx, reload };
const struct bt_glue bt_glue_sse = { enter_sse, exit_sse, miss, fast_sse, reload };
