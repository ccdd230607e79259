/*
 * A disk's image, opened as its options say; requests that wait for the host.
 */
#include "devices/disk.h"

#include <errno.h>

static const char *const cache_names[] = {
	[BLOCK_WRITEBACK] = "writeback", [BLOCK_NONE] = "none", [BLOCK_UNSAFE] = "unsafe", NULL
};
static const char *const backing_names[] = {
	[BLOCK_BACKING_NEAR] = "near", [BLOCK_BACKING_ANY] = "any", [BLOCK_BACKING_NONE] = "none", NULL
};

static const char *const on_error_names[] = {
	[DISK_REPORT] = "report", [DISK_STOP] = "stop", [DISK_ENOSPC] = "enospc", NULL
};

/* ---- the image ---- */

/* Which of three names an option's value is; or -EINVAL. */
static int which(const char *device, const char *option, const char *value, const char *const names[],
		 struct error *err)
{
	for (int n = 0; names[n]; n++)
		if (!strcmp(value, names[n]))
			return n;
	return error_set(err, EINVAL, "%s: option '%s' is '%.64s'; expected %s, %s or %s", device, option, value,
			 names[0], names[1], names[2]);
}

static int check_options(const char *device, const struct disk_options *o, struct error *err)
{
	if (!o->file || !*o->file)
		return error_set(err, EINVAL, "%s: option 'file' is not given; expected an image, or a block device",
				 device);
	if (o->serial && strlen(o->serial) > DISK_SERIAL_SIZE)
		return error_set(err, EINVAL, "%s: option 'serial' is '%.64s'; expected at most %u characters", device,
				 o->serial, DISK_SERIAL_SIZE);
	return 0;
}

static bool take_memory(void *mem, uint64_t size)
{
	return overhead_take_spare(&((struct guest_mem *)mem)->overhead, OVERHEAD_DISKS, size);
}

static void give_memory(void *mem, uint64_t size)
{
	overhead_give(&((struct guest_mem *)mem)->overhead, OVERHEAD_DISKS, size);
}

struct block *disk_open(struct bus *bus, const char *device, const struct disk_options *o, struct error *err)
{
	struct block_memory memory = { .take = take_memory, .give = give_memory, .opaque = bus->mem };
	struct block_options options = {
		.file = o->file,
		.format = o->format,
		.readonly = o->readonly,
		.snapshot = o->snapshot,
		.discard = o->discard,
		.memory = bus->mem ? &memory : NULL,
	};
	int cache = which(device, "cache", o->cache, cache_names, err);
	int backing = which(device, "backing", o->backing, backing_names, err);
	int rc = check_options(device, o, err);

	if (cache < 0 || backing < 0 || rc)
		return NULL;
	options.cache = (enum block_cache)cache;
	options.backing = (enum block_backing)backing;
	return block_open(&options, err);
}

/* ---- errors of the host that the machine waits for ---- */

int disk_on_error(const char *device, const struct disk_options *o, struct error *err)
{
	return o->on_error ? which(device, "on-error", o->on_error, on_error_names, err) : DISK_REPORT;
}

static bool is_full(int result) { return result == -ENOSPC || result == -EDQUOT || result == -EFBIG; }

/* What the guest itself is to blame for, or cannot be had, is no error of the host's; data that a failed sync has lost does not come back. */
bool disk_waits(enum disk_on_error on_error, const struct block *block, const struct block_request *r)
{
	if (on_error == DISK_REPORT)
		return false;
	if (is_full(r->result))
		return true;
	return on_error == DISK_STOP && r->op != BLOCK_FLUSH && r->result && r->result != -EINVAL &&
	       r->result != -EPERM && r->result != -ENOTSUP && !block_has_lost(block);
}

void disk_hold_init(struct disk_hold *h, struct bus *bus, void (*retry)(struct bus_hold *))
{
	*h = (struct disk_hold){ .hold.retry = retry, .bus = bus };
	pthread_mutex_init(&h->lock, NULL);
}

void disk_hold_fini(struct disk_hold *h)
{
	disk_hold_set(h, 0);
	pthread_mutex_destroy(&h->lock);
}

/* Lock held. */
static void set_count(struct disk_hold *h, unsigned count)
{
	if (!h->count != !count && h->bus->hold)
		h->bus->hold(h->bus->request_opaque, &h->hold, count);
	h->count = count;
}

void disk_hold_set(struct disk_hold *h, unsigned count)
{
	pthread_mutex_lock(&h->lock);
	if (!h->count)
		h->hold.why.error = 0;
	set_count(h, count);
	pthread_mutex_unlock(&h->lock);
}

void disk_hold_add(struct disk_hold *h, const struct device *device, const struct block *block,
		   const struct block_request *r)
{
	const char *what = r->op == BLOCK_READ ? "a read" : r->op == BLOCK_FLUSH ? "a flush" : "a write";
	bool first;

	pthread_mutex_lock(&h->lock);
	first = !h->count;
	if (first)
		h->hold.why = (struct bus_failure){ .device = device->name,
						    .instance = device->instance,
						    .writes = r->op != BLOCK_READ,
						    .error = r->result };
	set_count(h, h->count + 1);
	pthread_mutex_unlock(&h->lock);
	if (first)
		log_warning("disk '%s': %s failed: %s; the machine waits, and tries again each second",
			    block_info(block)->file, what, strerror(-r->result));
}

static bool end(struct disk_hold *h, unsigned count)
{
	bool last;

	pthread_mutex_lock(&h->lock);
	last = count && h->count == count;
	set_count(h, h->count - count);
	pthread_mutex_unlock(&h->lock);
	return last;
}

void disk_hold_done(struct disk_hold *h, const struct block *block)
{
	if (end(h, 1) && block)
		log_warning("disk '%s': the host can do it again; the machine goes on", block_info(block)->file);
}

void disk_hold_forget(struct disk_hold *h, unsigned count) { end(h, count); }
