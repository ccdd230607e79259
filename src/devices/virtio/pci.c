/*
 * virtio over PCI (virtio 1.2, 4.1): the modern interface in a memory BAR that capabilities point into, and the one of drivers from before virtio 1.0 in an I/O BAR
 * beside it, if it is asked for.
 *
 * A notification is served under the queue's lock alone. All other registers are under the device's.
 */
#include "devices/virtio/virtio.h"

#include <errno.h>
#include <stdlib.h>

#define VENDOR	      0x1af4
#define MODERN_DEVICE 0x1040 /* + the device type */
#define NO_VECTOR     0xffff
#define CONFIG_VECTOR VIRTIO_MAX_QUEUES /* in vectors[] */

/* BARs */
#define LEGACY_BAR  0
#define MSIX_BAR    1
#define MODERN_BAR  4 /* and 5: 64 bits */
#define MSIX_SIZE   0x1000
#define MODERN_SIZE 0x4000
/* Parts of the modern one, a page each */
#define COMMON		  0u
#define ISR		  1u
#define CONFIG		  2u
#define NOTIFY		  3u
#define NOTIFY_MULTIPLIER 4u

/* Capabilities, virtio 1.2, 4.1.4 */
#define CAPABILITY_VENDOR 0x09
#define CAP_LENGTH	  2
#define CAP_TYPE	  3
#define CAP_BAR		  4
#define CAP_OFFSET	  8
#define CAP_SIZE	  12
#define CAP_BYTES	  16
#define CAP_MORE	  16 /* the multiplier, or the window's data */
#define TYPE_WINDOW	  5

/* The common configuration, virtio 1.2, 4.1.4.3: _(offset, name, size) */
#define COMMON_REGISTERS(_)                                                                                            \
	_(0x00, DEVICE_FEATURE_SELECT, 4)                                                                              \
	_(0x04, DEVICE_FEATURE, 4)                                                                                     \
	_(0x08, DRIVER_FEATURE_SELECT, 4)                                                                              \
	_(0x0c, DRIVER_FEATURE, 4)                                                                                     \
	_(0x10, CONFIG_MSIX_VECTOR, 2)                                                                                 \
	_(0x12, NUM_QUEUES, 2)                                                                                         \
	_(0x14, DEVICE_STATUS, 1)                                                                                      \
	_(0x15, CONFIG_GENERATION, 1)                                                                                  \
	_(0x16, QUEUE_SELECT, 2)                                                                                       \
	_(0x18, QUEUE_SIZE, 2)                                                                                         \
	_(0x1a, QUEUE_MSIX_VECTOR, 2)                                                                                  \
	_(0x1c, QUEUE_ENABLE, 2)                                                                                       \
	_(0x1e, QUEUE_NOTIFY_OFF, 2)                                                                                   \
	_(0x20, QUEUE_DESC_LOW, 4)                                                                                     \
	_(0x24, QUEUE_DESC_HIGH, 4)                                                                                    \
	_(0x28, QUEUE_DRIVER_LOW, 4)                                                                                   \
	_(0x2c, QUEUE_DRIVER_HIGH, 4)                                                                                  \
	_(0x30, QUEUE_DEVICE_LOW, 4)                                                                                   \
	_(0x34, QUEUE_DEVICE_HIGH, 4)                                                                                  \
	_(0x3a, QUEUE_RESET, 2)
enum {
#define _(offset, name, size) name = offset,
	COMMON_REGISTERS(_)
#undef _
		COMMON_SIZE = 0x3c
};

/* The legacy registers, virtio 1.2, 4.1.4.10 */
enum {
	LEGACY_DEVICE_FEATURES = 0x00,
	LEGACY_DRIVER_FEATURES = 0x04,
	LEGACY_QUEUE_PAGE = 0x08,
	LEGACY_QUEUE_SIZE = 0x0c,
	LEGACY_QUEUE_SELECT = 0x0e,
	LEGACY_QUEUE_NOTIFY = 0x10,
	LEGACY_STATUS = 0x12,
	LEGACY_ISR = 0x13,
	LEGACY_CONFIG_VECTOR = 0x14, /* these two only while MSI-X is enabled; */
	LEGACY_QUEUE_VECTOR = 0x16,
	LEGACY_CONFIG = 0x14, /* else the device's configuration is here already */
	LEGACY_CONFIG_MSIX = 0x18,
};

#define VIRTIO_PCI_STATE(_, T)                                                                                         \
	_(T, uint32_t, device_feature_select, 1, 1, 0, UINT32_MAX)                                                     \
	_(T, uint32_t, driver_feature_select, 1, 2, 0, UINT32_MAX)                                                     \
	_(T, uint16_t, queue_select, 1, 3, 0, UINT16_MAX)                                                              \
	_(T, uint16_t, vectors, 65, 4, NO_VECTOR, NO_VECTOR) /* of queues; the last one: of configuration changes */   \
	_(T, uint8_t, isr, 1, 5, 0, 3)

struct virtio_pci {
	struct pci_device pci;
	struct msix msix;
	STATE_FIELDS(VIRTIO_PCI_STATE)
	struct virtio_device *virtio;
	struct lock isr_lock; /* isr and the pin, which change together */
	uint8_t window;	      /* the capability */
};

static struct virtio_pci *of(struct device *device) { return (struct virtio_pci *)device; }

/* ---- interrupts ---- */

static void interrupt(struct virtio_pci *p, uint16_t vector, uint8_t isr)
{
	bool msix = msix_enabled(&p->msix);

	if (!msix || isr == VIRTIO_ISR_CONFIG) {
		lock_take(&p->isr_lock);
		p->isr |= isr;
		irq_set(&p->pci.intx, !msix);
		lock_drop(&p->isr_lock);
	}
	if (msix && vector < p->msix.vectors)
		msix_notify(&p->msix, vector);
}

static void queue_interrupt(struct virtio_device *v, unsigned queue)
{
	struct virtio_pci *p = v->transport_opaque;

	interrupt(p, __atomic_load_n(&p->vectors[queue], __ATOMIC_RELAXED), VIRTIO_ISR_QUEUE);
}

static void config_interrupt(struct virtio_device *v)
{
	struct virtio_pci *p = v->transport_opaque;

	interrupt(p, __atomic_load_n(&p->vectors[CONFIG_VECTOR], __ATOMIC_RELAXED), VIRTIO_ISR_CONFIG);
}

static const struct virtio_transport transport = { queue_interrupt, config_interrupt };

static uint8_t read_isr(struct virtio_pci *p)
{
	uint8_t isr;

	lock_take(&p->isr_lock);
	isr = p->isr;
	p->isr = 0;
	irq_set(&p->pci.intx, false);
	lock_drop(&p->isr_lock);
	return isr;
}

/* A vector that there is not is read back as none: the driver sees that it cannot have it. */
static void set_vector(struct virtio_pci *p, unsigned n, uint32_t vector)
{
	__atomic_store_n(&p->vectors[n], vector < p->msix.vectors ? (uint16_t)vector : NO_VECTOR, __ATOMIC_RELAXED);
}

/* ---- registers of the selected queue; each also under its lock, which data are behind that ---- */

static struct virtio_queue *selected(struct virtio_pci *p) { return virtio_queue_at(p->virtio, p->queue_select); }

static enum virtio_part part_of(unsigned offset) { return (enum virtio_part)((offset - QUEUE_DESC_LOW) / 8); }

static uint32_t queue_read(struct virtio_pci *p, unsigned offset)
{
	struct virtio_queue *q = selected(p);

	if (!q)
		return offset == QUEUE_MSIX_VECTOR ? NO_VECTOR : 0;
	switch (offset) {
	case QUEUE_SIZE: return q->size;
	case QUEUE_MSIX_VECTOR: return p->vectors[q->index];
	case QUEUE_ENABLE: return q->enabled;
	case QUEUE_NOTIFY_OFF: return q->index;
	case QUEUE_RESET: return 0; /* it is over when the write is */
	default: return virtio_queue_address(q, part_of(offset), offset & 4);
	}
}

static void queue_write(struct virtio_pci *p, unsigned offset, uint32_t value)
{
	struct virtio_queue *q = selected(p);

	if (!q)
		return;
	switch (offset) {
	case QUEUE_SIZE: virtio_queue_set_size(q, value); break;
	case QUEUE_MSIX_VECTOR: set_vector(p, q->index, value); break;
	case QUEUE_ENABLE:
		if (value == 1)
			virtio_queue_enable(q);
		break;
	case QUEUE_RESET:
		if (value == 1 && virtio_has(p->virtio, VIRTIO_F_RING_RESET))
			virtio_queue_reset(q);
		break;
	case QUEUE_NOTIFY_OFF: break;
	default: virtio_queue_set_address(q, part_of(offset), offset & 4, value);
	}
}

/* ---- the common configuration ---- */

static unsigned common_size(unsigned offset)
{
	switch (offset) {
#define _(at, name, size)                                                                                              \
	case at: return size;
		COMMON_REGISTERS(_)
#undef _
	default: return 0;
	}
}

static uint32_t common_read(struct virtio_pci *p, unsigned offset)
{
	struct virtio_device *v = p->virtio;

	switch (offset) {
	case DEVICE_FEATURE_SELECT: return p->device_feature_select;
	case DEVICE_FEATURE: return virtio_feature_half(virtio_offered(v, false), p->device_feature_select);
	case DRIVER_FEATURE_SELECT: return p->driver_feature_select;
	case DRIVER_FEATURE: return virtio_feature_half(v->features, p->driver_feature_select);
	case CONFIG_MSIX_VECTOR: return p->vectors[CONFIG_VECTOR];
	case NUM_QUEUES: return v->queue_count;
	case DEVICE_STATUS: return v->status;
	case CONFIG_GENERATION: return v->config_generation;
	case QUEUE_SELECT: return p->queue_select;
	default: return queue_read(p, offset);
	}
}

/* What a reset leaves. */
static void forget_registers(struct virtio_pci *p)
{
	p->device_feature_select = p->driver_feature_select = p->queue_select = 0;
	for (unsigned n = 0; n < ARRAY_SIZE(p->vectors); n++)
		set_vector(p, n, NO_VECTOR);
	read_isr(p);
}

static void set_status(struct virtio_pci *p, uint8_t status, bool legacy)
{
	virtio_set_status(p->virtio, status, legacy);
	if (!status)
		forget_registers(p);
}

static void common_write(struct virtio_pci *p, unsigned offset, uint32_t value)
{
	struct virtio_device *v = p->virtio;

	switch (offset) {
	case DEVICE_FEATURE_SELECT: p->device_feature_select = value; break;
	case DRIVER_FEATURE_SELECT: p->driver_feature_select = value; break;
	case DRIVER_FEATURE: virtio_choose_half(v, p->driver_feature_select, value); break;
	case CONFIG_MSIX_VECTOR: set_vector(p, CONFIG_VECTOR, value); break;
	case DEVICE_STATUS: set_status(p, (uint8_t)value, false); break;
	case QUEUE_SELECT: p->queue_select = (uint16_t)value; break;
	case DEVICE_FEATURE:
	case NUM_QUEUES:
	case CONFIG_GENERATION: break;
	default: queue_write(p, offset, value);
	}
}

/* ---- the modern BAR: accesses of other sizes than a register has read 0, and write nothing ---- */

static uint32_t modern_read_locked(struct virtio_pci *p, unsigned part, unsigned offset, unsigned size)
{
	switch (part) {
	case COMMON: return common_size(offset) == size ? common_read(p, offset) : 0;
	case ISR: return offset ? 0 : read_isr(p);
	case CONFIG: return virtio_config_read(p->virtio, offset, size);
	default: return 0;
	}
}

static uint64_t modern_read(struct device *device, uint64_t offset, unsigned size)
{
	struct virtio_pci *p = of(device);
	uint32_t value;

	lock_take(&p->virtio->lock);
	value = modern_read_locked(p, (unsigned)(offset / PAGE_SIZE), offset % PAGE_SIZE, size);
	lock_drop(&p->virtio->lock);
	return value;
}

static void modern_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct virtio_pci *p = of(device);
	unsigned part = (unsigned)(offset / PAGE_SIZE), at = offset % PAGE_SIZE;

	if (likely(part == NOTIFY)) {
		struct virtio_queue *q = virtio_queue_at(p->virtio, at / NOTIFY_MULTIPLIER);

		if (q)
			virtio_queue_kick(q);
		return;
	}
	lock_take(&p->virtio->lock);
	if (part == COMMON && common_size(at) == size)
		common_write(p, at, (uint32_t)value);
	else if (part == CONFIG)
		virtio_config_write(p->virtio, at, size, (uint32_t)value);
	lock_drop(&p->virtio->lock);
}

/* ---- the legacy BAR ---- */

static unsigned legacy_config(const struct virtio_pci *p)
{
	return msix_enabled(&p->msix) ? LEGACY_CONFIG_MSIX : LEGACY_CONFIG;
}

static uint32_t legacy_read_locked(struct virtio_pci *p, unsigned offset, unsigned size)
{
	const struct virtio_device *v = p->virtio;
	const struct virtio_queue *q = selected(p);

	if (offset >= legacy_config(p))
		return virtio_config_read(v, offset - legacy_config(p), size);
	switch (offset) {
	case LEGACY_DEVICE_FEATURES: return (uint32_t)virtio_offered(v, true);
	case LEGACY_DRIVER_FEATURES: return (uint32_t)v->features;
	case LEGACY_QUEUE_PAGE: return q ? (uint32_t)(q->descriptors / PAGE_SIZE) : 0;
	case LEGACY_QUEUE_SIZE: return q ? q->size : 0;
	case LEGACY_QUEUE_SELECT: return p->queue_select;
	case LEGACY_STATUS: return v->status;
	case LEGACY_ISR: return read_isr(p);
	case LEGACY_CONFIG_VECTOR: return p->vectors[CONFIG_VECTOR];
	case LEGACY_QUEUE_VECTOR: return q ? p->vectors[q->index] : NO_VECTOR;
	default: return 0;
	}
}

static uint64_t legacy_read(struct device *device, uint64_t offset, unsigned size)
{
	struct virtio_pci *p = of(device);
	uint32_t value;

	lock_take(&p->virtio->lock);
	value = legacy_read_locked(p, (unsigned)offset, size);
	lock_drop(&p->virtio->lock);
	return value;
}

static void legacy_write_locked(struct virtio_pci *p, unsigned offset, unsigned size, uint32_t value)
{
	struct virtio_device *v = p->virtio;
	struct virtio_queue *q = selected(p);

	if (offset >= legacy_config(p)) {
		virtio_config_write(v, offset - legacy_config(p), size, value);
		return;
	}
	switch (offset) {
	case LEGACY_DRIVER_FEATURES: virtio_choose(v, value & virtio_offered(v, true)); break;
	case LEGACY_QUEUE_PAGE:
		if (q)
			virtio_queue_set_page(q, value);
		break;
	case LEGACY_QUEUE_SELECT: p->queue_select = (uint16_t)value; break;
	case LEGACY_STATUS: set_status(p, (uint8_t)value, true); break;
	case LEGACY_CONFIG_VECTOR: set_vector(p, CONFIG_VECTOR, value); break;
	case LEGACY_QUEUE_VECTOR:
		if (q)
			set_vector(p, q->index, value);
		break;
	default: break;
	}
}

static void legacy_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct virtio_pci *p = of(device);

	if (offset == LEGACY_QUEUE_NOTIFY) {
		struct virtio_queue *q = virtio_queue_at(p->virtio, (uint16_t)value);

		if (q)
			virtio_queue_kick(q);
		return;
	}
	lock_take(&p->virtio->lock);
	legacy_write_locked(p, (unsigned)offset, size, (uint32_t)value);
	lock_drop(&p->virtio->lock);
}

/* ---- capabilities ---- */

static uint8_t add_capability(struct virtio_pci *p, uint8_t type, uint8_t length, uint32_t offset, uint32_t size)
{
	uint8_t at = pci_add_capability(&p->pci, CAPABILITY_VENDOR, length), *c = &p->pci.config[at];

	c[CAP_LENGTH] = length;
	c[CAP_TYPE] = type;
	c[CAP_BAR] = MODERN_BAR;
	store_le32(c + CAP_OFFSET, offset);
	store_le32(c + CAP_SIZE, size);
	return at;
}

static void add_capabilities(struct virtio_pci *p)
{
	static const uint8_t types[] = { [COMMON] = 1, [NOTIFY] = 2, [ISR] = 3, [CONFIG] = 4 };
	uint8_t at, *mask;

	add_capability(p, types[COMMON], CAP_BYTES, COMMON * PAGE_SIZE, COMMON_SIZE);
	add_capability(p, types[ISR], CAP_BYTES, ISR * PAGE_SIZE, 1);
	if (p->virtio->config_size)
		add_capability(p, types[CONFIG], CAP_BYTES, CONFIG * PAGE_SIZE, p->virtio->config_size);
	at = add_capability(p, types[NOTIFY], CAP_BYTES + 4, NOTIFY * PAGE_SIZE,
			    p->virtio->queue_count * NOTIFY_MULTIPLIER);
	store_le32(&p->pci.config[at + CAP_MORE], NOTIFY_MULTIPLIER);
	/* The window: the driver says which bytes of which BAR its last four bytes are. */
	p->window = add_capability(p, TYPE_WINDOW, CAP_BYTES + 4, 0, 0);
	p->pci.config[p->window + CAP_BAR] = 0;
	mask = &p->pci.config_mask[p->window];
	mask[CAP_BAR] = 0xff;
	memset(mask + CAP_OFFSET, 0xff, 8);
}

static bool window(const struct pci_device *pci, unsigned offset, struct pci_window *w)
{
	const uint8_t *c = &pci->config[((const struct virtio_pci *)pci)->window];
	uint32_t size = load_le32(c + CAP_SIZE);

	if (&pci->config[offset] != c + CAP_MORE || (size != 1 && size != 2 && size != 4))
		return false;
	*w = (struct pci_window){ .bar = c[CAP_BAR], .offset = load_le32(c + CAP_OFFSET), .size = (uint8_t)size };
	return !(w->offset & (size - 1));
}

/* ---- life ---- */

static void pci_transport_reset(struct device *device)
{
	forget_registers(of(device));
	pci_reset(&of(device)->pci);
}

static int pci_transport_loaded(void *object, uint16_t version, struct error *err)
{
	const struct virtio_pci *p = object;

	(void)version;
	for (unsigned n = 0; n < ARRAY_SIZE(p->vectors); n++)
		if (p->vectors[n] != NO_VECTOR && p->vectors[n] >= p->msix.vectors)
			return error_set(err, EINVAL, "%s: vectors[%u] is %u; there are %u", p->pci.device.name, n,
					 p->vectors[n], p->msix.vectors);
	return pci_loaded(object, err);
}

static void pci_transport_attach(struct device *device) { pci_attach(&of(device)->pci); }

static void pci_transport_destroy(struct device *device)
{
	pci_remove(&of(device)->pci);
	lock_destroy(&of(device)->isr_lock);
	free(device);
}

#define PCI_TRANSPORT_STATE(_, T)                                                                                      \
	PCI_CONFIG_STATE(_, T)                                                                                         \
	MSIX_STATE(_, T)                                                                                               \
	VIRTIO_PCI_STATE(_, T)
STATE_DESC(virtio_pci_state_desc, "virtio-pci", 1, struct virtio_pci, PCI_TRANSPORT_STATE,
	   .loaded = pci_transport_loaded);

static const struct device_ops virtio_pci_ops = {
	.state = &virtio_pci_state_desc,
	.reset = pci_transport_reset,
	.attach = pci_transport_attach,
	.destroy = pci_transport_destroy,
};

/* Of those that there were, virtio 1.2, 4.1.2.1 */
static uint16_t transitional_device(enum virtio_id id)
{
	switch (id) {
	case VIRTIO_ID_NET: return 0x1000;
	case VIRTIO_ID_BLOCK: return 0x1001;
	case VIRTIO_ID_BALLOON: return 0x1002;
	case VIRTIO_ID_CONSOLE: return 0x1003;
	case VIRTIO_ID_SCSI: return 0x1004;
	case VIRTIO_ID_RNG: return 0x1005;
	case VIRTIO_ID_9P: return 0x1009;
	default: return 0;
	}
}

static uint64_t power_of_two(uint64_t least)
{
	uint64_t size = 32;

	while (size < least)
		size *= 2;
	return size;
}

static void set_bars(struct virtio_pci *p, bool legacy)
{
	struct pci_device *pci = &p->pci;

	if (legacy) {
		pci->bars[LEGACY_BAR].size = power_of_two(LEGACY_CONFIG_MSIX + p->virtio->config_size);
		pci->bars[LEGACY_BAR].io = true;
		pci->bars[LEGACY_BAR].range = (struct bus_range){
			.sizes = 1 | 2 | 4, .takes_locks = true, .read = legacy_read, .write = legacy_write
		};
	}
	pci->bars[MSIX_BAR].size = MSIX_SIZE;
	pci->bars[MSIX_BAR].range =
		(struct bus_range){ .sizes = 4 | 8, .takes_locks = true, .read = msix_read, .write = msix_write };
	pci->bars[MODERN_BAR].size = MODERN_SIZE;
	pci->bars[MODERN_BAR].wide = true;
	pci->bars[MODERN_BAR].range = (struct bus_range){
		.sizes = 1 | 2 | 4, .takes_locks = true, .read = modern_read, .write = modern_write
	};
	msix_init(&p->msix, pci, p->virtio->queue_count + 1, MSIX_BAR, 0);
}

int virtio_plug_pci(struct virtio_device *v, bool legacy, struct error *err)
{
	const struct virtio_ops *ops = v->ops;
	struct bus *bus = v->device.bus;
	struct virtio_pci *p = calloc(1, sizeof(*p));

	legacy &= !ops->modern_only;
	if (!p)
		return error_set_errno(err, ENOMEM, "%s", v->device.name);
	p->virtio = v;
	v->transport = &transport;
	v->transport_opaque = p;
	lock_init(&p->isr_lock, &bus->locks, LOCK_DEVICE);
	device_init_sharing(&p->pci.device, bus, ops->pci_name, &virtio_pci_ops, &v->lock);
	pci_init_config(&p->pci, VENDOR, legacy ? transitional_device(ops->id) : (uint16_t)(MODERN_DEVICE + ops->id),
			ops->pci_class | !legacy, VENDOR, (uint16_t)ops->id, 1);
	set_bars(p, legacy);
	add_capabilities(p);
	p->pci.window = window;
	return pci_add(bus, &p->pci, PCI_ANY_SLOT, 0, err);
}

bool virtio_boot_path(const struct virtio_device *v, const char *name, const char *behind, struct device_boot *boot)
{
	if (v->transport != &transport)
		return false;
	pci_boot_path(&((const struct virtio_pci *)v->transport_opaque)->pci, name, behind, boot);
	return true;
}
