/*
 * Signals while translated code runs: faults of its memory accesses and arithmetic, and kicks from other threads. Handlers run
 * on a stack of their own, because RSP is the guest's. Outside translated code a fault is the monitor's own and goes to
 * whoever handled it before.
 */
#define _GNU_SOURCE /* names of registers in a signal frame */
#include "engine/bt/emit.h"
#include "engine/bt/runtime.h"

#include <asm/hwcap2.h>
#include <asm/prctl.h>
#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* Of the kind that is pending once at most and always accepted: a guest cannot use up how many its user may have queued. */
#define KICK_SIGNAL SIGURG
#define TICK_SIGNAL SIGRTMIN /* a timer's, which has room for the one that is pending from its start */
#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif
#define SIGNAL_STACK_SIZE (64u << 10)

#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
/* At a thread's end the sanitizer wants to find the signal stack that it put there. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "use_sigaltstack=0"; }
#endif

static _Thread_local struct vcpu *thread_vcpu; /* whose translated code this thread runs */

/* What a fault of translated code is told by, and who handled them before: process-wide by nature. */
static const int fault_signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL };
static struct sigaction previous[ARRAY_SIZE(fault_signals)];

static unsigned insn_at(const struct bt_block *b, uint64_t offset)
{
	unsigned n = 0;

	while (n + 1 < b->count && b->insns[n + 1].host <= offset)
		n++;
	return n;
}

static void pass_on(int signal, siginfo_t *info, void *context)
{
	const struct sigaction *p = previous;

	while (fault_signals[p - previous] != signal)
		p++;
	host_signal_pass_on(p, signal, info, context);
}

/* Of translated code: neither sent by somebody nor what the host has no memory for. SI_KERNEL: addresses that are not canonical. */
static bool is_its_own(int signal, const siginfo_t *info)
{
	return info->si_code > 0 && (signal != SIGBUS || info->si_code == SI_KERNEL || info->si_code == BUS_ADRALN);
}

static greg_t with_low_word(uint64_t reg, greg_t word) { return (greg_t)((reg & ~0xffffull) | (uint16_t)word); }

/* In the middle of a string instruction the pointers are the host's: make them the guest's. */
static bool give_back_pointers(greg_t *regs, const struct vcpu *v, const struct bt_block *b, unsigned n,
			       uint64_t offset)
{
	const struct bt_insn *insn = &b->insns[n];
	unsigned pointers = bt_string_pointers(insn);
	const uint64_t *saved = bt_frame(v)->string_saved;

	if (!pointers || offset != (uint64_t)insn->host + bt_string_at(insn))
		return false;
	if (pointers & BT_STRING_SOURCE)
		regs[REG_RSI] -= regs[REG_R10];
	if (pointers & BT_STRING_DESTINATION)
		regs[REG_RDI] -= regs[REG_R11];
	if (pointers & BT_STRING_16) {
		if (pointers & BT_STRING_SOURCE)
			regs[REG_RSI] = with_low_word(saved[0], regs[REG_RSI]);
		if (pointers & BT_STRING_DESTINATION)
			regs[REG_RDI] = with_low_word(saved[1], regs[REG_RDI]);
		regs[REG_RCX] = with_low_word((uint64_t)regs[REG_R12], regs[REG_RCX]);
	} else if (bt_is_code32(b->key)) {
		regs[REG_RSI] = (uint32_t)regs[REG_RSI];
		regs[REG_RDI] = (uint32_t)regs[REG_RDI];
	}
	return true;
}

/*
 * Some kernels (PVM's) return to user mode only with a canonical RSP, and it is the guest's: after any interrupt of translated code, or
 * of the glue about it, #GP is reported where it was to go on, or #UD by an emulator that was to help. What the
 * instruction there raises itself comes again and again.
 */
#define REFUSALS 3

bool bt_return_was_refused(greg_t regs[], struct vcpu *v)
{
	struct bt_cpu *bt = bt_of(v);

	static_assert(sizeof(bt->refusal.regs) == NGREG * sizeof(greg_t), "all registers of a frame");
	if ((regs[REG_TRAPNO] != EXC_GP && regs[REG_TRAPNO] != EXC_UD) || is_canonical((uint64_t)regs[REG_RSP]))
		return false;
	if (memcmp(bt->refusal.regs, regs, sizeof(bt->refusal.regs))) {
		memcpy(bt->refusal.regs, regs, sizeof(bt->refusal.regs));
		bt->refusal.count = 0;
	}
	if (++bt->refusal.count == REFUSALS) {
		bt->refusal.count = 0;
		return false;
	}
	if ((uint64_t)regs[REG_RIP] - (uint64_t)(uintptr_t)bt_return >= (uint64_t)(bt_return_end - (char *)bt_return)) {
		bt_frame(v)->return_rip = (uint64_t)regs[REG_RIP];
		bt_frame(v)->return_rsp = (uint64_t)regs[REG_RSP];
	}
	regs[REG_RIP] = (greg_t)(uintptr_t)bt_return;
	regs[REG_RSP] = (greg_t)bt_frame(v)->host_rsp;
	return true;
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	struct vcpu *v = thread_vcpu;
	struct bt_block *b = v ? bt_block_at(bt_of(v), (uint64_t)regs[REG_RIP]) : NULL;
	bool page_fault = signal == SIGSEGV && regs[REG_TRAPNO] == EXC_PF, write = page_fault && (regs[REG_ERR] & PF_W);
	int saved_errno = errno;
	unsigned n;

	if (v && is_its_own(signal, info) && bt_return_was_refused(regs, v))
		return;
	if (!b || !is_its_own(signal, info)) {
		pass_on(signal, info, context);
		return;
	}
	bt_of(v)->refusal.count = 0; /* the guest may come here again and again with the same registers */
	bt_of(v)->stats.faults++;
	bt_of(v)->fault_at = page_fault ? (uint64_t)(uintptr_t)info->si_addr : 0;
	if (page_fault &&
	    bt_windows_fault(bt_of(v)->windows, v, (uint64_t)(uintptr_t)info->si_addr, write) == WINDOW_FILLED) {
		bt_of(v)->stats.causes[BT_FAULT_FILLED]++;
		errno = saved_errno;
		return;
	}
	/* Leave translated code with the guest's registers as they are before this instruction. */
	n = insn_at(b, (uint64_t)regs[REG_RIP] - bt_exec(bt_of(v), b));
	give_back_pointers(regs, v, b, n, (uint64_t)regs[REG_RIP] - bt_exec(bt_of(v), b));
	regs[REG_R11] = BT_EXIT_ARG(b->index, n,
				    signal == SIGILL && info->si_code > 0 ? BT_EXIT_ILLEGAL
				    : write				  ? BT_EXIT_FAULT_WRITE
									  : BT_EXIT_FAULT);
	regs[REG_RIP] = (greg_t)(uintptr_t)bt_frame(v)->exit_glue;
	errno = saved_errno;
}

/* In the middle of a look-up, maybe with what it found in hand: it must not be found. */
static void look_up_again(greg_t *regs, const struct bt_block *b, uint64_t code)
{
	uint64_t at = (uint64_t)regs[REG_RIP] - code;

	for (unsigned n = 0; n < ARRAY_SIZE(b->lookups); n++)
		if (at >= b->lookups[n].restart && at < b->lookups[n].end)
			regs[REG_RIP] = (greg_t)code + b->lookups[n].restart;
}

/* A repetition may take long: leave it where it is. */
static void leave_string(greg_t *regs, struct vcpu *v, const struct bt_block *b)
{
	uint64_t offset = (uint64_t)regs[REG_RIP] - bt_exec(bt_of(v), b);
	unsigned n = insn_at(b, offset);

	if (!give_back_pointers(regs, v, b, n, offset))
		return;
	regs[REG_R11] = BT_EXIT_ARG(b->index, n, BT_EXIT_STRING);
	regs[REG_RIP] = (greg_t)(uintptr_t)bt_frame(v)->exit_glue;
}

/*
 * Make translated code come back to C soon: nothing is found in jump tables any more, and the direct exits of the block that
 * runs, or is about to, lead to stubs.
 */
static void come_back(struct vcpu *v)
{
	struct bt_block *b = bt_of(v)->entering;

	bt_of(v)->kicked = 1;
	bt_frame(v)->jump = bt_jump_pointer(bt_of(v)->nothing);
	if (b)
		bt_unlink_exits(v, b);
}

static void on_kick(int signal, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	struct vcpu *v = thread_vcpu;
	struct bt_block *b;
	uint64_t rip = (uint64_t)regs[REG_RIP];

	(void)info;
	if (!v)
		return;
	if (signal == TICK_SIGNAL) {
		if (!(bt_of(v)->uses[bt_of(v)->jump].key & BT_KEY_USER))
			return;
		bt_of(v)->ticked = 1;
	}
	come_back(v);
	if ((b = bt_block_at(bt_of(v), rip))) {
		bt_unlink_exits(v, b);
		look_up_again(regs, b, bt_exec(bt_of(v), b));
		leave_string(regs, v, b);
	}
}

static int install(int signal, void (*handler)(int, siginfo_t *, void *), struct sigaction *old, struct error *err)
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART };

	/* They must not come between the parts of another handler's work. */
	sigaddset(&action.sa_mask, KICK_SIGNAL);
	sigaddset(&action.sa_mask, TICK_SIGNAL);
	return sigaction(signal, &action, old) ? error_set_errno(err, errno, "signal handler") : 0;
}

/* Again for each vCPU: the interpreter, made before it, has put its own handlers of SIGFPE and SIGILL in front. */
int bt_signals_install(struct error *err)
{
	int ret;

	for (unsigned n = 0; n < ARRAY_SIZE(fault_signals); n++) {
		struct sigaction now;

		if (sigaction(fault_signals[n], NULL, &now))
			return error_set_errno(err, errno, "signal handler");
		if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_fault)
			continue;
		if ((ret = install(fault_signals[n], on_fault, &previous[n], err)))
			return ret;
	}
	ret = install(KICK_SIGNAL, on_kick, NULL, err);
	return ret ? ret : install(TICK_SIGNAL, on_kick, NULL, err);
}

void bt_set_gs_base(struct vcpu *v, uint64_t base)
{
	BUG_ON(syscall(SYS_arch_prctl, ARCH_SET_GS, base));
	bt_of(v)->gs_base = base;
}

/* Ticks of this thread's CPU time, by which address spaces grow up. Where Linux grants no timer none is young. */
static void start_timer(struct bt_cpu *bt)
{
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = TICK_SIGNAL };
	const struct itimerspec period = { { 0, BT_TICK_NS }, { 0, BT_TICK_NS } };

	event._sigev_un._tid = bt->thread_id;
	if (bt->timed)
		timer_delete(bt->timer);
	bt->timed = !timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &bt->timer) &&
		    !timer_settime(bt->timer, 0, &period, NULL);
}

/*
 * Armed at every signal: otherwise the host takes a guest's RSP that points into the signal stack for a handler's, and puts the frame
 * where the guest says, e.g. at its very end.
 */
static int use_signal_stack(void *stack, stack_t *old)
{
	return sigaltstack(&(stack_t){ .ss_sp = stack, .ss_size = SIGNAL_STACK_SIZE, .ss_flags = (int)SS_AUTODISARM },
			   old);
}

int bt_signals_probe(struct error *err)
{
	void *stack = malloc(SIGNAL_STACK_SIZE);
	int ret = 0;
	stack_t old;

	if (!stack)
		return error_set(err, ENOMEM, "no memory for a stack for signals");
	if (use_signal_stack(stack, &old))
		ret = error_set_errno(
			err, errno, "signal stacks that a guest's RSP cannot be taken for (SS_AUTODISARM, Linux 4.7)");
	else
		sigaltstack(&old, NULL);
	free(stack);
	return ret;
}

void bt_signals_enter(struct vcpu *v)
{
	struct bt_cpu *bt = bt_of(v);
	sigset_t set;

	thread_vcpu = v;
	if (bt->thread_known && pthread_equal(bt->thread, pthread_self())) {
		atomic_exchange(&bt->kick, BT_RUNS);
		return;
	}
	BUG_ON(use_signal_stack(bt->signal_stack, NULL));
	bt->has_wrgsbase = getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE;
	bt_set_gs_base(v, (uint64_t)(uintptr_t)v);
	sigemptyset(&set);
	sigaddset(&set, KICK_SIGNAL);
	sigaddset(&set, TICK_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	bt->process = getpid();
	bt->thread_id = (pid_t)syscall(SYS_gettid);
	bt->thread = pthread_self();
	start_timer(bt);
	bt->thread_known = true;
	atomic_exchange(&bt->kick, BT_RUNS);
}

int bt_signals_create(struct vcpu *v, struct error *err)
{
	size_t size = SIGNAL_STACK_SIZE + 2 * PAGE_SIZE; /* with guards */
	uint8_t *at = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED || mprotect(at + PAGE_SIZE, SIGNAL_STACK_SIZE, PROT_READ | PROT_WRITE))
		return error_set_errno(err, errno, "no memory for a stack for signals");
	bt_of(v)->signal_stack = at + PAGE_SIZE;
	return 0;
}

/* No signal comes any more that needs what is freed now. */
void bt_signals_destroy(struct vcpu *v)
{
	struct bt_cpu *bt = bt_of(v);

	if (bt->thread_known) {
		if (bt->timed)
			timer_delete(bt->timer);
		if (pthread_equal(bt->thread, pthread_self()))
			sigaltstack(&(stack_t){ .ss_flags = SS_DISABLE }, NULL);
	}
	if (bt->signal_stack)
		munmap(bt->signal_stack - PAGE_SIZE, SIGNAL_STACK_SIZE + 2 * PAGE_SIZE);
}

void bt_signals_leave(struct vcpu *v)
{
	atomic_store(&bt_of(v)->kick, 0);
	thread_vcpu = NULL;
}

void bt_signals_kick(struct vcpu *v)
{
	struct bt_cpu *bt = bt_of(v);

	if (atomic_fetch_or(&bt->kick, BT_KICKED) != BT_RUNS)
		return;
	debug_yield();
	/* From what the vCPU itself does, an interrupt of a device that it told to begin: a signal would come here. */
	if (thread_vcpu == v) {
		come_back(v);
		return;
	}
	while (syscall(SYS_tgkill, bt->process, bt->thread_id, KICK_SIGNAL) && errno == EAGAIN)
		sched_yield();
}
