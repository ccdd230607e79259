/*
 * What CPUID announces is there and what it does not announce is not: for each feature bit with an instruction of its own the
 * instruction runs, or gives #UD. And what runs whether announced or not: the hints. SDM vol. 2, CPUID; APM vol. 3 appendix E.
 */
#include "guest.h"

#define CR4_OSFXSR  BIT(9)
#define CR4_OSXSAVE BIT(18)
#define CR4_PKE	    BIT(22)

/*
 * (name, leaf, subleaf, register, bit, code): run in ring 0 with RDI and RAX pointing to memory, RCX = 0, CR4 and XCR0 with all that is
 * offered. Bytes where assemblers may not know the instruction.
 */
/* clang-format off */
#define FEATURES(_) \
	_(tsc, 1, 0, 'd', 4, "rdtsc") \
	_(msr, 1, 0, 'd', 5, "mov $0xc0000080, %ecx; rdmsr") \
	_(cx8, 1, 0, 'd', 8, "cmpxchg8b (%rdi)") \
	_(cmov, 1, 0, 'd', 15, "cmovc %eax, %eax") \
	_(clfsh, 1, 0, 'd', 19, "clflush (%rdi)") \
	_(mmx, 1, 0, 'd', 23, "paddb %mm0, %mm1; emms") \
	_(fxsr, 1, 0, 'd', 24, "fxsave (%rdi)") \
	_(sse, 1, 0, 'd', 25, "addps %xmm0, %xmm1") \
	_(sse2, 1, 0, 'd', 26, "addpd %xmm0, %xmm1") \
	_(sse3, 1, 0, 'c', 0, "haddps %xmm0, %xmm1") \
	_(pclmulqdq, 1, 0, 'c', 1, "pclmulqdq $0, %xmm0, %xmm1") \
	_(monitor, 1, 0, 'c', 3, "xor %edx, %edx; monitor") \
	_(vmx, 1, 0, 'c', 5, ".byte 0xf3, 0x0f, 0xc7, 0x37") /* VMXON */ \
	_(smx, 1, 0, 'c', 6, ".byte 0x0f, 0x37") /* GETSEC */ \
	_(ssse3, 1, 0, 'c', 9, "pabsb %xmm0, %xmm1") \
	_(fma, 1, 0, 'c', 12, "vfmadd132ps %xmm0, %xmm1, %xmm2") \
	_(cx16, 1, 0, 'c', 13, "cmpxchg16b (%rdi)") \
	_(sse41, 1, 0, 'c', 19, "pmulld %xmm0, %xmm1") \
	_(sse42, 1, 0, 'c', 20, "pcmpgtq %xmm0, %xmm1; crc32b %al, %ecx") \
	_(movbe, 1, 0, 'c', 22, "movbe (%rdi), %eax") \
	_(popcnt, 1, 0, 'c', 23, "popcnt %eax, %eax") \
	_(aes, 1, 0, 'c', 25, "aesenc %xmm0, %xmm1") \
	_(xsave, 1, 0, 'c', 26, "xor %edx, %edx; mov $1, %eax; xsave (%rdi)") \
	_(avx, 1, 0, 'c', 28, "vaddps %ymm0, %ymm1, %ymm2") \
	_(f16c, 1, 0, 'c', 29, "vcvtph2ps %xmm0, %xmm1") \
	_(rdrand, 1, 0, 'c', 30, "rdrand %eax") \
	_(fsgsbase, 7, 0, 'b', 0, "rdfsbase %rax") \
	_(sgx, 7, 0, 'b', 2, ".byte 0x0f, 0x01, 0xcf") /* ENCLS */ \
	_(bmi1, 7, 0, 'b', 3, "andn %eax, %eax, %eax") \
	_(avx2, 7, 0, 'b', 5, "vpaddd %ymm0, %ymm1, %ymm2; vpbroadcastd %xmm0, %xmm1") \
	_(bmi2, 7, 0, 'b', 8, "shlx %eax, %eax, %eax") \
	_(invpcid, 7, 0, 'b', 10, "mov $2, %eax; invpcid (%rdi), %rax") \
	_(rtm, 7, 0, 'b', 11, ".byte 0xc7, 0xf8, 0, 0, 0, 0") /* XBEGIN */ \
	_(avx512f, 7, 0, 'b', 16, ".byte 0x62, 0xf1, 0x74, 0x48, 0x58, 0xd0") /* VADDPS ZMM */ \
	_(rdseed, 7, 0, 'b', 18, "rdseed %eax") \
	_(adx, 7, 0, 'b', 19, "adcx %eax, %eax; adox %eax, %eax") \
	_(smap, 7, 0, 'b', 20, "clac") \
	_(clflushopt, 7, 0, 'b', 23, "clflushopt (%rdi)") \
	_(clwb, 7, 0, 'b', 24, "clwb (%rdi)") \
	_(sha, 7, 0, 'b', 29, "sha1nexte %xmm0, %xmm1") \
	_(avx512vl, 7, 0, 'b', 31, ".byte 0x62, 0xf1, 0x74, 0x08, 0x58, 0xd0") /* VADDPS XMM, EVEX */ \
	_(pku, 7, 0, 'c', 3, ".byte 0x0f, 0x01, 0xee") /* RDPKRU */ \
	_(waitpkg, 7, 0, 'c', 5, ".byte 0xf3, 0x0f, 0xae, 0xf0") /* UMONITOR */ \
	_(cet_ss, 7, 0, 'c', 7, ".byte 0xf3, 0x0f, 0xae, 0xe8") /* INCSSPD */ \
	_(gfni, 7, 0, 'c', 8, ".byte 0x66, 0x0f, 0x38, 0xcf, 0xc8") /* GF2P8MULB */ \
	_(vaes, 7, 0, 'c', 9, "vaesenc %ymm0, %ymm1, %ymm2") \
	_(vpclmulqdq, 7, 0, 'c', 10, "vpclmulqdq $0, %ymm0, %ymm1, %ymm2") \
	_(rdpid, 7, 0, 'c', 22, "rdpid %rax") \
	_(key_locker, 7, 0, 'c', 23, ".byte 0xf3, 0x0f, 0x38, 0xdc, 0xc8") /* LOADIWKEY */ \
	_(movdiri, 7, 0, 'c', 27, ".byte 0x0f, 0x38, 0xf9, 0x07") \
	_(movdir64b, 7, 0, 'c', 28, ".byte 0x66, 0x0f, 0x38, 0xf8, 0x07") \
	_(enqcmd, 7, 0, 'c', 29, ".byte 0xf2, 0x0f, 0x38, 0xf8, 0x07") \
	_(uintr, 7, 0, 'd', 5, ".byte 0xf3, 0x0f, 0x01, 0xef") /* STUI */ \
	_(serialize, 7, 0, 'd', 14, ".byte 0x0f, 0x01, 0xe8") \
	_(tsxldtrk, 7, 0, 'd', 16, ".byte 0xf2, 0x0f, 0x01, 0xe8") \
	_(pconfig, 7, 0, 'd', 18, ".byte 0x0f, 0x01, 0xc5") \
	_(raoint, 7, 1, 'a', 3, ".byte 0x0f, 0x38, 0xfc, 0x07") /* AADD */ \
	_(avx_vnni, 7, 1, 'a', 4, ".byte 0xc4, 0xe2, 0x71, 0x50, 0xc8") /* VPDPBUSD, VEX */ \
	_(cmpccxadd, 7, 1, 'a', 7, ".byte 0xc4, 0xe2, 0x79, 0xe2, 0x07") /* CMPBXADD */ \
	_(hreset, 7, 1, 'a', 22, ".byte 0xf3, 0x0f, 0x3a, 0xf0, 0xc0, 0") \
	_(avx_ifma, 7, 1, 'a', 23, ".byte 0xc4, 0xe2, 0xf1, 0xb4, 0xc8") /* VPMADD52LUQ, VEX */ \
	_(xsaveopt, 13, 1, 'a', 0, "xor %edx, %edx; mov $1, %eax; xsaveopt (%rdi)") \
	_(xsavec, 13, 1, 'a', 1, "xor %edx, %edx; mov $1, %eax; xsavec (%rdi)") \
	_(xsaves, 13, 1, 'a', 3, "xor %edx, %edx; mov $1, %eax; xsaves (%rdi)") \
	_(ptwrite, 0x14, 0, 'b', 4, ".byte 0xf3, 0x0f, 0xae, 0xe0") \
	_(rdtscp, 0x80000001, 0, 'd', 27, "rdtscp") \
	_(three_dnow_ext, 0x80000001, 0, 'd', 30, ".byte 0x0f, 0x0f, 0xc1, 0xbb") /* PSWAPD */ \
	_(three_dnow, 0x80000001, 0, 'd', 31, ".byte 0x0f, 0x0f, 0xc1, 0x9e") /* PFADD */ \
	_(lahf64, 0x80000001, 0, 'c', 0, "lahf; sahf") \
	_(svm, 0x80000001, 0, 'c', 2, ".byte 0x0f, 0x01, 0xdd") /* CLGI */ \
	_(svm_run, 0x80000001, 0, 'c', 2, ".byte 0x0f, 0x01, 0xd8") /* VMRUN */ \
	_(sse4a, 0x80000001, 0, 'c', 6, ".byte 0x66, 0x0f, 0x79, 0xc1") /* EXTRQ */ \
	_(xop, 0x80000001, 0, 'c', 11, ".byte 0x8f, 0xe8, 0x70, 0xa2, 0xc0, 0x10") /* VPCMOV */ \
	_(skinit, 0x80000001, 0, 'c', 12, ".byte 0x0f, 0x01, 0xde") \
	_(lwp, 0x80000001, 0, 'c', 15, ".byte 0x8f, 0xe9, 0x78, 0x12, 0xc0") /* LLWPCB */ \
	_(fma4, 0x80000001, 0, 'c', 16, ".byte 0xc4, 0xe3, 0x71, 0x68, 0xc0, 0x10") /* VFMADDPS */ \
	_(tbm, 0x80000001, 0, 'c', 21, ".byte 0x8f, 0xe9, 0x78, 0x01, 0xd0") /* BLSFILL */ \
	_(monitorx, 0x80000001, 0, 'c', 29, "xor %edx, %edx; .byte 0x0f, 0x01, 0xfa") \
	_(clzero, 0x80000008, 0, 'b', 0, ".byte 0x0f, 0x01, 0xfc") \
	_(invlpgb, 0x80000008, 0, 'b', 3, ".byte 0x0f, 0x01, 0xfe") \
	_(rdpru, 0x80000008, 0, 'b', 4, ".byte 0x0f, 0x01, 0xfd") \
	_(mcommit, 0x80000008, 0, 'b', 8, ".byte 0xf3, 0x0f, 0x01, 0xfa") \
	_(psmash, 0x8000001f, 0, 'a', 4, ".byte 0xf3, 0x0f, 0x01, 0xff")

/* (name, code): no operation where not announced, or by definition. */
#define HINTS(_) \
	_(endbr64, ".byte 0xf3, 0x0f, 0x1e, 0xfa") \
	_(endbr32, ".byte 0xf3, 0x0f, 0x1e, 0xfb") \
	_(rdsspq, ".byte 0xf3, 0x48, 0x0f, 0x1e, 0xc8") \
	_(nop_0f1f, "nopw (%rdi)") \
	_(nop_0f19, ".byte 0x0f, 0x19, 0xc0") \
	_(nop_0f1d, ".byte 0x0f, 0x1d, 0x07") \
	_(bndmk, ".byte 0xf3, 0x0f, 0x1b, 0x07") \
	_(bndcl, ".byte 0xf3, 0x0f, 0x1a, 0x07") \
	_(cldemote, ".byte 0x0f, 0x1c, 0x07") \
	_(prefetchw, ".byte 0x0f, 0x0d, 0x0f") \
	_(prefetch_0, ".byte 0x0f, 0x18, 0x0f") \
	_(prefetch_7, ".byte 0x0f, 0x18, 0x3f") \
	_(pause, "pause") \
	_(wbnoinvd, ".byte 0xf3, 0x0f, 0x09") \
	_(xacquire, ".byte 0xf2, 0xf0, 0x01, 0x07") \
	_(xrelease, ".byte 0xf3, 0xc7, 0x07, 0, 0, 0, 0") \
	_(rep_ret, "call 1f; jmp 2f; 1: .byte 0xf3, 0xc3; 2:")
/* clang-format on */

#define _(name, leaf, subleaf, reg, bit, text) CODE(feature_##name, text)
FEATURES(_)
#undef _
#define _(name, text) CODE(hint_##name, text)
HINTS(_)
#undef _
CODE(do_xsetbv, "xsetbv")
CODE(do_lzcnt, "mov $1, %eax; lzcnt %rax, %rax")
CODE(do_tzcnt, "mov $0x77, %ecx; xor %eax, %eax; tzcnt %rax, %rcx")
CODE(do_xgetbv, "xgetbv")
CODE32(read_features, "mov $0x80000001, %eax; cpuid")
CODE(do_syscall, "syscall")

static bool announced(u32 leaf, u32 subleaf, char reg, unsigned bit)
{
	struct cpuid r = cpuid(leaf, subleaf);
	u32 value = reg == 'a' ? r.a : reg == 'b' ? r.b : reg == 'c' ? r.c : r.d;

	return leaf <= cpuid(leaf & 0x80000000, 0).a && (leaf != 7 || !subleaf || cpuid(7, 0).a >= subleaf) &&
	       (value >> bit & 1);
}

static u8 memory[4096] __attribute__((aligned(64)));

static struct trap try(const u8 *code)
{
	memset(memory, 0, sizeof(memory));
	return KERNEL(code, .rdi = (u64)memory, .rax = (u64)memory);
}

static const struct feature {
	const char *name;
	const u8 *code;
	u32 leaf;
	u8 subleaf, bit;
	char reg;
} features[] = {
#define _(name, leaf, subleaf, reg, bit, text) { #name, feature_##name, leaf, subleaf, bit, reg },
	FEATURES(_)
#undef _
};

static const struct hint {
	const char *name;
	const u8 *code;
} hints[] = {
#define _(name, text) { #name, hint_##name },
	HINTS(_)
#undef _
};

static void enable_all(void)
{
	struct cpuid offered = cpuid(13, 0);

	write_cr4(read_cr4() | CR4_OSFXSR | (has_fsgsbase() ? CR4_FSGSBASE : 0) |
		  (announced(7, 0, 'c', 3) ? CR4_PKE : 0));
	if (!announced(1, 0, 'c', 26))
		return;
	write_cr4(read_cr4() | CR4_OSXSAVE);
	KERNEL(do_xsetbv, .rax = offered.a, .rdx = offered.d);
}

static void test_features(void)
{
	for (unsigned n = 0; n < ARRAY_SIZE(features); n++) {
		const struct feature *f = &features[n];
		struct trap t = try(f->code);

		if (announced(f->leaf, f->subleaf, f->reg, f->bit))
			check_end(&t, "2 CPUID: %s, announced: runs", f->name);
		else
			check_fault(&t, EXC_UD, 0, "2 CPUID: %s, not announced: #UD", f->name);
	}
}

/*
 * The same bytes as 32-bit code, where REX prefixes are instructions of their own: CMPXCHG16B is CMPXCHG8B then. FS and GS bases are for
 * 64-bit code, LAHF and SAHF are always there.
 */
static void test_features_32(void)
{
	unsigned right = 0, tried = 0;

	for (unsigned n = 0; n < ARRAY_SIZE(features); n++) {
		const struct feature *f = &features[n];
		bool wanted = announced(f->leaf, f->subleaf, f->reg, f->bit);
		struct trap t;

		if (f->code == feature_cx16 || f->code == feature_lahf64)
			wanted = true;
		if (f->code == feature_fsgsbase)
			wanted = false;
		memset(memory, 0, sizeof(memory));
		t = KERNEL(f->code, .cs = KERNEL_CS32, .rdi = (u64)memory, .rax = (u64)memory);
		tried++;
		if (wanted ? t.vector == END_VECTOR : t.vector == EXC_UD)
			right++;
		else
			print("# %s: vector %lu\n", f->name, t.vector);
	}
	check_equal(right, tried, "2 CPUID: the same as 32-bit code");
}

static void test_hints(void)
{
	for (unsigned n = 0; n < ARRAY_SIZE(hints); n++) {
		struct trap t = try(hints[n].code);

		check(t.vector == END_VECTOR && t.rax == (u64)memory, "2B 4.1: %s does nothing, whatever is announced",
		      hints[n].name);
	}
}

/* Those that are another instruction where they are not announced. */
static void test_others(void)
{
	struct trap t = try(do_lzcnt);

	check(t.vector == END_VECTOR && t.rax == (announced(0x80000001, 0, 'c', 5) ? 63 : 0),
	      "2 LZCNT: announced, or else it is BSR");
	t = try(do_tzcnt);
	check(t.vector == END_VECTOR && t.rcx == (announced(7, 0, 'b', 3) ? 64 : 0x77),
	      "2 TZCNT: announced, or else it is BSF");
	if (announced(1, 0, 'c', 26)) {
		t = KERNEL(do_xgetbv, .rcx = 1);
		if (announced(13, 1, 'a', 2))
			check(t.vector == END_VECTOR && !((t.rax | t.rdx << 32) & ~7ull),
			      "1 13.2: XGETBV with ECX = 1, announced");
		else
			check_fault(&t, EXC_GP, 0, "1 13.2: XGETBV with ECX = 1, not announced");
	}
	t = USER_MODE(do_syscall);
	check_fault(&t, EXC_UD, 0, "2 SYSCALL: without EFER.SCE");
	t = KERNEL(read_features, .cs = KERNEL_CS32);
	check(t.vector == END_VECTOR && !(t.rdx & BIT(11)) == !vendor_is_amd(),
	      "2 CPUID: SYSCALL is announced outside of 64-bit mode by AMD's alone");
	check(announced(0x80000001, 0, 'd', 11), "2 CPUID: in 64-bit mode by both");
}

/* ---- the leaves among each other ---- */

static bool same(struct cpuid a, struct cpuid b) { return a.a == b.a && a.b == b.b && a.c == b.c && a.d == b.d; }

static void test_leaves(void)
{
	struct cpuid basic = cpuid(0, 0), extended = cpuid(0x80000000, 0), one = cpuid(1, 0), r = cpuid(0x80000008, 0);
	struct cpuid beyond = cpuid(basic.a + 1, 0), topology = cpuid(11, 0);
	struct trap t;

	check(basic.a >= 13 && extended.a >= 0x80000008, "2 CPUID: enough leaves");
	if (vendor_is_amd())
		check(!(beyond.a | beyond.b | beyond.c | beyond.d) && extended.b == basic.b && extended.c == basic.c &&
			      extended.d == basic.d,
		      "APM 3 E: zeros beyond the last leaf; the vendor stands twice");
	else
		check(same(beyond, cpuid(basic.a, 0)) && same(cpuid(extended.a + 1, 0), cpuid(basic.a, 0)),
		      "2 CPUID: leaves beyond the last answer as the last basic one");
	check((r.a & 0xff) >= 36 && (r.a & 0xff) <= 52 && (r.a >> 8 & 0xff) == 48, "2 CPUID: address widths");
	check_equal(one.b >> 24, topology.d & 0xff, "2 CPUID: leaf 1's APIC ID is leaf 0BH's");
	check_equal(topology.d, apic_read(APIC_ID) >> 24, "2 CPUID: and the local APIC's");
	check((one.b >> 8 & 0xff) * 8 == 64, "2 CPUID: CLFLUSH's line");
	check(!!(one.c & BIT(27)) == !!(read_cr4() & CR4_OSXSAVE), "2 CPUID: OSXSAVE is CR4's");
	t = KERNEL(read_features, .cs = KERNEL_CS32, .rax = ~0ull, .rbx = ~0ull, .rcx = ~0ull, .rdx = ~0ull);
	r = cpuid(0x80000001, 0);
	check_equal((u32)t.rcx, r.c, "2 CPUID: the same in compatibility mode");
	t = USER_MODE(read_features, .cs = USER_CS32);
	check(t.vector == END_VECTOR && (u32)t.rcx == r.c, "2 CPUID: and in ring 3");
}

void guest(void)
{
	enable_all();
	test_features();
	asm volatile("mov %0, %%ds; mov %0, %%es" ::"r"(KERNEL_DS));
	test_features_32();
	test_hints();
	test_others();
	test_leaves();
}
