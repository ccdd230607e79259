/*
 * audit: shows that an engine virtualizes the x86's sensitive instructions: those that depend on or change the machine's state and do
 * not all trap when they are executed without privilege (Popek and Goldberg 1974; Robin and Irvine 2000 name seventeen). A built-in
 * guest executes them in user mode, and, where that is what breaks, in its kernel; what it saw is compared with what its kernel set up.
 */
#ifndef DOPPEL_AUDIT_H
#define DOPPEL_AUDIT_H

#include "base/base.h"

#define AUDIT_MAX_CHECKS 256

/* What the guest wrote down of a snippet: registers when it was left, by what, and what the processor pushed then. */
struct audit_record {
	uint64_t rdi, rsi, rbp, unused, rbx, rdx, rcx, rax, vector, error, rip, cs, rflags, rsp, ss;
	uint64_t done; /* 0: the guest never came so far */
};

struct audit_run {
	const char *engine; /* the one that was taken */
	unsigned count;	    /* of checks */
	struct audit_record records[AUDIT_MAX_CHECKS];
	bool offered[AUDIT_MAX_CHECKS]; /* by the CPU; what it does not offer was not executed */
};

enum audit_verdict { AUDIT_OK, AUDIT_NOT_OK, AUDIT_NOT_EXECUTED };

struct audit_row {
	const char *instruction; /* "SGDT" */
	const char *where;	 /* "64-bit, CR4.UMIP = 1" */
	const char
		*naive;	 /* what a monitor leaks or breaks that runs the guest without privilege and waits for traps */
	char shown[112]; /* what the guest saw */
	char expected[112]; /* what it had to see; empty: just that */
	enum audit_verdict verdict;
};

/* Runs the guest. engine and cpu_model as in struct machine_config. */
int audit_execute(const char *engine, const char *cpu_model, struct audit_run *, struct error *);
/*
 * What a monitor would come to that does nothing: this host's processor executes the checks of 64-bit user mode directly. Many of
 * them fail. The others are not executed (offered is false).
 */
int audit_execute_naively(struct audit_run *, struct error *);
/* The n-th check's row, n < run->count. */
void audit_judge(const struct audit_run *, unsigned n, struct audit_row *);

#endif
