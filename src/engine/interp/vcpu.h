/* A vCPU of the interpreter's, and of engines that have it inside: what it knows of one besides what cpu/ knows. */
#ifndef DOPPEL_INTERP_VCPU_H
#define DOPPEL_INTERP_VCPU_H

#include "engine/engine.h"

struct interp_vcpu {
	struct vcpu v;		     /* first */
	struct interp *interp;	     /* interp.h */
	struct host_exec *host_exec; /* host.c: stubs that run host instructions; NULL until it made them */
	bool splits_trap;	     /* rmw.c: the host's kernel punishes locked accesses across cache lines */
};
static inline struct interp_vcpu *interp_vcpu(const struct vcpu *v) { return (struct interp_vcpu *)(uintptr_t)v; }

#endif
