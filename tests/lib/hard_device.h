/*
 * A device with every hard kind of thing at once, which the product does not have, added without touching src/: on PCI, in any slot, with memory
 * that a BAR shows and that the guest moves, MSI-X and INTx, and a thread that writes into code that vCPUs run, into their page tables and into its own memory, goes on from
 * a record, and can be unplugged at any time. With cpus=0 it is its memory alone.
 */
#ifndef TESTS_HARD_DEVICE_H
#define TESTS_HARD_DEVICE_H

#include "machine/machine.h"

#include <pthread.h>
#include <stdlib.h>

/* Guest memory, which vCPUs read while the device writes it, as on hardware. */
#ifdef __SANITIZE_THREAD__
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "race:mem_write\nrace:host_load\nrace:host_store\nrace:hard_write_memory\n";
}
#endif

#define HARD_MEMORY  (4ull << 20)
#define HARD_VECTORS 4
/* Where it writes; the guest's physical addresses. */
#define HARD_PTE    0x201000 /* the frame whose number is the round's, modulo 4 */
#define HARD_FRAMES 0x300000
#define HARD_CODE   0x310000 /* MOV EAX, round; RET. The same is at the beginning of its memory */
#define HARD_ROUND  0x320000
#define HARD_DATA   0x1000 /* in its memory: the round */
#define HARD_NOISE  0x2000 /* and what nobody looks at */
/* Registers in BAR 1: the round (read), answers (vCPU << 24 | round), what it is called (read), and that to be written when it may begin. */
#define HARD_ANSWER 4
#define HARD_BEGIN  8

struct hard_device;

/* What the test knows of those that live, or lived. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned rounds; /* since the test set it to 0 */
	unsigned lives, deaths;
	bool over;
	struct hard_device *last;
} hard_seen = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

/* clang-format off */
#define HARD_OPTIONS(_, T)                                                                                             \
	_(T, NUMBER, cpus, 0, 8, "0", "how many answer each round; 0: it has no thread")                               \
	_(T, SWITCH, intx, 0, 0, "off", "pulls INTx, too")
/* clang-format on */

struct hard_options {
	DEVICE_OPTION_FIELDS(HARD_OPTIONS)
};

/* The thread is between two rounds, wherever it is stopped: all_answered, or it waits for that. */
#define HARD_STATE(_, T)                                                                                               \
	PCI_CONFIG_STATE(_, T)                                                                                         \
	MSIX_STATE(_, T)                                                                                               \
	_(T, uint32_t, called, 1, 1, 0, UINT32_MAX)                                                                    \
	_(T, uint32_t, round, 1, 2, 0, UINT32_MAX)                                                                     \
	_(T, uint32_t, answered, 1, 3, 0, 0xff)                                                                        \
	_(T, uint8_t, begun, 1, 4, 0, 1)                                                                               \
	_(T, uint8_t, all_answered, 1, 5, 0, 1)

struct hard_device {
	struct pci_device pci;
	struct msix msix;
	const struct hard_options *options;
	struct memory *memory;
	/* under the device's lock; the last two are changed with state_lock, too, under which the thread looks at them */
	uint32_t called, round, answered; /* bits, by vCPU */
	uint8_t begun, all_answered;
	/* the thread's */
	pthread_t thread;
	pthread_mutex_t state_lock;
	pthread_cond_t state_changed;
	bool started, paused, parked, ends;
};

static struct hard_device *hard_of(struct device *device) { return (struct hard_device *)device; }

/* ---- the guest's side ---- */

static uint64_t hard_read(struct device *device, uint64_t offset, unsigned size)
{
	const struct hard_device *d = hard_of(device);

	(void)size;
	return offset == HARD_BEGIN ? d->called : d->round;
}

static void hard_set(struct hard_device *d, uint8_t *flag)
{
	pthread_mutex_lock(&d->state_lock);
	*flag = 1;
	pthread_cond_broadcast(&d->state_changed);
	pthread_mutex_unlock(&d->state_lock);
}

static void hard_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct hard_device *d = hard_of(device);

	(void)size;
	if (offset == HARD_BEGIN && value == d->called)
		hard_set(d, &d->begun);
	if (offset != HARD_ANSWER || (value & 0xffffff) != d->round)
		return;
	d->answered |= 1u << (value >> 24);
	if (d->answered != (1u << d->options->cpus) - 1)
		return;
	irq_set(&d->pci.intx, false);
	hard_set(d, &d->all_answered);
}

/* ---- the thread ---- */

/* Its memory, wherever that is shown now. */
static __attribute__((noinline)) void hard_write_memory(struct hard_device *d, uint64_t offset, const void *data,
							size_t size)
{
	memcpy(d->memory->file.base + offset, data, size);
	mem_dma_written(d->pci.device.bus->mem, d->memory->file.base + offset, size);
}

static void hard_begin_round(struct hard_device *d, uint32_t n)
{
	uint32_t pte = (HARD_FRAMES + (n & 3) * PAGE_SIZE) | 3;
	struct guest_mem *mem = d->pci.device.bus->mem;

	mem_write(mem, gpa(HARD_CODE + 1), &n, sizeof(n));
	mem_write(mem, gpa(HARD_PTE), &pte, sizeof(pte));
	hard_write_memory(d, 1, &n, sizeof(n));
	hard_write_memory(d, HARD_DATA, &n, sizeof(n));
	lock_take(d->pci.device.lock);
	d->round = n;
	d->answered = 0;
	pthread_mutex_lock(&d->state_lock);
	d->all_answered = 0;
	pthread_mutex_unlock(&d->state_lock);
	/* A device may write with its lock held: who waits for it counts as stopped. */
	mem_write(mem, gpa(HARD_ROUND), &n, sizeof(n));
	irq_set(&d->pci.intx, d->options->intx);
	lock_drop(d->pci.device.lock);
	msix_notify(&d->msix, n % HARD_VECTORS);
	/* While the guest answers and moves it. */
	for (uint32_t i = 0; i < 8; i++)
		hard_write_memory(d, HARD_NOISE + 4ull * i, &i, sizeof(i));
}

/* Until the last round has been answered, and nobody pauses it; false: it ends. */
static bool hard_wait(struct hard_device *d)
{
	bool goes_on;

	pthread_mutex_lock(&d->state_lock);
	while (!d->ends && (d->paused || !d->begun || !d->all_answered)) {
		d->parked = d->paused;
		pthread_cond_broadcast(&d->state_changed);
		pthread_cond_wait(&d->state_changed, &d->state_lock);
	}
	d->parked = false;
	goes_on = !d->ends;
	pthread_mutex_unlock(&d->state_lock);
	return goes_on;
}

static void *hard_work(void *device)
{
	struct hard_device *d = device;

	while (hard_wait(d)) {
		uint32_t last = 0;

		mem_read(d->pci.device.bus->mem, gpa(HARD_ROUND), &last, sizeof(last));
		pthread_mutex_lock(&hard_seen.lock);
		hard_seen.rounds++;
		pthread_cond_broadcast(&hard_seen.changed);
		pthread_mutex_unlock(&hard_seen.lock);
		hard_begin_round(d, last + 1);
	}
	return NULL;
}

static void hard_set_paused(struct device *device, bool paused)
{
	struct hard_device *d = hard_of(device);

	pthread_mutex_lock(&d->state_lock);
	d->paused = paused;
	pthread_cond_broadcast(&d->state_changed);
	while (d->started && paused && !d->parked)
		pthread_cond_wait(&d->state_changed, &d->state_lock);
	pthread_mutex_unlock(&d->state_lock);
}

static void hard_pause(struct device *device) { hard_set_paused(device, true); }

static void hard_resume(struct device *device) { hard_set_paused(device, false); }

/* ---- life ---- */

static void hard_reset(struct device *device)
{
	struct hard_device *d = hard_of(device);

	pci_reset(&d->pci);
	d->called = hard_seen.lives;
	d->all_answered = 1; /* of none */
}

static void hard_attach(struct device *device) { pci_attach(&hard_of(device)->pci); }

static int hard_loaded(void *object, uint16_t version, struct error *err)
{
	(void)version;
	return pci_loaded(object, err);
}

static void hard_destroy(struct device *device)
{
	struct hard_device *d = hard_of(device);

	pthread_mutex_lock(&d->state_lock);
	d->ends = true;
	pthread_cond_broadcast(&d->state_changed);
	pthread_mutex_unlock(&d->state_lock);
	if (d->started)
		pthread_join(d->thread, NULL);
	pci_remove(&d->pci);
	mem_commit(device->bus->mem);
	memory_destroy(device->bus->mem, d->memory);
	pthread_mutex_destroy(&d->state_lock);
	pthread_cond_destroy(&d->state_changed);
	free(d);
	hard_seen.deaths++;
}

STATE_DESC(hard_state_desc, "hard", 1, struct hard_device, HARD_STATE, .loaded = hard_loaded);

static const struct device_ops hard_ops = {
	.state = &hard_state_desc,
	.reset = hard_reset,
	.attach = hard_attach,
	.pause = hard_pause,
	.resume = hard_resume,
	.destroy = hard_destroy,
};

static int hard_create(struct bus *bus, const void *options, struct error *err)
{
	static const uint8_t code[] = { 0xb8, 0xff, 0xff, 0xff, 0xff, 0xc3 };
	static const uint32_t nothing = UINT32_MAX;
	struct hard_device *d = calloc(1, sizeof(*d));
	int rc;

	BUG_ON(!d);
	d->options = options;
	d->paused = true;
	pthread_mutex_init(&d->state_lock, NULL);
	pthread_cond_init(&d->state_changed, NULL);
	device_init(&d->pci.device, bus, "hard", &hard_ops);
	hard_seen.lives++;
	hard_seen.last = d;
	d->memory = memory_create(bus->mem, MEMORY_KIND_VIDEO, "hard", HARD_MEMORY, err);
	if (!d->memory)
		return -err->code;
	memcpy(d->memory->file.base, code, sizeof(code));
	memcpy(d->memory->file.base + HARD_DATA, &nothing, sizeof(nothing));
	pci_init_config(&d->pci, 0x1234, 0x5678, 0xff0000, 0, 0, 1);
	d->pci.bars[0].size = HARD_MEMORY;
	d->pci.bars[0].memory = d->memory;
	d->pci.bars[1].size = 0x1000;
	d->pci.bars[1].range = (struct bus_range){ .sizes = 4, .read = hard_read, .write = hard_write };
	d->pci.bars[2].size = 0x1000;
	d->pci.bars[2].range = (struct bus_range){ .sizes = 4 | 8, .read = msix_read, .write = msix_write };
	msix_init(&d->msix, &d->pci, HARD_VECTORS, 2, 0);
	rc = pci_add(bus, &d->pci, PCI_ANY_SLOT, 0, err);
	if (!rc && d->options->cpus) {
		rc = host_thread_create(&d->thread, "hard", hard_work, d, err);
		d->started = !rc;
	}
	return rc;
}

static const struct device_type hard_type = {
	.name = "hard",
	.help = "everything that is hard about devices",
	.most = 4,
	DEVICE_OPTIONS(HARD_OPTIONS, struct hard_options),
	.create = hard_create,
};

#endif
