/*
 * Paging of legacy mode, SDM vol. 3A 4.3 and 4.4: 32-bit paging with 4 MiB pages and PSE-36, PAE with its page-directory-pointer
 * registers. Rights, reserved bits, accessed and dirty bits, large and global pages. (4-level paging: test_paging.)
 */
#include "legacy.h"

#define T	   0x80000000u /* the page that tests map as they like */
#define LARGE	   0x80400000u /* a large page */
#define WINDOW	   0x40000000u /* the first MiB once more, for ring 3 */
#define USER_32(p) (LOW32(p) + WINDOW)
#define CR0_CD	   (1u << 30)
#define NO_PAGE	   0xdeadbeef
#define LARGE_1	   0x800000u /* what LARGE maps */
#define LARGE_2	   0xc00000u

enum format { PLAIN, PAE };
static const char *const formats[] = { "32-bit paging", "PAE paging" };

static u32 directory[1024] __attribute__((aligned(4096))), table[1024] __attribute__((aligned(4096)));
static u64 pae_low[512] __attribute__((aligned(4096))), pae_user[512] __attribute__((aligned(4096)));
static u64 pae_directory[512] __attribute__((aligned(4096))), pae_table[512] __attribute__((aligned(4096)));
static struct {
	u64 before[4], entries[4]; /* any 32-byte boundary will do */
} pointers __attribute__((aligned(4096)));
static u8 frames[2][4096] __attribute__((aligned(4096)));

CODE32(load, "mov (%ebx), %eax")
CODE32(store, "mov %eax, (%ebx)")
CODE32(fetch, "call *%ebx")
CODE32(load_twice, "mov (%ebx), %eax; mov %edi, (%ecx); mov (%ebx), %edx")

static void prepare(void)
{
	for (u32 n = 0; n < 16; n++) {
		directory[n] = n << 22 | (u32)(PTE_P | PTE_W | PTE_PS);
		directory[256 + n] = directory[n] | (u32)PTE_U;
	}
	directory[512] = LOW32(table) | (u32)(PTE_P | PTE_W | PTE_U);
	directory[513] = LARGE_1 | (u32)(PTE_P | PTE_W | PTE_U | PTE_PS);
	for (u64 n = 0; n < 32; n++) {
		pae_low[n] = n << 21 | PTE_P | PTE_W | PTE_PS;
		pae_user[n] = pae_low[n] | PTE_U;
	}
	pae_directory[0] = (u64)pae_table | PTE_P | PTE_W | PTE_U;
	pae_directory[2] = LARGE_1 | PTE_P | PTE_W | PTE_U | PTE_PS;
	pointers.entries[0] = (u64)pae_low | PTE_P;
	pointers.entries[1] = (u64)pae_user | PTE_P;
	pointers.entries[2] = (u64)pae_directory | PTE_P;
	pointers.entries[3] = 0;
	table[0] = LOW32(frames[0]) | (u32)(PTE_P | PTE_W | PTE_U);
	pae_table[0] = (u64)frames[0] | PTE_P | PTE_W | PTE_U;
	memset(frames, 0xc3, sizeof(frames)); /* RET */
}

/* Bits of the two entries that map T. */
static void map(enum format format, u64 upper, u64 lower)
{
	directory[512] = LOW32(table) | (u32)upper;
	table[0] = LOW32(frames[0]) | (u32)lower;
	if (format == PAE) {
		pae_directory[0] = (u64)pae_table | upper;
		pae_table[0] = (u64)frames[0] | lower;
	}
}

static struct legacy_state start(enum format format, unsigned ring, const u8 *code)
{
	struct legacy_state s = { LEGACY_RING0, .eip = LOW32(code), .ebx = T, .eax = 0xc3c3c3c3 };

	if (ring)
		s = (struct legacy_state){ LEGACY_RING3, .eip = USER_32(code), .esp = legacy_stack() + WINDOW, .ebx = T,
					   .eax = 0xc3c3c3c3 };
	s.cr0 |= (u32)CR0_PG;
	s.cr3 = format == PAE ? LOW32(pointers.entries) : LOW32(directory);
	s.cr4 = CR4_PSE | (format == PAE ? (u32)CR4_PAE : 0);
	return s;
}

static bool page_fault(const struct legacy_trap *t, u32 error, u32 address)
{
	bool good = t->vector == EXC_PF && t->error == error && t->cr2 == address;

	if (!good)
		print("# vector %u error 0x%x cr2 0x%x eip 0x%x, expected #PF error 0x%x cr2 0x%x\n", t->vector,
		      t->error, t->cr2, t->eip, error, address);
	return good;
}

/* ---- rights: SDM vol. 3A 4.6 ---- */

struct rights {
	bool user, writable, executable, wp, smep, smap, ac, nxe;
};
enum access { READ, WRITE, FETCH };

static bool allowed(const struct rights *r, unsigned ring, enum access access)
{
	if (access == FETCH && !r->executable)
		return false;
	if (ring == 3)
		return r->user && (access != WRITE || r->writable);
	if (access == FETCH)
		return !(r->user && r->smep);
	if (r->user && r->smap && !r->ac)
		return false;
	return access != WRITE || r->writable || !r->wp;
}

static bool try_rights(enum format format, unsigned ring, enum access access, unsigned upper, unsigned lower,
		       unsigned controls)
{
	static const u8 *const codes[] = { load, store, fetch };
	struct legacy_state s = start(format, ring, codes[access]);
	struct rights r = {
		.user = upper & lower & PTE_U,
		.writable = upper & lower & PTE_W,
		.executable = !(controls & 32),
		.wp = controls & 1,
		.smep = controls & 2,
		.smap = controls & 4,
		.ac = controls & 8,
		.nxe = format == PAE && (controls & 16),
	};
	struct legacy_trap t;
	u32 error;

	s.cr0 |= r.wp ? (u32)CR0_WP : 0;
	s.cr4 |= (r.smep ? (u32)CR4_SMEP : 0) | (r.smap ? (u32)CR4_SMAP : 0);
	s.eflags |= r.ac ? (u32)FLAG_AC : 0;
	s.efer = r.nxe ? (u32)EFER_NXE : 0;
	map(format, PTE_P | upper, PTE_P | lower | (r.executable ? 0 : PTE_NX));
	t = legacy_run(&s);
	if (allowed(&r, ring, access)) {
		if (t.vector == END_VECTOR)
			return true;
		print("# upper %x lower %x controls %x: vector %u error 0x%x\n", upper, lower, controls, t.vector,
		      t.error);
		return false;
	}
	error = (u32)(PF_P | (ring ? PF_U : 0) | (access == WRITE ? PF_W : 0) |
		      (access == FETCH && (r.smep || r.nxe) ? PF_I : 0));
	return page_fault(&t, error, T);
}

static void test_rights(enum format format)
{
	static const char *const kinds[] = { "reads", "writes", "fetches" };
	bool nx = format == PAE && has_nx();

	for (unsigned access = READ; access <= FETCH; access++)
		for (unsigned ring = 0; ring < 4; ring += 3) {
			bool good = true;

			for (unsigned n = 0; n < 16 * 64; n++) {
				unsigned upper = (n & 3) << 1, lower = (n >> 2 & 3) << 1, controls = n >> 4;

				if (((controls & 2) && !has_smep()) || ((controls & 4) && !has_smap()) ||
				    ((controls & 16) && !nx) || ((controls & 32) && !(controls & 16)) ||
				    ((controls & 8) && (ring || !(controls & 4))))
					continue;
				good = try_rights(format, ring, access, upper, lower, controls) && good;
			}
			check(good, "3A 4.6: %s: %s of ring %u under all rights, WP, SMEP, SMAP, AC, XD",
			      formats[format], kinds[access], ring);
		}
	prepare();
}

/* ---- absent and reserved ---- */

static void test_absent(enum format format)
{
	struct legacy_state s = start(format, 3, load);
	struct legacy_trap t;

	map(format, PTE_P | PTE_W | PTE_U, 0);
	s.ebx = T + 0x123;
	t = legacy_run(&s);
	check(page_fault(&t, PF_U, T + 0x123), "3A 4.7: %s: an absent page, CR2 has the offset", formats[format]);
	map(format, 0, PTE_P | PTE_W | PTE_U);
	t = legacy_run(&s);
	check(page_fault(&t, PF_U, T + 0x123), "3A 4.7: %s: an absent table", formats[format]);
	check(!(table[0] & PTE_A) && !(pae_table[0] & PTE_A), "3A 4.8: %s: no accessed bit below it", formats[format]);
	s.ebx = 0xfffffffc;
	t = legacy_run(&s);
	check(page_fault(&t, PF_U, 0xfffffffc), "3A 4.7: %s: the end of the address space", formats[format]);
	s.eip = USER_32(store);
	t = legacy_run(&s);
	check(page_fault(&t, PF_U | PF_W, 0xfffffffc), "3A 4.7: %s: a write there", formats[format]);
	prepare();
}

static u64 physical_limit(void) { return cpuid(0x80000008, 0).a & 0xff; }

static void test_reserved(void)
{
	static const struct {
		const char *what;
		u64 bits;
		bool large, needs_nxe_off;
	} cases[] = {
		{ "bit 52 of a PTE", BIT(52), false, false },
		{ "bit 62 of a PTE", BIT(62), false, false },
		{ "XD of a PTE without NXE", BIT(63), false, true },
		{ "the highest address bit of a PTE", BIT(51), false, false },
		{ "bit 13 of a 2 MiB page", BIT(13), true, false },
		{ "bit 20 of a 2 MiB page", BIT(20), true, false },
		{ "bit 60 of a 2 MiB page", BIT(60), true, false },
		{ "XD of a 2 MiB page without NXE", BIT(63), true, true },
	};
	struct legacy_state s = start(PAE, 0, store);
	struct legacy_trap t;

	s.efer = 0;
	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		if (cases[n].large) {
			pae_directory[2] |= cases[n].bits;
			s.ebx = LARGE;
		} else {
			pae_table[0] |= cases[n].bits;
			s.ebx = T;
		}
		t = legacy_run(&s);
		check(page_fault(&t, PF_P | PF_W | PF_RSVD, s.ebx), "3A 4.7: PAE paging: %s: reserved", cases[n].what);
		prepare();
	}
	pae_directory[0] |= PTE_G | BIT(7 + 2) | BIT(11);
	s.ebx = T;
	t = legacy_run(&s);
	check_end_32(&t, "3A 4.4: ignored bits of a PDE");
	prepare();

	s = start(PLAIN, 0, load);
	s.ebx = LARGE;
	directory[513] |= (u32)BIT(21);
	t = legacy_run(&s);
	check(page_fault(&t, PF_P | PF_RSVD, LARGE), "3A 4.3: bit 21 of a 4 MiB page is reserved");
	prepare();
	directory[513] |= (u32)BIT(12) | 0xe00; /* PAT, ignored */
	t = legacy_run(&s);
	check_end_32(&t, "3A 4.3: PAT and ignored bits of a 4 MiB page");
	prepare();
	/* PSE-36: bits 20:13 are address bits 39:32. */
	*(volatile u32 *)(LARGE_1 + 0x300000) = 0x5a5a5a5a;
	s.ebx = LARGE + 0x300000;
	t = legacy_run(&s);
	check_equal(t.eax, 0x5a5a5a5a, "3A 4.3: a 4 MiB page");
	directory[513] |= (u32)BIT(13);
	t = legacy_run(&s);
	check(t.vector == END_VECTOR && t.eax != 0x5a5a5a5a, "3A 4.3: PSE-36: bit 13 is address bit 32");
	if (physical_limit() < 40) {
		directory[513] = LARGE_1 | (u32)(PTE_P | PTE_W | PTE_PS | BIT(20));
		t = legacy_run(&s);
		check(page_fault(&t, PF_P | PF_RSVD, LARGE + 0x300000),
		      "3A 4.3: address bits that there are not: reserved");
	}
	prepare();
	/* Without CR4.PSE bit 7 means nothing: the entry leads to a table. */
	for (u32 n = 0; n < 16; n++)
		directory[n] = directory[256 + n] = 0;
	{
		static u32 low[4][1024] __attribute__((aligned(4096)));

		for (u32 n = 0; n < 4096; n++)
			low[n / 1024][n % 1024] = n << 12 | (u32)(PTE_P | PTE_W);
		for (u32 n = 0; n < 4; n++)
			directory[n] = LOW32(low[n]) | (u32)(PTE_P | PTE_W);
	}
	directory[513] = LOW32(table) | (u32)(PTE_P | PTE_W | PTE_PS);
	s.cr4 = 0;
	s.ebx = LARGE;
	frames[0][0] = 0x77;
	t = legacy_run(&s);
	check(t.vector == END_VECTOR && (u8)t.eax == 0x77, "3A 4.3: without CR4.PSE bit 7 of a PDE is ignored");
	prepare();
}

/* ---- PDPTE registers: SDM vol. 3A 4.4.1 ---- */

CODE32(load_cr3, "mov %eax, %cr3")
CODE32(toggle_cr0_cd, "mov %edi, (%ecx); mov %cr0, %eax; btc $30, %eax; mov %eax, %cr0; mov (%ebx), %edx")
CODE32(toggle_cr4_pge, "mov %edi, (%ecx); mov %cr4, %eax; btc $7, %eax; mov %eax, %cr4; mov (%ebx), %edx")
CODE32(reload_cr3, "mov %edi, (%ecx); mov %cr3, %eax; mov %eax, %cr3; mov (%ebx), %edx")
CODE32(invlpg_there, "mov %edi, (%ecx); invlpg (%ebx); mov (%ebx), %edx")
CODE32(toggle_cr0_ts, "mov %edi, (%ecx); mov %cr0, %eax; btc $3, %eax; mov %eax, %cr0; invlpg (%ebx); mov (%ebx), %edx")
CODE32(toggle_cr4_tsd,
       "mov %edi, (%ecx); mov %cr4, %eax; btc $2, %eax; mov %eax, %cr4; invlpg (%ebx); mov (%ebx), %edx")
CODE32(paging_on, "mov %cr0, %eax; bts $31, %eax; " LABEL(paging_on_at) "mov %eax, %cr0")

static void test_pdptes(void)
{
	static const u64 reserved[] = { BIT(1), BIT(2), BIT(5), BIT(6), BIT(7), BIT(8), BIT(51), BIT(52), BIT(63) };
	static const struct {
		const char *what;
		const u8 *code;
		bool reloads;
	} ways[] = {
		{ "MOV to CR3 reloads them", reload_cr3, true },
		{ "a change of CR0.CD reloads them", toggle_cr0_cd, true },
		{ "a change of CR4.PGE reloads them", toggle_cr4_pge, true },
		{ "INVLPG does not", invlpg_there, false },
		{ "a change of CR0.TS does not", toggle_cr0_ts, false },
		{ "a change of CR4.TSD does not", toggle_cr4_tsd, false },
	};
	static struct {
		u64 entries[4];
	} other __attribute__((aligned(32)));
	extern const u8 paging_on_at[];
	struct legacy_state s = start(PAE, 0, load_cr3);
	struct legacy_trap t;
	bool good = true;

	for (unsigned n = 0; n < ARRAY_SIZE(reserved); n++) {
		for (unsigned at = 0; at < 4; at++) {
			memcpy(&other, pointers.entries, sizeof(other));
			other.entries[at] |= reserved[n] | PTE_P;
			s.eax = LOW32(&other);
			t = legacy_run(&s);
			good = good && t.vector == EXC_GP && !t.error && t.cr3 == LOW32(pointers.entries) &&
			       t.eip == LOW32(load_cr3);
		}
		check(good, "3A 4.4.1: MOV to CR3 with a reserved bit in a PDPTE: #GP(0): 0x%lx", reserved[n]);
	}
	other.entries[3] = ~PTE_P;
	other.entries[0] = pointers.entries[0] | 0xe18;
	other.entries[1] = pointers.entries[1];
	other.entries[2] = pointers.entries[2];
	t = legacy_run(&s);
	check(t.vector == END_VECTOR && t.cr3 == LOW32(&other),
	      "3A 4.4.1: absent ones may have any bits, others PWT, PCD, ignored ones");
	other.entries[1] = BIT(1) | PTE_P;
	s = (struct legacy_state){ LEGACY_RING0, .eip = LOW32(paging_on), .cr3 = LOW32(&other), .cr4 = (u32)CR4_PAE };
	t = legacy_run(&s);
	check(t.vector == EXC_GP && !t.error && t.eip == LOW32(paging_on_at) && !(t.cr0 & CR0_PG),
	      "3A 4.4.1: paging on with a reserved bit: #GP(0), paging stays off");
	/* A loaded PDPTE is a register: what memory has in its place counts when they are loaded again. */
	for (unsigned n = 0; n < ARRAY_SIZE(ways); n++) {
		prepare();
		s = start(PAE, 0, ways[n].code);
		s.ecx = LOW32(&pointers.entries[2]);
		s.edi = 0;
		s.edx = NO_PAGE;
		t = legacy_run(&s);
		check(ways[n].reloads ? page_fault(&t, 0, T) : t.vector == END_VECTOR && t.edx == 0xc3c3c3c3,
		      "3A 4.4.1: PDPTEs: %s", ways[n].what);
	}
	prepare();
	s = start(PAE, 0, load);
	s.cr3 |= 0x1f;
	t = legacy_run(&s);
	check_end_32(&t, "3A 4.4.1: bits 4:0 of CR3 are ignored");
	s = start(PLAIN, 0, load);
	s.cr3 |= 0xfff;
	t = legacy_run(&s);
	check_end_32(&t, "3A 4.3: bits 11:0 of CR3 are ignored");
}

/* ---- accessed, dirty, large, global ---- */

static void test_marks(enum format format)
{
	struct legacy_state s = start(format, 3, load);
	struct legacy_trap t;
	u64 upper, lower, large;
	volatile u32 *last;

#define READ_ENTRIES()                                                                                                 \
	do {                                                                                                           \
		upper = (format == PAE ? pae_directory[0] : directory[512]) & (PTE_A | PTE_D);                         \
		lower = (format == PAE ? pae_table[0] : table[0]) & (PTE_A | PTE_D);                                   \
		large = (format == PAE ? pae_directory[2] : directory[513]) & (PTE_A | PTE_D);                         \
	} while (0)
	t = legacy_run(&s);
	READ_ENTRIES();
	check(t.vector == END_VECTOR && upper == PTE_A && lower == PTE_A, "3A 4.8: %s: a read sets A", formats[format]);
	s.eip = USER_32(store);
	t = legacy_run(&s);
	READ_ENTRIES();
	check(upper == PTE_A && lower == (PTE_A | PTE_D), "3A 4.8: %s: a write sets D, of the page alone",
	      formats[format]);
	s.ebx = LARGE + 0x100000;
	s.eip = USER_32(load);
	t = legacy_run(&s);
	READ_ENTRIES();
	check(large == PTE_A, "3A 4.8: %s: A of a large page", formats[format]);
	s.ebx = format == PAE ? LARGE + 0x1ff000 : LARGE + 0x3ff000;
	s.eip = USER_32(store);
	last = (u32 *)(u64)(s.ebx - LARGE + LARGE_1);
	*last = 0;
	t = legacy_run(&s);
	READ_ENTRIES();
	check(t.vector == END_VECTOR && large == (PTE_A | PTE_D) && *last == 0xc3c3c3c3,
	      "3A 4.8: %s: D of a large page, written at its end", formats[format]);
	prepare();
	map(format, PTE_P | PTE_U, PTE_P | PTE_U);
	s.ebx = T;
	t = legacy_run(&s);
	READ_ENTRIES();
	check(page_fault(&t, PF_P | PF_W | PF_U, T) && !(lower & PTE_D), "3A 4.8: %s: a write that faults sets no D",
	      formats[format]);
	prepare();
}

/* The page is read, remapped to the other frame, invalidated, and read again. */
CODE32(remap_invlpg, "mov (%ebx), %eax; mov %edi, (%ecx); invlpg (%ebx); mov (%ebx), %edx")
CODE32(remap_cr3, "mov (%ebx), %eax; mov %edi, (%ecx); mov %cr3, %esi; mov %esi, %cr3; mov (%ebx), %edx")
CODE32(remap_pge, "mov (%ebx), %eax; mov %edi, (%ecx); mov %cr4, %esi; btc $7, %esi; mov %esi, %cr4; mov (%ebx), %edx")
CODE32(remap_paging, "mov (%ebx), %eax; mov %edi, (%ecx); mov %cr0, %esi; btc $31, %esi; mov %esi, %cr0; bts $31, "
		     "%esi; mov %esi, %cr0; mov "
		     "(%ebx), %edx")

static void test_invalidation(enum format format)
{
	static const struct {
		const char *what;
		const u8 *code;
		bool global;
	} ways[] = {
		{ "INVLPG", remap_invlpg, false },
		{ "MOV to CR3", remap_cr3, false },
		{ "INVLPG of a global page", remap_invlpg, true },
		{ "CR4.PGE: global pages, too", remap_pge, true },
		{ "paging off and on: global pages, too", remap_paging, true },
	};

	for (unsigned n = 0; n < ARRAY_SIZE(ways); n++)
		for (unsigned large = 0; large < 2; large++) {
			struct legacy_state s = start(format, 0, ways[n].code);
			u32 global = ways[n].global ? (u32)PTE_G : 0;
			struct legacy_trap t;

			prepare();
			s.cr4 |= ways[n].global ? (u32)CR4_PGE : 0;
			*(u32 *)frames[0] = 0x11111111;
			*(u32 *)frames[1] = 0x22222222;
			if (large) {
				*(volatile u32 *)(u64)(LARGE_1 + 0x60000) = 0x11111111;
				*(volatile u32 *)(u64)(LARGE_2 + 0x60000) = 0x22222222;
				s.ebx = LARGE + 0x60000;
				s.ecx = format == PAE ? LOW32(&pae_directory[2]) : LOW32(&directory[513]);
				*(u32 *)(u64)s.ecx |= global;
				s.edi = LARGE_2 | (u32)(PTE_P | PTE_W | PTE_PS) | global;
			} else {
				s.ecx = format == PAE ? LOW32(pae_table) : LOW32(table);
				*(u32 *)(u64)s.ecx |= global;
				s.edi = LOW32(frames[1]) | (u32)(PTE_P | PTE_W) | global;
			}
			t = legacy_run(&s);
			check(t.vector == END_VECTOR && t.eax == 0x11111111 && t.edx == 0x22222222,
			      "3A 4.10.4.1: %s: %s, %s page", formats[format], ways[n].what,
			      large ? "a large" : "a small");
		}
	prepare();
}

void guest(void)
{
	prepare();
	for (unsigned format = PLAIN; format <= PAE; format++) {
		test_absent(format);
		test_rights(format);
		test_marks(format);
		test_invalidation(format);
	}
	test_reserved();
	test_pdptes();
}
