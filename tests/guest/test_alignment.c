/*
 * Alignment checks, SDM vol. 3A 6.15 and table 6-7: in ring 3, with CR0.AM and RFLAGS.AC, every kind of memory operand at every
 * offset. Where the manuals leave it to the processor (32 bytes, FXSAVE, MASKMOVDQU) the checks hold what AMD's Zen 3 does.
 */
#include "guest.h"

#define CR4_OSFXSR     BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_OSXSAVE    BIT(18)
#define T	       0x8000000000ull /* nothing mapped */

static u8 buffer[512 + 1024 + 64] __attribute__((aligned(64)));

/*
 * (name, instructions on (%rdi), alignment on pain of #AC(0), alignment on pain of #GP(0)); #AC comes first. 1: none. The stack
 * pointer is in RDI as well where a row says so.
 */
#define ROWS(_)                                                                                                        \
	_(mov_8, "mov (%rdi), %al", 1, 1)                                                                              \
	_(mov_16, "mov (%rdi), %ax", 2, 1)                                                                             \
	_(mov_32, "mov (%rdi), %eax", 4, 1)                                                                            \
	_(mov_64, "mov (%rdi), %rax", 8, 1)                                                                            \
	_(store_32, "mov %eax, (%rdi)", 4, 1)                                                                          \
	_(lock_inc_32, "lock incl (%rdi)", 4, 1)                                                                       \
	_(xchg_16, "xchg %ax, (%rdi)", 2, 1)                                                                           \
	_(cmpxchg8b, "cmpxchg8b (%rdi)", 8, 1)                                                                         \
	_(bt_16, "btw $1, (%rdi)", 2, 1)                                                                               \
	_(bt_32, "mov $1, %eax; bt %eax, (%rdi)", 4, 1)                                                                \
	_(movnti_32, "movnti %eax, (%rdi)", 4, 1)                                                                      \
	_(mov_from_sreg, "mov %es, (%rdi)", 2, 1)                                                                      \
	_(mov_to_sreg, "mov (%rdi), %es", 2, 1)                                                                        \
	_(lgs_16_32, "lgs (%rdi), %eax", 4, 1)                                                                         \
	_(lgs_16_16, "lgs (%rdi), %ax", 2, 1)                                                                          \
	_(verr, "verr (%rdi)", 2, 1)                                                                                   \
	_(sgdt, "sgdt (%rdi)", 1, 1)                                                                                   \
	_(prefetch, "prefetchnta (%rdi)", 1, 1)                                                                        \
	_(clflush, "clflush (%rdi)", 1, 1)                                                                             \
	_(movsb, "movsb", 1, 1)                                                                                        \
	_(movsw, "movsw", 2, 1)                                                                                        \
	_(lodsl, "lodsl", 4, 1)                                                                                        \
	_(stosq, "stosq", 8, 1)                                                                                        \
	_(cmpsl, "cmpsl", 4, 1)                                                                                        \
	_(scasw, "scasw", 2, 1)                                                                                        \
	_(rep_movsl, "mov $4, %ecx; rep movsl", 4, 1)                                                                  \
	_(push_64, "mov %rdi, %rsp; add $64, %rsp; push %rax", 8, 1)                                                   \
	_(push_16, "mov %rdi, %rsp; add $64, %rsp; push %ax", 2, 1)                                                    \
	_(pop_64, "mov %rdi, %rsp; pop %rax", 8, 1)                                                                    \
	_(pop_memory, "push $0; pop (%rdi)", 8, 1)                                                                     \
	_(call, "mov %rdi, %rsp; add $64, %rsp; call 1f; 1:", 8, 1)                                                    \
	_(pushf, "mov %rdi, %rsp; add $64, %rsp; pushf", 8, 1)                                                         \
	_(enter, "lea 128(%rdi), %rsp; mov %rsp, %rbp; enter $0, $2", 8, 1)                                            \
	_(leave, "mov %rdi, %rbp; leave", 8, 1)                                                                        \
	_(far_return,                                                                                                  \
	  "lea 64(%rdi), %rsp; mov %cs, %eax; lea 1f(%rip), %rcx\n"                                                    \
	  "mov %rcx, (%rsp); mov %rax, 8(%rsp); lretq; 1:",                                                            \
	  8, 1)                                                                                                        \
	_(fld_32, "flds (%rdi)", 4, 1)                                                                                 \
	_(fld_64, "fldl (%rdi)", 8, 1)                                                                                 \
	_(fld_80, "fldt (%rdi)", 8, 1)                                                                                 \
	_(fstp_80, "fldz; fstpt (%rdi)", 8, 1)                                                                         \
	_(fild_16, "filds (%rdi)", 2, 1)                                                                               \
	_(fild_64, "fildll (%rdi)", 8, 1)                                                                              \
	_(fbld, "fbld (%rdi)", 8, 1)                                                                                   \
	_(fbstp, "fldz; fbstp (%rdi)", 8, 1)                                                                           \
	_(fnstcw, "fnstcw (%rdi)", 2, 1)                                                                               \
	_(fldenv, "fldenv (%rdi)", 4, 1)                                                                               \
	_(fnstenv, "fnstenv (%rdi)", 4, 1)                                                                             \
	_(fnstenv_16, ".byte 0x66; fnstenv (%rdi)", 2, 1)                                                              \
	_(fnsave, "fnsave (%rdi)", 4, 1)                                                                               \
	_(fnsave_16, ".byte 0x66; fnsave (%rdi)", 2, 1)                                                                \
	_(frstor, "frstor (%rdi)", 4, 1)                                                                               \
	_(fxsave, "fxsave (%rdi)", 4, 16)                                                                              \
	_(fxrstor, "fxrstor (%rdi)", 4, 16)                                                                            \
	_(stmxcsr, "stmxcsr (%rdi)", 4, 1)                                                                             \
	_(movq_mmx, "movq (%rdi), %mm0", 8, 1)                                                                         \
	_(punpcklbw_mmx, "punpcklbw (%rdi), %mm0", 4, 1)                                                               \
	_(movss, "movss (%rdi), %xmm0", 4, 1)                                                                          \
	_(movsd, "movsd (%rdi), %xmm0", 8, 1)                                                                          \
	_(movlps, "movlps %xmm0, (%rdi)", 8, 1)                                                                        \
	_(pinsrw, "pinsrw $1, (%rdi), %xmm0", 2, 1)                                                                    \
	_(movups, "movups (%rdi), %xmm0", 16, 1)                                                                       \
	_(movdqu_store, "movdqu %xmm0, (%rdi)", 16, 1)                                                                 \
	_(lddqu, "lddqu (%rdi), %xmm0", 16, 1)                                                                         \
	_(pcmpistri, "pcmpistri $0, (%rdi), %xmm0", 16, 1)                                                             \
	_(maskmovdqu, "pcmpeqd %xmm1, %xmm1; maskmovdqu %xmm1, %xmm0", 8, 1)                                           \
	_(movaps, "movaps (%rdi), %xmm0", 1, 16)                                                                       \
	_(addps, "addps (%rdi), %xmm0", 1, 16)                                                                         \
	_(cmpxchg16b, "cmpxchg16b (%rdi)", 1, 16)

#define ROWS_AVX(_)                                                                                                    \
	_(vmovups_128, "vmovups (%rdi), %xmm0", 16, 1)                                                                 \
	_(vmovups_256, "vmovups (%rdi), %ymm0", 16, 1)                                                                 \
	_(vmovups_256_store, "vmovups %ymm0, (%rdi)", 16, 1)                                                           \
	_(vaddps_256, "vaddps (%rdi), %ymm0, %ymm0", 16, 1)                                                            \
	_(vmovaps_256, "vmovaps (%rdi), %ymm0", 1, 32)                                                                 \
	_(vbroadcastss, "vbroadcastss (%rdi), %ymm0", 4, 1)                                                            \
	_(vbroadcastf128, "vbroadcastf128 (%rdi), %ymm0", 16, 1)                                                       \
	_(vmaskmovps, "vpcmpeqd %xmm1, %xmm1, %xmm1; vmaskmovps (%rdi), %xmm1, %xmm0", 1, 1)                           \
	_(vmaskmovpd_store, "vpcmpeqd %xmm1, %xmm1, %xmm1; vmaskmovpd %xmm0, %xmm1, (%rdi)", 1, 1)                     \
	_(xsave, "mov $3, %eax; xor %edx, %edx; xsave (%rdi)", 1, 64)

#define ROWS_AVX2(_)                                                                                                   \
	_(vgatherdps,                                                                                                  \
	  "vpcmpeqd %xmm1, %xmm1, %xmm1; vpxor %xmm2, %xmm2, %xmm2; vgatherdps %xmm1, (%rdi,%xmm2), %xmm0", 1, 1)

/* Compatibility mode, on (%edi). */
#define ROWS_32(_)                                                                                                     \
	_(pusha, "mov %edi, %esp; add $128, %esp; pusha", 4, 1)                                                        \
	_(popa, "mov %edi, %esp; popa", 4, 1)                                                                          \
	_(pushaw, "mov %edi, %esp; add $128, %esp; pushaw", 2, 1)                                                      \
	_(les_16_32, "les (%edi), %eax", 4, 1)                                                                         \
	_(lds_16_16, "lds (%edi), %ax", 2, 1)                                                                          \
	_(bound_32, "xor %eax, %eax; bound %eax, (%edi)", 4, 1)                                                        \
	_(bound_16, "xor %eax, %eax; bound %ax, (%edi)", 2, 1)                                                         \
	_(push_sreg, "mov %edi, %esp; add $128, %esp; push %es", 4, 1)                                                 \
	_(xlat, "mov %edi, %ebx; xor %eax, %eax; xlat", 1, 1)

/* Rows without semicolons, which the formatter takes for the beginning of what follows. */
/* clang-format off */
#define _(name, text, ac, gp) CODE(name, text)
ROWS(_)
ROWS_AVX(_)
ROWS_AVX2(_)
#undef _
#define _(name, text, ac, gp) CODE32(name, "mov %ss, %ecx; mov %ecx, %ds; mov %ecx, %es\n" text)
ROWS_32(_)
#undef _
/* clang-format on */

struct row {
	const char *name;
	const u8 *code;
	unsigned ac, gp;
};
#define _(name, text, ac, gp) { #name, name, ac, gp },
static const struct row rows[] = { ROWS(_) }, rows_avx[] = { ROWS_AVX(_) }, rows_avx2[] = { ROWS_AVX2(_) },
			rows_32[] = { ROWS_32(_) };
#undef _

static u64 wanted(const struct row *r, u64 address)
{
	return address % r->ac ? EXC_AC : address % r->gp ? EXC_GP : END_VECTOR;
}

static void test_row(const struct row *r, u64 cs)
{
	static const u8 offsets[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 32 };
	bool good = true;

	for (unsigned n = 0; n < ARRAY_SIZE(offsets); n++) {
		u64 at = USER(buffer) + offsets[n];
		struct trap t;

		memset(buffer, 0, sizeof(buffer));
		asm volatile("fninit");
		t = USER_MODE(r->code, .cs = cs, .rdi = at, .rsi = at, .rflags = 2 | FLAG_AC);
		if (t.vector == wanted(r, at) && (t.vector == END_VECTOR || !t.error))
			continue;
		good = false;
		print("# %s at offset %u: vector %lu error 0x%lx RIP 0x%lx, wanted vector %lu\n", r->name, offsets[n],
		      t.vector, t.error, t.rip, wanted(r, at));
	}
	check(good, "3A table 6-7: %s: #AC unless aligned to %u, #GP unless to %u", r->name, r->ac, r->gp);
}

static void test_rows(const struct row *r, size_t count, u64 cs)
{
	for (; count--; r++)
		test_row(r, cs);
}

/* ---- when it is checked ---- */

CODE(load, LABEL(load_at) "mov (%rdi), %rax")
CODE(load_unaligned, "movups (%rdi), %xmm0")
extern const u8 load_at[];

static void test_when(void)
{
	u64 at = USER(buffer) + 1, cr0 = read_cr0();
	struct trap t;

	t = USER_MODE(load, .rdi = at, .rflags = 2 | FLAG_AC);
	check(t.vector == EXC_AC && t.error == 0 && t.rip == USER(load_at) && (t.rflags & FLAG_RF),
	      "3A 6.15: #AC is a fault, its error code 0");
	t = USER_MODE(load_unaligned, .rdi = at);
	check_end(&t, "3A 6.15: MOVUPS without RFLAGS.AC");
	t = KERNEL(load_unaligned, .rdi = (u64)buffer + 1, .rflags = 2 | FLAG_AC);
	check_end(&t, "3A 6.15: MOVUPS in ring 0");
	write_cr0(cr0 & ~CR0_AM);
	t = USER_MODE(load_unaligned, .rdi = at, .rflags = 2 | FLAG_AC);
	check_end(&t, "3A 6.15: MOVUPS without CR0.AM");
	write_cr0(cr0);
	t = USER_MODE(load, .rdi = T + 1, .rflags = 2 | FLAG_AC);
	check_fault(&t, EXC_AC, 0, "3A table 6-2: #AC before the #PF of the same access");
	t = USER_MODE(load, .rdi = BIT(47) + 1, .rflags = 2 | FLAG_AC);
	check_fault(&t, EXC_GP, 0, "3A table 6-2: but not before the #GP of an address that is not canonical");
}

void guest(void)
{
	u32 features = cpuid(1, 0).c;
	bool avx = features & BIT(26) && features & BIT(28), avx2 = avx && cpuid(7, 0).b & BIT(5);

	write_cr0(read_cr0() | CR0_AM);
	write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT | (avx ? CR4_OSXSAVE : 0));
	if (avx)
		asm volatile("xsetbv" ::"c"(0), "a"(7), "d"(0));
	test_rows(rows, ARRAY_SIZE(rows), USER_CS);
	test_rows(rows_32, ARRAY_SIZE(rows_32), USER_CS32);
	if (avx)
		test_rows(rows_avx, ARRAY_SIZE(rows_avx), USER_CS);
	else
		skip("3A table 6-7: AVX", "no AVX");
	if (avx2)
		test_rows(rows_avx2, ARRAY_SIZE(rows_avx2), USER_CS);
	else
		skip("3A table 6-7: AVX2", "no AVX2");
	test_when();
}
