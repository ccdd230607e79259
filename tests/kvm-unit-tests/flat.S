/*
 * As a .flat file of kvm-unit-tests is: a 32-bit multiboot ELF at 4 MiB that speaks on COM1, finds its environment in a module and
 * ends by port 0xf4. What it does its command line says, by the first letter behind the kernel's name:
 *
 *	p  passes      s  skips       f  fails       h  never ends
 *	e  passes if there is a module that begins with "NR_CPUS=2"
 *	d  passes if there is a pc-testdev
 */
#define MAGIC 0x1badb002
#define FLAGS 0x3

#define PASS 0
#define FAIL 1
#define SKIP 77

	.section .text.start, "ax"
	.balign 4
header:
	.long MAGIC, FLAGS, -(MAGIC + FLAGS)

	.globl entry
entry:
	mov	$stack_top, %esp
	mov	$0x3fd, %dx
	mov	$hello, %esi
1:	in	%dx, %al
	test	$0x20, %al
	jz	1b
	lodsb
	test	%al, %al
	jz	2f
	mov	$0x3f8, %dx
	out	%al, %dx
	mov	$0x3fd, %dx
	jmp	1b

2:	mov	16(%ebx), %esi		/* the command line: behind its first space */
3:	lodsb
	cmp	$' ', %al
	je	4f
	test	%al, %al
	jnz	3b
	jmp	fail
4:	lodsb
	cmp	$'p', %al
	je	pass
	cmp	$'s', %al
	je	skip
	cmp	$'e', %al
	je	environment
	cmp	$'d', %al
	je	device
	cmp	$'h', %al
	jne	fail
5:	jmp	5b

environment:
	cmpl	$1, 20(%ebx)		/* modules */
	jne	fail
	mov	24(%ebx), %esi
	mov	(%esi), %esi
	mov	$wanted, %edi
	mov	$wanted_end - wanted, %ecx
	repe cmpsb
	jne	fail
	jmp	pass

device:
	mov	$0x12345678, %eax
	out	%eax, $0xe0
	in	$0xe9, %al
	cmp	$0x56, %al
	jne	fail
	mov	$0xff000123, %edi
	movl	$0xcafe, (%edi)
	cmpl	$0xcafe, (%edi)
	jne	fail

pass:	mov	$PASS, %eax
	jmp	end
skip:	mov	$SKIP, %eax
	jmp	end
fail:	mov	$FAIL, %eax
end:	out	%eax, $0xf4
6:	hlt
	jmp	6b

hello:	.asciz "enabling apic\r\n"
wanted:	.ascii "NR_CPUS=2\n"
wanted_end:

	.bss
	.balign 16
	.skip 0x1000
stack_top:
