/*
 * Compares what the audit's guest saw with what a check expects, and says both in words.
 */
#include "audit/private.h"

#include <inttypes.h>
#include <stdarg.h>

struct text {
	char *at;
	size_t room;
};

static void add(struct text *t, const char *fmt, ...) printf_like(2, 3);

static void add(struct text *t, const char *fmt, ...)
{
	va_list args;
	int length;

	va_start(args, fmt);
	length = vsnprintf(t->at, t->room, fmt, args);
	va_end(args);
	length = (int)MIN((size_t)MAX(length, 0), t->room - 1);
	t->at += length;
	t->room -= (size_t)length;
}

/* ---- how a snippet was left ---- */

static const char *const exception_names[] = {
	[EXC_DE] = "#DE", [EXC_DB] = "#DB", [EXC_NMI] = "NMI", [EXC_BP] = "#BP", [EXC_OF] = "#OF", [EXC_BR] = "#BR",
	[EXC_UD] = "#UD", [EXC_NM] = "#NM", [EXC_DF] = "#DF",  [EXC_TS] = "#TS", [EXC_NP] = "#NP", [EXC_SS] = "#SS",
	[EXC_GP] = "#GP", [EXC_PF] = "#PF", [EXC_MF] = "#MF",  [EXC_AC] = "#AC", [EXC_MC] = "#MC", [EXC_XM] = "#XM",
};

static bool has_error_code(uint64_t vector)
{
	return vector == EXC_DF || (vector >= EXC_TS && vector <= EXC_PF) || vector == EXC_AC;
}

static void add_vector(struct text *t, uint64_t vector, uint64_t error)
{
	if (vector == VECTOR_END)
		add(t, "no exception");
	else if (vector == CAME_BY_GATE)
		add(t, "into the kernel by its gate");
	else if (vector == CAME_BY_CALL)
		add(t, "into the kernel at its entry");
	else if (vector < ARRAY_SIZE(exception_names) && exception_names[vector])
		add(t, "%s", exception_names[vector]);
	else
		add(t, "vector %#" PRIx64, vector);
	if (has_error_code(vector))
		add(t, "(%#" PRIx64 ")", error);
}

/* ---- values ---- */

static uint64_t field_of(const struct audit_record *r, enum field field)
{
	switch (field) {
	case FIELD_RAX: return r->rax;
	case FIELD_RBX: return r->rbx;
	case FIELD_FLAGS: return r->rflags;
	case FIELD_CS: return r->cs;
	case NO_FIELD: break;
	}
	BUG_ON(true);
}

static uint64_t seen(const struct audit_record *r, const struct value *v)
{
	return field_of(r, v->field) & (v->mask ? v->mask : UINT64_MAX);
}

#define FOR_EACH_VALUE(v, check)                                                                                       \
	for (const struct value *v = (check)->values;                                                                  \
	     v < (check)->values + ARRAY_SIZE((check)->values) && v->field != NO_FIELD; v++)

/* Flags are what people know by name. */
static void add_value(struct text *t, const struct value *v, uint64_t value, bool first)
{
	add(t, "%s%s ", first ? "" : ", ", v->name);
	if (v->mask == FLAG_IF || v->mask == FLAG_VIF)
		value = value != 0;
	else if (v->mask == FLAG_IOPL)
		value >>= 12;
	add(t, value > 9 ? "%#" PRIx64 : "%" PRIu64, value);
}

static void describe(const struct check *c, const struct audit_record *r, uint64_t vector, uint64_t error,
		     struct text t)
{
	bool first = vector == VECTOR_END && !c->vector;

	if (!first)
		add_vector(&t, vector, error);
	/* What it was to leave behind is of no interest when it did something else. */
	if (vector != (c->vector ? c->vector : VECTOR_END))
		return;
	FOR_EACH_VALUE(v, c)
	{
		add_value(&t, v, r ? seen(r, v) : v->expected, first);
		first = false;
	}
}

/* ---- the verdict ---- */

/* A fault is the instruction's own, and not that of the snippet's end. */
static bool left_inside(const struct check *c, unsigned n, const struct audit_record *r)
{
	uint64_t start = snippet_address(n) - (c->mode == VIRTUAL_8086 ? GUEST_CODE : 0);

	return r->rip - start < (uint64_t)(c->code.end - c->code.start);
}

static bool is_exception(uint64_t vector) { return vector < VECTOR_END && vector != EXC_BP && vector != EXC_OF; }

static bool as_expected(const struct check *c, unsigned n, const struct audit_record *r)
{
	uint64_t vector = c->vector ? c->vector : VECTOR_END;

	if (!r->done || r->vector != vector || r->error != c->error)
		return false;
	if (is_exception(vector) && !left_inside(c, n, r))
		return false;
	FOR_EACH_VALUE(v, c)
	if (seen(r, v) != v->expected)
		return false;
	return true;
}

void audit_judge(const struct audit_run *run, unsigned n, struct audit_row *row)
{
	const struct check *c = &audit_checks[n];
	const struct audit_record *r = &run->records[n];
	struct text shown = { row->shown, sizeof(row->shown) }, expected = { row->expected, sizeof(row->expected) };

	BUG_ON(n >= run->count);
	*row = (struct audit_row){ .instruction = c->instruction, .where = c->where, .naive = c->naive };
	if (!run->offered[n]) {
		row->verdict = AUDIT_NOT_EXECUTED;
		add(&shown, "not executed");
		return;
	}
	if (r->done)
		describe(c, r, r->vector, r->error, shown);
	else
		add(&shown, "nothing: the guest did not come back from it");
	row->verdict = as_expected(c, n, r) ? AUDIT_OK : AUDIT_NOT_OK;
	if (row->verdict == AUDIT_NOT_OK)
		describe(c, NULL, c->vector ? c->vector : VECTOR_END, c->error, expected);
}
