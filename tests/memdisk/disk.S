/*
 * The first two sectors of a disk that memdisk, a real-mode program with a Linux header of protocol 2.03, makes in memory: the boot sector reads
 * the other by INT 13h, prints what is there on the debug console, and ends.
 */
#define CONSOLE 0xe9
#define EXIT	0xf4
#define AT(label) ((label) - sector + 0x7c00)

	.text
	.code16
	.globl sector
sector:	xor	%ax, %ax
	mov	%ax, %ds
	mov	%ax, %es
	mov	$AT(text), %si
	call	say
	mov	$0x0201, %ax	/* one sector */
	mov	$2, %cx		/* the second */
	xor	%dx, %dx
	mov	$0x8000, %bx
	int	$0x13
	jc	1f
	mov	$0x8000, %si
	call	say
1:	xor	%ax, %ax
	out	%al, $EXIT
	hlt
	jmp	1b
say:	lodsb
	test	%al, %al
	jz	1f
	out	%al, $CONSOLE
	jmp	say
1:	ret
text:	.asciz "the boot sector\n"
	.org	sector + 510
	.byte	0x55, 0xaa
	.asciz	"the second sector, by INT 13h\n"
	.org	sector + 1024
