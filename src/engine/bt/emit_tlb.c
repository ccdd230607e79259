/*
 * Addresses by the software TLB, in line, without touching flags.
 *
 * What cpu_load() and cpu_store() do in C: the entry of the page, whose tag must be that of the page of the access's last
 * byte, so that an access that leaves the page is never found; then the entry's addend leads to the host's address. Only C
 * writes entries, and only for pages of guest RAM and ROM: whatever R10 holds, R11 is either inside the page that the entry is for,
 * with all of the access, or the code leaves to C.
 *
 * All look-ups are the same but for a size, the tag's place and an exit argument: the code is made once and copied.
 */
#include "engine/bt/emit.h"

#include <stdlib.h>

struct tlb_lookup {
	uint8_t code[192];
	uint8_t len, size_at, tag_at,
		arg_at; /* where to patch: the displacements of LEA and of the tag's load, the exit argument */
};

_Static_assert(sizeof(struct tlb_entry) == 32, "the entry's index is shifted by 5");

enum shift { SHLX = 1, SHRX = 3 }; /* VEX.pp */

/* shlx or shrx by, reg, to: VEX.LZ.0F38.W1 F7 */
static void emit_shift(struct emitter *e, enum shift shift, unsigned to, unsigned reg, unsigned by)
{
	const struct encoding c = { .vex = true,
				    .map = 2,
				    .pp = (uint8_t)shift,
				    .w = true,
				    .opcode = { 0xf7 },
				    .opcode_len = 1,
				    .modrm = true,
				    .reg = (uint8_t)to,
				    .rm = (uint8_t)reg,
				    .vvvv = (uint8_t)by };

	emit_encoding(e, &c, NULL);
}

static void emit_lea_sum(struct emitter *e, unsigned to, unsigned base, unsigned index, unsigned scale, int32_t disp)
{
	const struct host_memory_operand m = {
		.base = (uint8_t)base, .index = (uint8_t)index, .scale = (uint8_t)scale, .disp = disp
	};

	emit_op(e, true, 0x8d, to, &m);
}

static void emit_load(struct emitter *e, unsigned to, unsigned base, int32_t disp)
{
	const struct host_memory_operand m = based_operand(base, disp);

	emit_op(e, true, 0x8b, to, &m);
}

/* Where the last byte that was written is: an 8-bit displacement, if it was not 0. */
static uint8_t last_byte(const struct emitter *e, const struct tlb_lookup *t) { return (uint8_t)(e->at - t->code - 1); }

/* mov $arg, %r11d; jmp *fast_glue(state), with the address for C to see. */
static void emit_miss(struct emitter *e, struct tlb_lookup *t)
{
	static const uint8_t mov[6] = { 0x41, 0xbb };

	emit_load_state(e, RCX, BT_GPR(RCX));
	emit_store_state(e, R10, (uint32_t)offsetof(struct bt_vcpu, frame.target));
	emit_bytes(e, mov, sizeof(mov));
	t->arg_at = (uint8_t)(e->at - t->code - 4);
	emit_jump_state(e, (uint32_t)offsetof(struct bt_vcpu, frame.fast_glue));
}

/* In 32-bit code R15 is what state is reached by: there R12 leads to the entry. */
static void make_lookup(struct emitter *e, struct tlb_lookup *t)
{
	const uint8_t jrcxz[2] = { 0xe3 };
	const unsigned entry = e->code32 ? R12 : R15;
	uint8_t *hit;

	if (e->code32)
		emit_store_state(e, R12, (uint32_t)offsetof(struct bt_vcpu, frame.value));
	emit_store_state(e, RCX, BT_GPR(RCX));
	/* RCX = entry's index: bits 21..12 of the address */
	emit_mov_imm(e, R11, PAGE_SHIFT);
	emit_shift(e, SHRX, RCX, R10, R11);
	emit_mov_imm(e, entry, 64 - TLB_BITS);
	emit_shift(e, SHLX, RCX, RCX, entry);
	emit_shift(e, SHRX, RCX, RCX, entry);
	emit_load_state(e, entry, (uint32_t)offsetof(struct vcpu, tlb));
	emit_lea_sum(e, RCX, HOST_NONE, RCX, 2, 0);
	emit_lea_sum(e, entry, entry, RCX, 3, 0);
	/* RCX = the tag it must have: page of the last byte, and the address space */
	emit_lea_sum(e, RCX, R10, HOST_NONE, 0, 1);
	t->size_at = last_byte(e, t);
	emit_shift(e, SHRX, RCX, RCX, R11);
	emit_shift(e, SHLX, RCX, RCX, R11);
	emit_load_state(e, R11, (uint32_t)offsetof(struct vcpu, asid));
	emit_lea_sum(e, RCX, RCX, R11, 0, 0);
	/* RCX = that minus the tag it has */
	emit_load(e, R11, entry, 1);
	t->tag_at = last_byte(e, t);
	emit_not(e, R11);
	emit_lea_sum(e, RCX, RCX, R11, 0, 1);
	emit_load(e, R11, entry, offsetof(struct tlb_entry, addend));
	emit_lea_sum(e, R11, R11, R10, 0, 0);
	if (e->code32)
		emit_load_state(e, R12, (uint32_t)offsetof(struct bt_vcpu, frame.value));
	else
		emit_load_state(e, R15, (uint32_t)offsetof(struct bt_vcpu, slot_r15));
	emit_bytes(e, jrcxz, sizeof(jrcxz));
	hit = e->at;
	emit_miss(e, t);
	hit[-1] = (uint8_t)(e->at - hit);
	emit_load_state(e, RCX, BT_GPR(RCX));
}

struct tlb_lookup *bt_tlb_lookup_create(bool code32)
{
	struct tlb_lookup *t = calloc(1, sizeof(*t));
	struct emitter e = { .code32 = code32 };

	if (!t)
		return NULL;
	e.at = t->code;
	e.end = t->code + sizeof(t->code) + EMIT_SLACK;
	make_lookup(&e, t);
	BUG_ON(e.full || e.at > t->code + sizeof(t->code));
	t->len = (uint8_t)(e.at - t->code);
	return t;
}

void emit_tlb_lookup(struct emitter *e, unsigned size, bool write)
{
	const struct tlb_lookup *t = e->tlb_lookup;
	uint8_t *code = e->at;

	emit_bytes(e, t->code, t->len);
	emit_forget_windows(e);
	if (e->full)
		return;
	code[t->size_at] = (uint8_t)(size - 1);
	code[t->tag_at] = write ? offsetof(struct tlb_entry, write_tag) : offsetof(struct tlb_entry, read_tag);
	store_le32(code + t->arg_at, e->exit_arg + write);
}

struct host_memory_operand emit_guest_operand(struct emitter *e, unsigned base, int32_t disp, unsigned size, bool write,
					      bool r10_free)
{
	if (e->way == BY_WINDOWS)
		return windowed_operand(emit_window(e, base, r10_free), base, disp);
	emit_lea_sum(e, R10, base, HOST_NONE, 0, disp);
	emit_tlb_lookup(e, size, write);
	return based_operand(R11, 0);
}
