/*
 * The audit's guest: a kernel that sets up tables and registers with known values (guest.h), runs each case's snippet in the mode
 * and ring that the case says, and writes down how it came back: registers, vector, what was pushed. It judges nothing.
 * The image is copied to GUEST_KERNEL and entered at its first byte, in flat 32-bit protected mode, paging off. First come the cases of
 * 32-bit protected and virtual-8086 mode, then, through long mode, those of 64-bit and compatibility mode.
 */
#include "audit/guest.h"

#define AT(label) (label - audit_kernel + GUEST_KERNEL)

#define MSR_TSC		  0x10
#define MSR_SYSENTER_CS	  0x174
#define MSR_EFER	  0xc0000080
#define MSR_STAR	  0xc0000081
#define MSR_LSTAR	  0xc0000082
#define MSR_FS_BASE	  0xc0000100
#define MSR_GS_BASE	  0xc0000101
#define MSR_TSC_AUX	  0xc0000103
#define EXIT_PORT	  0xf4
#define SAVED		  15 /* words of a frame: eight registers, vector, error, IP, CS, flags, SP, SS */

	.section .rodata
	.balign 16
	.globl audit_kernel, audit_kernel_end
audit_kernel:
	.code32
	jmp	start

	.org	audit_kernel + 0x10, 0x90
gdt:	.quad	0
	.quad	0x00cf9b000000ffff	/* KERNEL_CS32 */
	.quad	0x00af9b000000ffff	/* KERNEL_CS64 */
	.quad	0x00cf93000000ffff	/* KERNEL_DS */
	.quad	0x00cffb000000ffff	/* USER_CS32 */
	.quad	0x00cff3000000ffff	/* USER_DS */
	.quad	0x00affb000000ffff	/* USER_CS64 */
	.quad	0x00cffb000000ffff	/* OTHER_CS32 */
	.quad	0x00affb000000ffff	/* OTHER_CS64 */
	.quad	0x0050f3032000abcd	/* MARK_DS */
	.quad	0x00cff1000000ffff	/* READ_DS */
	.quad	0x00cff9000000ffff	/* EXECUTE_CS */
	.word	gate_32 - audit_kernel, KERNEL_CS32, 0xec00, GUEST_KERNEL >> 16
	.word	gate_64 - audit_kernel, KERNEL_CS64, 0xec00, GUEST_KERNEL >> 16
	.quad	0
	.quad	0x000082062f00000f, 0	/* GUEST_LDT */
	.quad	0x0000890620000067	/* TSS_32 */
	.quad	0x0000890621000067, 0	/* TSS_64 */
gdt_end:
gdtr:	.word	GDT_SIZE - 1
	.long	GUEST_GDT
idtr_32: .word	IDT_VECTORS * 8 - 1
	.long	GUEST_IDT_32
idtr_64: .word	IDT_VECTORS * 16 - 1
	.quad	GUEST_IDT_64

#define SET_MSR(number, low, high)	\
	mov	$(number), %ecx;	\
	mov	$(low), %eax;		\
	mov	$(high), %edx;		\
	wrmsr

/* ---- legacy mode ---- */

start:	lgdt	AT(gdtr)
	ljmp	$KERNEL_CS32, $AT(1f)
1:	mov	$KERNEL_DS, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$GUEST_KERNEL_STACK, %esp
	cld
	mov	$0xff, %al		/* no interrupts from the 8259s */
	out	%al, $0x21
	out	%al, $0xa1
	mov	$GUEST_MSW, %eax
	mov	%eax, %cr0
	xor	%ecx, %ecx		/* the IDT: gates of ring 0, one every 16 bytes of stubs */
2:	mov	%ecx, %eax
	shl	$4, %eax
	add	$AT(stubs_32), %eax
	mov	%ax, GUEST_IDT_32(, %ecx, 8)
	movw	$KERNEL_CS32, GUEST_IDT_32 + 2(, %ecx, 8)
	mov	$0x8e00, %ax
	mov	%eax, GUEST_IDT_32 + 4(, %ecx, 8)
	inc	%ecx
	cmp	$IDT_VECTORS, %ecx
	jb	2b
	orb	$0x60, GUEST_IDT_32 + 5 + 8 * 3	/* #BP, and these, for ring 3 */
	orb	$0x60, GUEST_IDT_32 + 5 + 8 * 4
	orb	$0x60, GUEST_IDT_32 + 5 + 8 * VECTOR_END
	orb	$0x60, GUEST_IDT_32 + 5 + 8 * VECTOR_USER
	lidt	AT(idtr_32)
	mov	$GUEST_LDT, %eax
	lldt	%ax
	movl	$GUEST_KERNEL_STACK, GUEST_TSS + 4
	movl	$KERNEL_DS, GUEST_TSS + 8
	movw	$0x68, GUEST_TSS + 102		/* no I/O permission bitmap */
	mov	$TSS_32, %eax
	ltr	%ax
	SET_MSR(MSR_TSC, 0, GUEST_TSC << 8)
	SET_MSR(MSR_SYSENTER_CS, KERNEL_CS32, 0)
	SET_MSR(MSR_SYSENTER_CS + 1, GUEST_KERNEL_STACK, 0)
	SET_MSR(MSR_SYSENTER_CS + 2, AT(sysenter_32), 0)
	movl	$GUEST_CASES, GUEST_CURRENT
	movl	$GUEST_RESULTS, GUEST_CURRENT + 8

next_32:
	mov	GUEST_CURRENT, %esi
	cmpl	$KIND_NONE, CASE_KIND(%esi)
	je	to_long_mode
	cmpl	$KIND_LEGACY, CASE_KIND(%esi)
	jne	advance_32
	mov	$KERNEL_DS, %eax	/* SYSENTER leaves another one */
	mov	%eax, %ss
	mov	$GUEST_KERNEL_STACK, %esp
	mov	CASE_CR4(%esi), %eax
	mov	%eax, %cr4
	mov	CASE_DATA(%esi), %eax
	push	%eax			/* GS, FS, DS, ES: for virtual-8086 mode */
	push	%eax
	push	%eax
	push	%eax
	pushl	CASE_SS(%esi)		/* without a change of rings IRET leaves SS and SP where they are */
	pushl	CASE_SP(%esi)
	pushl	CASE_FLAGS(%esi)
	pushl	CASE_CS(%esi)
	pushl	CASE_IP(%esi)
	testl	$1 << 17, CASE_FLAGS(%esi)
	jnz	1f
	mov	%eax, %es
	mov	%eax, %fs
	mov	%eax, %gs
	mov	%eax, %ds
1:	xor	%ebx, %ebx
	xor	%ecx, %ecx
	xor	%edx, %edx
	xor	%ebp, %ebp
	mov	CASE_RAX(%esi), %eax
	mov	CASE_DI(%esi), %edi
	iretl

	.balign	16
stubs_32:
	vector = 0
	.rept	IDT_VECTORS
	.balign	16
	.if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17)
	push	$0
	.endif
	push	$vector
	jmp	trapped_32
	vector = vector + 1
	.endr

/* Through the call gate: no flags on the stack; room is made for them below SP. */
gate_32:
	pushl	(%esp)
	pushl	8(%esp)
	popl	4(%esp)
	pushf
	popl	8(%esp)
	pushl	$0
	pushl	$CAME_BY_GATE
	jmp	trapped_32

sysenter_32:
	push	%ss
	push	%esp
	pushf
	push	%cs
	push	$0
	push	$0
	push	$CAME_BY_CALL
trapped_32:
	pusha
	mov	$KERNEL_DS, %eax
	mov	%eax, %ds
	mov	%eax, %es
	cld
	mov	%esp, %esi
	mov	GUEST_CURRENT + 8, %edi
	mov	$SAVED, %ecx
1:	movsl
	movl	$0, (%edi)
	add	$4, %edi
	loop	1b
	movl	$1, RESULT_DONE - SAVED * 8(%edi)
advance_32:
	addl	$CASE_SIZE, GUEST_CURRENT
	addl	$RESULT_SIZE, GUEST_CURRENT + 8
	jmp	next_32

/* ---- long mode ---- */

to_long_mode:
	xor	%ecx, %ecx		/* the first 2 MiB, everywhere; but KERNEL_PAGE is ring 0's */
1:	movl	$GUEST_TABLES + 0x1007, GUEST_TABLES(, %ecx, 8)
	movl	$GUEST_TABLES + 0x2007, GUEST_TABLES + 0x1000(, %ecx, 8)
	movl	$0x87, GUEST_TABLES + 0x2000(, %ecx, 8)
	inc	%ecx
	cmp	$512, %ecx
	jb	1b
	movl	$0x83, GUEST_TABLES + 0x2000 + KERNEL_PAGE / 0x200000 * 8
	mov	$GUEST_TABLES, %eax
	mov	%eax, %cr3
	mov	$0x20, %eax		/* PAE */
	mov	%eax, %cr4
	SET_MSR(MSR_EFER, 0x101, 0)	/* LME, SCE */
	mov	$0x80000000 | GUEST_MSW, %eax
	mov	%eax, %cr0
	ljmp	$KERNEL_CS64, $AT(1f)
	.code64
1:	xor	%ecx, %ecx
2:	mov	%ecx, %eax
	shl	$4, %eax
	mov	%ecx, %edi
	shl	$4, %edi
	add	$AT(stubs_64), %eax
	mov	%ax, GUEST_IDT_64(%rdi)
	movw	$KERNEL_CS64, GUEST_IDT_64 + 2(%rdi)
	mov	$0x8e00, %ax
	mov	%eax, GUEST_IDT_64 + 4(%rdi)
	movq	$0, GUEST_IDT_64 + 8(%rdi)
	inc	%ecx
	cmp	$IDT_VECTORS, %ecx
	jb	2b
	orb	$0x60, GUEST_IDT_64 + 5 + 16 * 3
	orb	$0x60, GUEST_IDT_64 + 5 + 16 * 4
	orb	$0x60, GUEST_IDT_64 + 5 + 16 * VECTOR_END
	orb	$0x60, GUEST_IDT_64 + 5 + 16 * VECTOR_USER
	lidt	AT(idtr_64)
	movl	$GUEST_KERNEL_STACK, GUEST_TSS + 0x100 + 4
	movw	$0x68, GUEST_TSS + 0x100 + 102
	mov	$TSS_64, %eax
	ltr	%ax
	SET_MSR(MSR_TSC, 0, GUEST_TSC << 8)
	SET_MSR(MSR_TSC_AUX, GUEST_TSC_AUX, 0)
	SET_MSR(MSR_STAR, 0, KERNEL_CS64)
	SET_MSR(MSR_LSTAR, AT(syscall_64), 0)
	movq	$GUEST_CASES, GUEST_CURRENT
	movq	$GUEST_RESULTS, GUEST_CURRENT + 8

next_64:
	mov	GUEST_CURRENT, %rsi
	cmpl	$KIND_NONE, CASE_KIND(%rsi)
	je	finish
	cmpl	$KIND_LONG, CASE_KIND(%rsi)
	jne	advance_64
	mov	$GUEST_KERNEL_STACK, %esp
	mov	CASE_CR4(%rsi), %eax
	mov	%rax, %cr4
	mov	CASE_SS(%rsi), %eax
	push	%rax
	mov	CASE_SP(%rsi), %eax
	push	%rax
	mov	CASE_FLAGS(%rsi), %eax
	push	%rax
	mov	CASE_CS(%rsi), %eax
	push	%rax
	mov	CASE_IP(%rsi), %eax
	push	%rax
	mov	CASE_DATA(%rsi), %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %fs
	mov	%eax, %gs
	SET_MSR(MSR_FS_BASE, GUEST_FS_BASE, 0)
	SET_MSR(MSR_GS_BASE, GUEST_GS_BASE, 0)
	xor	%ebx, %ebx
	xor	%ecx, %ecx
	xor	%edx, %edx
	xor	%ebp, %ebp
	mov	CASE_RAX(%rsi), %rax
	mov	CASE_DI(%rsi), %edi
	iretq

	.balign	16
stubs_64:
	vector = 0
	.rept	IDT_VECTORS
	.balign	16
	.if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17)
	push	$0
	.endif
	push	$vector
	jmp	trapped_64
	vector = vector + 1
	.endr

gate_64:
	push	(%rsp)
	push	16(%rsp)
	pop	8(%rsp)
	pushf
	pop	16(%rsp)
	push	$0
	push	$CAME_BY_GATE
	jmp	trapped_64

syscall_64:
	mov	$GUEST_KERNEL_STACK, %esp
	mov	%ss, %ecx
	push	%rcx
	push	$0
	push	%r11
	mov	%cs, %ecx
	push	%rcx
	push	$0
	push	$0
	push	$CAME_BY_CALL
trapped_64:
	push	%rax
	push	%rcx
	push	%rdx
	push	%rbx
	push	%rsp
	push	%rbp
	push	%rsi
	push	%rdi
	cld
	mov	%rsp, %rsi
	mov	GUEST_CURRENT + 8, %rdi
	mov	$SAVED, %ecx
	rep movsq
	movq	$1, RESULT_DONE - SAVED * 8(%rdi)
advance_64:
	addq	$CASE_SIZE, GUEST_CURRENT
	addq	$RESULT_SIZE, GUEST_CURRENT + 8
	jmp	next_64

finish:	out	%al, $EXIT_PORT
	jmp	finish
audit_kernel_end:

	.section .note.GNU-stack, "", @progbits
