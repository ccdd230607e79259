/*
 * Control registers and model-specific registers: which bits can be written, which give #GP(0), what reads back, and that what CPUID
 * announces is what is there. SDM vol. 3A 2.5, 4.1, 9.8, 12.11, vol. 4; where AMD's parts differ, APM vol. 2.
 */
#include "guest.h"

#define CR0_ET	    BIT(4)
#define CR0_NW	    BIT(29)
#define CR0_CD	    BIT(30)
#define CR4_OSXSAVE BIT(18)
#define CR3_KEEP    BIT(63)
#define HIGH_HALF   0xffffffff00000000ull

CODE(do_rdpmc, "rdpmc")
CODE(do_rdmsr, "rdmsr")
CODE(do_wrmsr, "wrmsr")
CODE(set_cr0, "mov %rax, %cr0")
CODE(set_cr3, "mov %rax, %cr3")
CODE(set_cr4, "mov %rax, %cr4")
CODE(set_cr8, "mov %rax, %cr8")
CODE(get_cr0, "mov %cr0, %rax")
CODE(do_lmsw, "lmsw %ax")
CODE(do_clts, "clts")
CODE(do_xsetbv, "xsetbv")
CODE(do_xgetbv, "xgetbv")

static bool announced(u32 leaf, u32 subleaf, char reg, unsigned bit)
{
	struct cpuid r = cpuid(leaf, subleaf);
	u32 value = reg == 'a' ? r.a : reg == 'b' ? r.b : reg == 'c' ? r.c : r.d;
	u32 max = cpuid(leaf & 0x80000000, 0).a;

	return leaf <= max && (value >> bit & 1);
}

static unsigned physical_bits(void) { return cpuid(0x80000008, 0).a & 0xff; }

/* Physical addresses' bits that there are not. */
static u64 beyond_memory(void) { return ~(BIT(physical_bits()) - 1); }

static bool is_gp(const struct trap *t) { return t->vector == EXC_GP && t->error == 0; }

/* ---- MSRs: attempts ---- */

static struct trap write_attempt(u32 msr, u64 value)
{
	return KERNEL(do_wrmsr, .rcx = msr, .rax = (u32)value, .rdx = value >> 32);
}

static bool writes(u32 msr, u64 value)
{
	struct trap t = write_attempt(msr, value);

	return t.vector == END_VECTOR;
}

static bool reads(u32 msr)
{
	struct trap t = KERNEL(do_rdmsr, .rcx = msr);

	return t.vector == END_VECTOR;
}

/* The value is refused, and what was there stays. */
static bool refuses(u32 msr, u64 value)
{
	u64 old = read_msr(msr);
	struct trap t = write_attempt(msr, value);

	return is_gp(&t) && read_msr(msr) == old;
}

/* Neither read nor written. */
static bool absent(u32 msr)
{
	struct trap r = KERNEL(do_rdmsr, .rcx = msr), w = write_attempt(msr, 0);

	return is_gp(&r) && is_gp(&w);
}

static bool keeps(u32 msr, u64 value) { return writes(msr, value) && read_msr(msr) == value; }

/* Of the bits in mask, those that are refused when they are set in `good`. */
static u64 refused_bits(u32 msr, u64 good, u64 mask)
{
	u64 refused = 0;

	for (unsigned bit = 0; bit < 64; bit++)
		if (mask >> bit & 1 && refuses(msr, good | BIT(bit)))
			refused |= BIT(bit);
	return refused;
}

/* And those that are kept when one after the other is changed. */
static u64 kept_bits(u32 msr, u64 good, u64 mask)
{
	u64 kept = 0;

	for (unsigned bit = 0; bit < 64; bit++)
		if (mask >> bit & 1 && keeps(msr, good ^ BIT(bit)))
			kept |= BIT(bit);
	return kept;
}

/* ---- CR0 ---- */

static u64 refused_by(const u8 *code, u64 good, u64 mask)
{
	u64 refused = 0;

	for (unsigned bit = 0; bit < 64; bit++) {
		struct trap t = mask >> bit & 1 ? KERNEL(code, .rax = good | BIT(bit)) : (struct trap){ 0 };

		if (is_gp(&t))
			refused |= BIT(bit);
	}
	return refused;
}

static void test_cr0(void)
{
	u64 cr0 = read_cr0(), reserved = 0x1ffaffc0;
	struct trap t;

	check_equal(refused_by(set_cr0, cr0, HIGH_HALF), HIGH_HALF, "2 MOV CR: CR0's upper half: #GP(0)");
	check(refused_by(set_cr0, cr0 & ~CR0_PE, CR0_PG) && refused_by(set_cr0, cr0, CR0_NW),
	      "2 MOV CR: CR0.PG without PE, NW without CD: #GP(0)");
	t = KERNEL(set_cr0, .rax = cr0 & ~CR0_PG);
	check_fault(&t, EXC_GP, 0, "2 MOV CR: CR0.PG cleared in 64-bit mode");
	check_equal(read_cr0(), cr0, "2 MOV CR: a refused value changes nothing");
	write_cr0((cr0 | reserved) & ~CR0_ET);
	check_equal(read_cr0(), cr0, "3A 2.5: CR0's reserved bits cannot be set, nor ET cleared");
	write_cr0(cr0 | CR0_CD | CR0_NW);
	check_equal(read_cr0(), cr0 | CR0_CD | CR0_NW, "3A 2.5: CD and NW are kept");
	write_cr0(cr0 | CR0_CD);
	check_equal(read_cr0(), cr0 | CR0_CD, "3A 2.5: CD alone too");
	write_cr0(cr0);

	t = KERNEL(do_lmsw, .rax = 0xfff0);
	check(t.vector == END_VECTOR && read_cr0() == (cr0 & ~(CR0_MP | CR0_EM | CR0_TS)),
	      "2 LMSW: MP, EM and TS alone, PE is not cleared");
	t = KERNEL(do_lmsw, .rax = 0xf);
	check_equal(read_cr0(), cr0 | CR0_MP | CR0_EM | CR0_TS, "2 LMSW: sets them");
	t = KERNEL(do_clts);
	check_equal(read_cr0(), (cr0 | CR0_MP | CR0_EM) & ~CR0_TS, "2 CLTS");
	write_cr0(cr0);
	t = USER_MODE(get_cr0);
	check_fault(&t, EXC_GP, 0, "2 MOV CR: ring 3");
}

/* The numbers that no register has; by bytes, because assemblers refuse them. */
#define NO_REGISTER(_)                                                                                                 \
	_(1, 0xc8)                                                                                                     \
	_(5, 0xe8)                                                                                                     \
	_(6, 0xf0)                                                                                                     \
	_(7, 0xf8)
#define _(n, modrm)                                                                                                    \
	CODE(to_cr##n, ".byte 0x0f, 0x22, " #modrm)                                                                    \
	CODE(from_cr##n, ".byte 0x0f, 0x20, " #modrm) CODE(to_cr_8_##n, ".byte 0x44, 0x0f, 0x22, " #modrm)
NO_REGISTER(_)
#undef _

static void test_no_register(void)
{
	static const u8 *const codes[] = {
#define _(n, modrm) to_cr##n, from_cr##n, to_cr_8_##n,
		NO_REGISTER(_)
#undef _
	};
	unsigned undefined = 0;

	for (unsigned n = 0; n < ARRAY_SIZE(codes); n++) {
		struct trap k = KERNEL(codes[n]), u = USER_MODE(codes[n]);

		undefined += k.vector == EXC_UD && u.vector == EXC_UD;
	}
	check_equal(undefined, ARRAY_SIZE(codes), "2 MOV CR: CR1, CR5 to CR7, CR9, CR13 to CR15: #UD in ring 0 and 3");
}

/* ---- CR3, CR8 ---- */

static void test_cr3(void)
{
	u64 cr3 = read_cr3(), reserved = beyond_memory() & ~CR3_KEEP;
	struct trap t;

	check_equal(refused_by(set_cr3, cr3, reserved | CR3_KEEP), reserved | CR3_KEEP,
		    "3A 4.5: CR3 from MAXPHYADDR on: #GP(0)");
	check_equal(read_cr3(), cr3, "2 MOV CR: and nothing changes");
	write_cr3(cr3 | 0x18);
	check_equal(read_cr3(), cr3 | 0x18, "3A 2.5: PWT and PCD are kept");
	write_cr3(cr3);
	if (!has_pcid()) {
		skip("3A 4.10.1: CR4.PCIDE", "not offered");
		return;
	}
	write_cr3(cr3 | 0x18);
	t = KERNEL(set_cr4, .rax = read_cr4() | CR4_PCIDE);
	check_fault(&t, EXC_GP, 0, "3A 4.10.1: CR4.PCIDE with bits in CR3[11:0]");
	write_cr3(cr3);
	write_cr4(read_cr4() | CR4_PCIDE);
	t = KERNEL(set_cr3, .rax = cr3 | 5 | CR3_KEEP);
	check_end(&t, "3A 4.10.4.1: CR3[63] with PCIDE");
	check_equal(read_cr3(), cr3 | 5, "2 MOV CR: which is not kept");
	check_equal(refused_by(set_cr3, cr3, reserved), reserved, "3A 4.5: the others are reserved still");
	write_cr3(cr3);
	write_cr4(read_cr4() & ~CR4_PCIDE);

	check_equal(refused_by(set_cr8, 0, ~15ull), ~15ull, "2 MOV CR: CR8[63:4]: #GP(0)");
}

/* ---- CR4 ---- */

/* What announces each bit. */
static const struct {
	const char *name;
	u8 bit;
	u32 leaf;
	char reg;
	u8 feature;
} cr4_bits[] = {
	{ "VME", 0, 1, 'd', 1 },       { "PVI", 1, 1, 'd', 1 },	      { "TSD", 2, 1, 'd', 4 },
	{ "DE", 3, 1, 'd', 2 },	       { "PSE", 4, 1, 'd', 3 },	      { "MCE", 6, 1, 'd', 7 },
	{ "PGE", 7, 1, 'd', 13 },      { "OSFXSR", 9, 1, 'd', 24 },   { "OSXMMEXCPT", 10, 1, 'd', 25 },
	{ "UMIP", 11, 7, 'c', 2 },     { "LA57", 12, 7, 'c', 16 },    { "VMXE", 13, 1, 'c', 5 },
	{ "SMXE", 14, 1, 'c', 6 },     { "FSGSBASE", 16, 7, 'b', 0 }, { "PCIDE", 17, 1, 'c', 17 },
	{ "OSXSAVE", 18, 1, 'c', 26 }, { "KL", 19, 7, 'c', 23 },      { "SMEP", 20, 7, 'b', 7 },
	{ "SMAP", 21, 7, 'b', 20 },    { "PKE", 22, 7, 'c', 3 },      { "CET", 23, 7, 'c', 7 },
	{ "PKS", 24, 7, 'c', 31 },     { "UINTR", 25, 7, 'd', 5 },
};

static void test_cr4(void)
{
	u64 cr4 = read_cr4(), reserved = BIT(15) | BIT(27) | BIT(29) | BIT(30) | BIT(31) | HIGH_HALF;
	struct trap t;

	check_equal(refused_by(set_cr4, cr4, reserved), reserved, "3A 2.5: CR4's reserved bits: #GP(0)");
	t = KERNEL(set_cr4, .rax = cr4 & ~CR4_PAE);
	check_fault(&t, EXC_GP, 0, "2 MOV CR: CR4.PAE cleared in long mode");
	t = KERNEL(set_cr4, .rax = cr4 ^ BIT(12));
	check_fault(&t, EXC_GP, 0, "2 MOV CR: CR4.LA57 changed in long mode");
	for (unsigned n = 0; n < ARRAY_SIZE(cr4_bits); n++) {
		bool offered = announced(cr4_bits[n].leaf, 0, cr4_bits[n].reg, cr4_bits[n].feature);
		u64 value = cr4 ^ BIT(cr4_bits[n].bit);

		if (cr4_bits[n].bit == 12)
			continue;
		t = KERNEL(set_cr4, .rax = value);
		if (offered)
			check(t.vector == END_VECTOR && read_cr4() == value,
			      "3A 2.5: CR4.%s, which CPUID announces, can be changed", cr4_bits[n].name);
		else
			check(is_gp(&t) && read_cr4() == cr4, "3A 2.5: CR4.%s, which CPUID does not announce: #GP(0)",
			      cr4_bits[n].name);
		write_cr4(cr4);
	}
}

/* ---- XCR0 ---- */

static struct trap xsetbv(u64 index, u64 value)
{
	return KERNEL(do_xsetbv, .rcx = index, .rax = (u32)value, .rdx = value >> 32);
}

static void test_xcr0(void)
{
	struct cpuid size;
	u64 offered, other;
	struct trap t;

	if (!announced(1, 0, 'c', 26)) {
		t = KERNEL(do_xgetbv);
		check_fault(&t, EXC_UD, 0, "2 XGETBV: not announced");
		return;
	}
	t = KERNEL(do_xgetbv);
	check_fault(&t, EXC_UD, 0, "2 XGETBV: without CR4.OSXSAVE");
	t = xsetbv(0, 1);
	check_fault(&t, EXC_UD, 0, "2 XSETBV: without CR4.OSXSAVE");
	check(!announced(1, 0, 'c', 27), "2 CPUID: OSXSAVE is CR4's");
	write_cr4(read_cr4() | CR4_OSXSAVE);
	check(announced(1, 0, 'c', 27), "2 CPUID: and set with it");
	size = cpuid(13, 0);
	offered = size.a | (u64)size.d << 32;
	check((offered & 3) == 3, "1 13.2: x87 and SSE state are always offered");
	check_equal(size.b, 576, "2 CPUID: with XCR0 = 1 an image has 576 bytes");
	for (unsigned bit = 2, bad = 0; bit < 64; bit++) {
		t = xsetbv(0, 3 | BIT(bit));
		bad += (offered >> bit & 1) ? t.vector != END_VECTOR : !is_gp(&t);
		if (bit == 63)
			check_equal(bad, 0, "2 XSETBV: what CPUID.0DH does not offer: #GP(0)");
	}
	t = xsetbv(0, offered & ~1ull);
	check_fault(&t, EXC_GP, 0, "2 XSETBV: XCR0[0] cleared");
	t = xsetbv(0, 5);
	check_fault(&t, EXC_GP, 0, "2 XSETBV: AVX without SSE");
	t = xsetbv(1, 1);
	check_fault(&t, EXC_GP, 0, "2 XSETBV: ECX = 1");
	t = USER_MODE(do_xsetbv, .rax = 1);
	check_fault(&t, EXC_GP, 0, "2 XSETBV: ring 3");
	t = KERNEL(do_xgetbv, .rcx = 2);
	check_fault(&t, EXC_GP, 0, "2 XGETBV: ECX = 2");
	t = xsetbv(BIT(32), offered);
	check_end(&t, "2 XSETBV: RCX's upper half is ignored");
	t = USER_MODE(do_xgetbv, .rax = ~0ull, .rdx = ~0ull);
	check(t.vector == END_VECTOR && (t.rax | t.rdx << 32) == offered, "2 XGETBV: in ring 3, upper halves cleared");
	size = cpuid(13, 0);
	check_equal(size.b, size.c, "2 CPUID: with all of XCR0 an image has the largest size");
	other = offered & 4 ? 256 : 0;
	check_equal(size.c, 576 + other, "1 13.5: which is that of its components");
	xsetbv(0, 1);
	write_cr4(read_cr4() & ~CR4_OSXSAVE);
}

/* ---- EFER ---- */

static void test_efer(void)
{
	u64 efer = read_msr(MSR_EFER), known = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;

	if (announced(0x80000021, 0, 'a', 8))
		known |= BIT(21);
	if (announced(0x80000001, 0, 'd', 25))
		known |= BIT(14);
	check_equal(refused_bits(MSR_EFER, efer, ~known), ~known, "3A 2.2.1: EFER's reserved bits: #GP(0)");
	check(refuses(MSR_EFER, efer & ~EFER_LME), "3A 9.8.5: EFER.LME cleared while paging: #GP(0)");
	check_equal(kept_bits(MSR_EFER, efer, EFER_SCE), EFER_SCE, "3A 2.2.1: EFER.SCE");
	if (has_nx())
		check_equal(kept_bits(MSR_EFER, efer, EFER_NXE), EFER_NXE, "3A 2.2.1: EFER.NXE");
	else
		check_equal(refused_bits(MSR_EFER, efer, EFER_NXE), EFER_NXE, "3A 2.2.1: EFER.NXE, not announced");
	if (vendor_is_amd())
		check(refuses(MSR_EFER, efer & ~EFER_LMA), "APM 2 3.1.7: EFER.LMA changed by software: #GP(0)");
	else
		check(writes(MSR_EFER, efer & ~EFER_LMA) && read_msr(MSR_EFER) == efer,
		      "3A 2.2.1: EFER.LMA is read-only: writes are ignored");
	write_msr(MSR_EFER, efer);
}

/* ---- addresses: canonical or #GP ---- */

static void test_addresses(void)
{
	static const struct {
		const char *name;
		u32 msr;
		bool low_on_amd; /* AMD's has 32 bits; what is above is dropped */
	} registers[] = {
		{ "FS_BASE", MSR_FS_BASE, false },
		{ "GS_BASE", MSR_GS_BASE, false },
		{ "KERNEL_GS_BASE", MSR_KERNEL_GS_BASE, false },
		{ "LSTAR", MSR_LSTAR, false },
		{ "CSTAR", MSR_CSTAR, false },
		{ "SYSENTER_ESP", MSR_SYSENTER_ESP, true },
		{ "SYSENTER_EIP", MSR_SYSENTER_EIP, true },
	};
	static const u64 good[] = { 0, 0x00007fffffffffff, 0xffff800000000000, ~0ull };
	static const u64 bad[] = { BIT(47), 0xffff7fffffffffff, BIT(63), BIT(48), 0x5555555555555555 };

	for (unsigned r = 0; r < ARRAY_SIZE(registers); r++) {
		bool low = registers[r].low_on_amd && vendor_is_amd();
		u32 msr = registers[r].msr;
		u64 old = read_msr(msr);
		unsigned right = 0;

		for (unsigned n = 0; n < ARRAY_SIZE(good); n++)
			right += writes(msr, good[n]) && read_msr(msr) == (low ? (u32)good[n] : good[n]);
		for (unsigned n = 0; n < ARRAY_SIZE(bad); n++)
			right += low ? writes(msr, bad[n]) && read_msr(msr) == (u32)bad[n] : refuses(msr, bad[n]);
		check_equal(right, ARRAY_SIZE(good) + ARRAY_SIZE(bad),
			    low ? "APM 2 6.1.2: %s has 32 bits" : "2 WRMSR: %s: #GP(0) if not canonical",
			    registers[r].name);
		write_msr(msr, old);
	}
}

static void test_system_calls(void)
{
	u64 star = read_msr(MSR_STAR), mask = read_msr(MSR_FMASK), cs = read_msr(MSR_SYSENTER_CS);

	check_equal(kept_bits(MSR_STAR, star, ~0ull), ~0ull, "3A 5.8.8: STAR");
	check_equal(kept_bits(MSR_FMASK, 0, 0xffffffff), 0xffffffff, "3A 5.8.8: FMASK");
	if (!vendor_is_amd())
		check_equal(refused_bits(MSR_FMASK, 0, HIGH_HALF), HIGH_HALF, "4 2.1: FMASK[63:32] is reserved");
	check(writes(MSR_SYSENTER_CS, 0x1234567800000010) && read_msr(MSR_SYSENTER_CS) == 0x10,
	      "4 2.1: SYSENTER_CS[63:32]: writes are ignored");
	write_msr(MSR_STAR, star);
	write_msr(MSR_FMASK, mask);
	write_msr(MSR_SYSENTER_CS, cs);
}

/* ---- memory types ---- */

#define MSR_PAT	     0x277
#define MSR_MTRRCAP  0xfe
#define MSR_MTRR_DEF 0x2ff
#define MSR_MTRR_VAR 0x200

static bool is_type(unsigned type, bool in_pat)
{
	return type == 0 || type == 1 || (type >= 4 && type <= 6) || (in_pat && type == 7);
}

/* Registers of eight memory types: how many of all bytes in each of their places are treated as they should be. */
static unsigned right_types(u32 msr, bool in_pat)
{
	u64 old = read_msr(msr);
	unsigned right = 0;

	for (unsigned place = 0; place < 64; place += 8)
		for (unsigned type = 0; type < 256; type++) {
			u64 value = (old & ~(0xffull << place)) | (u64)type << place;

			right += is_type(type, in_pat) ? keeps(msr, value) : refuses(msr, value);
		}
	write_msr(msr, old);
	return right;
}

static void test_memory_types(void)
{
	static const u32 fixed[] = { 0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f };
	u64 capability = read_msr(MSR_MTRRCAP), type = read_msr(MSR_MTRR_DEF), beyond = beyond_memory();
	unsigned count = capability & 0xff, right = 0;
	struct trap t = write_attempt(MSR_MTRRCAP, capability);

	check_equal(right_types(MSR_PAT, true), 8 * 256,
		    "3A 12.12.2: PAT takes UC, WC, WT, WP, WB and UC-: #GP(0) for others");
	check_fault(&t, EXC_GP, 0, "3A 12.11.1: MTRRCAP is read-only");
	check(count >= 8 && (capability & BIT(8)), "3A 12.11.1: variable ranges and fixed ones");
	check_equal(capability & ~0x5ffull, 0, "3A 12.11.1: reserved bits are 0");

	for (unsigned n = 0; n < 256; n++) {
		u64 value = (type & ~0xffull) | n;

		right += is_type(n, false) ? keeps(MSR_MTRR_DEF, value) : refuses(MSR_MTRR_DEF, value);
	}
	check_equal(right, 256, "3A 12.11.2.1: DEF_TYPE's type");
	check_equal(refused_bits(MSR_MTRR_DEF, type, ~0xcffull), ~0xcffull, "3A 12.11.2.1: DEF_TYPE's reserved bits");
	check_equal(kept_bits(MSR_MTRR_DEF, type, BIT(10) | BIT(11)), BIT(10) | BIT(11), "3A 12.11.2.1: FE and E");
	write_msr(MSR_MTRR_DEF, type);

	for (unsigned n = right = 0; n < ARRAY_SIZE(fixed); n++)
		right += right_types(fixed[n], false);
	check_equal(right, ARRAY_SIZE(fixed) * 8 * 256, "3A 12.11.2.2: the fixed ranges' types");

	for (unsigned n = right = 0; n < count; n++) {
		u32 base = MSR_MTRR_VAR + 2 * n, mask = base + 1;
		u64 old_base = read_msr(base), old_mask = read_msr(mask), address = ~beyond & ~0xfffull;

		right += refused_bits(base, 0, beyond | 0xf00) == (beyond | 0xf00);
		right += kept_bits(base, 0, address) == address && refuses(base, 2) && refuses(base, 7) &&
			 keeps(base, 6);
		right += refused_bits(mask, 0, beyond | 0x7ff) == (beyond | 0x7ff);
		right += kept_bits(mask, 0, address | BIT(11)) == (address | BIT(11));
		write_msr(base, old_base);
		write_msr(mask, old_mask);
	}
	check_equal(right, 4 * count, "3A 12.11.2.3: PHYSBASE and PHYSMASK: types, addresses, reserved bits");
	check(absent(MSR_MTRR_VAR + 2 * count) && absent(MSR_MTRR_VAR + 2 * count + 1),
	      "3A 12.11.1: there are no more than MTRRCAP says");
}

/* ---- local APIC's base ---- */

#define BASE_BSP  BIT(8)
#define BASE_EXTD BIT(10)
#define BASE_EN	  BIT(11)

static void test_apic_base(void)
{
	u64 base = read_msr(MSR_APIC_BASE), reserved = beyond_memory() | 0x2ff;

	check((base & (BASE_BSP | BASE_EN | BASE_EXTD)) == (BASE_BSP | BASE_EN),
	      "3A 11.4.4: the boot processor's APIC is on");
	check_equal(refused_bits(MSR_APIC_BASE, base, reserved), reserved, "3A 11.4.4: reserved bits: #GP(0)");
	check(refuses(MSR_APIC_BASE, (base & ~BASE_EN) | BASE_EXTD), "3A 11.12.1: EXTD without EN: #GP(0)");
	check(!reads(MSR_X2APIC + APIC_ID), "3A 11.12.1.2: x2APIC's registers in xAPIC mode: #GP(0)");
	if (!has_x2apic()) {
		check(refuses(MSR_APIC_BASE, base | BASE_EXTD), "3A 11.12.1: EXTD, not announced");
		return;
	}
	check(writes(MSR_APIC_BASE, base | BASE_EXTD), "3A 11.12.5: from xAPIC to x2APIC");
	check(reads(MSR_X2APIC + APIC_ID), "3A 11.12.1.2: whose registers are there");
	check(refuses(MSR_APIC_BASE, base), "3A 11.12.5: back to xAPIC: #GP(0)");
	check(refuses(MSR_APIC_BASE, (base & ~BASE_EN) | BASE_EXTD), "3A 11.12.5: EN alone cleared: #GP(0)");
	check(writes(MSR_APIC_BASE, base & ~BASE_EN), "3A 11.12.5: from x2APIC to disabled");
	check(!announced(1, 0, 'd', 9), "3A 11.4.3: CPUID announces no APIC then");
	check(!reads(MSR_X2APIC + APIC_ID), "3A 11.12.5: nor are its registers there");
	check(refuses(MSR_APIC_BASE, base | BASE_EXTD), "3A 11.12.5: from disabled to x2APIC: #GP(0)");
	check(writes(MSR_APIC_BASE, base), "3A 11.12.5: from disabled to xAPIC");
	check(announced(1, 0, 'd', 9), "3A 11.4.3: which CPUID announces again");
	apic_init();
}

/* ---- time ---- */

static void test_time(void)
{
	u64 hour = 3600000000000, before, after, adjust;

	if (!announced(7, 0, 'b', 1)) {
		check(absent(MSR_TSC_ADJUST), "4 2.1: TSC_ADJUST, not announced");
		return;
	}
	adjust = read_msr(MSR_TSC_ADJUST);
	before = read_tsc();
	write_msr(MSR_TSC_ADJUST, adjust + hour);
	after = read_tsc();
	check(after - before >= hour && after - before < 2 * hour,
	      "3B 18.17.3: TSC_ADJUST moves the TSC by its change");
	write_msr(MSR_TSC, after + hour);
	check(read_msr(MSR_TSC_ADJUST) - (adjust + hour) - hour + hour / 2 < hour,
	      "3B 18.17.3: a write of the TSC moves TSC_ADJUST");
	check(read_msr(MSR_TSC) - read_tsc() + hour < 2 * hour, "2 RDTSC: reads what RDMSR reads");
	write_msr(MSR_TSC_ADJUST, adjust);
	check(read_tsc() - before < hour, "3B 18.17.3: and back");
}

/* ---- single step on branches ---- */

#define MSR_DEBUGCTL 0x1d9
#define DEBUGCTL_BTF BIT(1)
#define DR6_BS	     BIT(14)

CODE(steps, "nop; xor %eax, %eax; jnz 1f; mov $3, %ecx; cld; rep stosb; jmp 1f; nop; 1: " LABEL(
		    step_target) "nop; call 2f; nop\n" LABEL(step_call) "2: pop %rcx")
extern const u8 step_target[], step_call[];

static void test_branch_steps(void)
{
	static u8 bytes[3];
	u64 debug = read_msr(MSR_DEBUGCTL);
	struct trap t;

	write_dr6(0);
	write_msr(MSR_DEBUGCTL, debug | DEBUGCTL_BTF);
	t = KERNEL(steps, .rflags = 2 | FLAG_TF, .rdi = (u64)bytes);
	check(t.vector == EXC_DB && t.rip == (u64)step_target && (t.dr6 & DR6_BS),
	      "3B 17.4.3: TF with DEBUGCTL.BTF traps after a taken branch, none that is not taken, no iteration");
	check_equal(read_msr(MSR_DEBUGCTL), debug, "3B 17.4.3: a debug exception clears BTF");
	write_msr(MSR_DEBUGCTL, debug | DEBUGCTL_BTF);
	t = KERNEL(step_target, .rflags = 2 | FLAG_TF);
	check(t.vector == EXC_DB && t.rip == (u64)step_call, "3B 17.4.3: a CALL is one");
	t = KERNEL(step_target, .rflags = 2 | FLAG_TF);
	check(t.vector == EXC_DB && t.rip == (u64)step_target + 1, "3B 17.4.3: without BTF each instruction traps");
	write_msr(MSR_DEBUGCTL, debug);
	write_dr6(0);
}

/* ---- what systems probe ---- */

#define MSR_PLATFORM_ID	      0x17
#define MSR_FEATURE_CONTROL   0x3a
#define MSR_SPEC_CTRL	      0x48
#define MSR_PRED_CMD	      0x49
#define MSR_BIOS_UPDT_TRIG    0x79
#define MSR_BIOS_SIGN_ID      0x8b
#define MSR_ARCH_CAPABILITIES 0x10a
#define MSR_MCG_CAP	      0x179
#define MSR_MCG_STATUS	      0x17a
#define MSR_MCG_CTL	      0x17b
#define MSR_MISC_ENABLE	      0x1a0
#define MSR_TSC_AUX	      0xc0000103
#define MSR_MC0_CTL	      0x400

static bool read_only(u32 msr)
{
	struct trap t = write_attempt(msr, read_msr(msr));

	return is_gp(&t);
}

static bool write_only(u32 msr, u64 value) { return !reads(msr) && writes(msr, value); }

static void test_machine_check(void)
{
	u64 capability = read_msr(MSR_MCG_CAP), status = read_msr(MSR_MCG_STATUS);

	check(announced(1, 0, 'd', 7) && announced(1, 0, 'd', 14),
	      "3B 16.3: machine-check exceptions and architecture");
	check(read_only(MSR_MCG_CAP), "3B 16.3.1.1: MCG_CAP is read-only");
	check_equal(kept_bits(MSR_MCG_STATUS, 0, 7), 7, "3B 16.3.1.2: MCG_STATUS");
	check_equal(refused_bits(MSR_MCG_STATUS, 0, ~0xfull), ~0xfull, "3B 16.3.1.2: its reserved bits");
	write_msr(MSR_MCG_STATUS, status);
	check(reads(MSR_MCG_CTL) == !!(capability & BIT(8)), "3B 16.3.1.3: MCG_CTL is there if MCG_CTL_P says so");
	check(absent(MSR_MC0_CTL + 4 * (capability & 0xff)), "3B 16.3.2: no more banks than MCG_CAP counts");
}

static void test_intel(void)
{
	u64 misc = read_msr(MSR_MISC_ENABLE), debug = read_msr(MSR_DEBUGCTL), reserved = 0x3c | ~0xffffull;
	struct trap t;

	check(read_only(MSR_PLATFORM_ID), "4 2.1: PLATFORM_ID is read-only");
	check(read_msr(MSR_FEATURE_CONTROL) == 1 && read_only(MSR_FEATURE_CONTROL),
	      "4 2.1: FEATURE_CONTROL is locked: without VMX, #GP(0)");
	check((misc & (BIT(11) | BIT(12))) == (BIT(11) | BIT(12)), "4 2.1: MISC_ENABLE: no BTS, no PEBS");
	check(keeps(MSR_MISC_ENABLE, misc ^ 1) && keeps(MSR_MISC_ENABLE, misc), "4 2.1: MISC_ENABLE: fast strings");
	check(writes(MSR_MISC_ENABLE, misc & ~BIT(11)) && read_msr(MSR_MISC_ENABLE) == misc,
	      "4 2.1: MISC_ENABLE: read-only bits stay");
	check(keeps(MSR_MISC_ENABLE, misc | BIT(22)) && cpuid(0, 0).a == 2 && cpuid(4, 0).a == cpuid(2, 0).a,
	      "4 2.1: MISC_ENABLE: CPUID limited to leaf 2");
	check(keeps(MSR_MISC_ENABLE, misc) && cpuid(0, 0).a > 2, "4 2.1: and not limited");
	check(keeps(MSR_MISC_ENABLE, misc ^ BIT(3)), "4 2.1: MISC_ENABLE: automatic thermal control");
	check(writes(MSR_MISC_ENABLE, misc | BIT(7)) && read_msr(MSR_MISC_ENABLE) == misc,
	      "4 2.1: MISC_ENABLE: no performance monitoring, read-only");
	check(keeps(MSR_MISC_ENABLE, misc | BIT(34)) && !has_nx() && refuses(MSR_EFER, read_msr(MSR_EFER) | EFER_NXE),
	      "4 2.1: MISC_ENABLE: NX disabled: not announced, EFER.NXE reserved");
	check(keeps(MSR_MISC_ENABLE, misc) && has_nx(), "4 2.1: and enabled");
	t = KERNEL(do_rdpmc, .rcx = 0);
	check_fault(&t, EXC_GP, 0, "2 RDPMC: no counter is announced");
	check_equal(refused_bits(MSR_DEBUGCTL, debug, reserved), reserved, "3B 17.4.1: DEBUGCTL's reserved bits");
	write_msr(MSR_BIOS_SIGN_ID, 0);
	cpuid(1, 0);
	check(read_msr(MSR_BIOS_SIGN_ID) >> 32, "3A 9.11.7.1: CPUID gives the microcode's revision");
	check(write_only(MSR_BIOS_UPDT_TRIG, 0), "4 2.1: BIOS_UPDT_TRIG is write-only");
	check(announced(7, 0, 'd', 29) ? read_only(MSR_ARCH_CAPABILITIES) : absent(MSR_ARCH_CAPABILITIES),
	      "4 2.1: ARCH_CAPABILITIES: read-only, and there if announced");
	if (announced(7, 0, 'd', 26)) {
		check(write_only(MSR_PRED_CMD, 1) && !writes(MSR_PRED_CMD, 2),
		      "4 2.1: PRED_CMD: IBPB alone, write-only");
		check(keeps(MSR_SPEC_CTRL, 1) && refuses(MSR_SPEC_CTRL, BIT(11)) && keeps(MSR_SPEC_CTRL, 0),
		      "4 2.1: SPEC_CTRL: IBRS; reserved bits: #GP(0)");
	} else {
		check(absent(MSR_PRED_CMD) && absent(MSR_SPEC_CTRL), "4 2.1: PRED_CMD and SPEC_CTRL, not announced");
	}
	check(absent(0xc0010000) && absent(0xc0010015) && absent(0xc001001f) && absent(0xc0010112),
	      "4: no registers of AMD's");
}

/* Four counters and their controls, which no CPUID bit announces; RDPMC reads them in ring 3 if CR4.PCE says so. */
static void test_amd_counters(void)
{
	u64 cr4 = read_cr4();
	bool good = true;
	struct trap t;

	for (u32 msr = 0xc0010000; msr < 0xc0010008; msr++)
		good &= reads(msr) && writes(msr, 0) && writes(msr, 0x430076);
	check(good, "APM 2 13.2.1: PERF_CTL and PERF_CTR 0 to 3");
	for (u32 msr = 0xc0010000; msr < 0xc0010008; msr++)
		write_msr(msr, 0);
	for (unsigned n = 0; n < 4; n++) {
		t = KERNEL(do_rdpmc, .rcx = n, .rax = ~0ull, .rdx = ~0ull);
		good &= t.vector == END_VECTOR && !t.rax && !t.rdx;
	}
	check(good, "APM 2 13.2.1: RDPMC reads them");
	t = KERNEL(do_rdpmc, .rcx = 4 + 64);
	check_fault(&t, EXC_GP, 0, "APM 3 RDPMC: no such counter");
	t = USER_MODE(do_rdpmc, .rcx = 0);
	check_fault(&t, EXC_GP, 0, "APM 3 RDPMC: ring 3");
	write_cr4(cr4 | CR4_PCE);
	t = USER_MODE(do_rdpmc, .rcx = 0);
	check_end(&t, "APM 3 RDPMC: ring 3 with CR4.PCE");
	write_cr4(cr4);
}

static void test_amd(void)
{
	/* What kernels read without asking. */
	static const u32 probed[] = { MSR_BIOS_SIGN_ID, 0xc0010010, 0xc0010015, 0xc001001a, 0xc001001d, 0xc001001f,
				      0xc0010055,	0xc0010112, 0xc0010113, 0xc0011022, 0xc0011029 };
	unsigned there = 0;

	for (unsigned n = 0; n < ARRAY_SIZE(probed); n++)
		there += reads(probed[n]);
	check_equal(there, ARRAY_SIZE(probed), "APM 2 A: SYSCFG, HWCR, TOP_MEM and others that kernels read");
	test_amd_counters();
	check(read_msr(MSR_BIOS_SIGN_ID), "APM 2 A: PATCH_LEVEL");
	check(write_only(0xc0010020, 0), "APM 2 A: PATCH_LOADER is write-only");
	check(absent(MSR_PLATFORM_ID) && absent(MSR_FEATURE_CONTROL) && absent(MSR_MISC_ENABLE),
	      "APM 2 A: no registers of Intel's");
}

static void test_others(void)
{
	static const u32 nowhere[] = { 0x2,	   0xff,       0x480,	   0xda0,      0x1000,	   0x3fffffff,
				       0x4000000f, 0xbfffffff, 0xc0000085, 0xc0000104, 0xc0010200, 0xffffffff };
	u64 debug = read_msr(MSR_DEBUGCTL), aux;
	unsigned count = 0;
	struct trap t;

	for (unsigned n = 0; n < ARRAY_SIZE(nowhere); n++)
		count += absent(nowhere[n]);
	check_equal(count, ARRAY_SIZE(nowhere), "2 RDMSR: registers that there are not: #GP(0)");
	t = KERNEL(do_rdmsr, .rcx = MSR_EFER | 0xabcd00000000, .rax = ~0ull, .rdx = ~0ull);
	check(t.vector == END_VECTOR && t.rax == read_msr(MSR_EFER) && t.rdx == 0,
	      "2 RDMSR: RCX's upper half is ignored, those of RAX and RDX are cleared");
	t = KERNEL(do_wrmsr, .rcx = MSR_STAR | BIT(40), .rax = HIGH_HALF | 5, .rdx = HIGH_HALF);
	check(t.vector == END_VECTOR && read_msr(MSR_STAR) == 5, "2 WRMSR: the upper halves are ignored");
	write_msr(MSR_STAR, 0);
	t = USER_MODE(do_rdmsr, .rcx = MSR_TSC);
	check_fault(&t, EXC_GP, 0, "2 RDMSR: ring 3");
	t = USER_MODE(do_wrmsr, .rcx = 0x1000);
	check_fault(&t, EXC_GP, 0, "2 WRMSR: ring 3");
	check_equal(kept_bits(MSR_DEBUGCTL, debug, 3), 3, "3B 17.4.1: DEBUGCTL: LBR and BTF");
	write_msr(MSR_DEBUGCTL, debug);
	if (announced(0x80000001, 0, 'd', 27) || announced(7, 0, 'c', 22)) {
		aux = read_msr(MSR_TSC_AUX);
		check_equal(kept_bits(MSR_TSC_AUX, 0, 0xffffffff), 0xffffffff, "3B 18.17.2: TSC_AUX");
		if (vendor_is_amd())
			check(writes(MSR_TSC_AUX, BIT(32) | 7) && read_msr(MSR_TSC_AUX) == 7,
			      "APM 2 A: TSC_AUX has 32 bits");
		else
			check_equal(refused_bits(MSR_TSC_AUX, 0, HIGH_HALF), HIGH_HALF,
				    "4 2.1: TSC_AUX[63:32] is reserved");
		write_msr(MSR_TSC_AUX, aux);
	} else {
		check(absent(MSR_TSC_AUX), "4 2.1: TSC_AUX, not announced");
	}
	write_msr(MSR_FS_BASE, 0x1234000);
	asm volatile("mov %0, %%fs" ::"r"(0));
	check_equal(read_msr(MSR_FS_BASE), 0, "3A 3.4.4: a null selector clears FS's base (APM: NullSelectClearsBase)");
	check(reads(MSR_TSC_DEADLINE) == has_tsc_deadline(), "3A 11.5.4.1: TSC_DEADLINE is there if announced");
}

/* KVM's paravirtual interface: the registers that its feature bits announce. */
static void test_paravirtual(void)
{
	struct cpuid signature = cpuid(0x40000000, 0);
	bool there = announced(1, 0, 'c', 31) && signature.b == 0x4b4d564b; /* "KVMK" */
	u32 features = there ? cpuid(0x40000001, 0).a : 0;
	static const struct {
		u32 msr, feature;
	} registers[] = { { 0x11, 0 },	     { 0x12, 0 },	{ 0x4b564d00, 3 }, { 0x4b564d01, 3 },
			  { 0x4b564d02, 4 }, { 0x4b564d03, 5 }, { 0x4b564d04, 6 }, { 0x4b564d05, 12 } };
	unsigned right = 0;

	for (unsigned n = 0; n < ARRAY_SIZE(registers); n++)
		right += reads(registers[n].msr) == (features >> registers[n].feature & 1);
	check_equal(right, ARRAY_SIZE(registers), "KVM's registers are there if announced");
}

/* ---- which check comes first: an operand in memory that is not there shows it ---- */

/* (name, code, with CR4.UMIP, what comes in ring 3, what in ring 0) */
#define ORDERED(_)                                                                                                     \
	_(lmsw, "lmsw (%rdi)", false, EXC_GP, EXC_PF)                                                                  \
	_(lgdt, "lgdt (%rdi)", false, EXC_GP, EXC_PF)                                                                  \
	_(lidt, "lidt (%rdi)", false, EXC_GP, EXC_PF)                                                                  \
	_(lldt, "lldt (%rdi)", false, EXC_GP, EXC_PF)                                                                  \
	_(ltr, "ltr (%rdi)", false, EXC_GP, EXC_PF)                                                                    \
	_(sgdt_umip, "sgdt (%rdi)", true, EXC_GP, EXC_PF)                                                              \
	_(sidt_umip, "sidt (%rdi)", true, EXC_GP, EXC_PF)                                                              \
	_(sldt_umip, "sldt (%rdi)", true, EXC_GP, EXC_PF)                                                              \
	_(str_umip, "str (%rdi)", true, EXC_GP, EXC_PF)                                                                \
	_(smsw_umip, "smsw (%rdi)", true, EXC_GP, EXC_PF)                                                              \
	_(sgdt, "sgdt (%rdi)", false, EXC_PF, EXC_PF)                                                                  \
	_(smsw, "smsw (%rdi)", false, EXC_PF, EXC_PF)                                                                  \
	_(invlpg, "invlpg (%rdi)", false, EXC_GP, END_VECTOR)                                                          \
	_(rdmsr_absent, "mov $0x1000, %ecx; rdmsr", false, EXC_GP, EXC_GP)                                             \
	_(xsetbv_off, "xsetbv", false, EXC_UD, EXC_UD)                                                                 \
	_(lock_cr, ".byte 0xf0; mov %rax, %cr3", false, EXC_UD, EXC_UD)
#define _(name, text, umip, user, kernel) CODE(order_##name, text)
ORDERED(_)
#undef _

static void test_order(void)
{
	static const struct {
		const char *name;
		const u8 *code;
		bool umip;
		u8 user, kernel;
	} all[] = {
#define _(name, text, umip, user, kernel) { #name, order_##name, umip, user, kernel },
		ORDERED(_)
#undef _
	};
	u64 cr4 = read_cr4();

	for (unsigned n = 0; n < ARRAY_SIZE(all); n++) {
		struct trap u, k;

		if (all[n].umip && !has_umip())
			continue;
		write_cr4(all[n].umip ? cr4 | CR4_UMIP : cr4);
		u = USER_MODE(all[n].code, .rdi = FREE_BASE);
		k = KERNEL(all[n].code, .rdi = FREE_BASE);
		check(u.vector == all[n].user && k.vector == all[n].kernel,
		      "3A 6.9: %s: privilege before the operand: vector %lu in ring 3, %lu in ring 0", all[n].name,
		      u.vector, k.vector);
	}
	write_cr4(cr4);
}

void guest(void)
{
	test_cr0();
	test_no_register();
	test_cr3();
	test_cr4();
	test_xcr0();
	test_efer();
	test_addresses();
	test_system_calls();
	test_memory_types();
	test_apic_base();
	test_time();
	test_branch_steps();
	test_machine_check();
	if (vendor_is_amd())
		test_amd();
	else
		test_intel();
	test_others();
	test_paravirtual();
	test_order();
}
