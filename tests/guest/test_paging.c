/*
 * 4-level paging, SDM vol. 3A chapter 4: mappings of all sizes, rights, error codes and CR2, accessed and dirty bits, accesses
 * over page boundaries, and above all that nothing stale is left after each way of invalidating translations.
 */
#include "guest.h"

/* A part of the linear address space with a PML4 entry of its own, so that rights can be taken at every level. */
#define T     0x8000000000ull
#define HIGH  0xffff900000000000ull /* the upper half */
#define PAGE  4096ull
#define LARGE BIT(21)

CODE(load, "mov (%rdi), %rax")
CODE(store, "mov %rax, (%rdi)")
CODE(store_byte, "movb %al, (%rdi)")
CODE(go_there, "jmp *%rdi")
CODE(load_stac, "stac; mov (%rdi), %rax")
CODE(load_clac, "clac; mov (%rdi), %rax")
CODE(do_invlpg, "invlpg (%rdi)")
CODE(do_invpcid, "invpcid (%rdi), %rax")
CODE(set_cr3, "mov %rax, %cr3")
CODE(set_cr4, "mov %rax, %cr4")

static u64 *one, *two; /* frames: code that puts 1 or 2 into EAX and ends, then data */

#define DATA 64 /* offset of the quadword that tells the frames apart */

static void fill(u64 *frame, u8 number)
{
	const u8 code[] = { 0xb8, number, 0, 0, 0, 0xcd, END_VECTOR }; /* mov $number, %eax; int $0x40 */

	memcpy(frame, code, sizeof(code));
	frame[DATA / 8] = number;
}

static u64 loaded(u64 linear)
{
	struct trap t = KERNEL(load, .rdi = linear);

	return t.vector == END_VECTOR ? t.rax : ~0ull;
}

static u64 executed(u64 linear)
{
	struct trap t = KERNEL(linear, .rax = 0);

	return t.vector == END_VECTOR ? t.rax : ~0ull;
}

/* ---- sizes ---- */

static void test_sizes(void)
{
	u64 address = (u64)&one[DATA / 8];

	map_page(T, (u64)one, PTE_P | PTE_W);
	check_equal(loaded(T + DATA), 1, "3A 4.5: a page of 4 KiB");
	*entry_of(T + LARGE, 2) = (address & ~(LARGE - 1)) | PTE_P | PTE_PS;
	check_equal(loaded(T + LARGE + address % LARGE), 1, "3A 4.5: a page of 2 MiB");
	if (has_1g_pages()) {
		*entry_of(T + BIT(30), 3) = PTE_P | PTE_PS;
		check_equal(loaded(T + BIT(30) + address), 1, "3A 4.5: a page of 1 GiB");
		*entry_of(T + BIT(30), 3) = 0;
		invlpg(T + BIT(30));
	} else {
		skip("3A 4.5: a page of 1 GiB", "not offered");
	}
	*entry_of(T + LARGE, 2) = 0;
	invlpg(T + LARGE);
	map_page(HIGH, (u64)two, PTE_P);
	check_equal(loaded(HIGH + DATA), 2, "3A 4.5: the upper half of the address space");
	map_page(T, (u64)one, PTE_P | PTE_W | 0x18 | 0x7ffull << 52 | 7 << 9);
	check_equal(loaded(T + DATA), 1, "3A 4.5: bits that are ignored, and memory types, change nothing");
}

/* ---- rights: the whole of 4.6.1, in every combination ---- */

struct rights {
	bool user_page, writable, nx; /* of the page */
	bool wp, smep, smap, ac;      /* of the processor */
	bool user, write, fetch;      /* of the access */
};

static bool allowed(struct rights r)
{
	if (r.user)
		return r.user_page && (!r.write || r.writable) && !(r.fetch && r.nx);
	if (r.fetch)
		return !r.nx && !(r.user_page && r.smep);
	if (r.user_page && r.smap && !r.ac)
		return false;
	return !r.write || r.writable || !r.wp;
}

static u64 expected_error(struct rights r)
{
	return PF_P | (r.write ? PF_W : 0) | (r.user ? PF_U : 0) | (r.fetch ? PF_I : 0);
}

static struct trap try_access(struct rights r)
{
	struct frame f = { .rip = (u64)(r.write ? store : load),
			   .cs = KERNEL_CS,
			   .ss = KERNEL_DS,
			   .rsp = kernel_stack(),
			   .rflags = 2 | (r.ac ? FLAG_AC : 0),
			   .rdi = T + DATA,
			   .rax = 1 };

	if (r.fetch)
		f.rip = T;
	if (r.user) {
		f.rip = r.fetch ? T : USER(f.rip);
		f.cs = USER_CS;
		f.ss = USER_DS;
		f.rsp = user_stack();
	}
	return run(&f);
}

/* Rights are taken from the page at `level` alone; the entries above and below allow everything. */
static bool try_rights(struct rights r, unsigned level)
{
	u64 *entry = entry_of(T, level), old = *entry;
	struct trap t;
	bool good;

	*entry = (*entry & ~(PTE_U | PTE_W | PTE_NX)) | (r.user_page ? PTE_U : 0) | (r.writable ? PTE_W : 0) |
		 (r.nx ? PTE_NX : 0);
	flush_tlb();
	t = try_access(r);
	*entry = old;
	flush_tlb();
	if (allowed(r))
		good = t.vector == END_VECTOR;
	else
		good = t.vector == EXC_PF && t.error == expected_error(r) && t.cr2 == (r.fetch ? T : T + DATA);
	if (!good)
		print("# level %u: page U%u W%u NX%u, WP%u SMEP%u SMAP%u AC%u, access U%u W%u I%u: vector %lu error "
		      "0x%lx "
		      "cr2 0x%lx\n",
		      level, r.user_page, r.writable, r.nx, r.wp, r.smep, r.smap, r.ac, r.user, r.write, r.fetch,
		      t.vector, t.error, t.cr2);
	return good;
}

static bool try_all_pages(struct rights r)
{
	bool good = true;

	for (unsigned page = 0; page < 8; page++) {
		r.user_page = page & 1;
		r.writable = page & 2;
		r.nx = page & 4;
		if (r.nx && !has_nx())
			continue;
		for (unsigned level = 1; level <= 4; level++)
			good &= try_rights(r, level);
	}
	return good;
}

static void test_rights(void)
{
	static const char *const kinds[] = { "reads", "writes", "fetches" };
	u64 cr0 = read_cr0(), cr4 = read_cr4();

	map_page(T, (u64)one, PTE_P | PTE_W | PTE_U);
	for (unsigned access = 0; access < 6; access++) {
		bool good = true;

		for (unsigned mode = 0; mode < 16; mode++) {
			struct rights r = { .wp = mode & 1,
					    .smep = mode & 2,
					    .smap = mode & 4,
					    .ac = mode & 8,
					    .user = access >= 3,
					    .write = access % 3 == 1,
					    .fetch = access % 3 == 2 };

			if ((r.smep && !has_smep()) || (r.smap && !has_smap()))
				continue;
			write_cr0((cr0 & ~CR0_WP) | (r.wp ? CR0_WP : 0));
			write_cr4((cr4 & ~(CR4_SMEP | CR4_SMAP)) | (r.smep ? CR4_SMEP : 0) | (r.smap ? CR4_SMAP : 0));
			good &= try_all_pages(r);
		}
		check(good, "3A 4.6.1: %s of ring %u under all rights, WP, SMEP, SMAP, AC", kinds[access % 3],
		      access >= 3 ? 3 : 0);
	}
	write_cr0(cr0);
	write_cr4(cr4);
}

static void test_smap_instructions(void)
{
	struct trap t;

	if (!has_smap()) {
		skip("3A 4.6: STAC, CLAC, implicit accesses", "no SMAP");
		return;
	}
	write_cr4(read_cr4() | CR4_SMAP);
	map_page(T, (u64)one, PTE_P | PTE_U);
	t = KERNEL(load_stac, .rdi = T + DATA);
	check_end(&t, "3A 4.6: after STAC ring 0 reads a user page");
	check(t.rflags & FLAG_AC, "2 STAC: sets AC");
	t = KERNEL(load_clac, .rdi = T + DATA, .rflags = 2 | FLAG_AC);
	check_page_fault(&t, PF_P, T + DATA, "3A 4.6: after CLAC it does not");
	t = USER_MODE(load_stac, .rdi = T + DATA);
	check_fault(&t, EXC_UD, 0, "2 STAC: #UD in ring 3");

	/* An LDT on a user page: the processor's own accesses do not ask AC. */
	one[0] = descriptor(0, 0xfffff, ATTR_DATA32);
	gdt_entry(GDT_FREE)[0] = descriptor((u32)T, 0xfff, 0x82) & ~(0xffull << 56);
	gdt_entry(GDT_FREE)[1] = T >> 32;
	asm volatile("lldt %w0" ::"r"(GDT_FREE));
	{
		extern const u8 load_ds[];

		t = KERNEL(load_ds, .rax = 4, .rflags = 2 | FLAG_AC);
		check_page_fault(&t, PF_P, T,
				 "3A 4.6: implicit supervisor accesses to user pages fault whatever AC says");
		write_cr4(read_cr4() & ~CR4_SMAP);
		t = KERNEL(load_ds, .rax = 4);
		check_end(&t, "3A 4.6: without SMAP they do not");
	}
	asm volatile("lldt %w0; mov %1, %%ds" ::"r"(0), "r"(KERNEL_DS));
	fill(one, 1);
}
CODE(load_ds, "mov %eax, %ds")

/* ---- absent pages and reserved bits ---- */

static void test_absent(void)
{
	struct trap t;

	for (unsigned level = 1; level <= 4; level++) {
		u64 *entry, old;

		map_page(T, (u64)one, PTE_P | PTE_W | PTE_U);
		entry = entry_of(T, level);
		old = *entry;
		*entry = ~PTE_P; /* whatever else it has */
		invlpg(T);
		t = KERNEL(load, .rdi = T + 123);
		check_page_fault(&t, 0, T + 123, "3A 4.7: read, level %u absent", level);
		t = USER_MODE(store_byte, .rdi = T + 0xfff);
		check_page_fault(&t, PF_W | PF_U, T + 0xfff, "3A 4.7: write in ring 3, level %u absent", level);
		t = KERNEL(T);
		check_page_fault(&t, has_nx() ? PF_I : 0, T, "3A 4.7: fetch, level %u absent", level);
		check_equal(t.rip, T, "3A 6.15: RIP is where the fetch was to be");
		*entry = old;
		t = KERNEL(load, .rdi = T + DATA);
		check_end(&t, "3A 4.10.2.3: absent entries are not cached, level %u", level);
	}
	t = KERNEL(load, .rdi = HIGH + 0x123456789);
	check_page_fault(&t, 0, HIGH + 0x123456789, "3A 4.7: CR2 has all 64 bits");
}

static void try_reserved(unsigned level, u64 bits, const char *what)
{
	u64 *entry = entry_of(T, level), old = *entry;
	struct trap t;

	*entry |= bits;
	flush_tlb();
	t = KERNEL(load, .rdi = T + 8);
	check_page_fault(&t, PF_P | PF_RSVD, T + 8, "3A 4.7: reserved %s, read", what);
	t = USER_MODE(store, .rdi = T + 8);
	check_page_fault(&t, PF_P | PF_W | PF_U | PF_RSVD, T + 8, "3A 4.7: reserved %s, write in ring 3", what);
	*entry = old;
	flush_tlb();
}

static void test_reserved(void)
{
	unsigned width = cpuid(0x80000008, 0).a & 0xff;
	struct trap t;

	map_page(T, (u64)one, PTE_P | PTE_W | PTE_U);
	if (width < 52) {
		try_reserved(1, BIT(width), "address bit of a PTE");
		try_reserved(2, BIT(51), "address bit of a PDE");
		try_reserved(3, BIT(width), "address bit of a PDPTE");
		try_reserved(4, BIT(51), "address bit of a PML4E");
	}
	try_reserved(4, PTE_PS, "PS of a PML4E");
	try_reserved(2, PTE_PS | BIT(13), "bit 13 of a 2 MiB page");
	try_reserved(2, PTE_PS | BIT(20), "bit 20 of a 2 MiB page");
	try_reserved(3, PTE_PS | BIT(29), "bit 29 of a 1 GiB page");
	if (!has_nx())
		return;
	write_msr(MSR_EFER, read_msr(MSR_EFER) & ~EFER_NXE);
	for (unsigned level = 1; level <= 4; level++)
		try_reserved(level, PTE_NX, "XD without EFER.NXE");
	unmap_page(T);
	t = KERNEL(T);
	check_page_fault(&t, 0, T, "3A 4.7: without NXE and SMEP a fetch is not told from a read");
	if (has_smep()) {
		write_cr4(read_cr4() | CR4_SMEP);
		t = KERNEL(T);
		check_page_fault(&t, PF_I, T, "3A 4.7: with SMEP it is");
		write_cr4(read_cr4() & ~CR4_SMEP);
	}
	write_msr(MSR_EFER, read_msr(MSR_EFER) | EFER_NXE);
}

/* ---- accessed and dirty ---- */

static u64 marks(unsigned level) { return *entry_of(T, level) & (PTE_A | PTE_D); }

static void clear_marks(void)
{
	for (unsigned level = 1; level <= 4; level++)
		*entry_of(T, level) &= ~(PTE_A | PTE_D);
	flush_tlb();
}

static bool upper_accessed_only(void) { return marks(2) == PTE_A && marks(3) == PTE_A && marks(4) == PTE_A; }

static void test_marks(void)
{
	struct trap t;

	map_page(T, (u64)one, PTE_P | PTE_W | PTE_U);
	clear_marks();
	KERNEL(load, .rdi = T + DATA);
	check(marks(1) == PTE_A && upper_accessed_only(), "3A 4.8: a read sets A in every entry and no D");
	KERNEL(store, .rdi = T + DATA, .rax = 1);
	check(marks(1) == (PTE_A | PTE_D) && upper_accessed_only(),
	      "3A 4.8: a write after it sets D, in the PTE alone");
	clear_marks();
	KERNEL(T);
	check(marks(1) == PTE_A && upper_accessed_only(), "3A 4.8: a fetch sets A");
	clear_marks();
	KERNEL(store, .rdi = T + DATA, .rax = 1);
	check(marks(1) == (PTE_A | PTE_D), "3A 4.8: a write sets A and D");
	*entry_of(T, 1) &= ~PTE_D;
	invlpg(T);
	KERNEL(store, .rdi = T + DATA, .rax = 1);
	check(marks(1) == (PTE_A | PTE_D), "3A 4.8: and D again after it was cleared and invalidated");

	*entry_of(T, 1) &= ~PTE_W;
	clear_marks();
	t = USER_MODE(store, .rdi = T + DATA);
	check(t.vector == EXC_PF && !(marks(1) & PTE_D), "3A 4.8: a write that faults does not set D");
	t = KERNEL(store, .rdi = T + DATA);
	check(t.vector == EXC_PF && !(marks(1) & PTE_D), "3A 4.8: nor one that CR0.WP stops");
	write_cr0(read_cr0() & ~CR0_WP);
	t = KERNEL(store, .rdi = T + DATA, .rax = 1);
	check(t.vector == END_VECTOR && marks(1) == (PTE_A | PTE_D),
	      "3A 4.8: a write without WP to a read-only page does");
	write_cr0(read_cr0() | CR0_WP);

	unmap_page(T);
	for (unsigned level = 2; level <= 4; level++)
		*entry_of(T, level) &= ~PTE_A;
	flush_tlb();
	KERNEL(load, .rdi = T);
	check(*entry_of(T, 1) == 0, "3A 4.8: an absent entry is not written");

	*entry_of(T + LARGE, 2) = PTE_P | PTE_W | PTE_PS;
	KERNEL(load, .rdi = T + LARGE);
	check_equal(*entry_of(T + LARGE, 2), PTE_P | PTE_W | PTE_PS | PTE_A, "3A 4.8: A of a 2 MiB page");
	KERNEL(store, .rdi = T + LARGE + ((u64)&one[100] & ~7ull));
	check_equal(*entry_of(T + LARGE, 2), PTE_P | PTE_W | PTE_PS | PTE_A | PTE_D, "3A 4.8: D of a 2 MiB page");
	*entry_of(T + LARGE, 2) = 0;
	invlpg(T + LARGE);
}

/* ---- nothing stale ---- */

/* Fill the TLB with reading, writing and executing at T, with frame one behind it. */
static void warm(u64 flags)
{
	map_page(T, (u64)one, flags | PTE_P | PTE_W);
	loaded(T + DATA);
	KERNEL(store, .rdi = T + DATA, .rax = 1);
	executed(T);
}

static bool sees(u64 number)
{
	bool good = loaded(T + DATA) == number && executed(T) == number;

	if (good) {
		KERNEL(store, .rdi = T + DATA + 8, .rax = number + 100);
		good = (number == 1 ? one : two)[DATA / 8 + 1] == number + 100;
	}
	return good;
}

static void remap(u64 flags) { *entry_of(T, 1) = (u64)two | PTE_P | PTE_W | flags; }

static void test_invlpg(void)
{
	struct trap t;

	warm(0);
	remap(0);
	invlpg(T + 0xabc);
	check(sees(2), "3A 4.10.4.1: INVLPG");
	warm(PTE_G);
	remap(PTE_G);
	invlpg(T);
	check(sees(2), "3A 4.10.4.1: INVLPG of a global page");

	/* A change of a table above the page, and of a large page that is addressed somewhere else. */
	warm(0);
	u64 *directory = entry_of(T, 2), old = *directory;
	u64 *table = frame_alloc();

	table[0] = (u64)two | PTE_P | PTE_W;
	*directory = (u64)table | PTE_P | PTE_W;
	invlpg(T);
	check(sees(2), "3A 4.10.4.1: INVLPG after a change of the PDE");
	*directory = old;
	flush_tlb();

	*entry_of(T + LARGE, 2) = PTE_P | PTE_W | PTE_PS; /* memory from 0 */
	u64 offset = (u64)one & (LARGE - 1), base = (u64)one & ~(LARGE - 1);
	*entry_of(T + LARGE, 2) |= base;
	invlpg(T + LARGE);
	check_equal(loaded(T + LARGE + offset + DATA), 1, "3A 4.5: the frame in a 2 MiB page");
	*entry_of(T + LARGE, 2) = 0;
	invlpg(T + LARGE + (offset ^ 0x100000)); /* elsewhere in the page */
	t = KERNEL(load, .rdi = T + LARGE + offset + DATA);
	check_page_fault(&t, 0, T + LARGE + offset + DATA,
			 "3A 4.10.4.1: INVLPG of any address invalidates the large page");

	t = USER_MODE(do_invlpg, .rdi = T);
	check_fault(&t, EXC_GP, 0, "2 INVLPG: #GP in ring 3");
	t = KERNEL(do_invlpg, .rdi = 1ull << 47);
	check_end(&t, "2 INVLPG: nothing for a non-canonical address");
	t = KERNEL(do_invlpg, .rdi = HIGH + 0x5000000000);
	check_end(&t, "2 INVLPG: nothing for an absent page");
}

static void test_rights_changes(void)
{
	struct trap t;

	warm(0);
	*entry_of(T, 1) &= ~PTE_W;
	invlpg(T);
	t = KERNEL(store, .rdi = T + DATA);
	check_page_fault(&t, PF_P | PF_W, T + DATA, "3A 4.10.4.2: a right taken is gone after INVLPG: write");
	*entry_of(T, 1) |= PTE_W;
	t = KERNEL(store, .rdi = T + DATA, .rax = 1); /* may still fault, but then no more */
	t = KERNEL(store, .rdi = T + DATA, .rax = 1);
	check_end(&t, "3A 4.10.4.3: a right given is there at the latest after one more fault");
	if (has_nx()) {
		*entry_of(T, 1) |= PTE_NX;
		invlpg(T);
		t = KERNEL(T);
		check_page_fault(&t, PF_P | PF_I, T, "3A 4.10.4.2: a right taken: execution");
	}
	warm(PTE_U);
	USER_MODE(load, .rdi = T + DATA);
	*entry_of(T, 1) &= ~PTE_U;
	invlpg(T);
	t = USER_MODE(load, .rdi = T + DATA);
	check_page_fault(&t, PF_P | PF_U, T + DATA, "3A 4.10.4.2: a right taken: ring 3");

	write_cr0(read_cr0() & ~CR0_WP);
	*entry_of(T, 1) &= ~PTE_W;
	invlpg(T);
	t = KERNEL(store, .rdi = T + DATA, .rax = 1);
	check_end(&t, "3A 4.6.1: WP off");
	write_cr0(read_cr0() | CR0_WP);
	t = KERNEL(store, .rdi = T + DATA, .rax = 1);
	check_page_fault(&t, PF_P | PF_W, T + DATA, "3A 4.6.1: WP on: at once, without an invalidation");
}

/*
 * The same once more for a page that has only data on it, which an engine may keep in another way than one with code: all
 * accesses that a processor tells apart are made first, so that each has its translation, then what is behind it changes.
 */
#define DATA_PAGE (T + 0x123 * LARGE + 7 * PAGE) /* far from code and large pages, by the lower bits too */
static u64 *three, *four;			 /* frames that are never executed */

static bool accesses(u64 number, bool smap)
{
	u64 there = DATA_PAGE, *frame = number == 3 ? three : four;
	u64 ac = smap ? FLAG_AC : 0;
	bool good;

	frame[0] = number;
	good = KERNEL(load, .rdi = there, .rflags = 2 | ac).rax == number &&
	       USER_MODE(load, .rdi = there).rax == number;
	KERNEL(store, .rdi = there + 8, .rax = number + 10, .rflags = 2 | ac);
	USER_MODE(store, .rdi = there + 16, .rax = number + 20);
	good &= frame[1] == number + 10 && frame[2] == number + 20;
	frame[1] = frame[2] = 0;
	return good;
}

static void test_data_page(bool smap)
{
	u64 there = DATA_PAGE, cr4 = read_cr4();
	const char *how = smap ? " with SMAP" : "";
	struct trap t;

	if (smap)
		write_cr4(cr4 | CR4_SMAP);
	map_page(there, (u64)three, PTE_P | PTE_W | PTE_U);
	accesses(3, smap);
	*entry_of(there, 1) = (u64)four | PTE_P | PTE_W | PTE_U;
	invlpg(there);
	check(accesses(4, smap), "3A 4.10.4.1: INVLPG of a page of data%s", how);
	*entry_of(there, 1) = (u64)three | PTE_P | PTE_W | PTE_U;
	write_cr3(read_cr3());
	check(accesses(3, smap), "3A 4.10.4.1: MOV to CR3%s", how);

	*entry_of(there, 1) &= ~PTE_W;
	invlpg(there);
	t = USER_MODE(store, .rdi = there);
	check_page_fault(&t, PF_P | PF_W | PF_U, there, "3A 4.10.4.2: made read-only: ring 3%s", how);
	write_cr0(read_cr0() & ~CR0_WP);
	t = KERNEL(store, .rdi = there, .rflags = 2 | (smap ? FLAG_AC : 0));
	check_end(&t, "3A 4.6.1: ring 0 without WP%s", how);
	write_cr0(read_cr0() | CR0_WP);
	t = KERNEL(store, .rdi = there, .rflags = 2 | (smap ? FLAG_AC : 0));
	check_page_fault(&t, PF_P | PF_W, there, "3A 4.6.1: with WP, at once%s", how);
	*entry_of(there, 1) = (u64)three | PTE_P | PTE_W | PTE_U;
	invlpg(there);
	accesses(3, smap);
	if (smap) {
		t = KERNEL(load, .rdi = there);
		check_page_fault(&t, PF_P, there, "3A 4.6.1: SMAP without AC, after accesses with it");
	} else if (has_smap()) {
		write_cr4(cr4 | CR4_SMAP);
		t = KERNEL(load, .rdi = there);
		check_page_fault(&t, PF_P, there, "3A 4.6.1: CR4.SMAP counts at once");
	}
	write_cr4(cr4);
	*entry_of(there, 1) = (u64)three | PTE_P | PTE_W;
	invlpg(there);
	t = USER_MODE(load, .rdi = there);
	check_page_fault(&t, PF_P | PF_U, there, "3A 4.10.4.2: made a supervisor page%s", how);
	t = USER_MODE(store, .rdi = there);
	check_page_fault(&t, PF_P | PF_W | PF_U, there, "3A 4.10.4.2: for writes, too%s", how);
	unmap_page(there);
	t = KERNEL(load, .rdi = there);
	check_page_fault(&t, 0, there, "3A 4.10.4.2: unmapped: ring 0%s", how);
	t = KERNEL(store, .rdi = there);
	check_page_fault(&t, PF_W, there, "3A 4.10.4.2: for writes, too%s", how);
}

static void test_cr3(void)
{
	u64 old = read_cr3(), other;
	struct trap t;

	warm(0);
	remap(0);
	write_cr3(old);
	check(sees(2), "3A 4.10.4.1: MOV to CR3, the same value");
	warm(0);
	map_page(HIGH, (u64)two, PTE_P);
	other = address_space();
	write_cr3(other);
	*entry_of(T, 4) = *entry_of(HIGH, 4);
	write_cr3(old);
	warm(0);
	write_cr3(other);
	check_equal(loaded((HIGH & (BIT(39) - 1)) + T + DATA), 2, "3A 4.10.4.1: MOV to CR3, another address space");
	write_cr3(old);
	check(sees(1), "3A 4.10.4.1: and back");
	t = KERNEL(set_cr3, .rax = old | BIT(52));
	check_fault(&t, EXC_GP, 0, "3A 4.5: reserved bits of CR3");
	t = KERNEL(set_cr3, .rax = old | BIT(63));
	check_fault(&t, EXC_GP, 0, "3A 4.10.4.1: bit 63 of CR3 is reserved without PCIDs");
	t = USER_MODE(set_cr3, .rax = old);
	check_fault(&t, EXC_GP, 0, "2 MOV CR: #GP in ring 3");
}

static void test_global(void)
{
	u64 cr4 = read_cr4();

	if (!has_pge()) {
		skip("3A 4.10.2.4: global pages", "not offered");
		return;
	}
	write_cr4(cr4 | CR4_PGE);
	warm(PTE_G);
	remap(PTE_G);
	write_cr4(cr4);
	check(sees(2), "3A 4.10.4.1: CR4.PGE cleared: global pages too");
	warm(PTE_G);
	remap(PTE_G);
	write_cr4(cr4 | CR4_PGE);
	check(sees(2), "3A 4.10.4.1: CR4.PGE set");
	warm(PTE_G);
	write_cr3(read_cr3());
	check(sees(1), "3A 4.10.2.4: MOV to CR3 may keep global pages, which must be right");
	remap(PTE_G);
	invlpg(T);
	check(sees(2), "3A 4.10.4.1: INVLPG with PGE");
	write_cr4(cr4);
}

/* ---- PCIDs ---- */

static u64 space[2]; /* CR3 without PCID: T is mapped to one or two */

static void enter(unsigned n, bool keep) { write_cr3(space[n] | (n + 1) | (keep ? BIT(63) : 0)); }

static void invpcid(u64 type, u64 pcid, u64 address)
{
	struct {
		u64 pcid, address;
	} what = { pcid, address };

	asm volatile("invpcid %0, %1" ::"m"(what), "r"(type) : "memory");
}

/* The page in space 0, written from outside. */
static u64 *page_of_space(unsigned n)
{
	u64 *table = (u64 *)space[n];

	for (unsigned at = 4; at > 1; at--)
		table = (u64 *)(table[T >> (3 + 9 * at) & 511] & PTE_ADDRESS);
	return &table[T >> 12 & 511];
}

static void make_space(unsigned n, u64 *frame)
{
	u64 old = read_cr3();

	space[n] = address_space();
	write_cr3(space[n]);
	*entry_of(T, 4) = 0;
	map_page(T, (u64)frame, PTE_P | PTE_W);
	write_cr3(old);
}

/* Space 0 is warm with frame one, left for space 1, and its page changed to frame two. */
static void change_behind(u64 flags)
{
	enter(0, false);
	*page_of_space(0) = (u64)one | PTE_P | PTE_W | flags;
	enter(0, false);
	invlpg(T);
	executed(T);
	KERNEL(store, .rdi = T + DATA, .rax = 1);
	enter(1, true);
	*page_of_space(0) = (u64)two | PTE_P | PTE_W | flags;
}

static void test_pcid_invalidation(void)
{
	change_behind(0);
	enter(0, false);
	check(sees(2), "3A 4.10.4.1: MOV to CR3 without the no-flush bit");
	if (!has_invpcid()) {
		skip("3A 4.10.4.1: INVPCID", "not offered");
		return;
	}
	change_behind(0);
	invpcid(0, 1, T);
	enter(0, true);
	check(sees(2), "3A 4.10.4.1: INVPCID of an address of another PCID");
	change_behind(0);
	invpcid(1, 1, 0);
	enter(0, true);
	check(sees(2), "3A 4.10.4.1: INVPCID of another PCID");
	change_behind(PTE_G);
	invpcid(2, 0, 0);
	enter(0, true);
	check(sees(2), "3A 4.10.4.1: INVPCID of everything");
	change_behind(0);
	invpcid(3, 0, 0);
	enter(0, true);
	check(sees(2), "3A 4.10.4.1: INVPCID of everything but global pages");
	*page_of_space(0) = (u64)one | PTE_P | PTE_W;
	invpcid(0, 1, T);
	check(sees(1), "3A 4.10.4.1: INVPCID of an address of this PCID");
	*page_of_space(0) = (u64)two | PTE_P | PTE_W;
	invpcid(1, 1, 0);
	check(sees(2), "3A 4.10.4.1: INVPCID of this PCID");
}

static void test_invpcid_faults(void)
{
	static const struct {
		u64 type, pcid, address;
		const char *what;
	} bad[] = {
		{ 4, 0, 0, "a type that there is not" },
		{ 1, 0x1000, 0, "bits above the PCID" },
		{ 0, 1, BIT(47), "a non-canonical address" },
	};
	u64 words[2] = { 0 };
	struct trap t;

	for (unsigned n = 0; n < ARRAY_SIZE(bad); n++) {
		words[0] = bad[n].pcid;
		words[1] = bad[n].address;
		t = KERNEL(do_invpcid, .rax = bad[n].type, .rdi = (u64)words);
		check_fault(&t, EXC_GP, 0, "2 INVPCID: %s", bad[n].what);
	}
	t = USER_MODE(do_invpcid, .rdi = USER(words));
	check_fault(&t, EXC_GP, 0, "2 INVPCID: ring 3");
	t = KERNEL(do_invpcid, .rax = 2, .rdi = HIGH + PAGE);
	check_page_fault(&t, 0, HIGH + PAGE, "2 INVPCID: reads its descriptor whatever the type");
}

static void test_pcid(void)
{
	u64 old = read_cr3(), cr4 = read_cr4();
	bool good = true;
	struct trap t;

	if (!has_pcid()) {
		t = KERNEL(set_cr4, .rax = cr4 | CR4_PCIDE);
		check_fault(&t, EXC_GP, 0, "3A 2.5: CR4.PCIDE is reserved without PCIDs");
		skip("3A 4.10.1: PCIDs", "not offered");
		return;
	}
	make_space(0, one);
	make_space(1, two);
	write_cr3(old | 8);
	t = KERNEL(set_cr4, .rax = cr4 | CR4_PCIDE);
	check_fault(&t, EXC_GP, 0, "3A 4.10.1: CR4.PCIDE with bits 11:0 of CR3");
	write_cr3(old);
	write_cr4(cr4 | CR4_PCIDE | CR4_PGE);
	for (unsigned n = 0; n < 20; n++) {
		enter(n % 2, n >= 4);
		good &= sees(n % 2 + 1);
	}
	check(good, "3A 4.10.1: each PCID has its own translations");
	check_equal(read_cr3(), space[1] | 2, "3A 4.10.4.1: bit 63 does not stay in CR3");
	good = true;
	for (unsigned n = 0; n < 100; n++) { /* more than any processor keeps */
		write_cr3(space[n % 2] | (n + 1) | (n % 3 ? BIT(63) : 0));
		good &= loaded(T + DATA) == n % 2 + 1;
		invpcid(1, n + 1, 0);
	}
	check(good, "3A 4.10.1: 100 of them");
	test_pcid_invalidation();
	test_invpcid_faults();
	enter(0, false);
	write_cr3(old);
	write_cr4(cr4);
	good = loaded(T + DATA) != ~0ull;
	warm(0);
	remap(0);
	write_cr3(old);
	check(sees(2) && good, "3A 4.10.4.1: CR4.PCIDE cleared, and CR3 written");
}

/* ---- addresses that are none ---- */

CODE(load_rbp, "mov (%rbp), %rax")
CODE(do_push, "push %rax")
CODE(do_call, "call *%rdi")

static void test_canonical(void)
{
	static const u64 bad[] = { BIT(47), BIT(63), 0xffff7fffffffffffull - 7 };
	struct trap t;

	for (unsigned n = 0; n < ARRAY_SIZE(bad); n++) {
		t = KERNEL(load, .rdi = bad[n]);
		check_fault(&t, EXC_GP, 0, "1 3.3.7.1: read at 0x%lx", bad[n]);
		t = USER_MODE(store, .rdi = bad[n]);
		check_fault(&t, EXC_GP, 0, "1 3.3.7.1: write at 0x%lx", bad[n]);
		t = KERNEL(load_rbp, .rbp = bad[n]);
		check_fault(&t, EXC_SS, 0, "1 3.3.7.1: by RBP: #SS");
		t = USER_MODE(go_there, .rdi = bad[n]);
		check_fault(&t, EXC_GP, 0, "2 JMP: to 0x%lx", bad[n]);
		check_equal(t.rip, USER(go_there), "2 JMP: RIP is the jump's");
	}
	t = USER_MODE(do_push, .rsp = BIT(47) + 8);
	check_fault(&t, EXC_SS, 0, "2 PUSH: #SS");
	check_equal(t.rsp, BIT(47) + 8, "2 PUSH: RSP stays");
	t = USER_MODE(do_call, .rdi = BIT(47));
	check_fault(&t, EXC_GP, 0, "2 CALL: to a non-canonical address");
	check(t.rip == USER(do_call) && t.rsp == user_stack(), "2 CALL: RIP and RSP stay");

	map_page(BIT(47) - PAGE, (u64)one, PTE_P | PTE_W | PTE_U);
	t = KERNEL(load, .rdi = BIT(47) - 4);
	check_fault(&t, EXC_GP, 0, "1 3.3.7.1: a read over the end of the lower half");
	memset((u8 *)one + PAGE - 4, 0x90, 4);
	t = KERNEL(BIT(47) - 4);
	check_fault(&t, EXC_GP, 0, "1 3.3.7.1: execution runs over the end of the lower half");
	check_equal(t.rip, BIT(47), "1 3.3.7.1: RIP is beyond it");
}

/* ---- over page boundaries ---- */

CODE(add_there, "add %rax, (%rdi)")
CODE(lock_add_there, "lock add %rax, (%rdi)")
CODE(xchg_there, "xchg %rax, (%rdi)")
CODE(cmpxchg_there, "lock cmpxchg %rcx, (%rdi)")
CODE(push_there, "push (%rdi)")
CODE(pop_there, "pop (%rdi)")
CODE(bts_there, "bts %rax, (%rdi)")

static const struct {
	const u8 *code;
	const char *name;
} writers[] = {
	{ store, "MOV" },
	{ add_there, "ADD" },
	{ lock_add_there, "LOCK ADD" },
	{ xchg_there, "XCHG" },
	{ cmpxchg_there, "LOCK CMPXCHG" },
	{ pop_there, "POP" },
	{ bts_there, "BTS" },
};

static void test_crossing(void)
{
	u64 at = T + PAGE - 3, *tail = (u64 *)((u8 *)one + PAGE - 8), kept = 0x1122334455667788;
	struct trap t;

	map_page(T, (u64)one, PTE_P | PTE_W | PTE_U);
	for (unsigned n = 0; n < ARRAY_SIZE(writers); n++) {
		*tail = kept;
		unmap_page(T + PAGE);
		t = KERNEL(writers[n].code, .rdi = at, .rax = 5, .rcx = 7);
		check_page_fault(&t, PF_W, T + PAGE, "3A 4.7: %s into an absent second page", writers[n].name);
		check(*tail == kept && t.rax == 5 && t.rsp == kernel_stack(), "3A 4.7: has written nothing");
		map_page(T + PAGE, (u64)two, PTE_P);
		t = KERNEL(writers[n].code, .rdi = at, .rax = 5, .rcx = 7);
		check_page_fault(&t, PF_P | PF_W, T + PAGE, "3A 4.7: %s into a read-only second page", writers[n].name);
		check(*tail == kept, "3A 4.7: has written nothing");
	}
	unmap_page(T + PAGE);
	t = KERNEL(load, .rdi = at);
	check_page_fault(&t, 0, T + PAGE, "3A 4.7: read, second page absent");
	t = USER_MODE(push_there, .rdi = at);
	check_page_fault(&t, PF_U, T + PAGE, "3A 4.7: PUSH of it");
	t = USER_MODE(do_push, .rsp = T + PAGE + 5);
	check_page_fault(&t, PF_W | PF_U, T + PAGE, "3A 4.7: PUSH over the boundary");
	unmap_page(T);
	map_page(T + PAGE, (u64)two, PTE_P | PTE_W);
	t = KERNEL(store, .rdi = at);
	check_page_fault(&t, PF_W, at, "3A 4.7: write, first page absent");

	map_page(T, (u64)one, PTE_P | PTE_W);
	map_page(T + PAGE, (u64)two, PTE_P | PTE_W);
	KERNEL(store, .rdi = at, .rax = 0x0807060504030201);
	check(*tail >> 40 == 0x030201 && (*two & 0xffffffffff) == 0x0807060504, "3A 4.1: a write over the boundary");
	check_equal(loaded(at), 0x0807060504030201, "3A 4.1: a read over the boundary");
	KERNEL(lock_add_there, .rdi = at, .rax = 0x00000000fe000000);
	check_equal(loaded(at), 0x0807060602030201, "3A 8.1.2: LOCK ADD over the boundary");
	fill(two, 2);
}

/* ---- tables that map themselves, and aliases ---- */

static void test_self_modification(void)
{
	u64 *table, alias = T + 5 * PAGE;
	struct trap t;

	map_page(T, (u64)one, PTE_P | PTE_W);
	table = (u64 *)(*entry_of(T, 2) & PTE_ADDRESS);
	map_page(alias, (u64)table, PTE_P | PTE_W);
	loaded(T + DATA);
	t = KERNEL(store, .rdi = alias, .rax = (u64)two | PTE_P | PTE_W);
	check_end(&t, "3A 4.10: a table that maps itself is written through that mapping");
	invlpg(T);
	check(sees(2), "3A 4.10: and has its effect");
	check(*(volatile u64 *)alias & PTE_D, "3A 4.8: dirty bits are seen through it");

	/* The store that makes its own page absent is still done; the next access faults. */
	t = KERNEL(store, .rdi = alias + 5 * 8, .rax = 0);
	check_end(&t, "3A 4.10: it unmaps itself");
	invlpg(alias);
	t = KERNEL(load, .rdi = alias);
	check_page_fault(&t, 0, alias, "3A 4.10: and is gone");

	/* A recursive PML4 entry. */
	u64 *top = (u64 *)(read_cr3() & PTE_ADDRESS), recursive = 0xffff000000000000ull | 510ull << 39;

	top[510] = (u64)top | PTE_P | PTE_W;
	check_equal(*(volatile u64 *)(recursive + ((T >> 9) & (BIT(39) - 1) & ~7ull)), table[0],
		    "3A 4.5: a recursive PML4 entry shows the PTEs");
	top[510] = 0;
	flush_tlb();
}

static void test_alias(void)
{
	volatile u64 *a = (u64 *)(T + DATA), *b = (u64 *)(T + PAGE + DATA);
	bool good = true;

	map_page(T, (u64)one, PTE_P | PTE_W);
	map_page(T + PAGE, (u64)one, PTE_P | PTE_W);
	for (u64 n = 0; n < 100; n++) {
		*a = n;
		good &= *b == n;
		*(volatile u8 *)((u64)b + 3) = 0xff;
		good &= *a == (n | 0xff000000);
	}
	check(good, "3A 4.1: two linear addresses of one page");
	fill(one, 1);
}

void guest(void)
{
	one = frame_alloc();
	two = frame_alloc();
	three = frame_alloc();
	four = frame_alloc();
	fill(one, 1);
	fill(two, 2);
	test_sizes();
	test_rights();
	test_smap_instructions();
	test_absent();
	test_reserved();
	test_marks();
	test_invlpg();
	test_rights_changes();
	test_data_page(false);
	if (has_smap())
		test_data_page(true);
	test_cr3();
	test_global();
	test_pcid();
	test_canonical();
	test_crossing();
	test_self_modification();
	test_alias();
}
