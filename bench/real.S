/*
 * Real-mode code for the benchmarks: a bare-metal program that goes to real mode and runs loops of the kinds that such code is made of.
 * It tells vmtime of each loop on the debug console (port 0xe9), checks each one's result, and ends through the debug-exit port.
 */
#define LOW	0x800		/* segment that the real-mode part is copied to */
#define DATA	0x1000		/* data, not in pages with code */
#define CONSOLE 0xe9
#define EXIT	0xf4

	.section .text.start, "ax"
	.code32
	.globl entry
entry:	cld
	mov $real, %esi
	mov $LOW << 4, %edi
	mov $real_end - real, %ecx
	rep movsb
	lgdt gdtr
	lidt vectors
	ljmp $0x08, $LOW << 4

	.balign 8
gdt:	.quad 0
	.quad 0x00009b000000ffff	/* 0x08: 16-bit code, 64 KiB */
	.quad 0x000093000000ffff	/* 0x10: data, 64 KiB */
gdtr:	.word gdtr - gdt - 1
	.long gdt
vectors: .word 0x3ff
	.long 0

/* At LOW:0 */
	.code16
	.balign 16
real:	mov $0x10, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	mov %ax, %fs
	mov %ax, %gs
	mov %cr0, %eax
	and $0x7ffffffe, %eax
	mov %eax, %cr0
	ljmp $LOW, $start - real

#define AT(label) ((label) - real)

start:	mov %cs, %ax
	mov %ax, %ds
	mov $0x3000, %ax
	mov %ax, %ss
	mov $0xfffe, %sp
	xor %ax, %ax
	mov %ax, %fs
	movw $LOW, %fs:0x50 * 4 + 2
	movw $AT(handler), %fs:0x50 * 4
	cld
	mov $DATA, %ax
	mov %ax, %es
	xor %di, %di
	mov $0x400, %cx
1:	mov %di, %ax
	stosw
	loop 1b
	mov $0x2000, %ax
	mov %ax, %es

/* NAME, its operations, outer rounds of DX, what AX must be at the end. */
	.macro bench name, operations, rounds, wanted, body
	mov $AT(8f), %si
	call print
	xor %ax, %ax
	mov $\rounds, %edx
9:	push %edx
	call \body
	pop %edx
	dec %edx
	jnz 9b
	push %ax
	mov $AT(7f), %si
	call print
	pop %ax
	mov $\wanted, %cx
	call check
	jmp 6f
8:	.asciz "@ \name \operations\n"
7:	.asciz "\name 0 ns\n"
6:
	.endm

	bench real_integer 10000000 1000 0x9681 integer
	bench real_stack   10000000 1000 20000 stack
	bench real_call    20000000 1000 19000 near_calls
	bench real_far     20000000 1000 19000 far_calls
	bench real_int      2000000 100 1900 interrupts
	bench real_segment 20000000 1000 20000 segments
	bench real_flags    2000000 100 20000 flags
	bench real_bytes   20000000 1000 1000 bytes
	bench real_copy      400000 400000 64 copy
	bench real_sieve       1000 1000 0x076c sieve
	mov $AT(done), %si
	call print
	mov $0, %al
	out %al, $EXIT
	hlt

print:	lodsb
	test %al, %al
	jz 1f
	out %al, $CONSOLE
	jmp print
1:	ret

check:	cmp %cx, %ax
	je 1f
	mov %ax, %bx
	mov $AT(wrong), %si
	call print
	mov $4, %cx
2:	rol $4, %bx
	mov %bl, %al
	and $15, %al
	add $'0', %al
	cmp $'9', %al
	jbe 3f
	add $'a' - '9' - 1, %al
3:	out %al, $CONSOLE
	loop 2b
	mov $AT(newline), %si
	call print
1:	ret
done:	.asciz "BENCHMARKS END\n"
wrong:	.asciz "WRONG result "
newline: .asciz "\n"

/* Arithmetic on a table: 8 instructions, 4 of which use memory. */
integer:
	push %ds
	mov $DATA, %si
	mov %si, %ds
	mov $20000, %si
	mov $0x200, %bx
1:	mov %si, %di
	and $0x7e, %di
	add (%bx,%di), %ax
	adc 2(%bx,%di), %ax
	mov %ax, 4(%bx,%di)
	xor %ax, 0x100
	sub $2, %si
	jnz 1b
	pop %ds
	ret

/* PUSH and POP */
stack:	mov $10000, %cx
1:	push %cx
	push %si
	mov %sp, %bp
	add 2(%bp), %bx
	pop %si
	pop %di
	loop 1b
	add $20, %ax
	ret

near_calls:
	mov $20000, %cx
1:	call 2f
	loop 1b
	ret
2:	push %bp
	mov %sp, %bp
	test $1023, %cx
	jnz 3f
	inc %ax
3:	pop %bp
	ret

far_calls:
	mov $20000, %cx
1:	lcall $LOW + 0x10, $AT(2f) - 0x100
	loop 1b
	ret
2:	test $1023, %cx
	jnz 3f
	inc %ax
3:	lret

interrupts:
	mov $20000, %cx
1:	int $0x50
	loop 1b
	ret
handler:
	test $1023, %cx
	jnz 3f
	inc %ax
3:	iret

segments:
	mov $20000, %cx
1:	mov $0x2000, %si
	mov %si, %es
	add %es:(8), %bx
	les far_pointer - real, %di
	add %es:(%di), %bx
	push %ds
	pop %es
	add %es:(far_pointer - real), %bx
	loop 1b
	mov $0x2000, %si
	mov %si, %es
	add $20, %ax
	ret

flags:	mov $20000, %cx
1:	pushf
	cli
	inc %bx
	popf
	loop 1b
	add $200, %ax
	ret

/* LODSB and STOSB */
bytes:	mov $20000, %cx
	xor %si, %si
	xor %di, %di
	push %ax
1:	lodsb
	stosb
	loop 1b
	pop %ax
	mov %es:(19998), %bx
	sub (19998), %bx
	add %bx, %ax
	inc %ax
	ret

/* 8 KiB by words */
copy:	push %ds
	mov $DATA, %ax
	mov %ax, %ds
	xor %si, %si
	xor %di, %di
	mov $4096, %cx
	rep movsw
	pop %ds
	mov $64, %ax
	ret

/* Primes below 16,384, a byte each */
sieve:	xor %di, %di
	mov $8192, %cx
	mov $0x0101, %ax
	rep stosw
	xor %ax, %ax
	mov $2, %bx
1:	cmpb $0, %es:(%bx)
	je 3f
	inc %ax
	mov %bx, %si
	add %bx, %si
2:	cmp $16384, %si
	jae 3f
	movb $0, %es:(%si)
	add %bx, %si
	jmp 2b
3:	inc %bx
	cmp $16384, %bx
	jb 1b
	ret

far_pointer: .word 0x1234, 0x2000
real_end:

	.section .note.pvh, "a"
	.balign 4
	.long 4, 4, 18	/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long entry
