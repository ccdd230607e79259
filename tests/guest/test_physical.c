/*
 * What is not memory: device registers and physical addresses that nobody answers, reached by every kind of instruction. Also
 * segment instructions that only look (LAR, LSL, VERR, VERW, SMSW) and MSRs and CPUID leaves that are not there.
 */
#include "guest.h"

#define HOLE	   0xc8000000ull /* no RAM, no device */
#define T	   0x8000000000ull
#define APIC(reg)  (0xfee00000ull + (reg)*16)
#define CR4_OSFXSR BIT(9)

CODE(load_8, "movzbl (%rdi), %eax")
CODE(load_16, "movzwl (%rdi), %eax")
CODE(load_32, "mov (%rdi), %eax")
CODE(load_64, "mov (%rdi), %rax")
CODE(store_32, "mov %eax, (%rdi)")
CODE(add_32, "addl $0x10, (%rdi)")
CODE(lock_or_32, "lock orl $0x20, (%rdi)")
CODE(xchg_32, "xchg %eax, (%rdi)")
CODE(cmpxchg_32, "mov $0x40, %ecx; lock cmpxchg %ecx, (%rdi)")
CODE(push_mem, "push (%rdi); pop %rax")
CODE(pop_mem, "push %rax; pop (%rdi)")
CODE(movs_32, "rep movsl")
CODE(stos_32, "rep stosl")
CODE(cmps_32, "cmpsl; setz %al")
CODE(scas_32, "scasl; setz %al")
CODE(bts_32, "btsl $3, (%rdi); setc %al")
CODE(test_32, "testl $1, (%rdi); setz %al")
CODE(movups_load, "movups (%rdi), %xmm0; movq %xmm0, %rax")

/* ---- nobody answers ---- */

static void test_hole(void)
{
	u64 cr4 = read_cr4();
	struct trap t;

	check_equal(KERNEL(load_8, .rdi = HOLE).rax, 0xff, "hole: a byte reads as ones");
	check_equal(KERNEL(load_32, .rdi = HOLE + 4).rax, 0xffffffff, "hole: a doubleword");
	check_equal(KERNEL(load_64, .rdi = HOLE + 8).rax, ~0ull, "hole: a quadword");
	check_equal(KERNEL(load_64, .rdi = HOLE + 0xffb).rax, ~0ull, "hole: over a page boundary");
	t = KERNEL(store_32, .rdi = HOLE, .rax = 0);
	check(t.vector == END_VECTOR && KERNEL(load_32, .rdi = HOLE).rax == 0xffffffff, "hole: writes are dropped");
	t = KERNEL(lock_or_32, .rdi = HOLE);
	check_end(&t, "hole: locked instructions");
	t = KERNEL(xchg_32, .rdi = HOLE, .rax = 5);
	check(t.vector == END_VECTOR && t.rax == 0xffffffff, "hole: XCHG");
	t = KERNEL(stos_32, .rdi = HOLE, .rcx = 1000);
	check(t.vector == END_VECTOR && t.rcx == 0 && t.rdi == HOLE + 4000, "hole: REP STOSD");
	write_cr4(cr4 | CR4_OSFXSR);
	check_equal(KERNEL(movups_load, .rdi = HOLE + 3).rax, ~0ull, "hole: SSE");
	write_cr4(cr4);
	t = KERNEL(HOLE);
	check_fault(&t, EXC_UD, 0, "hole: executed, its ones are no instruction");
	check_equal(t.rip, HOLE, "hole: RIP is there");
	/* All ones as a page table: reserved bits are set. */
	*entry_of(T, 2) = HOLE | PTE_P | PTE_W;
	invlpg(T);
	t = KERNEL(load_32, .rdi = T);
	check_page_fault(&t, PF_P | PF_RSVD, T, "hole: as a page table");
	*entry_of(T, 2) = 0;
	invlpg(T);
}

/* ---- a device's registers ---- */

static void test_device(void)
{
	u32 buffer[4] = { 1, 2, 3, 4 };
	u64 id = APIC(APIC_LDR), tpr = APIC(APIC_TPR);
	struct trap t;

	apic_write(APIC_LDR, 0x12000000);
	check_equal(KERNEL(load_32, .rdi = id).rax, 0x12000000, "device: MOV");
	check_equal(KERNEL(test_32, .rdi = id).rax & 0xff, 1, "device: TEST");
	t = KERNEL(movs_32, .rdi = (u64)buffer, .rsi = id, .rcx = 1);
	check(t.vector == END_VECTOR && buffer[0] == 0x12000000, "device: MOVSD from it");
	buffer[1] = 0x34000000;
	t = KERNEL(movs_32, .rdi = id, .rsi = (u64)&buffer[1], .rcx = 1);
	check_equal(apic_read(APIC_LDR), 0x34000000, "device: MOVSD to it");
	KERNEL(stos_32, .rdi = id, .rax = 0x56000000, .rcx = 1);
	check_equal(apic_read(APIC_LDR), 0x56000000, "device: STOSD");
	check_equal(KERNEL(cmps_32, .rsi = id, .rdi = id).rax & 0xff, 1, "device: CMPSD");
	check_equal(KERNEL(scas_32, .rdi = id, .rax = 0x56000000).rax & 0xff, 1, "device: SCASD");
	apic_write(APIC_TPR, 0);
	KERNEL(add_32, .rdi = tpr);
	check_equal(apic_read(APIC_TPR), 0x10, "device: ADD");
	KERNEL(lock_or_32, .rdi = tpr);
	check_equal(apic_read(APIC_TPR), 0x30, "device: LOCK OR");
	t = KERNEL(xchg_32, .rdi = tpr, .rax = 0x50);
	check(t.rax == 0x30 && apic_read(APIC_TPR) == 0x50, "device: XCHG");
	t = KERNEL(cmpxchg_32, .rdi = tpr, .rax = 0x50);
	check((t.rflags & FLAG_ZF) && apic_read(APIC_TPR) == 0x40, "device: LOCK CMPXCHG");
	t = KERNEL(cmpxchg_32, .rdi = tpr, .rax = 0x77);
	check(!(t.rflags & FLAG_ZF) && t.rax == 0x40 && apic_read(APIC_TPR) == 0x40, "device: LOCK CMPXCHG that fails");
	t = KERNEL(bts_32, .rdi = tpr);
	check((t.rax & 0xff) == 0 && apic_read(APIC_TPR) == 0x48, "device: BTS");
	t = KERNEL(push_mem, .rdi = tpr);
	check(t.vector == END_VECTOR && (u32)t.rax == 0x48, "device: PUSH");
	apic_write(APIC_TPR, 0);
}

/* ---- looking at segments ---- */

CODE(do_lar, "lar %ecx, %eax; setz %dl")
CODE(do_lsl, "lsl %ecx, %eax; setz %dl")
CODE(do_verr, "verr %cx; setz %dl")
CODE(do_verw, "verw %cx; setz %dl")
CODE(do_smsw, "smsw %eax; sldt %ecx; str %edx")

static void test_looking(void)
{
	struct trap t;

	t = KERNEL(do_lar, .rcx = KERNEL_CS);
	check(t.rdx == 1 && (t.rax & ~0xf0000ull) == 0x00a09b00, "2 LAR: of a code segment");
	t = KERNEL(do_lar, .rcx = 0);
	check(t.rdx == 0 && t.rax == 0, "2 LAR: null");
	t = KERNEL(do_lar, .rcx = 0x2000);
	check_equal(t.rdx, 0, "2 LAR: beyond the GDT");
	t = USER_MODE(do_lar, .rcx = KERNEL_DS);
	check_equal(t.rdx, 0, "2 LAR: of ring 0 in ring 3");
	t = KERNEL(do_lar, .rcx = GDT_TSS);
	check(t.rdx == 1 && (t.rax & 0xff00) == 0x8b00, "2 LAR: of a TSS");
	t = KERNEL(do_lsl, .rcx = KERNEL_DS);
	check(t.rdx == 1 && t.rax == 0xffffffff, "2 LSL: in pages");
	t = KERNEL(do_lsl, .rcx = KERNEL_CS16);
	check(t.rdx == 1 && t.rax == 0xffff, "2 LSL: in bytes");
	t = KERNEL(do_verr, .rcx = KERNEL_CS);
	check_equal(t.rdx, 1, "2 VERR: readable code");
	t = KERNEL(do_verw, .rcx = KERNEL_CS);
	check_equal(t.rdx, 0, "2 VERW: code is not writable");
	t = KERNEL(do_verw, .rcx = KERNEL_DS);
	check_equal(t.rdx, 1, "2 VERW: data is");
	t = USER_MODE(do_verr, .rcx = KERNEL_DS);
	check_equal(t.rdx, 0, "2 VERR: of ring 0 in ring 3");
	t = USER_MODE(do_smsw);
	check(t.vector == END_VECTOR && (u16)t.rax == (u16)read_cr0() && t.rdx == GDT_TSS,
	      "2 SMSW, SLDT, STR: in ring 3 without UMIP");
}

/* ---- MSRs and CPUID ---- */

CODE(do_rdmsr, "rdmsr")
CODE(do_wrmsr, "wrmsr")
CODE(do_xsetbv, "xsetbv")

static void test_registers(void)
{
	u64 cr4 = read_cr4();
	struct cpuid first, beyond;
	struct trap t;

	t = KERNEL(do_rdmsr, .rcx = 0x12345678);
	check_fault(&t, EXC_GP, 0, "2 RDMSR: one that there is not");
	t = KERNEL(do_wrmsr, .rcx = 0x12345678);
	check_fault(&t, EXC_GP, 0, "2 WRMSR: one that there is not");
	t = KERNEL(do_rdmsr, .rcx = MSR_LSTAR | 0xabcdull << 32);
	check_end(&t, "2 RDMSR: ECX alone counts");
	write_msr(MSR_LSTAR, 0xffff800012345678);
	check_equal(read_msr(MSR_LSTAR), 0xffff800012345678, "2 WRMSR: 64 bits");
	first = cpuid(0, 0);
	beyond = cpuid(first.a + 100, 0);
	check(first.a >= 7, "2 CPUID: leaf 7 is there");
	check(vendor_is_amd() ? !(beyond.a | beyond.b | beyond.c | beyond.d) : true, "2 CPUID: beyond the last leaf");
	check(cpuid(0x80000000, 0).a >= 0x80000008, "2 CPUID: extended leaves");
	if (cpuid(1, 0).c & BIT(26)) {
		write_cr4(cr4 | BIT(18));
		check(cpuid(1, 0).c & BIT(27), "2 CPUID: OSXSAVE follows CR4");
		t = KERNEL(do_xsetbv, .rax = 0);
		check_fault(&t, EXC_GP, 0, "2 XSETBV: without x87");
		t = KERNEL(do_xsetbv, .rax = 5);
		check_fault(&t, EXC_GP, 0, "2 XSETBV: AVX without SSE");
		t = KERNEL(do_xsetbv, .rax = 3, .rcx = 1);
		check_fault(&t, EXC_GP, 0, "2 XSETBV: XCR1");
		t = USER_MODE(do_xsetbv, .rax = 3);
		check_fault(&t, EXC_GP, 0, "2 XSETBV: ring 3");
		t = KERNEL(do_xsetbv, .rax = 3);
		check_end(&t, "2 XSETBV: x87 and SSE");
		write_cr4(cr4);
		check(!(cpuid(1, 0).c & BIT(27)), "2 CPUID: OSXSAVE follows CR4 back");
	}
}

void guest(void)
{
	test_hole();
	test_device();
	test_looking();
	test_registers();
}
