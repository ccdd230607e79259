/*
 * native: one instruction (and the halt that follows) on the host's processor with a complete user-mode state.
 *
 * A signal frame is written by hand and handed to rt_sigreturn: the kernel loads every register from it, the stack pointer,
 * flags and XSAVE area too, and continues at the instruction. What ends it is an exception, which the kernel makes a
 * signal, on a stack of its own, with the whole state in a frame again. The handler gives that frame back to native_run()
 * by switching stacks. FS and GS bases, which frames do not have, are set by the code around it (FSGSBASE).
 */
#define _GNU_SOURCE /* REG_RIP */
#include "oracle.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define SIGNAL_STACK	     (256u << 10)
#define HWCAP2_USER_FSGSBASE BIT(1)

/* Linux's struct _fpx_sw_bytes, in the XSAVE area's legacy region at 464 */
#define XSAVE_SOFTWARE 464
#define XSAVE_MAGIC1   0x46505853u
#define XSAVE_MAGIC2   0x46505845u
#define XSAVE_HEADER   512
#define XSAVE_AREA_MAX 16384u
#define CPUID_XSTATE   0xd

/* What code without a stack or thread of its own needs at hand: offsets are in the assembly below. */
struct native_entry {
	uint64_t active;	 /* 0: the signal belongs to somebody else */
	uint64_t rsp;		 /* 8: native_run's */
	uint64_t fs_base;	 /* 16: this thread's */
	uint64_t bases;		 /* 24: FSGSBASE is there */
	uint64_t in_fs, in_gs;	 /* 32, 40: bases for the instruction */
	uint64_t out_fs, out_gs; /* 48, 56: and after it */
	uint16_t out_sel[4];	 /* 64: DS, ES, FS, GS */
	uint16_t in_sel[4];	 /* 72 */
	uint64_t gs_base;	 /* 80: this thread's, an engine's */
};

struct native_entry native_entry;
ucontext_t *native_enter(ucontext_t *frame);
void native_on_signal(int, siginfo_t *, void *);
void native_not_ours(int, siginfo_t *, void *);

__asm__(".pushsection .text\n"
	".globl native_enter\n"
	"native_enter:\n\t"
	"push %rbx\n\tpush %rbp\n\tpush %r12\n\tpush %r13\n\tpush %r14\n\tpush %r15\n\t"
	"lea native_entry(%rip), %rbx\n\t"
	"mov %rsp, 8(%rbx)\n\t"
	"mov %rdi, %r12\n\t"
	"cmpl $0, 24(%rbx)\n\t"
	"je 1f\n\t"
	"rdfsbase %rax\n\tmov %rax, 16(%rbx)\n\t"
	"rdgsbase %rax\n\tmov %rax, 80(%rbx)\n\t"
	"mov 76(%rbx), %fs\n\tmov 78(%rbx), %gs\n\t"
	"mov 32(%rbx), %rax\n\twrfsbase %rax\n\t"
	"mov 40(%rbx), %rax\n\twrgsbase %rax\n\t"
	"jmp 2f\n"
	"1:\tmov $0x1003, %edi\n\tlea 16(%rbx), %rsi\n\tmov $158, %eax\n\tsyscall\n\t" /* arch_prctl(ARCH_GET_FS) */
	"mov $0x1004, %edi\n\tlea 80(%rbx), %rsi\n\tmov $158, %eax\n\tsyscall\n\t"     /* ARCH_GET_GS */
	"mov 76(%rbx), %fs\n\tmov 78(%rbx), %gs\n"
	"2:\tmov 72(%rbx), %ds\n\tmov 74(%rbx), %es\n\t"
	"movl $1, (%rbx)\n\t"
	"mov %r12, %rsp\n\t"
	"mov $15, %eax\n\t" /* rt_sigreturn */
	"syscall\n\t"
	"ud2\n"

	".globl native_on_signal\n"
	"native_on_signal:\n\t"
	"lea native_entry(%rip), %rbx\n\t"
	"cmpl $0, (%rbx)\n\t"
	"je native_not_ours\n\t"
	"movl $0, (%rbx)\n\t"
	"mov %ds, 64(%rbx)\n\tmov %es, 66(%rbx)\n\tmov %fs, 68(%rbx)\n\tmov %gs, 70(%rbx)\n\t"
	"cmpl $0, 24(%rbx)\n\t"
	"je 1f\n\t"
	"rdfsbase %rax\n\tmov %rax, 48(%rbx)\n\t"
	"rdgsbase %rax\n\tmov %rax, 56(%rbx)\n\t"
	"xor %eax, %eax\n\t"
	"mov %eax, %fs\n\tmov %eax, %gs\n\t"
	"mov 16(%rbx), %rax\n\twrfsbase %rax\n\t"
	"mov 80(%rbx), %rax\n\twrgsbase %rax\n\t"
	"jmp 2f\n"
	/* These set the selectors to 0, too. ARCH_SET_FS, ARCH_SET_GS */
	"1:\tmov %rdx, %r12\n\t"
	"mov $0x1002, %edi\n\tmov 16(%rbx), %rsi\n\tmov $158, %eax\n\tsyscall\n\t"
	"mov $0x1001, %edi\n\tmov 80(%rbx), %rsi\n\tmov $158, %eax\n\tsyscall\n\t"
	"mov %r12, %rdx\n"
	"2:\txor %eax, %eax\n\t"
	"mov %eax, %ds\n\tmov %eax, %es\n\t"
	"push $2\n\tpopf\n\t" /* no AC, NT, ID left over */
	"mov 8(%rbx), %rsp\n\t"
	"mov %rdx, %rax\n\t"
	"pop %r15\n\tpop %r14\n\tpop %r13\n\tpop %r12\n\tpop %rbp\n\tpop %rbx\n\t"
	"ret\n"
	".popsection");

static const int signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP };

/* Whose handlers ours replaced: a handler learns it from nowhere else. */
static struct sigaction replaced[NSIG];

void native_not_ours(int sig, siginfo_t *info, void *context)
{
	const struct sigaction *old = &replaced[sig];

	if (old->sa_handler == SIG_DFL || old->sa_handler == SIG_IGN)
		signal(sig, SIG_DFL); /* it happens again, and ends the process as it would have */
	else
		old->sa_sigaction(sig, info, context);
}

struct native {
	struct areas areas;
	ucontext_t frame; /* as the kernel filled it for a signal once: what we do not set */
	uint8_t area[XSAVE_AREA_MAX] __attribute__((aligned(64)));
	uint64_t components; /* of area */
	unsigned avx_offset; /* 0: no AVX state */
	uint16_t cs, ss;
};

/* ---- setting up ---- */

/* Where the next signal leaves its frame, and its XSAVE area. */
static struct native *template_owner;

static void on_template(int sig, siginfo_t *info, void *context)
{
	const ucontext_t *u = context;
	const uint8_t *area = (const uint8_t *)u->uc_mcontext.fpregs;
	uint32_t size = load_le32(area + XSAVE_SOFTWARE + 4);

	(void)sig, (void)info;
	template_owner->frame = *u;
	if (load_le32(area + XSAVE_SOFTWARE) == XSAVE_MAGIC1 && size <= XSAVE_AREA_MAX) {
		memcpy(template_owner->area, area, size);
		template_owner->components = load_le64(area + XSAVE_SOFTWARE + 8);
	}
}

static int take_template(struct native *n, struct error *err)
{
	struct sigaction action = { .sa_sigaction = on_template, .sa_flags = SA_SIGINFO | SA_ONSTACK }, old;
	uint32_t size, offset, c, d;

	template_owner = n;
	sigaction(SIGUSR1, &action, &old);
	raise(SIGUSR1);
	sigaction(SIGUSR1, &old, NULL);
	if (!n->components)
		return error_set(err, ENOTSUP, "signal frames of this kernel have no XSAVE area (of at most %u bytes)",
				 XSAVE_AREA_MAX);
	if (n->components & XCR0_AVX) {
		__asm__("cpuid" : "=a"(size), "=b"(offset), "=c"(c), "=d"(d) : "a"(CPUID_XSTATE), "c"(2));
		n->avx_offset = offset;
	}
	n->cs = (uint16_t)n->frame.uc_mcontext.gregs[REG_CSGSFS];
	n->ss = (uint16_t)(n->frame.uc_mcontext.gregs[REG_CSGSFS] >> 48);
	return 0;
}

static int install_handlers(struct error *err)
{
	struct sigaction action = { .sa_sigaction = native_on_signal,
				    .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
	stack_t stack = { .ss_size = SIGNAL_STACK };

	stack.ss_sp = mmap(NULL, SIGNAL_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (stack.ss_sp == MAP_FAILED || sigaltstack(&stack, NULL))
		return error_set_errno(err, errno, "set up a stack for signals");
	sigemptyset(&action.sa_mask);
	for (unsigned n = 0; n < ARRAY_SIZE(signals); n++)
		sigaction(signals[n], &action, &replaced[signals[n]]);
	return 0;
}

static void *map_at(uint64_t at, size_t size, int protection, int fd, off_t offset)
{
	return mmap((void *)at, size, protection, MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd, offset);
}

/* The areas' pages are one file, mapped twice: as the instruction sees them, and writable for us. */
static int map_areas(struct native *n, struct error *err)
{
	const size_t size = CODE_SIZE + DATA_SIZE + STACK_SIZE;
	int fd = memfd_create("oracle", MFD_CLOEXEC);
	uint8_t *ours;

	if (fd < 0 || ftruncate(fd, size))
		return error_set_errno(err, errno, "make a memory file of %zu bytes", size);
	ours = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (ours == MAP_FAILED || map_at(CODE, CODE_SIZE, PROT_READ | PROT_EXEC, fd, 0) == MAP_FAILED ||
	    map_at(DATA, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE, fd, CODE_SIZE) == MAP_FAILED ||
	    map_at(READ_ONLY, PAGE_SIZE, PROT_READ, fd, CODE_SIZE + 2 * PAGE_SIZE) == MAP_FAILED ||
	    map_at(STACK, STACK_SIZE, PROT_READ | PROT_WRITE, fd, CODE_SIZE + DATA_SIZE) == MAP_FAILED)
		return error_set_errno(err, errno, "map pages at %#llx, %#llx and %#llx", CODE, DATA, STACK);
	close(fd);
	n->areas = (struct areas){ ours, ours + CODE_SIZE, ours + CODE_SIZE + DATA_SIZE };
	return 0;
}

struct native *native_create(struct error *err)
{
	struct native *n = aligned_alloc(64, align_up(sizeof(*n), 64));

	if (!n) {
		error_set(err, ENOMEM, "no memory for the native side");
		return NULL;
	}
	memset(n, 0, sizeof(*n));
	native_entry.bases = !!(getauxval(AT_HWCAP2) & HWCAP2_USER_FSGSBASE);
	/* The handlers' stack first: frames say which one there is. */
	if (install_handlers(err) || take_template(n, err) || map_areas(n, err)) {
		free(n);
		return NULL;
	}
	return n;
}

const struct areas *native_areas(struct native *n) { return &n->areas; }

void native_start_state(struct native *n, enum code_mode mode, struct user_state *s)
{
	memset(s, 0, sizeof(*s));
	s->sel[CS] = mode == MODE_64 ? n->cs : mode == MODE_32 ? SEL_CODE_32 : SEL_CODE_16;
	s->sel[SS] = n->ss;
	if (mode != MODE_64)
		s->sel[DS] = s->sel[ES] = s->sel[FS] = s->sel[GS] = n->ss;
	s->rflags = FLAG_IF | BIT(1);
}

/* ---- state <-> signal frame ---- */

/* enum gpr -> index into gregs */
static const uint8_t greg_of[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
				     REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };

/* Offsets in the legacy region: SDM vol. 1 table 10-2 */
enum { X_FCW = 0, X_FSW = 2, X_TAGS = 4, X_FOP = 6, X_FIP = 8, X_FDP = 16, X_MXCSR = 24, X_ST = 32, X_XMM = 160 };

static void put_area(const struct native *n, uint8_t *area, const struct user_state *s)
{
	store_le16(area + X_FCW, s->fcw);
	store_le16(area + X_FSW, s->fsw);
	area[X_TAGS] = s->tags;
	store_le16(area + X_FOP, s->fop);
	store_le64(area + X_FIP, s->fip);
	store_le64(area + X_FDP, s->fdp);
	store_le32(area + X_MXCSR, s->mxcsr);
	for (unsigned k = 0; k < 8; k++) {
		store_le64(area + X_ST + 16 * k, s->st_mantissa[k]);
		store_le16(area + X_ST + 16 * k + 8, s->st_exponent[k]);
	}
	for (unsigned k = 0; k < 16; k++) {
		memcpy(area + X_XMM + 16 * k, s->vec[k], 16);
		if (n->avx_offset)
			memcpy(area + n->avx_offset + 16 * k, &s->vec[k][2], 16);
	}
	store_le64(area + XSAVE_HEADER, load_le64(area + XSAVE_HEADER) | (n->components & 7));
}

static void get_area(const struct native *n, const uint8_t *area, struct user_state *s)
{
	uint64_t used = load_le64(area + XSAVE_HEADER);

	s->fcw = 0x37f;
	if (used & XCR0_X87) {
		s->fcw = load_le16(area + X_FCW);
		s->fsw = load_le16(area + X_FSW);
		s->tags = area[X_TAGS];
		s->fop = load_le16(area + X_FOP);
		s->fip = load_le64(area + X_FIP);
		s->fdp = load_le64(area + X_FDP);
		for (unsigned k = 0; k < 8; k++) {
			s->st_mantissa[k] = load_le64(area + X_ST + 16 * k);
			s->st_exponent[k] = load_le16(area + X_ST + 16 * k + 8);
		}
	}
	s->mxcsr = load_le32(area + X_MXCSR);
	for (unsigned k = 0; k < 16; k++) {
		if (used & XCR0_SSE)
			memcpy(s->vec[k], area + X_XMM + 16 * k, 16);
		if ((used & XCR0_AVX) && n->avx_offset)
			memcpy(&s->vec[k][2], area + n->avx_offset + 16 * k, 16);
	}
}

/* In the order of native_entry. */
static const uint8_t data_segments[4] = { DS, ES, FS, GS };

static void get_outcome(const struct native *n, const ucontext_t *u, struct outcome *o)
{
	const greg_t *g = u->uc_mcontext.gregs;
	struct user_state *s = &o->s;

	memset(o, 0, sizeof(*o));
	for (unsigned k = 0; k < 16; k++)
		s->gpr[k] = (uint64_t)g[greg_of[k]];
	s->rip = (uint64_t)g[REG_RIP];
	s->rflags = (uint64_t)g[REG_EFL];
	s->fs_base = native_entry.out_fs;
	s->gs_base = native_entry.out_gs;
	s->sel[CS] = (uint16_t)g[REG_CSGSFS];
	s->sel[SS] = (uint16_t)(g[REG_CSGSFS] >> 48);
	for (unsigned k = 0; k < ARRAY_SIZE(data_segments); k++)
		s->sel[data_segments[k]] = native_entry.out_sel[k];
	get_area(n, (const uint8_t *)u->uc_mcontext.fpregs, s);
	o->vector = (int)g[REG_TRAPNO];
	o->error = (uint32_t)g[REG_ERR];
	o->cr2 = o->vector == EXC_PF ? (uint64_t)g[REG_CR2] : 0;
}

void native_run(struct native *n, const struct user_state *s, struct outcome *o)
{
	ucontext_t frame = n->frame;
	greg_t *g = frame.uc_mcontext.gregs;
	sigset_t kicks, before;

	for (unsigned k = 0; k < 16; k++)
		g[greg_of[k]] = (greg_t)s->gpr[k];
	g[REG_RIP] = (greg_t)s->rip;
	g[REG_EFL] = (greg_t)s->rflags;
	g[REG_CSGSFS] = (greg_t)((uint64_t)s->sel[SS] << 48 | s->sel[CS]);
	put_area(n, n->area, s);
	frame.uc_mcontext.fpregs = (fpregset_t)n->area;
	native_entry.in_fs = s->fs_base;
	native_entry.in_gs = s->gs_base;
	for (unsigned k = 0; k < ARRAY_SIZE(data_segments); k++)
		native_entry.in_sel[k] = s->sel[data_segments[k]];
	/* An engine's timer must not find this thread with another FS base; native_on_signal() goes on with the frame's mask. */
	sigemptyset(&kicks);
	sigaddset(&kicks, SIGRTMIN);
	sigaddset(&frame.uc_sigmask, SIGRTMIN);
	pthread_sigmask(SIG_BLOCK, &kicks, &before);
	get_outcome(n, native_enter(&frame), o);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	outcome_settle(o, &n->areas, s->rip);
}

static uint64_t read_xcr0(void)
{
	uint32_t low, high;

	__asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (uint64_t)high << 32 | low;
}

/* 64-bit code, with RDI at this offset of the data, these flags besides, and this stack pointer. */
static struct outcome probe_stack(struct native *n, const uint8_t *code, size_t size, unsigned at, uint64_t flags,
				  uint64_t rsp)
{
	struct user_state s;
	struct outcome o;

	native_start_state(n, MODE_64, &s);
	s.rip = CODE;
	s.rflags |= flags;
	s.gpr[RDI] = DATA + at;
	s.gpr[RSP] = rsp;
	s.fcw = 0x37f;
	s.mxcsr = 0x1f80;
	memcpy(n->areas.code, code, size);
	native_run(n, &s, &o);
	return o;
}

static struct outcome probe(struct native *n, const uint8_t *code, size_t size, unsigned at, uint64_t flags)
{
	return probe_stack(n, code, size, at, flags, STACK + STACK_SIZE);
}

struct host_traits native_traits(struct native *n)
{
	static const uint8_t x87[] = { 0xd9, 0x07, 0xd9, 0x77, 0x40, FILLER }; /* FLD m32, FNSTENV */
	static const uint8_t movups[] = { 0x0f, 0x10, 0x07, FILLER }, push_fs[] = { 0x0f, 0xa0, FILLER },
			     nop[] = { 0x90, FILLER };
	const uint8_t *environment = n->areas.data + 0x40;
	uint8_t *pushed = n->areas.stack + STACK_SIZE - 8;
	bool aligns_vectors = probe(n, movups, sizeof(movups), 8, FLAG_AC).vector == EXC_AC;
	struct outcome o = probe(n, x87, sizeof(x87), 0, 0);

	memset(pushed, 0xff, 8);
	probe(n, push_fs, sizeof(push_fs), 0, 0);
	return (struct host_traits){ .bases = native_entry.bases,
				     .ldt = segments_of_mode(MODE_16),
				     .fip = o.s.fip == CODE,
				     .fdp = o.s.fdp == DATA,
				     .fop = o.s.fop == 0x107,
				     .sees_selectors = load_le16(environment + 16) == n->cs,
				     .sees_fop = load_le16(environment + 18) == 0x107,
				     .sees_fdp = load_le32(environment + 20) == DATA,
				     .pvm = probe_stack(n, nop, sizeof(nop), 0, 0, BIT(63)).s.rip == CODE,
				     .aligns_vectors = aligns_vectors,
				     .pushes_zeros = !pushed[7],
				     .mxcsr_mask = load_le32(n->area + X_MXCSR + 4),
				     .xcr0 = read_xcr0() };
}
