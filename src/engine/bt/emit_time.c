/*
 * RDTSC and RDTSCP: the guest's counter is the host's, moved. Nothing here writes flags. R10 and R11 are lost.
 */
#include "engine/bt/emit.h"

static const uint32_t clock_offset = (uint32_t)offsetof(struct bt_vcpu, frame.tsc_offset);
static const uint32_t guest_offset = (uint32_t)offsetof(struct vcpu, s.tsc_offset);
static const uint32_t aux = (uint32_t)offsetof(struct vcpu, s.msr_tsc_aux);

static void emit_add_state(struct emitter *e, uint32_t offset)
{
	const struct host_memory_operand sum = { .base = R10, .index = R11 };

	emit_load_state(e, R11, offset);
	emit_lea_operand(e, true, R10, &sum);
}

void emit_tsc(struct emitter *e, bool with_aux)
{
	static const uint8_t rdtsc[] = { 0x0f, 0x31 }, rdtscp[] = { 0x0f, 0x01, 0xf9 };
	static const uint8_t join[] = { 0x41, 0xba, 32,	  0,	0,    0, /* mov $32, %r10d */
					0xc4, 0xe2, 0xa9, 0xf7, 0xd2,	 /* shlx %r10, %rdx, %rdx */
					0x4c, 0x8d, 0x14, 0x10 };	 /* lea (%rax,%rdx), %r10 */
	static const uint8_t split[] = { 0x44, 0x89, 0xd0,		 /* mov %r10d, %eax */
					 0x41, 0xbb, 32,   0,	 0,   0, /* mov $32, %r11d */
					 0xc4, 0xc2, 0xa3, 0xf7, 0xd2 }; /* shrx %r11, %r10, %rdx */
	const struct host_memory_operand number = state_operand(aux);

	if (with_aux)
		emit_bytes(e, rdtscp, sizeof(rdtscp));
	else
		emit_bytes(e, rdtsc, sizeof(rdtsc));
	emit_bytes(e, join, sizeof(join));
	emit_add_state(e, clock_offset);
	emit_add_state(e, guest_offset);
	emit_bytes(e, split, sizeof(split));
	emit_forget(e, RAX);
	emit_forget(e, RDX);
	emit_forget_windows(e);
	if (with_aux) {
		emit_op(e, false, 0x8b, RCX, &number);
		emit_forget(e, RCX);
	}
}
