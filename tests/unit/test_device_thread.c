/*
 * A device of the hard kind, which the product does not have, added without touching src/: on PCI, with a lock and a thread of its own that writes into
 * code that vCPUs run, into their page tables, and says so by a message-signalled interrupt and by INTx; unplugged and plugged again in the
 * middle. The guest checks on every vCPU that what it sees behind the device's word is what the device wrote before.
 */
#include "boot/boot.h"
#include "machine/machine.h"

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#define PLUGS  6
#define ROUNDS 150 /* of each plug */

/* Guest memory, which vCPUs read while the device writes it, as on hardware. */
#ifdef __SANITIZE_THREAD__
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) { return "race:mem_write\nrace:host_load\n"; }
#endif

/* ---- the guest ---- */

/* Physical addresses; the assembler text below has them, too. */
#define IMAGE	   0x100000
#define PTE	   0x201000 /* of linear 0x400000 */
#define FRAMES	   0x300000 /* four, each begins with its number */
#define CODE	   0x310000 /* MOV EAX, round; RET */
#define ROUND	   0x320000
#define MESSAGES   0x320020 /* interrupts taken */
#define TRAMPOLINE 0x8000

/*
 * Each vCPU waits for a round n, calls CODE, which must return n (or n + 1: a device that was plugged again does not wait for the last round's
 * answers), reads linear 0x400000, which must be frame n & 3 (or the next), and tells the device that it has. Exit 1: old code; 2: an old page.
 */
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
	/* tables: 4 MiB pages of RAM, the device and the local APIC; a page table for linear 4 MiB */
	"	movl	$0x83, 0x200000\n"
	"	movl	$0x201003, 0x200004\n"
	"	movl	$0xfe000083, 0x200000 + 4 * 1016\n"
	"	movl	$0xfec00083, 0x200000 + 4 * 1019\n"
	/* vector 0x40 */
	"	mov	$message - image + 0x100000, %eax\n"
	"	movw	%ax, 0x340000 + 8 * 0x40\n"
	"	movw	$8, 0x340002 + 8 * 0x40\n"
	"	movw	$0x8e00, 0x340004 + 8 * 0x40\n"
	"	shr	$16, %eax\n"
	"	movw	%ax, 0x340006 + 8 * 0x40\n"
	"	mov	$image_idtr - image + 0x100000, %eax\n"
	"	lidt	(%eax)\n"
	"	movb	$0xff, %al\n" /* the 8259s are not wanted */
	"	outb	%al, $0x21\n"
	"	outb	%al, $0xa1\n"
	"	call	place\n"
	"	movl	$0xc4500, 0xfee00300\n"
	"	movl	$0xc4608, 0xfee00300\n"
	"	jmp	processor\n"
	"	.balign	16\n"
	"image_table: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff\n"
	"image_gdtr: .word 23\n .long image_table - image + 0x100000\n"
	"image_idtr: .word 0x7ff\n .long 0x340000\n"
	/* the device's BAR 0, and its memory and bus master enables */
	"place:	mov	$0x80002010, %eax\n"
	"	mov	$0xcf8, %edx\n"
	"	out	%eax, %dx\n"
	"	mov	$0xfe000000, %eax\n"
	"	mov	$0xcfc, %edx\n"
	"	out	%eax, %dx\n"
	"	mov	$0x80002004, %eax\n"
	"	mov	$0xcf8, %edx\n"
	"	out	%eax, %dx\n"
	"	mov	$6, %eax\n"
	"	mov	$0xcfc, %edx\n"
	"	out	%ax, %dx\n"
	"	ret\n"
	"message: lock incl 0x320020\n"
	"	movl	$0, 0xfee000b0\n"
	"	iret\n"
	/* each processor: EBP is its number, EBX the last round that it has seen */
	"processor: mov	0xfee00020, %ebp\n" /* its local APIC's ID */
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
	"	sti\n"
	"wait:	mov	0x320000, %eax\n"
	"	cmp	%eax, %ebx\n"
	"	jne	round\n"
	"	pause\n"
	"	test	%ebp, %ebp\n"
	"	jnz	answer\n"
	"	cmpl	$-1, 0xfe000000\n" /* nobody there: it has been plugged anew, or will be */
	"	jne	answer\n"
	"	call	place\n"
	"answer: mov	%ebp, %eax\n"
	"	shl	$24, %eax\n"
	"	or	%ebx, %eax\n"
	"	mov	%eax, 0xfe000004\n"
	"	jmp	wait\n"
	"round:	mov	%eax, %ebx\n"
	"	mov	$0x310000, %eax\n"
	"	call	*%eax\n"
	"	sub	%ebx, %eax\n"
	"	cmp	$1, %eax\n"
	"	mov	$1, %eax\n"
	"	ja	fail\n"
	"	invlpg	0x400000\n"
	"	mov	0x400000, %eax\n"
	"	sub	%ebx, %eax\n"
	"	and	$3, %eax\n"
	"	cmp	$1, %eax\n"
	"	mov	$2, %eax\n"
	"	jbe	answer\n"
	"fail:	out	%al, $0xf4\n"
	"	jmp	fail\n"
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

	(void)opaque, (void)err;
	mem_write(mem, gpa(IMAGE), image, (size_t)(image_end - image));
	mem_write(mem, gpa(TRAMPOLINE), trampoline, (size_t)(trampoline_end - trampoline));
	mem_write(mem, gpa(CODE), code, sizeof(code));
	for (uint32_t n = 0; n < 4; n++)
		mem_write(mem, gpa(FRAMES + n * PAGE_SIZE), &n, sizeof(n));
	boot_state_protected_mode(mem, state, IMAGE);
	return 0;
}

/* ---- what the test waits for ---- */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned rounds; /* of the device that is plugged */
	unsigned lives, deaths;
	bool over;
} seen = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static void note_round(unsigned rounds)
{
	pthread_mutex_lock(&seen.lock);
	seen.rounds = rounds;
	pthread_cond_broadcast(&seen.changed);
	pthread_mutex_unlock(&seen.lock);
}

/* ---- the device ---- */

/* clang-format off */
#define WRITER_OPTIONS(_, T)                                                                                           \
	_(T, NUMBER, cpus, 1, 8, NULL, "how many answer each round")                                                   \
	_(T, SWITCH, intx, 0, 0, "off", "pulls INTx, too")
/* clang-format on */

struct writer_options {
	DEVICE_OPTION_FIELDS(WRITER_OPTIONS)
};

struct dma_device {
	struct pci_device pci;
	const struct writer_options *options;
	uint32_t round, answered; /* bits, by vCPU; under the device's lock, both */
	/* the thread's */
	pthread_t thread;
	pthread_mutex_t state_lock;
	pthread_cond_t state_changed;
	bool started, paused, parked, ends, all_answered;
};

static struct dma_device *of(struct device *device) { return (struct dma_device *)device; }

static uint64_t status_read(struct device *device, uint64_t offset, unsigned size)
{
	(void)offset, (void)size;
	return of(device)->round;
}

static void answer_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct dma_device *d = of(device);

	(void)size;
	if (offset != 4 || (value & 0xffffff) != d->round)
		return;
	d->answered |= 1u << (value >> 24);
	if (d->answered != (1u << d->options->cpus) - 1)
		return;
	irq_set(&d->pci.intx, false);
	pthread_mutex_lock(&d->state_lock);
	d->all_answered = true;
	pthread_cond_broadcast(&d->state_changed);
	pthread_mutex_unlock(&d->state_lock);
}

static void begin_round(struct dma_device *d, uint32_t n)
{
	struct bus *bus = d->pci.device.bus;
	uint32_t pte = (FRAMES + (n & 3) * PAGE_SIZE) | 3;

	mem_write(bus->mem, gpa(CODE + 1), &n, sizeof(n));
	mem_write(bus->mem, gpa(PTE), &pte, sizeof(pte));
	lock_take(d->pci.device.lock);
	d->round = n;
	d->answered = 0;
	d->all_answered = false;
	/* A device may write with its lock held: who waits for it counts as stopped. */
	mem_write(bus->mem, gpa(ROUND), &n, sizeof(n));
	irq_set(&d->pci.intx, d->options->intx);
	lock_drop(d->pci.device.lock);
	irq_msi(bus, 0xfee00000, 0x40);
}

/* Until the last round has been answered, and nobody pauses it; false: it ends. */
static bool wait_for_answers(struct dma_device *d)
{
	bool goes_on;

	pthread_mutex_lock(&d->state_lock);
	while (!d->ends && (d->paused || !d->all_answered)) {
		d->parked = d->paused;
		pthread_cond_broadcast(&d->state_changed);
		pthread_cond_wait(&d->state_changed, &d->state_lock);
	}
	d->parked = false;
	goes_on = !d->ends;
	pthread_mutex_unlock(&d->state_lock);
	return goes_on;
}

static void *work(void *device)
{
	struct dma_device *d = device;
	uint32_t first = 0;

	for (unsigned rounds = 0; wait_for_answers(d); rounds++) {
		if (!rounds)
			mem_read(d->pci.device.bus->mem, gpa(ROUND), &first, sizeof(first));
		note_round(rounds);
		begin_round(d, first + rounds + 1);
	}
	return NULL;
}

static void set_paused(struct device *device, bool paused)
{
	struct dma_device *d = of(device);

	pthread_mutex_lock(&d->state_lock);
	d->paused = paused;
	pthread_cond_broadcast(&d->state_changed);
	while (d->started && paused && !d->parked)
		pthread_cond_wait(&d->state_changed, &d->state_lock);
	pthread_mutex_unlock(&d->state_lock);
}

static void dma_pause(struct device *device) { set_paused(device, true); }

static void dma_resume(struct device *device) { set_paused(device, false); }

static void dma_reset(struct device *device) { pci_reset(&of(device)->pci); }

static void dma_destroy(struct device *device)
{
	struct dma_device *d = of(device);

	pthread_mutex_lock(&d->state_lock);
	d->ends = true;
	pthread_cond_broadcast(&d->state_changed);
	pthread_mutex_unlock(&d->state_lock);
	if (d->started)
		pthread_join(d->thread, NULL);
	pci_remove(&d->pci);
	pthread_mutex_destroy(&d->state_lock);
	pthread_cond_destroy(&d->state_changed);
	free(d);
	seen.deaths++;
}

static const struct device_ops dma_ops = {
	.reset = dma_reset, .pause = dma_pause, .resume = dma_resume, .destroy = dma_destroy
};

static int dma_create(struct bus *bus, const void *options, struct error *err)
{
	struct dma_device *d = calloc(1, sizeof(*d));
	struct device *device = &d->pci.device;
	int rc;

	d->options = options;
	d->paused = d->all_answered = true;
	pthread_mutex_init(&d->state_lock, NULL);
	pthread_cond_init(&d->state_changed, NULL);
	device_init(device, bus, "dma-writer", &dma_ops);
	pci_init_config(&d->pci, 0x1234, 0x5678, 0xff0000, 0, 0, 1);
	d->pci.bars[0].size = 0x1000;
	d->pci.bars[0].range = (struct bus_range){ .sizes = 4, .read = status_read, .write = answer_write };
	rc = pci_add(bus, &d->pci, 4, 0, err);
	if (!rc)
		rc = host_thread_create(&d->thread, "dma-writer", work, d, err);
	d->started = !rc;
	seen.lives++;
	return rc;
}

static const struct device_type dma_type = {
	.name = "dma-writer",
	.help = "writes into code and page tables",
	.most = 1,
	DEVICE_OPTIONS(WRITER_OPTIONS, struct writer_options),
	.create = dma_create,
};

/* ---- the test ---- */

struct run {
	struct machine *machine;
	struct device_request request;
	int rc;
};

static bool rounds_done(unsigned rounds)
{
	bool done;

	pthread_mutex_lock(&seen.lock);
	while (seen.rounds < rounds && !seen.over)
		pthread_cond_wait(&seen.changed, &seen.lock);
	done = !seen.over;
	seen.rounds = 0;
	pthread_mutex_unlock(&seen.lock);
	return done;
}

/* Another thread than the machine's. */
static void *replug(void *opaque)
{
	struct run *r = opaque;

	for (unsigned n = 0; rounds_done(ROUNDS) && n < PLUGS && !r->rc; n++) {
		r->rc = machine_unplug(r->machine, "dma-writer", 0, NULL);
		if (!r->rc && machine_unplug(r->machine, "dma-writer", 0, NULL) != -ENOENT)
			r->rc = -EINVAL;
		note_round(0);
		if (!r->rc)
			r->rc = machine_plug(r->machine, &r->request, NULL);
	}
	machine_quit(r->machine);
	return NULL;
}

static void run(const char *engine, unsigned cpus, const char *spec)
{
	const struct machine_guest guest = { load, NULL };
	struct machine_config config = {
		.guest = &guest,
		.memory = 16 << 20,
		.cpus = cpus,
		.engine = engine,
		.cpu_model = "host",
	};
	struct run r = { .request = { .spec = spec, .type = &dma_type } };
	struct error err = { 0 };
	uint32_t messages = 0;
	pthread_t thread;
	int status;

	seen.rounds = seen.lives = seen.deaths = 0;
	seen.over = false;
	assert_int_equal(machine_ask_for(&config, (struct device_request){ .spec = "debug-exit" }, &err), 0);
	if (machine_ask_for(&config, r.request, &err) || machine_create(&r.machine, &config, &err))
		fail_msg("%s", err.text);
	assert_int_equal(machine_ask_for(&config, r.request, &err), -EINVAL); /* there can be one */
	assert_int_equal(machine_plug(r.machine, &r.request, &err), -EBUSY);
	assert_int_equal(machine_unplug(r.machine, "pit", 0, &err), -ENOENT); /* a part of the PC */
	assert_int_equal(pthread_create(&thread, NULL, replug, &r), 0);
	status = machine_run(r.machine);
	pthread_mutex_lock(&seen.lock);
	seen.over = true;
	pthread_cond_broadcast(&seen.changed);
	pthread_mutex_unlock(&seen.lock);
	pthread_join(thread, NULL);
	assert_int_equal(machine_read_memory(r.machine, gpa(MESSAGES), &messages, sizeof(messages), &err), 0);
	machine_destroy(r.machine);
	assert_int_equal(status, MACHINE_QUIT); /* 3: old code ran, 5: an old page was seen */
	assert_int_equal(r.rc, 0);
	assert_int_equal(seen.lives, PLUGS + 1);
	assert_int_equal(seen.deaths, seen.lives);
	assert_true(messages > 0);
}

static void one_cpu(void **state) { run(*state, 1, "dma-writer,cpus=1"); }
static void two_cpus(void **state) { run(*state, 2, "dma-writer,cpus=2,intx"); }
static void four_cpus(void **state) { run(*state, 4, "dma-writer,cpus=4,intx=on"); }

static void options_are_checked(void **state)
{
	static const struct {
		const char *spec, *says;
	} wrong[] = {
		{ "dma-writer,cpus=9", "dma-writer: option 'cpus' is '9'; expected a number from 1 to 8" },
		{ "dma-writer,cpus=2,intx=maybe", "dma-writer: option 'intx' is 'maybe'; expected on or off" },
		{ "dma-writer,gpus=2", "dma-writer: option 'gpus' is unknown; expected cpus, intx" },
		{ "dma-writer,", "dma-writer: option '' is unknown; expected cpus, intx" },
	};

	(void)state;
	for (unsigned n = 0; n < ARRAY_SIZE(wrong); n++) {
		struct device_request request = { .spec = wrong[n].spec, .type = &dma_type };
		struct error err = { 0 };

		assert_null(device_request_check(&request, &err));
		assert_string_equal(err.text, wrong[n].says);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name, engine) { #name " " engine, name, NULL, NULL, engine }
		cmocka_unit_test(options_are_checked),
		T(one_cpu, "interp"),
		T(two_cpus, "interp"),
		T(four_cpus, "interp"),
#ifndef __SANITIZE_THREAD__ /* which leaves bt too little address space */
		T(one_cpu, "bt"),
		T(two_cpus, "bt"),
		T(four_cpus, "bt"),
#endif
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
