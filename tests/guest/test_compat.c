/*
 * 32-bit code under a 64-bit kernel: compatibility mode, SDM vol. 3A 5.2.1 and 9.8.3, APM vol. 2 1.3. Addresses that wrap at 4 GiB,
 * segments with bases and limits, faults that are restarted, ways between 32-bit and 64-bit code, upper halves of registers,
 * interrupts, code that changes.
 */
#include "guest.h"

#define DATA_SEGMENT	 (GDT_FREE | 3)
#define USER_32(at, ...) (flat_segments(), USER_MODE(at, .cs = USER_CS32, ##__VA_ARGS__))
#define LOW(value)	 ((u32)(value))
#define DPL_3		 (3ull << 45) /* of a gate */

#define CR4_OSFXSR BIT(9)

static u8 buffer[4096] __attribute__((aligned(4096)));
static u32 words[16];

/* IRETQ to ring 3 leaves these alone. */
static void flat_segments(void)
{
	asm volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%fs; mov %0, %%gs" ::"r"(USER_DS));
}

static void segment(u64 base, u32 limit, u32 attributes)
{
	*gdt_entry(GDT_FREE) = descriptor(LOW(base), limit, attributes | ATTR_DPL3);
}

static void clear(void)
{
	memset(buffer, 0, sizeof(buffer));
	memset(words, 0, sizeof(words));
}

/* ---- instructions ---- */

CODE32(short_forms, "inc %eax; dec %ecx; .byte 0x82, 0xc2, 5; inc %di; mov $0x7f, %bh; add %bh, %dh")
CODE32(stack, "push %eax; push $-2; pushl 4(%esp); pop %ebx; pop %ecx; pop %edx; mov %esp, %esi; push %esp; pop %edi; "
	      "enter $8, $0; leave; pusha; popa")
CODE32(pop_places, "push $7; push $8; popl (%esp); pop %ecx; push %ebx; pop %esp; mov %esp, %edx; mov %ebp, %esp")
CODE32(calls, "mov %esp, %ebp; call 1f; jmp 3f; 1: call *%esi; ret $0; 3: mov %esp, %ecx; jmp 4f; .globl callee\n"
	      "callee: inc %eax; ret; 4: sub %ebp, %ecx")
CODE32(count_loop, "xor %eax, %eax; mov $1000, %ecx; 1: inc %eax; loop 1b; jecxz 2f; ud2; 2: mov $0x10003, %ecx; "
		   "addr16 loop 3f; ud2; 3: nop")
CODE32(loop_flags, "mov $5, %ecx; xor %eax, %eax; 1: inc %eax; cmp $3, %eax; loopne 1b; mov %ecx, %edx; mov $5, %ecx; "
		   "2: cmp %ecx, %ecx; loope 2b")
CODE(count_loop_64,
     "xor %eax, %eax; mov $1000, %rcx; 1: inc %rax; loop 1b; jrcxz 2f; ud2; 2: mov $1, %rcx; shl $32, %rcx; jecxz "
     "3f; ud2; 3: jrcxz 4f; addr32 loop 5f; 4: ud2; 5: nop")
CODE32(decimal,
       "mov $0x19, %al; add $0x28, %al; daa; mov %al, %bl; mov $0x0f, %al; aaa; mov %eax, %ecx; mov $35, %al; aam; "
       "mov %eax, %edx")
CODE32(bounds, "bound %eax, (%ebx)")
CODE32(overflow, "mov $0x7f, %al; inc %al; into")
CODE32(adjust, "arpl %ax, %cx; setz %dl")
CODE32(bit_strings, "bts %ecx, (%ebx); setc %al; bt %ecx, (%ebx); setc %dl; btc %esi, (%ebx)")
CODE32(vectors, "movd %eax, %xmm1; paddd %xmm1, %xmm1; movd %xmm1, %ecx; fninit; fld1; fadd %st, %st; fistpl (%ebx); "
		"mov (%ebx), %edx")

CODE32(selectors,
       "mov $5, %ecx; xor %edi, %edi\n"
       "1: mov (%esi), %fs; push %fs; pop %eax; mov %fs, %edx; mov %fs, 8(%esi); mov 8(%esi), %gs; pushl 4(%esi); pop "
       "%fs\n"
       "mov %fs, %ebx; mov %gs, %ebp; cmp %eax, %edx; jne 2f; cmp %eax, %ebp; jne 2f; add %ebx, %edi; loop 1b; 2: nop")
CODE32(wrong_selector, "mov (%esi), %fs")

/* Often enough that an engine has the selectors' pages at hand; values that are pushed are zero-extended. */
static void test_selectors(void)
{
	struct trap t;

	clear();
	words[0] = 0xffff0000u | USER_DS;
	words[1] = 0xabcd0000u | USER_DS2;
	words[2] = 0xbad0000;
	t = USER_32(selectors, .rsi = USER(words));
	check(t.vector == END_VECTOR && LOW(t.rcx) == 0 && LOW(t.rax) == USER_DS && LOW(t.rdx) == USER_DS &&
		      LOW(t.rdi) == 5 * USER_DS2 && words[2] == (0xbad0000 | USER_DS),
	      "2 MOV, PUSH, POP: segment registers, by memory and by registers");
	words[0] = KERNEL_DS;
	t = USER_32(wrong_selector, .rsi = USER(words));
	check_fault(&t, EXC_GP, KERNEL_DS, "2 MOV: of a selector from memory that user mode may not load");
	t = USER_32(wrong_selector, .rsi = 0x10);
	check_page_fault(&t, PF_P | PF_U, 0x10, "2 MOV: of a selector from memory that user mode may not read");
}

static void test_instructions(void)
{
	extern const u8 callee[];
	struct trap t;

	t = USER_32(short_forms, .rax = 0xffffffff, .rcx = 0, .rdx = 0x8001, .rdi = 0x1ffff);
	check(LOW(t.rax) == 0 && LOW(t.rcx) == 0xffffffff && LOW(t.rdx) == 0xff06 && LOW(t.rdi) == 0x10000,
	      "2 INC, DEC: the one-byte forms; opcode 82; high bytes");
	t = USER_32(stack, .rax = 0x11223344);
	check(LOW(t.rbx) == 0x11223344 && LOW(t.rcx) == 0xfffffffe && LOW(t.rdx) == 0x11223344 &&
		      t.rsi == user_stack() && t.rdi == user_stack() && t.rsp == user_stack(),
	      "2 PUSH, POP, ENTER, LEAVE, PUSHAD, POPAD");
	t = USER_32(pop_places, .rbx = 0x12345678, .rbp = user_stack());
	check(LOW(t.rcx) == 8 && LOW(t.rdx) == 0x12345678, "2 POP: into memory addressed by ESP, behind it; into ESP");
	t = USER_32(calls, .rsi = USER(callee), .rax = 41);
	check(t.vector == END_VECTOR && LOW(t.rax) == 42 && LOW(t.rcx) == 0, "2 CALL, RET: direct, by register");
	t = USER_32(count_loop);
	check(t.vector == END_VECTOR && LOW(t.rax) == 1000 && LOW(t.rcx) == 0x10002,
	      "2 LOOP, JECXZ: by ECX, by CX with a prefix");
	t = USER_32(loop_flags);
	check(LOW(t.rax) == 3 && LOW(t.rdx) == 2 && LOW(t.rcx) == 0, "2 LOOPNE, LOOPE");
	t = USER_MODE(count_loop_64);
	check(t.vector == END_VECTOR && t.rax == 1000 && t.rcx == 0xffffffff,
	      "2 LOOP, JRCXZ, JECXZ: in 64-bit code, by RCX, by ECX with a prefix");
	t = USER_32(decimal);
	check((t.rbx & 0xff) == 0x47 && (t.rcx & 0xff) == 5 && (t.rdx & 0xffff) == 0x305, "2 DAA, AAA, AAM");
	clear();
	words[0] = 5;
	words[1] = 9;
	t = USER_32(bounds, .rax = 9, .rbx = USER(words));
	check_end(&t, "2 BOUND: inside");
	t = USER_32(bounds, .rax = 10, .rbx = USER(words));
	check_fault(&t, EXC_BR, 0, "2 BOUND: outside");
	idt_gate(EXC_OF)->low |= DPL_3;
	t = USER_32(overflow);
	reset_gate(EXC_OF);
	check(t.vector == EXC_OF && t.rip == USER(overflow) + 5, "2 INTO");
	t = USER_32(adjust, .rax = 2, .rcx = 1);
	check((t.rcx & 3) == 2 && (t.rdx & 0xff) == 1, "2 ARPL");
	clear();
	t = USER_32(bit_strings, .rbx = USER(buffer) + 64, .rcx = (u32)-100, .rsi = 31);
	check((t.rax & 0xff) == 0 && (t.rdx & 0xff) == 1 && *(u32 *)(buffer + 64 - 16) == BIT(28) &&
		      *(u32 *)(buffer + 64) == BIT(31),
	      "2 BTS, BT, BTC: bit offsets before and behind the address");
	t = USER_32(vectors, .rax = 21, .rbx = USER(words));
	check(LOW(t.rcx) == 42 && LOW(t.rdx) == 2, "1 10, 8: SSE2 and x87");
}

/* ---- addresses ---- */

CODE32(load, "mov 8(%ebx), %eax")
CODE32(load_indexed, "mov (%ebx,%ecx,8), %eax")
CODE32(load_absolute, "mov 0xfffff004, %eax; mov %al, 0xfffff008")
CODE32(load_16, "mov (%bx,%si), %eax")
CODE32(load_across, "mov -2(%ebx), %eax")
CODE32(load_high, "mov (%ebx), %eax; add %ah, 1(%ebx); movzwl 2(%ebx), %ecx")

static void test_addresses(void)
{
	u64 *devices = entry_of(0xfffff000, 2), saved = *devices;
	u8 *top = frame_alloc(), *above = frame_alloc();
	struct trap t;

	clear();
	words[2] = 0x1234;
	words[3] = 0xabcd;
	t = USER_32(load_indexed, .rbx = USER(words) - 8, .rcx = 0x20000002);
	check_equal(LOW(t.rax), 0x1234, "1 3.3.7: base and scaled index wrap at 4 GiB");
	t = USER_32(load_indexed, .rbx = USER(words) + 12 + 8, .rcx = 0xffffffff);
	check_equal(LOW(t.rax), 0xabcd, "1 3.3.7: an index may be negative");

	*devices = 0;
	map_page(0xfffff000, (u64)top, PTE_P | PTE_W | PTE_U);
	map_page(BIT(32), (u64)above, PTE_P | PTE_W | PTE_U);
	*(u32 *)(top + 4) = 0x5a5a5a5a;
	*(u32 *)above = *(u32 *)(above + 4) = 0xbad;
	t = USER_32(load, .rbx = 0xfffff000 - 4);
	check_equal(LOW(t.rax), 0x5a5a5a5a, "1 3.3.7: the last page below 4 GiB");
	t = USER_32(load_absolute);
	check(t.vector == END_VECTOR && LOW(t.rax) == 0x5a5a5a5a && top[8] == 0x5a,
	      "1 3.3.7: absolute addresses there");
	t = USER_32(load, .rbx = 0xfffffffc);
	check_page_fault(&t, PF_P | PF_U, 4, "1 3.3.7: a displacement wraps to 4, whatever is mapped above 4 GiB");
	t = USER_32(load_indexed, .rbx = 0x10, .rcx = 0x20000000 - 1);
	check_page_fault(&t, PF_P | PF_U, 8, "1 3.3.7: so does an index");
	check(above[0] == 0xad && above[4] == 0xad, "1 3.3.7: nothing above 4 GiB was touched");
	*devices = saved;
	flush_tlb();
	unmap_page(BIT(32));

	t = USER_32(load_16, .rbx = 0x1234fff0, .rsi = 0x56780020);
	check_page_fault(&t, PF_P | PF_U, 0x10, "1 3.3.7: addresses of 16 bits wrap at 64 KiB");
	*(u32 *)buffer = 0x44332211;
	t = USER_32(load_high, .rbx = USER(buffer));
	check(LOW(t.rax) == 0x44332211 && buffer[1] == 0x44 && LOW(t.rcx) == 0x4433,
	      "2 MOV, ADD: high bytes in memory");

	map_page(FREE_BASE, (u64)top, PTE_P | PTE_W | PTE_U);
	map_page(FREE_BASE + 0x1000, (u64)above, PTE_P | PTE_W | PTE_U);
	*(u16 *)(top + 4094) = 0x2211;
	*(u16 *)above = 0x4433;
	t = USER_32(load_across, .rbx = FREE_BASE + 0x1000);
	check_equal(LOW(t.rax), 0x44332211, "3A 4: an operand on two pages");
	unmap_page(FREE_BASE + 0x1000);
	t = USER_32(load_across, .rbx = FREE_BASE + 0x1000);
	check_page_fault(&t, PF_U, FREE_BASE + 0x1000, "3A 4.7: whose second page is absent");
	unmap_page(FREE_BASE);
}

/* ---- faults, and going on behind them ---- */

CODE32(touch, "mov $3, %eax; add %eax, 4(%ebx); push %eax; pop 8(%ebx)")
CODE32(push_there, "mov %ebx, %esp; push %eax; push (%esp); call 1f; 1: mov %ebp, %esp")
CODE32(divide, "xor %edx, %edx; mov $7, %eax; xor %ecx, %ecx; div %ecx")
CODE32(divide_memory, "mov $1, %edx; xor %eax, %eax; divl (%ebx)")
CODE32(undefined, "nop; ud2")
CODE32(privileged, "cli")

static u8 *missing_frame;
static unsigned missing_faults;

static void map_missing(struct frame *f)
{
	(void)f;
	missing_faults++;
	map_page(read_cr2() & ~0xfffull, (u64)missing_frame, PTE_P | PTE_W | PTE_U);
}

static void test_faults(void)
{
	struct trap t;

	missing_frame = frame_alloc();
	set_handler(EXC_PF, map_missing);
	for (unsigned n = 0; n < 3; n++) {
		t = USER_32(touch, .rbx = FREE_BASE + n * 0x1000);
		check(t.vector == END_VECTOR && missing_faults == n + 1 && *(u32 *)(missing_frame + 4) == 3 * (n + 1) &&
			      *(u32 *)(missing_frame + 8) == 3,
		      "3A 6.6: an instruction that faulted is done once, time %u", n);
	}
	for (unsigned n = 0; n < 3; n++)
		unmap_page(FREE_BASE + n * 0x1000);
	missing_faults = 0;
	t = USER_32(push_there, .rax = 0x77, .rbx = FREE_BASE + 0x1000, .rbp = user_stack());
	check(t.vector == END_VECTOR && missing_faults == 1 && *(u32 *)(missing_frame + 0xffc) == 0x77 &&
		      *(u32 *)(missing_frame + 0xff8) == 0x77,
	      "3A 6.6: a PUSH that faulted");
	unmap_page(FREE_BASE);
	set_handler(EXC_PF, NULL);
	t = USER_32(push_there, .rbx = FREE_BASE + 0x1000);
	check(t.vector == EXC_PF && t.rsp == FREE_BASE + 0x1000 && t.cr2 == FREE_BASE + 0xffc,
	      "3A 6.6: ESP is as before a PUSH that faults");
	t = USER_32(divide);
	check(t.vector == EXC_DE && LOW(t.rax) == 7 && t.rip == USER(divide) + 9, "2 DIV: by 0");
	words[0] = 1;
	t = USER_32(divide_memory, .rbx = USER(words));
	check(t.vector == EXC_DE && LOW(t.rdx) == 1, "2 DIV: a quotient that is too large, from memory");
	t = USER_32(undefined);
	check(t.vector == EXC_UD && t.rip == USER(undefined) + 1 && t.cs == USER_CS32, "2 UD2");
	t = USER_32(privileged);
	check_fault(&t, EXC_GP, 0, "2 CLI: in ring 3");
}

/* ---- segments ---- */

CODE32(use_gs,
       "mov %edi, %gs; mov %gs:4, %eax; mov %eax, %gs:8(%ebx); addl $1, %gs:(%ebx,%ecx,4); mov %ah, %gs:12(%ebx); "
       "mov %gs:13(%ebx), %dh; cmpxchg %esi, %gs:16(%ebx)")
CODE32(use_ds, "mov %edi, %ds; mov 4(%ebx), %eax; mov %al, 8(%ebx); incl (%ebx,%ecx,4); mov %eax, %ss:(%esi)")
CODE32(use_es,
       "mov %edi, %es; mov %es:4(%ebx), %eax; mov %eax, %es:8(%ebx,%ecx,2); push %es:4(%ebx); pop %edx; mov $3, %ecx; "
       "mov $32, %edi; cld; rep stosb")
CODE32(use_ss,
       "mov %esp, %ebp; mov %ss, %edx; mov %edi, %ss; mov %ebx, %esp; push %eax; pushl $5; pop %ecx; call 1f; 1: pop "
       "%esi; mov 0(%esp), %edi; mov %edx, %ss; mov %ebp, %esp")
CODE32(load_ds, "mov %edi, %ds; mov (%ebx), %eax")
CODE32(store_ds, "mov %edi, %ds; mov %eax, (%ebx)")
CODE32(load_ss, "mov %edi, %ss; mov (%ebp), %eax")
CODE32(from_code, "mov %cs:(%ebx), %eax; mov %ecx, %cs:(%ebx)")
CODE32(move_string, "mov %edi, %fs; mov $8, %esi; mov %ebx, %edi; mov $4, %ecx; fs rep movsb")
CODE32(read_fs, "mov %fs:(%ebx), %eax")
CODE(set_fs_base, "mov $0xc0000100, %ecx; wrmsr")

static void test_segments(void)
{
	u32 flat = 0xfffff, at = LOW(USER(buffer));
	struct trap t;

	clear();
	segment(at + 0x100, flat, ATTR_DATA32);
	*(u32 *)(buffer + 0x104) = 0x11223344;
	t = USER_32(use_gs, .rdi = DATA_SEGMENT, .rbx = 0x10, .rcx = 4, .rsi = 9, .rdx = 0);
	check(t.vector == END_VECTOR && *(u32 *)(buffer + 0x118) == 0x11223344 && *(u32 *)(buffer + 0x120) == 1 &&
		      buffer[0x11c] == 0x33 && LOW(t.rdx) == 0 && LOW(t.rax) == 1,
	      "3A 3.4.5: GS with a base");
	segment(at - 0x1000, flat, ATTR_DATA32);
	*(u32 *)(buffer + 0x14) = 0x55667788;
	t = USER_32(use_ds, .rdi = DATA_SEGMENT, .rbx = 0x1010, .rcx = 8, .rsi = user_stack() - 64);
	check(t.vector == END_VECTOR && LOW(t.rax) == 0x55667788 && buffer[0x18] == 0x88 &&
		      *(u32 *)(buffer + 0x30) == 1,
	      "3A 3.4.5: DS with a base");
	clear();
	segment(at, flat, ATTR_DATA32);
	*(u32 *)(buffer + 0x44) = 0x99;
	t = USER_32(use_es, .rdi = DATA_SEGMENT, .rbx = 0x40, .rcx = 0x10, .rax = 0);
	check(t.vector == END_VECTOR && LOW(t.rdx) == 0x99 && *(u32 *)(buffer + 0x68) == 0x99 && buffer[32] == 0x99 &&
		      buffer[34] == 0x99 && !buffer[35],
	      "3A 3.4.5: ES with a base, STOSB too");
	segment(at, flat, ATTR_DATA32);
	t = USER_32(use_ss, .rdi = DATA_SEGMENT, .rbx = 0x200, .rax = 0x123);
	check(t.vector == END_VECTOR && LOW(t.rcx) == 5 && LOW(t.rdi) == 0x123 && *(u32 *)(buffer + 0x1fc) == 0x123,
	      "3A 3.4.5: SS with a base: PUSH, POP, CALL");
	segment(0xfffffff0, flat, ATTR_DATA32);
	t = USER_32(load_ds, .rdi = DATA_SEGMENT, .rbx = at + 0x44 + 0x10);
	check_equal(LOW(t.rax), 0x99, "3A 3.3: base and offset wrap at 4 GiB");
	segment(at, flat, ATTR_DATA32);
	memcpy(buffer + 8, "abcd", 4);
	t = USER_32(move_string, .rdi = DATA_SEGMENT, .rbx = at + 0x80);
	check(!memcmp(buffer + 0x80, "abcd", 4), "2 MOVSB: from FS to ES");

	segment(at, 0x7f, 0x4093);
	t = USER_32(load_ds, .rdi = DATA_SEGMENT, .rbx = 0x7c);
	check_end(&t, "3A 5.3: the last doubleword of a segment");
	t = USER_32(load_ds, .rdi = DATA_SEGMENT, .rbx = 0x7d);
	check_fault(&t, EXC_GP, 0, "3A 5.3: one byte beyond its limit");
	t = USER_32(load_ss, .rdi = DATA_SEGMENT, .rbp = 0x80);
	check_fault(&t, EXC_SS, 0, "3A 5.3: beyond the stack segment's");
	segment(at, 0x7f, 0x4097);
	t = USER_32(load_ds, .rdi = DATA_SEGMENT, .rbx = 0x44);
	check_fault(&t, EXC_GP, 0, "3A 5.3: below an expand-down segment's limit");
	segment(0, flat, ATTR_DATA32 & ~2);
	t = USER_32(load_ds, .rdi = DATA_SEGMENT, .rbx = at + 0x44);
	check(t.vector == END_VECTOR && LOW(t.rax) == 0x99, "3A 5.5: a read-only segment, read");
	t = USER_32(store_ds, .rdi = DATA_SEGMENT, .rbx = at + 0x44);
	check_fault(&t, EXC_GP, 0, "3A 5.5: and written");
	t = USER_32(load_ds, .rdi = 0, .rbx = at);
	check_fault(&t, EXC_GP, 0, "3A 5.4.1: a null segment");
	t = USER_32(from_code, .rbx = at + 0x44);
	check(t.vector == EXC_GP && LOW(t.rax) == 0x99 && !t.error, "3A 5.5: a code segment, read and written");

	KERNEL(set_fs_base, .rdx = 0x12, .rax = at);
	t = USER_MODE(read_fs, .cs = USER_CS32, .rbx = 0x44);
	check_equal(LOW(t.rax), 0x99, "3A 3.4.4: of a base set in 64-bit mode 32 bits count");
}

/* ---- between 32-bit and 64-bit code ---- */

CODE32(which_mode, ".byte 0x48\nnop")
/* Back and forth a thousand times: each of the two counts, in registers that both have. */
CODE(back_and_forth, "mov $1000, %ecx; xor %eax, %eax; mov $0x123456789a, %r8; mov %r8, %r15; mov $-1, %rdi\n"
		     "1: inc %eax; add %r8, %r15; ljmp *(%rbx)\n" LABEL(
			     in_64) "dec %ecx; jnz 1b; jmp 2f\n"
				    ".code32\n" LABEL(in_32) "inc %eax; inc %edi; ljmp *8(%ebx)\n.code64\n2: nop")
CODE32(call_64, "mov %esp, %ebp; mov $100, %ecx; 1: lcall *(%ebx); loop 1b; sub %esp, %ebp")
CODE(callee_64, "inc %rax; lretl")
CODE32(system_calls, "xor %esi, %esi; mov $50, %ecx; 1: mov %ecx, %eax; int $0x60; add %eax, %esi; loop 1b")
CODE32(spin, "xor %eax, %eax; 1: inc %eax; cmpl $0, (%ebx); je 1b")
extern const u8 in_64[], in_32[];

static struct {
	u32 offset, selector;
} far_pointers[2];

static void double_it(struct frame *f) { f->rax = LOW(f->rax) * 2; }

static unsigned ticks;

static void tick(struct frame *f)
{
	(void)f;
	apic_eoi();
	if (++ticks == 5)
		words[0] = 1;
}

static void test_ways(void)
{
	struct trap t;

	t = USER_32(which_mode, .rax = 0x123456780000000aull, .r8 = 0x8888888899999999, .r15 = 0xfefefefefefefefe);
	check(LOW(t.rax) == 9, "3A 5.2.1: operands have 32 bits");
	check(t.r8 == 0x8888888899999999 && t.r15 == 0xfefefefefefefefe, "1 3.4.1.1: R8 to R15 cannot be touched");
	far_pointers[0].offset = LOW(USER(in_32));
	far_pointers[0].selector = USER_CS32;
	far_pointers[1].offset = LOW(USER(in_64));
	far_pointers[1].selector = USER_CS;
	t = USER_MODE(back_and_forth, .rbx = USER(far_pointers));
	check(t.vector == END_VECTOR && LOW(t.rax) == 2000 && LOW(t.rdi) == 999,
	      "2 JMP: far, between 32-bit and 64-bit code");
	check_equal(t.r15, 0x123456789aull * 1001, "2 JMP: R15 is as it was");
	far_pointers[0].offset = LOW(USER(callee_64));
	far_pointers[0].selector = USER_CS;
	t = USER_32(call_64, .rbx = USER(far_pointers), .rax = 7);
	check(t.vector == END_VECTOR && LOW(t.rax) == 107 && LOW(t.rbp) == 0, "2 CALL: far, of 64-bit code");
	t = run(&(struct frame){ .rip = (u64)which_mode,
				 .cs = KERNEL_CS32,
				 .ss = KERNEL_DS,
				 .rsp = kernel_stack(),
				 .rflags = 2,
				 .rax = 1 });
	check(t.vector == END_VECTOR && LOW(t.rax) == 0 && t.cs == KERNEL_CS32, "3A 5.2.1: 32-bit code in ring 0");

	set_handler(0x60, double_it);
	idt_gate(0x60)->low |= DPL_3;
	t = USER_32(system_calls);
	check(t.vector == END_VECTOR && LOW(t.rsi) == 2550, "2 INT: from 32-bit code, and back");
	set_handler(0x60, NULL);
	reset_gate(0x60);

	words[0] = 0;
	set_handler(0x70, tick);
	apic_write(APIC_TIMER_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, 0x70 | LVT_PERIODIC);
	apic_write(APIC_TIMER_INITIAL, 1000000);
	t = USER_32(spin, .rbx = USER(words), .rflags = 2 | FLAG_IF, .r9 = 0x9999999999999999);
	apic_write(APIC_TIMER_INITIAL, 0);
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
	set_handler(0x70, NULL);
	check(t.vector == END_VECTOR && ticks >= 5 && LOW(t.rax) && t.r9 == 0x9999999999999999,
	      "3A 6.12: interrupts in a loop of 32-bit code");
}

/* ---- code that changes ---- */

CODE32(rewrite, "xor %eax, %eax; xor %edx, %edx; 1: mov %dl, 1(%ebx); call *%ebx; inc %edx; cmp $100, %edx; jne 1b")
CODE32(overwrite_next, "call 1f; 1: pop %ebx; movb $0x43, 2f-1b(%ebx); 2: inc %eax; nop")

static void test_changing_code(void)
{
	static const u8 add_imm[] = { 0xb1, 0, 0x01, 0xc8, 0xc3 }; /* mov $0, %cl; add %ecx, %eax; ret */
	struct trap t;

	memcpy(buffer, add_imm, sizeof(add_imm));
	t = USER_32(rewrite, .rbx = USER(buffer), .rcx = 0);
	check_equal(LOW(t.rax), 99 * 100 / 2, "3A 11.6: code that is rewritten before each call");
	memcpy(buffer, overwrite_next, 32);
	t = USER_32(buffer);
	check(t.vector == END_VECTOR && LOW(t.rax) == 0 && LOW(t.rbx) == USER(buffer) + 6,
	      "3A 11.6: an instruction overwrites the next one");
}

void guest(void)
{
	apic_init();
	write_cr4(read_cr4() | CR4_OSFXSR);
	test_selectors();
	test_instructions();
	test_addresses();
	test_faults();
	test_segments();
	test_ways();
	test_changing_code();
}
