/*
 * The ROM of a machine without a firmware: what the processor executes at the reset vector, and the services that kernels ask of a PC's BIOS
 * in real mode: memory sizes, the equipment, the time; of all else it says that there is none.
 */
#include "boot/bios.h"

#define OFF(label) ((label) - bios_rom + BIOS_OFFSET)

#define BDA_SEGMENT	0x40
#define BDA_EQUIPMENT	0x10
#define BDA_BASE_MEMORY 0x13
#define BDA_RESUME	0x67
#define BDA_TICKS	0x6c
#define BDA_MIDNIGHT	0x70
#define TICKS_A_DAY	0x1800b0
#define CMOS_INDEX	0x70
#define CMOS_DATA	0x71
#define NMI_OFF		0x80
#define PIC_MASTER	0x20
#define PIC_SLAVE	0xa0
#define END_OF_INTERRUPT 0x20
#define RESET_CONTROL	0xcf9
#define RESET_HARD	0x02
#define RESET_NOW	0x06
#define DEBUG_PORT	0xe9
#define SMAP		0x534d4150
#define FLAGS		6 /* what an interrupt pushed, from BP behind PUSH BP */
#define CARRY		0x01
#define ZERO		0x40

	.section .rodata
	.balign 16
	.globl bios_rom, bios_dummy, bios_timer, bios_master, bios_slave, bios_teletype, bios_equipment, bios_base_memory
	.globl bios_none, bios_system, bios_keyboard, bios_bootstrap, bios_time
	.code16
bios_rom:
/* After a reset of a processor alone, or when somebody jumps to the reset vector. */
restart:
	cli
	mov	$SHUTDOWN_REGISTER | NMI_OFF, %al
	out	%al, $CMOS_INDEX
	in	$CMOS_DATA, %al
	mov	%al, %ah
	mov	$SHUTDOWN_REGISTER, %al
	out	%al, $CMOS_INDEX
	xor	%al, %al		/* once only */
	out	%al, $CMOS_DATA
	mov	$BDA_SEGMENT, %bx
	mov	%bx, %ds
	cmp	$SHUTDOWN_JUMP, %ah
	je	resume_jump
	cmp	$SHUTDOWN_EOI_JUMP, %ah
	je	resume_eoi_jump
	cmp	$SHUTDOWN_IRET, %ah
	je	resume_iret
	cmp	$SHUTDOWN_RETF, %ah
	je	resume_retf

/* The kernel's loader is the monitor: a reset of the whole machine calls it. */
bios_bootstrap:
	mov	$RESET_CONTROL, %dx
	mov	$RESET_HARD, %al
	out	%al, %dx
	mov	$RESET_NOW, %al
	out	%al, %dx
1:	hlt
	jmp	1b

resume_eoi_jump:
	mov	$END_OF_INTERRUPT, %al
	out	%al, $PIC_SLAVE
	out	%al, $PIC_MASTER
resume_jump:
	ljmp	*BDA_RESUME
resume_iret:
	lss	BDA_RESUME, %sp
	iret
resume_retf:
	lss	BDA_RESUME, %sp
	lret

/* ---- hardware interrupts ---- */

bios_timer:
	push	%ds
	push	%ax
	mov	$BDA_SEGMENT, %ax
	mov	%ax, %ds
	incl	BDA_TICKS
	cmpl	$TICKS_A_DAY, BDA_TICKS
	jb	1f
	movl	$0, BDA_TICKS
	incb	BDA_MIDNIGHT
1:	int	$0x1c
	pop	%ax
	pop	%ds
bios_master:
	push	%ax
	mov	$END_OF_INTERRUPT, %al
	out	%al, $PIC_MASTER
	pop	%ax
	iret
bios_slave:
	push	%ax
	mov	$END_OF_INTERRUPT, %al
	out	%al, $PIC_SLAVE
	out	%al, $PIC_MASTER
	pop	%ax
	iret

/* ---- services ---- */

/* Function not supported: carry set in the flags that are returned. */
bios_none:
	mov	$0x86, %ah
	push	%bp
	mov	%sp, %bp
	orb	$CARRY, FLAGS(%bp)
	pop	%bp
	iret

succeed:
	push	%bp
	mov	%sp, %bp
	andb	$~CARRY, FLAGS(%bp)
	pop	%bp
	iret

/* INT 10h: there is no screen; what would be written there goes to the debug console, if there is one. */
bios_teletype:
	cmp	$0x0e, %ah
	jne	bios_none
	out	%al, $DEBUG_PORT
	iret

bios_equipment: /* INT 11h */
	push	%ds
	mov	$BDA_SEGMENT, %ax
	mov	%ax, %ds
	mov	BDA_EQUIPMENT, %ax
	pop	%ds
	iret

bios_base_memory: /* INT 12h */
	push	%ds
	mov	$BDA_SEGMENT, %ax
	mov	%ax, %ds
	mov	BDA_BASE_MEMORY, %ax
	pop	%ds
	iret

/* INT 15h: memory, and nothing else */
bios_system:
	cmp	$0x87, %ah
	je	block_move
	cmp	$0xe820, %ax
	je	memory_map
	cmp	$0xe801, %ax
	je	memory_sizes
	cmp	$0x88, %ah
	jne	bios_none
	mov	%cs:BIOS_EXTENDED, %ax
	jmp	succeed

/*
 * AH=87h: CX words from where descriptor 2 of the table at ES:SI says to where descriptor 3 says. Descriptors 1 and 5 are ours to fill in: what
 * LGDT reads, and a segment to leave DS and ES with real mode's limit.
 */
#define MOVE_GDTR 0x08
#define MOVE_FROM 0x10
#define MOVE_TO	  0x18
#define MOVE_REAL 0x28
block_move:
	push	%ds
	push	%es
	pushal
	mov	%es, %ax
	movzwl	%ax, %eax
	shl	$4, %eax
	movzwl	%si, %edx
	add	%edx, %eax
	movw	$0x2f, %es:MOVE_GDTR(%si)
	mov	%eax, %es:MOVE_GDTR + 2(%si)
	movl	$0x0000ffff, %es:MOVE_REAL(%si)
	movl	$0x00009300, %es:MOVE_REAL + 4(%si)
	lgdtl	%es:MOVE_GDTR(%si)
	mov	%cr0, %eax
	or	$1, %al
	mov	%eax, %cr0
	mov	$MOVE_FROM, %ax
	mov	%ax, %ds
	mov	$MOVE_TO, %ax
	mov	%ax, %es
	xor	%si, %si
	xor	%di, %di
	cld
	rep movsw
	mov	$MOVE_REAL, %ax
	mov	%ax, %ds
	mov	%ax, %es
	mov	%cr0, %eax
	and	$~1, %al
	mov	%eax, %cr0
	popal
	pop	%es
	pop	%ds
	xor	%ah, %ah
	jmp	succeed

memory_sizes:
	mov	%cs:BIOS_BELOW_16M, %ax
	mov	%ax, %cx
	mov	%cs:BIOS_ABOVE_16M, %bx
	mov	%bx, %dx
	jmp	succeed

/* EBX: which entry; ES:DI, ECX: where to, and how much room is there; EDX: 'SMAP' */
memory_map:
	cmp	$SMAP, %edx
	jne	bios_none
	cmp	$BIOS_ENTRY_SIZE, %ecx
	jb	bios_none
	cmp	%cs:BIOS_MAP_COUNT, %ebx
	jae	bios_none
	push	%esi
	push	%di
	imul	$BIOS_ENTRY_SIZE, %bx, %si
	add	$BIOS_MAP, %si
	mov	$BIOS_ENTRY_SIZE, %ecx
	cld
1:	lodsb	%cs:(%si), %al
	stosb
	loop	1b
	pop	%di
	pop	%esi
	inc	%ebx
	cmp	%cs:BIOS_MAP_COUNT, %ebx
	jb	2f
	xor	%ebx, %ebx		/* that was the last */
2:	mov	$SMAP, %eax
	mov	$BIOS_ENTRY_SIZE, %ecx
	jmp	succeed

/* INT 16h: no key has been pressed, and none ever will be. */
bios_keyboard:
	test	$0xee, %ah
	jz	1f
	jmp	bios_none
1:	xor	%ax, %ax
	push	%bp
	mov	%sp, %bp
	orb	$ZERO, FLAGS(%bp)
	pop	%bp
	iret

bios_time: /* INT 1Ah */
	test	%ah, %ah
	jnz	bios_none
	push	%ds
	mov	$BDA_SEGMENT, %ax
	mov	%ax, %ds
	mov	BDA_TICKS, %dx
	mov	BDA_TICKS + 2, %cx
	xor	%ax, %ax
	xchg	%al, BDA_MIDNIGHT
	pop	%ds
	jmp	succeed

	/* Where IBM's BIOS has its dummy interrupt handler */
	.org	bios_rom + 0xff53 - BIOS_OFFSET
bios_dummy:
	iret

	.org	bios_rom + 0xfff0 - BIOS_OFFSET
	ljmp	$BIOS_SEGMENT, $OFF(restart)
	.ascii	"01/01/26"
	.byte	0
	.byte	0xfc	/* model: AT */
	.byte	0
	.org	bios_rom + BIOS_SIZE

	.section .note.GNU-stack, "", @progbits
