/*
 * The machine's life with guests of a few bytes: how runs end, reset, quitting from outside, virtual time.
 */
#define _GNU_SOURCE
#include "machine/machine.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define LOAD_AT 0x400000u

/* A guest's file, its machine and what it said on standard error. */
struct run {
	char kernel[32];
	struct machine_config config;
	struct machine *machine;
	char *said;
	size_t said_size;
};

/* An ELF executable of just this code, started in long mode. */
static void setup(struct run *r, const void *code, size_t size)
{
	Elf64_Ehdr h = {
		.e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_entry = LOAD_AT,
		.e_phoff = sizeof(h),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 1,
	};
	Elf64_Phdr p = { .p_type = PT_LOAD,
			 .p_offset = sizeof(h) + sizeof(p),
			 .p_paddr = LOAD_AT,
			 .p_filesz = size,
			 .p_memsz = size };
	int fd;

	memset(r, 0, sizeof(*r));
	strcpy(r->kernel, "/tmp/doppel-test-XXXXXX");
	fd = mkstemp(r->kernel);
	assert_true(fd >= 0);
	assert_int_equal(host_write_all(fd, &h, sizeof(h)), 0);
	assert_int_equal(host_write_all(fd, &p, sizeof(p)), 0);
	assert_int_equal(host_write_all(fd, code, size), 0);
	close(fd);
	r->config = (struct machine_config){
		.kernel = r->kernel,
		.memory = 16 << 20,
		.cpus = 1,
		.engine = "interp",
		.cpu_model = "host",
		.devices = { { .spec = "debug-exit" } },
		.device_count = 1,
	};
}

static void create(struct run *r)
{
	struct error err = { 0 };

	if (machine_create(&r->machine, &r->config, &err))
		fail_msg("%s", err.text);
}

/* Runs it; what it says on standard error goes to r->said. */
static int run(struct run *r)
{
	int saved = dup(2), file = memfd_create("said", 0), status;
	off_t size;

	assert_true(saved >= 0 && file >= 0);
	dup2(file, 2);
	status = machine_run(r->machine);
	fflush(stderr);
	dup2(saved, 2);
	close(saved);
	size = lseek(file, 0, SEEK_END);
	r->said = calloc(1, (size_t)size + 1);
	assert_non_null(r->said);
	assert_int_equal(pread(file, r->said, (size_t)size, 0), size);
	close(file);
	return status;
}

static void teardown(struct run *r)
{
	machine_destroy(r->machine);
	unlink(r->kernel);
	free(r->said);
}

static int run_code(const void *code, size_t size, void (*change)(struct machine_config *), char **said)
{
	struct run r;
	int status;

	setup(&r, code, size);
	if (change)
		change(&r.config);
	create(&r);
	status = run(&r);
	if (said)
		*said = strdup(r.said);
	teardown(&r);
	return status;
}

#define OUT(port, value) 0xb0, value, 0x66, 0xba, (port)&0xff, (port) >> 8, 0xee /* mov al; mov dx; out dx, al */
#define HLT		 0xf4

static void use_virtual_time(struct machine_config *config) { config->clock = CLOCK_VIRTUAL; }

static void test_debug_exit(void **state)
{
	static const uint8_t code[] = { OUT(0xf4, 21), HLT };

	(void)state;
	assert_int_equal(run_code(code, sizeof(code), NULL, NULL), 43);
	assert_int_equal(run_code(code, sizeof(code), use_virtual_time, NULL), 43);
}

static void test_poweroff(void **state)
{
	/* PM1a control: SLP_EN, SLP_TYP 0 */
	static const uint8_t code[] = { 0x66, 0xb8, 0x00, 0x20, 0x66, 0xba, 0x04, 0x06, 0x66, 0xef, 0xeb, 0xfe };

	(void)state;
	assert_int_equal(run_code(code, sizeof(code), NULL, NULL), MACHINE_POWEROFF);
	assert_int_equal(run_code(code, sizeof(code), use_virtual_time, NULL), MACHINE_POWEROFF);
}

static void test_triple_fault(void **state)
{
	static const uint8_t code[] = { 0x0f, 0x0b }; /* ud2 without an IDT */
	char *said;

	(void)state;
	assert_int_equal(run_code(code, sizeof(code), NULL, &said), MACHINE_TRIPLE_FAULT);
	assert_non_null(strstr(said, "triple fault"));
	assert_non_null(strstr(said, "400000"));
	free(said);
}

/* incl 0x300000, which no file covers; out of 0xcf9 until it is 3 */
static const uint8_t reset_code[] = {
	0xff,	       0x04, 0x25, 0x00, 0x00, 0x30, 0x00,	 /* incl 0x300000 */
	0x83,	       0x3c, 0x25, 0x00, 0x00, 0x30, 0x00, 0x03, /* cmpl $3, 0x300000 */
	0x74,	       0x09,					 /* je exit */
	OUT(0xcf9, 6), 0xeb, 0xfe,				 /* reset; jmp . */
	OUT(0xf4, 1),  HLT,
};

static void without_reboot(struct machine_config *config) { config->no_reboot = true; }

static void with_four_cpus(struct machine_config *config) { config->cpus = 4; }

static void test_reset_starts_afresh_and_keeps_memory(void **state)
{
	(void)state;
	assert_int_equal(run_code(reset_code, sizeof(reset_code), NULL, NULL), 3);
	assert_int_equal(run_code(reset_code, sizeof(reset_code), use_virtual_time, NULL), 3);
	assert_int_equal(run_code(reset_code, sizeof(reset_code), with_four_cpus, NULL), 3);
	assert_int_equal(run_code(reset_code, sizeof(reset_code), without_reboot, NULL), MACHINE_POWEROFF);
}

/* The kernel went away meanwhile: the reset cannot be, and says why. */
static void test_reset_without_the_kernel(void **state)
{
	struct run r;

	(void)state;
	setup(&r, reset_code, sizeof(reset_code));
	create(&r);
	unlink(r.kernel);
	assert_int_equal(run(&r), MACHINE_ENGINE_ERROR);
	assert_non_null(strstr(r.said, r.kernel));
	teardown(&r);
}

static void *quit(void *machine)
{
	machine_quit(machine);
	return NULL;
}

/* From outside, before and while it runs, whether the guest spins or sleeps for ever. */
static void check_quit(const uint8_t *code, size_t size, void (*change)(struct machine_config *), bool early)
{
	pthread_t thread;
	struct run r;

	setup(&r, code, size);
	if (change)
		change(&r.config);
	create(&r);
	assert_int_equal(pthread_create(&thread, NULL, quit, r.machine), 0);
	if (early)
		pthread_join(thread, NULL);
	assert_int_equal(run(&r), MACHINE_QUIT);
	if (!early)
		pthread_join(thread, NULL);
	teardown(&r);
}

static void test_quit(void **state)
{
	static const uint8_t spin[] = { 0xeb, 0xfe }, sleep_for_ever[] = { 0xfa, HLT, 0xeb, 0xfd };
	static void (*const changes[])(struct machine_config *) = { NULL, with_four_cpus, use_virtual_time };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(changes); i++) {
		for (unsigned early = 0; early < 2; early++) {
			check_quit(spin, sizeof(spin), changes[i], early);
			check_quit(sleep_for_ever, sizeof(sleep_for_ever), changes[i], early);
		}
	}
}

/* RDTSC twice around 1,000 turns of a loop of two instructions: virtual time is the count of instructions, exactly. */
static void test_virtual_time_counts_instructions(void **state)
{
	static const uint8_t code[] = {
		0x0f, 0x31, 0x89, 0xc3,		   /* rdtsc; mov ebx, eax */
		0xb9, 0xe8, 0x03, 0x00, 0x00,	   /* mov ecx, 1000 */
		0xff, 0xc9, 0x75, 0xfc,		   /* 1: dec ecx; jnz 1b */
		0x0f, 0x31, 0x29, 0xd8,		   /* rdtsc; sub eax, ebx */
		0x2d, 0xd2, 0x07, 0x00, 0x00,	   /* sub eax, 2002: mov, mov, 2000, and one of the two RDTSCs; */
		0x66, 0xba, 0xf4, 0x00, 0xee, HLT, /* out 0xf4, al: off by how many */
	};

	(void)state;
	assert_int_equal(run_code(code, sizeof(code), use_virtual_time, NULL), 2 * 1 + 1);
}

static char *stats_of(const void *code, size_t size)
{
	char *text = NULL;
	size_t text_size;
	FILE *out = open_memstream(&text, &text_size);
	struct run r;

	assert_non_null(out);
	setup(&r, code, size);
	r.config.clock = CLOCK_VIRTUAL;
	create(&r);
	run(&r);
	machine_print_stats(r.machine, out);
	fclose(out);
	teardown(&r);
	return text;
}

/* A counter of the 8254 read 5,000 times, then out: twice the same. */
static void test_virtual_time_repeats(void **state)
{
	static const uint8_t code[] = {
		0xb9, 0x88, 0x13, 0x00, 0x00,			/* mov ecx, 5000 */
		0xe4, 0x40, 0x01, 0xc3, 0xff, 0xc9, 0x75, 0xf8, /* 1: in al, 0x40; add ebx, eax; dec ecx; jnz 1b */
		0x88, 0xd8, 0xe6, 0xf4, HLT,			/* mov al, bl; out 0xf4, al */
	};
	char *first = stats_of(code, sizeof(code)), *second = stats_of(code, sizeof(code));

	(void)state;
	assert_non_null(strstr(first, "instructions"));
	assert_string_equal(first, second);
	free(first);
	free(second);
}

static void test_refused(void **state)
{
	static const uint8_t code[] = { HLT };
	struct error err = { 0 };
	struct run r;

	(void)state;
	setup(&r, code, sizeof(code));
	r.config.cpus = 0;
	assert_int_equal(machine_create(&r.machine, &r.config, &err), -EINVAL);
	r.config.cpus = MACHINE_MAX_CPUS + 1;
	assert_int_equal(machine_create(&r.machine, &r.config, &err), -EINVAL);
	r.config.cpus = 1;
	r.config.engine = "steam";
	assert_int_equal(machine_create(&r.machine, &r.config, &err), -EINVAL);
	assert_non_null(strstr(err.text, "interp"));
	r.config.engine = "auto";
	r.config.devices[r.config.device_count++].spec = "uart,port=2,chardev=nonsense";
	assert_int_equal(machine_create(&r.machine, &r.config, &err), -EINVAL);
	r.config.device_count--;
	r.config.kernel = NULL;
	assert_int_equal(machine_create(&r.machine, &r.config, &err), -EINVAL);
	assert_null(r.machine);
	teardown(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_debug_exit),
		cmocka_unit_test(test_poweroff),
		cmocka_unit_test(test_triple_fault),
		cmocka_unit_test(test_reset_starts_afresh_and_keeps_memory),
		cmocka_unit_test(test_reset_without_the_kernel),
		cmocka_unit_test(test_quit),
		cmocka_unit_test(test_virtual_time_counts_instructions),
		cmocka_unit_test(test_virtual_time_repeats),
		cmocka_unit_test(test_refused),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
