/*
 * Ways out of a block: to C, and by the jump table to where a linear address is translated.
 *
 * Every look-up is emitted where it is needed and ends in a jump of its own: the processor predicts it by its address. It writes no
 * flags: the index comes from CRC32 and SHRX, and the comparison is adding the negated key and JRCXZ, for which RCX waits in
 * memory. Entries are written by C alone and lead to blocks. A kick makes bt_frame.jump a table in which nothing is found,
 * and begins a look-up that it interrupts again (signal.c): R10 stays as it is until the end.
 */
#include "engine/bt/emit.h"
#include "engine/bt/runtime.h"

/* The pointer to the table is so much higher than the table: what bits of the CRC are shifted by. */
#define BIAS (32 - BT_JUMP_BITS)

static const uint32_t jump_offset = (uint32_t)offsetof(struct bt_vcpu, frame.jump);

/* mov $arg, %r11d; jmp *glue(state) */
static void emit_way_out(struct emitter *e, uint32_t arg, size_t glue)
{
	emit_mov_imm(e, R11, arg);
	emit_jump_state(e, (uint32_t)glue);
}

void emit_leave(struct emitter *e, uint32_t arg) { emit_way_out(e, arg, offsetof(struct bt_vcpu, frame.exit_glue)); }

void emit_fast(struct emitter *e, uint32_t arg) { emit_way_out(e, arg, offsetof(struct bt_vcpu, frame.fast_glue)); }

/* RCX is the key of the table's entry: is it R10's? */
static void emit_compare(struct emitter *e, uint32_t arg)
{
	const uint8_t code[] = { 0x4a, 0x8d, 0x0c, 0x11, /* lea (%rcx,%r10), %rcx */
				 0xe3, 0 /* jrcxz hit */ };
	uint8_t *hit;

	emit_bytes(e, code, sizeof(code));
	hit = e->at;
	emit_way_out(e, arg, offsetof(struct bt_vcpu, frame.miss_glue));
	if (!e->full)
		hit[-1] = (uint8_t)(e->at - hit);
	emit_load_state(e, RCX, BT_GPR(RCX));
}

/* jmp *disp(%r11) */
static void emit_jump_r11(struct emitter *e, int32_t disp)
{
	struct host_memory_operand code = based_operand(R11, disp);

	emit_op(e, false, 0xff, 4, &code);
}

uint8_t *emit_lookup(struct emitter *e, uint32_t arg)
{
	static const uint8_t find[] = {
		0xb9, 0,    0,	  0,
		0, /* mov $0, %ecx */
		0xf2, 0x49, 0x0f, 0x38,
		0xf1, 0xca, /* crc32 %r10, %rcx */
		0xc4, 0xe2, 0x23, 0xf7,
		0xc9,				  /* shrx %r11d, %ecx, %ecx */
		0x48, 0x8d, 0x0c, 0x09,		  /* lea (%rcx,%rcx), %rcx */
		0x4d, 0x8d, 0x1c, 0xcb,		  /* lea (%r11,%rcx,8), %r11 */
		0x49, 0x8b, 0x4b, (uint8_t)-BIAS, /* mov -BIAS(%r11), %rcx */
	};
	uint8_t *restart;

	emit_store_state(e, RCX, BT_GPR(RCX));
	restart = e->at;
	emit_load_state(e, R11, jump_offset);
	emit_bytes(e, find, sizeof(find));
	emit_compare(e, arg);
	emit_jump_r11(e, 8 - BIAS);
	return restart;
}

void emit_note_code_base(struct emitter *e, unsigned offset)
{
	emit_lea(e, R11, R10, -(int32_t)offset);
	emit_store_state(e, R11, (uint32_t)offsetof(struct bt_vcpu, frame.code_base));
}

uint8_t *emit_lookup_constant(struct emitter *e, uint64_t target, uint32_t arg)
{
	if (e->anywhere) {
		emit_code_address(e, R10, target);
		return emit_lookup(e, arg);
	}

	int32_t entry = (int32_t)(bt_jump_index(target) * sizeof(struct jump_target)) - BIAS;
	struct host_memory_operand key = based_operand(R11, entry);
	uint8_t *restart;

	emit_store_state(e, RCX, BT_GPR(RCX));
	restart = e->at;
	emit_load_state(e, R11, jump_offset);
	emit_mov_imm(e, R10, target);
	emit_op(e, true, 0x8b, RCX, &key);
	emit_compare(e, arg);
	emit_jump_r11(e, entry + 8);
	return restart;
}
