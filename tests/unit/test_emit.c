/*
 * Golden listings: what is emitted for each kind of instruction, so that a change is seen in review. Whether it is right is
 * test_emit_run's question.
 */
#include "engine/bt/emit.h"
#include "engine/bt/runtime.h"

#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

#define RIP 0x555555554000ull

/* Guest instructions (AT&T), and the host's (Intel); an instruction left to C ends the listing. */
/* clang-format off */
#define LISTINGS(_)													\
	/* registers as they are */											\
	_("mov %rbx, %rax", "mov rax, rbx\n")										\
	_("add $5, %ecx", "add ecx, 0x05\n")										\
	_("imul $100, %rdx, %rsi", "imul rsi, rdx, 0x64\n")								\
	_("mov $-1, %rax", "mov rax, 0xFFFFFFFFFFFFFFFF\n")								\
	_("movabs $0x123456789abcdef0, %rcx", "mov rcx, 0x123456789ABCDEF0\n")						\
	_("sete %sil", "setz sil\n")											\
	_("mov %ah, %bl", "mov bl, ah\n")										\
	_("cqto; idiv %rcx",												\
	  "cqo\n"													\
	  "idiv rcx\n")													\
	_("addps %xmm9, %xmm2", "addps xmm2, xmm9\n")									\
	_("vpaddd %ymm1, %ymm2, %ymm3", "vpaddd ymm3, ymm2, ymm1\n")							\
	_("popcnt %rax, %rcx", "popcnt rcx, rax\n")									\
	_("nopw 0x200(%rax,%rax,1)", "")										\
	_("endbr64", "")												\
	_(".byte 0xf3, 0x90", "callout\n")										\
	/* guest registers that live in memory */									\
	_("mov %r10, %rax", "mov rax, qword ptr gs:r10\n")								\
	_("mov %rax, %r11", "mov qword ptr gs:r11, rax\n")								\
	_("mov %eax, %r15d",												\
	  "mov r10d, eax\n"												\
	  "mov qword ptr gs:r15, r10\n")										\
	_("add %r10, %r11",												\
	  "mov r10, qword ptr gs:r10\n"											\
	  "mov r11, qword ptr gs:r11\n"											\
	  "add r11, r10\n"												\
	  "mov qword ptr gs:r11, r11\n")										\
	_("xor %r10d, %r10d",												\
	  "xor r10d, r10d\n"												\
	  "mov qword ptr gs:r10, r10\n")										\
	_("test %r10, %r10",												\
	  "mov r10, qword ptr gs:r10\n"											\
	  "test r10, r10\n")												\
	_("inc %r15", "inc qword ptr gs:r15\n")										\
	_("movb $3, %r10b",												\
	  "mov r10, qword ptr gs:r10\n"											\
	  "mov r10b, 0x03\n"												\
	  "mov qword ptr gs:r10, r10\n")										\
	_("mov $7, %r11d", "mov qword ptr gs:r11, 0x07\n")								\
	_("mov $-7, %r11d",												\
	  "mov r10d, 0xFFFFFFF9\n"											\
	  "mov qword ptr gs:r11, r10\n")										\
	_("mov %r11d, %eax", "mov eax, dword ptr gs:r11\n")								\
	_("add %r15, %rcx", "add rcx, qword ptr gs:r15\n")								\
	_("cmp %ecx, %r10d", "cmp dword ptr gs:r10, ecx\n")								\
	_("andn %r10, %r11, %r15",											\
	  "mov r11, qword ptr gs:r10\n"											\
	  "mov r15, qword ptr gs:r11\n"											\
	  "andn r10, r15, r11\n"											\
	  "mov qword ptr gs:r15, r10\n"											\
	  "mov r15, qword ptr gs:slot_r15\n")										\
	_("cvtsi2sd %r10, %xmm1",											\
	  "mov r10, qword ptr gs:r10\n"											\
	  "cvtsi2sd xmm1, r10\n")											\
	_("xchg %rax, %r15",												\
	  "mov r10, qword ptr gs:r15\n"											\
	  "xchg r10, rax\n"												\
	  "mov qword ptr gs:r15, r10\n")										\
	/* memory through a register */											\
	_("mov 8(%rbx), %rax",												\
	  "sarx r11, rbx, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov rax, qword ptr [r11+rbx*1+0x08]\n")									\
	_("mov %cl, (%r13)",												\
	  "sarx r11, r13, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov byte ptr [r11+r13*1], cl\n")										\
	_("mov 8(%rsp), %edx",												\
	  "sarx r11, rsp, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov edx, dword ptr [rsp+r11*1+0x08]\n")									\
	_("addl $1, (%rbp)",												\
	  "sarx r11, rbp, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "add dword ptr [r11+rbp*1], 0x01\n")										\
	_("lock cmpxchg %rcx, 0x40(%rdi)",										\
	  "sarx r11, rdi, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "lock cmpxchg qword ptr [r11+rdi*1+0x40], rcx\n")								\
	_("xchg %eax, (%rsi)",												\
	  "sarx r11, rsi, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "xchg dword ptr [r11+rsi*1], eax\n")										\
	_("movaps 16(%rdi), %xmm3",											\
	  "sarx r11, rdi, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "movaps xmm3, xmmword ptr [r11+rdi*1+0x10]\n")								\
	_("vmovdqu (%rsi), %ymm12",											\
	  "sarx r11, rsi, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "vmovdqu ymm12, ymmword ptr [r11+rsi*1]\n")									\
	_("cmpxchg16b (%rsi)",												\
	  "sarx r11, rsi, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "cmpxchg16b xmmword ptr [r11+rsi*1]\n")									\
	_("fldl (%rax)",												\
	  "sarx r11, rax, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "fld qword ptr [r11+rax*1]\n")										\
	_("add %r10, 8(%rbx)",												\
	  "sarx r11, rbx, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov r10, qword ptr gs:r10\n"											\
	  "add qword ptr [r11+rbx*1+0x08], r10\n")									\
	_("mov 8(%rbx), %r10",												\
	  "sarx r11, rbx, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov r10, qword ptr [r11+rbx*1+0x08]\n"									\
	  "mov qword ptr gs:r10, r10\n")										\
	_("mov %r15d, (%r10)",												\
	  "mov r10, qword ptr gs:r10\n"											\
	  "sarx r11, r10, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov r15, qword ptr gs:r15\n"											\
	  "mov dword ptr [r11+r10*1], r15d\n"										\
	  "mov r15, qword ptr gs:slot_r15\n")										\
	_("mov (%r11), %r11",												\
	  "mov r10, qword ptr gs:r11\n"											\
	  "sarx r11, r10, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov r10, qword ptr [r11+r10*1]\n"										\
	  "mov qword ptr gs:r11, r10\n")										\
	_("adc (%r15), %r10",												\
	  "mov r10, qword ptr gs:r15\n"											\
	  "sarx r11, r10, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov r15, qword ptr gs:r10\n"											\
	  "adc r15, qword ptr [r11+r10*1]\n"										\
	  "mov qword ptr gs:r10, r15\n"											\
	  "mov r15, qword ptr gs:slot_r15\n")										\
	_("mov %ah, (%rbx)",												\
	  "sarx r11, rbx, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "rorx r10, rax, 0x08\n"											\
	  "mov byte ptr [r11+rbx*1], r10b\n")										\
	_("add 1(%rbx), %dh",												\
	  "sarx r11, rbx, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "rorx r10, rdx, 0x08\n"											\
	  "add r10b, byte ptr [r11+rbx*1+0x01]\n"									\
	  "rorx rdx, rdx, 0x08\n"											\
	  "mov dl, r10b\n"												\
	  "rorx rdx, rdx, 0x38\n")											\
	_("cmp %bh, 4(%rdi)",												\
	  "sarx r11, rdi, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "rorx r10, rbx, 0x08\n"											\
	  "cmp byte ptr [r11+rdi*1+0x04], r10b\n")									\
	/* addresses that are computed */										\
	_("mov (%rbx,%rcx,4), %eax",											\
	  "lea r10, [rbx+rcx*4]\n"											\
	  "sarx r11, r10, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov eax, dword ptr [r11+r10*1]\n")										\
	_("mov 16(%rbx,%rcx,8), %r10",											\
	  "lea r10, [rbx+rcx*8]\n"											\
	  "sarx r11, r10, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov r10, qword ptr [r11+r10*1+0x10]\n"									\
	  "mov qword ptr gs:r10, r10\n")										\
	_("mov -0x7e000000(,%rax,8), %rax",										\
	  "lea r10, [rax*8-0x7E000000]\n"										\
	  "sarx r11, r10, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov rax, qword ptr [r11+r10*1]\n")										\
	_("mov -0x7e000000(%rax), %rax",										\
	  "lea r10, [rax-0x7E000000]\n"											\
	  "sarx r11, r10, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov rax, qword ptr [r11+r10*1]\n")										\
	_("movzbl (%r10,%r11), %eax",											\
	  "mov r10, qword ptr gs:r10\n"											\
	  "mov r11, qword ptr gs:r11\n"											\
	  "lea r10, [r10+r11*1]\n"											\
	  "sarx r11, r10, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "movzx eax, byte ptr [r11+r10*1]\n")										\
	_("mov %r15, (%r10,%r11,2)",											\
	  "mov r10, qword ptr gs:r10\n"											\
	  "mov r11, qword ptr gs:r11\n"											\
	  "lea r10, [r10+r11*2]\n"											\
	  "sarx r11, r10, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov r15, qword ptr gs:r15\n"											\
	  "mov qword ptr [r11+r10*1], r15\n"										\
	  "mov r15, qword ptr gs:slot_r15\n")										\
	_("mov 4(%ebx,%ecx), %eax",											\
	  "lea r10d, [rbx+rcx*1+0x04]\n"										\
	  "mov r11, qword ptr [r15-0x27]\n"										\
	  "mov eax, dword ptr [r11+r10*1]\n")										\
	_("mov 0x1000(%rip), %rax",											\
	  "mov r10, 0x555555555007\n"											\
	  "mov r11, qword ptr [r15+0x529]\n"										\
	  "mov rax, qword ptr [r11+r10*1]\n")										\
	_("mov 0x601000, %eax",												\
	  "mov r11, qword ptr [r15-0x27]\n"										\
	  "mov eax, dword ptr [r11+0x601000]\n")									\
	_("movabs 0x123456789abc, %al",											\
	  "mov r10, 0x123456789ABC\n"											\
	  "mov r11, qword ptr [r15+0xF9]\n"										\
	  "mov al, byte ptr [r11+r10*1]\n")										\
	_("movabs %rax, 0xffffffff82345678",										\
	  "mov r11, qword ptr [r15-0x2F]\n"										\
	  "mov qword ptr [r11-0x7DCBA988], rax\n")									\
	/* segments */													\
	_("mov %fs:0x28, %rax",												\
	  "mov r10, qword ptr gs:fs_base\n"										\
	  "sarx r11, r10, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov rax, qword ptr [r11+r10*1+0x28]\n")									\
	_("mov %gs:0x1f00(%rax), %ecx",											\
	  "mov r10, qword ptr gs:gs_base\n"										\
	  "lea r10, [r10+rax*1]\n"											\
	  "sarx r11, r10, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov ecx, dword ptr [r11+r10*1+0x1F00]\n")									\
	_("incl %gs:(%rbx,%rcx,4)",											\
	  "lea r10, [rbx+rcx*4]\n"											\
	  "mov r11, qword ptr gs:gs_base\n"										\
	  "lea r10, [r10+r11*1]\n"											\
	  "sarx r11, r10, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "inc dword ptr [r11+r10*1]\n")										\
	_("mov %fs:(%r10), %r11",											\
	  "mov r10, qword ptr gs:r10\n"											\
	  "mov r11, qword ptr gs:fs_base\n"										\
	  "lea r10, [r10+r11*1]\n"											\
	  "sarx r11, r10, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov r10, qword ptr [r11+r10*1]\n"										\
	  "mov qword ptr gs:r11, r10\n")										\
	_("mov %gs:-0x7e000000, %eax",											\
	  "mov r10, qword ptr gs:gs_base\n"										\
	  "lea r10, [r10-0x7E000000]\n"											\
	  "sarx r11, r10, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov eax, dword ptr [r11+r10*1]\n")										\
	/* LEA */													\
	_("lea 8(%rbx,%rcx,4), %rax", "lea rax, [rbx+rcx*4+0x08]\n")							\
	_("lea 0x1000(%rip), %rdi", "mov rdi, 0x555555555007\n")							\
	_("lea (%r10,%r11), %r15",											\
	  "mov r10, qword ptr gs:r10\n"											\
	  "mov r11, qword ptr gs:r11\n"											\
	  "lea r10, [r10+r11*1]\n"											\
	  "mov qword ptr gs:r15, r10\n")										\
	_("lea 1(%ebx), %eax", "lea eax, [rbx+0x01]\n")									\
	/* the stack */													\
	_("push %rbp",													\
	  "sarx r11, rsp, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov qword ptr [rsp+r11*1-0x08], rbp\n"									\
	  "lea rsp, [rsp-0x08]\n")											\
	_("push %r10",													\
	  "mov r10, qword ptr gs:r10\n"											\
	  "sarx r11, rsp, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov qword ptr [rsp+r11*1-0x08], r10\n"									\
	  "lea rsp, [rsp-0x08]\n")											\
	_("push $-2",													\
	  "sarx r11, rsp, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov qword ptr [rsp+r11*1-0x08], 0xFFFFFFFFFFFFFFFE\n"							\
	  "lea rsp, [rsp-0x08]\n")											\
	_("push 8(%rax)",												\
	  "sarx r11, rax, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov r10, qword ptr [r11+rax*1+0x08]\n"									\
	  "sarx r11, rsp, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov qword ptr [rsp+r11*1-0x08], r10\n"									\
	  "lea rsp, [rsp-0x08]\n")											\
	_("pop %rbx",													\
	  "sarx r11, rsp, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov rbx, qword ptr [rsp+r11*1]\n"										\
	  "lea rsp, [rsp+0x08]\n")											\
	_("pop %rsp",													\
	  "sarx r11, rsp, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov rsp, qword ptr [rsp+r11*1]\n")										\
	_("pop %r15",													\
	  "sarx r11, rsp, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov r10, qword ptr [rsp+r11*1]\n"										\
	  "lea rsp, [rsp+0x08]\n"											\
	  "mov qword ptr gs:r15, r10\n")										\
	_("leave",													\
	  "sarx r11, rbp, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov r10, qword ptr [r11+rbp*1]\n"										\
	  "lea rsp, [rbp+0x08]\n"											\
	  "mov rbp, r10\n")												\
	/* bit strings */												\
	_("bt %ecx, (%rdi)",												\
	  "sarx r11, rdi, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "bt dword ptr [r11+rdi*1], ecx\n")										\
	_("lock bts %rax, 8(%rdi)",											\
	  "mov r11b, 0x08\n"												\
	  "sarx r11, rax, r11\n"											\
	  "lea r11, [r11*8]\n"												\
	  "lea r10, [rdi+r11*4+0x08]\n"											\
	  "sarx r11, r10, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "movzx r15d, al\n"												\
	  "lock bts qword ptr [r11+r10*1], r15\n"									\
	  "mov r15, qword ptr gs:slot_r15\n")										\
	_("btr %r10, (%rdi,%rcx,8)",											\
	  "lea r10, [rdi+rcx*8]\n"											\
	  "mov r11b, 0x08\n"												\
	  "sarx r11, qword ptr gs:r10, r11\n"										\
	  "lea r11, [r11*8]\n"												\
	  "lea r10, [r10+r11*4]\n"											\
	  "sarx r11, r10, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "movzx r15d, byte ptr gs:r10\n"										\
	  "btr qword ptr [r11+r10*1], r15\n"										\
	  "mov r15, qword ptr gs:slot_r15\n")										\
	_("lock btsq $5, (%rdi)",											\
	  "sarx r11, rdi, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "lock bts qword ptr [r11+rdi*1], 0x05\n")									\
	/* one window for several accesses */										\
	_("mov (%rbx), %rax; mov 8(%rbx), %rcx",									\
	  "sarx r11, rbx, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov rax, qword ptr [r11+rbx*1]\n"										\
	  "mov rcx, qword ptr [r11+rbx*1+0x08]\n")									\
	_("mov (%rbx), %rbx; mov (%rbx), %rbx",										\
	  "sarx r11, rbx, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov rbx, qword ptr [r11+rbx*1]\n"										\
	  "sarx r11, rbx, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov rbx, qword ptr [r11+rbx*1]\n")										\
	_("push %rbp; mov %rsp, %rbp; sub $0x20, %rsp; mov %rdi, -8(%rbp)",						\
	  "sarx r11, rsp, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov qword ptr [rsp+r11*1-0x08], rbp\n"									\
	  "lea rsp, [rsp-0x08]\n"											\
	  "mov rbp, rsp\n"												\
	  "sub rsp, 0x20\n"												\
	  "mov qword ptr [r11+rbp*1-0x08], rdi\n")									\
	_("mov (%rsi), %al; mov %al, (%rdi); inc %rsi; mov (%rsi), %al",	\
	  "sarx r11, rsi, r15\n"	\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"	\
	  "mov al, byte ptr [r11+rsi*1]\n"	\
	  "sarx r10, rdi, r15\n"	\
	  "mov r10, qword ptr [r15+r10*8-0x27]\n"	\
	  "mov byte ptr [r10+rdi*1], al\n"	\
	  "inc rsi\n"	\
	  "mov al, byte ptr [r11+rsi*1]\n")	\
	/* a sum that is used again, and one that keeps R11 for what uses that again */	\
	_("movsd (%rcx,%rdx,8), %xmm0; mov (%rsi), %eax; mov %r10, 8(%rsi); movsd %xmm0, 8(%rcx,%rdx,8)",	\
	  "lea r10, [rcx+rdx*8]\n"	\
	  "sarx r11, r10, r15\n"	\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"	\
	  "movsd xmm0, qword ptr [r11+r10*1]\n"	\
	  "sarx r11, rsi, r15\n"	\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"	\
	  "mov eax, dword ptr [r11+rsi*1]\n"	\
	  "mov r10, qword ptr gs:r10\n"	\
	  "mov qword ptr [r11+rsi*1+0x08], r10\n"	\
	  "lea r10, [rcx+rdx*8]\n"	\
	  "sarx r11, r10, r15\n"	\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"	\
	  "movsd qword ptr [r11+r10*1+0x08], xmm0\n")	\
	_("movsd (%rcx,%rdx,8), %xmm0; mov (%rsi), %eax; movsd %xmm0, 8(%rcx,%rdx,8); pop %rbx; movsd %xmm0, (%rcx,%rdx,8)",	\
	  "lea r10, [rcx+rdx*8]\n"	\
	  "sarx r10, r10, r15\n"	\
	  "mov r10, qword ptr [r15+r10*8-0x27]\n"	\
	  "lea r10, [r10+rcx*1]\n"	\
	  "movsd xmm0, qword ptr [r10+rdx*8]\n"	\
	  "sarx r11, rsi, r15\n"	\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"	\
	  "mov eax, dword ptr [r11+rsi*1]\n"	\
	  "movsd qword ptr [r10+rdx*8+0x08], xmm0\n"	\
	  "sarx r11, rsp, r15\n"	\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"	\
	  "mov rbx, qword ptr [rsp+r11*1]\n"	\
	  "lea rsp, [rsp+0x08]\n"	\
	  "movsd qword ptr [r10+rdx*8], xmm0\n")	\
	_("mov (%rsi), %eax; mov (%rcx,%rdx,2), %edi; mov 8(%rsi), %eax",	\
	  "sarx r11, rsi, r15\n"	\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"	\
	  "mov eax, dword ptr [r11+rsi*1]\n"	\
	  "lea r10, [rcx+rdx*2]\n"	\
	  "sarx r10, r10, r15\n"	\
	  "mov r10, qword ptr [r15+r10*8-0x27]\n"	\
	  "lea r10, [r10+rcx*1]\n"	\
	  "mov edi, dword ptr [r10+rdx*2]\n"	\
	  "mov eax, dword ptr [r11+rsi*1+0x08]\n")	\
	_("mov (%rbx), %eax; add $0x40000001, %rbx; mov (%rbx), %eax",							\
	  "sarx r11, rbx, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov eax, dword ptr [r11+rbx*1]\n"										\
	  "add rbx, 0x40000001\n"											\
	  "sarx r11, rbx, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov eax, dword ptr [r11+rbx*1]\n")										\
	_("mov (%rbx), %eax; mov %r10, %r11; mov 4(%rbx), %eax",							\
	  "sarx r11, rbx, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov eax, dword ptr [r11+rbx*1]\n"										\
	  "mov r10, qword ptr gs:r10\n"											\
	  "mov r11, r10\n"												\
	  "mov qword ptr gs:r11, r11\n"											\
	  "sarx r11, rbx, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov eax, dword ptr [r11+rbx*1+0x04]\n")									\
	_("leave; pop %rcx",												\
	  "sarx r11, rbp, r15\n"											\
	  "mov r11, qword ptr [r15+r11*8-0x27]\n"									\
	  "mov r10, qword ptr [r11+rbp*1]\n"										\
	  "lea rsp, [rbp+0x08]\n"											\
	  "mov rbp, r10\n"												\
	  "mov rcx, qword ptr [rsp+r11*1]\n"										\
	  "lea rsp, [rsp+0x08]\n")											\
	/* left to C */													\
	_("cld", "callout\n")												\
	_("rep movsb", "callout\n")											\
	_("popw %ax", "callout\n")											\
	_("andn (%r10), %r11, %r15", "callout\n")									\
	_("mulx (%r10,%r11), %r10, %r15", "callout\n")									\
	/* what models offer also on hosts that have none of it */							\
	_("clflushopt (%rax)", "callout\n")										\
	_("clwb (%rax)", "callout\n")											\
	_("rdpid %rax", "callout\n")											\
	_("rdfsbase %rax", "callout\n")											\
	_("xsavec (%rax)", "callout\n")											\
	_("rdrand %rax", "callout\n")											\
	_("rdtscp", "callout\n")											\
	_("prefetchw (%rax)", "")											\
	_("rdtsc", "callout\n")												\
	_("popq (%rax)", "callout\n")

/* 32-bit code; all segments are plain but ES, FS and GS have a base. */
#define LISTINGS32(_)													\
	/* registers as they are */											\
	_("mov %ebx, %eax", "mov eax, ebx\n")										\
	_("inc %ecx", "inc ecx\n")											\
	_("dec %di", "dec di\n")											\
	_(".byte 0x82, 0xc1, 0x05", "add cl, 0x05\n")									\
	_("mov %ah, %dh", "mov dh, ah\n")										\
	_("bswap %edx", "bswap edx\n")											\
	_("xchg %eax, %esi", "xchg esi, eax\n")									\
	_("cwtl", "cwde\n")												\
	_("andn %ecx, %edx, %ebx", "andn ebx, edx, ecx\n")								\
	_("vaddps %ymm1, %ymm2, %ymm7", "vaddps ymm7, ymm2, ymm1\n")							\
	_(".byte 0xc4, 0xe3, 0x55, 0x4c, 0xc8, 0xc6", "vpblendvb ymm1, ymm5, ymm0, ymm4\n")				\
	_("fmul %st(2), %st", "fmul st0, st2\n")									\
	/* memory */													\
	_("mov 8(%ebx), %eax", "mov eax, dword ptr gs:[ebx+0x08]\n")							\
	_("mov %cl, (%ebp,%esi,4)", "mov byte ptr gs:[ebp+esi*4], cl\n")						\
	_("add $5, -4(%esp)", "add dword ptr gs:[esp-0x04], 0x05\n")							\
	_("lock cmpxchg8b (%edi)", "lock cmpxchg8b qword ptr gs:[edi]\n")						\
	_("mov 0x81234567, %ebx", "mov ebx, dword ptr gs:[0x0000000081234567]\n")					\
	_("mov 0x81234567, %al", "mov al, byte ptr gs:[0x0000000081234567]\n")						\
	_("mov %ax, 0x1234", "mov word ptr gs:[0x0000000000001234], ax\n")								\
	_("mov %ah, 1(%ecx)", "mov byte ptr gs:[ecx+0x01], ah\n")							\
	_("movups (%eax), %xmm5", "movups xmm5, xmmword ptr gs:[eax]\n")						\
	_("vfmadd213pd (%edx), %ymm1, %ymm0", "vfmadd213pd ymm0, ymm1, ymmword ptr gs:[edx]\n")			\
	_("fstpt 16(%esi)", "fstp tbyte ptr gs:[esi+0x10]\n")								\
	/* segments with a base */											\
	_("mov %gs:0x14, %eax", "mov eax, dword ptr gs:[r14d+0x14]\n")							\
	/* which an offset that goes on behind 4 GiB is none of */								\
	_("mov %ecx, %fs:(%edx)",											\
	  "lea r10d, [rdx]\n"												\
	  "mov r11, qword ptr [r15+write_limit_fs]\n"									\
	  "mov r11b, byte ptr [r11+r10*1+0x03]\n"									\
	  "mov dword ptr gs:[r10d+r13d*1], ecx\n")									\
	_("mov %gs:0xfffffffd, %eax",											\
	  "lea r10d, [0xFFFFFFFFFFFFFFFD]\n"											\
	  "mov r11, qword ptr [r15+read_limit_gs]\n"									\
	  "mov r11b, byte ptr [r11+r10*1+0x03]\n"									\
	  "mov eax, dword ptr gs:[r10d+r14d*1]\n")									\
	_("mov %cl, %fs:(%edx)", "mov byte ptr gs:[edx+r13d*1], cl\n")							\
	_("mov %gs:8(%ebx,%ecx,2), %eax",										\
	  "lea r10d, [rbx+rcx*2+0x08]\n"										\
	  "mov r11, qword ptr [r15+read_limit_gs]\n"									\
	  "mov r11b, byte ptr [r11+r10*1+0x03]\n"									\
	  "mov eax, dword ptr gs:[r10d+r14d*1]\n")									\
	_("mov %eax, %es:4(%edi)",											\
	  "lea r10d, [rdi+0x04]\n"											\
	  "mov r11, qword ptr [r15+write_limit_es]\n"									\
	  "mov r11b, byte ptr [r11+r10*1+0x03]\n"									\
	  "mov r11, qword ptr [r15+es_base]\n"										\
	  "mov dword ptr gs:[r10d+r11d*1], eax\n")									\
	_("add %ah, %fs:2(%ebx)",											\
	  "rorx r12d, eax, 0x08\n"											\
	  "add byte ptr gs:[ebx+r13d*1+0x02], r12b\n")									\
	_("mov %fs:(%ebx), %ch",											\
	  "rorx r12d, ecx, 0x08\n"											\
	  "mov r12b, byte ptr gs:[ebx+r13d*1]\n"									\
	  "rorx ecx, ecx, 0x08\n"											\
	  "mov cl, r12b\n"												\
	  "rorx ecx, ecx, 0x18\n")											\
	_("mov %ss:(%ebx), %eax", "mov eax, dword ptr gs:[ebx]\n")							\
	_("mov %cs:(%eax), %edx", "mov edx, dword ptr gs:[eax]\n")							\
	_("mov %edx, %cs:(%eax)", "callout\n")										\
	/* 16-bit addresses */												\
	_("mov -2(%bx,%si), %eax",											\
	  "lea r10d, [rbx+rsi*1-0x02]\n"										\
	  "movzx r10d, r10w\n"												\
	  "mov eax, dword ptr gs:[r10d]\n")										\
	_("mov (%di), %dh",												\
	  "movzx r10d, di\n"												\
	  "rorx r12d, edx, 0x08\n"											\
	  "mov r12b, byte ptr gs:[r10d]\n"										\
	  "rorx edx, edx, 0x08\n"											\
	  "mov dl, r12b\n"												\
	  "rorx edx, edx, 0x18\n")											\
	/* LEA */													\
	_("lea -1(%ebx,%ecx,4), %eax", "lea eax, [rbx+rcx*4-0x01]\n")							\
	_("lea 8(%ebx), %ax", "lea ax, [rbx+0x08]\n")									\
	_("lea 4(%bp), %ecx",												\
	  "lea r10d, [rbp+0x04]\n"											\
	  "movzx r10d, r10w\n"												\
	  "lea ecx, [r10]\n")												\
	/* the stack */													\
	_("push %esp",													\
	  "mov dword ptr gs:[esp-0x04], esp\n"										\
	  "lea esp, [rsp-0x04]\n")											\
	_("push $-2",													\
	  "mov dword ptr gs:[esp-0x04], 0xFFFFFFFE\n"									\
	  "lea esp, [rsp-0x04]\n")											\
	_("push %gs:(%eax)",												\
	  "lea r10d, [rax]\n"												\
	  "mov r11, qword ptr [r15+read_limit_gs]\n"									\
	  "mov r11b, byte ptr [r11+r10*1+0x03]\n"									\
	  "mov r12d, dword ptr gs:[r10d+r14d*1]\n"									\
	  "mov dword ptr gs:[esp-0x04], r12d\n"									\
	  "lea esp, [rsp-0x04]\n")											\
	_("push %fs",													\
	  "movzx r12d, word ptr [r15+fs_selector]\n"									\
	  "mov dword ptr gs:[esp-0x04], r12d\n"									\
	  "lea esp, [rsp-0x04]\n")											\
	_("pushw %fs",													\
	  "movzx r12d, word ptr [r15+fs_selector]\n"									\
	  "mov word ptr gs:[esp-0x02], r12w\n"									\
	  "lea esp, [rsp-0x02]\n")											\
	_("pop %edi",													\
	  "mov edi, dword ptr gs:[esp]\n"										\
	  "lea esp, [rsp+0x04]\n")											\
	_("pop %esp", "mov esp, dword ptr gs:[esp]\n")									\
	_("pop 8(%esp)",												\
	  "mov r12d, dword ptr gs:[esp]\n"										\
	  "mov dword ptr gs:[esp+0x0C], r12d\n"									\
	  "lea esp, [rsp+0x04]\n")											\
	_("leave",													\
	  "mov r12d, dword ptr gs:[ebp]\n"										\
	  "lea esp, [rbp+0x04]\n"											\
	  "mov ebp, r12d\n")												\
	_("pushw %ax",													\
	  "mov word ptr gs:[esp-0x02], ax\n"										\
	  "lea esp, [rsp-0x02]\n")											\
	/* bit strings */												\
	_("btsl $5, (%edi)", "bts dword ptr gs:[edi], 0x05\n")								\
	_("lock bts %eax, 8(%edi)",											\
	  "mov r11b, 0x08\n"												\
	  "sarx r11d, eax, r11d\n"											\
	  "lea r11d, [r11*8]\n"											\
	  "lea r10d, [rdi+r11*4+0x08]\n"										\
	  "movzx r12d, al\n"												\
	  "lock bts dword ptr gs:[r10d], r12d\n")									\
	_("vzeroupper",													\
	  "vmovaps xmm0, xmm0\n"											\
	  "vmovaps xmm1, xmm1\n"											\
	  "vmovaps xmm2, xmm2\n"											\
	  "vmovaps xmm3, xmm3\n"											\
	  "vmovaps xmm4, xmm4\n"											\
	  "vmovaps xmm5, xmm5\n"											\
	  "vmovaps xmm6, xmm6\n"											\
	  "vmovaps xmm7, xmm7\n")											\
	/* left to C */													\
	_("pusha", "callout\n")											\
	_("daa", "callout\n")												\
	_("bound %eax, (%ebx)", "callout\n")										\
	_("rep stosl", "callout\n")

/* 16-bit code of real-address mode; all segments have a limit of 64 KiB. */
#define LISTINGS16(_)													\
	_("mov %ebx, %eax", "mov eax, ebx\n")										\
	_("add $5, %cx", "add cx, 0x05\n")										\
	_("imul $1000, %dx, %si", "imul si, dx, 0x3E8\n")								\
	_("inc %ecx", "inc ecx\n")											\
	_("cbtw", "cbw\n")												\
	_("adcx %ecx, %edx", "adcx edx, ecx\n")									\
	_("paddw %xmm1, %xmm2", "paddw xmm2, xmm1\n")									\
	_("lfence", "lfence\n")											\
	/* memory: no look at the limit where no offset is beyond it */							\
	_("mov 0x1234, %ax", "mov ax, word ptr gs:[r8d+0x1234]\n")							\
	_("mov %al, (%bx,%si)",											\
	  "lea r10d, [rbx+rsi*1]\n"											\
	  "movzx r10d, r10w\n"												\
	  "mov byte ptr gs:[r10d+r8d*1], al\n")									\
	_("mov (%di), %cx",												\
	  "movzx r10d, di\n"												\
	  "mov r11, qword ptr [r15+read_limit_ds]\n"									\
	  "mov r11b, byte ptr [r11+r10*1+0x01]\n"									\
	  "mov cx, word ptr gs:[r10d+r8d*1]\n")									\
	_("incl %es:(%eax,%ebx)",											\
	  "lea r10d, [rax+rbx*1]\n"											\
	  "mov r11, qword ptr [r15+write_limit_es]\n"									\
	  "mov r11b, byte ptr [r11+r10*1+0x03]\n"									\
	  "mov r11, qword ptr [r15+es_base]\n"										\
	  "inc dword ptr gs:[r10d+r11d*1]\n")										\
	_("mov %cs:0x10, %ax", "mov ax, word ptr gs:[0x0000000000012350]\n")						\
	_("xlat",													\
	  "movzx r10d, al\n"												\
	  "lea r10d, [rbx+r10*1]\n"											\
	  "movzx r10d, r10w\n"												\
	  "mov al, byte ptr gs:[r10d+r8d*1]\n")									\
	/* the stack */													\
	_("push %ax",													\
	  "lea r10d, [rsp-0x02]\n"											\
	  "movzx r10d, r10w\n"												\
	  "mov r11, qword ptr [r15+write_limit_ss]\n"									\
	  "mov r11b, byte ptr [r11+r10*1+0x01]\n"									\
	  "mov word ptr gs:[r10d+r9d*1], ax\n"										\
	  "lea sp, [rsp-0x02]\n")											\
	_("pop %ecx",													\
	  "movzx r10d, sp\n"												\
	  "mov r11, qword ptr [r15+read_limit_ss]\n"									\
	  "mov r11b, byte ptr [r11+r10*1+0x03]\n"									\
	  "mov ecx, dword ptr gs:[r10d+r9d*1]\n"									\
	  "lea sp, [rsp+0x04]\n")											\
	/* strings */													\
	_("lodsb",													\
	  "movzx r10d, si\n"												\
	  "mov al, byte ptr gs:[r10d+r8d*1]\n"										\
	  "lea si, [rsi+0x01]\n")											\
	_("rep stosw",													\
	  "movzx r11d, cx\n"												\
	  "movzx r10d, di\n"												\
	  "lea r10d, [r10+r11*2]\n"											\
	  "mov r11, qword ptr [r15+wrap_limit]\n"									\
	  "mov r11b, byte ptr [r11+r10*1-0x01]\n"									\
	  "mov r12, qword ptr [r15+slot_r15]\n"									\
	  "mov r12, qword ptr [r12-0x27]\n"										\
	  "mov r11, qword ptr [r15+es_base]\n"										\
	  "lea r11, [r11+r12*1]\n"											\
	  "mov qword ptr [r15+saved_edi], rdi\n"									\
	  "movzx edi, di\n"												\
	  "lea rdi, [rdi+r11*1]\n"											\
	  "mov r12d, ecx\n"												\
	  "movzx ecx, cx\n"												\
	  "rep stosw\n"												\
	  "not r11\n"													\
	  "lea r11d, [rdi+r11*1+0x01]\n"										\
	  "mov rdi, qword ptr [r15+saved_edi]\n"									\
	  "mov di, r11w\n"												\
	  "mov r12w, cx\n"												\
	  "mov ecx, r12d\n")												\
	/* segments */													\
	_("mov %ax, %es",								\
	  "movzx r11d, ax\n"							\
	  "mov word ptr [r15+es_selector], r11w\n"							\
	  "rorx r11d, r11d, 0x1C\n"							\
	  "mov qword ptr [r15+es_base], r11\n")							\
	_("lcall $0x1234, $0x10",								\
	  "lea r10d, [rsp-0x04]\n"							\
	  "movzx r10d, r10w\n"							\
	  "mov r11, qword ptr [r15+wrap_limit]\n"							\
	  "mov r11b, byte ptr [r11+r10*1+0x03]\n"							\
	  "movzx r12d, word ptr [r15+cs_selector]\n"							\
	  "rorx r12d, r12d, 0x10\n"							\
	  "lea r12d, [r12+0x20]\n"							\
	  "mov dword ptr gs:[r10d+r9d*1], r12d\n"							\
	  "lea sp, [rsp-0x04]\n"							\
	  "mov r11d, 0x1234\n"							\
	  "mov word ptr [r15+cs_selector], r11w\n"							\
	  "rorx r11d, r11d, 0x1C\n"							\
	  "mov qword ptr [r15+cs_base], r11\n")							\
	_("lret",								\
	  "movzx r10d, sp\n"							\
	  "mov r11, qword ptr [r15+wrap_limit]\n"							\
	  "mov r11b, byte ptr [r11+r10*1+0x03]\n"							\
	  "mov r12d, dword ptr gs:[r10d+r9d*1]\n"							\
	  "lea sp, [rsp+0x04]\n"							\
	  "rorx r11d, r12d, 0x10\n"							\
	  "movzx r11d, r11w\n"							\
	  "mov word ptr [r15+cs_selector], r11w\n"							\
	  "rorx r11d, r11d, 0x1C\n"							\
	  "mov qword ptr [r15+cs_base], r11\n"							\
	  "rorx r11, r11, 0x20\n"							\
	  "movzx r10d, r12w\n"							\
	  "lea r10, [r10+r11*1]\n")							\
	_("cli",								\
	  "mov r11, qword ptr [r15+rflags]\n"							\
	  "mov r10d, 0xFFFFFDFF\n"							\
	  "pext r11d, r11d, r10d\n"							\
	  "pdep r11d, r11d, r10d\n"							\
	  "mov qword ptr [r15+rflags], r11\n")							\
	/* left to C */													\
	_("aaa", "callout\n")												\
	_("mov %ax, %ss", "callout\n")											\
	_("std", "callout\n")

static const struct listing {
	const char *guest, *host;
} listings[] = {
#define _(guest, host) { guest, host },
	LISTINGS(_)
#undef _
}, listings32[] = {
#define _(guest, host) { guest, host },
	LISTINGS32(_)
#undef _
}, listings16[] = {
#define _(guest, host) { guest, host },
	LISTINGS16(_)
#undef _
};

extern const uint8_t listing_bytes[], listing32_bytes[], listing16_bytes[];
__asm__(".pushsection .rodata\n.globl listing_bytes, listing32_bytes, listing16_bytes\nlisting_bytes:\n"
#define _(guest, host) ".byte 2f-1f\n1: " guest "\n2:\n"
	LISTINGS(_)
	"listing32_bytes:\n.code32\n"
	LISTINGS32(_)
	"listing16_bytes:\n.code16\n"
	LISTINGS16(_)
#undef _
	".code64\n.popsection");
/* clang-format on */

static const struct cpu_model *everything(void)
{
	static struct cpu_model model;

	for (unsigned n = 0; n < FEATURE_COUNT; n++)
		model.features[n] = true;
	return &model;
}

static uint8_t code[1024];

/* Offsets in the vCPU change: names instead. */
static void name_state(char *line, size_t size)
{
	static const struct {
		const char *name;
		size_t offset;
	} fields[] = {
		{ "r10", BT_GPR(R10) },
		{ "r11", BT_GPR(R11) },
		{ "r15", BT_GPR(R15) },
		{ "fs_base", offsetof(struct vcpu, s.seg_base[FS]) },
		{ "gs_base", offsetof(struct vcpu, s.seg_base[GS]) },
		{ "slot_r15", offsetof(struct bt_vcpu, slot_r15) },
		{ "rcx", BT_GPR(RCX) },
		{ "jump", offsetof(struct bt_vcpu, frame.jump) },
		{ "miss", offsetof(struct bt_vcpu, frame.miss_glue) },
		{ "exit", offsetof(struct bt_vcpu, frame.exit_glue) },
		{ "code_base", offsetof(struct bt_vcpu, frame.code_base) },
		{ "es_base", offsetof(struct vcpu, s.seg_base[ES]) },
		{ "fs_selector", offsetof(struct vcpu, s.seg_sel[FS]) },
		{ "es_selector", BT_SELECTOR(ES) },
		{ "cs_selector", BT_SELECTOR(CS) },
		{ "cs_base", BT_BASE(CS) },
		{ "rflags", offsetof(struct vcpu, s.rflags) },
		{ "read_limit_ds", offsetof(struct bt_vcpu, frame.read_limit[DS]) },
		{ "read_limit_ss", offsetof(struct bt_vcpu, frame.read_limit[SS]) },
		{ "read_limit_fs", offsetof(struct bt_vcpu, frame.read_limit[FS]) },
		{ "read_limit_gs", offsetof(struct bt_vcpu, frame.read_limit[GS]) },
		{ "write_limit_fs", offsetof(struct bt_vcpu, frame.write_limit[FS]) },
		{ "write_limit_es", offsetof(struct bt_vcpu, frame.write_limit[ES]) },
		{ "write_limit_ss", offsetof(struct bt_vcpu, frame.write_limit[SS]) },
		{ "wrap_limit", offsetof(struct bt_vcpu, frame.wrap_limit) },
		{ "saved_edi", offsetof(struct bt_vcpu, frame.string_saved[1]) },
		{ "tlb", offsetof(struct vcpu, tlb) },
		{ "value", offsetof(struct bt_vcpu, frame.value) },
		{ "asid", offsetof(struct vcpu, asid) },
		{ "target", offsetof(struct bt_vcpu, frame.target) },
		{ "fast", offsetof(struct bt_vcpu, frame.fast_glue) },
	};
	char *at = strstr(line, "gs:[0x"), rest[64] = "";
	size_t offset;

	if (at && sscanf(at, "gs:[%zx]%63[^\n]", &offset, rest) >= 1) {
		for (unsigned n = 0; n < ARRAY_SIZE(fields); n++)
			if (fields[n].offset == offset)
				snprintf(at, size - (size_t)(at - line), "gs:%s%s", fields[n].name, rest);
	} else if ((at = strstr(line, "[r15+0x")) && sscanf(at, "[r15+%zx]%63[^\n]", &offset, rest) >= 1) {
		for (unsigned n = 0; n < ARRAY_SIZE(fields); n++)
			if (fields[n].offset == offset)
				snprintf(at, size - (size_t)(at - line), "[r15+%s]%s", fields[n].name, rest);
	}
}

static void list_code(const struct cpu_model *model, const struct emitter *e, char *text, size_t size)
{
	size_t used = 0;

	for (const uint8_t *p = code; p < e->at;) {
		struct insn i;
		char line[160];

		cpu_disassemble(MODE_64, p, 15, 0, line, sizeof(line));
		name_state(line, sizeof(line));
		used += (size_t)snprintf(text + used, size - used, "%s\n", line);
		p += cpu_decode(model, MODE_64, p, 15, 0, &i, NULL);
	}
}

/* What translate.c asks besides emit_insn(). */
static bool emits_other(struct emitter *e, const struct insn *i)
{
	uint64_t target;

	return emit_string(e, i) || ((i->flags & INSN_ENDS) && emit_segment_insn(e, i, 0x20, &target) != FAR_CALLOUT);
}

#define LISTED 16 /* instructions at most */

static void list_guest(const struct cpu_model *model, enum code_mode mode, const uint8_t *bytes, unsigned len,
		       char *text, size_t size)
{
	struct emitter e = { .at = code,
			     .end = code + sizeof(code),
			     .code32 = mode != MODE_64,
			     .plain_segments = 63,
			     .based_segments = 1 << ES | 1 << FS | 1 << GS };
	struct insn_host hosts[LISTED];
	struct insn insns[LISTED];
	unsigned count = 0;
	bool callout = false;

	if (mode == MODE_16) {
		e.plain_segments = 0;
		e.wide_segments = e.based_segments = 63;
		e.stack16 = e.real = e.no_paging = true;
		e.code_base = 0x12340;
		e.code_limit = 0xffff;
	}
	memset(code, 0x90, sizeof(code));
	for (unsigned at = 0; at < len; at += insns[count++].len) {
		uint8_t padded[32] = { 0 };

		assert_true(count < LISTED);
		memcpy(padded, bytes + at, len - at);
		cpu_decode(model, mode, padded, 15, at, &insns[count], &hosts[count]);
		assert_int_not_equal(insns[count].op, OP_INVALID);
	}
	for (unsigned n = 0; n < count && !callout; n++) {
		const struct insn *i = &insns[n];

		e.later = i + 1;
		e.later_hosts = &hosts[n + 1];
		e.later_count = count - n - 1;
		callout = !(mode == MODE_16 && emits_other(&e, i)) &&
			  emit_insn(&e, i, &hosts[n], RIP + i->offset) == EMIT_CALLOUT;
	}
	text[0] = '\0';
	list_code(model, &e, text, size);
	if (callout)
		strncat(text, "callout\n", size - strlen(text) - 1);
}

static void check_listings(enum code_mode mode, const uint8_t *p, const struct listing *listing, size_t count)
{
	bool failed = false;

	for (unsigned n = 0; n < count; n++) {
		char text[2048];

		list_guest(everything(), mode, p + 1, *p, text, sizeof(text));
		p += 1 + *p;
		if (!strcmp(text, listing[n].host))
			continue;
		failed = true;
		print_message("# %s is now:\n", listing[n].guest);
		for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1)
			print_message("#\t%.*s\n", (int)(end - line), line);
	}
	assert_false(failed);
}

static void check_listing(const struct emitter *e, const char *host)
{
	char text[2048];

	list_code(everything(), e, text, sizeof(text));
	assert_string_equal(text, host);
}

static struct emitter empty(void) { return (struct emitter){ .at = code, .end = code + sizeof(code) }; }

static void test_ways_out(void **state)
{
	struct emitter e = empty();

	(void)state;
	emit_leave(&e, 0x123);
	check_listing(&e, "mov r11d, 0x123\n"
			  "jmp qword ptr gs:exit\n");
	e = empty();
	emit_lookup(&e, 0x123);
	check_listing(&e, "mov qword ptr gs:rcx, rcx\n"
			  "mov r11, qword ptr gs:jump\n"
			  "mov ecx, 0x00\n"
			  "crc32 rcx, r10\n"
			  "shrx ecx, ecx, r11d\n"
			  "lea rcx, [rcx+rcx*1]\n"
			  "lea r11, [r11+rcx*8]\n"
			  "mov rcx, qword ptr [r11-0x11]\n"
			  "lea rcx, [rcx+r10*1]\n"
			  "jrcxz 0x0000000000000010\n"
			  "mov r11d, 0x123\n"
			  "jmp qword ptr gs:miss\n"
			  "mov rcx, qword ptr gs:rcx\n"
			  "jmp qword ptr [r11-0x09]\n");
	e = empty();
	emit_lookup_constant(&e, RIP, 0x123);
	check_listing(&e, "mov qword ptr gs:rcx, rcx\n"
			  "mov r11, qword ptr gs:jump\n"
			  "mov r10, 0x555555554000\n"
			  "mov rcx, qword ptr [r11+0x70CEF]\n"
			  "lea rcx, [rcx+r10*1]\n"
			  "jrcxz 0x0000000000000010\n"
			  "mov r11d, 0x123\n"
			  "jmp qword ptr gs:miss\n"
			  "mov rcx, qword ptr gs:rcx\n"
			  "jmp qword ptr [r11+0x70CF7]\n");
}

static void test_listings(void **state)
{
	(void)state;
	check_listings(MODE_64, listing_bytes, listings, ARRAY_SIZE(listings));
}

static void test_listings32(void **state)
{
	(void)state;
	check_listings(MODE_32, listing32_bytes, listings32, ARRAY_SIZE(listings32));
}

static void test_listings16(void **state)
{
	(void)state;
	check_listings(MODE_16, listing16_bytes, listings16, ARRAY_SIZE(listings16));
}

/* In segments that are not plain offsets are compared with a limit; a stack with a base is one more register. */
static void test_segments(void **state)
{
	static const uint8_t load[] = { 0x8b, 0x03 }, push[] = { 0x50 }; /* mov (%ebx), %eax; push %eax */
	struct emitter e = empty();
	uint8_t padded[15] = { 0 };
	struct insn_host h;
	struct insn i;

	(void)state;
	memcpy(padded, load, sizeof(load));
	cpu_decode(everything(), MODE_32, padded, 15, 0, &i, &h);
	e.code32 = true;
	e.plain_segments = 63 & ~(1 << DS);
	assert_int_equal(emit_insn(&e, &i, &h, RIP), EMIT_DONE);
	check_listing(&e, "lea r10d, [rbx]\n"
			  "mov r11, qword ptr [r15+read_limit_ds]\n"
			  "mov r11b, byte ptr [r11+r10*1+0x03]\n"
			  "mov eax, dword ptr gs:[r10d]\n");
	e = empty();
	e.code32 = true;
	e.plain_segments = 1 << DS;
	assert_int_equal(emit_insn(&e, &i, &h, RIP), EMIT_DONE);
	check_listing(&e, "mov eax, dword ptr gs:[ebx]\n");

	memcpy(padded, push, sizeof(push));
	cpu_decode(everything(), MODE_32, padded, 15, 0, &i, &h);
	e = empty();
	e.code32 = true;
	e.plain_segments = e.based_segments = 1 << SS;
	assert_int_equal(emit_insn(&e, &i, &h, RIP), EMIT_DONE);
	check_listing(&e, "lea r10d, [rsp-0x04]\n"
			  "mov r11, qword ptr [r15+write_limit_ss]\n"
			  "mov r11b, byte ptr [r11+r10*1+0x03]\n"
			  "mov dword ptr gs:[r10d+r9d*1], eax\n"
			  "lea esp, [rsp-0x04]\n");
}

/* What does not fit is not written, and what was written stays. */
static void test_full(void **state)
{
	static const uint8_t load[] = { 0x48, 0x8b, 0x03 }; /* mov (%rbx), %rax */
	struct cpu_model model = { .cpu_count = 1 };
	struct insn_host h;
	struct insn i;

	(void)state;
	cpu_decode(&model, MODE_64, load, sizeof(load), 0, &i, &h);
	for (size_t room = 0; room < 14 + EMIT_SLACK; room++) {
		struct emitter e = { .at = code, .end = code + room };

		memset(code, 0x90, sizeof(code));
		emit_insn(&e, &i, &h, RIP);
		assert_true(e.full);
		assert_true((size_t)(e.at - code) + EMIT_SLACK <= room || e.at == code);
		for (uint8_t *p = e.at; p < code + sizeof(code); p++)
			assert_int_equal(*p, 0x90);
		assert_null(emit_jump(&e, -1, code));
	}
}

/* The TLB leads to one page: what may reach beyond the operand that was looked up is C's. */
static void test_bit_strings_by_tlb(void **state)
{
	static const struct {
		uint8_t bytes[5], mode;
	} instructions[] = {
		{ { 0x0f, 0xa3, 0x03 }, MODE_64 },	 /* bt %eax, (%rbx) */
		{ { 0x66, 0x0f, 0xab, 0x03 }, MODE_64 }, /* bts %ax, (%rbx) */
		{ { 0x48, 0x0f, 0xbb, 0x03 }, MODE_64 }, /* btc %rax, (%rbx) */
		{ { 0x0f, 0xab, 0x03 }, MODE_32 },	 /* bts %eax, (%ebx) */
	};

	(void)state;
	for (unsigned n = 0; n < ARRAY_SIZE(instructions); n++) {
		struct emitter e = empty();
		uint8_t padded[15] = { 0 };
		struct insn_host h;
		struct insn i;

		memcpy(padded, instructions[n].bytes, sizeof(instructions[n].bytes));
		cpu_decode(everything(), instructions[n].mode, padded, 15, 0, &i, &h);
		e.way = BY_TLB;
		e.code32 = instructions[n].mode == MODE_32;
		e.plain_segments = 63;
		assert_int_equal(emit_insn(&e, &i, &h, RIP), EMIT_CALLOUT);
	}
}

/* 32-bit code: the address is cut to 32 bits first; R12 leads to the entry, since R15 is the vCPU. */
static void test_tlb32(void **state)
{
	static const uint8_t load[] = { 0x64, 0x66, 0x0f, 0x6f, 0x4b, 0x10 }; /* movdqa %fs:16(%ebx), %xmm1 */
	struct tlb_lookup *lookup = bt_tlb_lookup_create(true);
	struct emitter e = empty();
	uint8_t padded[15] = { 0 };
	struct insn_host h;
	struct insn i;

	(void)state;
	memcpy(padded, load, sizeof(load));
	cpu_decode(everything(), MODE_32, padded, 15, 0, &i, &h);
	e.way = BY_TLB;
	e.code32 = true;
	e.plain_segments = 63;
	e.based_segments = 1 << FS;
	e.tlb_lookup = lookup;
	e.exit_arg = 0x123;
	assert_int_equal(emit_insn(&e, &i, &h, RIP), EMIT_DONE);
	check_listing(&e, "lea r10d, [rbx+0x10]\n"
			  "mov r11, qword ptr [r15+read_limit_fs]\n"
			  "mov r11b, byte ptr [r11+r10*1+0x0F]\n"
			  "lea r10d, [r10+r13*1]\n"
			  "mov qword ptr [r15+value], r12\n"
			  "mov qword ptr [r15+rcx], rcx\n"
			  "mov r11d, 0x0C\n"
			  "shrx rcx, r10, r11\n"
			  "mov r12d, 0x36\n"
			  "shlx rcx, rcx, r12\n"
			  "shrx rcx, rcx, r12\n"
			  "mov r12, qword ptr [r15+tlb]\n"
			  "lea rcx, [rcx*4]\n"
			  "lea r12, [r12+rcx*8]\n"
			  "lea rcx, [r10+0x0F]\n"
			  "shrx rcx, rcx, r11\n"
			  "shlx rcx, rcx, r11\n"
			  "mov r11, qword ptr [r15+asid]\n"
			  "lea rcx, [rcx+r11*1]\n"
			  "mov r11, qword ptr [r12]\n"
			  "not r11\n"
			  "lea rcx, [rcx+r11*1+0x01]\n"
			  "mov r11, qword ptr [r12+0x10]\n"
			  "lea r11, [r11+r10*1]\n"
			  "mov r12, qword ptr [r15+value]\n"
			  "jrcxz 0x000000000000001A\n"
			  "mov rcx, qword ptr [r15+rcx]\n"
			  "mov qword ptr [r15+target], r10\n"
			  "mov r11d, 0x123\n"
			  "jmp qword ptr [r15+fast]\n"
			  "mov rcx, qword ptr [r15+rcx]\n"
			  "movdqa xmm1, xmmword ptr [r11]\n");
	free(lookup);
}

/* What depends on where the code is, of a block that may be anywhere. */
static void test_anywhere(void **state)
{
	static const uint8_t load[] = { 0x48, 0x8d, 0x05, 0xf0, 0xff, 0xff, 0x7f }; /* lea 0x7ffffff0(%rip), %rax */
	static const uint8_t store[] = { 0x89, 0x05, 0x01, 0x04, 0x00, 0x00 };	    /* mov %eax, 0x401(%rip) */
	static const uint8_t far_store[] = { 0x89, 0x05, 0xf0, 0xff, 0xff, 0x7f };  /* mov %eax, 0x7ffffff0(%rip) */
	struct emitter e = empty();
	struct insn_host h;
	struct insn i;

	(void)state;
	e.anywhere = true;
	e.way = BY_TLB;
	emit_note_code_base(&e, 0x123);
	check_listing(&e, "lea r11, [r10-0x123]\n"
			  "mov qword ptr gs:code_base, r11\n");
	e.at = code;
	emit_code_address(&e, RAX, -(uint64_t)0x10);
	check_listing(&e, "mov rax, qword ptr gs:code_base\n"
			  "lea rax, [rax-0x10]\n");
	e.at = code;
	cpu_decode(everything(), MODE_64, load, sizeof(load), 0, &i, &h);
	assert_int_equal(emit_insn(&e, &i, &h, 0x100), EMIT_DONE);
	check_listing(&e, "mov r10, qword ptr gs:code_base\n"
			  "lea r10, [r10+0x7FFFFFFF]\n"
			  "lea rax, [r10+0xF8]\n");
	/* By windows: that of the code's page, within 2 GiB of which the operand is, or of a register that is near. */
	e.way = BY_WINDOWS;
	e.at = code;
	cpu_decode(everything(), MODE_64, store, sizeof(store), 0, &i, &h);
	assert_int_equal(emit_insn(&e, &i, &h, 0x100), EMIT_DONE);
	check_listing(&e, "mov r10, qword ptr gs:code_base\n"
			  "sarx r11, r10, r15\n"
			  "mov r11, qword ptr [r15+r11*8-0x27]\n"
			  "mov dword ptr [r11+r10*1+0x507], eax\n");
	e.at = code;
	cpu_decode(everything(), MODE_64, far_store, sizeof(far_store), 0, &i, &h);
	assert_int_equal(emit_insn(&e, &i, &h, 0x100), EMIT_DONE);
	check_listing(&e, "mov r10, qword ptr gs:code_base\n"
			  "lea r10, [r10+0x7FFFFFFF]\n"
			  "sarx r11, r10, r15\n"
			  "mov r11, qword ptr [r15+r11*8-0x27]\n"
			  "mov dword ptr [r11+r10*1+0xF7], eax\n");
}

static void test_jumps(void **state)
{
	static uint8_t pages[2 * PAGE_SIZE]; /* written, and as if it were executed one page further */
	struct emitter e = { .at = pages, .end = pages + PAGE_SIZE, .to_exec = PAGE_SIZE };
	uint8_t *rel32 = emit_jump(&e, 5, pages + PAGE_SIZE + 256);

	(void)state;
	assert_ptr_equal(rel32, pages + 2);
	assert_memory_equal(pages, "\x0f\x85\xfa\x00\x00\x00", 6);
	rel32 = emit_jump(&e, -1, pages + PAGE_SIZE);
	assert_ptr_equal(rel32, pages + 7);
	assert_memory_equal(pages + 6, "\xe9\xf5\xff\xff\xff", 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_listings),   cmocka_unit_test(test_listings32),
		cmocka_unit_test(test_listings16), cmocka_unit_test(test_segments),
		cmocka_unit_test(test_ways_out),   cmocka_unit_test(test_full),
		cmocka_unit_test(test_jumps),	   cmocka_unit_test(test_bit_strings_by_tlb),
		cmocka_unit_test(test_tlb32),	   cmocka_unit_test(test_anywhere),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
