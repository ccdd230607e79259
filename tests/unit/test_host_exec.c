/*
 * Vector and x87 instructions by the host's own: each case is decoded, runs in the guest's registers and memory, and must
 * leave what the same bytes leave when this program executes them itself. Then what has no native counterpart: faults,
 * availability, unmasked exceptions, the state images of FXSAVE and XSAVE.
 */
#include "engine/interp/host_exec.h"

#include <cmocka.h>
#include <setjmp.h>
#include <stdlib.h>
#include <sys/mman.h>

#define DATA   0x10000ull /* guest linear = physical address of operands */
#define ABSENT 0x20000ull /* a page that is not mapped */
#define AREA   832

/* ---- a vCPU in 64-bit mode, ring 0, the first 2 MiB mapped page by page ---- */

struct fixture {
	struct cpu_model model;
	struct guest_mem *mem;
	struct trace trace;
	struct vcpu *v;
	uint8_t *code;	       /* executable */
	struct native *native; /* in the low 4 GiB, for 32-bit addresses */
};

static void map_guest(struct fixture *f)
{
	uint64_t entry;

	for (unsigned level = 0; level < 3; level++) {
		entry = 0x1000 * (level + 2) | 7;
		mem_write(f->mem, gpa(0x1000 * (level + 1)), &entry, 8);
	}
	for (unsigned n = 0; n < 512; n++) {
		entry = n * 0x1000ull == ABSENT ? 0 : n * 0x1000ull | 7;
		mem_write(f->mem, gpa(0x4000 + 8 * n), &entry, 8);
	}
}

static void set_64_bit(struct vcpu *v)
{
	v->s.cr0 = CR0_PE | CR0_MP | CR0_NE | CR0_PG | CR0_ET;
	v->s.cr3 = 0x1000;
	v->s.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	v->s.xcr0 = XCR0_X87 | XCR0_SSE | XCR0_AVX;
	v->s.efer = EFER_LME | EFER_LMA;
	v->s.seg_attr[CS] = ATTR_P | ATTR_S | ATTR_CODE | ATTR_WRITABLE | ATTR_L;
	v->s.seg_base[CS] = 0;
	cpu_update_mode(v);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct error err;

	if (cpu_model_init(&f->model, "host", false, 1, &err))
		fail_msg("%s", err.text);
	f->mem = mem_create(4 << 20, &err);
	if (!f->mem)
		fail_msg("%s", err.text);
	f->v = vcpu_create(sizeof(struct interp_vcpu), 0, &f->model, f->mem, NULL, &f->trace, NULL, NULL, &err);
	if (!f->v)
		fail_msg("%s", err.text);
	map_guest(f);
	set_64_bit(f->v);
	if (interp_host_init(f->v, &err))
		fail_msg("%s", err.text);
	interp_host_enter(f->v);
	f->code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	f->native = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	*state = f;
	return f->code == MAP_FAILED || (void *)f->native == MAP_FAILED ? -1 : 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	cpu_fpu_save(f->v);
	interp_host_destroy(f->v);
	vcpu_destroy(f->v);
	mem_destroy(f->mem);
	munmap(f->code, 4096);
	munmap(f->native, 4096);
	free(f);
	return 0;
}

/* Decode and run one instruction at rip 0x1234: the vector it raised, or -1. */
static int run_bytes(struct fixture *f, const uint8_t *bytes, size_t len)
{
	struct vcpu *v = f->v;
	struct insn_host h;
	struct insn i;

	if (cpu_decode(&f->model, v->code_mode, bytes, len, 0, &i, &h) != len && i.op != OP_INVALID)
		fail_msg("decoded %u bytes of %zu", i.len, len);
	v->s.rip = 0x1234;
	v->s.ip_base = 0x1234;
	if (setjmp(v->fault_jmp))
		return v->fault.vector;
	v->current = &i;
	switch (i.op) {
	case OP_INVALID: return EXC_UD;
	case OP_HOST:
		if (!interp_host_has_room(v, 1))
			interp_host_reset(v);
		interp_host_prepare(v, &i, &h);
		interp_host_run(v, &i);
		break;
	case OP_GATHER: interp_gather(v, &i); break;
	case OP_MASKMOV: interp_maskmov(v, &i); break;
	case OP_VZERO: interp_vzero(v, &i); break;
	default:
		if (!(i.flags & INSN_SYSTEM))
			fail_msg("op %s is not for this test", cpu_op_name(i.op));
		cpu_system_ops[i.op](v, &i);
	}
	return -1;
}
#define RUN(f, ...) run_bytes(f, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

/* ---- the same bytes, executed natively ---- */

struct native {
	uint64_t vec[16][4];
	uint64_t rax, rcx, rdx, flags;
	uint8_t image[512] __attribute__((aligned(64))); /* x87 in, then out */
	uint8_t memory[128] __attribute__((aligned(64)));
	void *code;
	uint64_t rdi;
};

/* clang-format off: assembly reads by the line */
#define AT(field)     "%c[" #field "](%%rbx)"
#define OFFSET(field) [field] "i"(offsetof(struct native, field))
#define EACH_VECTOR(_)                                                                                                 \
	_(0)                                                                                                           \
	_(1)                                                                                                           \
	_(2)                                                                                                           \
	_(3)                                                                                                           \
	_(4)                                                                                                           \
	_(5)                                                                                                           \
	_(6)                                                                                                           \
	_(7)                                                                                                           \
	_(8)                                                                                                           \
	_(9)                                                                                                           \
	_(10)                                                                                                          \
	_(11)                                                                                                          \
	_(12)                                                                                                          \
	_(13)                                                                                                          \
	_(14)                                                                                                          \
	_(15)
#define LOAD_VECTOR(n)	"vmovdqu 32*" #n "(%%rbx), %%ymm" #n "\n\t"
#define STORE_VECTOR(n) "vmovdqu %%ymm" #n ", 32*" #n "(%%rbx)\n\t"

/* RSI points to the middle of memory; RDI too. */
static void run_native(struct native *n)
{
	static const uint32_t mxcsr = 0x1f80;
	register struct native *rbx __asm__("rbx") = n;

	__asm__ volatile(
		"fxrstor64 " AT(image) "\n\t" EACH_VECTOR(LOAD_VECTOR) "push " AT(
			flags) "\n\tpopf\n\t"
			       "mov " AT(rax) ", %%rax\n\tmov " AT(rcx) ", %%rcx\n\tmov " AT(
				       rdx) ", %%rdx\n\t"
					    "lea " AT(
						    memory) ", %%rsi\n\tlea 64(%%rsi), %%rsi\n\tmov %%rsi, %%rdi\n\t"
							    "call *" AT(
								    code) "\n\t"
									  "mov %%rax, " AT(rax) "\n\tmov %%rcx, " AT(rcx) "\n\tmov %%rdx, " AT(
										  rdx) "\n\t"
										       "pushf\n\tpop " AT(
											       flags) "\n"
												      "\t" EACH_VECTOR(STORE_VECTOR) "vzeroupper\n\tfxsave64 " AT(
													      image) "\n\tfninit\n\tcld"
		: "+r"(rbx)
		: OFFSET(image), OFFSET(flags), OFFSET(rax), OFFSET(rcx), OFFSET(rdx), OFFSET(memory), OFFSET(code)
		: "rax", "rcx", "rdx", "rsi", "rdi", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",
		  "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	__asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
}

/* Instructions: registers as they like, memory through %rsi. GNU as assembles them into a table of length and bytes. */
#define CASES(_)                                                                                                       \
	_("addps %xmm1, %xmm2")                                                                                        \
	_("addpd (%rsi), %xmm9")                                                                                       \
	_("mulss 4(%rsi), %xmm3")                                                                                      \
	_("sqrtsd %xmm14, %xmm0")                                                                                      \
	_("movups %xmm8, 3(%rsi)")                                                                                     \
	_("movaps %xmm1, -16(%rsi)")                                                                                   \
	_("movdqu 7(%rsi), %xmm15")                                                                                    \
	_("movlps (%rsi), %xmm5")                                                                                      \
	_("movhpd %xmm5, 8(%rsi)")                                                                                     \
	_("movss %xmm1, %xmm2")                                                                                        \
	_("movsd (%rsi), %xmm2")                                                                                       \
	_("movsd %xmm12, (%rsi)")                                                                                      \
	_("movd %ecx, %xmm4")                                                                                          \
	_("movd %xmm4, %edx")                                                                                          \
	_("movq %rax, %xmm11")                                                                                         \
	_("movq %xmm11, %rdx")                                                                                         \
	_("movq %xmm3, (%rsi)")                                                                                        \
	_("movd %r8d, %xmm6")                                                                                          \
	_("movq %xmm6, %r15")                                                                                          \
	_("movd (%rsi), %mm3")                                                                                         \
	_("pshufd $0x1b, %xmm1, %xmm2")                                                                                \
	_("pshufd $0x39, (%rsi), %xmm2")                                                                               \
	_("pextrw $5, %xmm7, %eax")                                                                                    \
	_("pextrw $3, %xmm7, (%rsi)")                                                                                  \
	_("pextrb $9, %xmm2, %ecx")                                                                                    \
	_("pextrq $1, %xmm9, %r13")                                                                                    \
	_("pinsrw $2, %edx, %xmm1")                                                                                    \
	_("pinsrb $11, (%rsi), %xmm1")                                                                                 \
	_("pinsrd $3, %r9d, %xmm10")                                                                                   \
	_("pmovmskb %xmm12, %r11d")                                                                                    \
	_("movmskps %xmm3, %eax")                                                                                      \
	_("extractps $2, %xmm5, 4(%rsi)")                                                                              \
	_("cvttsd2si %xmm1, %rax")                                                                                     \
	_("cvtsd2si (%rsi), %r12d")                                                                                    \
	_("cvtsi2sd %rcx, %xmm13")                                                                                     \
	_("cvtsi2ssl (%rsi), %xmm1")                                                                                   \
	_("cvtps2pd (%rsi), %xmm1")                                                                                    \
	_("cvtdq2ps %xmm2, %xmm3")                                                                                     \
	_("ucomisd %xmm2, %xmm1")                                                                                      \
	_("comiss (%rsi), %xmm4")                                                                                      \
	_("ptest %xmm1, %xmm9")                                                                                        \
	_("pcmpestri $0x18, (%rsi), %xmm2")                                                                            \
	_("pcmpistrm $0x40, %xmm1, %xmm2")                                                                             \
	_("pcmpistri $0x0c, 1(%rsi), %xmm2")                                                                           \
	_("pblendvb %xmm0, %xmm3, %xmm4")                                                                              \
	_("roundpd $1, %xmm1, %xmm2")                                                                                  \
	_("dpps $0xf3, %xmm1, %xmm2")                                                                                  \
	_("pshufb %xmm9, %xmm1")                                                                                       \
	_("aesenc %xmm1, %xmm2")                                                                                       \
	_("aesdeclast (%rsi), %xmm2")                                                                                  \
	_("pclmulqdq $0x11, %xmm1, %xmm2")                                                                             \
	_("sha256rnds2 %xmm0, %xmm1, %xmm2")                                                                           \
	_("sha1rnds4 $2, (%rsi), %xmm2")                                                                               \
	_("punpcklqdq %xmm9, %xmm10")                                                                                  \
	_("psrldq $5, %xmm3")                                                                                          \
	_("pslld $7, %xmm11")                                                                                          \
	_("movntps %xmm1, (%rsi)")                                                                                     \
	_("movntdqa (%rsi), %xmm1")                                                                                    \
	_("lddqu 1(%rsi), %xmm1")                                                                                      \
	_("movddup (%rsi), %xmm1")                                                                                     \
	_("haddps %xmm2, %xmm1")                                                                                       \
	_("vaddps %ymm1, %ymm2, %ymm3")                                                                                \
	_("vaddpd (%rsi), %xmm8, %xmm9")                                                                               \
	_("vpaddd 5(%rsi), %ymm11, %ymm1")                                                                             \
	_("vmovups %ymm9, 1(%rsi)")                                                                                    \
	_("vmovdqa (%rsi), %ymm2")                                                                                     \
	_("vmovups %xmm9, %xmm2")                                                                                      \
	_("vmovq %xmm3, %r10")                                                                                         \
	_("vmovd %r9d, %xmm3")                                                                                         \
	_("vmovd (%rsi), %xmm13")                                                                                      \
	_("vpextrb $3, %xmm1, %r8d")                                                                                   \
	_("vpinsrq $1, %r8, %xmm1, %xmm2")                                                                             \
	_("vcvttsd2si %xmm9, %r9")                                                                                     \
	_("vcvtsi2sd %r9, %xmm1, %xmm2")                                                                               \
	_("vucomiss %xmm1, %xmm2")                                                                                     \
	_("vptest %ymm1, %ymm2")                                                                                       \
	_("vtestps (%rsi), %ymm3")                                                                                     \
	_("vpmovmskb %ymm9, %edx")                                                                                     \
	_("vpcmpeqb (%rsi), %ymm1, %ymm2")                                                                             \
	_("vextracti128 $1, %ymm9, %xmm2")                                                                             \
	_("vinsertf128 $1, (%rsi), %ymm2, %ymm3")                                                                      \
	_("vpermq $0x4e, %ymm9, %ymm1")                                                                                \
	_("vbroadcastss (%rsi), %ymm1")                                                                                \
	_("vpbroadcastb %xmm9, %ymm10")                                                                                \
	_("vblendvps %ymm9, %ymm1, %ymm2, %ymm3")                                                                      \
	_("vfmadd231pd (%rsi), %ymm1, %ymm2")                                                                          \
	_("vfnmsub132ss %xmm9, %xmm1, %xmm2")                                                                          \
	_("vcvtph2ps (%rsi), %ymm1")                                                                                   \
	_("vcvtps2ph $0, %ymm1, (%rsi)")                                                                               \
	_("vpclmulqdq $1, %xmm1, %xmm2, %xmm3")                                                                        \
	_("vaesenc %xmm1, %xmm2, %xmm3")                                                                               \
	_("vpsllvd %ymm1, %ymm2, %ymm3")                                                                               \
	_("vzeroupper")                                                                                                \
	_("vzeroall")                                                                                                  \
	_("vpcmpestri $0x1a, %xmm1, %xmm9")                                                                            \
	_("vmaskmovps (%rsi), %ymm1, %ymm2")                                                                           \
	_("vmaskmovpd %ymm9, %ymm1, (%rsi)")                                                                           \
	_("vpmaskmovd (%rsi), %xmm1, %xmm2")                                                                           \
	_("vpmaskmovq %xmm3, %xmm9, 4(%rsi)")                                                                          \
	_("maskmovdqu %xmm1, %xmm9")                                                                                   \
	_("vmaskmovdqu %xmm2, %xmm3")                                                                                  \
	_("maskmovq %mm1, %mm2")                                                                                       \
	_("paddb %mm1, %mm2")                                                                                          \
	_("pmulhw (%rsi), %mm7")                                                                                       \
	_("movq %mm5, %rcx")                                                                                           \
	_("movq %rdx, %mm1")                                                                                           \
	_("movq %mm5, (%rsi)")                                                                                         \
	_("movntq %mm1, (%rsi)")                                                                                       \
	_("pshufw $0x1b, %mm1, %mm2")                                                                                  \
	_("pinsrw $1, %ecx, %mm4")                                                                                     \
	_("pmovmskb %mm1, %r9d")                                                                                       \
	_("cvtpi2ps %mm1, %xmm2")                                                                                      \
	_("cvttpd2pi (%rsi), %mm2")                                                                                    \
	_("movq2dq %mm3, %xmm9")                                                                                       \
	_("movdq2q %xmm9, %mm3")                                                                                       \
	_("psignb %mm1, %mm2")                                                                                         \
	_("emms")                                                                                                      \
	_("fadd %st(3), %st")                                                                                          \
	_("fmulp %st, %st(2)")                                                                                         \
	_("fld1")                                                                                                      \
	_("fldpi")                                                                                                     \
	_("flds (%rsi)")                                                                                               \
	_("fldl 1(%rsi)")                                                                                              \
	_("fldt (%rsi)")                                                                                               \
	_("filds (%rsi)")                                                                                              \
	_("fildll 4(%rsi)")                                                                                            \
	_("fstps (%rsi)")                                                                                              \
	_("fstl (%rsi)")                                                                                               \
	_("fstpt 3(%rsi)")                                                                                             \
	_("fistpl (%rsi)")                                                                                             \
	_("fisttpll (%rsi)")                                                                                           \
	_("fbld (%rsi)")                                                                                               \
	_("fbstp (%rsi)")                                                                                              \
	_("fxch %st(4)")                                                                                               \
	_("fchs")                                                                                                      \
	_("fsqrt")                                                                                                     \
	_("fsin")                                                                                                      \
	_("fpatan")                                                                                                    \
	_("fyl2x")                                                                                                     \
	_("frndint")                                                                                                   \
	_("fscale")                                                                                                    \
	_("fprem")                                                                                                     \
	_("fcom %st(1)")                                                                                               \
	_("fcomi %st(2), %st")                                                                                         \
	_("fucomip %st(1), %st")                                                                                       \
	_("fcmovbe %st(3), %st")                                                                                       \
	_("fcmovnu %st(1), %st")                                                                                       \
	_("fnstsw %ax")                                                                                                \
	_("fnstsw (%rsi)")                                                                                             \
	_("fnstcw (%rsi)")                                                                                             \
	_("ftst")                                                                                                      \
	_("fxam")                                                                                                      \
	_("fincstp")                                                                                                   \
	_("ffree %st(2)")                                                                                              \
	_("fnclex")                                                                                                    \
	_("fninit")                                                                                                    \
	_("fwait")                                                                                                     \
	_("fdivrs (%rsi)")                                                                                             \
	_("fiaddl 2(%rsi)")                                                                                            \
	_(".byte 0x67; addps (%rsi), %xmm1")                                                                           \
	_(".byte 0x66, 0x66; movdqa %xmm1, %xmm2")                                                                     \
	_(".byte 0x48; addps %xmm1, %xmm2")                                                                            \
	_("movups 16(%rsi,%rax,2), %xmm1")                                                                             \
	_("movups 0x7fffff00(%rsi,%rcx,1), %xmm3")

static const char *const case_names[] = {
#define _(text) text,
	CASES(_)
#undef _
};
extern const uint8_t case_bytes[];
__asm__(".pushsection .rodata\n.globl case_bytes\ncase_bytes:\n"
#define _(text) ".byte 2f-1f\n1: " text "\n2:\n"
	CASES(_)
#undef _
		".popsection");

/* clang-format on */

/* ---- inputs ---- */

static uint64_t seed;

static uint64_t next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* Random bits are mostly huge or tiny numbers: half of the time, ordinary doubles or floats. */
static uint64_t random_quad(void)
{
	uint64_t r = next_random();

	switch (next_random() & 7) {
	case 0: return 0;
	case 1:
	case 2: return (r & 0x800fffffffffffff) | (0x3f8 + (r >> 54 & 15)) << 52;
	case 3:
	case 4: return (r & 0x807fffff807fffff) | 0x3f8000003f800000 | (r >> 30 & 0x1800000);
	default: return r;
	}
}

#define STATUS_FLAGS 0x8d5

static void make_inputs(struct fixture *f, struct native *n)
{
	struct vcpu *v = f->v;
	uint64_t flags = next_random() & STATUS_FLAGS;

	cpu_fpu_save(v);
	memset(n, 0, sizeof(*n));
	for (unsigned k = 0; k < 64; k++)
		v->s.vec[k] = n->vec[k / 4][k % 4] = random_quad();
	for (unsigned k = 0; k < 16; k++)
		((uint64_t *)n->memory)[k] = random_quad();
	for (unsigned k = 0; k < 16; k++)
		v->s.gpr[k] = 0;
	v->s.gpr[RAX] = n->rax = next_random() & 15;
	/* The case with the large displacement comes back by RCX. */
	v->s.gpr[RCX] = n->rcx = next_random() & 1 ? next_random() : -0x7fffff00ull;
	v->s.gpr[RDX] = n->rdx = next_random() & 15;
	n->flags = flags | 2;
	cpu_set_status(v, flags);
	v->s.gpr[RSI] = v->s.gpr[RDI] = DATA + 64;
	mem_write(f->mem, gpa(DATA), n->memory, sizeof(n->memory));

	v->s.fcw = 0x37f;
	v->s.fsw = (uint16_t)(next_random() & 0x7f00);
	v->s.mxcsr = 0x1f80;
	v->s.ftw = 0;
	store_le16(n->image, v->s.fcw);
	store_le16(n->image + 2, v->s.fsw);
	store_le32(n->image + 24, v->s.mxcsr);
	for (unsigned k = 0; k < 8; k++) {
		bool empty = !(next_random() & 7);
		unsigned physical = (k + (v->s.fsw >> 11)) & 7;

		v->s.st_mantissa[k] = next_random() | BIT(63);
		v->s.st_exponent[k] = (uint16_t)(0x3ff8 + (next_random() & 15));
		store_le64(n->image + 32 + 16 * k, v->s.st_mantissa[k]);
		store_le16(n->image + 40 + 16 * k, v->s.st_exponent[k]);
		if (empty)
			v->s.ftw |= (uint16_t)(3 << 2 * physical);
		else
			n->image[4] |= (uint8_t)(1 << physical);
	}
}

/* Extended registers R8 to R15 hold zero in the guest; natively too, by a prologue. */
static void make_code(struct fixture *f, struct native *n, const uint8_t *bytes, unsigned len)
{
	static const uint8_t save[] = { 0x41, 0x54, 0x41, 0x55, 0x41, 0x57, 0x4d, 0x8d, 0x04, 0x24 };
	static const uint8_t zero[] = { 0x41, 0xb8, 0, 0,    0,	   0, 0x41, 0xb9, 0, 0,	   0,	 0, 0x41, 0xba, 0,
					0,    0,    0, 0x41, 0xbb, 0, 0,    0,	  0, 0x41, 0xbc, 0, 0,	  0,	0,
					0x41, 0xbd, 0, 0,    0,	   0, 0x41, 0xbf, 0, 0,	   0,	 0 };
	/* One extended register at most is written: their sum is returned through rdi's slot. */
	static const uint8_t sum[] = { 0x4f, 0x8d, 0x04, 0x08, 0x4f, 0x8d, 0x04, 0x10, 0x4f,
				       0x8d, 0x04, 0x18, 0x4f, 0x8d, 0x04, 0x20, 0x4f, 0x8d,
				       0x04, 0x28, 0x4f, 0x8d, 0x04, 0x38, 0x4c, 0x89, 0x83 };
	static const uint8_t restore[] = { 0x41, 0x5f, 0x41, 0x5d, 0x41, 0x5c, 0xc3 };
	uint8_t *p = f->code;

	p = (uint8_t *)memcpy(p, save, sizeof(save)) + sizeof(save);
	p = (uint8_t *)memcpy(p, zero, sizeof(zero)) + sizeof(zero);
	p = (uint8_t *)memcpy(p, bytes, len) + len;
	p = (uint8_t *)memcpy(p, sum, sizeof(sum)) + sizeof(sum);
	store_le32(p, offsetof(struct native, rdi));
	memcpy(p + 4, restore, sizeof(restore));
	n->code = f->code;
}

static uint64_t extended_sum(const struct vcpu *v)
{
	uint64_t sum = 0;

	for (unsigned k = R8; k <= R15; k++)
		sum += v->s.gpr[k];
	return sum;
}

static bool images_agree(const struct vcpu *v, const struct native *n, const char *name)
{
	bool ok = true;

	for (unsigned k = 0; k < 8; k++)
		ok &= load_le64(n->image + 32 + 16 * k) == v->s.st_mantissa[k] &&
		      load_le16(n->image + 40 + 16 * k) == v->s.st_exponent[k];
	for (unsigned k = 0; k < 8; k++)
		ok &= (n->image[4] >> k & 1) == ((v->s.ftw >> 2 * k & 3) != 3);
	ok &= load_le16(n->image) == v->s.fcw && load_le16(n->image + 2) == v->s.fsw;
	ok &= load_le32(n->image + 24) == v->s.mxcsr;
	if (!ok)
		print_error("%s: x87 or MXCSR differ: fsw %x native %x, fcw %x native %x, mxcsr %x native %x\n", name,
			    v->s.fsw, load_le16(n->image + 2), v->s.fcw, load_le16(n->image), v->s.mxcsr,
			    load_le32(n->image + 24));
	return ok;
}

static bool compare(struct fixture *f, struct native *n, const char *name)
{
	struct vcpu *v = f->v;
	uint8_t memory[128];
	bool ok;

	ok = images_agree(v, n, name);
	for (unsigned k = 0; k < 64; k++)
		if (v->s.vec[k] != n->vec[k / 4][k % 4]) {
			print_error("%s: ymm%u[%u] is %#lx, natively %#lx\n", name, k / 4, k % 4, v->s.vec[k],
				    n->vec[k / 4][k % 4]);
			ok = false;
		}
	if (v->s.gpr[RAX] != n->rax || v->s.gpr[RCX] != n->rcx || v->s.gpr[RDX] != n->rdx ||
	    extended_sum(v) != n->rdi) {
		print_error("%s: rax %#lx rcx %#lx rdx %#lx r8-15 %#lx, natively %#lx %#lx %#lx %#lx\n", name,
			    v->s.gpr[RAX], v->s.gpr[RCX], v->s.gpr[RDX], extended_sum(v), n->rax, n->rcx, n->rdx,
			    n->rdi);
		ok = false;
	}
	if (cpu_status(v) != (n->flags & STATUS_FLAGS)) {
		print_error("%s: flags %#lx, natively %#lx\n", name, cpu_status(v), n->flags & STATUS_FLAGS);
		ok = false;
	}
	mem_read(f->mem, gpa(DATA), memory, sizeof(memory));
	if (memcmp(memory, n->memory, sizeof(memory))) {
		print_error("%s: memory differs\n", name);
		ok = false;
	}
	return ok;
}

static void test_native(void **state)
{
	struct fixture *f = *state;
	unsigned bad = 0;

	seed = 0x123456789abcdef;
	for (unsigned round = 0; round < 20; round++) {
		const uint8_t *bytes = case_bytes;

		for (unsigned c = 0; c < ARRAY_SIZE(case_names); c++, bytes += 1 + bytes[0]) {
			struct native *n = f->native;
			int vector;

			make_inputs(f, n);
			if (strstr(case_names[c], "rcx,1")) /* the address must be good */
				f->v->s.gpr[RCX] = n->rcx = -0x7fffff00ull;
			make_code(f, n, bytes + 1, bytes[0]);
			vector = run_bytes(f, bytes + 1, bytes[0]);
			cpu_fpu_save(f->v); /* the unit is wanted for the native run */
			if (vector >= 0) {
				print_error("%s: raised %d\n", case_names[c], vector);
				bad++;
				continue;
			}
			run_native(n);
			bad += !compare(f, n, case_names[c]);
		}
	}
	assert_int_equal(bad, 0);
}

/* ---- every encoding ---- */

/*
 * Bytes of one instruction of encoding space `space`: 0..11 legacy maps 0F, 0F38, 0F3A with prefix none, 66, F3, F2; 12..35 VEX
 * likewise with L 0 and 1; 36..43 x87 opcodes. Registers 0 to 2 and 8 to 10, memory (%rsi).
 */
#define SPACES 44

static unsigned make_encoding(uint8_t *p, unsigned space, unsigned opcode)
{
	static const uint8_t prefixes[] = { 0, 0x66, 0xf3, 0xf2 };
	unsigned extend = next_random() & 5, w = next_random() & 1, reg = next_random() % 3, n = 0;
	bool memory = next_random() & 1;
	unsigned modrm = memory ? reg << 3 | 6 : 0xc0 | reg << 3 | next_random() % 3, map = space % 12 / 4 + 1;

	if (!(next_random() & 3)) /* opcode extensions */
		modrm |= next_random() & 0x38;
	if (memory)
		extend &= 4;
	if (space >= 36) {
		p[n++] = (uint8_t)(0xd8 + space - 36);
		p[n++] = memory ? (opcode & 0x38) | 6 : (uint8_t)(0xc0 | opcode);
		return n;
	}
	if (space >= 12) {
		p[n++] = 0xc4;
		p[n++] = (uint8_t)((~extend & 7) << 5 | map);
		p[n++] = (uint8_t)(w << 7 | (next_random() & 7 ? 15 - next_random() % 11 : 15) << 3 |
				   (space >= 24) << 2 | (space & 3));
	} else {
		if (prefixes[space & 3])
			p[n++] = prefixes[space & 3];
		p[n++] = (uint8_t)(0x40 | w << 3 | extend);
		p[n++] = 0x0f;
		if (map > 1)
			p[n++] = map == 2 ? 0x38 : 0x3a;
	}
	p[n++] = (uint8_t)opcode;
	p[n++] = (uint8_t)modrm;
	p[n++] = (uint8_t)next_random(); /* an immediate, if there is one */
	return n;
}

/* General registers that run_native() can hand over. */
static bool registers_ok(const struct insn_host *h)
{
	return !((h->gpr_read | h->gpr_written) &
		 (1u << RBX | 1u << RSP | 1u << RBP | 1u << RSI | 1u << RDI | 1u << R14));
}

static void test_encodings(void **state)
{
	struct fixture *f = *state;
	unsigned bad = 0, ran = 0;

	seed = 0xfedcba987654321;
	for (unsigned space = 0; space < SPACES; space++) {
		for (unsigned opcode = 0; opcode < 4 * 256 && bad < 20; opcode++) {
			uint8_t bytes[15] = { 0 };
			struct insn_host h;
			struct insn i;
			char name[96];

			if (space < 4 && ((opcode & 255) == 0x38 || (opcode & 255) == 0x3a))
				continue; /* escapes to the other maps */
			make_encoding(bytes, space, opcode & 255);
			cpu_decode(&f->model, MODE_64, bytes, 15, 0, &i, &h);
			if (i.op != OP_HOST || !registers_ok(&h))
				continue;
			cpu_disassemble(MODE_64, bytes, i.len, 0, name, sizeof(name));
			make_inputs(f, f->native);
			make_code(f, f->native, bytes, i.len);
			if (run_bytes(f, bytes, i.len) >= 0) {
				print_error("%s: raised %u\n", name, f->v->fault.vector);
				bad++;
				continue;
			}
			ran++;
			cpu_fpu_save(f->v);
			run_native(f->native);
			if (!compare(f, f->native, name))
				bad++;
		}
	}
	print_message("# %u encodings ran\n", ran);
	assert_int_equal(bad, 0);
	assert_in_range(ran, 5000, SPACES * 1024);
}

/* ---- gathers ---- */

static void test_gather(void **state)
{
	struct fixture *f = *state;
	struct vcpu *v = f->v;
	uint32_t *data = (uint32_t *)mem_map(f->mem, gpa(DATA), 4096, true);
	uint32_t *destination = (uint32_t *)&v->s.vec[4 * 1], *mask = (uint32_t *)&v->s.vec[4 * 3];
	int32_t *index = (int32_t *)&v->s.vec[4 * 2];

	for (unsigned k = 0; k < 1024; k++)
		data[k] = 0xabc00000 + k;
	v->s.gpr[RSI] = DATA + 64;
	for (unsigned k = 0; k < 8; k++) {
		index[k] = 5 * (int32_t)k - 3;
		mask[k] = k == 4 ? 0x7fffffff : 0x80000000;
		destination[k] = k;
	}
	/* vpgatherdd %ymm3, (%rsi,%ymm2,4), %ymm1 */
	assert_int_equal(RUN(f, 0xc4, 0xe2, 0x65, 0x90, 0x0c, 0x96), -1);
	for (unsigned k = 0; k < 8; k++) {
		assert_int_equal(destination[k], k == 4 ? 4 : 0xabc00000 + 16 + 5 * k - 3);
		assert_int_equal(mask[k], 0);
	}

	/* A fault in the third element: two are done, and say so. Then the page appears. */
	v->s.gpr[RSI] = DATA;
	for (unsigned k = 0; k < 8; k++) {
		index[k] = k == 2 ? (int32_t)(ABSENT - DATA) : 4 * (int32_t)k;
		mask[k] = UINT32_MAX;
		destination[k] = 0;
	}
	/* vgatherdps %xmm3, (%rsi,%xmm2,1), %xmm1 */
	assert_int_equal(RUN(f, 0xc4, 0xe2, 0x61, 0x92, 0x0c, 0x16), EXC_PF);
	assert_int_equal(v->fault.address, ABSENT);
	assert_int_equal(destination[1], 0xabc00001);
	assert_int_equal(destination[2], 0);
	assert_int_equal(mask[1], 0);
	assert_int_equal(mask[2], UINT32_MAX);
	index[2] = 40;
	assert_int_equal(RUN(f, 0xc4, 0xe2, 0x61, 0x92, 0x0c, 0x16), -1);
	assert_int_equal(destination[2], 0xabc0000a);
	assert_int_equal(mask[3], 0);
	assert_int_equal(mask[7], 0);
	assert_int_equal(destination[7], 0);

	/* vpgatherdd %ymm1, (%rsi,%ymm2,4), %ymm1: destination and mask must differ */
	assert_int_equal(RUN(f, 0xc4, 0xe2, 0x75, 0x90, 0x0c, 0x96), EXC_UD);
}

/* ---- faults ---- */

static void test_memory_faults(void **state)
{
	struct fixture *f = *state;
	struct vcpu *v = f->v;

	v->s.gpr[RSI] = DATA + 4;
	assert_int_equal(RUN(f, 0x0f, 0x28, 0x0e), EXC_GP);   /* movaps (%rsi), %xmm1: not aligned */
	assert_int_equal(RUN(f, 0x0f, 0x58, 0x0e), EXC_GP);   /* addps (%rsi), %xmm1 */
	assert_int_equal(RUN(f, 0xc5, 0xf0, 0x58, 0x0e), -1); /* vaddps (%rsi), %xmm1, %xmm1 */
	assert_int_equal(RUN(f, 0x0f, 0x10, 0x0e), -1);	      /* movups */
	v->s.gpr[RSI] = ABSENT - 8;
	v->s.vec[4] = v->s.vec[5] = 0x1111;
	assert_int_equal(RUN(f, 0x0f, 0x11, 0x0e), EXC_PF); /* movups %xmm1, (%rsi) across the end */
	assert_int_equal(v->fault.address, ABSENT);
	assert_int_equal(v->fault.error, PF_W);
	assert_int_equal(load_le64(mem_map(f->mem, gpa(ABSENT - 8), 8, false)), 0);
	assert_int_equal(RUN(f, 0x0f, 0x10, 0x0e), EXC_PF); /* movups (%rsi), %xmm1 */
	assert_int_equal(v->s.vec[4], 0x1111);
	/* A page crossing that is all there. */
	v->s.gpr[RSI] = DATA + 0x1000 - 8;
	assert_int_equal(RUN(f, 0x0f, 0x11, 0x0e), -1);
	assert_int_equal(load_le64(mem_map(f->mem, gpa(DATA + 0x1000), 8, false)), 0x1111);
	v->s.gpr[RSI] = BIT(47);
	assert_int_equal(RUN(f, 0x0f, 0x10, 0x0e), EXC_GP);

	/* FSTP that faults does not pop. */
	assert_int_equal(RUN(f, 0xdb, 0xe3), -1); /* fninit */
	assert_int_equal(RUN(f, 0xd9, 0xe8), -1); /* fld1 */
	v->s.gpr[RSI] = ABSENT - 4;
	assert_int_equal(RUN(f, 0xdd, 0x1e), EXC_PF); /* fstpl (%rsi) */
	cpu_fpu_save(v);
	assert_int_equal(v->s.fsw >> 11 & 7, 7);
	assert_int_equal(v->s.ftw, 0x3fff);
}

static void test_availability(void **state)
{
	struct fixture *f = *state;
	struct vcpu *v = f->v;
	uint64_t cr0 = v->s.cr0, cr4 = v->s.cr4;

	v->s.cr0 = cr0 | CR0_TS;
	assert_int_equal(RUN(f, 0x0f, 0x58, 0xc1), EXC_NM);	  /* addps */
	assert_int_equal(RUN(f, 0xc5, 0xf0, 0x58, 0xc8), EXC_NM); /* vaddps */
	assert_int_equal(RUN(f, 0xd9, 0xe8), EXC_NM);		  /* fld1 */
	assert_int_equal(RUN(f, 0x0f, 0xfc, 0xc1), EXC_NM);	  /* paddb mm */
	assert_int_equal(RUN(f, 0x9b), EXC_NM);			  /* fwait */
	v->s.cr0 &= ~CR0_MP;
	assert_int_equal(RUN(f, 0x9b), -1);
	v->s.cr0 = cr0 | CR0_EM;
	assert_int_equal(RUN(f, 0x0f, 0x58, 0xc1), EXC_UD);
	assert_int_equal(RUN(f, 0x0f, 0xfc, 0xc1), EXC_UD);
	assert_int_equal(RUN(f, 0xd9, 0xe8), EXC_NM);
	assert_int_equal(RUN(f, 0xc5, 0xf0, 0x58, 0xc8), -1);
	v->s.cr0 = cr0;
	v->s.cr4 = cr4 & ~CR4_OSFXSR;
	assert_int_equal(RUN(f, 0x0f, 0x58, 0xc1), EXC_UD);
	assert_int_equal(RUN(f, 0x0f, 0xfc, 0xc1), -1);
	v->s.cr4 = cr4 & ~CR4_OSXSAVE;
	assert_int_equal(RUN(f, 0xc5, 0xf0, 0x58, 0xc8), EXC_UD);
	v->s.cr4 = cr4;
	v->s.xcr0 = XCR0_X87 | XCR0_SSE;
	assert_int_equal(RUN(f, 0xc5, 0xf0, 0x58, 0xc8), EXC_UD);
	v->s.xcr0 |= XCR0_AVX;
	assert_int_equal(RUN(f, 0xc5, 0xf0, 0x58, 0xc8), -1);
}

/* ---- unmasked exceptions ---- */

static void test_simd_exception(void **state)
{
	struct fixture *f = *state;
	struct vcpu *v = f->v;
	const uint64_t one = 0x3ff0000000000000;
	struct error err;

	/* The test library has handlers of its own by now: put the right one back. */
	interp_host_destroy(v);
	assert_int_equal(interp_host_init(v, &err), 0);
	interp_host_enter(v);
	v->s.mxcsr = 0x1f80 & ~0x200u; /* ZE not masked */
	for (unsigned k = 0; k < 3; k++) {
		v->s.vec[4] = one;
		v->s.vec[5] = 77;
		v->s.vec[8] = 0;
		assert_int_equal(RUN(f, 0xf2, 0x0f, 0x5e, 0xca), EXC_XM); /* divsd %xmm2, %xmm1 */
		assert_int_equal(v->s.vec[4], one);
		assert_int_equal(v->s.vec[5], 77);
		assert_int_equal(RUN(f, 0xc5, 0xf5, 0x5e, 0xca), EXC_XM); /* vdivpd %ymm2, %ymm1, %ymm1 */
		assert_int_equal(v->s.vec[4], one);
	}
	v->s.cr4 &= ~CR4_OSXMMEXCPT;
	assert_int_equal(RUN(f, 0xf2, 0x0f, 0x5e, 0xca), EXC_UD);
	v->s.cr4 |= CR4_OSXMMEXCPT;
	cpu_fpu_save(v);
	assert_int_equal(v->s.mxcsr & ~1u, 0x1d84); /* the upper lanes were 0 / 0 */
	v->s.mxcsr = 0x1f80;
	assert_int_equal(RUN(f, 0xf2, 0x0f, 0x5e, 0xca), -1);
	assert_int_equal(v->s.vec[4], 0x7ff0000000000000);
}

static void test_x87_exception(void **state)
{
	struct fixture *f = *state;
	struct vcpu *v = f->v;
	uint16_t control = 0x37b; /* ZM clear */

	v->s.gpr[RSI] = DATA;
	mem_write(f->mem, gpa(DATA), &control, 2);
	assert_int_equal(RUN(f, 0xdb, 0xe3), -1); /* fninit */
	assert_int_equal(RUN(f, 0xd9, 0x2e), -1); /* fldcw (%rsi) */
	assert_int_equal(RUN(f, 0xd9, 0xe8), -1); /* fld1 */
	assert_int_equal(RUN(f, 0xd9, 0xee), -1); /* fldz */
	v->s.rip = 0;
	assert_int_equal(RUN(f, 0xd8, 0xf9), -1);	/* fdivr %st(1), %st: 1 / 0, reported later */
	assert_int_equal(RUN(f, 0x0f, 0x58, 0xc1), -1); /* addps does not wait */
	assert_int_equal(RUN(f, 0xdf, 0xe0), -1);	/* fnstsw %ax neither */
	assert_int_equal(v->s.gpr[RAX] & 0xbfff, 0xb084);
	assert_int_equal(RUN(f, 0xd9, 0xe8), EXC_MF);	    /* fld1 */
	assert_int_equal(RUN(f, 0x9b), EXC_MF);		    /* fwait */
	assert_int_equal(RUN(f, 0x0f, 0xfc, 0xc1), EXC_MF); /* paddb mm */
	assert_int_equal(RUN(f, 0x0f, 0x77), EXC_MF);	    /* emms */
	assert_int_equal(v->s.fip, 0x1234);
	assert_int_equal(v->s.fop, 0x0f9);
	/* The state with its pending exception goes out and in. */
	cpu_fpu_save(v);
	assert_true(v->s.fsw & 0x80);
	assert_int_equal(RUN(f, 0xd9, 0xe8), EXC_MF);
	assert_int_equal(RUN(f, 0xdd, 0x36), -1); /* fnsave (%rsi) resets the unit */
	assert_int_equal(RUN(f, 0xd9, 0xe8), -1);
	assert_int_equal(RUN(f, 0xdd, 0x26), -1); /* frstor (%rsi): it is pending again */
	assert_int_equal(RUN(f, 0xd9, 0xe8), EXC_MF);
	assert_int_equal(RUN(f, 0xdb, 0xe2), -1); /* fnclex */
	assert_int_equal(RUN(f, 0xd9, 0xe8), -1);
	assert_int_equal(RUN(f, 0xdb, 0xe3), -1);
}

/* ---- environments and images ---- */

static void test_environment(void **state)
{
	struct fixture *f = *state;
	struct vcpu *v = f->v;
	uint8_t *p = mem_map(f->mem, gpa(DATA), 4096, true);

	v->s.gpr[RSI] = DATA;
	assert_int_equal(RUN(f, 0xdb, 0xe3), -1);
	assert_int_equal(RUN(f, 0xd9, 0xe8), -1);	/* fld1 */
	assert_int_equal(RUN(f, 0xdd, 0x46, 0x40), -1); /* fldl 64(%rsi) */
	assert_int_equal(RUN(f, 0xd9, 0x36), -1);	/* fnstenv (%rsi) */
	assert_int_equal(load_le32(p), 0xffff037f);
	assert_int_equal(load_le32(p + 4), 0xffff3000);
	assert_int_equal(load_le32(p + 8) & 0xc000, 0);
	assert_int_equal(load_le32(p + 12), 0x1234);
	assert_int_equal(load_le32(p + 16) >> 16, 0x546);
	assert_int_equal(load_le32(p + 20), DATA + 64);
	memset(p, 0xcc, 128);
	assert_int_equal(RUN(f, 0x66, 0xd9, 0x36), -1); /* fnstenvs: 14 bytes */
	assert_int_equal(load_le16(p + 2), 0x3000);
	assert_int_equal(load_le16(p + 6), 0x1234);
	assert_int_equal(p[14], 0xcc);
	store_le16(p + 2, 0x3800);			/* TOP = 7: 1.0 is on top again */
	assert_int_equal(RUN(f, 0x66, 0xd9, 0x26), -1); /* fldenvs */
	assert_int_equal(RUN(f, 0xd9, 0x5e, 0x40), -1); /* fstps 64(%rsi) */
	assert_int_equal(load_le32(p + 64), 0x3f800000);
}

static void fill_state(struct vcpu *v)
{
	cpu_fpu_save(v);
	for (unsigned k = 0; k < 64; k++)
		v->s.vec[k] = 0x0101010101010101 * (k + 1);
	for (unsigned k = 0; k < 8; k++) {
		v->s.st_mantissa[k] = BIT(63) | k;
		v->s.st_exponent[k] = (uint16_t)(0x4000 + k);
	}
	v->s.fcw = 0x27f;
	v->s.fsw = 0x2801;
	v->s.ftw = 0x0003;
	v->s.fop = 0x123;
	v->s.fip = 0x334455667788; /* 48 bits with sign: what FXRSTOR loads */
	v->s.fdp = 0xffffbbccddeeff00;
	v->s.fcs = v->s.fds = 0;
	v->s.mxcsr = 0x3f80;
}

static void clear_state(struct vcpu *v)
{
	cpu_fpu_save(v);
	memset(v->s.vec, 0x77, sizeof(v->s.vec));
	memset(v->s.st_mantissa, 0, sizeof(v->s.st_mantissa));
	memset(v->s.st_exponent, 0, sizeof(v->s.st_exponent));
	v->s.fcw = 0x37f;
	v->s.fsw = v->s.fop = v->s.fcs = v->s.fds = 0;
	v->s.ftw = 0xffff;
	v->s.fip = v->s.fdp = 0;
	v->s.mxcsr = 0x1f80;
}

static void expect_state(struct vcpu *v, const struct cpu_state *want, bool x87, bool sse, bool avx)
{
	cpu_fpu_save(v);
	for (unsigned k = 0; k < 64; k++)
		if (k % 4 < 2 ? sse : avx)
			assert_int_equal(v->s.vec[k], want->vec[k]);
	if (sse)
		assert_int_equal(v->s.mxcsr, want->mxcsr);
	if (!x87)
		return;
	for (unsigned k = 0; k < 8; k++) {
		assert_int_equal(v->s.st_mantissa[k], want->st_mantissa[k]);
		assert_int_equal(v->s.st_exponent[k], want->st_exponent[k]);
	}
	assert_int_equal(v->s.fcw, want->fcw);
	assert_int_equal(v->s.fsw, want->fsw);
	assert_int_equal(v->s.ftw, want->ftw);
	assert_int_equal(v->s.fop, want->fop);
	assert_int_equal(v->s.fip, want->fip);
	assert_int_equal(v->s.fdp, want->fdp);
}

static void set_mask(struct vcpu *v, uint64_t components)
{
	v->s.gpr[RAX] = components;
	v->s.gpr[RDX] = 0;
}

/* Of Intel's kind: AMD's processors store the x87 pointers only while an exception waits. */
static void set_vendor_intel(struct fixture *f) { memcpy(f->model.vendor, "GenuineIntel", sizeof(f->model.vendor)); }

static void test_fxsave(void **state)
{
	struct fixture *f = *state;
	struct vcpu *v = f->v;
	uint8_t *p = mem_map(f->mem, gpa(DATA), 4096, true);
	struct cpu_state want;

	set_vendor_intel(f);
	fill_state(v);
	want = v->s;
	memset(p, 0xcc, AREA);
	v->s.gpr[RSI] = DATA;
	assert_int_equal(RUN(f, 0x48, 0x0f, 0xae, 0x06), -1); /* fxsave64 (%rsi) */
	assert_int_equal(load_le16(p), 0x27f);
	assert_int_equal(p[4], 0xfe);
	assert_int_equal(load_le32(p + 24), 0x3f80);
	assert_int_equal(load_le32(p + 28), 0xffff);
	assert_int_equal(p[416], 0xcc); /* left to software */
	clear_state(v);
	assert_int_equal(RUN(f, 0x48, 0x0f, 0xae, 0x0e), -1); /* fxrstor64 (%rsi) */
	expect_state(v, &want, true, true, false);
	assert_int_equal(v->s.vec[2], 0x7777777777777777);

	store_le32(p + 24, 0x11f80);
	assert_int_equal(RUN(f, 0x48, 0x0f, 0xae, 0x0e), EXC_GP);
	v->s.gpr[RSI] = DATA + 8;
	assert_int_equal(RUN(f, 0x48, 0x0f, 0xae, 0x06), EXC_GP);
	v->s.gpr[RSI] = ABSENT - 256;
	assert_int_equal(RUN(f, 0x48, 0x0f, 0xae, 0x06), EXC_PF);
	/* The 32-bit form keeps 32 bits of the pointers and the selectors. */
	v->s.gpr[RSI] = DATA;
	v->s.fcs = 0x33;
	assert_int_equal(RUN(f, 0x0f, 0xae, 0x06), -1);
	assert_int_equal(load_le64(p + 8), 0x3355667788);
	clear_state(v);
	assert_int_equal(RUN(f, 0x0f, 0xae, 0x0e), -1);
	assert_int_equal(v->s.fip, 0x55667788);
	assert_int_equal(v->s.fcs, 0x33);
	v->s.fcs = 0;
}

static void test_xsave(void **state)
{
	struct fixture *f = *state;
	struct vcpu *v = f->v;
	uint8_t *p = mem_map(f->mem, gpa(DATA), 4096, true);
	struct cpu_state want;

	v->s.gpr[RSI] = DATA;
	set_vendor_intel(f);
	fill_state(v);
	want = v->s;
	memset(p, 0, AREA);
	set_mask(v, 7);
	assert_int_equal(RUN(f, 0x48, 0x0f, 0xae, 0x26), -1); /* xsave64 (%rsi) */
	assert_int_equal(load_le64(p + 512), 7);
	assert_int_equal(load_le64(p + 520), 0);
	clear_state(v);
	assert_int_equal(RUN(f, 0x48, 0x0f, 0xae, 0x2e), -1); /* xrstor64 (%rsi) */
	expect_state(v, &want, true, true, true);

	memset(p, 0, AREA);
	assert_int_equal(RUN(f, 0x48, 0x0f, 0xc7, 0x26), -1); /* xsavec64 (%rsi) */
	assert_int_equal(load_le64(p + 512), 7);
	assert_int_equal(load_le64(p + 520), 7 | BIT(63));
	clear_state(v);
	assert_int_equal(RUN(f, 0x48, 0x0f, 0xae, 0x2e), -1);
	expect_state(v, &want, true, true, true);

	/* Only some components: the others of the state stay. */
	clear_state(v);
	set_mask(v, XCR0_AVX);
	assert_int_equal(RUN(f, 0x48, 0x0f, 0xae, 0x2e), -1);
	expect_state(v, &want, false, false, true);
	assert_int_equal(v->s.vec[0], 0x7777777777777777);
	assert_int_equal(v->s.mxcsr, 0x1f80);

	/* Components in their initial configuration are said to be, and are made so. */
	clear_state(v);
	memset(v->s.vec, 0, sizeof(v->s.vec));
	set_mask(v, 7);
	memset(p, 0xcc, 512);
	store_le64(p + 512, ~7ull);
	assert_int_equal(RUN(f, 0x48, 0x0f, 0xae, 0x36), -1); /* xsaveopt64 (%rsi) */
	assert_int_equal(load_le64(p + 512), ~7ull);
	assert_int_equal(p[0], 0xcc);
	assert_int_equal(load_le32(p + 24), 0x1f80);
	store_le64(p + 512, 0);
	store_le64(p + 520, 0);
	fill_state(v);
	assert_int_equal(RUN(f, 0x48, 0x0f, 0xae, 0x2e), -1);
	assert_int_equal(cpu_xinuse(v), 0);
}

static void test_xrstor_refuses(void **state)
{
	struct fixture *f = *state;
	struct vcpu *v = f->v;
	uint8_t *p = mem_map(f->mem, gpa(DATA), 4096, true);
	static const struct {
		unsigned offset;
		uint64_t value;
	} bad[] = {
		{ 512, 8 },			       /* a component that XCR0 lacks */
		{ 520, 1 },			       /* XCOMP_BV without bit 63 */
		{ 528, 1 },			       /* reserved */
		{ 520, BIT(63) | 8 }, { 24, 0x10000 }, /* MXCSR */
	};

	fill_state(v);
	v->s.gpr[RSI] = DATA;
	set_mask(v, 7);
	for (unsigned k = 0; k < ARRAY_SIZE(bad); k++) {
		memset(p, 0, AREA);
		assert_int_equal(RUN(f, 0x48, 0x0f, 0xae, 0x26), -1);
		store_le64(p + bad[k].offset, bad[k].value);
		assert_int_equal(RUN(f, 0x48, 0x0f, 0xae, 0x2e), EXC_GP);
	}
	memset(p, 0, AREA);
	store_le64(p + 520, BIT(63) | 3);
	store_le64(p + 512, 4); /* compacted, but AVX not in XCOMP_BV */
	assert_int_equal(RUN(f, 0x48, 0x0f, 0xae, 0x2e), EXC_GP);
	v->s.gpr[RSI] = DATA + 32;
	assert_int_equal(RUN(f, 0x48, 0x0f, 0xae, 0x2e), EXC_GP);
	v->s.cr4 &= ~CR4_OSXSAVE;
	assert_int_equal(RUN(f, 0x48, 0x0f, 0xae, 0x2e), EXC_UD);
	v->s.cr4 |= CR4_OSXSAVE;
	v->s.cr0 |= CR0_TS;
	assert_int_equal(RUN(f, 0x48, 0x0f, 0xae, 0x2e), EXC_NM);
	v->s.cr0 &= ~CR0_TS;
}

static void test_mxcsr(void **state)
{
	struct fixture *f = *state;
	struct vcpu *v = f->v;
	uint8_t *p = mem_map(f->mem, gpa(DATA), 4096, true);

	v->s.gpr[RSI] = DATA;
	store_le32(p, 0x7f80);
	assert_int_equal(RUN(f, 0x0f, 0xae, 0x16), -1);		    /* ldmxcsr (%rsi) */
	assert_int_equal(RUN(f, 0xc5, 0xf8, 0xae, 0x5e, 0x04), -1); /* vstmxcsr 4(%rsi) */
	assert_int_equal(load_le32(p + 4), 0x7f80);
	store_le32(p, 0x17f80);
	assert_int_equal(RUN(f, 0x0f, 0xae, 0x16), EXC_GP);
	cpu_fpu_save(v);
	assert_int_equal(v->s.mxcsr, 0x7f80);
	v->s.mxcsr = 0x1f80;
}

/* 32-bit code: bits of VEX prefixes that 64-bit mode needs are ignored there. */
static void test_32_bit(void **state)
{
	struct fixture *f = *state;
	struct vcpu *v = f->v;

	v->s.seg_attr[CS] = ATTR_P | ATTR_S | ATTR_CODE | ATTR_WRITABLE | ATTR_DB | ATTR_G;
	cpu_update_mode(v);
	assert_int_equal(v->code_mode, MODE_32);
	v->s.vec[4] = 0x11;
	v->s.vec[8] = 0x22;
	v->s.vec[40] = 0x1000;
	/* vpaddd %xmm2, %xmm1, %xmm3 with vvvv saying register 9 */
	assert_int_equal(RUN(f, 0xc4, 0xe1, 0x31, 0xfe, 0xda), -1);
	assert_int_equal(v->s.vec[12], 0x33);
	v->s.gpr[RDX] = 0x123456789;
	assert_int_equal(RUN(f, 0xc4, 0xe1, 0xf9, 0x6e, 0xca), -1); /* vmovd %edx, %xmm1 with W */
	assert_int_equal(v->s.vec[4], 0x23456789);
	v->s.vec[28] = BIT(31); /* the mask is register 7, though imm8[7:4] says 15 */
	v->s.vec[8] = 0x2200000002;
	v->s.vec[4] = 0x1100000001;
	assert_int_equal(RUN(f, 0xc4, 0xe3, 0x71, 0x4a, 0xda, 0xf0), -1); /* vblendvps %xmm7, %xmm2, %xmm1, %xmm3 */
	assert_int_equal(v->s.vec[12], 0x1100000002);
	set_64_bit(v);
}

/* Real mode: environments hold linear addresses, VEX prefixes are undefined. */
static void test_real_mode(void **state)
{
	struct fixture *f = *state;
	struct vcpu *v = f->v;
	uint8_t *p = mem_map(f->mem, gpa(0x8000), 4096, true);

	v->s.cr0 = CR0_ET | CR0_NE;
	v->s.efer = 0;
	v->s.seg_sel[CS] = 0x1000;
	v->s.seg_base[CS] = 0x10000;
	v->s.seg_attr[CS] = ATTR_P | ATTR_S | ATTR_CODE | ATTR_WRITABLE;
	cpu_update_mode(v);
	cpu_tlb_flush(v);
	assert_int_equal(v->code_mode, MODE_16);
	v->s.gpr[RSI] = 0x8000;
	assert_int_equal(RUN(f, 0xdb, 0xe3), -1);
	assert_int_equal(RUN(f, 0xd9, 0xe8), -1); /* fld1 */
	assert_int_equal(RUN(f, 0xd9, 0x34), -1); /* fnstenv (%si), 14 bytes */
	assert_int_equal(load_le16(p + 6), 0x1234);
	assert_int_equal(load_le16(p + 8), 0x11e8);
	assert_int_equal(RUN(f, 0x66, 0xd9, 0x34), -1); /* 28 bytes */
	assert_int_equal(load_le32(p + 12), 0xffff1234);
	assert_int_equal(load_le32(p + 16), 0x11e8);
	assert_int_equal(RUN(f, 0x66, 0xd9, 0x24), -1); /* fldenv */
	assert_int_equal(v->s.fip, 0x11234);
	assert_int_equal(RUN(f, 0xd9, 0x5c, 0x40), -1); /* fstps 64(%si) */
	assert_int_equal(load_le32(p + 64), 0x3f800000);
	assert_int_equal(RUN(f, 0x0f, 0x58, 0xc1), -1);
	assert_int_equal(RUN(f, 0xc5, 0xf0, 0x58, 0xc8), EXC_UD);
}

/* When there is no room for more stubs that is said before one is made, and the reset's epoch tells who kept some. */
static void test_full(void **state)
{
	struct fixture *f = *state;
	unsigned prepared = 0;

	for (unsigned n = 0; n < 65536; n++) {
		/* pshufd $n, %xmm, %xmm */
		uint8_t bytes[] = { 0x66, 0x40 | (n >> 8 & 5), 0x0f, 0x70, 0xc0 | (n >> 10 & 0x3f), n & 255 };
		struct insn_host h;
		struct insn i;

		cpu_decode(&f->model, MODE_64, bytes, sizeof(bytes), 0, &i, &h);
		if (interp_host_has_room(f->v, 1)) {
			interp_host_prepare(f->v, &i, &h);
			prepared++;
			continue;
		}
		assert_int_equal(interp_host_epoch(f->v), 1);
		interp_host_reset(f->v);
		assert_int_equal(interp_host_epoch(f->v), 2);
		interp_host_prepare(f->v, &i, &h);
		f->v->s.vec[4] = 0x0000000500000003;
		f->v->s.vec[5] = 0;
		assert_int_equal(RUN(f, 0x66, 0x0f, 0x70, 0xd1, 0x01), -1); /* pshufd $1, %xmm1, %xmm2 */
		assert_int_equal(f->v->s.vec[8], 0x0000000300000005);
		assert_true(prepared > 1000);
		return;
	}
	fail_msg("%u stubs and no end", prepared);
}

/* A stub of an instruction that no processor knows, by whatever mistake of decoder or CPU model: the guest's #UD. */
static void test_unknown_to_the_host(void **state)
{
	struct fixture *f = *state;
	struct vcpu *v = f->v;
	struct insn i = { .op = OP_HOST, .flags = INSN_HOST, .len = 2, .bytes = { 0x0f, 0x0b } };
	struct insn_host h = { .vec_written = 2 };
	struct error err;

	interp_host_destroy(v); /* as above */
	assert_int_equal(interp_host_init(v, &err), 0);
	interp_host_enter(v);
	v->current = &i;
	v->s.vec[4] = 77;
	interp_host_prepare(v, &i, &h);
	for (unsigned n = 0; n < 2; n++) {
		if (!setjmp(v->fault_jmp)) {
			interp_host_run(v, &i);
			fail_msg("it was executed");
		}
		assert_int_equal(v->fault.vector, EXC_UD);
		assert_int_equal(v->s.vec[4], 77);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_native, setup, teardown),
		cmocka_unit_test_setup_teardown(test_encodings, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gather, setup, teardown),
		cmocka_unit_test_setup_teardown(test_memory_faults, setup, teardown),
		cmocka_unit_test_setup_teardown(test_availability, setup, teardown),
		cmocka_unit_test_setup_teardown(test_simd_exception, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unknown_to_the_host, setup, teardown),
		cmocka_unit_test_setup_teardown(test_x87_exception, setup, teardown),
		cmocka_unit_test_setup_teardown(test_environment, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fxsave, setup, teardown),
		cmocka_unit_test_setup_teardown(test_xsave, setup, teardown),
		cmocka_unit_test_setup_teardown(test_xrstor_refuses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mxcsr, setup, teardown),
		cmocka_unit_test_setup_teardown(test_32_bit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_real_mode, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
