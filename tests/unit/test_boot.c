/*
 * Loaders: what good kernels find in memory and registers, and that bad files get a sentence: truncated anywhere, every field of
 * the headers with hostile values, too large for memory.
 */
#include "boot/boot.h"

#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

#define KERNEL_SIZE  0x4000u
#define SETUP_SIZE   (2 * 512u) /* one setup sector */
#define PAYLOAD_SIZE (KERNEL_SIZE - SETUP_SIZE)
#define LOAD_AT	     0x400000u

struct guest {
	struct guest_mem *mem;
	struct cpu_state state;
	struct error err;
	struct boot_config config;
	uint8_t kernel[KERNEL_SIZE];
	size_t kernel_size;
	const uint8_t *initrd;
	size_t initrd_size;
	struct boot_bytes modules[3];
};

static void setup(struct guest *g, uint64_t memory)
{
	memset(g, 0, sizeof(*g));
	g->mem = mem_create(memory, NULL);
	assert_non_null(g->mem);
	assert_int_equal(bios_map(g->mem, NULL), 0);
	g->config = (struct boot_config){
		.kernel = "k", .initrd = "i", .command_line = "a=b", .cpu_count = 2, .serial_ports = 0x5
	};
	g->kernel_size = KERNEL_SIZE;
}

static int load(struct guest *g)
{
	int rc;

	memset(&g->err, 0, sizeof(g->err));
	rc = boot_load_bytes(&g->config,
			     &(struct boot_files){ .kernel = { g->kernel, g->kernel_size },
						   .initrd = { g->initrd, g->initrd_size },
						   .modules = g->modules },
			     g->mem, &g->state, &g->err);
	assert_int_equal(rc, -g->err.code);
	if (rc)
		assert_true(*g->err.text && !strchr(g->err.text, '\n'));
	return rc;
}

static void assert_refused(struct guest *g, const char *what)
{
	assert_int_not_equal(load(g), 0);
	if (!strstr(g->err.text, what))
		fail_msg("'%s' does not have '%s' in it", g->err.text, what);
}

static uint64_t peek(struct guest *g, uint64_t address, unsigned size)
{
	uint64_t value = 0;

	assert_int_equal(mem_read(g->mem, gpa(address), &value, size), 0);
	return value;
}

/* ---- bzImage ---- */

static void make_linux(struct guest *g)
{
	uint8_t *k = g->kernel;

	for (unsigned i = SETUP_SIZE; i < KERNEL_SIZE; i++)
		k[i] = (uint8_t)(i * 7);
	k[0x1f1] = SETUP_SIZE / 512 - 1;
	store_le32(k + 0x1f4, PAYLOAD_SIZE / 16);
	store_le16(k + 0x1fe, 0xaa55);
	k[0x200] = 0xeb;
	k[0x201] = 0x66;
	memcpy(k + 0x202, "HdrS", 4);
	store_le16(k + 0x206, 0x20f);
	k[0x211] = 1;
	store_le32(k + 0x22c, 0x7fffffff); /* initrd_addr_max */
	store_le32(k + 0x230, 0x200000);   /* kernel_alignment */
	k[0x234] = 1;
	store_le16(k + 0x236, 1);
	store_le32(k + 0x238, 2047);
	store_le64(k + 0x258, LOAD_AT);
	store_le32(k + 0x260, 0x10000);
}

static void assert_long_mode(const struct cpu_state *s)
{
	assert_int_equal(s->cr0 & (CR0_PG | CR0_PE), CR0_PG | CR0_PE);
	assert_true(s->cr4 & CR4_PAE);
	assert_int_equal(s->efer & (EFER_LME | EFER_LMA), EFER_LME | EFER_LMA);
	assert_int_equal(s->seg_sel[CS], 0x10);
	assert_int_equal(s->seg_sel[DS], 0x18);
	assert_int_equal(s->seg_sel[ES], 0x18);
	assert_int_equal(s->seg_sel[SS], 0x18);
	assert_int_equal(s->seg_attr[CS] & (ATTR_L | ATTR_DB | ATTR_P | ATTR_CODE), ATTR_L | ATTR_P | ATTR_CODE);
	assert_int_equal(s->rflags, 2);
}

/* The guest's own walk of the tables: is this address mapped to itself? */
static void assert_identity(struct guest *g, uint64_t address)
{
	uint64_t entry = peek(g, (g->state.cr3 & PAGE_MASK) + 8 * bits(address, 47, 39), 8);

	assert_true(entry & 1);
	entry = peek(g, (entry & PAGE_MASK) + 8 * bits(address, 38, 30), 8);
	assert_true(entry & 1);
	entry = peek(g, (entry & PAGE_MASK) + 8 * bits(address, 29, 21), 8);
	assert_int_equal(entry & 0x83, 0x83);
	assert_true((entry & ~0x1fffffull) == (address & ~0x1fffffull));
}

static void test_linux(void **state)
{
	static uint8_t initrd[5000] = "initrd";
	struct guest g;
	uint64_t where;

	(void)state;
	setup(&g, 16 * MIB);
	make_linux(&g);
	g.initrd = initrd;
	g.initrd_size = sizeof(initrd);
	assert_int_equal(load(&g), 0);
	assert_long_mode(&g.state);
	assert_true(g.state.rip == LOAD_AT + 0x200);
	assert_memory_equal(mem_map(g.mem, gpa(LOAD_AT), PAYLOAD_SIZE, false), g.kernel + SETUP_SIZE, PAYLOAD_SIZE);
	for (uint64_t a = 0; a < 1ull << 32; a += 0x0fe00000)
		assert_identity(&g, a);
	assert_identity(&g, 0xffffffff);
	/* the GDT that the state's selectors come from */
	assert_true(peek(&g, g.state.gdtr_base + 0x10, 8) == 0x00af9b000000ffff);
	assert_true(peek(&g, g.state.gdtr_base + 0x18, 8) == 0x00cf93000000ffff);
	assert_int_equal(g.state.gdtr_limit, 0x1f);
	/* zero page */
	where = g.state.gpr[RSI];
	assert_int_equal(peek(&g, where + 0x202, 4), 0x53726448);
	assert_int_equal(peek(&g, where + 0x210, 1), 0xff);
	assert_int_equal(peek(&g, where + 0x21c, 4), sizeof(initrd));
	assert_int_equal(peek(&g, peek(&g, where + 0x218, 4), 4), load_le32("init"));
	assert_int_equal(peek(&g, where + 0x218, 4) % PAGE_SIZE, 0);
	assert_int_equal(peek(&g, peek(&g, where + 0x228, 4), 4), load_le32("a=b"));
	assert_int_equal(peek(&g, peek(&g, where + 0x070, 8), 4), load_le32("RSD "));
	/* the BIOS: base memory; every vector leads to a handler, INT 15h's not to the dummy */
	assert_int_equal(peek(&g, 0x413, 2), 639);
	assert_true(peek(&g, 0x400, 8) == 0x3e803f8); /* COM1 and COM3 */
	assert_int_equal(peek(&g, 0x408, 6), 0);
	assert_int_equal(peek(&g, 0x40e, 2), 0x9fc0);
	assert_int_equal(peek(&g, 0x410, 2), 2 << 9 | 2);
	assert_int_equal(peek(&g, 0x9fc00, 1), 1);
	assert_int_equal(peek(&g, 0xffff0, 1), 0xea);
	assert_int_equal(peek(&g, 0xfffffff0, 1), 0xea);
	for (unsigned vector = 0; vector < 256; vector++)
		assert_int_equal(peek(&g, 4 * vector + 2, 2), 0xf000);
	assert_int_equal(peek(&g, 0xf0000 + peek(&g, 4 * 0x6f, 2), 1), 0xcf);
	assert_int_not_equal(peek(&g, 4 * 0x15, 2), peek(&g, 4 * 0x6f, 2));
	/* memory map: first range is base memory, last ends with RAM */
	assert_int_equal(peek(&g, where + 0x1e8, 1), 4);
	assert_int_equal(peek(&g, where + 0x2d0, 8), 0);
	assert_int_equal(peek(&g, where + 0x2d0 + 8, 8), 0x9fc00);
	assert_int_equal(peek(&g, where + 0x2d0 + 3 * 20, 8), MIB);
	assert_int_equal(peek(&g, where + 0x2d0 + 3 * 20 + 8, 8), 15 * MIB);
	assert_int_equal(peek(&g, where + 0x2d0 + 3 * 20 + 16, 4), 1);
	mem_destroy(g.mem);
}

/* Without a 64-bit entry, or a header that tells: protected mode, paging off, the same zero page. */
static void test_linux_32_bit(void **state)
{
	struct guest g;

	(void)state;
	setup(&g, 16 * MIB);
	for (unsigned old = 0; old < 2; old++) {
		make_linux(&g);
		store_le16(g.kernel + (old ? 0x206 : 0x236), old ? 0x20b : 0);
		assert_int_equal(load(&g), 0);
		assert_true(g.state.rip == LOAD_AT);
		assert_true(g.state.cr0 == (CR0_PE | CR0_ET) && !g.state.efer);
		assert_int_equal(g.state.seg_sel[CS], 0x10);
		assert_int_equal(g.state.seg_sel[DS], 0x18);
		assert_true(g.state.seg_attr[CS] & ATTR_DB);
		assert_true(!g.state.gpr[RBX] && !g.state.gpr[RBP] && !g.state.gpr[RDI]);
		assert_int_equal(peek(&g, g.state.gpr[RSI] + 0x202, 4), 0x53726448);
	}
	mem_destroy(g.mem);
}

/* Protocols 2.00 to 2.05: real mode, as a boot loader leaves it. */
static void test_linux_real_mode(void **state)
{
	static uint8_t initrd[5000] = "initrd";
	struct guest g;

	(void)state;
	for (unsigned version = 0x200; version < 0x206; version++) {
		for (unsigned high = 0; high < 2; high++) {
			uint64_t kernel = high ? MIB : 0x10000, at;

			setup(&g, 64 * MIB);
			make_linux(&g);
			store_le16(g.kernel + 0x206, (uint16_t)version);
			g.kernel[0x211] = (uint8_t)high;
			store_le32(g.kernel + 0x214, 0x12345678); /* code32_start is the setup code's business */
			store_le32(g.kernel + 0x22c, 32 * MIB - 1);
			memset(g.kernel + 0x230, 0xcc, 0x100); /* code, where later protocols have fields */
			if (version < 0x204)
				store_le32(g.kernel + 0x1f4, UINT32_MAX); /* 16 bits that nobody kept right */
			g.initrd = initrd;
			g.initrd_size = sizeof(initrd);
			assert_int_equal(load(&g), 0);
			assert_false(g.state.cr0 & CR0_PE);
			assert_int_equal(g.state.seg_sel[CS], 0x9020);
			assert_true(g.state.seg_base[CS] == 0x90200 && !g.state.rip);
			for (enum seg seg = ES; seg <= GS; seg++)
				assert_true(seg == CS ||
					    (g.state.seg_sel[seg] == 0x9000 && g.state.seg_base[seg] == 0x90000));
			assert_int_equal(g.state.gpr[RSP], 0x9000);
			assert_int_equal(g.state.rflags, 2);
			assert_memory_equal(mem_map(g.mem, gpa(kernel), PAYLOAD_SIZE, false), g.kernel + SETUP_SIZE,
					    PAYLOAD_SIZE);
			assert_memory_equal(mem_map(g.mem, gpa(0x90230), 0x100, false), g.kernel + 0x230, 0x100);
			assert_int_equal(peek(&g, 0x90210, 1), 0xff);
			assert_int_equal(peek(&g, 0x901fa, 2), 0xffff);
			assert_int_equal(peek(&g, 0x90214, 4), 0x12345678);
			assert_int_equal(peek(&g, 0x90211, 1), (version >= 0x201 ? 0x80 : 0) | high);
			assert_int_equal(peek(&g, 0x90224, 2), version >= 0x201 ? 0x8e00 : 0);
			at = version >= 0x202 ? peek(&g, 0x90228, 4) : 0x90000 + peek(&g, 0x90022, 2);
			assert_int_equal(peek(&g, 0x90020, 2), version >= 0x202 ? 0 : 0xa33f);
			assert_string_equal((const char *)mem_map(g.mem, gpa(at), 4, false), "a=b");
			at = peek(&g, 0x90218, 4);
			assert_int_equal(peek(&g, 0x9021c, 4), sizeof(initrd));
			assert_int_equal(peek(&g, at, 4), load_le32("init"));
			assert_true(at + sizeof(initrd) <= (version >= 0x203 ? 32 : 64) * MIB);
			assert_true(at + sizeof(initrd) > (version >= 0x203 ? 31 : 63) * MIB);
			mem_destroy(g.mem);
		}
	}
}

static void test_linux_real_mode_wrong(void **state)
{
	static const struct {
		unsigned offset, size;
		uint64_t value;
		const char *what;
	} wrong[] = {
		{ 0x1fe, 2, 0x1234, "0xaa55" },	      { 0x1f1, 1, 0xff, "32 KiB" },
		{ 0x1f1, 1, 40, "truncated" },	      { 0x1f4, 4, 0xffffffff, "truncated" },
		{ 0x22c, 4, 0, "beside the kernel" },
	};
	static uint8_t initrd[10] = "initrd";
	struct guest g;

	(void)state;
	setup(&g, 16 * MIB);
	g.initrd = initrd;
	g.initrd_size = sizeof(initrd);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		make_linux(&g);
		store_le16(g.kernel + 0x206, 0x204);
		memcpy(g.kernel + wrong[i].offset, &wrong[i].value, wrong[i].size);
		assert_refused(&g, wrong[i].what);
	}
	/* no value of any byte of the header does harm */
	for (unsigned offset = 0x1f1; offset < 0x240; offset++) {
		make_linux(&g);
		store_le16(g.kernel + 0x206, 0x203);
		g.kernel[offset] ^= 0xff;
		load(&g);
	}
	make_linux(&g);
	store_le16(g.kernel + 0x206, 0x203);
	for (g.kernel_size = 0; g.kernel_size <= SETUP_SIZE; g.kernel_size += 61)
		assert_int_not_equal(load(&g), 0);
	mem_destroy(g.mem);
	setup(&g, MIB);
	make_linux(&g);
	store_le16(g.kernel + 0x206, 0x203);
	assert_refused(&g, "1 MiB of memory");
	mem_destroy(g.mem);
}

static void test_linux_place(void **state)
{
	static const uint64_t impossible[] = {
		0, 0x1000, 0xe0000, 16 * MIB - 0x8000, 1ull << 40, UINT64_MAX, UINT64_MAX - 0x1fffff
	};
	struct guest g;

	(void)state;
	setup(&g, 16 * MIB);
	make_linux(&g);
	store_le64(g.kernel + 0x258, LOAD_AT + 0x1000);
	assert_int_equal(load(&g), 0);
	assert_true(g.state.rip == LOAD_AT + 0x200000 + 0x200); /* aligned, upwards */
	g.kernel[0x234] = 0;					/* not relocatable: exactly there */
	assert_int_equal(load(&g), 0);
	assert_true(g.state.rip == LOAD_AT + 0x1000 + 0x200);
	for (unsigned i = 0; i < ARRAY_SIZE(impossible); i++) {
		store_le64(g.kernel + 0x258, impossible[i]);
		assert_refused(&g, "the machine has 16 MiB");
	}
	mem_destroy(g.mem);
}

/* Every truncation fails, or (from the end of the payload's last paragraph on) loads. */
static void test_linux_truncated(void **state)
{
	struct guest g;

	(void)state;
	setup(&g, 16 * MIB);
	make_linux(&g);
	for (g.kernel_size = 0; g.kernel_size < KERNEL_SIZE - 15; g.kernel_size += g.kernel_size < 0x300 ? 1 : 97)
		assert_int_not_equal(load(&g), 0);
	g.kernel_size = KERNEL_SIZE - 1;
	assert_int_equal(load(&g), 0);
	mem_destroy(g.mem);
}

static void test_linux_wrong(void **state)
{
	static const struct {
		unsigned offset, size;
		uint64_t value;
		const char *what;
	} wrong[] = {
		{ 0x1fe, 2, 0x1234, "0xaa55" },
		{ 0x202, 4, 0, "neither" },
		{ 0x206, 2, 0x1ff, "1.255" },
		{ 0x211, 1, 0, "bzImage" },
		{ 0x1f1, 1, 0xff, "truncated" },
		{ 0x1f4, 4, 0xffffffff, "truncated" },
		{ 0x201, 1, 0, "init_size" },
		{ 0x230, 4, 0, "kernel_alignment" },
		{ 0x230, 4, 0x3000, "kernel_alignment" },
		{ 0x260, 4, 0xffffffff, "memory" },
		{ 0x238, 4, 2, "command line" },
	};
	struct guest g;

	(void)state;
	setup(&g, 16 * MIB);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		make_linux(&g);
		memcpy(g.kernel + wrong[i].offset, &wrong[i].value, wrong[i].size);
		assert_refused(&g, wrong[i].what);
	}
	mem_destroy(g.mem);
}

/* No value of any byte of the header does harm. */
static void test_linux_any_header(void **state)
{
	static const uint8_t values[] = { 0, 1, 0x7f, 0x80, 0xff };
	struct guest g;

	(void)state;
	setup(&g, 16 * MIB);
	for (unsigned offset = 0x1f1; offset < 0x290; offset++) {
		for (unsigned i = 0; i < ARRAY_SIZE(values); i++) {
			make_linux(&g);
			g.kernel[offset] = values[i];
			load(&g);
		}
	}
	mem_destroy(g.mem);
}

static void test_initrd_too_large(void **state)
{
	size_t size = 15 * MIB + 1;
	uint8_t *initrd = calloc(1, size);
	struct guest g;

	(void)state;
	assert_non_null(initrd);
	setup(&g, 16 * MIB);
	make_linux(&g);
	g.initrd = initrd;
	g.initrd_size = size;
	assert_refused(&g, "initrd 'i'");
	g.initrd_size = 15 * MIB - 2 * PAGE_SIZE; /* fits in memory, but not beside the kernel */
	assert_refused(&g, "beside the kernel");
	g.initrd_size = 8 * MIB;
	assert_int_equal(load(&g), 0);
	store_le32(g.kernel + 0x22c, 3 * MIB); /* must end below: goes under the kernel, does not fit */
	assert_refused(&g, "beside the kernel");
	g.initrd_size = MIB;
	assert_int_equal(load(&g), 0);
	assert_true(peek(&g, g.state.gpr[RSI] + 0x218, 4) + MIB <= 3 * MIB + 1);
	mem_destroy(g.mem);
	free(initrd);
}

static void test_command_line_too_long(void **state)
{
	char text[2100];
	struct guest g;

	(void)state;
	setup(&g, 16 * MIB);
	make_linux(&g);
	memset(text, 'x', sizeof(text));
	text[2047] = 0;
	g.config.command_line = text;
	assert_int_equal(load(&g), 0);
	text[2047] = 'x';
	text[2048] = 0;
	assert_refused(&g, "2047");
	mem_destroy(g.mem);
}

/* Kernels that use no ACPI are told there of virtio devices that are not on PCI; in front of what is not theirs. */
static void test_command_line_with_devices(void **state)
{
#define DEVICE(address, line) "virtio_mmio.device=4K@0xfec" address ":" line " "
	static const struct {
		const char *line;
		uint32_t windows;
		const char *expected;
	} cases[] = {
		{ "", 0x3, "" },
		{ "a=b acpi=off", 0, "a=b acpi=off" },
		{ "a=b", 0x3, "a=b" },
		{ "acpi=off", 0x3, "acpi=off " DEVICE("10000", "16") DEVICE("11000", "17") },
		{ " acpi=off  quiet ", 0x80000100, " acpi=off  quiet " DEVICE("18000", "16") DEVICE("2f000", "23") },
		{ "acpi=off a -- b -- c", 0x1, "acpi=off a " DEVICE("10000", "16") "-- b -- c" },
		{ "-- acpi=off", 0x1, "-- acpi=off" },
		{ "acpi=offline xacpi=off", 0x1, "acpi=offline xacpi=off" },
		{ "acpi=off virtio_mmio.device=4K@0xd0000000:5", 0x1, "acpi=off virtio_mmio.device=4K@0xd0000000:5" },
	};

	(void)state;
	for (unsigned n = 0; n < ARRAY_SIZE(cases); n++) {
		char line[200];
		struct guest g;

		setup(&g, 16 * MIB);
		make_linux(&g);
		g.config.command_line = cases[n].line;
		g.config.virtio_windows = cases[n].windows;
		assert_int_equal(load(&g), 0);
		assert_int_equal(mem_read(g.mem, gpa(peek(&g, g.state.gpr[RSI] + 0x228, 4)), line, sizeof(line)), 0);
		assert_string_equal(line, cases[n].expected);
		mem_destroy(g.mem);
	}
}

/* ---- ELF ---- */

#define SEGMENT_OFFSET 0x1000u
#define SEGMENT_SIZE   0x800u
#define NOTE_OFFSET    0x2000u

static void make_elf(struct guest *g, bool note)
{
	Elf64_Ehdr h = {
		.e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_entry = LOAD_AT + 0x10,
		.e_phoff = sizeof(h),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = note ? 2 : 1,
	};
	Elf64_Phdr p[2] = {
		{ .p_type = PT_LOAD,
		  .p_offset = SEGMENT_OFFSET,
		  .p_paddr = LOAD_AT,
		  .p_vaddr = LOAD_AT,
		  .p_filesz = SEGMENT_SIZE,
		  .p_memsz = 2 * SEGMENT_SIZE },
		{ .p_type = PT_NOTE, .p_offset = NOTE_OFFSET, .p_filesz = 16 + 20 },
	};
	static const uint8_t notes[] = {
		4, 0, 0, 0, 0, 0, 0, 0, 6,  0, 0, 0, 'X', 'e', 'n', 0, /* another note, empty */
		4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0, 'X', 'e', 'n', 0, 0x20, 0, 0x40, 0,
	};

	memset(g->kernel, 0x90, sizeof(g->kernel));
	memcpy(g->kernel, &h, sizeof(h));
	memcpy(g->kernel + sizeof(h), p, sizeof(p));
	memcpy(g->kernel + NOTE_OFFSET, notes, sizeof(notes));
}

static void test_elf(void **state)
{
	struct guest g;

	(void)state;
	setup(&g, 16 * MIB);
	make_elf(&g, false);
	assert_int_equal(mem_fill(g.mem, gpa(LOAD_AT), 0x55, 2 * SEGMENT_SIZE), 0);
	assert_int_equal(load(&g), 0);
	assert_long_mode(&g.state);
	assert_true(g.state.rip == LOAD_AT + 0x10);
	assert_int_equal(peek(&g, LOAD_AT + SEGMENT_SIZE - 1, 2), 0x0090); /* then zeros */
	assert_int_equal(peek(&g, g.state.gpr[RDI], 4), 0x336ec578);
	mem_destroy(g.mem);
}

static void test_pvh(void **state)
{
	static const uint8_t initrd[] = "module";
	struct guest g;
	uint64_t info;

	(void)state;
	setup(&g, 16 * MIB);
	make_elf(&g, true);
	g.initrd = initrd;
	g.initrd_size = sizeof(initrd);
	assert_int_equal(load(&g), 0);
	assert_int_equal(g.state.cr0 & (CR0_PG | CR0_PE), CR0_PE);
	assert_int_equal(g.state.efer, 0);
	assert_int_equal(g.state.seg_attr[CS] & (ATTR_L | ATTR_DB), ATTR_DB);
	assert_int_equal(g.state.rip, 0x400020);
	info = g.state.gpr[RBX];
	assert_int_equal(peek(&g, info, 4), 0x336ec578);
	assert_int_equal(peek(&g, info + 4, 4), 1);
	assert_int_equal(peek(&g, info + 12, 4), 1);
	assert_int_equal(peek(&g, peek(&g, peek(&g, info + 16, 8), 8), 4), load_le32("modu"));
	assert_int_equal(peek(&g, peek(&g, info + 16, 8) + 8, 8), sizeof(initrd));
	assert_int_equal(peek(&g, peek(&g, info + 24, 8), 4), load_le32("a=b"));
	assert_int_equal(peek(&g, peek(&g, info + 32, 8), 4), load_le32("RSD "));
	assert_int_equal(peek(&g, info + 48, 4), 4);
	assert_int_equal(peek(&g, peek(&g, info + 40, 8) + 3 * 24, 8), MIB);
	mem_destroy(g.mem);
}

static void test_elf_wrong(void **state)
{
	static const struct {
		unsigned offset, size;
		uint64_t value;
		const char *what;
	} wrong[] = {
		{ offsetof(Elf64_Ehdr, e_machine), 2, EM_AARCH64, "machine" },
		{ offsetof(Elf64_Ehdr, e_type), 2, ET_REL, "type" },
		{ offsetof(Elf64_Ehdr, e_phnum), 2, 0, "headers" },
		{ offsetof(Elf64_Ehdr, e_phnum), 2, 0xffff, "headers" },
		{ offsetof(Elf64_Ehdr, e_phoff), 8, UINT64_MAX, "beyond" },
		{ offsetof(Elf64_Ehdr, e_phentsize), 2, 1, "headers" },
		{ offsetof(Elf64_Ehdr, e_entry), 8, LOAD_AT - 1, "entry point" },
		{ offsetof(Elf64_Ehdr, e_entry), 8, LOAD_AT + 2 * SEGMENT_SIZE, "entry point" },
		{ sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_type), 4, PT_NULL, "no loadable" },
		{ sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_offset), 8, UINT64_MAX - 1, "beyond" },
		{ sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_filesz), 8, KERNEL_SIZE, "beyond" },
		{ sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_memsz), 8, 1, "larger in the file" },
		{ sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_memsz), 8, UINT64_MAX, "memory" },
		{ sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_paddr), 8, UINT64_MAX, "memory" },
		{ sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_paddr), 8, 0x7000, "below 0x30000" },
		{ sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_paddr), 8, 0xe0000, "from 0x9fc00 to 1 MiB" },
		{ sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_paddr), 8, 16 * MIB - 1, "memory" },
	};
	struct guest g;

	(void)state;
	setup(&g, 16 * MIB);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		make_elf(&g, false);
		memcpy(g.kernel + wrong[i].offset, &wrong[i].value, wrong[i].size);
		assert_refused(&g, wrong[i].what);
	}
	make_elf(&g, false);
	g.kernel[EI_CLASS] = ELFCLASS32;
	assert_refused(&g, "machine");
	mem_destroy(g.mem);
}

static void test_elf_truncated(void **state)
{
	struct guest g;

	(void)state;
	setup(&g, 16 * MIB);
	make_elf(&g, true);
	for (g.kernel_size = 0; g.kernel_size < NOTE_OFFSET + 36; g.kernel_size += g.kernel_size < 0x100 ? 1 : 53)
		assert_int_not_equal(load(&g), 0);
	mem_destroy(g.mem);
}

/* Notes with sizes that lead nowhere: the file is then a plain ELF executable. */
static void test_hostile_notes(void **state)
{
	static const uint32_t sizes[] = { 0x7fffffff, 0xfffffffd, 0xffffffff, 1000 };
	struct guest g;

	(void)state;
	setup(&g, 16 * MIB);
	for (unsigned offset = 0; offset < 8; offset += 4) {
		for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
			make_elf(&g, true);
			store_le32(g.kernel + NOTE_OFFSET + offset, sizes[i]);
			assert_int_equal(load(&g), 0);
			assert_true(g.state.cr0 & CR0_PG);
		}
	}
	mem_destroy(g.mem);
}

/* ---- multiboot ---- */

#define MULTIBOOT_MAGIC 0x1badb002u
#define KLUDGE		0x10000u

/* A header at this place of the file; the five words follow it. */
static void put_multiboot(struct guest *g, unsigned at, uint32_t flags, const uint32_t words[5])
{
	store_le32(g->kernel + at, MULTIBOOT_MAGIC);
	store_le32(g->kernel + at + 4, flags);
	store_le32(g->kernel + at + 8, -(MULTIBOOT_MAGIC + flags));
	for (unsigned i = 0; i < 5; i++)
		store_le32(g->kernel + at + 12 + 4 * i, words[i]);
}

#define KLUDGE_HEADER 0x40u
#define KLUDGE_TEXT   0x20u /* the image begins here in the file */
enum { HEADER_ADDR, LOAD_ADDR, LOAD_END_ADDR, BSS_END_ADDR, ENTRY_ADDR };

static void make_kludge(struct guest *g, uint32_t words[5])
{
	const uint32_t good[5] = { LOAD_AT + KLUDGE_HEADER - KLUDGE_TEXT, LOAD_AT, LOAD_AT + 0x1000, LOAD_AT + 0x3000,
				   LOAD_AT + 0x80 };

	memset(g->kernel, 0x90, sizeof(g->kernel));
	memcpy(words, good, sizeof(good));
	put_multiboot(g, KLUDGE_HEADER, KLUDGE | 3, good);
}

/* An ELF of either class with a header in its segment, linked at 3 GiB above where it is loaded. */
static void make_multiboot_elf(struct guest *g, bool wide)
{
	static const uint32_t none[5] = { 0 };

	make_elf(g, true);
	if (!wide) {
		Elf32_Ehdr h = {
			.e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT },
			.e_type = ET_EXEC,
			.e_machine = EM_386,
			.e_entry = LOAD_AT + 0xc0000010,
			.e_phoff = sizeof(h),
			.e_phentsize = sizeof(Elf32_Phdr),
			.e_phnum = 1,
		};
		Elf32_Phdr p = { .p_type = PT_LOAD,
				 .p_offset = SEGMENT_OFFSET,
				 .p_paddr = LOAD_AT,
				 .p_vaddr = LOAD_AT + 0xc0000000,
				 .p_filesz = SEGMENT_SIZE,
				 .p_memsz = 2 * SEGMENT_SIZE };

		memcpy(g->kernel, &h, sizeof(h));
		memcpy(g->kernel + sizeof(h), &p, sizeof(p));
	}
	put_multiboot(g, SEGMENT_OFFSET + 0x100, 3, none);
}

static void assert_text(struct guest *g, uint64_t address, const char *text)
{
	assert_string_equal((const char *)mem_map(g->mem, gpa(address), strlen(text) + 1, false), text);
}

/* 3.2: machine state. */
static void assert_multiboot_state(const struct cpu_state *s)
{
	assert_int_equal(s->gpr[RAX], 0x2badb002);
	assert_true((s->cr0 & CR0_PE) && !(s->cr0 & CR0_PG));
	assert_false(s->rflags & (FLAG_IF | FLAG_VM));
	assert_int_equal(s->efer, 0);
	for (enum seg seg = ES; seg <= GS; seg++) {
		assert_true(s->seg_base[seg] == 0 && s->seg_limit[seg] == UINT32_MAX);
		assert_true((s->seg_attr[seg] & (ATTR_P | ATTR_S | ATTR_DB | ATTR_WRITABLE)) ==
			    (ATTR_P | ATTR_S | ATTR_DB | ATTR_WRITABLE));
		assert_int_equal(!!(s->seg_attr[seg] & ATTR_CODE), seg == CS);
	}
}

/* 3.3: the information, with two modules and what --initrd names before them. */
static void test_multiboot(void **state)
{
	static const char *const modules[] = { "/m/one,two, three", "four" };
	static uint8_t bytes[PAGE_SIZE + 1] = "module";
	struct guest g;
	uint64_t info, module;

	(void)state;
	for (unsigned wide = 0; wide < 2; wide++) {
		setup(&g, 16 * MIB);
		make_multiboot_elf(&g, wide);
		g.initrd = bytes;
		g.initrd_size = sizeof(bytes);
		g.config.modules = modules;
		g.config.module_count = 2;
		g.modules[0] = (struct boot_bytes){ bytes, 6 };
		g.modules[1] = (struct boot_bytes){ bytes, 0 };
		assert_int_equal(mem_fill(g.mem, gpa(LOAD_AT), 0x55, 2 * SEGMENT_SIZE), 0);
		assert_int_equal(load(&g), 0);
		assert_multiboot_state(&g.state);
		assert_int_equal(g.state.rip, LOAD_AT + 0x10); /* PVH's entry is another */
		assert_int_equal(peek(&g, LOAD_AT + SEGMENT_SIZE - 1, 2), 0x0090);
		info = g.state.gpr[RBX];
		assert_int_equal(peek(&g, info, 4), 0x24d);
		assert_int_equal(peek(&g, info + 4, 4), 639);
		assert_int_equal(peek(&g, info + 8, 4), 15 * 1024);
		assert_text(&g, peek(&g, info + 16, 4), "k a=b");
		assert_text(&g, peek(&g, info + 64, 4), "doppel");
		assert_int_equal(peek(&g, info + 20, 4), 3);
		module = peek(&g, info + 24, 4);
		assert_int_equal(peek(&g, module, 4), LOAD_AT + 0x1000); /* page-aligned, behind the kernel */
		assert_int_equal(peek(&g, module + 4, 4), LOAD_AT + 0x1000 + sizeof(bytes));
		assert_text(&g, peek(&g, module + 8, 4), "i");
		assert_int_equal(peek(&g, module + 16, 4), LOAD_AT + 0x3000);
		assert_int_equal(peek(&g, module + 20, 4), LOAD_AT + 0x3006);
		assert_text(&g, peek(&g, module + 24, 4), "/m/one two, three");
		assert_text(&g, LOAD_AT + 0x3000, "module");
		assert_int_equal(peek(&g, module + 32, 4), LOAD_AT + 0x4000);
		assert_int_equal(peek(&g, module + 36, 4), LOAD_AT + 0x4000);
		assert_text(&g, peek(&g, module + 40, 4), "four");
		/* memory map: size, start, length, type; the last range is RAM from 1 MiB on */
		assert_int_equal(peek(&g, info + 44, 4), 4 * 24);
		module = peek(&g, info + 48, 4);
		assert_int_equal(peek(&g, module, 4), 20);
		assert_int_equal(peek(&g, module + 4, 8), 0);
		assert_int_equal(peek(&g, module + 12, 8), 0x9fc00);
		assert_int_equal(peek(&g, module + 3 * 24 + 4, 8), MIB);
		assert_int_equal(peek(&g, module + 3 * 24 + 12, 8), 15 * MIB);
		assert_int_equal(peek(&g, module + 3 * 24 + 20, 4), 1);
		mem_destroy(g.mem);
	}
}

static void test_multiboot_addresses(void **state)
{
	struct guest g;
	uint32_t words[5];

	(void)state;
	setup(&g, 16 * MIB);
	make_kludge(&g, words);
	assert_int_equal(mem_fill(g.mem, gpa(LOAD_AT), 0x55, 0x4000), 0);
	assert_int_equal(load(&g), 0);
	assert_multiboot_state(&g.state);
	assert_int_equal(g.state.rip, LOAD_AT + 0x80);
	assert_memory_equal(mem_map(g.mem, gpa(LOAD_AT), 0x1000, false), g.kernel + KLUDGE_TEXT, 0x1000);
	assert_int_equal(peek(&g, LOAD_AT + 0x1000, 1), 0);
	assert_int_equal(peek(&g, LOAD_AT + 0x2fff, 2), 0x5500);
	/* load_end_addr 0: all of the file; bss_end_addr 0: no bss. Preferred to ELF's own headers. */
	words[LOAD_END_ADDR] = words[BSS_END_ADDR] = 0;
	make_multiboot_elf(&g, false);
	put_multiboot(&g, SEGMENT_OFFSET + 0x100, 3, (uint32_t[5]){ 0 });
	put_multiboot(&g, KLUDGE_HEADER + 0x40, KLUDGE | 3, words);
	assert_int_equal(mem_fill(g.mem, gpa(LOAD_AT), 0x55, 0x8000), 0);
	assert_int_equal(load(&g), 0);
	assert_int_equal(g.state.rip, LOAD_AT + 0x80);
	assert_memory_equal(mem_map(g.mem, gpa(LOAD_AT), KERNEL_SIZE - 0x60, false), g.kernel + 0x60,
			    KERNEL_SIZE - 0x60);
	assert_int_equal(peek(&g, LOAD_AT + KERNEL_SIZE - 0x60, 1), 0x55);
	mem_destroy(g.mem);
}

/* 3.1: the first 8 KiB, at a multiple of 4, all of it. */
static void test_multiboot_search(void **state)
{
	static const struct {
		unsigned at;
		bool found;
	} places[] = { { 0, true }, { 4, true }, { 2, false }, { 0x1fe0, true }, { 0x1fe4, false }, { 0x2000, false } };
	struct guest g;
	uint32_t words[5] = { LOAD_AT, LOAD_AT, 0, 0, LOAD_AT };

	(void)state;
	setup(&g, 16 * MIB);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		memset(g.kernel, 0x90, sizeof(g.kernel));
		put_multiboot(&g, places[i].at, KLUDGE, words);
		assert_int_equal(!load(&g), places[i].found);
	}
	put_multiboot(&g, 0, KLUDGE, words);
	g.kernel[8]++;
	assert_refused(&g, "neither"); /* the checksum is wrong */
	mem_destroy(g.mem);
}

static void test_multiboot_wrong(void **state)
{
	static const struct {
		unsigned word;
		uint32_t value;
		const char *what; /* NULL: fine */
	} wrong[] = {
		{ HEADER_ADDR, LOAD_AT - 1, "load_addr" },
		{ HEADER_ADDR, LOAD_AT + KLUDGE_HEADER + 1, "load_addr" },
		{ HEADER_ADDR, UINT32_MAX, "load_addr" },
		{ LOAD_ADDR, UINT32_MAX, "load_addr" },
		{ LOAD_ADDR, 0, "load_addr" },
		{ LOAD_END_ADDR, LOAD_AT, "load_end_addr" },
		{ LOAD_END_ADDR, 1, "load_end_addr" },
		{ LOAD_END_ADDR, LOAD_AT + KERNEL_SIZE - KLUDGE_TEXT + 1, "load_end_addr" },
		{ LOAD_END_ADDR, UINT32_MAX, "load_end_addr" },
		{ LOAD_END_ADDR, LOAD_AT + 0x3000, NULL },
		{ BSS_END_ADDR, LOAD_AT + 0xfff, "bss_end_addr" },
		{ BSS_END_ADDR, 1, "bss_end_addr" },
		{ BSS_END_ADDR, UINT32_MAX, "memory" },
		{ BSS_END_ADDR, LOAD_AT + 0x1000, NULL },
		{ ENTRY_ADDR, LOAD_AT - 1, "entry" },
		{ ENTRY_ADDR, LOAD_AT + 0x3000, "entry" },
		{ ENTRY_ADDR, LOAD_AT + 0x2fff, NULL },
		{ ENTRY_ADDR, UINT32_MAX, "entry" },
	};
	struct guest g;
	uint32_t words[5];

	(void)state;
	setup(&g, 16 * MIB);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		make_kludge(&g, words);
		words[wrong[i].word] = wrong[i].value;
		put_multiboot(&g, KLUDGE_HEADER, KLUDGE | 3, words);
		if (wrong[i].what)
			assert_refused(&g, wrong[i].what);
		else
			assert_int_equal(load(&g), 0);
	}
	make_kludge(&g, words);
	put_multiboot(&g, KLUDGE_HEADER, KLUDGE | 0x8000, words);
	assert_refused(&g, "0x8000");
	put_multiboot(&g, KLUDGE_HEADER, KLUDGE | 0xffe00000, words); /* bits 16 to 31 are optional */
	assert_int_equal(load(&g), 0);
	put_multiboot(&g, KLUDGE_HEADER, 3, words);
	assert_refused(&g, "no ELF");
	mem_destroy(g.mem);
}

/* Anywhere in base memory: what the kernel is told goes elsewhere. Where it cannot be, the sentence says why. */
static void test_multiboot_places(void **state)
{
	static const struct {
		uint32_t at, size;
		const char *what; /* NULL: fine */
	} places[] = {
		{ 0, 0x1000, NULL },
		{ 0x500, 0x1000, NULL },
		{ 0x6000, 0x1000, NULL },
		{ 0x7000, 0x20000, NULL },
		{ 0x8000, 0x98000 - 0x400, NULL },
		{ 0x1000, 0x9ec00, NULL },
		{ 0x10000, 0x90000, "from 0x9fc00 to 1 MiB" },
		{ 0xa0000, 0x1000, "from 0x9fc00 to 1 MiB" },
		{ 0xff000, 0x2000, "from 0x9fc00 to 1 MiB" },
		{ 0x100000, 0x1000, NULL },
		{ 16 * MIB - 0x1000, 0x2000, "the machine's 16 MiB" },
		{ 32 * MIB, 0x1000, "the machine's 16 MiB" },
	};
	struct guest g;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		uint32_t at = places[i].at, end = at + places[i].size, info;
		uint32_t words[5] = { at + KLUDGE_HEADER, at, at + 0x1000, end, at + 0x80 };

		setup(&g, 16 * MIB);
		memset(g.kernel, 0x90, sizeof(g.kernel));
		put_multiboot(&g, KLUDGE_HEADER, KLUDGE | 3, words);
		if (places[i].what) {
			assert_refused(&g, places[i].what);
			mem_destroy(g.mem);
			continue;
		}
		assert_int_equal(load(&g), 0);
		assert_int_equal(g.state.rip, at + 0x80);
		info = (uint32_t)g.state.gpr[RBX];
		assert_true(info + 0x1010 <= at || info >= end);
		assert_true(g.state.gdtr_base + 0x20 <= at || g.state.gdtr_base >= end);
		assert_text(&g, peek(&g, info + 16, 4), "k a=b");
		assert_memory_equal(mem_map(g.mem, gpa(at), 0x1000, false), g.kernel, 0x1000);
		for (uint32_t a = at + 0x1000; a < end; a += 0x200)
			assert_int_equal(peek(&g, a, 4), 0);
		mem_destroy(g.mem);
	}
}

/* Two segments of base memory with a gap between them that is too small, and one that is not. */
static void test_multiboot_gaps(void **state)
{
	struct guest g;
	Elf32_Phdr p = { .p_type = PT_LOAD, .p_offset = SEGMENT_OFFSET, .p_filesz = SEGMENT_SIZE };

	(void)state;
	setup(&g, 16 * MIB);
	make_multiboot_elf(&g, false);
	store_le16(g.kernel + offsetof(Elf32_Ehdr, e_phnum), 2);
	p.p_paddr = 0x2000;
	p.p_memsz = 0x4800;
	p.p_vaddr = LOAD_AT + 0xc0000000;
	memcpy(g.kernel + sizeof(Elf32_Ehdr), &p, sizeof(p));
	p.p_paddr = 0x7800;
	p.p_memsz = 0x800;
	p.p_vaddr = 0;
	memcpy(g.kernel + sizeof(Elf32_Ehdr) + sizeof(p), &p, sizeof(p));
	assert_int_equal(load(&g), 0);
	assert_int_equal(g.state.rip, 0x2010);
	assert_int_equal(g.state.gpr[RBX], 0x8000);
	mem_destroy(g.mem);
}

/* Bit 2, as GRUB answers it where there is no graphics mode. */
static void test_multiboot_video(void **state)
{
	struct guest g;
	uint32_t words[5];
	uint64_t info;

	(void)state;
	setup(&g, 16 * MIB);
	make_kludge(&g, words);
	put_multiboot(&g, KLUDGE_HEADER, KLUDGE | 7, words);
	assert_int_equal(load(&g), 0);
	info = g.state.gpr[RBX];
	assert_int_equal(peek(&g, info, 4), 0x124d);
	assert_true(peek(&g, info + 88, 8) == 0xb8000);
	assert_int_equal(peek(&g, info + 96, 4), 160);
	assert_int_equal(peek(&g, info + 100, 4), 80);
	assert_int_equal(peek(&g, info + 104, 4), 25);
	assert_int_equal(peek(&g, info + 108, 1), 16);
	assert_int_equal(peek(&g, info + 109, 1), 2);
	mem_destroy(g.mem);
}

static void test_multiboot_elf_wrong(void **state)
{
	struct guest g;

	(void)state;
	setup(&g, 16 * MIB);
	make_multiboot_elf(&g, false);
	store_le32(g.kernel + offsetof(Elf32_Ehdr, e_entry), LOAD_AT + 2 * SEGMENT_SIZE);
	assert_refused(&g, "entry point");
	make_multiboot_elf(&g, false);
	store_le16(g.kernel + offsetof(Elf32_Ehdr, e_machine), EM_X86_64);
	assert_refused(&g, "machine");
	make_multiboot_elf(&g, false);
	store_le32(g.kernel + sizeof(Elf32_Ehdr) + offsetof(Elf32_Phdr, p_filesz), UINT32_MAX);
	assert_refused(&g, "beyond");
	make_multiboot_elf(&g, true);
	store_le64(g.kernel + offsetof(Elf64_Ehdr, e_entry), UINT64_MAX);
	assert_refused(&g, "entry point");
	mem_destroy(g.mem);
}

/* No value of any byte of the headers does harm, and no truncation. */
static void test_multiboot_any_header(void **state)
{
	static const uint8_t values[] = { 0, 1, 0x7f, 0x80, 0xff };
	struct guest g;
	uint32_t words[5];

	(void)state;
	setup(&g, 16 * MIB);
	for (unsigned kind = 0; kind < 3; kind++) {
		unsigned end = kind ? sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr) : KLUDGE_HEADER + 32;

		for (unsigned i = 0; i < end * ARRAY_SIZE(values); i++) {
			if (kind)
				make_multiboot_elf(&g, kind == 2);
			else
				make_kludge(&g, words);
			g.kernel[i / ARRAY_SIZE(values)] = values[i % ARRAY_SIZE(values)];
			load(&g);
		}
	}
	make_kludge(&g, words);
	for (g.kernel_size = 0; g.kernel_size < KLUDGE_TEXT + 0x1000; g.kernel_size += g.kernel_size < 0x80 ? 1 : 53)
		assert_int_not_equal(load(&g), 0);
	mem_destroy(g.mem);
}

static void test_modules_refused(void **state)
{
	static char text[0x10001];
	static const char *modules[] = { "m,x" };
	uint8_t *bytes = calloc(12, MIB);
	struct guest g;

	(void)state;
	assert_non_null(bytes);
	setup(&g, 16 * MIB);
	g.config.modules = modules;
	g.config.module_count = 1;
	g.modules[0] = (struct boot_bytes){ bytes, 12 * MIB };
	make_multiboot_elf(&g, false);
	assert_refused(&g, "module 'm' of 12288 KiB");
	g.modules[0].size = 11 * MIB;
	assert_int_equal(load(&g), 0);
	memset(text, 'x', sizeof(text) - 1);
	modules[0] = text;
	assert_refused(&g, "too long");
	modules[0] = "m";
	g.config.command_line = text;
	assert_refused(&g, "too long");
	make_elf(&g, true);
	assert_refused(&g, "no multiboot kernel");
	make_linux(&g);
	assert_refused(&g, "no multiboot kernel");
	mem_destroy(g.mem);
	free(bytes);
}

static void test_gzip(void **state)
{
	struct guest g;

	(void)state;
	setup(&g, 16 * MIB);
	g.kernel[0] = 0x1f;
	g.kernel[1] = 0x8b;
	assert_refused(&g, "gzip");
	mem_destroy(g.mem);
}

static void test_files(void **state)
{
	struct guest g;

	(void)state;
	setup(&g, 16 * MIB);
	g.config.kernel = "/nonexistent/kernel";
	assert_int_equal(boot_load(&g.config, g.mem, &g.state, &g.err), -ENOENT);
	assert_non_null(strstr(g.err.text, "/nonexistent/kernel"));
	g.config.kernel = "/";
	assert_int_equal(boot_load(&g.config, g.mem, &g.state, &g.err), -ENOEXEC);
	g.config.kernel = "/dev/null";
	assert_int_not_equal(boot_load(&g.config, g.mem, &g.state, &g.err), 0);
	mem_destroy(g.mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_linux),
		cmocka_unit_test(test_linux_32_bit),
		cmocka_unit_test(test_linux_real_mode),
		cmocka_unit_test(test_linux_real_mode_wrong),
		cmocka_unit_test(test_linux_place),
		cmocka_unit_test(test_linux_truncated),
		cmocka_unit_test(test_linux_wrong),
		cmocka_unit_test(test_linux_any_header),
		cmocka_unit_test(test_initrd_too_large),
		cmocka_unit_test(test_command_line_too_long),
		cmocka_unit_test(test_command_line_with_devices),
		cmocka_unit_test(test_elf),
		cmocka_unit_test(test_pvh),
		cmocka_unit_test(test_elf_wrong),
		cmocka_unit_test(test_elf_truncated),
		cmocka_unit_test(test_hostile_notes),
		cmocka_unit_test(test_multiboot),
		cmocka_unit_test(test_multiboot_addresses),
		cmocka_unit_test(test_multiboot_search),
		cmocka_unit_test(test_multiboot_wrong),
		cmocka_unit_test(test_multiboot_places),
		cmocka_unit_test(test_multiboot_gaps),
		cmocka_unit_test(test_multiboot_video),
		cmocka_unit_test(test_multiboot_elf_wrong),
		cmocka_unit_test(test_multiboot_any_header),
		cmocka_unit_test(test_modules_refused),
		cmocka_unit_test(test_gzip),
		cmocka_unit_test(test_files),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
