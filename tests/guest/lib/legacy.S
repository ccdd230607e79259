/*
 * The way from 64-bit mode into the older modes and back: see legacy.h. SDM vol. 3A 9.8.5, 9.9.
 */
#include "legacy.h"

#define MSR_EFER     0xc0000080
#define LEGACY_STACK 0x2000

/* Offsets in struct legacy_state and struct legacy_trap, in order. */
#define GS     0
#define FS     4
#define ES     8
#define DS     12
#define EDI    16
#define ESI    20
#define EBP    24
#define HANDLER_DS 28
#define EBX    32
#define EDX    36
#define ECX    40
#define EAX    44
#define EIP    48
#define CS     52
#define EFLAGS 56
#define ESP    60
#define SS     64
#define STATE_CR0  84
#define STATE_CR3  88
#define STATE_CR4  92
#define STATE_EFER 96
#define STATE_TR   100
#define STATE_LDTR 104
#define STATE_REAL 108
#define VECTOR 68
#define ERROR  72
#define TRAP_TR	 76
#define TRAP_LDTR 80
#define TRAP_CR0  84
#define TRAP_CR2  88
#define TRAP_CR3  92
#define TRAP_DR6  96
#define HANDLER_ESP 100

	.text
	.code64
	.globl legacy_switch
/* void legacy_switch(void): from `legacy_start` to `legacy_trapped`. */
legacy_switch:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rsp, saved_rsp
	mov	%cr0, %rax
	mov	%rax, saved_cr0
	mov	%cr3, %rax
	mov	%rax, saved_cr3
	mov	%cr4, %rax
	mov	%rax, saved_cr4
	mov	$MSR_EFER, %ecx
	rdmsr
	mov	%eax, saved_efer
	sgdt	saved_gdtr
	sidt	saved_idtr
	lgdt	legacy_gdtr
	pushq	$KERNEL_CS32
	pushq	$1f
	lretq

	.code32
1:	mov	$KERNEL_DS, %eax	/* SS may be null */
	mov	%eax, %ss
	mov	$switch_stack + LEGACY_STACK, %esp
	call	load_flat
	mov	%cr0, %eax
	btr	$31, %eax
	mov	%eax, %cr0		/* long mode ends */
	mov	$MSR_EFER, %ecx
	xor	%edx, %edx
	mov	legacy_start + STATE_EFER, %eax
	wrmsr
	lidt	legacy_idtr
	mov	legacy_start + STATE_CR4, %eax
	mov	%eax, %cr4
	mov	legacy_start + STATE_CR3, %eax
	mov	%eax, %cr3
	mov	legacy_start + STATE_CR0, %eax
	cmpl	$0, legacy_start + STATE_REAL
	jne	to_real
	mov	%eax, %cr0
	jmp	2f
2:	ltr	legacy_start + STATE_TR
	lldt	legacy_start + STATE_LDTR
	mov	$legacy_start, %esp
	pop	%gs
	pop	%fs
	pop	%es
	pop	%ds
	popa
	testl	$FLAG_VM, 8(%esp)
	jnz	3f
	testl	$3, 4(%esp)
	jnz	3f
	/* The same ring: no IRET would load SS and ESP. */
	pushl	8(%esp)
	popf
	lss	12(%esp), %esp
	ljmp	*%cs:legacy_start + EIP
3:	iretl

load_flat:
	mov	$KERNEL_DS, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	%eax, %fs
	mov	%eax, %gs
	ret

/* Back with legacy_trapped filled in. Nothing is counted upon but CS, which is flat and of ring 0. */
legacy_back:
	mov	$KERNEL_DS, %eax
	mov	%eax, %ss
	mov	$switch_stack + LEGACY_STACK, %esp
	call	load_flat
	mov	$0x21, %eax		/* PE, NE; paging off */
	mov	%eax, %cr0
	/* No way into long mode with a TSS of 16 bits. */
	mov	legacy_gdt + LEGACY_TSS + 4, %ecx
	andb	$~2, legacy_gdt + LEGACY_TSS + 5
	mov	$LEGACY_TSS, %eax
	ltr	%ax
	mov	%ecx, legacy_gdt + LEGACY_TSS + 4 /* busy or not: as the test left it */
	mov	saved_cr4, %eax
	mov	%eax, %cr4
	mov	saved_cr3, %eax
	mov	%eax, %cr3
	mov	$MSR_EFER, %ecx
	xor	%edx, %edx
	mov	saved_efer, %eax
	btr	$10, %eax		/* LMA follows from paging */
	wrmsr
	mov	saved_cr0, %eax
	mov	%eax, %cr0
	lgdt	saved_gdtr
	ljmp	$KERNEL_CS, $4f
	.code64
4:	lgdt	saved_gdtr		/* all 64 bits of its base */
	lidt	saved_idtr
	mov	saved_rsp, %rsp
	push	$2
	popf
	cld
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

/* ---- exceptions and interrupts of protected and virtual-8086 mode ---- */

	.balign 16
	.globl legacy_stubs
legacy_stubs:
	.code32
	vector = 0
	.rept	LEGACY_VECTORS
	.balign 16
	.if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17)
	push	$0
	.endif
	push	$vector
	jmp	trap_32
	vector = vector + 1
	.endr

/* The stack may be any of ring 0: it is popped, never addressed. */
trap_32:
	push	%eax
	push	%es
	mov	$KERNEL_DS, %eax
	mov	%eax, %es
	popl	%es:legacy_trapped + ES
	popl	%es:legacy_trapped + EAX
	popl	%es:legacy_trapped + VECTOR
	popl	%es:legacy_trapped + ERROR
	popl	%es:legacy_trapped + EIP
	popl	%es:legacy_trapped + CS
	popl	%es:legacy_trapped + EFLAGS
	mov	%ds, %eax
	mov	%eax, %es:legacy_trapped + HANDLER_DS
	mov	%eax, %es:legacy_trapped + DS
	push	%es
	pop	%ds
	mov	%ebx, legacy_trapped + EBX
	mov	%ecx, legacy_trapped + ECX
	mov	%edx, legacy_trapped + EDX
	mov	%esi, legacy_trapped + ESI
	mov	%edi, legacy_trapped + EDI
	mov	%ebp, legacy_trapped + EBP
	mov	%fs, %eax
	mov	%eax, legacy_trapped + FS
	mov	%gs, %eax
	mov	%eax, legacy_trapped + GS
	testl	$FLAG_VM, legacy_trapped + EFLAGS
	jnz	1f
	testl	$3, legacy_trapped + CS
	jnz	1f
	mov	%esp, legacy_trapped + ESP
	mov	%ss, %eax
	mov	%eax, legacy_trapped + SS
	jmp	2f
1:	popl	legacy_trapped + ESP
	popl	legacy_trapped + SS
	testl	$FLAG_VM, legacy_trapped + EFLAGS
	jz	2f
	popl	legacy_trapped + ES
	popl	legacy_trapped + DS
	popl	legacy_trapped + FS
	popl	legacy_trapped + GS
2:	mov	%esp, legacy_trapped + HANDLER_ESP
	str	legacy_trapped + TRAP_TR
	sldt	legacy_trapped + TRAP_LDTR
	mov	%cr0, %eax
	mov	%eax, legacy_trapped + TRAP_CR0
	mov	%cr2, %eax
	mov	%eax, legacy_trapped + TRAP_CR2
	mov	%cr3, %eax
	mov	%eax, legacy_trapped + TRAP_CR3
	mov	%dr6, %eax
	mov	%eax, legacy_trapped + TRAP_DR6
	jmp	legacy_back

to_real:
	lidt	real_idtr
	ljmp	$LEGACY_REAL_CS, $real_enter - real_page

real_back:
	mov	$KERNEL_DS, %eax
	mov	%eax, %ss
	mov	$switch_stack + LEGACY_STACK, %esp
	call	load_flat
	mov	$REAL_PAGE + real_record - real_page, %esi
	mov	$legacy_trapped, %edi
	mov	$26, %ecx
	cld
	rep movsl
	jmp	legacy_back

/* ---- real mode: copied to REAL_PAGE ---- */

	.section .rodata
	.balign 16
	.globl real_page, real_page_end, real_start_state, real_stubs
real_page:
	.code16
real_enter:
	mov	$LEGACY_REAL_DS, %ax	/* limits of 64 KiB */
	mov	%ax, %ss
	mov	%ax, %ds
	mov	%ax, %es
	mov	%ax, %gs
	mov	%cs:real_start_state - real_page + STATE_CR0, %eax
	and	$~1, %eax
	mov	%eax, %cr0
	ljmp	$REAL_PAGE >> 4, $1f - real_page
1:	mov	%cs, %ax
	mov	%ax, %ss
	mov	$real_start_state - real_page, %esp
	popl	%gs
	popl	%fs
	popl	%es
	popl	%ds
	popal
	pushl	%cs:real_start_state - real_page + EFLAGS
	popfl
	lssl	%cs:real_start_state - real_page + ESP, %esp
	ljmpl	*%cs:real_start_state - real_page + EIP

	.balign 16
real_stubs:
	vector = 0
	.rept	LEGACY_VECTORS
	.balign 8
	pushw	$vector
	jmp	trap_16
	vector = vector + 1
	.endr

trap_16:
	mov	%eax, %cs:real_record - real_page + EAX
	popw	%cs:real_record - real_page + VECTOR
	popw	%cs:real_record - real_page + EIP
	popw	%cs:real_record - real_page + CS
	popw	%cs:real_record - real_page + EFLAGS
	mov	%esp, %cs:real_record - real_page + ESP
	mov	%ebx, %cs:real_record - real_page + EBX
	mov	%ecx, %cs:real_record - real_page + ECX
	mov	%edx, %cs:real_record - real_page + EDX
	mov	%esi, %cs:real_record - real_page + ESI
	mov	%edi, %cs:real_record - real_page + EDI
	mov	%ebp, %cs:real_record - real_page + EBP
	mov	%ss, %cs:real_record - real_page + SS
	mov	%ds, %cs:real_record - real_page + DS
	mov	%es, %cs:real_record - real_page + ES
	mov	%fs, %cs:real_record - real_page + FS
	mov	%gs, %cs:real_record - real_page + GS
	mov	%cr0, %eax
	mov	%eax, %cs:real_record - real_page + TRAP_CR0
	or	$1, %al
	mov	%eax, %cr0
	ljmpl	$KERNEL_CS32, $real_back
	.balign 4
real_record:
	.skip	104
real_start_state:
	.skip	112
real_page_end:

	.data
	.balign 8
	.word	0, 0, 0
real_idtr:
	.word	0x3ff
	.long	0
saved_gdtr:
	.skip	10
saved_idtr:
	.skip	10
	.balign 8
saved_rsp:  .quad 0
saved_cr0:  .quad 0
saved_cr3:  .quad 0
saved_cr4:  .quad 0
saved_efer: .quad 0
	.bss
	.balign 16
switch_stack:
	.skip	LEGACY_STACK

	.section .note.GNU-stack, "", @progbits
