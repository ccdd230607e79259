/*
 * Out of long mode and back, SDM vol. 3A 9.8 and 9.9: protected mode with 32-bit and 16-bit segments, without paging and with both
 * kinds of it, ring 3, virtual-8086 mode, real mode. What the start of further processors and old software need.
 */
#include "guest.h"

#define CR4_PSE	 BIT(4)
#define LOW_PAGE 0x8000 /* where real-mode code is copied */
#define TSS_32	 GDT_FREE
#define CODE_16	 (GDT_FREE + 8) /* base LOW_PAGE */
#define DATA_16	 (GDT_FREE + 16)

/* ---- the way there and back ---- */

/*
 * run_32(): 64-bit to compatibility mode, paging off (which ends long mode), the control registers of `wanted`, and a near call of
 * 32-bit code, whose result in EAX is returned. An exception or interrupt there fills trap_32 and comes back as well.
 */
struct wanted {
	u32 cr0, cr3, cr4, efer; /* efer: set in addition */
};
struct trap_32 {
	u32 cr2, gs, edi, esi, ebp, esp0, ebx, edx, ecx, eax, vector, error, eip, cs, eflags, esp, ss, es, ds, fs,
		gs_86;
};
u32 run_32(const void *code, const struct wanted *);
extern struct trap_32 trap_32;
extern u32 trapped_32, efer_between;
extern const u8 stubs_32[96][16];

struct trap_32 trap_32;
u32 trapped_32, efer_between, saved_cr3, saved_cr4, saved_cr0, unwind_esp, code_32;
u64 saved_rsp;
struct {
	u16 limit;
	u64 base;
} __attribute__((packed)) saved_idtr;
static u64 idt_32[96];
struct {
	u16 limit;
	u32 base;
} __attribute__((packed)) idtr_32;
u8 stack_32[0x2000] __attribute__((aligned(16)));
u8 ring0_stack_32[0x2000] __attribute__((aligned(16)));

asm(".text\n"
    "run_32:\n"
    "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "mov %rsp, saved_rsp\n"
    "mov %cr0, %rax; mov %eax, saved_cr0; mov %cr3, %rax; mov %eax, saved_cr3; mov %cr4, %rax; mov %eax, saved_cr4\n"
    "mov %edi, code_32\n"
    "movl $0, trapped_32\n"
    "sidt saved_idtr\n"
    "pushq $0x08; pushq $1f; lretq\n"
    ".code32\n"
    "1: mov $0x18, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss; mov %eax, %fs; mov %eax, %gs\n"
    "mov $stack_32 + 0x2000, %esp\n"
    "mov %cr0, %eax; btr $31, %eax; mov %eax, %cr0\n"
    "mov $0xc0000080, %ecx; rdmsr; mov %eax, efer_between; btr $8, %eax; or 12(%esi), %eax; wrmsr\n"
    "lidt idtr_32\n"
    "mov 8(%esi), %eax; mov %eax, %cr4\n"
    "mov 4(%esi), %eax; mov %eax, %cr3\n"
    "mov 0(%esi), %eax; mov %eax, %cr0\n"
    "jmp 2f\n"
    "2: mov %esp, unwind_esp\n"
    "call *code_32\n"
    ".globl back_32\n"
    "back_32:\n"
    "mov %eax, %edi\n"
    "mov $0x18, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss; mov %eax, %fs; mov %eax, %gs\n"
    "mov unwind_esp, %esp\n"
    "mov $0x21, %eax; mov %eax, %cr0\n"
    "mov saved_cr4, %eax; mov %eax, %cr4\n"
    "mov saved_cr3, %eax; mov %eax, %cr3\n"
    "mov $0xc0000080, %ecx; rdmsr; bts $8, %eax; wrmsr\n"
    "mov saved_cr0, %eax; mov %eax, %cr0\n"
    "ljmp $0x10, $3f\n"
    ".code64\n"
    "3: mov saved_rsp, %rsp\n"
    "lidt saved_idtr\n"
    "mov %edi, %eax\n"
    "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "ret\n"

    /* Exceptions of 32-bit code: a record of what is on the stack, then back. */
    ".balign 16\n"
    "stubs_32:\n"
    ".code32\n"
    "vector_32 = 0\n"
    ".rept 96\n"
    ".balign 16\n"
    ".if !(vector_32 == 8 || (vector_32 >= 10 && vector_32 <= 14) || vector_32 == 17)\n"
    "pushl $0\n"
    ".endif\n"
    "pushl $vector_32\n"
    "jmp 4f\n"
    "vector_32 = vector_32 + 1\n"
    ".endr\n"
    "4: pusha\n"
    "mov %gs, %eax; push %eax; mov %cr2, %eax; push %eax\n"
    "mov $0x18, %eax; mov %eax, %ds; mov %eax, %es\n"
    "mov %esp, %esi; mov $trap_32, %edi; mov $84, %ecx; cld; rep movsb\n"
    "movl $1, trapped_32\n"
    "jmp back_32\n"
    ".code64\n");

static u32 go(const void *code, u32 cr0, u32 cr3, u32 cr4, u32 efer)
{
	struct wanted wanted = { (u32)CR0_PE | (u32)CR0_NE | cr0, cr3, cr4, efer };
	u32 result = run_32(code, &wanted);

	/* The task register may have been used for a 32-bit TSS. */
	*gdt_entry(GDT_TSS) &= ~BIT(41);
	asm volatile("ltr %w0" ::"r"(GDT_TSS));
	return result;
}

static bool trapped(u32 vector, u32 error, u32 eip)
{
	bool good = trapped_32 && trap_32.vector == vector && trap_32.error == error && trap_32.eip == eip;

	if (!good)
		print("# trapped %u: vector %u error 0x%x eip 0x%x cr2 0x%x\n", trapped_32, trap_32.vector,
		      trap_32.error, trap_32.eip, trap_32.cr2);
	return good;
}

static void set_gate_32(unsigned vector, unsigned dpl)
{
	u32 at = (u32)(u64)stubs_32[vector];

	idt_32[vector] = (at & 0xffff) | (u64)KERNEL_CS32 << 16 | (0x8eull | dpl << 5) << 40 | (u64)(at >> 16) << 48;
}

#define CODE_32(name, text)                                                                                            \
	asm(".text\n.balign 16\n.globl " #name "\n" #name ":\n.code32\n" text "\n.code64\n");                          \
	extern const u8 name[];
#define AT_32(label) ((u32)(u64)(label))

/* ---- protected mode without paging ---- */

CODE_32(plain_32, "mov $5, %eax; .byte 0x48; ret") /* DEC EAX */
CODE_32(efer_32, "mov $0xc0000080, %ecx; rdmsr; ret")
CODE_32(stack_code_32, "mov %esp, %ecx; pusha; push $0x11223344; pop %edx; popa; sub %esp, %ecx; mov %ecx, %eax; ret")
CODE_32(int_32, LABEL(int_32_at) "int $0x50\n" LABEL(int_32_next) "ret")
CODE_32(ud_32, "nop\n" LABEL(ud_32_at) "ud2")
CODE_32(div_32, "xor %ecx, %ecx\n" LABEL(div_32_at) "div %ecx")
CODE_32(bad_ds_32, "mov $0x2000, %eax\n" LABEL(bad_ds_32_at) "mov %eax, %ds")
CODE_32(read_32, "mov read_address, %edx\n" LABEL(read_32_at) "mov (%edx), %eax; ret")
CODE_32(write_32, "mov read_address, %edx\n" LABEL(write_32_at) "mov %edx, (%edx); ret")
CODE_32(call_32, "mov read_address, %edx; call *%edx; ret")
extern const u8 int_32_next[], ud_32_at[], div_32_at[], bad_ds_32_at[], read_32_at[], write_32_at[];
u32 read_address;

static void test_protected(void)
{
	check_equal(go(plain_32, 0, 0, 0, 0), 4, "3A 9.8.5.4: from 64-bit mode to 32-bit protected mode and back");
	check(!(efer_between & EFER_LMA) && (efer_between & EFER_LME),
	      "3A 9.8.5.4: paging off ends long mode, LME stays");
	check(!(go(efer_32, 0, 0, 0, 0) & (EFER_LMA | EFER_LME)), "3A 9.8.5.4: LME can be cleared then");
	check(read_msr(MSR_EFER) & EFER_LMA, "3A 9.8.5: paging with LME sets LMA");
	check_equal(go(stack_code_32, 0, 0, 0, 0), 0, "2 PUSHAD, POPAD");
	go(int_32, 0, 0, 0, 0);
	check(trapped(0x50, 0, AT_32(int_32_next)), "3A 6.12.1: INT through a 32-bit gate");
	go(ud_32, 0, 0, 0, 0);
	check(trapped(EXC_UD, 0, AT_32(ud_32_at)), "3A 6.12.1: #UD");
	check(trap_32.cs == KERNEL_CS32 && (trap_32.eflags & FLAG_RF), "3A 6.12.1: with CS and EFLAGS, RF set");
	go(div_32, 0, 0, 0, 0);
	check(trapped(EXC_DE, 0, AT_32(div_32_at)), "3A 6.12.1: #DE");
	go(bad_ds_32, 0, 0, 0, 0);
	check(trapped(EXC_GP, 0x2000, AT_32(bad_ds_32_at)), "3A 6.13: #GP with a selector");
}

/* ---- paging of the old kinds ---- */

static u32 word = 0xabcdef01;
static u64 pdptes[4] __attribute__((aligned(32)));
static u64 pae_directory[512] __attribute__((aligned(4096))), pae_high[512] __attribute__((aligned(4096)));
static u64 pae_table[512] __attribute__((aligned(4096)));
static u32 directory[1024] __attribute__((aligned(4096))), table[1024] __attribute__((aligned(4096)));
static u8 return_9[4096] __attribute__((aligned(4096))) = { 0xb8, 9, 0, 0, 0, 0xc3 };

static void read_at(u32 address) { read_address = address; }

static void test_pae(void)
{
	u32 cr3 = AT_32(pdptes), pg = (u32)CR0_PG, pae = (u32)CR4_PAE, efer = has_nx() ? (u32)EFER_NXE : 0;

	for (u64 n = 0; n < 512; n++)
		pae_directory[n] = n << 21 | PTE_P | PTE_W | PTE_PS;
	pdptes[0] = (u64)pae_directory | PTE_P;
	pdptes[2] = (u64)pae_high | PTE_P;
	pae_high[0] = (u64)pae_table | PTE_P | PTE_W;
	pae_table[0] = ((u64)&word & ~0xfffull) | PTE_P;
	pae_table[1] = (u64)return_9 | PTE_P | (has_nx() ? PTE_NX : 0);
	pae_table[2] = (u64)return_9 | PTE_P;

	read_at(0x80000000 + (AT_32(&word) & 0xfff));
	check_equal(go(read_32, pg, cr3, pae, efer), word, "3A 4.4: PAE paging, a page of 4 KiB");
	check((pae_table[0] & (PTE_A | PTE_D)) == PTE_A && (pae_high[0] & PTE_A), "3A 4.8: accessed bits");
	check(pdptes[2] == ((u64)pae_high | PTE_P), "3A 4.4.1: none of the PDPTEs");
	read_at(AT_32(&word));
	check_equal(go(read_32, pg, cr3, pae, efer), word, "3A 4.4: a page of 2 MiB");
	read_at(0x80005123);
	go(read_32, pg, cr3, pae, efer);
	check(trapped(EXC_PF, 0, AT_32(read_32_at)) && trap_32.cr2 == 0x80005123, "3A 4.7: an absent page");
	read_at(0xc0000000);
	go(read_32, pg, cr3, pae, efer);
	check(trapped(EXC_PF, 0, AT_32(read_32_at)) && trap_32.cr2 == 0xc0000000, "3A 4.7: an absent PDPTE");
	read_at(0x80000000);
	go(write_32, pg | (u32)CR0_WP, cr3, pae, efer);
	check(trapped(EXC_PF, PF_P | PF_W, AT_32(write_32_at)), "3A 4.6: a read-only page with CR0.WP");
	read_at(0x80002000);
	check_equal(go(call_32, pg, cr3, pae, efer), 9, "3A 4.6: execution");
	if (has_nx()) {
		read_at(0x80001000);
		go(call_32, pg, cr3, pae, efer);
		check(trapped(EXC_PF, PF_P | PF_I, 0x80001000), "3A 4.6: an execute-disable page");
	}
}

static void test_legacy(void)
{
	u32 cr3 = AT_32(directory), pg = (u32)CR0_PG, pse = (u32)CR4_PSE;

	for (u32 n = 0; n < 256; n++)
		directory[n] = n << 22 | (u32)(PTE_P | PTE_W | PTE_PS);
	directory[512] = AT_32(table) | (u32)(PTE_P | PTE_W);
	table[3] = (AT_32(&word) & ~0xfffu) | (u32)(PTE_P | PTE_W);
	table[4] = AT_32(return_9) | (u32)PTE_P;
	read_at(0x80003000 + (AT_32(&word) & 0xfff));
	check_equal(go(read_32, pg, cr3, pse, 0), word, "3A 4.3: 32-bit paging, a page of 4 KiB");
	check(table[3] & PTE_A, "3A 4.8: accessed bit");
	read_at(AT_32(&word));
	check_equal(go(read_32, pg, cr3, pse, 0), word, "3A 4.3: a page of 4 MiB");
	check(directory[AT_32(&word) >> 22] & PTE_A, "3A 4.8: accessed bit");
	read_at(0x80003000);
	go(write_32, pg, cr3, pse, 0);
	check(!trapped_32 && (table[3] & PTE_D), "3A 4.8: dirty bit");
	read_at(0x80004000);
	check_equal(go(call_32, pg, cr3, pse, 0), 9, "3A 4.3: execution");
	read_at(0xfffff000);
	go(read_32, pg, cr3, pse, 0);
	check(trapped(EXC_PF, 0, AT_32(read_32_at)) && trap_32.cr2 == 0xfffff000, "3A 4.7: an absent page");
	read_at(0x80004000);
	go(write_32, pg | (u32)CR0_WP, cr3, pse, 0);
	check(trapped(EXC_PF, PF_P | PF_W, AT_32(write_32_at)), "3A 4.6: a read-only page");
}

/* ---- ring 3, virtual-8086 mode and 16-bit segments ---- */

static struct {
	u32 link, esp0, ss0, rest[23];
} __attribute__((packed)) tss_32;

CODE_32(to_ring_3, "mov $0x58, %eax; ltr %ax\n" /* TSS_32 */
		   "pushl $0x2b; pushl $0x12345670; pushl $2; pushl $0x23; pushl $1f; iretl\n"
		   "1: mov %ds, %eax; mov %ss, %ecx\n" LABEL(ring_3_int) "int $0x50")
CODE_32(ring_3_hlt, "mov $0x58, %eax; ltr %ax\n"
		    "pushl $0x2b; pushl $0x12345670; pushl $2; pushl $0x23; pushl $ring_3_hlt_at; iretl\n" LABEL(
			    ring_3_hlt_at) "hlt")
CODE_32(to_virtual_8086, "mov $0x58, %eax; ltr %ax\n"
			 "pushl $0x4444; pushl $0x3333; pushl $0x2222; pushl $0x1111\n" /* GS FS DS ES */
			 "pushl $0x0700; pushl $0x0ff0; pushl $0x20002; pushl $0x0800; pushl $0x0010; iretl")
CODE_32(call_16, "mov $7, %eax; lcall $0x60, $0x20; ret") /* CODE_16 */
CODE_32(stack_16, "mov %esp, %ebp; mov $0x68, %eax; mov %eax, %ss; mov $0xabcd0104, %esp; push %eax; mov %esp, %ecx\n"
		  "mov $0x18, %eax; mov %eax, %ss; mov %ebp, %esp; mov %ecx, %eax; ret")

static void make_tss(void)
{
	memset(&tss_32, 0, sizeof(tss_32));
	tss_32.esp0 = AT_32(ring0_stack_32) + sizeof(ring0_stack_32);
	tss_32.ss0 = KERNEL_DS;
	*gdt_entry(TSS_32) = descriptor(AT_32(&tss_32), sizeof(tss_32) - 1, 0x89);
}

static void test_rings(void)
{
	extern const u8 ring_3_int[], ring_3_hlt_at[];
	u32 cr3 = AT_32(directory);

	make_tss();
	go(to_ring_3, 0, 0, 0, 0);
	check(trapped(0x50, 0, AT_32(ring_3_int) + 2), "3A 6.12.1: INT from ring 3");
	check(trap_32.cs == USER_CS32 && trap_32.ss == USER_DS && trap_32.esp == 0x12345670 && trap_32.ecx == USER_DS,
	      "3A 6.12.1: with ring 3's stack pushed");
	check(trap_32.esp0 == AT_32(ring0_stack_32) + sizeof(ring0_stack_32) - 7 * 4,
	      "3A 6.12.1: on the stack of the TSS");
	check_equal(trap_32.eax & 0xffff, 0, "2 IRET: DS of ring 0 is nulled");
	make_tss();
	go(ring_3_hlt, 0, 0, 0, 0);
	check(trapped(EXC_GP, 0, AT_32(ring_3_hlt_at)), "2 HLT: ring 3");
	make_tss();
	go(ring_3_hlt, (u32)CR0_PG, cr3, (u32)CR4_PSE, 0);
	check(trapped(EXC_PF, PF_P | PF_U, AT_32(ring_3_hlt_at)), "3A 4.6: ring 3 on supervisor pages");

	static const u8 code_86[] = {
		0x8c, 0xd8, 0x8c, 0xcb, 0x40, 0xf4
	}; /* mov %ds, %ax; mov %cs, %bx; inc %ax; hlt */
	memcpy((void *)(LOW_PAGE + 0x10), code_86, sizeof(code_86));
	make_tss();
	go(to_virtual_8086, 0, 0, 0, 0);
	check(trapped(EXC_GP, 0, 0x15) && trap_32.cs == 0x800 && (trap_32.eflags & BIT(17)),
	      "3A 20.2: virtual-8086 mode, left by #GP");
	check((trap_32.eax & 0xffff) == 0x2223 && (trap_32.ebx & 0xffff) == 0x800,
	      "3A 20.2: 16-bit code with its segments");
	check(trap_32.es == 0x1111 && trap_32.ds == 0x2222 && trap_32.fs == 0x3333 && trap_32.gs_86 == 0x4444 &&
		      trap_32.ss == 0x700 && trap_32.esp == 0xff0,
	      "3A 20.3.1: which the frame has, too");
	check_equal(trap_32.gs & 0xffff, 0, "3A 20.3.1: the handler has null segments");

	static const u8 code_16[] = { 0x40, 0xb9, 0x34, 0x12, 0x66, 0xcb }; /* inc %ax; mov $0x1234, %cx; lretl */
	memcpy((void *)(LOW_PAGE + 0x20), code_16, sizeof(code_16));
	*gdt_entry(CODE_16) = descriptor(LOW_PAGE, 0xffff, ATTR_CODE16);
	*gdt_entry(DATA_16) = descriptor(LOW_PAGE, 0xffff, ATTR_DATA16);
	check((u16)go(call_16, 0, 0, 0, 0) == 8 && !trapped_32, "2 CALL: far, to a 16-bit segment and back");
	check_equal(go(stack_16, 0, 0, 0, 0), 0xabcd0100, "2 PUSH: a 16-bit stack uses SP alone");
	check_equal(*(u16 *)(LOW_PAGE + 0x100), DATA_16, "2 PUSH: relative to its base");
}

/* ---- real mode ---- */

/* Copied to LOW_PAGE: from 32-bit protected mode to real mode, the body there, and back. Offsets are from `real_start`. */
asm(".text\n"
    ".globl real_start, real_body, real_end\n"
    ".balign 16\n"
    "real_start:\n"
    ".code16\n"
    "mov $0x68, %ax; mov %ax, %ds; mov %ax, %es; mov %ax, %ss; mov %ax, %gs\n" /* DATA_16: limits of 64 KiB; FS stays flat */
    "mov %cr0, %eax; and $0xfe, %al; mov %eax, %cr0\n"
    "ljmp $0x800, $1f - real_start\n"
    "1: mov %cs, %ax; mov %ax, %ds; mov %ax, %es; xor %ax, %ax; mov %ax, %ss; mov $0x7f00, %sp\n"
    "xor %eax, %eax; xor %ebx, %ebx; xor %ecx, %ecx; xor %edx, %edx; xor %ebp, %ebp\n"
    "call real_body\n"
    "mov %eax, 0xe00; mov %ebx, 0xe04; mov %ecx, 0xe08; mov %edx, 0xe0c; mov %ebp, 0xe10; mov %sp, 0xe14\n"
    "mov %cr0, %eax; or $1, %al; mov %eax, %cr0\n"
    "ljmpl $0x08, $real_back\n"
    ".balign 16\n"
    "real_body: .skip 128, 0x90\n"
    "real_end:\n"
    ".code32\n"
    "real_back: mov $0x18, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss; mov %eax, %fs; mov %eax, %gs\n"
    "mov unwind_esp, %esp; jmp back_32\n"
    ".globl to_real\n"
    "to_real: lidt real_idtr; ljmp $0x60, $0\n"
    ".code64\n");
extern const u8 real_start[], real_body[], real_end[], to_real[];
struct {
	u16 limit;
	u32 base;
} __attribute__((packed)) real_idtr = { 0x3ff, 0 };

/* Bodies end by RET. */
#define BODY_16(name, text)                                                                                            \
	asm(".text\n.balign 16\n.globl " #name ", " #name "_end\n" #name ":\n.code16\n" text "\nret\n" #name           \
	    "_end:\n.code64\n");                                                                                       \
	extern const u8 name[], name##_end[];

struct real_result {
	u32 eax, ebx, ecx, edx, ebp;
	u16 sp;
};

/* Handlers of interrupts in real mode: count in BP, where they came from in DX. */
static const u8 real_handler[] = {
	0x45, /* inc %bp */
	0x5a, 0x83, 0xc2,
	0x02, 0x52, /* pop %dx; add $2, %dx; push %dx: over the instruction, if it was a fault of 2 bytes */
	0xcf,	    /* iret */
};
static const u8 real_int_handler[] = { 0x45, 0x9c, 0x5a, 0xcf }; /* inc %bp; pushf; pop %dx; iret */

static void set_vector(u64 vector, u16 offset)
{
	asm volatile("movl %1, (%0)" ::"r"(4 * vector), "r"(LOW_PAGE << 12 | offset) : "memory");
}

static struct real_result run_real(const u8 *body, const u8 *end)
{
	u8 *low = (u8 *)LOW_PAGE;

	memcpy(low, real_start, (size_t)(real_end - real_start));
	memcpy(low + (real_body - real_start), body, (size_t)(end - body));
	memcpy(low + 0xc00, real_handler, sizeof(real_handler));
	memcpy(low + 0xc80, real_int_handler, sizeof(real_int_handler));
	set_vector(EXC_DE, 0xc00);
	set_vector(EXC_GP, 0xc00);
	set_vector(0x50, 0xc80);
	go(to_real, 0, 0, 0, 0);
	return *(struct real_result *)(low + 0xe00);
}
#define REAL(body) run_real(body, body##_end)

BODY_16(real_segments, "mov %cs, %ax; mov %ss, %bx; mov %ds, %cx; smsw %dx; and $1, %dx")
BODY_16(real_operands,
	"mov $0x12345678, %eax; mov %ax, %bx; add $1, %bx; mov $0xffff, %cx; inc %cx; lea 4(%esi,%eax,2), %edx")
BODY_16(real_memory, "mov $0x9000, %ax; mov %ax, %gs; movw $0x55aa, %gs:0x10; mov $0x9001, %ax; mov %ax, %gs; mov "
		     "%gs:0, %bx; xor %ax, %ax")
BODY_16(real_int, "sti; int $0x50; pushf; pop %ax; cli; mov %sp, %bx")
BODY_16(real_divide, "xor %cx, %cx; div %cx; mov $0x77, %ax")
BODY_16(real_limit, "mov $0xffff, %bx; mov (%bx), %ax; mov $0x66, %cx")
BODY_16(real_big, "mov $word_for_real, %edx; addr32 mov %fs:(%edx), %eax")
BODY_16(real_wrap, "mov $0xffff, %ax; mov %ax, %gs; mov %gs:0x10, %ax")
BODY_16(real_string, "mov $0xd00, %di; mov $8, %cx; mov $0xab, %al; rep stosb; mov 0xd06, %bx; mov %di, %dx")
BODY_16(real_stack, "mov %sp, %bx; pusha; pushl $0x11112222; popl %edx; popa; mov %sp, %cx; sub %bx, %cx")
u32 word_for_real = 0x600df00d;

static void test_real(void)
{
	struct real_result r = REAL(real_segments);

	check(r.eax == 0x800 && r.ebx == 0 && r.ecx == 0x800 && r.edx == 0, "3A 9.9.2: real mode and back");
	check_equal(r.sp, 0x7f00, "3A 9.9.2: with a stack of its own");
	r = REAL(real_operands);
	check(r.eax == 0x12345678 && r.ebx == 0x5679 && r.ecx == 0,
	      "1 3.6: operands of 16 bits, and of 32 with a prefix");
	r = REAL(real_memory);
	check_equal(r.ebx, 0x55aa, "3A 20.1.1: an address is segment * 16 + offset");
	r = REAL(real_int);
	check(r.ebp == 1 && r.ebx == 0x7f00 - 2 && (r.eax & FLAG_IF) && !(r.edx & FLAG_IF),
	      "3A 20.1.4: INT through the vector table, IF clear inside");
	r = REAL(real_divide);
	check(r.ebp == 1 && r.eax == 0x77, "3A 20.1.4: #DE through it, IP is the DIV's");
	r = REAL(real_wrap);
	check(r.ebp == 0 && (u16)r.eax == *(volatile u16 *)0x100000,
	      "3A 20.1.1: FFFF:0010 is the first byte above 1 MiB");
	r = REAL(real_big);
	check_equal(r.eax, word_for_real,
		    "3A 20.1: limits stay those of protected mode until a segment is loaded there");
	r = REAL(real_string);
	check(r.ebx == 0xabab && r.edx == 0xd08 && r.ecx == 0, "2 REP STOSB: by 16-bit registers");
	r = REAL(real_stack);
	check(r.edx == 0x11110000 && r.ecx == 0, "2 PUSHA, POPA: of 16 bits");
	r = REAL(real_limit);
	check(r.ebp == 1 && r.ecx == 0x66, "3A 20.1.4: a word at the end of a segment: #GP");
}

void guest(void)
{
	for (unsigned n = 0; n < 96; n++)
		set_gate_32(n, n == 0x50 ? 3 : 0);
	idtr_32.limit = sizeof(idt_32) - 1;
	idtr_32.base = AT_32(idt_32);
	test_protected();
	test_pae();
	test_legacy();
	test_rings();
	test_real();
}
