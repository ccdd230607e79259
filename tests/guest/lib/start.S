/*
 * Entries of the boot processor (PVH in 32-bit mode, plain ELF64 in long mode), the way of the others from real mode, the stubs
 * of all 256 vectors, and run()'s switch of registers.
 */
#include "guest.h"

#define MSR_EFER 0xc0000080

	.section .note.pvh, "a"
	.balign 4
	.long 4, 4, 18			/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long entry_32

	.section .text.start, "ax"
	.code32
entry_32:
	mov	$start_stack_top, %esp
	mov	%ebx, start_info
	cld
	/* The first 4 GiB with pages of 2 MiB, until paging_init(). */
	mov	$start_pml4, %edi
	lea	0x1003(%edi), %eax
	mov	%eax, (%edi)
	lea	0x1000(%edi), %ebx
	mov	$4, %ecx
1:	add	$0x1000, %eax
	mov	%eax, (%ebx)
	add	$8, %ebx
	loop	1b
	lea	0x2000(%edi), %ebx
	mov	$0x83, %eax
	mov	$2048, %ecx
2:	mov	%eax, (%ebx)
	add	$8, %ebx
	add	$0x200000, %eax
	loop	2b
	mov	%edi, %cr3
	mov	$0x20, %eax		/* PAE */
	mov	%eax, %cr4
	mov	$MSR_EFER, %ecx
	rdmsr
	bts	$8, %eax		/* LME */
	wrmsr
	mov	$0x80000023, %eax	/* PG, NE, MP, PE */
	mov	%eax, %cr0
	lgdt	start_gdtr
	ljmp	$KERNEL_CS, $3f

	.code64
3:	mov	$KERNEL_DS, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	jmp	enter
	.globl entry_64
entry_64:
	mov	%rdi, start_info
enter:	mov	$start_stack_top, %esp
	xor	%ebp, %ebp
	push	$2
	popf
	call	start
	ud2

	.section .rodata
	.balign 8
start_gdt:
	.quad 0, 0x00cf9b000000ffff, 0x00af9b000000ffff, 0x00cf93000000ffff
start_gdtr:
	.word start_gdtr - start_gdt - 1
	.quad start_gdt

	.bss
	.balign 4096
start_pml4:
	.skip 6 * 4096
	.balign 16
	.skip STACK_SIZE
start_stack_top:
	.data
	.globl start_info
start_info:
	.quad 0

/*
 * Where further processors begin: copied to a page below 1 MiB, CS = page >> 4. Its own words at the end are filled in first:
 * CR3 and the counter, from which each takes its number.
 */
	.section .rodata
	.globl trampoline, trampoline_end, trampoline_cr3
	.balign 16
	.code16
trampoline:
	cli
	mov	%cs, %ax
	mov	%ax, %ds
	xor	%ebx, %ebx
	mov	%ax, %bx
	shl	$4, %ebx		/* linear address of this page */
	lea	trampoline_gdt - trampoline(%ebx), %eax
	mov	%eax, trampoline_gdtr + 2 - trampoline
	lea	trampoline_32 - trampoline(%ebx), %eax
	mov	%eax, trampoline_jump - trampoline
	lgdtl	trampoline_gdtr - trampoline
	mov	$0x21, %eax		/* PE, NE; caches on */
	mov	%eax, %cr0
	ljmpl	*(trampoline_jump - trampoline)
	.code32
trampoline_32:
	mov	$KERNEL_DS, %ax
	mov	%ax, %ds
	mov	$0x20, %eax
	mov	%eax, %cr4
	mov	trampoline_cr3 - trampoline(%ebx), %eax
	mov	%eax, %cr3
	mov	$MSR_EFER, %ecx
	rdmsr
	bts	$8, %eax
	wrmsr
	mov	$0x80000023, %eax
	mov	%eax, %cr0
	ljmp	$KERNEL_CS, $ap_64	/* linked at its place: identity-mapped */
	.balign 8
trampoline_gdt:
	.quad 0, 0x00cf9b000000ffff, 0x00af9b000000ffff, 0x00cf93000000ffff
trampoline_gdtr:
	.word trampoline_gdtr - trampoline_gdt - 1
	.long 0
trampoline_jump:
	.long 0
	.word KERNEL_CS32
	.balign 8
trampoline_cr3:
	.long 0
trampoline_end:

	.text
	.code64
ap_64:	mov	$KERNEL_DS, %eax
	mov	%eax, %ss
	mov	%eax, %es
	mov	$1, %edi
	lock xadd %edi, ap_next		/* this processor's number */
	lea	1(%edi), %eax
	imul	$STACK_SIZE, %rax
	lea	ap_stacks(%rax), %rsp
	push	$2
	popf
	xor	%ebp, %ebp
	call	ap_start
	ud2
	.data
	.globl ap_next
ap_next: .long 1
	.bss
	.balign 16
ap_stacks: .skip STACK_SIZE * MAX_CPUS

/* ---- stubs: every vector's pushes what the processor did not, so that all have a struct frame ---- */

	.text
	.balign 16
	.globl stubs, stub_size
stubs:
	vector = 0
	.rept	256
	.balign 16
	.if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
	push	$0
	.endif
	push	$vector
	jmp	stub_common
	vector = vector + 1
	.endr

stub_common:
	push	%rax
	push	%rcx
	push	%rdx
	push	%rbx
	push	%rbp
	push	%rsi
	push	%rdi
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	cld
	mov	%rsp, %rdi
	mov	%rsp, %rbp
	and	$~15, %rsp
	call	trap_entry
	mov	%rbp, %rsp
load_frame:
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rdi
	pop	%rsi
	pop	%rbp
	pop	%rbx
	pop	%rdx
	pop	%rcx
	pop	%rax
	add	$16, %rsp
	.globl run_iretq
run_iretq:
	iretq

/* void run_from(const struct frame *, u64 *jump): returns when leave_run() is called with what is in *jump. */
	.globl run_from, leave_run
run_from:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rsp, (%rsi)
	sub	$22 * 8, %rsp
	mov	%rdi, %rsi
	mov	%rsp, %rdi
	mov	$22, %ecx
	rep movsq
	jmp	load_frame
leave_run:
	mov	%rdi, %rsp
	push	$2
	popf
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

	.section .note.GNU-stack, "", @progbits
