/*
 * A guest that goes through the reset vector in every way: the machine starts anew, and it counts how often; or the processor goes on where
 * CMOS register 0Fh and 40:67 say. It says on the debug console how far it came; tests/guest/reset.t knows the lines.
 * One multiboot image at START, code of 32 and of 16 bits in one segment.
 */
#define START	   0x8000
#define SEGMENT	   (START >> 4)
#define OFF(label) ((label) - image)
#define PHASE	   0x300000 /* kept by a reset */
#define STACK	   0x7000
#define CONSOLE	   0xe9
#define EXIT	   0xf4
#define MAP_BUFFER 0x4000

	.text
	.globl image
image:
	.balign 4
header:	.long	0x1badb002, 0x00010000, -(0x1badb002 + 0x00010000)
	.long	header, image, image_end, image_end, entry

	.code32
entry:
	mov	$STACK, %esp
	mov	PHASE, %ebx
	incl	PHASE
	cmp	$4, %ebx
	jae	done
	mov	%ebx, %esi
	mov	$text_start, %edi
	call	say32
	cmp	$1, %ebx
	je	1f
	cmp	$3, %ebx
	je	fault			/* a triple fault, the fourth time */
	mov	$OFF(warm), %eax
	test	%ebx, %ebx
	jnz	2f
	call	check_rom
	mov	$OFF(jump), %eax
2:	jmp	to_real_mode
1:	mov	$OFF(services), %eax
	jmp	to_real_mode

done:	mov	$text_done, %edi
	call	say32
	xor	%eax, %eax
	out	%al, $EXIT
1:	hlt
	jmp	1b

fault:	lidt	no_idt
	int3

/* The ROM is the same in both places, and does not change. */
check_rom:
	notb	0xffff0
	mov	$0xfffff000, %esi
	mov	$0xff000, %edi
	mov	$0x400, %ecx
	cld
	repe cmpsl
	jne	1f
	cmpb	$0xea, 0xffff0		/* a far jump */
	jne	1f
	mov	$text_rom, %edi
	call	say32
1:	ret

/* EDI: the text, ESI: a digit behind it if it ends with a blank */
say32:	mov	(%edi), %al
	test	%al, %al
	jz	1f
	out	%al, $CONSOLE
	inc	%edi
	jmp	say32
1:	cmpb	$' ', -1(%edi)
	jne	1f
	lea	'0'(%esi), %eax
	out	%al, $CONSOLE
1:	mov	$'\n', %al
	out	%al, $CONSOLE
	ret

/* EAX: offset in SEGMENT */
to_real_mode:
	mov	%ax, real_offset
	lgdt	gdtr
	ljmp	$8, $1f - image
	.code16
1:	mov	$0x10, %bx
	mov	%bx, %ds
	mov	%bx, %es
	mov	%bx, %ss
	mov	%cr0, %ebx
	and	$~1, %bl
	mov	%ebx, %cr0
	ljmp	$SEGMENT, $OFF(1f)
1:	call	segments
	lidtl	OFF(real_idt)
	ljmp	*OFF(real_offset)

segments:
	mov	$SEGMENT, %ax
	mov	%ax, %ds
	xor	%ax, %ax
	mov	%ax, %es
	pop	%ax
	cli
	push	%es
	pop	%ss
	mov	$STACK, %sp
	jmp	*%ax

/* SI: the text */
say:	lodsb
	test	%al, %al
	jz	1f
	out	%al, $CONSOLE
	jmp	say
1:	mov	$'\n', %al
	out	%al, $CONSOLE
	ret

jump:	ljmp	$0xf000, $0xfff0

/* ---- going on behind a reset ---- */

/* AL: shutdown code, BX: where to go on in SEGMENT */
arm:	mov	%al, %ah
	mov	$0x0f, %al
	out	%al, $0x70
	mov	%ah, %al
	out	%al, $0x71
	mov	%bx, %es:0x467
	movw	$SEGMENT, %es:0x469
	ret

	.macro	next code, label
	mov	$\code, %al
	mov	$OFF(\label), %bx
	call	arm
	.endm
	.macro	went_on text
	mov	$STACK, %sp		/* a stack of the real-mode kind there is not yet */
	xor	%ax, %ax
	mov	%ax, %ss
	call	segments
	mov	$OFF(\text), %si
	call	say
	.endm

warm:	next	0x0a, after_jump
	ljmp	$0xf000, $0xfff0
after_jump:
	went_on	text_jump
	mov	$0x0f, %al		/* the code is used up */
	out	%al, $0x70
	in	$0x71, %al
	test	%al, %al
	jnz	.
	next	0x05, after_keyboard
	mov	$0xfe, %al
	out	%al, $0x64
	hlt
after_keyboard:
	went_on	text_keyboard
	next	0x0b, frame_iret	/* 40:67 is a stack: IP, CS, flags */
	mov	$1, %al
	out	%al, $0x92
	hlt
after_port_92:
	went_on	text_port_92
	next	0x0c, frame_retf
	mov	$0xcf9, %dx
	mov	$4, %al
	out	%al, %dx		/* a soft reset */
	hlt
after_cf9:
	went_on	text_cf9
	next	0x0a, after_triple
	lidtl	OFF(no_idt)
	int3
after_triple:
	went_on	text_triple
	lidtl	OFF(real_idt)
	next	0x0a, after_init
	mov	%cr0, %eax		/* INIT by the local APIC: a page that only protected mode reaches */
	lgdtl	OFF(gdtr)
	or	$1, %al
	mov	%eax, %cr0
	ljmpl	$0x18, $init_self
after_init:
	went_on	text_init
	next	0x0a, never
	mov	$0xcf9, %dx
	mov	$2, %al
	out	%al, %dx
	mov	$6, %al
	out	%al, %dx		/* a hard reset forgets it: the kernel is loaded */
	hlt
never:	went_on	text_never
	hlt
	jmp	.

	.code32
init_self:
	mov	$0x20, %eax
	mov	%eax, %ds
	movl	$0xfee00000, %esi
	movl	$0, 0x310(%esi)
	mov	0x20(%esi), %eax
	and	$0xff000000, %eax
	mov	%eax, 0x310(%esi)
	movl	$0x4500, 0x300(%esi)	/* INIT, to itself */
1:	hlt
	jmp	1b
	.code16

/* ---- what interrupts lead to ---- */

services:
	int	$0x12
	cmp	$639, %ax
	jne	bad
	int	$0x11
	and	$0x0e02, %ax		/* one serial port, an x87 unit */
	cmp	$0x0202, %ax
	jne	bad
	cmpw	$0x3f8, %es:0x400
	jne	bad
	cmpw	$0x9fc0, %es:0x40e
	jne	bad
	mov	$0x88, %ah
	int	$0x15
	jc	bad
	cmp	$0xfc00, %ax		/* of 64 MiB */
	jne	bad
	mov	$0xe801, %ax
	int	$0x15
	jc	bad
	cmp	$0x3c00, %ax
	jne	bad
	cmp	$48 * 16, %bx
	jne	bad
	xor	%ebx, %ebx
	xor	%ebp, %ebp
1:	mov	$0xe820, %eax
	mov	$0x534d4150, %edx
	mov	$20, %ecx
	mov	$MAP_BUFFER, %di
	int	$0x15
	jc	bad
	cmpl	$1, %es:MAP_BUFFER + 16
	jne	2f
	addl	%es:MAP_BUFFER + 8, %ebp	/* sum of RAM */
2:	test	%ebx, %ebx
	jnz	1b
	cmp	$63 * 0x100000 + 639 * 1024, %ebp
	jne	bad
	mov	$0x41, %ah		/* no disk */
	mov	$0x80, %dl
	int	$0x13
	jnc	bad
	mov	$OFF(text_services), %si
	call	say

	/* The timer comes by vector 08h, without a word to the 8259 but its mask. */
	in	$0x21, %al
	cmp	$0xfb, %al
	jne	bad
	mov	%es:0x46c, %bx
	mov	$0x34, %al
	out	%al, $0x43
	mov	$0x00, %al
	out	%al, $0x40
	mov	$0x10, %al
	out	%al, $0x40
	mov	$0xfa, %al
	out	%al, $0x21
	sti
1:	hlt
	mov	%es:0x46c, %ax
	sub	%bx, %ax
	cmp	$3, %ax
	jb	1b
	cli
	mov	$OFF(text_timer), %si
	call	say
	int	$0x19
bad:	mov	$OFF(text_bad), %si
	call	say
1:	hlt
	jmp	1b

	.balign 4
frame_iret: .word	OFF(after_port_92), SEGMENT, 2
frame_retf: .word	OFF(after_cf9), SEGMENT
real_offset: .word	0, SEGMENT
no_idt:	.word	0
	.long	0
real_idt: .word	0x3ff
	.long	0
	.balign 8
gdt:	.quad	0
	.quad	0x00009b000000ffff + (START << 16)	/* 16 bits, base START */
	.quad	0x000093000000ffff + (START << 16)
	.quad	0x00cf9b000000ffff
	.quad	0x00cf93000000ffff
gdtr:	.word	gdtr - gdt - 1
	.long	gdt

text_start:	.asciz "started "
text_rom:	.asciz "ROM in both places"
text_services:	.asciz "memory and equipment as they are"
text_timer:	.asciz "timer by vector 08h"
text_jump:	.asciz "code 0Ah: on behind a jump"
text_keyboard:	.asciz "code 05h: on behind the keyboard controller's reset"
text_port_92:	.asciz "code 0Bh: on behind port 92h"
text_cf9:	.asciz "code 0Ch: on behind a soft reset"
text_triple:	.asciz "code 0Ah: on behind a triple fault"
text_init:	.asciz "code 0Ah: on behind INIT"
text_never:	.asciz "a hard reset came back"
text_bad:	.asciz "bad"
text_done:	.asciz "all resets done"
image_end:
