/* Translating a block: its instructions one after the other, then how it goes on. */
#include "engine/bt/emit.h"
#include "engine/bt/runtime.h"

struct translation {
	struct vcpu *v;
	struct bt_cpu *bt;
	struct bt_block *b;
	const struct code_page *home;
	struct emitter e;
	uint64_t rip;  /* address (bt_address()) of the instruction at hand */
	uint64_t next; /* and of the one behind it */
	unsigned n;    /* its number */
};

static uint16_t offset_of(const struct translation *t, const uint8_t *at)
{
	return (uint16_t)(at - (t->bt->cache.write + t->b->code));
}

/* The look-up just emitted. */
static void note_lookup(struct translation *t, unsigned n, const uint8_t *restart)
{
	t->b->lookups[n].restart = offset_of(t, restart);
	t->b->lookups[n].end = offset_of(t, t->e.at);
}

/* A direct way out, jumping to its stub, which is emitted later. Without a condition it has BT_LINK_JUMP bytes: see link.c. */
static void add_link(struct translation *t, int cc, uint64_t target)
{
	const uint8_t prefix = 0x40;
	struct bt_link *l = &bt_links(t->b)[t->b->link_count];
	uint64_t from = bt_linear(t->v, t->b->rip), to = bt_linear(t->v, target);

	t->b->link_count++;
	*l = (struct bt_link){ .from = bt_ref_of(t->bt, t->b), .target = target, .conditional = cc >= 0 };
	/* Near its end, an instruction may go on in the next page. */
	l->other_page = ((to ^ from) & PAGE_MASK) || (to & ~PAGE_MASK) > PAGE_SIZE - 15;
	if (cc < 0)
		emit_bytes(&t->e, &prefix, 1);
	if (emit_jump(&t->e, cc, t->e.at + t->e.to_exec))
		l->rel32 = (uint32_t)(t->e.at - 4 - t->bt->cache.write) & BT_REL32_MAX;
}

static bool looks_up(const struct translation *t, const struct bt_link *l) { return l->other_page && t->home->shared; }

static uint32_t cache_offset(const struct translation *t) { return (uint32_t)(t->e.at - t->bt->cache.write); }

static void begin_stub(struct translation *t, struct bt_link *l)
{
	l->stub = cache_offset(t) & INT32_MAX;
	store_le32(t->bt->cache.write + l->rel32, l->stub - (l->rel32 + 4u));
}

/* Does the block's code, so far, end in the link's jump? */
static bool ends_in(const struct translation *t, const struct bt_link *l)
{
	return !l->conditional && l->rel32 + 4u == cache_offset(t);
}

/* Ways out that look their target up are the end of the block's code. The last one needs no jump to there. */
static void emit_link_lookups(struct translation *t)
{
	struct bt_link *links = bt_links(t->b);

	for (unsigned k = t->b->link_count; k-- > 0 && !t->e.full;) {
		uint32_t arg = BT_EXIT_ARG(t->b->index, t->n, BT_EXIT_LOOKUP0 + k);

		if (!looks_up(t, &links[k]))
			continue;
		if (ends_in(t, &links[k])) {
			t->e.at -= BT_LINK_JUMP;
			links[k].rel32 = 0;
			links[k].stub = cache_offset(t) & INT32_MAX;
		} else {
			begin_stub(t, &links[k]);
		}
		note_lookup(t, k, emit_lookup_constant(&t->e, links[k].target, arg));
	}
	for (unsigned k = 0; k < t->b->link_count && !t->e.full; k++)
		links[k].last = ends_in(t, &links[k]);
}

/* At most, of a block's exit that is not linked; of where look-ups lead to a block that comes right behind another; all that seldom runs. */
#define STUB_SIZE  14
#define ENTRY_SIZE 21
#define COLD_SIZE  (BT_MAX_LINKS * STUB_SIZE + ENTRY_SIZE)

/* What seldom runs is at the other end of the cache. */
static void emit_cold(struct translation *t, bool with_entry)
{
	struct bt_cpu *bt = t->bt;
	struct bt_link *links = bt_links(t->b);
	uint32_t size = with_entry ? ENTRY_SIZE : 0;

	for (unsigned k = 0; k < t->b->link_count; k++)
		size += looks_up(t, &links[k]) ? 0 : STUB_SIZE;
	t->b->cold = (uint32_t)bt->cold - size;
	t->e.at = bt->cache.write + t->b->cold;
	t->e.end = bt->cache.write + bt->cold + EMIT_SLACK;
	if (with_entry) { /* bt_entry() */
		emit_note_code_base(&t->e, (unsigned)t->b->rip);
		emit_jump(&t->e, -1, (void *)(uintptr_t)bt_exec(bt, t->b));
	}
	for (unsigned k = 0; k < t->b->link_count; k++)
		if (!looks_up(t, &links[k])) {
			begin_stub(t, &links[k]);
			emit_leave(&t->e, BT_EXIT_ARG(t->b->index, t->n, BT_EXIT_LINK0 + k));
		}
}

static void emit_way_to_c(struct translation *t, const struct insn *i)
{
	uint32_t arg = BT_EXIT_ARG(t->b->index, t->n, BT_EXIT_CALLOUT);

	if (bt_is_fast(i))
		emit_fast(&t->e, arg);
	else
		emit_leave(&t->e, arg);
}

static void emit_callout(struct translation *t, const struct insn *i)
{
	emit_way_to_c(t, i);
	emit_forget_windows(&t->e);
	if (bt_is_fast_and_falls_through(i) && (i->flags & INSN_ENDS)) {
		t->b->insns[t->n + 1].host = offset_of(t, t->e.at);
		add_link(t, -1, t->next);
	}
}

/* Go on at the address in R10. */
static void emit_indirect(struct translation *t)
{
	note_lookup(t, 0, emit_lookup(&t->e, BT_EXIT_ARG(t->b->index, t->n, BT_EXIT_INDIRECT)));
}

/* The address of this RIP. */
static uint64_t address_of(const struct translation *t, uint64_t rip)
{
	return t->e.code32 ? (uint64_t)t->e.code_base << 32 | (uint32_t)rip : rip;
}

/* Where a direct branch goes; false: it faults. */
static bool direct_target(const struct translation *t, const struct insn *i, uint64_t *target)
{
	*target = address_of(t, t->next + i->imm);
	if (!t->e.code32)
		return is_canonical(*target);
	if (i->opsize == 2)
		*target &= ~0xffff0000ull;
	return (uint32_t)*target <= t->e.code_limit;
}

/*
 * CALL of the address in R10, which waits in the state while the return address is pushed. An address that is not canonical has no
 * slot: looking that up faults before anything is pushed.
 */
static void emit_call(struct translation *t)
{
	emit_check_canonical(&t->e, R10);
	emit_store_state(&t->e, R10, offsetof(struct bt_vcpu, frame.call));
	emit_push_code_address(&t->e, t->next);
	emit_load_state(&t->e, R10, offsetof(struct bt_vcpu, frame.call));
	emit_indirect(t);
}

/* The same of 16- and 32-bit code: what is beyond the limit of CS faults before anything is pushed, too. */
static void emit_call32(struct translation *t, unsigned opsize)
{
	emit32_check_target(&t->e, opsize);
	emit_move(&t->e, R12, R10);
	emit32_push_constant(&t->e, (uint32_t)t->next, opsize);
	emit_move(&t->e, R10, R12);
	emit32_code_address(&t->e);
	emit_indirect(t);
}

/* ECX to R10, CX to ECX: whether CX is 0 is known then without flags. And back. */
static void begin_count16(struct translation *t)
{
	static const uint8_t code[] = { 0x41, 0x89, 0xca, /* mov %ecx, %r10d */
					0x0f, 0xb7, 0xc9 /* movzx %cx, %ecx */ };

	emit_bytes(&t->e, code, sizeof(code));
}
static const uint8_t end_count16[] = { 0x44, 0x89, 0xd1 }; /* mov %r10d, %ecx */

/* JCXZ and LOOP with CX: as emit_counted(), but that ECX has to be put back either way. */
static void emit_counted16(struct translation *t, const struct insn *i, uint64_t target)
{
	static const uint8_t count_down[] = { 0x66, 0x8d, 0x49, 0xff }; /* lea -1(%rcx), %cx */
	const uint8_t jump_len = BT_LINK_JUMP, jcc_len = 2, back_len = sizeof(end_count16);
	bool jcxz = i->op == OP_JCXZ, plain = jcxz || i->op == OP_LOOP;
	uint8_t jrcxz[2] = { 0xe3, (uint8_t)(back_len + (plain ? 0 : jcc_len) + jump_len) };

	if (!jcxz)
		emit_bytes(&t->e, count_down, sizeof(count_down));
	begin_count16(t);
	emit_bytes(&t->e, jrcxz, sizeof(jrcxz));
	emit_bytes(&t->e, end_count16, back_len);
	if (!plain)
		emit_bytes(&t->e, (const uint8_t[]){ i->op == OP_LOOPE ? 0x75 : 0x74, jump_len + back_len }, jcc_len);
	add_link(t, -1, jcxz ? t->next : target);
	emit_bytes(&t->e, end_count16, back_len);
	add_link(t, -1, jcxz ? target : t->next);
}

/* JRCXZ and LOOP. Distances are those to what add_link() emits. */
static void emit_counted(struct translation *t, const struct insn *i, uint64_t target)
{
	const uint8_t jump_len = BT_LINK_JUMP, jcc_len = 2;
	uint8_t zero[3] = { 0x67, 0xe3 }, *jump = i->addrsize == 8 ? zero + 1 : zero;
	size_t len = i->addrsize == 8 ? 2 : 3;

	if (i->op == OP_JRCXZ || i->op == OP_JECXZ) {
		/* jrcxz taken; jmp next; taken: jmp target */
		zero[2] = jump_len;
		emit_bytes(&t->e, jump, len);
		add_link(t, -1, t->next);
		add_link(t, -1, target);
		return;
	}
	emit_count_down(&t->e, i->addrsize == 8);
	zero[2] = jump_len + (i->op == OP_LOOP ? 0 : jcc_len);
	emit_bytes(&t->e, jump, len);
	if (i->op != OP_LOOP)
		emit_bytes(&t->e, (const uint8_t[]){ i->op == OP_LOOPE ? 0x75 : 0x74, jump_len }, jcc_len);
	add_link(t, -1, target);
	add_link(t, -1, t->next);
}

/* Branches to what a register, memory or the stack says. False: C does it. */
static bool emit_computed(struct translation *t, const struct insn *i, const struct insn_host *h)
{
	if (i->op == OP_RET)
		emit_pop_target(&t->e, i->imm & 0xffff);
	else if (emit_operand_r10(&t->e, i, h, t->rip) != EMIT_DONE)
		return false;
	if (i->op == OP_CALL)
		emit_call(t);
	else
		emit_indirect(t);
	return true;
}

static bool emit_computed32(struct translation *t, const struct insn *i, const struct insn_host *h)
{
	if (i->op == OP_RET) {
		emit32_pop_target(&t->e, i->opsize, i->imm & 0xffff);
	} else if (emit_operand_r10(&t->e, i, h, t->rip) != EMIT_DONE) {
		return false;
	} else if (i->op == OP_CALL) {
		emit_call32(t, i->opsize);
		return true;
	} else {
		emit32_check_target(&t->e, i->opsize);
	}
	emit32_code_address(&t->e);
	emit_indirect(t);
	return true;
}

/* Instructions of 16- and 32-bit code with segment registers. */
static bool emit_segments(struct translation *t, const struct insn *i)
{
	uint64_t target;

	t->e.slow_count = 0;
	switch (emit_segment_insn(&t->e, i, (uint32_t)t->next, &target)) {
	case FAR_NEXT:
		t->b->insns[t->n + 1].host = offset_of(t, t->e.at); /* for go_on_by_link() */
		add_link(t, -1, t->next);
		break;
	case FAR_DIRECT: add_link(t, -1, target); break;
	case FAR_COMPUTED: emit_indirect(t); break;
	default: return false;
	}
	for (unsigned n = 0; n < t->e.slow_count; n++)
		store_le32(t->e.slow[n], (uint32_t)(t->e.at - (t->e.slow[n] + 4)));
	if (t->e.slow_count)
		emit_way_to_c(t, i);
	return true;
}

/* The block's last instruction if it ends the block; false: C does it. */
static bool emit_end(struct translation *t, const struct insn *i, const struct insn_host *h)
{
	uint64_t target;

	if (t->e.code32 && emit_segments(t, i))
		return true;
	if (i->op < OP_CALL || i->op > OP_LOOPNE || (i->opsize != 8 && !t->e.code32))
		return false;
	if (i->op == OP_RET || i->form != FORM_I)
		return t->e.code32 ? emit_computed32(t, i, h) : emit_computed(t, i, h);
	if (!direct_target(t, i, &target))
		return false;
	if (i->op == OP_CALL && t->e.code32)
		emit32_push_constant(&t->e, (uint32_t)t->next, i->opsize);
	else if (i->op == OP_CALL)
		emit_push_code_address(&t->e, t->next);
	if (i->op == OP_CALL || i->op == OP_JMP) {
		add_link(t, -1, target);
	} else if (i->op <= OP_JNLE) {
		add_link(t, i->op - OP_JO, target);
		add_link(t, -1, t->next);
	} else if (i->addrsize == 2) {
		emit_counted16(t, i, target);
	} else {
		emit_counted(t, i, target);
	}
	return true;
}

/*
 * x87 instructions that change what a pending exception is go to C (fpu.c keeps track of unmasked ones); of the control
 * instructions only those that store the control or status word run as they are.
 */
static bool x87_usable(const struct insn_host *h, const struct insn *i)
{
	unsigned opcode = i->bytes[h->prefix_len], modrm = i->bytes[h->modrm_offset];

	if ((opcode & 0xf8) != 0xd8)
		opcode = i->bytes[h->prefix_len + 1]; /* behind REX */
	return !h->control || (opcode == 0xd9 && (modrm & 0x38) == 0x38 && modrm < 0xc0) ||
	       (opcode == 0xdd && (modrm & 0x38) == 0x38 && modrm < 0xc0) || (opcode == 0xdf && modrm == 0xe0);
}

/* May this instruction of a floating-point or vector unit run as it is? */
static bool unit_usable(uint32_t key, const struct insn *i, const struct insn_host *h)
{
	if (i->op == OP_VZERO)
		return key & BT_KEY_AVX;
	if (!(i->flags & INSN_HOST))
		return true;
	if (h->x87)
		return (key & BT_KEY_X87) && x87_usable(h, i);
	if (h->mmx)
		return (key & BT_KEY_X87) && (!h->vec_read || (key & BT_KEY_SSE));
	return h->vex ? key & BT_KEY_AVX : key & BT_KEY_SSE;
}

/* FDP: the offset of the memory operand, into the state; and which segment is FDS. False: its address cannot be had from the host's registers alone. */
static bool emit_data_pointer(struct translation *t, const struct insn *i)
{
	unsigned base = i->base / 8, index = i->index / 8;
	uint8_t code[8] = { 0x4c, 0x8d, 0x94, 0 };

	emit_set_state(&t->e, (uint32_t)offsetof(struct bt_vcpu, frame.x87_data), i->seg + 1u);
	if (t->e.code32) {
		emit32_effective_r10(&t->e, i);
		emit_store_state(&t->e, R10, offsetof(struct vcpu, s.fdp));
		return true;
	}
	if (i->addrsize != 8 || (base < 16 && bt_spilled(base)) || (index < 16 && bt_spilled(index)))
		return false;
	if (i->flags & INSN_RIPREL) {
		emit_code_address(&t->e, R10, insn_disp(i) + t->b->rip);
	} else if (base >= 16 && index >= 16) {
		emit_mov_imm(&t->e, R10, insn_disp(i));
	} else if (base >= 16) {
		return false;
	} else {
		/* lea disp32(base,index,scale), %r10 */
		code[0] |= (uint8_t)((index < 16 ? index >> 3 << 1 : 0) | base >> 3);
		code[3] = (uint8_t)(i->scale << 6 | (index < 16 ? index & 7 : 4) << 3 | (base & 7));
		store_le32(code + 4, (uint32_t)i->disp);
		emit_bytes(&t->e, code, 8);
		emit_forget(&t->e, R10);
	}
	emit_store_state(&t->e, R10, offsetof(struct vcpu, s.fdp));
	return true;
}

/* FIP, FCS and FOP are found out when somebody may look, see loop.c: the selectors at once where they may be others by then. */
static void emit_x87_note(struct translation *t, const struct insn *i)
{
	if (t->e.real) {
		emit_load_state16(&t->e, R10, BT_SELECTOR(CS));
		emit_store_state16(&t->e, R10, (uint32_t)offsetof(struct vcpu, s.fcs));
	}
	if (t->e.real && (i->flags & INSN_MEM)) {
		emit_load_state16(&t->e, R10, BT_SELECTOR(i->seg));
		emit_store_state16(&t->e, R10, (uint32_t)offsetof(struct vcpu, s.fds));
	}
	emit_set_state(&t->e, (uint32_t)offsetof(struct bt_vcpu, frame.x87),
		       BT_EXIT_ARG(t->b->index, t->n, BT_EXIT_CALLOUT));
	if (t->e.anywhere) {
		emit_code_address(&t->e, R10, 0);
		emit_store_state(&t->e, R10, (uint32_t)offsetof(struct bt_vcpu, frame.x87_base));
	}
}

static bool emit_plain(struct translation *t, const struct insn *i, const struct insn_host *h)
{
	uint8_t *start = t->e.at;

	if (i->op == OP_RDTSC || i->op == OP_RDTSCP) {
		if (!bt_frame(t->v)->tsc_native || (t->b->key & BT_KEY_NO_TSC))
			return false;
		emit_tsc(&t->e, i->op == OP_RDTSCP);
		return true;
	}
	if ((i->op == OP_CLD && !t->e.down) || emit_string(&t->e, i))
		return true;
	if (!unit_usable(t->b->key, i, h) || emit_insn(&t->e, i, h, t->rip) != EMIT_DONE)
		return false;
	if (!(i->flags & INSN_HOST) || !h->x87 || h->control)
		return true;
	if ((i->flags & INSN_MEM) && !emit_data_pointer(t, i)) {
		t->e.at = start;
		return false;
	}
	emit_x87_note(t, i);
	return true;
}

/* What keeps failing may do so for a limit, which no other way to memory helps against. */
static bool may_pass_limit(const struct emitter *e, const struct insn *i)
{
	uint8_t used = BIT(ES) | BIT(SS) | BIT(DS) | (i->flags & INSN_MEM ? 1u << i->seg : 0);

	return e->code32 && (used & ~e->plain_segments);
}

static unsigned window_record(const struct emit_window *w)
{
	return !w->regs ? 0 : w->sum ? BT_WINDOW_SUM : w->base + 1u;
}

static void translate_insn(struct translation *t, const struct insn *i, const struct insn_host *h)
{
	struct bt_insn *record = &t->b->insns[t->n];
	bool forced = bt_is_forced(t->bt, t->b->gpa + i->offset);

	*record = (struct bt_insn){
		.host = offset_of(t, t->e.at),
		.guest = i->offset,
		.r11 = window_record(&t->e.window[0]),
		.r10 = window_record(&t->e.window[1]),
		.len = i->len,
		.align_shift = h->mem_align ? (unsigned)__builtin_ctz(h->mem_align) : 0,
		.more = h->x87 && h->modrm_offset
				? (i->bytes[h->modrm_offset - 1] & 7u) << 8 | i->bytes[h->modrm_offset]
				: 0,
	};
	t->rip = t->b->rip + i->offset;
	t->next = address_of(t, t->rip + i->len);
	t->e.exit_arg = BT_EXIT_ARG(t->b->index, t->n, BT_EXIT_TLB_READ);
	t->e.way = (t->b->key & BT_KEY_TLB) || forced ? BY_TLB : BY_WINDOWS;
	if ((forced && may_pass_limit(&t->e, i)) || !(i->flags & INSN_ENDS ? emit_end(t, i, h) : emit_plain(t, i, h)))
		emit_callout(t, i);
	if (t->e.string_at >= t->b->code + t->bt->cache.write + record->host) {
		unsigned at = (unsigned)(t->e.string_at - (t->b->code + t->bt->cache.write + record->host));

		record->is_string = true;
		record->more = (at << 3 | t->e.string_pointers) & 0x7ff;
	}
}

/*
 * Take the block's instructions from the budget; when it has not so many, leave it as it is and go to C, with this block's address
 * as the target. No flags: the sign goes to RCX, which JRCXZ looks at.
 */
static void emit_charge(struct translation *t)
{
	static const uint8_t sign_to_rcx[] = {
		0x41, 0xbb, 63,	  0,	0,    0, /* mov $63, %r11d */
		0xc4, 0xc2, 0xa3, 0xf7, 0xca,	 /* shrx %r11, %r10, %rcx */
	};
	uint8_t jrcxz[2] = { 0xe3, 0 }, *skipped;
	const uint32_t budget = offsetof(struct vcpu, budget);

	emit_load_state(&t->e, R10, budget);
	emit_lea(&t->e, R10, R10, -(int32_t)t->b->count);
	emit_store_state(&t->e, RCX, BT_GPR(RCX));
	emit_bytes(&t->e, sign_to_rcx, sizeof(sign_to_rcx));
	emit_bytes(&t->e, jrcxz, sizeof(jrcxz));
	skipped = t->e.at;
	emit_load_state(&t->e, RCX, BT_GPR(RCX));
	emit_code_address(&t->e, R10, t->b->rip);
	emit_store_state(&t->e, R10, offsetof(struct bt_vcpu, frame.target));
	emit_leave(&t->e, BT_EXIT_ARG(t->b->index, 0, BT_EXIT_INDIRECT));
	if (!t->e.full)
		skipped[-1] = (uint8_t)(t->e.at - skipped);
	emit_load_state(&t->e, RCX, BT_GPR(RCX));
	emit_store_state(&t->e, R10, budget);
}

/* Is this where the block that was translated last goes on? Then it comes right behind. */
static bool is_behind(const struct bt_cpu *bt, const struct bt_block *b)
{
	const struct bt_block *last = bt->block_count ? bt_block(bt, bt->block_count - 1) : NULL;
	const struct bt_link *links = last ? bt_links(last) : NULL;

	if (!last || !last->link_count || !links[last->link_count - 1].last || last->dead || last->home != b->home ||
	    last->key != b->key)
		return false;
	return links[last->link_count - 1].target == b->rip || (links[0].conditional && links[0].target == b->rip);
}

static struct bt_block *new_block(struct vcpu *v, const struct block *decoded, const struct code_page *home)
{
	struct bt_cpu *bt = bt_of(v);
	struct bt_block *b;

	if (bt->block_count >= bt->options.blocks || !bt_make_place(bt))
		return NULL;
	/* A following instruction is looked at behind the last one, too. */
	b = bt_meta_alloc(bt, sizeof(*b) + (decoded->count + 1u) * sizeof(struct bt_insn) + sizeof(struct bt_second) +
				      BT_MAX_LINKS * sizeof(struct bt_link));
	if (!b)
		return NULL;
	*b = (struct bt_block){
		.gpa = decoded->gpa,
		.rip = bt_address(v),
		.key = bt_key(v),
		.code_limit = bt_code_limit(v),
		.index = bt->block_count,
		.count = decoded->count,
		.crosses = decoded->page[1] != NULL,
		.home = bt_ref_of(bt, home),
	};
	if (b->key & BT_KEY_ANYWHERE)
		b->rip &= ~PAGE_MASK;
	b->code = (uint32_t)(is_behind(bt, b) ? bt->code_used : align_up(bt->code_used, 16));
	if (b->crosses)
		*bt_second(b) = (struct bt_second){ .gpa = decoded->gpa2 };
	for (unsigned n = 0; n < 2; n++) {
		bt->decoded.page[n] = decoded->page[n];
		bt->decoded.gen[n] = decoded->gen[n];
	}
	return b;
}

bool bt_is_fresh(const struct vcpu *v)
{
	const struct bt_cpu *bt = bt_of(v);

	for (unsigned n = 0; n < 2; n++)
		if (bt->decoded.page[n] && atomic_load(&bt->decoded.page[n]->code_gen) != bt->decoded.gen[n])
			return false;
	return true;
}

/* A branch at its end whose target is its start: 64-bit code, by windows. */
static bool leads_to_itself(const struct translation *t, const struct block *decoded)
{
	const struct insn *last = decoded->count ? &decoded->insns[decoded->count - 1] : NULL;

	return last && !t->e.code32 && !(t->b->key & BT_KEY_TLB) && last->form == FORM_I && last->op >= OP_JMP &&
	       last->op <= OP_LOOPNE && last->offset + last->len + last->imm == 0;
}

struct bt_block *bt_translate(struct vcpu *v, struct code_page *home)
{
	struct bt_cpu *bt = bt_of(v);
	const struct insn_host *hosts;
	const struct block *decoded = interp_decode(v, bt_linear(v, bt_address(v)), bt->options.block, &hosts);
	struct translation t = { .v = v, .bt = bt, .home = home };
	uint8_t *base = bt->cache.write;
	bool entry_is_cold, loops;
	unsigned loop_entry = 0;

	t.b = new_block(v, decoded, home);
	if (!t.b)
		return NULL;
	t.e = (struct emitter){
		.at = base + t.b->code,
		.end = base + bt->cold - 2 * COLD_SIZE,
		.to_exec = bt->cache.exec - base,
		.tlb_lookup = bt->tlb_lookups[bt_is_code32(t.b->key)],
		.code32 = bt_is_code32(t.b->key),
		.plain_segments = (uint8_t)(t.b->key >> BT_KEY_PLAIN_SHIFT & 63),
		.wide_segments = (uint8_t)(t.b->key >> BT_KEY_WIDE_SHIFT & 63),
		.based_segments = (uint8_t)(t.b->key >> BT_KEY_BASED_SHIFT & 15) | 1u << FS | 1u << GS,
		.stack16 = v->stack_size == 2,
		.real = bt_is_real(t.b->key),
		.no_paging = !(v->s.cr0 & CR0_PE),
		.down = t.b->key & BT_KEY_DF,
		.code_base = (uint32_t)(t.b->rip >> 32),
		.code_limit = t.b->code_limit,
		.anywhere = t.b->key & BT_KEY_ANYWHERE,
	};
	entry_is_cold = t.e.anywhere && is_behind(bt, t.b);
	if (t.e.anywhere && !entry_is_cold)
		emit_note_code_base(&t.e, (unsigned)t.b->rip);
	t.b->inner_entry = offset_of(&t, t.e.at);
	if (bt->counting)
		emit_charge(&t);
	loops = leads_to_itself(&t, decoded) && emit_loop_begin(&t.e, decoded->insns, hosts, decoded->count);
	if (loops && !bt->counting)
		loop_entry = offset_of(&t, t.e.at);
	for (t.n = 0; t.n < decoded->count && !t.e.full; t.n++) {
		t.e.later = &decoded->insns[t.n + 1];
		t.e.later_hosts = &hosts[t.n + 1];
		t.e.later_count = decoded->count - t.n - 1;
		translate_insn(&t, &decoded->insns[t.n], &hosts[t.n]);
	}
	if (decoded->count && !(decoded->insns[decoded->count - 1].flags & INSN_ENDS))
		add_link(&t, -1, address_of(&t, t.b->rip + decoded->bytes));
	if (loops && emit_loop_holds(&t.e))
		t.b->loop_entry = (uint8_t)loop_entry;
	t.n = decoded->count ? decoded->count - 1u : 0;
	emit_link_lookups(&t);
	if (t.e.full)
		return NULL;
	t.b->code_size = offset_of(&t, t.e.at);
	emit_cold(&t, entry_is_cold);
	if (t.e.full)
		return NULL;
	bt->code_used = t.b->code + t.b->code_size;
	bt->stats.code_bytes += t.b->code_size + bt->cold - t.b->cold;
	bt->cold = t.b->cold;
	bt_meta_trim(bt, &bt_links(t.b)[t.b->link_count]);
	bt_insert(v, t.b);
	bt->stats.translated++;
	bt->stats.guest_insns += decoded->count;
	bt->stats.guest_bytes += decoded->bytes;
	bt_report_block(v, t.b, decoded);
	return t.b;
}
