/*
 * A page of RAM whose origin has failed, needed by a guest in each way that there is: the machine ends with a sentence that names it; what needed it does
 * nothing, and nothing comes behind it.
 */
#include "boot/boot.h"
#include "machine/machine.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define START 0x100000
#define LOST  0x200 /* page */

/* What is tried, with flat segments and an IDT in the lost page; what comes behind it ends the machine otherwise. */
#define WAYS(_)                                                                                                        \
	_(data_is_read, "mov 0x200000, %eax")                                                                          \
	_(data_is_written, "mov %eax, 0x200ffc")                                                                       \
	_(data_begins_in_another_page, "mov 0x1ffffe, %eax")                                                           \
	_(data_is_copied, "mov $0x1fff80, %esi\nmov $0x1f0000, %edi\nmov $256, %ecx\nrep movsb")                       \
	_(data_is_output, "mov $0x200000, %esi\nmov $0xf4, %edx\noutsb")                                               \
	_(data_is_locked, "lock incl 0x200010")                                                                        \
	_(data_is_a_vector, "movups 0x200020, %xmm0")                                                                  \
	_(data_is_of_the_x87, "fldl 0x200020")                                                                         \
	_(stack, "mov $0x200800, %esp\npop %eax")                                                                      \
	_(code, "mov $0x200000, %eax\njmp *%eax")                                                                      \
	_(code_goes_on_there, "movb $0xb8, 0x1fffff\nmov $0x1fffff, %eax\njmp *%eax")                                  \
	_(gate, "int $0x40")                                                                                           \
	_(gate_of_a_fault, "ud2")                                                                                      \
	_(descriptor, "lgdt lost_gdtr - guest + 0x100000\nmov $8, %eax\nmov %eax, %ds")                                \
	_(page_directory, "mov $0x200000, %eax\nmov %eax, %cr3\nmov %cr0, %eax\nbts $31, %eax\nmov %eax, %cr0")        \
	_(page_table, "movl $0x83, 0x210000\nmovl $0x200003, 0x210004\nmov $0x210000, %eax\nmov %eax, %cr3\n"          \
		      "mov %cr4, %eax\nor $0x10, %eax\nmov %eax, %cr4\nmov %cr0, %eax\nbts $31, %eax\n"                \
		      "mov %eax, %cr0\nmov 0x400000, %eax")

#define _(name, text) "way_" #name ": " text "\njmp other_end\n"
asm(".pushsection .rodata\n"
    "guest: .code32\n"
    "mov $0x90000, %esp\n"
    "mov %cr4, %eax\nor $0x600, %eax\nmov %eax, %cr4\n"
    "mov %cr0, %eax\nand $~4, %eax\nmov %eax, %cr0\n"
    "lidt lost_gdtr - guest + 0x100000\n"
    "xor %eax, %eax\n"
    "jmp *0x100000 - 4\n"
    "lost_gdtr: .word 0xfff\n .long 0x200000\n"
    "other_end: mov $5, %al\nout %al, $0xf4\nhlt\n" WAYS(_) ".code64\n"
							    "guest_end:\n"
							    ".popsection\n");
#undef _
extern const uint8_t guest[], guest_end[];
#define _(name, text) extern const uint8_t way_##name[];
WAYS(_)
#undef _

struct world {
	const uint8_t *way;
	struct guest_mem *mem;
	uint8_t *copy; /* of all RAM */
};

static int fetch(void *opaque, uint64_t page, void *to, struct error *err)
{
	if (page == LOST)
		return error_set(err, EIO, "the disk is gone");
	memcpy(to, ((struct world *)opaque)->copy + (page << PAGE_SHIFT), PAGE_SIZE);
	return 0;
}

static int load(void *opaque, struct guest_mem *mem, struct cpu_state *state, struct error *err)
{
	struct world *w = opaque;
	const struct mem_origin origin = { fetch, w };
	uint32_t way = (uint32_t)(START + (w->way - guest));

	assert_int_equal(mem_write(mem, gpa(START), guest, (size_t)(guest_end - guest)), 0);
	assert_int_equal(mem_write(mem, gpa(START - 4), &way, sizeof(way)), 0);
	boot_state_protected_mode(mem, state, START);
	w->mem = mem;
	w->copy = malloc(mem->ram_size);
	assert_non_null(w->copy);
	memcpy(w->copy, mem->ram.file.base, mem->ram_size);
	memset(mem->ram.file.base, 0, mem->ram_size);
	return mem_set_origin(mem, &mem->ram, &origin, err);
}

static void ends(const char *engine, unsigned cpus, const char *name, const uint8_t *way)
{
	static const char sentence[] = "page 0x200 of the memory 'guest-ram' cannot be fetched: the disk is gone";
	struct world w = { .way = way };
	const struct machine_guest machine_guest = { load, &w };
	struct machine_config config = { .guest = &machine_guest,
					 .memory = 4ull << 20,
					 .cpus = cpus,
					 .engine = engine,
					 .cpu_model = "v2",
					 .devices = { { .spec = "debug-exit" } },
					 .device_count = 1 };
	struct writer writer = { 0 };
	struct machine *machine;
	struct error err = { 0 };
	int status;

	if (machine_create(&machine, &config, &err))
		fail_msg("%s", err.text);
	status = machine_run(machine);
	if (status != MACHINE_ENGINE_ERROR)
		fail_msg("%s, %s: status %d", engine, name, status);
	assert_true(mem_is_absent(&w.mem->ram, LOST));
	assert_int_equal(mem_loss(w.mem, &err), -EIO);
	assert_string_equal(err.text, sentence);
	/* It is over: it neither goes on nor is it saved. */
	assert_int_equal(machine_run(machine), MACHINE_ENGINE_ERROR);
	assert_int_equal(machine_save(machine, &writer, &err), -EIO);
	assert_string_equal(err.text, sentence);
	writer_free(&writer);
	machine_destroy(machine);
	free(w.copy);
}

static void run_with(const char *engine)
{
	struct engine_options options;

	if (!engine_find(engine, &options, NULL)) {
		print_message("# engine %s does not run on this host\n", engine);
		return;
	}
	for (unsigned cpus = 1; cpus <= 2; cpus++) {
#define _(name, text) ends(engine, cpus, #name, way_##name);
		WAYS(_)
#undef _
	}
}

static void interpreted(void **state)
{
	(void)state;
	run_with("interp");
}

static void translated(void **state)
{
	(void)state;
	run_with("bt");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(interpreted),
		cmocka_unit_test(translated),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
