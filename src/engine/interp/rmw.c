/*
 * Read-modify-write where the operand cannot be reached by one host pointer: it crosses a page, is device memory or ROM, or
 * lies on a page with decoded code, or a locked one would cross cache lines where the host's kernel does not have that. A locked one runs with every other vCPU stopped, so that it is atomic all the same.
 */
#include "engine/interp/interp.h"

struct rmw_request {
	const struct insn *insn;
	uint64_t lin;
	unsigned size;
	rmw_fn *compute;
};

static void rmw_now(struct vcpu *v, void *arg)
{
	const struct rmw_request *r = arg;
	bool ss = r->insn->seg == SS;
	uint64_t old = cpu_load_slow(v, r->lin, r->size, ss);

	cpu_store_slow(v, r->lin, r->compute(v, r->insn, old), r->size, ss);
}

void interp_rmw_slow(struct vcpu *v, const struct insn *i, uint64_t lin, unsigned size, rmw_fn *compute)
{
	struct rmw_request r = { i, lin, size, compute };

	cpu_probe_write(v, lin, size, i->seg == SS);
	if ((i->flags & INSN_LOCK) && v->peer_count > 1)
		cpu_exclusive(v, rmw_now, &r);
	else
		rmw_now(v, &r);
}
