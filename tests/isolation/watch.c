/*
 * Signals of translated code, seen before the translator sees them. Every fault must be an access that the emitted sequences may make:
 * inside the windows that the current slot table names, their guards, or the surroundings of slot tables. On request the processor's
 * trap flag is set while translated code runs, and each of its instructions is held against the same rule before it executes, so that
 * an access that goes wrong without a fault is found as well.
 */
#define _GNU_SOURCE /* names of registers in a signal frame */
#include "engine/bt/runtime.h"
#include "engine/bt/window_private.h"
#include "isolation.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/time.h>
#include <ucontext.h>
#include <x86intrin.h>
#include <Zydis/Zydis.h>

#define HOST_TF		  0x100u
#define STACK_REACH	  (1u << 20) /* of the C code that runs vCPUs: below and above where it was when watching began */
#define ALARMS_UNTIL_HUNG 20

extern const char __executable_start[], etext[];

static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGTRAP, SIGALRM };

static struct {
	struct vcpu *v;
	struct bt_cpu *bt;
	struct bt_windows *windows;
	const struct bt_glue *glues[2];
	bool can_step;
	struct bt_glue stepped[2];
	uint64_t stack;
	ZydisDecoder decoder;
	struct sigaction replaced[NSIG];
	struct itimerval timer; /* somebody else's */
	volatile unsigned alarms;
	bool ends;
	struct watch_counts counts;
} watch;

struct range {
	uint64_t at, size;
};

static bool within(uint64_t at, uint64_t size, uint64_t start, uint64_t length)
{
	return at - start <= length && size <= length - (at - start);
}

/* ---- which accesses translated code may make ---- */

static bool in_window(uint64_t at, uint64_t size, uint64_t base)
{
	return within(at, size, base - WINDOW_GUARD, WINDOW_SIZE + 2 * WINDOW_GUARD);
}

/*
 * The window that R11 or R10 leads to: false if no slot of the current table has this entry. Entries of several slots may be the same
 * number, by where their windows happen to lie: the one with the access is meant.
 */
static bool window_of_entry(uint64_t r11, uint64_t at, uint64_t *base)
{
	const int64_t *entry = (const int64_t *)(uintptr_t)(bt_vcpu(watch.v)->slot_r15 - SLOT_SHIFT);
	bool found = false;

	for (int slot = -256; slot < 256; slot++) {
		if ((uint64_t)entry[slot] != r11 || (found && in_window(at, 1, *base)))
			continue;
		*base = r11 + ((uint64_t)(int64_t)slot << SLOT_SHIFT);
		found = true;
	}
	return found;
}

/* By the software TLB: inside of one page. */
static bool in_ram_page(uint64_t at, uint64_t size)
{
	const struct guest_mem *mem = watch.v->mem;

	return within(at, size, (uint64_t)(uintptr_t)mem->ram.file.base, mem->ram.file.size) &&
	       !((at ^ (at + size - 1)) & PAGE_MASK);
}

/* What is not guest memory: the vCPU's state, what limits are compared with, slot tables with what surrounds them, jump tables. */
static bool may_use_state(uint64_t at, uint64_t size, bool write)
{
	const struct vcpu *v = watch.v;
	const struct bt_cpu *bt = watch.bt;

	if (within(at, size, (uint64_t)(uintptr_t)v, sizeof(struct bt_vcpu)))
		return true;
	return !write && (within(at, size, watch.windows->limits - BT_LIMITS_REACH, BT_LIMITS_SIZE) ||
			  within(at, size, watch.windows->tables, watch.windows->tables_size) ||
			  within(at, size, (uint64_t)(uintptr_t)bt->tables, bt->table_count * sizeof(*bt->tables)) ||
			  within(at, size, (uint64_t)(uintptr_t)bt->nothing, sizeof(*bt->nothing)));
}

/* What an operand is relative to is a window, or a register of the guest's and its window. */
static bool is_in_window_of(const greg_t *regs, greg_t sum, uint64_t at, uint64_t size)
{
	static const uint8_t guest[] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI,
					 REG_RDI, REG_R8,  REG_R9,  REG_R12, REG_R13, REG_R14 };
	uint64_t base;

	if (window_of_entry((uint64_t)sum, at, &base) && in_window(at, size, base))
		return true;
	for (unsigned n = 0; n < ARRAY_SIZE(guest); n++)
		if (window_of_entry((uint64_t)(sum - regs[guest[n]]), at, &base) && in_window(at, size, base))
			return true;
	return false;
}

/*
 * Guest memory is reached through R11 or R10, which lead to a window or are a register's value in it, or R11 is what a look-up in the TLB
 * found; and in 32-bit code through GS base, the window of slot 0.
 */
static bool access_allowed(const greg_t *regs, const ZydisDecodedOperand *o, uint64_t at, uint64_t size, bool write)
{
	bool code32 = watch.bt->gs_base != (uint64_t)(uintptr_t)watch.v;
	uint64_t base;

	if (o->mem.segment == ZYDIS_REGISTER_GS && code32)
		return at - watch.bt->gs_base < BIT(32) && size <= 64 &&
		       window_of_entry(watch.bt->gs_base, at, &base) && base == watch.bt->gs_base;
	/* String instructions: the pointer is in its window; a repetition goes on from there, and cannot pass the guard. */
	if (o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN && code32)
		return window_of_entry(watch.bt->gs_base, at, &base) && base == watch.bt->gs_base &&
		       in_window(at, size, base);
	if (o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN && o->mem.base == ZYDIS_REGISTER_RSI)
		return window_of_entry((uint64_t)regs[REG_R10], at, &base) && in_window(at, size, base);
	if (o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN && o->mem.base == ZYDIS_REGISTER_RDI)
		return window_of_entry((uint64_t)regs[REG_R11], at, &base) && in_window(at, size, base);
	if (o->mem.base == ZYDIS_REGISTER_R10 && is_in_window_of(regs, regs[REG_R10], at, size))
		return true;
	if (o->mem.index == ZYDIS_REGISTER_R10 && o->mem.base != ZYDIS_REGISTER_R11 &&
	    is_in_window_of(regs, regs[REG_R10], at, size))
		return true;
	if (o->mem.base != ZYDIS_REGISTER_R11 && o->mem.index != ZYDIS_REGISTER_R11)
		return may_use_state(at, size, write);
	if (is_in_window_of(regs, regs[REG_R11], at, size))
		return true;
	return in_ram_page(at, size) || may_use_state(at, size, write);
}

/* ---- the operands of a host instruction ---- */

static uint64_t register_value(const greg_t *regs, ZydisRegister reg)
{
	static const uint8_t order[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
					   REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };

	if (reg >= ZYDIS_REGISTER_RAX && reg <= ZYDIS_REGISTER_R15)
		return (uint64_t)regs[order[reg - ZYDIS_REGISTER_RAX]];
	if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_R15D)
		return (uint32_t)regs[order[reg - ZYDIS_REGISTER_EAX]];
	return 0;
}

/* The bit's offset in a register, in bytes, as far as it goes beyond the operand. */
static uint64_t bit_string_distance(const greg_t *regs, const ZydisDecodedInstruction *i, const ZydisDecodedOperand *o)
{
	const ZydisDecodedOperand *offset = o + 1;
	uint64_t value;

	if (i->mnemonic != ZYDIS_MNEMONIC_BT && i->mnemonic != ZYDIS_MNEMONIC_BTS &&
	    i->mnemonic != ZYDIS_MNEMONIC_BTR && i->mnemonic != ZYDIS_MNEMONIC_BTC)
		return 0;
	if (offset->type != ZYDIS_OPERAND_TYPE_REGISTER)
		return 0;
	value = register_value(regs, ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, offset->reg.value));
	return (uint64_t)(sign_extend(value, o->size) >> 3) & ~(uint64_t)(o->size / 8 - 1);
}

static uint64_t operand_address(const greg_t *regs, const ZydisDecodedInstruction *i, const ZydisDecodedOperand *o)
{
	uint64_t at = o->mem.disp.has_displacement ? (uint64_t)o->mem.disp.value : 0;

	if (o->mem.base == ZYDIS_REGISTER_RIP)
		at += (uint64_t)regs[REG_RIP] + i->length;
	else
		at += register_value(regs, o->mem.base);
	at += register_value(regs, o->mem.index) * o->mem.scale + bit_string_distance(regs, i, o);
	if (i->address_width == 32)
		at = (uint32_t)at;
	if (o->mem.segment == ZYDIS_REGISTER_GS)
		at += watch.bt->gs_base;
	/* What PUSH and CALL store lies below. */
	if (o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN && o->mem.base == ZYDIS_REGISTER_RSP &&
	    (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
		at -= o->size / 8;
	return at;
}

static void check_operand(const greg_t *regs, const ZydisDecodedInstruction *i, const ZydisDecodedOperand *o)
{
	uint64_t at, size = MAX(o->size / 8, 1);
	bool write = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;

	if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || o->mem.type == ZYDIS_MEMOP_TYPE_AGEN || !o->actions)
		return;
	if (o->mem.type != ZYDIS_MEMOP_TYPE_MEM)
		found("an emitted instruction has several addresses");
	at = operand_address(regs, i, o);
	watch.counts.accesses++;
	if (!access_allowed(regs, o, at, size, write))
		found("translated code %s %llu bytes at %#llx", write ? "writes" : "reads", (unsigned long long)size,
		      (unsigned long long)at);
}

static bool is_hint(ZydisMnemonic mnemonic)
{
	return mnemonic == ZYDIS_MNEMONIC_NOP || mnemonic == ZYDIS_MNEMONIC_PREFETCHNTA ||
	       mnemonic == ZYDIS_MNEMONIC_PREFETCHT0 || mnemonic == ZYDIS_MNEMONIC_PREFETCHT1 ||
	       mnemonic == ZYDIS_MNEMONIC_PREFETCHT2 || mnemonic == ZYDIS_MNEMONIC_PREFETCHW ||
	       mnemonic == ZYDIS_MNEMONIC_PREFETCH;
}

/* For found(): where translated code is. */
static void say_where(const greg_t *regs)
{
	struct bt_block *b = bt_block_at(watch.bt, (uint64_t)regs[REG_RIP]);
	char text[96];

	cpu_disassemble(MODE_64, (const uint8_t *)(uintptr_t)regs[REG_RIP], 15, (uint64_t)regs[REG_RIP], text,
			sizeof(text));
	found_context(
		2,
		"host %#llx: %s; rax %llx rcx %llx rdx %llx rbx %llx rsp %llx rbp %llx rsi %llx rdi %llx r8 %llx r9 "
		"%llx r10 %llx r11 %llx r12 %llx r13 %llx r14 %llx r15 %llx",
		regs[REG_RIP], text, regs[REG_RAX], regs[REG_RCX], regs[REG_RDX], regs[REG_RBX], regs[REG_RSP],
		regs[REG_RBP], regs[REG_RSI], regs[REG_RDI], regs[REG_R8], regs[REG_R9], regs[REG_R10], regs[REG_R11],
		regs[REG_R12], regs[REG_R13], regs[REG_R14], regs[REG_R15]);
	if (!b)
		return;
	unsigned n = 0;

	while (n + 1 < b->count && b->insns[n + 1].host <= (uint64_t)regs[REG_RIP] - bt_exec(watch.bt, b))
		n++;
	found_context(3, "in the block at %#llx, its instruction %u at %#llx", (unsigned long long)b->rip, n,
		      (unsigned long long)(b->rip + b->insns[n].guest));
}

static void check_instruction(const greg_t *regs)
{
	ZydisDecodedInstruction i;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];

	say_where(regs);
	if (ZYAN_FAILED(
		    ZydisDecoderDecodeFull(&watch.decoder, (const void *)(uintptr_t)regs[REG_RIP], 15, &i, operands)))
		found("the host executes what does not decode");
	if (is_hint(i.mnemonic))
		return;
	for (unsigned n = 0; n < i.operand_count; n++)
		check_operand(regs, &i, &operands[n]);
	found_context(2, NULL);
	found_context(3, NULL);
}

/* ---- signals ---- */

static bool in_code(uint64_t rip) { return rip - (uint64_t)(uintptr_t)watch.bt->cache.exec < watch.bt->code_size; }

/* The border's own code, with the guest's RSP in the host's. */
static bool in_glue(const greg_t *regs)
{
	return within((uint64_t)regs[REG_RIP], 0, (uint64_t)(uintptr_t)__executable_start,
		      (uint64_t)(etext - __executable_start)) &&
	       !within((uint64_t)regs[REG_RSP], 0, watch.stack - STACK_REACH, 2 * STACK_REACH);
}

static void pass_on(int signal, siginfo_t *info, void *context)
{
	const struct sigaction *old = &watch.replaced[signal];

	if (old->sa_handler == SIG_DFL || old->sa_handler == SIG_IGN)
		found("signal %d that nobody expects", signal);
	if (old->sa_flags & SA_SIGINFO)
		old->sa_sigaction(signal, info, context);
	else
		old->sa_handler(signal);
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	bool general = regs[REG_TRAPNO] == EXC_GP || regs[REG_TRAPNO] == EXC_UD;

	if (general && !is_canonical((uint64_t)regs[REG_RSP])) {
		/* Some kernels refuse to return so, anywhere: bt_return_was_refused(). */
	} else if (in_code((uint64_t)regs[REG_RIP])) {
		watch.counts.faults++;
		if (signal != SIGFPE)
			check_instruction(regs);
	} else if (signal != SIGFPE) {
		say_where(regs);
		found("signal %d in the monitor itself, address %p", signal, info->si_addr);
	}
	pass_on(signal, info, context);
}

/* Behind the C function that was called without the trap flag. */
uint64_t watch_return;
extern const char watch_step_again[];
__asm__(".pushsection .text\n"
	".globl watch_step_again\n"
	"watch_step_again:\n\t"
	"pushf\n\t"
	"orq $0x100, (%rsp)\n\t"
	"popf\n\t"
	"jmp *watch_return(%rip)\n"
	".popsection");

/* C is trusted, and long. */
static void skip_function(greg_t *regs)
{
	uint64_t *top = (uint64_t *)(uintptr_t)regs[REG_RSP];

	watch_return = *top;
	*top = (uint64_t)(uintptr_t)watch_step_again;
	regs[REG_EFL] &= ~(greg_t)HOST_TF;
}

static void on_trap(int signal, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

	(void)signal, (void)info;
	if ((uint64_t)regs[REG_RIP] == (uint64_t)(uintptr_t)bt_fast)
		skip_function(regs);
	if (!in_code((uint64_t)regs[REG_RIP]) && !in_glue(regs))
		return;
	watch.counts.instructions++;
	check_instruction(regs);
}

static void on_alarm(int signal, siginfo_t *info, void *context)
{
	(void)signal, (void)info;
	if (watch.ends) {
		say_where(((ucontext_t *)context)->uc_mcontext.gregs);
		found("the interpreter ends here, but translated code does not");
	}
	if (++watch.alarms > ALARMS_UNTIL_HUNG)
		found("the vCPU does not stop when it is kicked");
	vcpu_post(watch.v, EVENT_EXIT);
	watch.v->engine->ops->kick(watch.v);
}

static void stepped_enter(struct vcpu *v)
{
	unsigned n = watch.bt->glue == &watch.stepped[1];

	__writeeflags(__readeflags() | HOST_TF);
	watch.glues[n]->enter(v);
	__writeeflags(__readeflags() & ~(unsigned long long)HOST_TF);
}

/*
 * ---- can there be steps at all? ----
 * Not where the host's kernel returns to user mode with a canonical RSP only (PVM): each step behind which the guest has another one would be refused.
 */

extern const char probe_landing[];
__asm__(".pushsection .text\n"
	".globl probe_landing\n"
	"probe_landing:\n\t"
	"int3\n"
	".popsection");

static greg_t probe_regs[NGREG];
static bool probe_refused;

static void on_probe(int signal, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

	(void)info;
	if (signal == SIGUSR1) {
		memcpy(probe_regs, regs, sizeof(probe_regs));
		regs[REG_RIP] = (greg_t)(uintptr_t)probe_landing;
		regs[REG_RSP] = 1ll << 62; /* not canonical */
		return;
	}
	probe_refused = signal != SIGTRAP;
	memcpy(regs, probe_regs, sizeof(probe_regs));
}

static bool can_step(void)
{
	static const int probed[] = { SIGUSR1, SIGTRAP, SIGSEGV, SIGBUS, SIGILL };
	struct sigaction action = { .sa_sigaction = on_probe, .sa_flags = SA_SIGINFO | SA_ONSTACK },
			 old[ARRAY_SIZE(probed)];
	static uint8_t stack_of_probe[1 << 16];
	stack_t stack = { .ss_sp = stack_of_probe, .ss_size = sizeof(stack_of_probe) }, old_stack;

	sigaltstack(&stack, &old_stack);
	for (unsigned n = 0; n < ARRAY_SIZE(probed); n++)
		sigaction(probed[n], &action, &old[n]);
	raise(SIGUSR1);
	for (unsigned n = 0; n < ARRAY_SIZE(probed); n++)
		sigaction(probed[n], &old[n], NULL);
	sigaltstack(&old_stack, NULL);
	return !probe_refused;
}

/* ---- beginning and end ---- */

void watch_begin(struct vcpu *v)
{
	struct sigaction action = { .sa_flags = SA_SIGINFO | SA_ONSTACK };

	watch.can_step = can_step();
	watch.v = v;
	watch.bt = bt_of(v);
	watch.windows = bt_of(v)->windows;
	for (unsigned n = 0; n < ARRAY_SIZE(watch.glues); n++) {
		watch.glues[n] = bt_of(v)->glues[n];
		watch.stepped[n] = *watch.glues[n];
		watch.stepped[n].enter = stepped_enter;
	}
	watch.stack = (uint64_t)(uintptr_t)&action;
	ZydisDecoderInit(&watch.decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	getitimer(ITIMER_REAL, &watch.timer);
	/* A kick that comes while a handler runs would not see translated code. */
	sigfillset(&action.sa_mask);
	for (unsigned n = 0; n < ARRAY_SIZE(signals); n++) {
		action.sa_sigaction = signals[n] == SIGTRAP ? on_trap : signals[n] == SIGALRM ? on_alarm : on_fault;
		sigaction(signals[n], &action, &watch.replaced[signals[n]]);
	}
}

void watch_end(void)
{
	watch.counts.translated += watch.bt->stats.guest_insns;
	watch.counts.entered += watch.bt->stats.enters;
	for (unsigned n = 0; n < ARRAY_SIZE(signals); n++)
		sigaction(signals[n], &watch.replaced[signals[n]], NULL);
	setitimer(ITIMER_REAL, &watch.timer, NULL);
}

static void set_timer(unsigned milliseconds)
{
	struct itimerval t = { .it_value = { milliseconds / 1000, (suseconds_t)(milliseconds % 1000) * 1000 },
			       .it_interval = { milliseconds ? 1 : 0, 0 } };

	setitimer(ITIMER_REAL, &t, NULL);
}

void watch_run(bool every_instruction, unsigned milliseconds, bool ends)
{
	watch.ends = ends;
	watch.alarms = 0;
	for (unsigned n = 0; n < ARRAY_SIZE(watch.glues); n++)
		watch.bt->glues[n] = every_instruction && watch.can_step ? &watch.stepped[n] : watch.glues[n];
	set_timer(milliseconds);
}

void watch_young(struct vcpu *v, bool young)
{
	for (unsigned n = 0; n < BT_SPACES; n++)
		bt_of(v)->spaces[n] =
			(struct bt_space){ .key = TABLES, .ages = true, .ticks = young ? 0 : BT_YOUNG_TICKS };
}

void watch_stop(void)
{
	set_timer(0);
	atomic_fetch_and(&watch.v->events, ~(uint32_t)EVENT_EXIT);
}

struct watch_counts watch_counts(void) { return watch.counts; }

unsigned watch_secrets(struct vcpu *v, uint64_t *secrets, unsigned max)
{
	const struct bt_cpu *bt = bt_of(v);
	const struct bt_windows *w = bt->windows;
	const uint64_t all[] = { (uint64_t)(uintptr_t)bt->signal_stack,
				 (uint64_t)(uintptr_t)v,
				 (uint64_t)(uintptr_t)bt,
				 (uint64_t)(uintptr_t)w,
				 (uint64_t)(uintptr_t)bt->cache.write,
				 (uint64_t)(uintptr_t)bt->cache.exec,
				 (uint64_t)(uintptr_t)bt->tables,
				 (uint64_t)(uintptr_t)bt->meta,
				 (uint64_t)(uintptr_t)v->mem->ram.file.base,
				 (uint64_t)(uintptr_t)&bt,
				 (uint64_t)(uintptr_t)malloc,
				 (uint64_t)(uintptr_t)watch_secrets,
				 w->arena,
				 w->first,
				 w->absent,
				 w->tables,
				 (uint64_t)(uintptr_t)w->space[0].table[0].entry };
	unsigned count = MIN(max, (unsigned)ARRAY_SIZE(all));

	memcpy(secrets, all, count * sizeof(*secrets));
	return count;
}
