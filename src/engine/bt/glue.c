/*
 * The border between C and translated code: entering it with the guest's registers, leaving it with why, and finding the
 * block for a computed target without leaving.
 */
#include "engine/bt/runtime.h"

/* Macros that make functions, which the formatter takes for expressions. */
/* clang-format off */

#define GPR(n)	"%c[gpr] + 8 * " #n
#define STATE	[gpr] "i"(offsetof(struct vcpu, s.gpr)), [vec] "i"(offsetof(struct vcpu, s.vec)),                      \
		[status] "i"(offsetof(struct vcpu, status)), [self] "i"(offsetof(struct vcpu, bt_frame.self)),         \
		[host_rsp] "i"(offsetof(struct vcpu, bt_frame.host_rsp)),                                              \
		[resume] "i"(offsetof(struct vcpu, bt_frame.resume)),                                                  \
		[arg] "i"(offsetof(struct vcpu, bt_frame.exit_arg)), [jump] "i"(offsetof(struct vcpu, bt_frame.jump)), \
		[r11] "i"(offsetof(struct vcpu, bt_frame.r11)), [r15] "i"(offsetof(struct vcpu, slot_r15)),            \
		[target] "i"(offsetof(struct vcpu, bt_frame.target)), [codes] "i"(offsetof(struct jump_table, code))

#define EACH_VECTOR(_) _(0) _(1) _(2) _(3) _(4) _(5) _(6) _(7) _(8) _(9) _(10) _(11) _(12) _(13) _(14) _(15)
#define LOAD_YMM(n)  "vmovdqu %c[vec] + 32 * " #n "(%%rdi), %%ymm" #n "\n\t"
#define STORE_YMM(n) "vmovdqu %%ymm" #n ", %c[vec] + 32 * " #n "(%%rdi)\n\t"
/* Without AVX in the host the guest has none either: the upper halves stay as they are. */
#define LOAD_XMM(n)  "movdqu %c[vec] + 32 * " #n "(%%rdi), %%xmm" #n "\n\t"
#define STORE_XMM(n) "movdqu %%xmm" #n ", %c[vec] + 32 * " #n "(%%rdi)\n\t"

/* void enter(struct vcpu *): returns when translated code leaves through the matching exit. */
#define ENTER(name, LOAD)                                                                                              \
	__attribute__((naked)) void name(struct vcpu *v __attribute__((unused)))                                       \
	{                                                                                                              \
		__asm__("push %%rbx\n\tpush %%rbp\n\tpush %%r12\n\tpush %%r13\n\tpush %%r14\n\tpush %%r15\n\t"         \
			"mov %%rsp, %c[host_rsp](%%rdi)\n\t" EACH_VECTOR(LOAD)                                         \
			"movzwl %c[status](%%rdi), %%eax\n\t"                                                          \
			"add $0x7f, %%al\n\t"                                                                          \
			"sahf\n\t"                                                                                     \
			"mov " GPR(0) "(%%rdi), %%rax\n\tmov " GPR(1) "(%%rdi), %%rcx\n\t"                             \
			"mov " GPR(2) "(%%rdi), %%rdx\n\tmov " GPR(3) "(%%rdi), %%rbx\n\t"                             \
			"mov " GPR(4) "(%%rdi), %%rsp\n\tmov " GPR(5) "(%%rdi), %%rbp\n\t"                             \
			"mov " GPR(6) "(%%rdi), %%rsi\n\t"                                                             \
			"mov " GPR(8) "(%%rdi), %%r8\n\tmov " GPR(9) "(%%rdi), %%r9\n\t"                               \
			"mov " GPR(12) "(%%rdi), %%r12\n\tmov " GPR(13) "(%%rdi), %%r13\n\t"                           \
			"mov " GPR(14) "(%%rdi), %%r14\n\t"                                                            \
			"mov %c[r15](%%rdi), %%r15\n\tmov %c[r11](%%rdi), %%r11\n\t"                                   \
			"mov " GPR(7) "(%%rdi), %%rdi\n\t"                                                             \
			"jmp *%%gs:%c[resume]\n\t"                                                                     \
			:                                                                                              \
			: STATE);                                                                                      \
	}

/* Jumped to by translated code, R11 = exit argument. RSP is the guest's until the host's is back. */
#define LEAVE_TO_C(name, STORE, CLEAN)                                                                                 \
	__attribute__((naked)) void name(void)                                                                         \
	{                                                                                                              \
		__asm__("mov %%r11, %%gs:%c[arg]\n\t"                                                                  \
			"mov %%rax, %%gs:" GPR(0) "\n\t"                                                               \
			"lahf\n\tseto %%al\n\tmov %%ax, %%gs:%c[status]\n\t"                                           \
			"mov %%rcx, %%gs:" GPR(1) "\n\tmov %%rdx, %%gs:" GPR(2) "\n\t"                                 \
			"mov %%rbx, %%gs:" GPR(3) "\n\tmov %%rsp, %%gs:" GPR(4) "\n\t"                                 \
			"mov %%rbp, %%gs:" GPR(5) "\n\tmov %%rsi, %%gs:" GPR(6) "\n\t"                                 \
			"mov %%rdi, %%gs:" GPR(7) "\n\tmov %%r8, %%gs:" GPR(8) "\n\t"                                  \
			"mov %%r9, %%gs:" GPR(9) "\n\tmov %%r12, %%gs:" GPR(12) "\n\t"                                 \
			"mov %%r13, %%gs:" GPR(13) "\n\tmov %%r14, %%gs:" GPR(14) "\n\t"                               \
			"mov %%gs:%c[self], %%rdi\n\t" EACH_VECTOR(STORE) CLEAN                                        \
			"mov %c[host_rsp](%%rdi), %%rsp\n\t"                                                           \
			"pop %%r15\n\tpop %%r14\n\tpop %%r13\n\tpop %%r12\n\tpop %%rbp\n\tpop %%rbx\n\t"               \
			"ret\n\t"                                                                                      \
			:                                                                                              \
			: STATE);                                                                                      \
	}

ENTER(bt_enter_avx, LOAD_YMM)
LEAVE_TO_C(bt_exit_avx, STORE_YMM, "vzeroupper\n\t")
ENTER(bt_enter_sse, LOAD_XMM)
LEAVE_TO_C(bt_exit_sse, STORE_XMM, "")

/*
 * R10 = linear address to go on at, R11 = exit argument for when it is not found. Flags are the guest's and stay so:
 * comparison by LEA of the negated key and JRCXZ. The index is the low 12 bits of the address and of the address / 256 added.
 */
__attribute__((naked)) void bt_lookup_asm(void)
{
	__asm__("mov %%rcx, %%gs:" GPR(1) "\n"
		"bt_lookup_restart:\n\t"
		"mov %%r11, %%gs:%c[arg]\n\t"
		"rorx $8, %%r10, %%rcx\n\t"
		"lea (%%rcx,%%r10), %%rcx\n\t"
		"mov $52, %%r11d\n\t"
		"shlx %%r11, %%rcx, %%rcx\n\t"
		"shrx %%r11, %%rcx, %%rcx\n\t"
		"mov %%gs:%c[jump], %%r15\n\t"
		"mov (%%r15,%%rcx,8), %%r11\n\t"
		"mov %c[codes](%%r15,%%rcx,8), %%r15\n\t"
		"lea (%%r11,%%r10), %%rcx\n\t"
		"jrcxz 1f\n\t"
		"mov %%gs:" GPR(1) ", %%rcx\n\t"
		"mov %%r10, %%gs:%c[target]\n\t"
		"mov %%gs:%c[arg], %%r11\n\t"
		"jmp *%%gs:%c[exit]\n"
		"1:\n\t"
		"mov %%gs:" GPR(1) ", %%rcx\n\t"
		"mov %%r15, %%r11\n\t"
		"mov %%gs:%c[r15], %%r15\n\t"
		"jmp *%%r11\n"
		".globl bt_lookup_restart, bt_lookup_end\n"
		"bt_lookup_end:\n\t"
		:
		: STATE, [exit] "i"(offsetof(struct vcpu, bt_frame.exit_glue)));
}

/* clang-format on */

const struct bt_glue bt_glue_avx = { bt_enter_avx, bt_exit_avx, bt_lookup_asm };
const struct bt_glue bt_glue_sse = { bt_enter_sse, bt_exit_sse, bt_lookup_asm };
