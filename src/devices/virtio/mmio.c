/*
 * virtio over MMIO (virtio 1.2, 4.2, version 2): a window of registers at a fixed place (devices.h), which the guest is told of by ACPI or on its kernel's command line
 * (boot/), and a level-triggered interrupt that is an input of the IOAPIC alone.
 *
 * A notification is served under the queue's lock alone. All other registers are under the device's.
 */
#include "devices/virtio/virtio.h"

#include <errno.h>
#include <stdlib.h>

#define MAGIC	0x74726976u /* "virt" */
#define VERSION 2u
#define VENDOR	0x1af4u
#define CONFIG	0x100u /* the device's configuration begins here */

/* Registers, all of 32 bits: virtio 1.2, 4.2.2 */
enum {
	MAGIC_VALUE = 0x000,
	VERSION_NUMBER = 0x004,
	DEVICE_ID = 0x008,
	VENDOR_ID = 0x00c,
	DEVICE_FEATURES = 0x010,
	DEVICE_FEATURES_SEL = 0x014,
	DRIVER_FEATURES = 0x020,
	DRIVER_FEATURES_SEL = 0x024,
	QUEUE_SEL = 0x030,
	QUEUE_NUM_MAX = 0x034,
	QUEUE_NUM = 0x038,
	QUEUE_READY = 0x044,
	QUEUE_NOTIFY = 0x050,
	INTERRUPT_STATUS = 0x060,
	INTERRUPT_ACK = 0x064,
	STATUS = 0x070,
	QUEUE_DESC_LOW = 0x080,
	QUEUE_DESC_HIGH = 0x084,
	QUEUE_DRIVER_LOW = 0x090,
	QUEUE_DRIVER_HIGH = 0x094,
	QUEUE_DEVICE_LOW = 0x0a0,
	QUEUE_DEVICE_HIGH = 0x0a4,
	SHM_LEN_LOW = 0x0b0,
	SHM_BASE_HIGH = 0x0bc,
	QUEUE_RESET = 0x0c0,
	CONFIG_GENERATION = 0x0fc,
};

#define VIRTIO_MMIO_STATE(_, T)                                                                                        \
	_(T, uint32_t, device_feature_select, 1, 1, 0, UINT32_MAX)                                                     \
	_(T, uint32_t, driver_feature_select, 1, 2, 0, UINT32_MAX)                                                     \
	_(T, uint32_t, queue_select, 1, 3, 0, UINT32_MAX)                                                              \
	_(T, uint8_t, isr, 1, 4, 0, 3)                                                                                 \
	_(T, uint8_t, saved_window, 1, 5, 0, VIRTIO_MMIO_WINDOWS - 1)

struct virtio_mmio {
	struct device device;
	STATE_FIELDS(VIRTIO_MMIO_STATE)
	struct virtio_device *virtio;
	struct lock isr_lock; /* isr and the line, which change together */
	struct irq_line line;
	struct bus_range range;
	uint8_t window;
	char name[32];
};

static struct virtio_mmio *of(struct device *device) { return (struct virtio_mmio *)device; }

/* ---- interrupts ---- */

static void change_isr(struct virtio_mmio *m, uint8_t clear, uint8_t set)
{
	lock_take(&m->isr_lock);
	m->isr = (uint8_t)((m->isr & ~clear) | set);
	irq_set(&m->line, m->isr);
	lock_drop(&m->isr_lock);
}

static void queue_interrupt(struct virtio_device *v, unsigned queue)
{
	(void)queue;
	change_isr(v->transport_opaque, 0, VIRTIO_ISR_QUEUE);
}

static void config_interrupt(struct virtio_device *v) { change_isr(v->transport_opaque, 0, VIRTIO_ISR_CONFIG); }

static const struct virtio_transport transport = { queue_interrupt, config_interrupt };

static uint8_t read_isr(struct virtio_mmio *m)
{
	uint8_t isr;

	lock_take(&m->isr_lock);
	isr = m->isr;
	lock_drop(&m->isr_lock);
	return isr;
}

/* ---- registers ---- */

static uint32_t queue_read(struct virtio_mmio *m, unsigned offset)
{
	const struct virtio_queue *q = virtio_queue_at(m->virtio, m->queue_select);

	if (!q)
		return 0;
	switch (offset) {
	case QUEUE_NUM_MAX: return q->most;
	case QUEUE_READY: return q->enabled;
	default: return 0; /* what can only be written; a reset is over when the write is */
	}
}

static uint32_t register_read(struct virtio_mmio *m, unsigned offset)
{
	const struct virtio_device *v = m->virtio;

	switch (offset) {
	case MAGIC_VALUE: return MAGIC;
	case VERSION_NUMBER: return VERSION;
	case DEVICE_ID: return v->ops->id;
	case VENDOR_ID: return VENDOR;
	case DEVICE_FEATURES: return virtio_feature_half(virtio_offered(v, false), m->device_feature_select);
	case INTERRUPT_STATUS: return read_isr(m);
	case STATUS: return v->status;
	case SHM_LEN_LOW ... SHM_BASE_HIGH: return UINT32_MAX; /* no such region */
	case CONFIG_GENERATION: return v->config_generation;
	default: return queue_read(m, offset);
	}
}

static void queue_write(struct virtio_mmio *m, unsigned offset, uint32_t value)
{
	struct virtio_queue *q = virtio_queue_at(m->virtio, m->queue_select);

	if (!q)
		return;
	switch (offset) {
	case QUEUE_NUM: virtio_queue_set_size(q, value); break;
	case QUEUE_READY:
		if (value == 1)
			virtio_queue_enable(q);
		else if (!value)
			virtio_queue_reset(q);
		break;
	case QUEUE_RESET:
		if (value == 1 && virtio_has(m->virtio, VIRTIO_F_RING_RESET))
			virtio_queue_reset(q);
		break;
	case QUEUE_DESC_LOW:
	case QUEUE_DESC_HIGH:
	case QUEUE_DRIVER_LOW:
	case QUEUE_DRIVER_HIGH:
	case QUEUE_DEVICE_LOW:
	case QUEUE_DEVICE_HIGH:
		virtio_queue_set_address(q, (enum virtio_part)((offset - QUEUE_DESC_LOW) / 16), offset & 4, value);
		break;
	default: break;
	}
}

/* What a reset leaves. */
static void forget_registers(struct virtio_mmio *m)
{
	m->device_feature_select = m->driver_feature_select = m->queue_select = 0;
	change_isr(m, 0xff, 0);
}

static void register_write(struct virtio_mmio *m, unsigned offset, uint32_t value)
{
	struct virtio_device *v = m->virtio;

	switch (offset) {
	case DEVICE_FEATURES_SEL: m->device_feature_select = value; break;
	case DRIVER_FEATURES_SEL: m->driver_feature_select = value; break;
	case DRIVER_FEATURES: virtio_choose_half(v, m->driver_feature_select, value); break;
	case QUEUE_SEL: m->queue_select = value; break;
	case INTERRUPT_ACK: change_isr(m, (uint8_t)value, 0); break;
	case STATUS:
		virtio_set_status(v, (uint8_t)value, false);
		if (!(uint8_t)value)
			forget_registers(m);
		break;
	default: queue_write(m, offset, value);
	}
}

/* ---- the window: accesses of other sizes than a register has read 0, and write nothing ---- */

static uint64_t window_read(struct device *device, uint64_t offset, unsigned size)
{
	struct virtio_mmio *m = of(device);
	uint32_t value = 0;

	lock_take(&m->virtio->lock);
	if (offset >= CONFIG)
		value = virtio_config_read(m->virtio, offset - CONFIG, size);
	else if (size == 4)
		value = register_read(m, (unsigned)offset);
	lock_drop(&m->virtio->lock);
	return value;
}

static void window_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct virtio_mmio *m = of(device);

	if (likely(offset == QUEUE_NOTIFY && size == 4)) {
		struct virtio_queue *q = virtio_queue_at(m->virtio, (unsigned)value);

		if (q)
			virtio_queue_kick(q);
		return;
	}
	lock_take(&m->virtio->lock);
	if (offset >= CONFIG)
		virtio_config_write(m->virtio, offset - CONFIG, size, (uint32_t)value);
	else if (size == 4)
		register_write(m, (unsigned)offset, (uint32_t)value);
	lock_drop(&m->virtio->lock);
}

/* ---- life ---- */

static void mmio_reset(struct device *device) { forget_registers(of(device)); }

static void mmio_saving(const void *object)
{
	struct virtio_mmio *m = (struct virtio_mmio *)object;

	m->saved_window = m->window;
}

/* Where it is: the address, and the line. */
static void enter_window(struct virtio_mmio *m, unsigned window)
{
	m->window = (uint8_t)window;
	m->range.start = VIRTIO_MMIO_ADDRESS(window);
}

/* The guest was told where it is. Of two that a record has in one window the first one is there, as with BARs. */
static void mmio_attach(struct device *device)
{
	struct virtio_mmio *m = of(device);

	enter_window(m, m->saved_window);
	irq_line_move(&m->line, VIRTIO_MMIO_LINE(m->window));
	bus_map(device->bus, BUS_MMIO, &m->range, NULL);
}

static void mmio_destroy(struct device *device)
{
	struct virtio_mmio *m = of(device);

	bus_unmap(device->bus, BUS_MMIO, &m->range);
	irq_line_free(&m->line);
	lock_destroy(&m->isr_lock);
	free(m);
}

STATE_DESC(virtio_mmio_state_desc, "virtio-mmio", 1, struct virtio_mmio, VIRTIO_MMIO_STATE, .saving = mmio_saving);

static const struct device_ops virtio_mmio_ops = {
	.state = &virtio_mmio_state_desc,
	.reset = mmio_reset,
	.attach = mmio_attach,
	.destroy = mmio_destroy,
};

uint32_t virtio_mmio_windows(struct bus *bus)
{
	const struct device *device;
	uint32_t windows = 0;

	list_for_each (device, &bus->devices, node)
		if (device->ops == &virtio_mmio_ops)
			windows |= 1u << ((const struct virtio_mmio *)device)->window;
	return windows;
}

int virtio_plug_mmio(struct virtio_device *v, struct error *err)
{
	struct bus *bus = v->device.bus;
	uint32_t taken = virtio_mmio_windows(bus);
	struct virtio_mmio *m;

	if (!~taken)
		return error_set(err, EBUSY, "%s: all %u windows for virtio devices are taken", v->device.name,
				 VIRTIO_MMIO_WINDOWS);
	m = calloc(1, sizeof(*m));
	if (!m)
		return error_set_errno(err, ENOMEM, "%s", v->device.name);
	m->virtio = v;
	v->transport = &transport;
	v->transport_opaque = m;
	snprintf(m->name, sizeof(m->name), "%s-mmio", v->device.name);
	lock_init(&m->isr_lock, &bus->locks, LOCK_DEVICE);
	device_init_sharing(&m->device, bus, m->name, &virtio_mmio_ops, &v->lock);
	m->range = (struct bus_range){ .size = VIRTIO_MMIO_SIZE,
				       .sizes = 1 | 2 | 4,
				       .device = &m->device,
				       .takes_locks = true,
				       .moves = true,
				       .read = window_read,
				       .write = window_write };
	enter_window(m, (unsigned)__builtin_ctz(~taken));
	m->line = irq_isa_line(&m->device, VIRTIO_MMIO_LINE(m->window));
	return bus_map(bus, BUS_MMIO, &m->range, err);
}
