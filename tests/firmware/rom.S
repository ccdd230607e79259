/*
 * A firmware of 8 KiB: from the reset vector in real mode, by the copy below 1 MiB, to protected mode. It says on COM1 how far it came,
 * resets the machine the first time, and powers it off the second.
 */
#define SIZE  0x2000
#define START 0xe000 /* its offset in segment F000 */
#define OFF(label) ((label) - rom + START)
#define COM1  0x3f8
#define RESET_CONTROL 0xcf9
#define PCI_ADDRESS   0xcf8
#define PCI_DATA      0xcfc
#define PM_FUNCTION   0x80000b00 /* of configuration space: 00:01.3 */
#define PMBA	      0x40
#define PMREGMISC     0x80
#define PM_BASE	      0x600
#define PM1_CONTROL   (PM_BASE + 4)
#define SLEEP_OFF     0x2000
#define MEMORY_MARK   0x500 /* kept by a reset */
#define MARK	      0x600df00d

	.text
	.globl rom
rom:
	.code16
/* SI: offset of the text in CS. */
print16:
	mov	$COM1 + 5, %dx
1:	in	%dx, %al
	test	$0x20, %al
	jz	1b
	mov	$COM1, %dx
	mov	%cs:(%si), %al
	out	%al, %dx
	inc	%si
	cmpb	$0, %cs:(%si)
	jne	print16
	ret

entry:
	cli
	mov	%edx, %ebx
	xor	%ax, %ax
	mov	%ax, %ss
	mov	$0x1000, %sp
	mov	%ax, %ds
	mov	$1, %eax
	push	%ebx
	cpuid
	pop	%ebx
	cmp	%eax, %ebx		/* SDM vol. 3A 9.1.2: the signature was in EDX */
	jne	1f
	mov	$OFF(text_signature), %si
	call	print16
1:	mov	$OFF(text_top), %si
	call	print16
	ljmp	$0xf000, $OFF(below)	/* CS's base becomes 0xf0000 */
below:
	mov	$OFF(text_below), %si
	call	print16
	lgdtl	%cs:OFF(gdtr)
	mov	%cr0, %eax
	or	$1, %al
	mov	%eax, %cr0
	ljmpl	$8, $protected

	.code32
/* ESI: the text. */
print:
	mov	$COM1 + 5, %dx
1:	in	%dx, %al
	test	$0x20, %al
	jz	1b
	mov	$COM1, %dx
	lodsb
	out	%al, %dx
	cmpb	$0, (%esi)
	jne	print
	ret

protected:
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$0x1000, %esp
	cld
	mov	$text_protected, %esi
	call	print
	mov	$rom, %esi
	mov	$0x100000 - SIZE, %edi
	mov	$SIZE / 4, %ecx
	repe cmpsl
	jne	1f
	mov	$text_same, %esi
	call	print
1:	mov	rom, %eax
	notl	rom
	cmp	%eax, rom
	jne	1f
	mov	$text_readonly, %esi
	call	print
1:	cmpl	$MARK, MEMORY_MARK
	je	again
	movl	$MARK, MEMORY_MARK
	movl	$0, 0x100000 - SIZE	/* which a reset makes good */
	mov	$RESET_CONTROL, %edx
	mov	$6, %al
	out	%al, %dx
1:	hlt
	jmp	1b
again:
	mov	$text_again, %esi
	call	print
	/* After a reset nobody has said where the power management registers are, and that they are. */
	mov	$PCI_ADDRESS, %edx
	mov	$PM_FUNCTION + PMBA, %eax
	out	%eax, %dx
	mov	$PCI_DATA, %edx
	mov	$PM_BASE, %eax
	out	%eax, %dx
	mov	$PCI_ADDRESS, %edx
	mov	$PM_FUNCTION + PMREGMISC, %eax
	out	%eax, %dx
	mov	$PCI_DATA, %edx
	mov	$1, %al
	out	%al, %dx
	mov	$PM1_CONTROL, %edx
	mov	$SLEEP_OFF, %eax
	out	%ax, %dx
1:	hlt
	jmp	1b

	.balign 8
gdt:	.quad	0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:	.word	gdtr - gdt - 1
	.long	gdt

text_signature: .asciz "the processor's signature in EDX\n"
text_top:	.asciz "at the top of 4 GiB\n"
text_below:	.asciz "below 1 MiB\n"
text_protected: .asciz "in protected mode\n"
text_same:	.asciz "the same bytes in both places\n"
text_readonly:	.asciz "not to be written\n"
text_again:	.asciz "again after a reset\n"

	.org	SIZE - 16
	.code16
	jmp	entry
	.org	SIZE
