/*
 * Flags, and interrupts that programs call, in real-address mode: PUSHF, POPF, CLI, INT n, IRET. In other modes, and where something
 * would have to be looked at behind the instruction, they are C's: fast.c.
 *
 * Until the last access of guest memory the status flags stay in the host's. POPF and IRET replace them, so behind their loads the host's
 * flags are free. C, when it does the instruction after all, begins anew, and takes them from the guest's stack as well.
 */
#include "engine/bt/emit.h"

#define RFLAGS	   ((uint32_t)offsetof(struct vcpu, s.rflags))
#define KEPT_RAX   ((uint32_t)offsetof(struct bt_vcpu, frame.value))
#define KEPT_ENTRY ((uint32_t)offsetof(struct bt_vcpu, frame.call))
/* The rest of 16 bits is reserved, and bit 1 always set. */
#define FLAGS_16   (FLAGS_STATUS | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT)
#define SYSTEM_16  (FLAGS_16 & ~FLAGS_STATUS)
#define ALWAYS_SET 2

/* ---- pieces ---- */

/* PEXT and PDEP of R11D, which keeps the bits of the mask, without a flag. R10 is lost. */
static void emit_mask_r11(struct emitter *e, uint32_t mask)
{
	static const uint8_t code[] = { 0xc4, 0x42, 0x22, 0xf5, 0xda,	/* pext %r10d, %r11d, %r11d */
					0xc4, 0x42, 0x23, 0xf5, 0xda }; /* pdep %r10d, %r11d, %r11d */

	emit_mov_imm(e, R10, mask);
	emit_bytes(e, code, sizeof(code));
}

/* Bits of RFLAGS become 0. R10 and R11 are lost. */
static void emit_clear(struct emitter *e, uint32_t bits)
{
	emit_load_state(e, R11, RFLAGS);
	emit_mask_r11(e, ~bits);
	emit_store_state(e, R11, RFLAGS);
}

/* What PUSHF stores, to R12. R10 and R11 are lost, RAX and the host's flags are not. */
static void emit_image(struct emitter *e)
{
	static const uint8_t status[] = { 0x9f,			  /* lahf: but for OF as RFLAGS has them, with bit 1 */
					  0x0f, 0x90, 0xc0,	  /* seto %al */
					  0x44, 0x0f, 0xb6, 0xd0, /* movzx %al, %r10d */
					  0x0f, 0xb6, 0xc4 };	  /* movzx %ah, %eax */
	const struct host_memory_operand with_of = { .base = R11, .index = R12 },
					 with_others = { .base = R12, .index = RAX };

	emit_load_state(e, R11, RFLAGS);
	emit_mask_r11(e, SYSTEM_16);
	emit_store_state(e, RAX, KEPT_RAX);
	emit_bytes(e, status, sizeof(status));
	emit_rotate(e, false, R12, R10, 32 - 11);
	emit_lea_operand(e, false, R12, &with_of);
	emit_lea_operand(e, false, R12, &with_others);
	emit_load_state(e, RAX, KEPT_RAX);
}

/* A short conditional jump over what comes before emit_here(). */
static uint8_t *emit_short_jump(struct emitter *e, uint8_t opcode)
{
	emit_bytes(e, (const uint8_t[]){ opcode, 0 }, 2);
	return e->at;
}

static void emit_here(struct emitter *e, uint8_t *jump)
{
	if (!e->full)
		jump[-1] = (uint8_t)(e->at - jump);
}

/* To where C does the instruction, on this condition. */
static void emit_slow(struct emitter *e, int cc)
{
	uint8_t *rel32 = emit_jump(e, cc, e->at + e->to_exec);

	if (rel32)
		e->slow[e->slow_count++] = rel32;
}

enum { NOT_EQUAL = 5 };

/* cmpb $0, offset(state) */
static void emit_compare_0(struct emitter *e, uint32_t offset)
{
	const struct host_memory_operand m = state_operand(offset);
	const struct encoding compare = { .opcode = { 0x80 }, .opcode_len = 1, .modrm = true, .reg = 7, .imm_len = 1 };

	emit_encoding(e, &compare, &m);
}

/* An instruction on a register with a constant: F7 /0 is TEST, 81 /4 AND, 81 /1 OR. */
static void emit_op_constant(struct emitter *e, uint8_t opcode, uint8_t reg, unsigned rm, uint32_t value)
{
	struct encoding c = {
		.opcode = { opcode }, .opcode_len = 1, .modrm = true, .reg = reg, .rm = (uint8_t)rm, .imm_len = 4
	};

	store_le32(c.imm, value);
	emit_encoding(e, &c, NULL);
}

/* Are the flags in R10 for C? TF and another DF make other blocks of what follows; IF may let an interrupt in that waits. */
static void emit_look_at_flags(struct emitter *e)
{
	uint8_t *stays_off;

	emit_op_constant(e, 0xf7, 0, R10, FLAG_TF | FLAG_DF);
	emit_slow(e, NOT_EQUAL);
	emit_op_constant(e, 0xf7, 0, R10, FLAG_IF);
	stays_off = emit_short_jump(e, 0x74);
	emit_compare_0(e, (uint32_t)offsetof(struct vcpu, interrupt_wanted));
	emit_slow(e, NOT_EQUAL);
	emit_here(e, stays_off);
}

/* The flags in R10 are those of now. */
static void emit_set_flags(struct emitter *e)
{
	static const uint8_t status[] = { 0x44, 0x89, 0xd0,	      /* mov %r10d, %eax */
					  0xc1, 0xe0, 8,	      /* shl $8, %eax */
					  0x41, 0x0f, 0xba, 0xe2, 11, /* bt $11, %r10d */
					  0x0f, 0x92, 0xc0,	      /* setc %al */
					  0x04, 0x7f,		      /* add $0x7f, %al: OF */
					  0x9e };		      /* sahf: the others */

	emit_op_constant(e, 0x81, 4, R10, FLAGS_16);
	emit_op_constant(e, 0x81, 1, R10, ALWAYS_SET);
	emit_store_state16(e, R10, RFLAGS);
	emit_store_state(e, RAX, KEPT_RAX);
	emit_bytes(e, status, sizeof(status));
	emit_load_state(e, RAX, KEPT_RAX);
}

static const struct encoding load_word_r10 = { .opcode = { 0x0f, 0xb7 }, .opcode_len = 2, .modrm = true, .reg = R10 };

/* ---- instructions ---- */

static enum emit_far emit_popf(struct emitter *e)
{
	const struct host_memory_operand m = emit_stack_operand(e, 0, 2, false);

	emit_encoding(e, &load_word_r10, &m);
	emit_look_at_flags(e);
	emit_move_stack(e, 2);
	emit_set_flags(e);
	return FAR_NEXT;
}

static enum emit_far emit_iret(struct emitter *e)
{
	struct host_memory_operand m = emit_stack_parts(e, 0, 6);

	emit_op(e, false, 0x8b, R12, &m);
	m.disp += 4;
	emit_encoding(e, &load_word_r10, &m);
	emit_compare_0(e, (uint32_t)offsetof(struct vcpu, s.nmi_blocked));
	emit_slow(e, NOT_EQUAL);
	emit_look_at_flags(e);
	emit_move_stack(e, 6);
	emit_set_flags(e);
	emit_go_far(e);
	return FAR_COMPUTED;
}

/* The vector table's entry waits in the state. */
static enum emit_far emit_int(struct emitter *e, uint8_t vector, uint32_t next)
{
	struct host_memory_operand entry = { .base = R11, .index = HOST_NONE, .guest = true, .disp = 4 * vector }, m,
				   flags;

	emit_mov_imm(e, R10, 4u * vector);
	emit_check_limit(e, (uint32_t)offsetof(struct bt_vcpu, frame.idt_limit), 4);
	emit_load_state(e, R11, (uint32_t)offsetof(struct vcpu, s.idtr_base));
	emit_op(e, false, 0x8b, R12, &entry);
	emit_store_state(e, R12, KEPT_ENTRY);
	emit_image(e);
	flags = m = emit_stack_parts(e, -6, 6);
	flags.disp += 4;
	emit_op_sized(e, 2, 0x89, R12, &flags);
	emit_far_return_r12(e, next);
	emit_op(e, false, 0x89, R12, &m);
	emit_move_stack(e, -6);
	emit_clear(e, FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF);
	emit_load_state(e, R12, KEPT_ENTRY);
	emit_go_far(e);
	return FAR_COMPUTED;
}

bool emit_pushf(struct emitter *e, const struct insn *i)
{
	if (!e->no_paging || i->opsize != 2)
		return false;
	emit_image(e);
	emit32_push_register(e, R12, 2);
	return true;
}

enum emit_far emit_interrupt_insn(struct emitter *e, const struct insn *i, uint32_t next)
{
	bool far = i->op == OP_INT || i->op == OP_IRET;

	if (!e->no_paging || e->down || (far && (!emit_sets_base_alone(e, CS) || !emit_spans_parts(e, SS))))
		return FAR_CALLOUT;
	switch (i->op) {
	case OP_CLI: emit_clear(e, FLAG_IF); return FAR_NEXT;
	case OP_POPF: return i->opsize == 2 ? emit_popf(e) : FAR_CALLOUT;
	case OP_IRET: return i->opsize == 2 ? emit_iret(e) : FAR_CALLOUT;
	case OP_INT: return emit_int(e, (uint8_t)i->imm, next);
	default: return FAR_CALLOUT;
	}
}
