/*
 * A PCI device whose BAR shows its memory, and that the guest moves all the time: data and code are where the BAR is now, and nowhere else, under every
 * engine; what is written there is in the log.
 */
#include "boot/boot.h"
#include "machine/machine.h"

#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/engines.h"
#include "lib/hard_device.h"

#define ROUNDS 300
#define START  0x100000

/* ---- the guest ---- */

/*
 * ESI: where the BAR is, between E0000000h and E4000000h. Code that was written in the last round comes along; the page behind it has data. At the
 * end: 1 or, by what was wrong, 3, 5, 7, 9.
 */
asm(".pushsection .rodata\n"
    "bar_guest: .code32\n"
    "mov $0x9000, %esp\n"
    "mov $0x80001804, %eax\nmov $0xcf8, %edx\nout %eax, %dx\n"
    "mov $2, %eax\nmov $0xcfc, %edx\nout %eax, %dx\n"
    "xor %ebp, %ebp\nmov $0xe0000000, %esi\n"
    "1: mov $0x80001810, %eax\nmov $0xcf8, %edx\nout %eax, %dx\n"
    "mov %esi, %eax\nmov $0xcfc, %edx\nout %eax, %dx\n"
    "test %ebp, %ebp\njz 2f\n"
    "mov $1, %bl\ncall *%esi\ncmp %ebp, %eax\njne 9f\n"
    "mov $2, %bl\ncmp %ebp, 0x1000(%esi)\njne 9f\n"
    "mov $3, %bl\nmov %esi, %eax\nxor $0x4000000, %eax\ncmpl $-1, (%eax)\njne 9f\n"
    "2: inc %ebp\n"
    "mov %ebp, 1(%esi)\nmovb $0xb8, (%esi)\nmovb $0xc3, 5(%esi)\n"
    "mov $4, %bl\ncall *%esi\ncmp %ebp, %eax\njne 9f\n"
    "mov %ebp, 0x1000(%esi)\n"
    "xor $0x4000000, %esi\ncmp $300, %ebp\njb 1b\n"
    "xor %ebx, %ebx\n"
    "9: mov %bl, %al\nout %al, $0xf4\n"
    "3: hlt\njmp 3b\n"
    ".code64\n"
    "bar_guest_end:\n"
    ".popsection\n");
extern const uint8_t bar_guest[], bar_guest_end[];

static int load_guest(void *opaque, struct guest_mem *mem, struct cpu_state *state, struct error *err)
{
	struct guest_mem **here = opaque;

	(void)err;
	*here = mem;
	assert_int_equal(mem_write(mem, gpa(START), bar_guest, (size_t)(bar_guest_end - bar_guest)), 0);
	boot_state_protected_mode(mem, state, START);
	return 0;
}

static void run(const char *engine, unsigned cpus, bool logged)
{
	struct guest_mem *mem = NULL;
	const struct machine_guest guest = { load_guest, &mem };
	struct machine_config config = { .guest = &guest,
					 .memory = 16ull << 20,
					 .cpus = cpus,
					 .engine = engine,
					 .cpu_model = "v2",
					 .devices = { { .spec = "debug-exit" },
						      { .spec = "hard", .type = &hard_type } },
					 .device_count = 2 };
	struct error err = { 0 };
	struct machine *machine;
	uint64_t bitmap[HARD_MEMORY / PAGE_SIZE / 64];

	if (machine_create(&machine, &config, &err))
		fail_msg("%s", err.text);
	if (logged)
		mem_dirty_start(mem);
	assert_int_equal(machine_run(machine), 1);
	assert_int_equal(load_le32(hard_seen.last->memory->file.base + 1), ROUNDS);
	assert_int_equal(load_le32(hard_seen.last->memory->file.base + 0x1000), ROUNDS);
	if (logged) {
		mem_dirty_collect(mem, hard_seen.last->memory->first, HARD_MEMORY / PAGE_SIZE, bitmap);
		assert_true(bitmap[0] == 3);
		for (unsigned n = 1; n < ARRAY_SIZE(bitmap); n++)
			assert_true(!bitmap[n]);
		mem_dirty_stop(mem);
	}
	machine_destroy(machine);
}

static void run_with(const char *engine)
{
	if (!engine_is_here(engine))
		return;
	for (unsigned cpus = 1; cpus <= 4; cpus += 3) {
		run(engine, cpus, false);
		run(engine, cpus, true);
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
