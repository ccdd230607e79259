/*
 * String instructions become themselves: RSI and RDI are moved into their windows, and back behind the instruction. Windows of
 * neighbouring pages are neighbours, so a repetition runs on until it is done or faults; at the window's end it runs into
 * the guard. While the instruction itself is where the host is, the registers are the host's: the signal handlers give them
 * back. For DF = 0, which blocks are keyed by, and by windows alone.
 *
 * 32-bit code: GS base cannot be the destination's segment, so for repetitions the pointers are moved there too, into the window of
 * slot 0, and cut to 32 bits behind the instruction. All else of 16- and 32-bit code is in emit_string16.c.
 */
#include "engine/bt/emit.h"
#include "engine/bt/runtime.h"

struct string_op {
	uint16_t op;
	uint8_t opcode; /* of the form for bytes */
	uint8_t pointers;
};

static const struct string_op string_ops[] = {
	{ OP_MOVSB, 0xa4, BT_STRING_SOURCE | BT_STRING_DESTINATION },
	{ OP_MOVSW, 0xa4, BT_STRING_SOURCE | BT_STRING_DESTINATION },
	{ OP_MOVSD_STRING, 0xa4, BT_STRING_SOURCE | BT_STRING_DESTINATION },
	{ OP_MOVSQ, 0xa4, BT_STRING_SOURCE | BT_STRING_DESTINATION },
	{ OP_CMPSB, 0xa6, BT_STRING_SOURCE | BT_STRING_DESTINATION },
	{ OP_CMPSW, 0xa6, BT_STRING_SOURCE | BT_STRING_DESTINATION },
	{ OP_CMPSD_STRING, 0xa6, BT_STRING_SOURCE | BT_STRING_DESTINATION },
	{ OP_CMPSQ, 0xa6, BT_STRING_SOURCE | BT_STRING_DESTINATION },
	{ OP_STOSB, 0xaa, BT_STRING_DESTINATION },
	{ OP_STOSW, 0xaa, BT_STRING_DESTINATION },
	{ OP_STOSD, 0xaa, BT_STRING_DESTINATION },
	{ OP_STOSQ, 0xaa, BT_STRING_DESTINATION },
	{ OP_LODSB, 0xac, BT_STRING_SOURCE },
	{ OP_LODSW, 0xac, BT_STRING_SOURCE },
	{ OP_LODSD, 0xac, BT_STRING_SOURCE },
	{ OP_LODSQ, 0xac, BT_STRING_SOURCE },
	{ OP_SCASB, 0xae, BT_STRING_DESTINATION },
	{ OP_SCASW, 0xae, BT_STRING_DESTINATION },
	{ OP_SCASD, 0xae, BT_STRING_DESTINATION },
	{ OP_SCASQ, 0xae, BT_STRING_DESTINATION },
};

static const struct string_op *find_op(const struct insn *i)
{
	for (unsigned n = 0; n < ARRAY_SIZE(string_ops); n++)
		if (string_ops[n].op == i->op)
			return &string_ops[n];
	return NULL;
}

void emit_string_instruction(struct emitter *e, const struct insn *i, uint8_t opcode)
{
	struct encoding c = { .w = i->opsize == 8, .opcode = { opcode | (i->opsize > 1) }, .opcode_len = 1 };

	if (i->opsize == 2)
		c.prefixes |= PREFIX_66;
	if (i->flags & INSN_REP)
		c.prefixes |= PREFIX_F3;
	if (i->flags & INSN_REPNE)
		c.prefixes |= PREFIX_F2;
	emit_encoding(e, &c, NULL);
}

/* pointer += window */
static void enter_window(struct emitter *e, unsigned pointer, unsigned window)
{
	const struct host_memory_operand sum = { .base = (uint8_t)pointer, .index = (uint8_t)window };

	emit_lea_operand(e, true, pointer, &sum);
}

/* pointer -= window, without flags: + ~window + 1. The window is lost. */
static void leave_window(struct emitter *e, unsigned pointer, unsigned window)
{
	const struct host_memory_operand sum = { .base = (uint8_t)pointer, .index = (uint8_t)window, .disp = 1 };

	emit_not(e, window);
	emit_lea_operand(e, !e->code32, pointer, &sum);
}

static bool pointers_are_usable(const struct emitter *e, const struct insn *i, uint8_t pointers)
{
	bool source = pointers & BT_STRING_SOURCE, destination = pointers & BT_STRING_DESTINATION;

	if (e->way == BY_TLB)
		return false;
	if (e->code32)
		return i->addrsize == 4 && (!source || emit_is_flat(e, i->seg)) &&
		       (!destination || emit_is_flat(e, ES));
	return i->addrsize == 8 && (!source || i->seg < FS);
}

/* R10 is RSI's window, R11 RDI's. */
static void load_windows(struct emitter *e, uint8_t pointers)
{
	const struct host_memory_operand slot_0 = based_operand(R10, -SLOT_SHIFT);

	if (e->code32) {
		emit_load_state(e, R10, (uint32_t)offsetof(struct bt_vcpu, slot_r15));
		emit_op(e, true, 0x8b, R10, &slot_0);
		emit_move(e, R11, R10);
		return;
	}
	if (pointers & BT_STRING_SOURCE)
		emit_load_window(e, R10, RSI);
	if (pointers & BT_STRING_DESTINATION)
		emit_load_window(e, R11, RDI);
}

/* False: nothing was emitted. */
bool emit_string(struct emitter *e, const struct insn *i)
{
	const struct string_op *string = find_op(i);

	if (!string)
		return false;
	if (e->code32 && (emit_string_element(e, i, string->opcode, string->pointers) ||
			  emit_string_repeated16(e, i, string->opcode, string->pointers)))
		return true;
	if (e->down || !pointers_are_usable(e, i, string->pointers))
		return false;
	load_windows(e, string->pointers);
	if (string->pointers & BT_STRING_SOURCE)
		enter_window(e, RSI, R10);
	if (string->pointers & BT_STRING_DESTINATION)
		enter_window(e, RDI, R11);
	e->string_at = e->at;
	e->string_pointers = string->pointers;
	emit_string_instruction(e, i, string->opcode);
	if (string->pointers & BT_STRING_SOURCE)
		leave_window(e, RSI, R10);
	if (string->pointers & BT_STRING_DESTINATION)
		leave_window(e, RDI, R11);
	emit_forget(e, RSI);
	emit_forget(e, RDI);
	emit_forget(e, RAX);
	emit_forget(e, RCX);
	emit_forget_windows(e);
	return true;
}
