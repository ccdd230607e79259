/*
 * What a virtio device is to its driver, whatever the transport and the device: features, status, reset, configuration space; and to the machine: a device that
 * is saved, loaded, paused.
 */
#include "devices/virtio/virtio.h"

#include <errno.h>
#include <inttypes.h>

#define QUEUE_FEATURES (BIT(VIRTIO_F_INDIRECT_DESC) | BIT(VIRTIO_F_EVENT_IDX))
#define MODERN_ONLY    (~(uint64_t)UINT32_MAX)
#define LEGACY_ONLY    BIT(VIRTIO_F_ANY_LAYOUT)
#define DRIVERS_BITS   (VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_DRIVER_OK | VIRTIO_FEATURES_OK | VIRTIO_FAILED)
#define LEGACY_ALIGN   4096u /* of the used ring */

static struct virtio_device *of(struct device *device) { return (struct virtio_device *)device; }

/* ---- features and status ---- */

uint64_t virtio_offered(const struct virtio_device *v, bool legacy)
{
	return v->offered & ~(legacy ? MODERN_ONLY : LEGACY_ONLY);
}

void virtio_choose(struct virtio_device *v, uint64_t features)
{
	bool fixed = v->status & (VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK);

	/* Legacy drivers know no FEATURES_OK; but a queue that is served has features. */
	for (unsigned n = 0; n < v->queue_count; n++)
		fixed |= v->queues[n].enabled;
	if (!fixed)
		v->features = features & v->offered;
}

uint32_t virtio_feature_half(uint64_t features, uint32_t half)
{
	return half < 2 ? (uint32_t)(features >> 32 * half) : 0;
}

void virtio_choose_half(struct virtio_device *v, uint32_t half, uint32_t features)
{
	if (half == 0)
		virtio_choose(v, (v->features & ~(uint64_t)UINT32_MAX) | features);
	else if (half == 1)
		virtio_choose(v, (uint32_t)v->features | (uint64_t)features << 32);
}

static void reset_queues(struct virtio_device *v)
{
	for (unsigned n = 0; n < v->queue_count; n++)
		virtio_queue_reset(&v->queues[n]);
}

static void reset_by_driver(struct virtio_device *v)
{
	v->status &= VIRTIO_NEEDS_RESET; /* nothing is popped any more */
	reset_queues(v);
	v->status = 0;
	v->features = 0;
	if (v->ops->reset)
		v->ops->reset(v);
}

static void kick_all(struct virtio_device *v)
{
	for (unsigned n = 0; n < v->queue_count; n++)
		virtio_queue_kick(&v->queues[n]);
}

/* Bits are only ever set (virtio 1.2, 2.1.1). */
void virtio_set_status(struct virtio_device *v, uint8_t status, bool legacy)
{
	uint8_t now = v->status, added = status & ~now & DRIVERS_BITS;

	if (!status) {
		reset_by_driver(v);
		return;
	}
	if (virtio_is_legacy(v))
		added &= ~VIRTIO_FEATURES_OK;
	if (!legacy && !((now | added) & VIRTIO_FEATURES_OK))
		added &= ~VIRTIO_DRIVER_OK;
	v->status |= added;
	if (!(added & VIRTIO_DRIVER_OK))
		return;
	if (v->ops->started)
		v->ops->started(v);
	kick_all(v); /* what is in the queues already */
}

void virtio_break(struct virtio_device *v, const char *what, ...)
{
	char text[160];
	va_list list;

	va_start(list, what);
	vsnprintf(text, sizeof(text), what, list);
	va_end(list);
	log_guest("%s.%u: its driver broke a rule, it needs a reset: %s", v->device.name, v->device.instance, text);
	if (atomic_fetch_or(&v->status, VIRTIO_NEEDS_RESET) & VIRTIO_NEEDS_RESET || !virtio_is_started(v))
		return;
	v->transport->config_interrupt(v);
}

/* ---- configuration space ---- */

uint32_t virtio_config_read(const struct virtio_device *v, uint64_t offset, unsigned size)
{
	uint32_t value = 0;

	for (unsigned n = 0; n < size && offset + n < v->config_size; n++)
		value |= (uint32_t)v->config[offset + n] << (8 * n);
	return value;
}

void virtio_config_write(struct virtio_device *v, uint64_t offset, unsigned size, uint32_t value)
{
	if (!range_ok(offset, size, v->config_size))
		return;
	for (unsigned n = 0; n < size; n++, value >>= 8) {
		uint8_t mask = v->config_mask[offset + n], *byte = &v->config[offset + n];

		*byte = (uint8_t)((*byte & ~mask) | (value & mask));
	}
	if (v->ops->config_written)
		v->ops->config_written(v, (unsigned)offset, size);
}

void virtio_config_changed(struct virtio_device *v)
{
	v->config_generation++;
	if (virtio_is_started(v))
		v->transport->config_interrupt(v);
}

/* ---- queues ---- */

struct virtio_queue *virtio_queue_at(struct virtio_device *v, unsigned index)
{
	return index < v->queue_count ? &v->queues[index] : NULL;
}

/* Those of a packed one may be any. */
static bool size_fits(const struct virtio_device *v, unsigned size)
{
	return virtio_has(v, VIRTIO_F_RING_PACKED) || !(size & (size - 1));
}

void virtio_queue_set_size(struct virtio_queue *q, unsigned size)
{
	lock_take(&q->lock);
	if (!q->enabled && size && size <= q->most && size_fits(q->virtio, size))
		q->size = (uint16_t)size;
	lock_drop(&q->lock);
}

static uint64_t *address_of(struct virtio_queue *q, enum virtio_part part)
{
	return part == VIRTIO_DESCRIPTORS ? &q->descriptors : part == VIRTIO_AVAILABLE ? &q->available : &q->used;
}

uint32_t virtio_queue_address(struct virtio_queue *q, enum virtio_part part, bool high)
{
	return (uint32_t)(*address_of(q, part) >> (high ? 32 : 0));
}

void virtio_queue_set_address(struct virtio_queue *q, enum virtio_part part, bool high, uint32_t value)
{
	uint64_t *address = address_of(q, part);

	lock_take(&q->lock);
	if (!q->enabled)
		*address =
			high ? (uint32_t)*address | (uint64_t)value << 32 : (*address & ~(uint64_t)UINT32_MAX) | value;
	lock_drop(&q->lock);
}

/* A size that was set while other features were chosen is not one of a queue. The queue's lock is held. */
static void enable(struct virtio_queue *q)
{
	if (q->enabled)
		return;
	if (!size_fits(q->virtio, q->size)) {
		virtio_break(q->virtio, "queue %u is to be enabled with %u descriptors, no power of two", q->index,
			     q->size);
		return;
	}
	q->next_available = q->next_used = virtio_has(q->virtio, VIRTIO_F_RING_PACKED) ? VIRTIO_PACKED_WRAP : 0;
	q->enabled = true;
	virtqueue_forget(q);
}

void virtio_queue_enable(struct virtio_queue *q)
{
	lock_take(&q->lock);
	enable(q);
	lock_drop(&q->lock);
}

void virtio_queue_set_page(struct virtio_queue *q, uint32_t page_number)
{
	virtio_queue_reset(q);
	if (!page_number)
		return;
	lock_take(&q->lock);
	q->descriptors = (uint64_t)page_number * LEGACY_ALIGN;
	q->available = q->descriptors + 16ull * q->size;
	q->used = align_up(q->available + 4 + 2ull * q->size + 2, LEGACY_ALIGN);
	enable(q);
	lock_drop(&q->lock);
}

void virtio_queue_reset(struct virtio_queue *q)
{
	lock_take(&q->lock);
	virtqueue_stop(q);
	lock_drop(&q->lock);
}

void virtio_queue_kick(struct virtio_queue *q)
{
	lock_take(&q->lock);
	q->kick(q);
	lock_drop(&q->lock);
}

/* ---- the machine's ---- */

void virtio_reset(struct device *device)
{
	struct virtio_device *v = of(device);

	reset_by_driver(v);
	v->config_generation = 0;
}

void virtio_pause(struct device *device)
{
	struct virtio_device *v = of(device);

	if (v->ops->pause)
		v->ops->pause(v);
	for (unsigned n = 0; n < v->queue_count; n++)
		BUG_ON(v->queues[n].popped);
}

/* What was not served because of the pause is now; a queue that has nothing waits as before. */
void virtio_resume(struct device *device)
{
	struct virtio_device *v = of(device);

	if (v->ops->resume)
		v->ops->resume(v);
	if (clock_kind(device->bus->clock) == CLOCK_HOST)
		kick_all(v);
}

void virtio_saving(const void *object)
{
	struct virtio_device *v = (struct virtio_device *)object;

	for (unsigned n = 0; n < v->queue_count; n++) {
#define _(type, name) v->saved.name[n] = v->queues[n].name;
		VIRTIO_QUEUE_REGISTERS(_)
#undef _
	}
}

/* An enabled packed queue's position: an index of it, and the bit for the turn. */
static int position_loaded(const struct virtio_device *v, unsigned n, const char *what, unsigned position,
			   struct error *err)
{
	if ((position & ~VIRTIO_PACKED_WRAP) < v->saved.size[n])
		return 0;
	return error_set(err, EINVAL, "%s: queue %u: %s is 0x%x; it has %u descriptors", v->device.name, n, what,
			 position, v->saved.size[n]);
}

static int queue_loaded(const struct virtio_device *v, unsigned n, struct error *err)
{
	unsigned size = v->saved.size[n], most = n < v->queue_count ? v->queues[n].most : 0;
	bool enabled = v->saved.enabled[n];
	int rc = 0;

	if (enabled && n >= v->queue_count)
		return error_set(err, EINVAL, "%s: queue %u is enabled; there are %u", v->device.name, n,
				 v->queue_count);
	if (size > most || (n < v->queue_count && !size) || (enabled && !size_fits(v, size)))
		return error_set(err, EINVAL,
				 "%s: queue %u has %u descriptors; expected at most %u, a power of two if split",
				 v->device.name, n, size, most);
	if (enabled && virtio_has(v, VIRTIO_F_RING_PACKED)) {
		rc = position_loaded(v, n, "next_available", v->saved.next_available[n], err);
		rc = rc ? rc : position_loaded(v, n, "next_used", v->saved.next_used[n], err);
	}
	return rc;
}

int virtio_loaded(void *object, uint16_t version, struct error *err)
{
	const struct virtio_device *v = object;
	int rc = 0;

	(void)version;
	if (v->features & ~v->offered)
		return error_set(err, EINVAL,
				 "%s: features are 0x%" PRIx64 "; this device has no others than 0x%" PRIx64,
				 v->device.name, v->features, v->offered);
	for (unsigned n = 0; !rc && n < VIRTIO_MAX_QUEUES; n++)
		rc = queue_loaded(v, n, err);
	return rc;
}

void virtio_attach(struct device *device)
{
	struct virtio_device *v = of(device);

	for (unsigned n = 0; n < v->queue_count; n++) {
		struct virtio_queue *q = &v->queues[n];

#define _(type, name) q->name = v->saved.name[n];
		VIRTIO_QUEUE_REGISTERS(_)
#undef _
		timer_disarm(&q->again);
		virtqueue_forget(q);
	}
	if (v->ops->loaded)
		v->ops->loaded(v);
}

/* ---- life ---- */

void virtio_init(struct virtio_device *v, struct bus *bus, const char *name, const struct device_ops *device_ops,
		 const struct virtio_ops *ops)
{
	v->ops = ops;
	v->offered = QUEUE_FEATURES | BIT(VIRTIO_F_ANY_LAYOUT) | BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_RING_RESET);
	lock_init(&v->lock, &bus->locks, LOCK_QUEUE); /* before those of its queues */
	device_init_sharing(&v->device, bus, name, device_ops, &v->lock);
}

int virtio_add_queue(struct virtio_device *v, unsigned size, void (*kick)(struct virtio_queue *), struct error *err)
{
	struct virtio_queue *q = &v->queues[v->queue_count];
	int rc;

	BUG_ON(v->queue_count == VIRTIO_MAX_QUEUES || !size || size & (size - 1) || size > VIRTIO_MAX_QUEUE_SIZE);
	rc = virtqueue_init(q, v, size);
	if (rc)
		return error_set_errno(err, -rc, "%s: queue %u", v->device.name, v->queue_count);
	q->index = v->queue_count++;
	q->kick = kick;
	return 0;
}

void virtio_fini(struct virtio_device *v)
{
	while (v->queue_count)
		virtqueue_fini(&v->queues[--v->queue_count]);
	lock_destroy(&v->lock);
}

int virtio_plug(struct virtio_device *v, const struct virtio_options *options, struct error *err)
{
	bool mmio = options->transport && !strcmp(options->transport, "mmio");

	if (!mmio && options->transport && strcmp(options->transport, "pci") != 0)
		return error_set(err, EINVAL, "%s: option 'transport' is '%.64s'; expected pci or mmio", v->device.name,
				 options->transport);
	if (options->packed)
		v->offered |= BIT(VIRTIO_F_RING_PACKED);
	return mmio ? virtio_plug_mmio(v, err) : virtio_plug_pci(v, options->legacy, err);
}
