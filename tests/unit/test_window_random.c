/*
 * Windows of the translator: random page tables, flushes and accesses, against a reference that knows what a TLB may still hold.
 */
#define _GNU_SOURCE /* REG_ERR */
#include "lib/window_bench.h"

#define RANDOM_PAGES 24
#define FIRST_PAGE   52
#define VERSIONS     24 /* of the tables since the last flush of everything */
#define TABLES_SIZE  (TABLES_END - PML4)
#define ADDRESSES    (RANDOM_PAGES * 3)

struct reference {
	struct bench *b;
	uint64_t seed;
	uint8_t *version[VERSIONS]; /* copies of all tables */
	unsigned count;
	/* First version that a translation may come from, by what flushed: all, the PCID, the page in the PCID, globals too. */
	unsigned since_pcid[4], since_page[4][ADDRESSES], since_global[ADDRESSES];
	unsigned pcid;
	unsigned ok, slow, stale;
};

static uint64_t random_number(struct reference *r, uint64_t below)
{
	r->seed = r->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (r->seed >> 33) % below;
}

/* Pages of a user's table, of the kernel's, and in a large page; on both sides of a span's end. */
static uint64_t random_address(unsigned n)
{
	unsigned page = FIRST_PAGE + n % RANDOM_PAGES;

	return n < RANDOM_PAGES ? user(page) : n < 2 * RANDOM_PAGES ? kernel(page) : LARGE + (uint64_t)page * PAGE_SIZE;
}

static void reference_flush(struct reference *r)
{
	r->count = 0;
	memset(r->since_pcid, 0, sizeof(r->since_pcid));
	memset(r->since_page, 0, sizeof(r->since_page));
	memset(r->since_global, 0, sizeof(r->since_global));
}

static void reference_note(struct reference *r)
{
	memcpy(r->version[r->count++], mem_map(r->b->b->mem, gpa(PML4), TABLES_SIZE, false), TABLES_SIZE);
}

struct translation {
	bool present, user, writable, global;
	uint64_t page;
};

/* 4.5, without reserved bits, on a copy of the tables. */
static struct translation reference_walk(const struct reference *r, unsigned version, uint64_t pml4, uint64_t lin)
{
	struct translation t = { .user = true, .writable = true };
	uint64_t table = pml4, entry;

	for (unsigned shift = 39;; shift -= 9) {
		if (table < PML4 || table >= TABLES_END)
			return (struct translation){ .present = false };
		memcpy(&entry, r->version[version] + (table - PML4) + 8 * bits(lin, shift + 8, shift), 8);
		if (!(entry & PTE_P))
			return (struct translation){ .present = false };
		t.user &= !!(entry & PTE_U);
		t.writable &= !!(entry & PTE_W);
		table = entry & PTE_FRAME;
		if (shift == 12 || (shift == 21 && (entry & PTE_PS))) {
			t.page = table + (lin & (BIT(shift) - 1) & PAGE_MASK);
			t.global = entry & PTE_G;
			t.present = true;
			return t;
		}
	}
}

static bool reference_allows(const struct vcpu *v, const struct translation *t, bool write)
{
	if (!t->present || (write && !t->writable))
		return false;
	return v->cpl == 3 ? t->user : !t->user || (v->s.rflags & FLAG_AC);
}

/* Could a TLB have made this access go to this page? Global translations are every address space's. */
static bool reference_permits(const struct reference *r, unsigned address, bool write, uint64_t page)
{
	static const uint64_t spaces[] = { PML4, PML4_B };
	const struct vcpu *v = r->b->v;

	for (unsigned n = 0; n < 2 * r->count; n++) {
		unsigned version = n / 2, since = MAX(r->since_pcid[r->pcid], r->since_page[r->pcid][address]);
		uint64_t pml4 = spaces[n % 2];
		struct translation t = reference_walk(r, version, pml4, random_address(address));

		if (t.global)
			since = r->since_global[address];
		else if (pml4 != (v->s.cr3 & PTE_FRAME))
			continue;
		if (version + 1 < r->count && version < since)
			continue;
		if (reference_allows(v, &t, write) && t.page == page)
			return true;
	}
	return false;
}

static uint64_t random_frame(struct reference *r)
{
	switch (random_number(r, 40)) {
	case 0: return DEVICE;
	case 1: return NOWHERE;
	default: return data((unsigned)random_number(r, 100));
	}
}

static uint64_t random_leaf(struct reference *r)
{
	uint64_t entry = random_frame(r) | PTE_P | PTE_W | PTE_U;

	for (unsigned n = 0; n < 3; n++)
		entry ^= (uint64_t[]){
			PTE_P, PTE_W, PTE_U, PTE_A, PTE_D, PTE_G, PTE_NX, PTE_A | PTE_D, 0, 0, 0, 0
		}[random_number(r, 12)];
	return entry;
}

static void random_upper(struct reference *r)
{
	static const uint64_t pd_frames[] = { PT_U, PT_U2, PT_B };
	static const uint64_t kernel_frames[] = { PT_K, PT_K2 };
	struct bench *b = r->b;
	uint64_t flags = (random_number(r, 4) ? PTE_W : 0) | (random_number(r, 10) ? PTE_P : 0) |
			 (random_number(r, 2) ? PTE_A : 0);

	switch (random_number(r, 9)) {
	case 0: poke(b, pd_entry(PD_U, USER), pd_frames[random_number(r, 3)] | flags | PTE_U); break;
	case 1: poke(b, PDPT_U, (random_number(r, 3) ? PD_U : PD_B) | flags | PTE_U); break;
	case 2: poke(b, pml4_entry(PML4, USER), (random_number(r, 3) ? PDPT_U : PDPT_B) | flags | PTE_U); break;
	case 3: poke(b, pd_entry(PD_K, KERNEL), kernel_frames[random_number(r, 2)] | flags); break;
	case 4:
		poke(b, pml4_entry(random_number(r, 2) ? PML4 : PML4_B, KERNEL),
		     PDPT_K | flags | (random_number(r, 3) ? 0 : PTE_U));
		break;
	case 5: poke(b, pd_entry(PD_K, LARGE), PT_K2 | flags); break;
	default:
		poke(b, pd_entry(PD_K, LARGE),
		     (DATA + (random_number(r, 3) << 21)) | flags | PTE_PS | (random_number(r, 2) ? PTE_G : 0) |
			     (random_number(r, 2) ? PTE_D : 0));
	}
}

/* Runs of entries, as kernels write them, or one. */
static void random_edit(struct reference *r)
{
	static const uint64_t tables[] = { PT_U, PT_B, PT_K, PT_U2, PT_K2 };
	uint64_t table = tables[random_number(r, 5)], leaf = random_leaf(r);
	unsigned first = FIRST_PAGE + (unsigned)random_number(r, RANDOM_PAGES), count = random_number(r, 3) ? 1 : 12;

	if (!random_number(r, 6)) {
		random_upper(r);
		return;
	}
	for (unsigned n = first; n < MIN(first + count, FIRST_PAGE + RANDOM_PAGES); n++, leaf += PAGE_SIZE)
		poke(r->b, table + 8 * n, leaf);
}

static void new_version(struct reference *r)
{
	if (r->count == VERSIONS) {
		cpu_tlb_flush(r->b->v);
		reference_flush(r);
	}
	reference_note(r);
}

static void random_flush(struct reference *r)
{
	unsigned address = (unsigned)random_number(r, ADDRESSES), now = r->count - 1, other;
	uint64_t lin = random_address(address);
	struct vcpu *v = r->b->v;

	switch (random_number(r, 8)) {
	case 0:
		cpu_tlb_flush(v);
		reference_flush(r);
		reference_note(r);
		break;
	case 1:
		load_cr3(r->b, v->s.cr3);
		r->since_pcid[r->pcid] = now;
		break;
	case 2:
	case 3:
		r->pcid = (unsigned)random_number(r, 2);
		load_cr3(r->b, (r->pcid ? PML4_B : PML4) | (r->pcid + 1) | NO_FLUSH);
		break;
	case 4:
		other = (unsigned)random_number(r, 2);
		bt_window_hooks.tlb_flush_pcid(v, (uint16_t)(other + 1));
		r->since_pcid[other] = now;
		break;
	default:
		cpu_tlb_flush_page(v, gva(lin));
		/* All of a large page goes; that only takes more away from what is allowed, so the page itself is enough. */
		r->since_page[r->pcid][address] = r->since_global[address] = now;
	}
}

static void random_mode(struct reference *r)
{
	struct vcpu *v = r->b->v;
	uint64_t page;

	switch (random_number(r, 8)) {
	case 0:
		page = data((unsigned)random_number(r, 100));
		decode_from(r->b, page);
		break;
	case 1:
		page = data((unsigned)random_number(r, 100));
		put(r->b->b, page, (page - DATA) / PAGE_SIZE, 8);
		break;
	default: set_ac(v, random_number(r, 2)); set_cpl(v, random_number(r, 2) ? 3 : 0);
	}
}

static bool holds_code(const struct reference *r, uint64_t page)
{
	return atomic_load(&mem_page(r->b->b->mem, gpa(page))->code_chunks);
}

/* Must the access succeed, now that a window was asked for? Not where a slot has both kinds of pages. */
static bool must_succeed(const struct reference *r, const struct translation *t, bool write)
{
	return reference_allows(r->b->v, t, write) && windows_view(r->b->v) != TABLE_BOTH && t->page >= DATA &&
	       t->page < BARE_RAM && !(write && holds_code(r, t->page));
}

static void random_access(struct reference *r)
{
	unsigned address = (unsigned)random_number(r, ADDRESSES);
	uint64_t lin = random_address(address), token = random_number(r, UINT32_MAX) << 8 | 1, value = token, page;
	bool write = random_number(r, 2);
	struct translation t = reference_walk(r, r->count - 1, r->b->v->s.cr3 & PTE_FRAME, lin);

	if (!translated_twice(r->b->w, r->b->v, lin + (write ? 64 : 0), write, &value)) {
		r->slow++;
		if (must_succeed(r, &t, write))
			fail_msg("%s of %#lx (page %#lx) went the slow way", write ? "write" : "read", lin, t.page);
		return;
	}
	r->ok++;
	if (write) {
		for (page = DATA; page < BARE_RAM && peek(r->b, page + 64) != token; page += PAGE_SIZE)
			;
		if (holds_code(r, page))
			fail_msg("a write to code at %#lx went unnoticed", page);
	} else {
		page = data((unsigned)value);
	}
	if (!reference_permits(r, address, write, page))
		fail_msg("%s of %#lx reached %#lx: %s", write ? "write" : "read", lin, page,
			 t.present ? "no translation since the flush says so" : "it is not mapped");
	if (page != t.page)
		r->stale++;
}

static void random_run(uint64_t seed, const struct window_limits *limits)
{
	struct reference r = { .b = bench_create(limits), .seed = seed };

	for (unsigned n = 0; n < VERSIONS; n++)
		r.version[n] = test_malloc(TABLES_SIZE);
	use_pcids(r.b);
	load_cr3(r.b, PML4 | 1);
	cpu_tlb_flush(r.b->v);
	reference_note(&r);
	for (unsigned n = 0; n < 6000; n++) {
		switch (random_number(&r, 8)) {
		case 0:
			new_version(&r);
			random_edit(&r);
			r.count--;
			new_version(&r);
			r.count--;
			new_version(&r);
			break;
		case 1: random_flush(&r); break;
		case 2: random_mode(&r); break;
		default: random_access(&r);
		}
	}
	assert_true(r.ok > 500);
	for (unsigned n = 0; n < VERSIONS; n++)
		test_free(r.version[n]);
	bench_destroy(r.b);
}

static void test_random(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 4; seed++)
		random_run(seed, &(struct window_limits){ .windows = 16, .spaces = 8 });
}

static void test_random_with_little_room(void **state)
{
	(void)state;
	for (uint64_t seed = 11; seed <= 14; seed++)
		random_run(seed, &(struct window_limits){ .windows = 8, .spaces = 2, .mappings = 40 });
}

/* ---- two vCPUs that take windows away from each other ---- */

#define SMP_SPACES 6
#define SMP_ROUNDS 400
#define SMP_TABLES (DATA + 0x400000)

struct smp_cpu {
	struct bench *b;
	struct vcpu *v;
	unsigned number;
	unsigned wrong, slow, ok;
};

/* The tables of a CPU's n-th address space: PML4, PDPT, PD, PT, and a page of data in front of which is a number. */
static uint64_t smp_table(const struct smp_cpu *c, unsigned space, unsigned level)
{
	return SMP_TABLES + ((uint64_t)(c->number * SMP_SPACES + space) * 8 + level) * PAGE_SIZE;
}

static uint64_t smp_slot(unsigned space) { return USER + (uint64_t)(space % 3) * WINDOW_SIZE; }

static void smp_build(struct smp_cpu *c)
{
	for (unsigned space = 0; space < SMP_SPACES; space++) {
		uint64_t lin = smp_slot(space);

		for (unsigned level = 0; level < 4; level++)
			memset(mem_map(c->b->b->mem, gpa(smp_table(c, space, level)), PAGE_SIZE, true), 0, PAGE_SIZE);
		poke(c->b, pml4_entry(smp_table(c, space, 0), lin), smp_table(c, space, 1) | FLAGS_ALL);
		poke(c->b, pml4_entry(smp_table(c, space, 0), KERNEL), PDPT_K | FLAGS_LEAF);
		poke(c->b, smp_table(c, space, 1) + 8 * bits(lin, 38, 30), smp_table(c, space, 2) | FLAGS_ALL);
		poke(c->b, pd_entry(smp_table(c, space, 2), lin), smp_table(c, space, 3) | FLAGS_ALL);
		for (unsigned n = 4; n < 8; n++)
			poke(c->b, smp_table(c, space, n), (uint64_t)c->number << 32 | space << 8 | n);
	}
}

/* One address, held as in a register, used again and again; then the page moves. */
static void smp_round(struct smp_cpu *c, unsigned space, unsigned page)
{
	uint64_t lin = smp_slot(space), value = 0, at;
	uint64_t expected = (uint64_t)c->number << 32 | space << 8 | page;

	poke(c->b, smp_table(c, space, 3), smp_table(c, space, page) | FLAGS_ALL);
	cpu_write_cr3(c->v, smp_table(c, space, 0));
	for (unsigned n = 0; n < 2; n++) {
		if (!translated_twice(c->b->w, c->v, lin, false, &value)) {
			c->slow++;
			continue;
		}
		c->wrong += value != expected;
		c->ok++;
		at = host_address(bt_windows_table(c->b->w, c->v), lin);
		for (unsigned k = 0; k < 200; k++) {
			value = expected;
			if (k % 2 ? read_host(at, &value) : write_host(at, expected))
				c->wrong += value != expected;
		}
	}
	if (translated_twice(c->b->w, c->v, KERNEL + page % 2 * PAGE_SIZE, false, &value))
		c->wrong += value != 10 + page % 2;
}

static void *smp_thread(void *opaque)
{
	struct smp_cpu *c = opaque;
	stack_t stack = { .ss_sp = malloc(65536), .ss_size = 65536 };

	sigaltstack(&stack, NULL);
	for (unsigned round = 0; round < SMP_ROUNDS; round++) {
		set_cpl(c->v, 0);
		smp_round(c, (round * 5 + c->number) % SMP_SPACES, 4 + round % 4);
		if (round % 50 == 0)
			bt_windows_leave(c->b->w, c->v);
	}
	bt_windows_leave(c->b->w, c->v);
	sigaltstack(&(stack_t){ .ss_flags = SS_DISABLE }, NULL);
	free(stack.ss_sp);
	return NULL;
}

static void test_smp(void **state)
{
	struct bench *b = bench_create(&(struct window_limits){ .windows = 8, .spaces = 5, .mappings = 60 });
	struct smp_cpu cpu[2] = { { .b = b, .v = b->v }, { .b = b, .number = 1 } };
	pthread_t thread[2];
	struct error err;
	(void)state;

	poke(b, kernel_entry(0), data(10) | FLAGS_LEAF | PTE_G);
	poke(b, kernel_entry(1), data(11) | FLAGS_LEAF | PTE_G);
	cpu[1].v = vcpu_create(sizeof(struct vcpu), 1, &b->b->model, b->b->mem, b->v->clock, &b->b->trace, &bare_env,
			       b->b, &err);
	assert_non_null(cpu[1].v);
	cpu[1].v->s = b->v->s;
	cpu[1].v->engine = &b->engine;
	cpu[1].v->hooks = &bt_window_hooks;
	for (unsigned n = 0; n < 2; n++) {
		cpu[n].v->s.cr4 &= ~CR4_SMAP;
		cpu_update_mode(cpu[n].v);
		cpu_tlb_flush(cpu[n].v);
		smp_build(&cpu[n]);
	}
	for (unsigned n = 0; n < 2; n++)
		assert_int_equal(pthread_create(&thread[n], NULL, smp_thread, &cpu[n]), 0);
	for (unsigned n = 0; n < 2; n++) {
		pthread_join(thread[n], NULL);
		assert_int_equal(cpu[n].wrong, 0);
		assert_true(cpu[n].ok > cpu[n].slow);
	}
	vcpu_destroy(cpu[1].v);
	bench_destroy(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_random_with_little_room),
		cmocka_unit_test(test_smp),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
