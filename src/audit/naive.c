/*
 * The naive monitor: the snippets of 64-bit user mode, executed directly by this host's processor in processes of their own, as a
 * monitor would that runs user mode unchanged and waits for traps. Nothing is virtualized, so it shows what an engine has to do.
 * Memory is where guest.h has it; a snippet's end, INT, is a fault under the host's system, and a signal.
 */
#define _GNU_SOURCE
#include "audit/private.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define SNIPPETS_SIZE (MAX_CASES * SNIPPET_SLOT)
#define DATA_SIZE     (GUEST_CASES - GUEST_DATA)
/* The record of the child that runs, at an address that its signal handler knows: it can count on no register and no segment. */
#define SHARED_RECORD ((struct audit_record *)GUEST_RESULTS)
#define SIGNAL_STACK  0x10000
#define LIMIT_SECONDS 2

static int map(uint64_t where, size_t size, int sharing, struct error *err)
{
	void *p =
		mmap((void *)where, size, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (p == MAP_FAILED)
		return error_set_errno(err, errno, "map memory at %#lx, where the audit's snippets expect it",
				       (unsigned long)where);
	return 0;
}

static int map_all(struct error *err)
{
	static const uint8_t end[] = { 0xcd, VECTOR_END };
	int rc = map(GUEST_CODE, SNIPPETS_SIZE, MAP_PRIVATE, err);

	if (!rc)
		rc = map(GUEST_DATA, DATA_SIZE, MAP_PRIVATE, err);
	if (!rc)
		rc = map(GUEST_RESULTS, PAGE_SIZE, MAP_SHARED, err);
	if (rc)
		return rc;
	for (unsigned n = 0; n < audit_check_count; n++) {
		const struct snippet *s = &audit_checks[n].code;
		size_t size = (size_t)(s->end - s->start);

		memcpy((void *)snippet_address(n), s->start, size);
		memcpy((void *)(snippet_address(n) + size), end, sizeof(end));
	}
	*(uint32_t *)GUEST_MARK = MARK_WORD;
	*(uint32_t *)GUEST_FS_BASE = *(uint32_t *)GUEST_GS_BASE = FS_WORD;
	if (mprotect((void *)GUEST_CODE, SNIPPETS_SIZE, PROT_READ | PROT_EXEC))
		return error_set_errno(err, errno, "make the audit's snippets executable");
	return 0;
}

static void unmap_all(void)
{
	munmap((void *)GUEST_CODE, SNIPPETS_SIZE);
	munmap((void *)GUEST_DATA, DATA_SIZE);
	munmap((void *)GUEST_RESULTS, PAGE_SIZE);
}

/* ---- the child ---- */

static void note_and_leave(int number, siginfo_t *info, void *context)
{
	const greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;

	(void)number;
	(void)info;
	*SHARED_RECORD = (struct audit_record){
		.rbx = (uint64_t)r[REG_RBX],
		.rax = (uint64_t)r[REG_RAX],
		.vector = (uint64_t)r[REG_TRAPNO],
		.error = (uint64_t)r[REG_ERR],
		.rip = (uint64_t)r[REG_RIP],
		.cs = (uint16_t)r[REG_CSGSFS],
		.rflags = (uint64_t)r[REG_EFL],
		.done = 1,
	};
	/* The C library's own needs FS. */
	__asm__ volatile("syscall" ::"a"(SYS_exit_group), "D"(0) : "rcx", "r11", "memory");
}

static void catch_signals(void)
{
	static const int numbers[] = { SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE };
	struct sigaction action = { .sa_sigaction = note_and_leave, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	stack_t stack = { .ss_sp = mmap(NULL, SIGNAL_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
			  .ss_size = SIGNAL_STACK };

	sigaltstack(&stack, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		sigaction(numbers[i], &action, NULL);
	alarm(LIMIT_SECONDS);
}

static _Noreturn void run_snippet(unsigned n)
{
	catch_signals();
	__asm__ volatile("mov %[stack], %%rsp; push %%rsi; push %%rcx; popf;"
			 "mov $0, %%ebx; mov $0, %%ecx; mov $0, %%edx; mov $0, %%esi; mov $0, %%ebp; ret" ::[stack] "i"(
				 GUEST_STACK),
			 "a"(audit_checks[n].argument), "D"(GUEST_DATA), "S"(snippet_address(n)),
			 "c"((uint64_t)audit_checks[n].flags | 2)
			 : "memory");
	__builtin_unreachable();
}

/* ---- the parent ---- */

static int execute(unsigned n, struct audit_record *record, struct error *err)
{
	uint64_t end = snippet_address(n) + (uint64_t)(audit_checks[n].code.end - audit_checks[n].code.start);
	pid_t child;

	*SHARED_RECORD = (struct audit_record){ 0 };
	child = fork();
	if (child < 0)
		return error_set_errno(err, errno, "make a process for a snippet");
	if (!child)
		run_snippet(n);
	while (waitpid(child, NULL, 0) < 0)
		if (errno != EINTR)
			return error_set_errno(err, errno, "wait for a snippet's process");
	*record = *SHARED_RECORD;
	if (record->done && record->rip == end && record->vector == EXC_GP) {
		record->vector = VECTOR_END;
		record->error = 0;
	}
	return 0;
}

int audit_execute_naively(struct audit_run *run, struct error *err)
{
	int rc;

	memset(run, 0, sizeof(*run));
	run->engine = "none";
	run->count = audit_check_count;
	rc = map_all(err);
	for (unsigned n = 0; !rc && n < run->count; n++) {
		run->offered[n] = audit_checks[n].mode == USER_64 && cpu_host_has(audit_checks[n].feature);
		if (run->offered[n])
			rc = execute(n, &run->records[n], err);
	}
	unmap_all();
	return rc;
}
