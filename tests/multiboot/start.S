/*
 * A multiboot 1 header, with address fields if ADDRESSES is defined, and the entry: what the processor holds there is kept for
 * main(), before anything changes it.
 */
#define MAGIC 0x1badb002
#ifdef ADDRESSES
#define FLAGS 0x10003
#else
#define FLAGS 0x3
#endif

	.section .text.start, "ax"
	.balign 4
header:
	.long MAGIC, FLAGS, -(MAGIC + FLAGS)
#ifdef ADDRESSES
	.long header, image_start, data_end, bss_end, entry
#endif

	.globl entry
entry:
	mov	$stack_top, %esp
	mov	%eax, entry_state
	mov	%ebx, entry_state + 4
	pushf
	pop	entry_state + 8
	mov	%cr0, %eax
	mov	%eax, entry_state + 12
	mov	%cs, entry_state + 16
	mov	%ds, entry_state + 20
	mov	%es, entry_state + 24
	mov	%fs, entry_state + 28
	mov	%gs, entry_state + 32
	mov	%ss, entry_state + 36
	cld
	call	main
1:	hlt
	jmp	1b

	.data
	.globl entry_state
	.balign 4
entry_state:
	.skip 40
	.bss
	.balign 16
	.skip 0x4000
stack_top:
