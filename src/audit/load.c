/*
 * Runs the audit's guest: puts its kernel, the snippets and the list of cases into a new machine's memory, and fetches the
 * records when it has ended.
 */
#include "audit/private.h"

#include "boot/boot.h"
#include "machine/machine.h"

#include <errno.h>

#define GUEST_MEMORY	    (4u << 20)
#define SEGMENT_86(address) ((address) >> 4)

/* As guest.S reads them. */
struct guest_case {
	uint32_t kind, ip, flags, cs, ss, sp, data, cr4;
	uint64_t rax;
	uint32_t di, unused[5];
};
_Static_assert(sizeof(struct guest_case) == CASE_SIZE && offsetof(struct guest_case, di) == CASE_DI &&
		       offsetof(struct guest_case, rax) == CASE_RAX && offsetof(struct guest_case, cr4) == CASE_CR4 &&
		       offsetof(struct guest_case, data) == CASE_DATA,
	       "guest.h has the offsets");
_Static_assert(sizeof(struct audit_record) == RESULT_SIZE && offsetof(struct audit_record, done) == RESULT_DONE,
	       "guest.h has the offsets");
_Static_assert(AUDIT_MAX_CHECKS == MAX_CASES, "memory is laid out for as many");

static const struct mode {
	uint16_t kind, cs, ss;
	uint32_t cr4;
} modes[] = {
	[USER_64] = { KIND_LONG, USER_CS64, USER_DS, CR4_PAE },
	[USER_COMPAT] = { KIND_LONG, USER_CS32, USER_DS, CR4_PAE },
	[USER_LEGACY] = { KIND_LEGACY, USER_CS32, USER_DS, 0 },
	[VIRTUAL_8086] = { KIND_LEGACY, SEGMENT_86(GUEST_CODE), SEGMENT_86(GUEST_DATA), 0 },
	[KERNEL_64] = { KIND_LONG, KERNEL_CS64, KERNEL_DS, CR4_PAE },
	[KERNEL_LEGACY] = { KIND_LEGACY, KERNEL_CS32, KERNEL_DS, 0 },
};

static struct guest_case make_case(const struct check *c, unsigned n)
{
	const struct mode *m = &modes[c->mode];
	bool old = c->mode == VIRTUAL_8086;

	return (struct guest_case){
		.kind = m->kind,
		.ip = (uint32_t)(old ? snippet_address(n) - GUEST_CODE : snippet_address(n)),
		.flags = (uint32_t)(c->flags | 2 | (old ? FLAG_VM : 0)),
		.cs = m->cs,
		.ss = m->ss,
		.sp = old ? GUEST_STACK - GUEST_DATA : GUEST_STACK,
		.data = m->ss,
		.cr4 = m->cr4 | c->cr4,
		.rax = c->argument,
		.di = old ? 0 : GUEST_DATA,
	};
}

static int put(struct guest_mem *mem, uint64_t where, const void *data, size_t size, struct error *err)
{
	if (mem_write(mem, gpa(where), data, size))
		return error_set(err, ENOMEM, "the audit's guest does not fit at %#lx", (unsigned long)where);
	return 0;
}

static int put_snippet(struct guest_mem *mem, unsigned n, struct error *err)
{
	static const uint8_t end[] = { 0xcd, VECTOR_END };
	const struct snippet *s = &audit_checks[n].code;
	size_t size = (size_t)(s->end - s->start);
	int rc;

	BUG_ON(size + sizeof(end) > SNIPPET_SLOT);
	rc = put(mem, snippet_address(n), s->start, size, err);
	return rc ? rc : put(mem, snippet_address(n) + size, end, sizeof(end), err);
}

static int load_guest(void *opaque, struct guest_mem *mem, struct cpu_state *state, struct error *err)
{
	static const uint32_t mark = MARK_WORD, words = FS_WORD;
	const struct audit_run *run = opaque;
	uint64_t where = GUEST_CASES;
	int rc = put(mem, GUEST_KERNEL, audit_kernel, (size_t)(audit_kernel_end - audit_kernel), err);

	if (!rc)
		rc = put(mem, GUEST_MARK, &mark, sizeof(mark), err);
	if (!rc)
		rc = put(mem, GUEST_FS_BASE, &words, sizeof(words), err);
	if (!rc)
		rc = put(mem, GUEST_GS_BASE, &words, sizeof(words), err);
	for (unsigned n = 0; !rc && n < run->count; n++, where += CASE_SIZE) {
		struct guest_case guest_case = make_case(&audit_checks[n], n);

		/* No case of a kind that the guest knows: it goes on to the next. */
		if (!run->offered[n])
			guest_case.kind = UINT32_MAX;
		rc = put_snippet(mem, n, err);
		if (!rc)
			rc = put(mem, where, &guest_case, sizeof(guest_case), err);
	}
	if (!rc)
		boot_state_protected_mode(mem, state, GUEST_KERNEL);
	return rc;
}

int audit_execute(const char *engine, const char *cpu_model, struct audit_run *run, struct error *err)
{
	const struct machine_guest guest = { load_guest, run };
	struct machine_config config = {
		.guest = &guest,
		.memory = GUEST_MEMORY,
		.cpus = 1,
		.engine = engine,
		.cpu_model = cpu_model,
		.clock = CLOCK_HOST,
		.pure = true,
		.no_reboot = true,
	};
	struct cpu_model model;
	struct machine *machine;
	int rc = cpu_model_init(&model, cpu_model, true, 1, err), status;

	if (rc)
		return rc;
	memset(run, 0, sizeof(*run));
	run->count = audit_check_count;
	for (unsigned n = 0; n < run->count; n++)
		run->offered[n] = model.features[audit_checks[n].feature];
	rc = machine_ask_for(&config, (struct device_request){ .spec = "debug-exit" }, err);
	if (!rc)
		rc = machine_create(&machine, &config, err);
	if (rc)
		return rc;
	run->engine = machine_engine(machine);
	status = machine_run(machine);
	if (status >= MACHINE_TRIPLE_FAULT || !(status & 1))
		rc = error_set(err, EIO, "the audit's guest ended with status %d instead of coming to its end", status);
	else
		rc = machine_read_memory(machine, gpa(GUEST_RESULTS), run->records,
					 run->count * sizeof(run->records[0]), err);
	machine_destroy(machine);
	return rc;
}
