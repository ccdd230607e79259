/*
 * What the translator says of itself: statistics, the trace of translated blocks with the guest's and the host's instructions, and
 * names for profilers.
 */
#include "engine/bt/runtime.h"

#include <stdlib.h>

/* ---- translated blocks ---- */

#define TEXT_SIZE 128

/* The vCPU's state that translated code names by its offset. */
static bool name_state(uint64_t offset, char *name, size_t size)
{
	static const char *const registers[] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
						 "r8",	"r9",  "r10", "r11", "r12", "r13", "r14", "r15" };
	static const char *const segments[] = { "es", "cs", "ss", "ds", "fs", "gs" };
	static const struct {
		size_t offset;
		const char *name;
	} others[] = {
#define _(field, name) { offsetof(struct bt_vcpu, field), name },
		_(interp.v.s.fdp, "fdp") _(slot_r15, "slots") _(frame.target, "target") _(frame.jump, "jump_table")
			_(frame.exit_glue, "leave") _(frame.miss_glue, "tlb_miss") _(frame.call, "call")
				_(frame.value, "value") _(frame.x87, "last_x87")
#undef _
	};

	if (offset < sizeof(registers) / sizeof(registers[0]) * 8 && offset % 8 == 0) {
		snprintf(name, size, "%s", registers[offset / 8]);
		return true;
	}
	for (unsigned n = 0; n < ARRAY_SIZE(segments); n++)
		if (offset == offsetof(struct vcpu, s.seg_base) + 8 * n) {
			snprintf(name, size, "%s_base", segments[n]);
			return true;
		}
	for (unsigned n = 0; n < ARRAY_SIZE(others); n++)
		if (offset == others[n].offset) {
			snprintf(name, size, "%s", others[n].name);
			return true;
		}
	return false;
}

/* "gs:[0x50]" to "guest.r10". */
static void name_operand(char *text, size_t size, const char *state)
{
	char *at = strstr(text, state), *end, name[24], rest[TEXT_SIZE];
	uint64_t offset;

	if (!at)
		return;
	offset = strtoull(at + strlen(state), &end, 16);
	if (*end != ']' || !name_state(offset, name, sizeof(name)))
		return;
	snprintf(rest, sizeof(rest), "%s", end + 1);
	snprintf(at, size - (size_t)(at - text), "guest.%s%s", name, rest);
}

/* Bytes as they are in memory, then the instruction. `state`: how an operand in the vCPU's state begins. */
static unsigned trace_instruction(struct trace *trace, enum code_mode mode, const char *indent, const uint8_t *bytes,
				  size_t avail, uint64_t at, const char *state)
{
	char text[TEXT_SIZE], hex[3 * 15 + 1];
	unsigned len = cpu_disassemble(mode, bytes, avail, at, text, sizeof(text));

	if (state)
		name_operand(text, sizeof(text), state);
	for (unsigned n = 0; n < len; n++)
		snprintf(hex + 3 * n, 4, "%02x ", bytes[n]);
	trace_emit(trace, TRACE_BLOCKS, "%s%012llx  %-32s%s", indent, (unsigned long long)at, hex, text);
	return len;
}

/* Host instructions from offset `from` of the block to `to`. */
static void trace_host(struct vcpu *v, const struct bt_block *b, uint32_t from, uint32_t to)
{
	const uint8_t *code = bt_of(v)->cache.write + b->code;

	while (from < to)
		from += trace_instruction(v->trace, MODE_64, "        ", code + from, to - from,
					  bt_exec(bt_of(v), b) + from, bt_is_code32(b->key) ? "[r15+" : "gs:[");
}

static void trace_block(struct vcpu *v, const struct bt_block *b, const struct block *decoded)
{
	const struct bt_link *links = bt_links(b);
	uint32_t end = b->code_size;
	uint64_t base = v->s.rip - b->rip; /* not 0 for code that may be anywhere */
	char name[TEXT_SIZE];

	/* Look-ups come behind the instructions, the last exit's first. */
	for (unsigned k = 0; k < b->link_count; k++)
		if (links[k].stub < b->cold)
			end = links[k].stub - b->code;
	trace_lock(v->trace);
	trace_emit(v->trace, TRACE_BLOCKS,
		   "cpu %u: block %u, %s, physical %#llx, key %#x: %u instructions of %u bytes become %u bytes",
		   v->index, b->index, guest_code_name(v, v->s.rip, name, sizeof(name)), (unsigned long long)b->gpa,
		   b->key, b->count, decoded->bytes, b->code_size);
	for (unsigned n = 0; n < b->count; n++) {
		const struct insn *i = &decoded->insns[n];

		trace_instruction(v->trace, v->code_mode, "    ", i->bytes, i->len, v->s.rip + i->offset, NULL);
		/* What a loop looks up before its first round is shown with that. */
		trace_host(v, b, n ? b->insns[n].host : 0, n + 1 < b->count ? b->insns[n + 1].host : end);
	}
	for (unsigned k = 0; k < b->link_count; k++) {
		const struct bt_link *l = &bt_links(b)[k];

		trace_emit(v->trace, TRACE_BLOCKS, "    exit %u to %s%s", k,
			   guest_code_name(v, base + l->target, name, sizeof(name)),
			   l->other_page ? ", which rests on another page" : "");
		if (l->stub < b->cold)
			trace_host(v, b, l->stub - b->code,
				   k && links[0].stub < b->cold ? links[0].stub - b->code : b->code_size);
	}
	trace_unlock(v->trace);
}

void bt_report_block(struct vcpu *v, const struct bt_block *b, const struct block *decoded)
{
	perf_map_add(v->perf_map, bt_of(v)->cache.exec + b->code, b->code_size, v, v->s.rip);
	if (trace_on(v->trace, TRACE_BLOCKS))
		trace_block(v, b, decoded);
}

/* ---- why translated code faulted ---- */

static uint64_t device_accesses(const struct vcpu *v)
{
	return v->count[COUNT_MMIO_READS] + v->count[COUNT_MMIO_WRITES];
}

void bt_fault_begins(struct vcpu *v)
{
	struct bt_stats *s = &bt_of(v)->stats;

	s->in_fault = true;
	s->device_accesses = device_accesses(v);
	s->code_writes = v->count[COUNT_CODE_WRITES];
}

void bt_fault_ends(struct vcpu *v, bool raised)
{
	struct bt_stats *s = &bt_of(v)->stats;
	enum bt_fault_cause cause = BT_FAULT_OTHER;

	if (!s->in_fault)
		return;
	s->in_fault = false;
	if (raised)
		cause = v->fault.vector == EXC_PF ? BT_FAULT_PAGE_FAULT : BT_FAULT_EXCEPTION;
	else if (device_accesses(v) != s->device_accesses)
		cause = BT_FAULT_DEVICE;
	else if (v->count[COUNT_CODE_WRITES] != s->code_writes)
		cause = BT_FAULT_CODE;
	s->causes[cause]++;
}

/* ---- statistics ---- */

#define OPS_SHOWN 16

static void print_count(FILE *out, const char *what, uint64_t n)
{
	if (n)
		fprintf(out, "    %-46s %14llu\n", what, (unsigned long long)n);
}

/* Instructions by how often they were counted; the rest in one line. */
static void print_ops(FILE *out, const char *title, const uint64_t *count)
{
	bool shown[OP_COUNT] = { false };
	uint64_t rest = 0;

	fprintf(out, "  %s\n", title);
	for (unsigned n = 0; n < OPS_SHOWN; n++) {
		unsigned best = 0;

		for (unsigned op = 0; op < OP_COUNT; op++)
			if (!shown[op] && (shown[best] || count[op] > count[best]))
				best = op;
		shown[best] = true;
		print_count(out, cpu_op_name(best), count[best]);
	}
	for (unsigned op = 0; op < OP_COUNT; op++)
		rest += shown[op] ? 0 : count[op];
	print_count(out, "all others", rest);
}

static void print_windows(FILE *out, struct bt_windows *windows)
{
	struct bt_window_stats s;

	bt_windows_stats(windows, &s);
	fprintf(out, "  windows, of all CPUs\n");
#define _(field, what) print_count(out, what, s.field);
	BT_WINDOW_COUNTERS(_)
#undef _
}

void bt_stats_print(struct vcpu *v, FILE *out)
{
	static const char *const causes[] = {
#define _(name, what) [BT_FAULT_##name] = what,
		BT_FAULT_CAUSES(_)
#undef _
	};
	const struct bt_cpu *bt = bt_of(v);
	const struct bt_stats *s = &bt->stats;

	if (v->index == 0)
		print_windows(out, bt->windows);
	fprintf(out, "  translator of cpu %u\n", v->index);
#define _(field, what) print_count(out, what, s->field);
	BT_COUNTERS(_)
#undef _
	print_count(out, "KiB of code now", (bt->code_used + bt->code_size - bt->cold) >> 10);
	print_count(out, "KiB about blocks now", bt->meta_used >> 10);
	fprintf(out, "  its host faults by cause\n");
	for (unsigned n = 0; n < BT_FAULT_CAUSE_COUNT; n++)
		print_count(out, causes[n], s->causes[n]);
	print_ops(out, "its callouts by instruction", s->callouts);
	print_ops(out, "its instructions that faulted and went to C", s->fault_ops);
}
