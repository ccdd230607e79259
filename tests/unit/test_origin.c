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

#include "lib/engines.h"

#define START 0x100000
#define LOST  0x200 /* page */

/* What is done before, and what is tried then; where the processor stands at the end, 0: before that. What comes behind counts at MARK. */
#define MARK 0x1f8000
/* clang-format off */
#define WAYS(_)                                                                                                        \
	_(data_is_read, "", "mov 0x200000, %eax", 0)                                                                   \
	_(data_is_written, "", "mov %eax, 0x200ffc", 0)                                                                \
	_(data_begins_in_another_page, "", "mov 0x1ffffe, %eax", 0)                                                    \
	_(data_is_copied, "mov $0x1fff80, %esi\nmov $0x1f0000, %edi\nmov $256, %ecx", "rep movsb", 0)                  \
	_(data_is_output, "mov $0x200000, %esi\nmov $0xf4, %edx", "outsb", 0)                                          \
	_(data_is_locked, "", "lock incl 0x200010", 0)                                                                 \
	_(data_is_a_vector, "", "movups 0x200020, %xmm0", 0)                                                           \
	_(data_is_of_the_x87, "", "fldl 0x200020", 0)                                                                  \
	_(stack, "mov $0x200800, %esp", "pop %eax", 0)                                                                 \
	_(code, "mov $0x200000, %eax", "jmp *%eax", 0x200000)                                                          \
	_(code_goes_on_there, "movb $0xb8, 0x1fffff\nmov $0x1fffff, %eax", "jmp *%eax", 0x1fffff)                      \
	_(gate, "lidt lost_idtr - guest + 0x100000", "int $0x40", 0)                                                   \
	_(gate_of_a_fault, "lidt lost_idtr - guest + 0x100000", "ud2", 0)                                              \
	_(descriptor, "lgdt lost_idtr - guest + 0x100000\nmov $8, %eax", "mov %eax, %ds", 0)                           \
	_(task, "mov $24, %eax\nltr %ax", "ljmp $32, $0", 0)                                                           \
	_(page_directory, "mov $0x200000, %eax\nmov %eax, %cr3\n" PAGING, "nop", 0)                                    \
	_(page_directory_pointers, "mov %cr4, %eax\nor $0x20, %eax\nmov %eax, %cr4\nmov $0x200000, %eax\n"             \
				   "mov %eax, %cr3\nmov %cr0, %eax\nbts $31, %eax", "mov %eax, %cr0", 0)               \
	_(page_table, "movl $0x83, 0x210000\nmovl $0x200003, 0x210004\nmov $0x210000, %eax\nmov %eax, %cr3\n"          \
		      "mov %cr4, %eax\nor $0x10, %eax\nmov %eax, %cr4\n" PAGING, "mov 0x400000, %eax", 0)
/* clang-format on */
#define PAGING "mov %cr0, %eax\nbts $31, %eax\nmov %eax, %cr0"

#define _(name, before, text, stands)                                                                                  \
	"way_" #name ": " before "\nlast_" #name ": " text "\nincl 0x1f8000\njmp other_end\n"
asm(".pushsection .rodata\n"
    "guest: .code32\n"
    "mov $0x90000, %esp\npush $0\nmovl $0, 0x1f8000\n" /* these pages are fetched before one is lost */
    "mov %cr4, %eax\nor $0x600, %eax\nmov %eax, %cr4\n"
    "mov %cr0, %eax\nand $~4, %eax\nmov %eax, %cr0\n"
    /* 32 gates */
    "mov $0x1e0000, %edi\nmov $32, %ecx\n"
    "mov $other_end - guest + 0x100000, %eax\nmov $0x80000, %ebx\nmov %ax, %bx\nmov $0x8e00, %ax\n"
    "1: mov %ebx, (%edi)\nmov %eax, 4(%edi)\nadd $8, %edi\nloop 1b\n"
    "lidt idtr - guest + 0x100000\n"
    "lgdt table_gdtr - guest + 0x100000\n"
    "xor %eax, %eax\n"
    "jmp *0x100000 - 4\n"
    "idtr: .word 0xff\n .long 0x1e0000\n"
    "lost_idtr: .word 0xfff\n .long 0x200000\n"
    ".balign 8\n"
    "table: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x0000892000000067, 0x0000891d00000067\n"
    "table_gdtr: .word 39\n .long table - guest + 0x100000\n"
    "other_end: incl 0x1f8000\nmov $5, %al\nout %al, $0xf4\nhlt\n" WAYS(_) ".code64\n"
									   "guest_end:\n"
									   ".popsection\n");
#undef _
extern const uint8_t guest[], guest_end[];
#define _(name, before, text, stands) extern const uint8_t way_##name[], last_##name[];
WAYS(_)
#undef _

struct world {
	const char *name;
	const uint8_t *way, *last;
	uint64_t stands;
	const struct vcpu *cpu; /* the first one */
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

static uint64_t note_cpu(void *opaque, struct vcpu *v)
{
	((struct world *)opaque)->cpu = v->peers[0];
	return UINT64_MAX;
}

static void ends(const char *engine, unsigned cpus, struct world w)
{
	static const char sentence[] = "page 0x200 of the memory 'guest-ram' cannot be fetched: the disk is gone";
	const struct machine_guest machine_guest = { load, &w };
	const struct machine_observer observer = { note_cpu, &w };
	struct machine_config config = { .guest = &machine_guest,
					 .memory = 4ull << 20,
					 .cpus = cpus,
					 .engine = engine,
					 .cpu_model = "v2",
					 .clock = CLOCK_VIRTUAL,
					 .observer = &observer,
					 .devices = { { .spec = "debug-exit" } },
					 .device_count = 1 };
	uint64_t stands = w.stands ? w.stands : START + (uint64_t)(w.last - guest);
	struct writer writer = { 0 };
	struct machine *machine;
	struct error err = { 0 };
	int status;

	if (machine_create(&machine, &config, &err))
		fail_msg("%s", err.text);
	status = machine_run(machine);
	if (status != MACHINE_ENGINE_ERROR || w.cpu->s.rip != stands || w.cpu->s.activity != CPU_RUNNING ||
	    w.mem->ram.file.base[MARK])
		fail_msg("%s, %s: status %d, at 0x%lx, expected %d at 0x%lx", engine, w.name, status, w.cpu->s.rip,
			 MACHINE_ENGINE_ERROR, stands);
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
	if (!engine_is_here(engine))
		return;
	for (unsigned cpus = 1; cpus <= 2; cpus++) {
#define _(name, before, text, stands)                                                                                  \
	ends(engine, cpus, (struct world){ #name, way_##name, last_##name, stands, NULL, NULL, NULL });
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
