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

#define MIB	     (1ull << 20)
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
};

static void setup(struct guest *g, uint64_t memory)
{
	memset(g, 0, sizeof(*g));
	g->mem = mem_create(memory, NULL);
	assert_non_null(g->mem);
	g->config = (struct boot_config){ .kernel = "k", .initrd = "i", .command_line = "a=b", .cpu_count = 2 };
	g->kernel_size = KERNEL_SIZE;
}

static int load(struct guest *g)
{
	int rc;

	memset(&g->err, 0, sizeof(g->err));
	rc = boot_load_bytes(&g->config, g->kernel, g->kernel_size, g->initrd, g->initrd_size, g->mem, &g->state,
			     &g->err);
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
		{ 0x206, 2, 0x205, "2.05" },
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
		{ sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_paddr), 8, 0x7000, "memory" },
		{ sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_paddr), 8, 0xe0000, "memory" },
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
		cmocka_unit_test(test_linux_place),
		cmocka_unit_test(test_linux_truncated),
		cmocka_unit_test(test_linux_wrong),
		cmocka_unit_test(test_linux_any_header),
		cmocka_unit_test(test_initrd_too_large),
		cmocka_unit_test(test_command_line_too_long),
		cmocka_unit_test(test_elf),
		cmocka_unit_test(test_pvh),
		cmocka_unit_test(test_elf_wrong),
		cmocka_unit_test(test_elf_truncated),
		cmocka_unit_test(test_hostile_notes),
		cmocka_unit_test(test_files),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
