/*
 * NVMe: registers (3), queues (4), the function, and the disk.
 */
#include "devices/nvme/nvme.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define BAR_REGISTERS  0u
#define REGISTERS_SIZE 0x4000u
#define DOORBELLS      0x1000u
#define VECTORS	       0x2000u /* MSI-X */
#define ENTRY_SIZE     64u
#define COMPLETION     16u
#define HERE_MOST      (1u << 20) /* bytes that are moved at once where the guest asks */
#define DISKS_MOST     16

enum {
	REG_CAP = 0x00,
	REG_VS = 0x08,
	REG_INTMS = 0x0c,
	REG_INTMC = 0x10,
	REG_CC = 0x14,
	REG_CSTS = 0x1c,
	REG_AQA = 0x24,
	REG_ASQ = 0x28,
	REG_ACQ = 0x30,
};
/* Queues of so many entries, contiguous; ready within 10 s; NVM commands; pages of 4 KiB */
#define CAP	     ((NVME_ENTRIES_MOST - 1) | BIT(16) | 20ull << 24 | BIT(37))
#define VERSION	     0x00010400u
#define CC_ENABLE    BIT(0)
#define CC_CHOICES   0x00003ff0u /* command set, page size, arbitration: 0 is what there is */
#define CC_SHUTDOWN  0x0000c000u
#define CC_WRITABLE  0x00fffff1u
#define CSTS_READY   BIT(0)
#define CSTS_FATAL   BIT(1)
#define CSTS_SHST(n) ((uint32_t)(n) << 2)
#define AQA_WRITABLE 0x0fff0fffu
enum { SHUTDOWN_NONE, SHUTDOWN_GOES_ON, SHUTDOWN_DONE };
/* What an error event says: 5.2 */
enum { EVENT_BAD_DOORBELL = 0, EVENT_BAD_VALUE = 1, LOG_ERRORS = 1 };

static struct guest_mem *mem_of(const struct nvme *nvme) { return nvme->pci.device.bus->mem; }

/* ---- interrupts ---- */

static bool has_completions(const struct nvme *nvme, unsigned cq)
{
	return nvme->cq_size[cq] && nvme->cq_interrupts[cq] && nvme->cq_head[cq] != nvme->cq_tail[cq];
}

/* Without MSI-X: the pin, as long as anything is there to be read. */
static void update_pin(struct nvme *nvme)
{
	bool asserts = false;

	for (unsigned n = 0; n < NVME_QUEUES; n++)
		asserts |= has_completions(nvme, n) && !(nvme->interrupt_mask & BIT(nvme->cq_vector[n]));
	irq_set(&nvme->pci.intx, asserts);
}

/* ---- completions ---- */

/* Entries that can be posted, without those that commands need that are being done. */
static unsigned room_of(const struct nvme *nvme, unsigned cq)
{
	unsigned size = nvme->cq_size[cq];

	return (nvme->cq_head[cq] + size - 1 - nvme->cq_tail[cq]) % size - nvme->cq_used[cq];
}

/* There is room. */
static void post(struct nvme *nvme, unsigned sq, uint16_t id, unsigned status, uint32_t result)
{
	unsigned cq = nvme->sq_cq[sq];
	uint64_t at = nvme->cq_address[cq] + (uint64_t)nvme->cq_tail[cq] * COMPLETION;
	uint8_t entry[COMPLETION] = { 0 };

	store_le32(entry, result);
	store_le16(entry + 8, nvme->sq_head[sq]);
	store_le16(entry + 10, (uint16_t)sq);
	store_le16(entry + 12, id);
	store_le16(entry + 14, (uint16_t)(status << 1 | nvme->cq_phase[cq]));
	if (mem_write(mem_of(nvme), gpa(at), entry, sizeof(entry))) {
		nvme->fatal = true;
		return;
	}
	nvme->cq_tail[cq] = (uint16_t)((nvme->cq_tail[cq] + 1) % nvme->cq_size[cq]);
	if (!nvme->cq_tail[cq])
		nvme->cq_phase[cq] = !nvme->cq_phase[cq];
	if (nvme->cq_interrupts[cq])
		msix_notify(&nvme->msix, nvme->cq_vector[cq]);
	update_pin(nvme);
}

static void give_back(struct nvme_command *c)
{
	struct nvme *nvme = c->nvme;

	c->used = false;
	nvme->used--;
	if (c->dropped)
		return;
	nvme->sq_used[c->queue]--;
	nvme->cq_used[nvme->sq_cq[c->queue]]--;
}

void nvme_end(struct nvme_command *c, unsigned status)
{
	struct nvme *nvme = c->nvme;

	give_back(c);
	if (c->dropped || nvme->fatal)
		return;
	if (status)
		nvme_log_error(nvme, c, status);
	post(nvme, c->queue, nvme_id(c), status, c->result);
}

/* ---- events ---- */

void nvme_event(struct nvme *nvme, unsigned type, uint8_t information, uint8_t page)
{
	if (nvme->event_told[type] || nvme->events[type])
		return;
	nvme->events[type] = (uint32_t)page << 16 | (uint32_t)information << 8 | type;
	nvme_tell_events(nvme);
}

void nvme_tell_events(struct nvme *nvme)
{
	for (unsigned n = 0; n < NVME_EVENT_TYPES; n++) {
		if (!nvme->events[n] || nvme->event_told[n] || !nvme->event_count || nvme->fatal || !room_of(nvme, 0))
			continue;
		post(nvme, 0, nvme->event_ids[--nvme->event_count], NVME_OK, nvme->events[n]);
		nvme->events[n] = 0;
		nvme->event_told[n] = true;
	}
}

/* ---- the work ---- */

static bool done_here(struct nvme_command *c)
{
	struct block_request *r = &c->block;
	uint64_t size = r->op == BLOCK_READ || r->op == BLOCK_WRITE ? r->size : 0;

	if (size > c->nvme->here_left || block_try(c->nvme->block, r))
		return false;
	c->nvme->here_left -= size;
	return true;
}

/* Until it has ended, or a worker has the next turn. */
static void work(struct nvme_command *c)
{
	while (c->used) {
		if (c->nvme->in_line) {
			block_do(c->nvme->block, &c->block);
		} else if (!done_here(c)) {
			block_submit(c->nvme->block, &c->block);
			return;
		}
		nvme_io_done(c);
	}
}

static struct nvme_command *take_command(struct nvme *nvme, unsigned sq)
{
	struct nvme_command *c = nvme->commands;

	while (c->used)
		c++;
	c->used = true;
	c->dropped = false;
	c->queue = (uint8_t)sq;
	c->result = 0;
	nvme->used++;
	nvme->sq_used[sq]++;
	nvme->cq_used[nvme->sq_cq[sq]]++;
	return c;
}

/* The next entry of a queue. False: not now. */
static bool fetch(struct nvme *nvme, unsigned sq)
{
	uint64_t at = nvme->sq_address[sq] + (uint64_t)nvme->sq_head[sq] * ENTRY_SIZE;
	uint16_t head = nvme->sq_head[sq];
	struct nvme_command *c;
	unsigned status;

	if (nvme->sq_head[sq] == nvme->sq_tail[sq] || nvme->used == NVME_COMMANDS || !room_of(nvme, nvme->sq_cq[sq]))
		return false;
	c = take_command(nvme, sq);
	if (mem_read(mem_of(nvme), gpa(at), c->entry, sizeof(c->entry))) {
		nvme->fatal = true;
		give_back(c);
		return false;
	}
	nvme->sq_head[sq] = (uint16_t)((head + 1) % nvme->sq_size[sq]);
	/* Neither fused ones nor scatter gather lists. */
	if (c->entry[1] & 0xc3)
		status = NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
	else
		status = sq ? nvme_io(c) : nvme_admin(c);
	if (status == NVME_AGAIN) {
		nvme->sq_head[sq] = head;
		give_back(c);
		return false;
	}
	if (status != NVME_LATER)
		nvme_end(c, status);
	else if (sq)
		work(c);
	else
		give_back(c);
	return true;
}

/* Commands that have been sent, as far as they can begin: one of each queue in turn. */
static void run(struct nvme *nvme)
{
	bool any = true;

	while (any) {
		any = false;
		for (unsigned n = 0; n < NVME_QUEUES; n++) {
			if (!nvme->ready || nvme->fatal || nvme->paused || !atomic_load(&nvme->master))
				return;
			if (nvme->sq_size[n])
				any |= fetch(nvme, n);
		}
	}
	nvme_tell_events(nvme);
}

static void run_here(struct nvme *nvme)
{
	nvme->here_left = HERE_MOST;
	run(nvme);
}

/* In a worker's thread. */
static void command_done(struct block_request *r)
{
	struct nvme_command *c = container_of(r, struct nvme_command, block);
	struct nvme *nvme = c->nvme;

	lock_take(nvme->pci.device.lock);
	nvme->here_left = 0;
	nvme_io_done(c);
	work(c);
	run(nvme);
	lock_drop(nvme->pci.device.lock);
}

/* ---- enabled, disabled, shut down ---- */

static void drop_queues(struct nvme *nvme)
{
	for (unsigned n = 0; n < NVME_COMMANDS; n++)
		nvme->commands[n].dropped = true;
	memset(nvme->sq_used, 0, sizeof(nvme->sq_used));
	memset(nvme->cq_used, 0, sizeof(nvme->cq_used));
	memset(nvme->sq_size, 0, sizeof(nvme->sq_size));
	memset(nvme->cq_size, 0, sizeof(nvme->cq_size));
	nvme->event_count = 0;
	memset(nvme->events, 0, sizeof(nvme->events));
	memset(nvme->event_told, 0, sizeof(nvme->event_told));
}

/* A controller reset, 7.3.2: registers of the admin queues stay. */
static void disable(struct nvme *nvme)
{
	drop_queues(nvme);
	nvme->ready = nvme->fatal = false;
	nvme->shutdown = SHUTDOWN_NONE;
	nvme->interrupt_mask = 0;
	nvme_reset_features(nvme);
}

static void enable(struct nvme *nvme)
{
	unsigned submission = (nvme->admin_sizes & 0xfff) + 1, completion = (nvme->admin_sizes >> 16) + 1;

	if (nvme->configuration & CC_CHOICES || submission < 2 || completion < 2) {
		nvme->fatal = true;
		return;
	}
	nvme->sq_address[0] = nvme->admin_submission;
	nvme->sq_size[0] = (uint16_t)submission;
	nvme->sq_head[0] = nvme->sq_tail[0] = nvme->sq_cq[0] = 0;
	nvme->cq_address[0] = nvme->admin_completion;
	nvme->cq_size[0] = (uint16_t)completion;
	nvme->cq_head[0] = nvme->cq_tail[0] = nvme->cq_vector[0] = 0;
	nvme->cq_phase[0] = nvme->cq_interrupts[0] = true;
	nvme->ready = true;
}

static void flush_done(struct block_request *r)
{
	struct nvme *nvme = container_of(r, struct nvme, flush);

	lock_take(nvme->pci.device.lock);
	nvme->flushes = false;
	if (nvme->shutdown == SHUTDOWN_GOES_ON)
		nvme->shutdown = SHUTDOWN_DONE;
	lock_drop(nvme->pci.device.lock);
}

/* What is cached is written down. */
static void shut_down(struct nvme *nvme)
{
	if (nvme->shutdown || nvme->flushes)
		return;
	nvme->flush = (struct block_request){ .op = BLOCK_FLUSH, .done = flush_done };
	nvme->shutdown = SHUTDOWN_GOES_ON;
	if (nvme->in_line) {
		block_do(nvme->block, &nvme->flush);
		nvme->shutdown = SHUTDOWN_DONE;
	} else {
		nvme->flushes = true;
		block_submit(nvme->block, &nvme->flush);
	}
}

static void write_configuration(struct nvme *nvme, uint32_t value)
{
	uint32_t before = nvme->configuration;

	nvme->configuration = value & CC_WRITABLE;
	if (before & ~value & CC_ENABLE)
		disable(nvme);
	else if (value & ~before & CC_ENABLE)
		enable(nvme);
	if (value & CC_SHUTDOWN)
		shut_down(nvme);
	else
		nvme->shutdown = SHUTDOWN_NONE;
	update_pin(nvme);
}

/* Not disabled before what workers have of it has come to its end. */
static uint32_t status_of(const struct nvme *nvme)
{
	return (uint32_t)((nvme->ready || nvme->used ? CSTS_READY : 0) | (nvme->fatal ? CSTS_FATAL : 0) |
			  CSTS_SHST(nvme->shutdown));
}

/* ---- registers ---- */

static uint32_t read_register(const struct nvme *nvme, unsigned n)
{
	switch (n) {
	case REG_CAP: return (uint32_t)CAP;
	case REG_CAP + 4: return (uint32_t)(CAP >> 32);
	case REG_VS: return VERSION;
	case REG_INTMS:
	case REG_INTMC: return nvme->interrupt_mask;
	case REG_CC: return nvme->configuration;
	case REG_CSTS: return status_of(nvme);
	case REG_AQA: return nvme->admin_sizes;
	case REG_ASQ: return (uint32_t)nvme->admin_submission;
	case REG_ASQ + 4: return (uint32_t)(nvme->admin_submission >> 32);
	case REG_ACQ: return (uint32_t)nvme->admin_completion;
	case REG_ACQ + 4: return (uint32_t)(nvme->admin_completion >> 32);
	default: return 0;
	}
}

static void set_low(uint64_t *address, uint32_t value)
{
	*address = (*address & ~(uint64_t)UINT32_MAX) | (value & ~(NVME_PAGE - 1));
}

static void set_high(uint64_t *address, uint32_t value) { *address = (uint32_t)*address | (uint64_t)value << 32; }

/* Completions that were not there cannot be read. */
static bool is_ahead(const struct nvme *nvme, unsigned cq, uint32_t head)
{
	unsigned size = nvme->cq_size[cq], before = nvme->cq_head[cq];

	return (head + size - before) % size > (nvme->cq_tail[cq] + size - before) % size;
}

static void ring(struct nvme *nvme, unsigned n, uint32_t value)
{
	unsigned queue = n / 2;
	bool completions = n & 1;

	if (!nvme->ready || nvme->fatal)
		return;
	if (queue >= NVME_QUEUES || !(completions ? nvme->cq_size : nvme->sq_size)[queue]) {
		nvme_event(nvme, NVME_EVENT_ERROR, EVENT_BAD_DOORBELL, LOG_ERRORS);
	} else if (value >= (completions ? nvme->cq_size : nvme->sq_size)[queue] ||
		   (completions && is_ahead(nvme, queue, value))) {
		nvme_event(nvme, NVME_EVENT_ERROR, EVENT_BAD_VALUE, LOG_ERRORS);
	} else if (completions) {
		nvme->cq_head[queue] = (uint16_t)value;
		update_pin(nvme);
		run_here(nvme);
	} else {
		nvme->sq_tail[queue] = (uint16_t)value;
		run_here(nvme);
	}
}

static void write_register(struct nvme *nvme, unsigned n, uint32_t value)
{
	switch (n) {
	case REG_INTMS: nvme->interrupt_mask |= value; break;
	case REG_INTMC: nvme->interrupt_mask &= ~value; break;
	case REG_CC: write_configuration(nvme, value); return;
	case REG_AQA: nvme->admin_sizes = value & AQA_WRITABLE; return;
	case REG_ASQ: set_low(&nvme->admin_submission, value); return;
	case REG_ASQ + 4: set_high(&nvme->admin_submission, value); return;
	case REG_ACQ: set_low(&nvme->admin_completion, value); return;
	case REG_ACQ + 4: set_high(&nvme->admin_completion, value); return;
	default: return;
	}
	update_pin(nvme);
}

static uint64_t registers_read(struct device *device, uint64_t offset, unsigned size)
{
	struct nvme *nvme = (struct nvme *)device;
	uint64_t value;

	if (offset >= VECTORS)
		return msix_read(device, offset - VECTORS, size);
	value = read_register(nvme, (unsigned)offset);
	return size == 8 ? value | (uint64_t)read_register(nvme, (unsigned)offset + 4) << 32 : value;
}

static void registers_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct nvme *nvme = (struct nvme *)device;

	if (offset >= VECTORS) {
		msix_write(device, offset - VECTORS, size, value);
	} else if (offset >= DOORBELLS) {
		if (!(offset & 3))
			ring(nvme, (unsigned)(offset - DOORBELLS) / 4, (uint32_t)value & 0xffff);
	} else {
		write_register(nvme, (unsigned)offset, (uint32_t)value);
		if (size == 8)
			write_register(nvme, (unsigned)offset + 4, (uint32_t)(value >> 32));
	}
}

/* ---- the machine's ---- */

static void config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
	(void)offset, (void)size;
	atomic_store(&((struct nvme *)pci)->master, pci->config[0x04] & 4);
}

static void reset(struct device *device)
{
	struct nvme *nvme = (struct nvme *)device;

	drop_queues(nvme);
	nvme_reset_features(nvme);
	pci_reset(&nvme->pci);
	config_written(&nvme->pci, 0, 0);
}

static void pause(struct device *device)
{
	struct nvme *nvme = (struct nvme *)device;

	lock_take(device->lock);
	nvme->paused = true;
	lock_drop(device->lock);
	block_drain(nvme->block);
}

static void resume(struct device *device)
{
	struct nvme *nvme = (struct nvme *)device;

	lock_take(device->lock);
	nvme->paused = false;
	nvme->here_left = 0;
	run(nvme);
	lock_drop(device->lock);
}

static void saving(const void *object)
{
	((struct nvme *)object)->saved_sectors = ((const struct nvme *)object)->sectors;
}

static bool is_sane_queue(uint64_t address, unsigned size, unsigned head, unsigned tail)
{
	return size ? size >= 2 && head < size && tail < size && !(address & (NVME_PAGE - 1)) : !head && !tail;
}

static int check_queues(const struct nvme *nvme, struct error *err)
{
	for (unsigned n = 0; n < NVME_QUEUES; n++) {
		if (!is_sane_queue(nvme->sq_address[n], nvme->sq_size[n], nvme->sq_head[n], nvme->sq_tail[n]) ||
		    (nvme->sq_size[n] && !nvme->cq_size[nvme->sq_cq[n]]))
			return error_set(err, EINVAL, "%s: submission queue %u is at %u to %u of %u",
					 nvme->pci.device.name, n, nvme->sq_head[n], nvme->sq_tail[n],
					 nvme->sq_size[n]);
		if (!is_sane_queue(nvme->cq_address[n], nvme->cq_size[n], nvme->cq_head[n], nvme->cq_tail[n]))
			return error_set(err, EINVAL, "%s: completion queue %u is at %u to %u of %u",
					 nvme->pci.device.name, n, nvme->cq_head[n], nvme->cq_tail[n],
					 nvme->cq_size[n]);
	}
	if (nvme->ready != (nvme->sq_size[0] && nvme->cq_size[0]))
		return error_set(err, EINVAL, "%s: ready is %u, with queues of %u and %u entries",
				 nvme->pci.device.name, nvme->ready, nvme->sq_size[0], nvme->cq_size[0]);
	return 0;
}

static int loaded(void *object, uint16_t version, struct error *err)
{
	const struct nvme *nvme = object;
	int rc;

	(void)version;
	if (nvme->saved_sectors != nvme->sectors)
		return error_set(err, EINVAL, "%s: the disk had %" PRIu64 " sectors; '%s' has %" PRIu64,
				 nvme->pci.device.name, nvme->saved_sectors, nvme->info->file, nvme->sectors);
	rc = check_queues(nvme, err);
	return rc ? rc : pci_loaded(object, err);
}

static void attach(struct device *device)
{
	struct nvme *nvme = (struct nvme *)device;

	pci_attach(&nvme->pci);
	config_written(&nvme->pci, 0, 0);
	/* A flush that was on its way when it was saved has been done. */
	if (nvme->shutdown == SHUTDOWN_GOES_ON)
		nvme->shutdown = SHUTDOWN_DONE;
}

static bool boots(const struct device *device, struct device_boot *boot)
{
	const struct nvme *nvme = (const struct nvme *)device;

	*boot = (struct device_boot){ .kind = DEVICE_BOOT_DISK, .order = nvme->boot };
	/* Firmware knows the path of the first one that was emulated. */
	pci_boot_path(&nvme->pci, "pci8086,5845", "/namespace@1,0", boot);
	return true;
}

static void destroy(struct device *device)
{
	struct nvme *nvme = (struct nvme *)device;

	block_close(nvme->block);
	pci_remove(&nvme->pci);
	free(nvme);
}

#define NVME_ALL_STATE(_, T)                                                                                           \
	PCI_CONFIG_STATE(_, T)                                                                                         \
	MSIX_STATE(_, T)                                                                                               \
	NVME_STATE(_, T)
STATE_DESC(nvme_state_desc, "nvme", 1, struct nvme, NVME_ALL_STATE, .loaded = loaded, .saving = saving);

static const struct device_ops nvme_ops = { .state = &nvme_state_desc,
					    .reset = reset,
					    .attach = attach,
					    .pause = pause,
					    .resume = resume,
					    .boots = boots,
					    .destroy = destroy };

/* ---- life ---- */

static void init_function(struct nvme *nvme)
{
	struct pci_device *pci = &nvme->pci;

	pci_init_config(pci, 0x1b36, 0x0010, 0x01080202, 0x1af4, 0x1100, 1);
	pci->bars[BAR_REGISTERS].size = REGISTERS_SIZE;
	pci->bars[BAR_REGISTERS].wide = true;
	pci->bars[BAR_REGISTERS].range =
		(struct bus_range){ .sizes = 4 | 8, .read = registers_read, .write = registers_write };
	msix_init(&nvme->msix, pci, NVME_QUEUES, BAR_REGISTERS, VECTORS);
	pci->config_written = config_written;
	for (unsigned n = 0; n < NVME_COMMANDS; n++) {
		nvme->commands[n].nvme = nvme;
		nvme->commands[n].block.done = command_done;
	}
}

int nvme_disk_create(struct bus *bus, const struct disk_options *o, struct error *err)
{
	struct block *block = disk_open(bus, "nvme", o, err);
	struct nvme *nvme = block ? calloc(1, sizeof(*nvme)) : NULL;

	if (!block)
		return err ? -err->code : -EINVAL;
	if (!nvme) {
		block_close(block);
		return error_set_errno(err, ENOMEM, "nvme");
	}
	device_init(&nvme->pci.device, bus, "nvme", &nvme_ops);
	state_reset(&nvme_state_desc, nvme);
	nvme->in_line = clock_kind(bus->clock) == CLOCK_VIRTUAL;
	nvme->block = block;
	nvme->info = block_info(block);
	nvme->sectors = nvme->info->size / NVME_SECTOR;
	nvme->boot = o->boot;
	if (o->serial)
		snprintf(nvme->serial, sizeof(nvme->serial), "%s", o->serial);
	else
		snprintf(nvme->serial, sizeof(nvme->serial), "DOPPEL%05u", nvme->pci.device.instance);
	nvme_reset_features(nvme);
	init_function(nvme);
	if (!nvme->sectors)
		return error_set(err, EINVAL, "nvme: '%s' has no sectors", nvme->info->file);
	return pci_add(bus, &nvme->pci, PCI_ANY_SLOT, 0, err);
}

struct nvme_options {
	DEVICE_OPTION_FIELDS(DISK_OPTIONS)
};

static int type_create(struct bus *bus, const void *options, struct error *err)
{
	const struct nvme_options *o = options;

	return nvme_disk_create(bus, &DISK_OPTIONS_OF(o), err);
}

const struct device_type nvme_type = {
	.name = "nvme",
	.help = "a disk that is an NVMe controller with a namespace",
	.most = DISKS_MOST,
	.starts = true,
	DEVICE_OPTIONS(DISK_OPTIONS, struct nvme_options),
	.create = type_create,
};
