/*
 * A machine with a device of every hard kind (lib/hard_device.h): the guest checks on every vCPU that what it sees behind the device's word is what the
 * device wrote before: in code, through page tables, in the device's memory, which it moves all the time, and that each message comes
 * once, masked or not. Meanwhile the device is unplugged and plugged, and the machine is saved, and goes on as another one, under another engine, at
 * random moments. HARD_SEED=N does again what N did, as far as threads allow.
 */
#include "boot/boot.h"
#include "machine/machine.h"

#include <cmocka.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include "lib/engines.h"
#include "lib/hard_device.h"

#define ACTIONS	 12  /* of each run */
#define ROUNDS	 25  /* at most between two */
#define PATIENCE 120 /* seconds for them */

/* ---- the guest ---- */

/* Physical addresses; the assembler text below has them, too, and lib/hard_device.h's. */
#define IMAGE	   0x100000
#define CPUS	   0x320014
#define TRAMPOLINE 0x8000

/*
 * Each vCPU waits for a round n, calls the code, which must return n (or n + 1: a device that was plugged again does not wait for the last round's
 * answers), reads linear 0x400000, which must be frame n & 3 (or the next), calls and reads the device's memory (or gets ones, if the device is
 * gone or was), and says that it has. The first vCPU waits for the round's one message, for the others, and moves the memory.
 * Exits: 1 old code; 2 an old page; 3 old code of the device's; 4 old data of the device's; 5 more than one message; 6 memory that is still where it was.
 */
#define CONFIG(offset, value)                                                                                          \
	"	mov	$0x80001800 + " offset ", %eax\n"                                                              \
	"	mov	$0xcf8, %edx\n"                                                                                          \
	"	out	%eax, %dx\n"                                                                                             \
	"	mov	" value ", %eax\n"                                                                             \
	"	mov	$0xcfc, %edx\n"                                                                                          \
	"	out	%eax, %dx\n"

__asm__(".pushsection .rodata\n"
	"image:	.code32\n"
	"	mov	$0x330000, %esp\n"
	"	mov	$image_gdtr - image + 0x100000, %eax\n"
	"	lgdt	(%eax)\n"
	"	ljmp	$8, $1f - image + 0x100000\n"
	"1:	mov	$16, %eax\n"
	"	mov	%eax, %ds\n"
	"	mov	%eax, %es\n"
	"	mov	%eax, %ss\n"
	/* tables: 4 MiB pages of RAM, the device's places, its registers and the local APIC; a page table for linear 4 MiB */
	"	movl	$0x83, 0x200000\n"
	"	movl	$0x201003, 0x200004\n"
	"	movl	$0xe0000083, 0x200000 + 4 * 896\n"
	"	movl	$0xe4000083, 0x200000 + 4 * 912\n"
	"	movl	$0xfe000083, 0x200000 + 4 * 1016\n"
	"	movl	$0xfec00083, 0x200000 + 4 * 1019\n"
	/* vector 6: nobody answers; 0x40 to 0x43: messages */
	"	mov	$6, %edi\n"
	"	mov	$gone - image + 0x100000, %eax\n"
	"	call	gate\n"
	"	mov	$0x40, %edi\n"
	"2:	mov	$message - image + 0x100000, %eax\n"
	"	call	gate\n"
	"	inc	%edi\n"
	"	cmp	$0x44, %edi\n"
	"	jne	2b\n"
	"	movb	$0xff, %al\n" /* the 8259s are not wanted */
	"	outb	%al, $0x21\n"
	"	outb	%al, $0xa1\n"
	"	movl	$0xe0000000, 0x320004\n"
	"	movl	$0xc4500, 0xfee00300\n"
	"	movl	$0xc4608, 0xfee00300\n"
	"	jmp	processor\n"
	"gate:	movw	%ax, 0x340000(,%edi,8)\n"
	"	movw	$8, 0x340002(,%edi,8)\n"
	"	movw	$0x8e00, 0x340004(,%edi,8)\n"
	"	shr	$16, %eax\n"
	"	movw	%ax, 0x340006(,%edi,8)\n"
	"	ret\n"
	"	.balign	16\n"
	"image_table: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff\n"
	"image_gdtr: .word 23\n .long image_table - image + 0x100000\n"
	"image_idtr: .word 0x7ff\n .long 0x340000\n"
	/* The device gets its places and begins, but only if it is one and the same all the while: by what it is called. */
	"place:	incl	0x320008\n" CONFIG("0x14", "$0xfe000000")
		CONFIG("0x04", "$6") "	mov	0xfe000008, %ecx\n"
				     "	cmp	$-1, %ecx\n"
				     "	je	2f\n" CONFIG("0x10", "0x320004")
					     CONFIG("0x18", "$0xfe001000") "	xor	%eax, %eax\n"
									   "1:	mov	%eax, %edx\n"
									   "	shl	$4, %edx\n"
									   "	movl	$0xfee00000, 0xfe001000(%edx)\n"
									   "	movl	$0, 0xfe001004(%edx)\n"
									   "	add	$0x40, %eax\n"
									   "	mov	%eax, 0xfe001008(%edx)\n"
									   "	movl	$0, 0xfe00100c(%edx)\n"
									   "	sub	$0x3f, %eax\n"
									   "	cmp	$4, %eax\n"
									   "	jne	1b\n" CONFIG(
										   "0x40",
										   "$0x80000000") /* MSI-X is enabled */
	"	mov	0x320020, %eax\n"
	"	mov	%eax, 0x320010\n"
	"	incl	0x320008\n"
	"	mov	%ecx, 0xfe000008\n"
	"	ret\n"
	"2:	incl	0x320008\n"
	"	ret\n"
	"message: lock incl 0x320020\n"
	"	movl	$0, 0xfee000b0\n"
	"	iret\n"
	/* Code that nobody answers for: its caller gets ones. */
	"gone:	mov	12(%esp), %eax\n"
	"	mov	%eax, (%esp)\n"
	"	mov	$-1, %eax\n"
	"	iret\n"
	/* each processor: EBP is its number, EBX the last round that it has seen, ESI twice how often the device had got its places; odd: it does */
	"processor: lidt image_idtr - image + 0x100000\n"
	"	mov	0xfee00020, %ebp\n" /* its local APIC's ID */
	"	shr	$24, %ebp\n"
	"	mov	%ebp, %eax\n"
	"	shl	$12, %eax\n"
	"	lea	0x331000(%eax), %esp\n"
	"	mov	$0x200000, %eax\n"
	"	mov	%eax, %cr3\n"
	"	mov	%cr4, %eax\n"
	"	or	$0x10, %eax\n"
	"	mov	%eax, %cr4\n"
	"	mov	%cr0, %eax\n"
	"	or	$0x80010000, %eax\n"
	"	mov	%eax, %cr0\n"
	"	xor	%ebx, %ebx\n"
	"	test	%ebp, %ebp\n"
	"	jnz	wait\n"
	"	movl	$0x1ff, 0xfee000f0\n"
	"	sti\n"
	"wait:	mov	0x320008, %esi\n"
	"	mov	0x320000, %eax\n"
	"	cmp	%eax, %ebx\n"
	"	jne	round\n"
	"	pause\n"
	"	test	%ebp, %ebp\n"
	"	jnz	answer\n"
	"	cmpl	$-1, 0xfe000000\n" /* nobody there: it has been plugged anew, or will be */
	"	jne	answer\n"
	"	cmp	0x320000, %ebx\n" /* its last round comes first */
	"	jne	wait\n"
	"	call	place\n"
	"answer: mov	%ebp, %eax\n"
	"	shl	$24, %eax\n"
	"	or	%ebx, %eax\n"
	"	mov	%eax, 0xfe000004\n"
	"	jmp	wait\n"
	"round:	mov	%eax, %ebx\n"
	"	mov	$0x310000, %eax\n"
	"	call	*%eax\n"
	"	mov	$1, %edx\n"
	"	call	compare\n"
	"	invlpg	0x400000\n"
	"	mov	0x400000, %eax\n"
	"	sub	%ebx, %eax\n"
	"	and	$3, %eax\n"
	"	cmp	$1, %eax\n"
	"	mov	$2, %edx\n"
	"	ja	fail\n"
	"	mov	0x320004, %edi\n"
	"	mov	%esp, %ecx\n"
	"	call	*%edi\n"
	"	mov	%ecx, %esp\n"
	"	mov	$3, %edx\n"
	"	call	compare_device\n"
	"	mov	0x1000(%edi), %eax\n"
	"	mov	$4, %edx\n"
	"	call	compare_device\n"
	"	mov	%ebx, 0x320040(,%ebp,4)\n"
	"	test	%ebp, %ebp\n"
	"	jnz	answer\n"
	/* the first one: the message is let through, and comes */
	"	mov	%ebx, %edx\n"
	"	and	$3, %edx\n"
	"	shl	$4, %edx\n"
	"	movl	$0, 0xfe00100c(%edx)\n"
	"1:	mov	0x320020, %eax\n"
	"	sub	0x320010, %eax\n"
	"	jnz	2f\n"
	"	pause\n"
	"	cmpl	$-1, 0xfe000000\n"
	"	jne	1b\n"
	"	jmp	3f\n" /* the device is gone, and may have taken it along */
	"2:	cmp	$1, %eax\n"
	"	mov	$5, %edx\n"
	"	jne	fail\n"
	"	incl	0x320010\n"
	"	test	$1, %ebx\n" /* every other is kept back at first */
	"	jz	3f\n"
	"	lea	1(%ebx), %edx\n"
	"	and	$3, %edx\n"
	"	shl	$4, %edx\n"
	"	movl	$1, 0xfe00100c(%edx)\n"
	/* all the others are done with this round */
	"3:	mov	0x320014, %ecx\n"
	"4:	dec	%ecx\n"
	"	jz	6f\n"
	"5:	cmp	%ebx, 0x320040(,%ecx,4)\n"
	"	je	4b\n"
	"	pause\n"
	"	jmp	5b\n"
	/* The memory goes somewhere else. */
	"6:	test	$2, %ebx\n" /* two rounds here, two there */
	"	jnz	answer\n"
	"	xorl	$0x4000000, 0x320004\n" CONFIG(
		"0x10",
		"0x320004") "	cmpl	$-1, (%edi)\n"
			    "	mov	$6, %edx\n"
			    "	je	answer\n"
			    "fail:	mov	%edx, %eax\n"
			    "	out	%al, $0xf4\n"
			    "	jmp	fail\n"
			    /* EAX is this round, or the next; or else EDX says what is wrong. Ones are right if the device is gone, gets its places or got them since. */
			    "compare_device: cmp $-1, %eax\n"
			    "	jne	compare\n"
			    "	cmp	%eax, 0xfe000000\n"
			    "	je	1f\n"
			    "	test	$1, %esi\n"
			    "	jnz	1f\n"
			    "	cmp	0x320008, %esi\n"
			    "	je	fail\n"
			    "1:	ret\n"
			    "compare: sub	%ebx, %eax\n"
			    "	cmp	$1, %eax\n"
			    "	ja	fail\n"
			    "	ret\n"
			    /* copied to TRAMPOLINE */
			    "	.code16\n"
			    "trampoline: cli\n"
			    "	xor	%ax, %ax\n"
			    "	mov	%ax, %ds\n"
			    "	lgdtl	trampoline_gdtr - trampoline + 0x8000\n"
			    "	mov	$1, %eax\n"
			    "	mov	%eax, %cr0\n"
			    "	ljmpl	$8, $trampoline32 - image + 0x100000\n"
			    "trampoline_gdtr: .word 23\n .long image_table - image + 0x100000\n"
			    "trampoline_end:\n"
			    "	.code32\n"
			    "trampoline32: mov $16, %eax\n"
			    "	mov	%eax, %ds\n"
			    "	mov	%eax, %es\n"
			    "	mov	%eax, %ss\n"
			    "	jmp	processor\n"
			    "image_end:\n"
			    "	.code64\n"
			    "	.popsection\n");
extern const uint8_t image[], image_end[], trampoline[], trampoline_end[];

static int load(void *opaque, struct guest_mem *mem, struct cpu_state *state, struct error *err)
{
	static const uint8_t code[] = { 0xb8, 0, 0, 0, 0, 0xc3 };
	const uint32_t *cpus = opaque;

	(void)err;
	mem_write(mem, gpa(IMAGE), image, (size_t)(image_end - image));
	mem_write(mem, gpa(TRAMPOLINE), trampoline, (size_t)(trampoline_end - trampoline));
	mem_write(mem, gpa(HARD_CODE), code, sizeof(code));
	mem_write(mem, gpa(CPUS), cpus, sizeof(*cpus));
	for (uint32_t n = 0; n < 4; n++)
		mem_write(mem, gpa(HARD_FRAMES + n * PAGE_SIZE), &n, sizeof(n));
	boot_state_protected_mode(mem, state, IMAGE);
	return 0;
}

/* ---- a run: what is done to the machine by another thread than its own ---- */

struct run {
	const char *engines[2]; /* in turns */
	uint32_t cpus;
	uint64_t seed;
	struct machine *machine;
	struct device_request request;
	unsigned plugs, stops;
	bool plugged, stopped; /* the device is; the machine, to be saved */
	int rc;
};

/* splitmix64 */
static uint64_t next(uint64_t *seed)
{
	uint64_t z = *seed += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

/* 0: so many rounds went by. -EINTR: the machine has ended. */
static int wait_for_rounds(unsigned rounds)
{
	struct timespec until;
	int rc = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE;
	pthread_mutex_lock(&hard_seen.lock);
	hard_seen.rounds = 0;
	while (!rc && hard_seen.rounds < rounds && !hard_seen.over)
		rc = -pthread_cond_timedwait(&hard_seen.changed, &hard_seen.lock, &until);
	if (hard_seen.over)
		rc = -EINTR;
	pthread_mutex_unlock(&hard_seen.lock);
	return rc;
}

static int unplug(struct run *r)
{
	int rc = machine_unplug(r->machine, "hard", 0, NULL);

	if (!rc && machine_unplug(r->machine, "hard", 0, NULL) != -ENOENT)
		rc = -EINVAL;
	r->plugged = false;
	return rc;
}

static int plug(struct run *r)
{
	r->plugs++;
	r->plugged = true;
	return machine_plug(r->machine, &r->request, NULL);
}

/* Until it is time to stop: for saving, or for good. */
static int meddle(struct run *r)
{
	int rc = r->plugged ? 0 : plug(r);

	while (!rc && r->plugs + r->stops < ACTIONS) {
		rc = wait_for_rounds(1 + (unsigned)(next(&r->seed) % ROUNDS));
		if (rc)
			return rc;
		switch (next(&r->seed) % 4) {
		case 0:
			rc = unplug(r);
			r->stopped = true;
			break; /* saved without it */
		case 1 ... 2: r->stopped = true; break;
		default: rc = unplug(r); rc = rc ? rc : plug(r);
		}
		if (r->stopped)
			return rc;
	}
	return rc ? rc : wait_for_rounds(ROUNDS);
}

static void *meddle_thread(void *opaque)
{
	struct run *r = opaque;

	r->rc = meddle(r);
	machine_quit(r->machine);
	return NULL;
}

/* With the device or without. */
static void create(struct run *r)
{
	const char *engine = r->engines[r->stops % 2];
	struct machine_config config = {
		.memory = 16 << 20,
		.cpus = r->cpus,
		.engine = engine,
		.cpu_model = "v2",
	};
	static struct machine_guest guest;
	struct error err = { 0 };

	guest = (struct machine_guest){ load, &r->cpus };
	config.guest = &guest;
	assert_int_equal(machine_ask_for(&config, (struct device_request){ .spec = "debug-exit" }, &err), 0);
	if ((r->plugged && machine_ask_for(&config, r->request, &err)) || machine_create(&r->machine, &config, &err))
		fail_msg("%s", err.text);
}

/* The machine ends, and another goes on. */
static void move(struct run *r)
{
	struct writer saved = { 0 }, again = { 0 };
	struct error err = { 0 };
	struct reader reader;

	if (machine_save(r->machine, &saved, &err))
		fail_msg("%s", err.text);
	machine_destroy(r->machine);
	r->stops++;
	create(r);
	reader = (struct reader){ saved.data, saved.size, 0 };
	if (machine_load(r->machine, &reader, &err) || machine_save(r->machine, &again, &err))
		fail_msg("%s", err.text);
	assert_int_equal(again.size, saved.size);
	assert_memory_equal(again.data, saved.data, saved.size);
	writer_free(&saved);
	writer_free(&again);
}

static void fails(struct run *r, int status)
{
	uint32_t words[24] = { 0 };

	machine_read_memory(r->machine, gpa(HARD_ROUND), words, sizeof(words), NULL);
	for (unsigned n = 0; n < ARRAY_SIZE(words); n += 8)
		print_message("# 0x%x: %08x %08x %08x %08x %08x %08x %08x %08x\n", HARD_ROUND + 4 * n, words[n],
			      words[n + 1], words[n + 2], words[n + 3], words[n + 4], words[n + 5], words[n + 6],
			      words[n + 7]);
	fail_msg("status %d after %u plugs and %u stops, %u CPUs: the guest's word is %d; %s", status, r->plugs,
		 r->stops, r->cpus, status >> 1, strerror(-r->rc));
}

static void run_once(struct run *r)
{
	pthread_t thread;
	int status;

	hard_seen.over = r->stopped = false;
	assert_int_equal(pthread_create(&thread, NULL, meddle_thread, r), 0);
	status = machine_run(r->machine);
	pthread_mutex_lock(&hard_seen.lock);
	hard_seen.over = true;
	pthread_cond_broadcast(&hard_seen.changed);
	pthread_mutex_unlock(&hard_seen.lock);
	pthread_join(thread, NULL);
	if (status != MACHINE_QUIT || r->rc)
		fails(r, status);
}

static void run(const char *const names[2], uint32_t cpus, uint64_t seed)
{
	char spec[32];
	struct run r = { .engines = { names[0], names[1] },
			 .cpus = cpus,
			 .seed = seed,
			 .request = { .spec = spec, .type = &hard_type },
			 .plugged = true };

	snprintf(spec, sizeof(spec), "hard,cpus=%u,intx=%s", cpus, cpus & 1 ? "off" : "on");
	hard_seen.lives = hard_seen.deaths = 0;
	create(&r);
	assert_int_equal(machine_unplug(r.machine, "pit", 0, NULL), -ENOENT); /* a part of the PC */
	do {
		run_once(&r);
		if (r.stopped)
			move(&r);
	} while (r.stopped);
	machine_destroy(r.machine);
	assert_true(r.plugs + r.stops >= ACTIONS);
	assert_int_equal(hard_seen.deaths, hard_seen.lives);
}

static void run_with(const char *engine, const char *other)
{
	const char *const names[2] = { engine, other };
	const char *given = getenv("HARD_SEED");
	uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);

	if (!engine_is_here(engine) || !engine_is_here(other))
		return;
	print_message("# HARD_SEED=%llu\n", (unsigned long long)seed);
	for (uint32_t cpus = 1; cpus <= 4; cpus *= 2)
		run(names, cpus, seed + cpus);
}

static void interpreted(void **state)
{
	(void)state;
	run_with("interp", "interp");
}

static void translated(void **state)
{
	(void)state;
	run_with("bt", "bt");
}

static void in_turns(void **state)
{
	(void)state;
	run_with("bt", "interp");
}

static void options_are_checked(void **state)
{
	static const struct {
		const char *spec, *says;
	} wrong[] = {
		{ "hard,cpus=9", "hard: option 'cpus' is '9'; expected a number from 0 to 8" },
		{ "hard,cpus=2,intx=maybe", "hard: option 'intx' is 'maybe'; expected on or off" },
		{ "hard,gpus=2", "hard: option 'gpus' is unknown; expected cpus, intx" },
		{ "hard,", "hard: option '' is unknown; expected cpus, intx" },
	};

	(void)state;
	for (unsigned n = 0; n < ARRAY_SIZE(wrong); n++) {
		struct device_request request = { .spec = wrong[n].spec, .type = &hard_type };
		struct error err = { 0 };

		assert_null(device_request_check(&request, &err));
		assert_string_equal(err.text, wrong[n].says);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_are_checked),
		cmocka_unit_test(interpreted),
		cmocka_unit_test(translated),
		cmocka_unit_test(in_turns),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
