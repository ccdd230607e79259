/*
 * MSI-X: a table of messages in a device's BAR, each with a mask, and a bit for each that waits because it is masked.
 *
 * A message that is to be sent is either sent or pending, decided under one lock: none is lost, and none is sent twice. It waits, too, while the whole
 * function is masked or may not master the bus (PCI Express Base Specification 5.0, 7.5.1.1.3).
 */
#include "bus/private.h"

#include <errno.h>
#include <inttypes.h>

#define CAPABILITY_MSIX 0x11
#define CAPABILITY_SIZE 12
/* In the capability */
#define CONTROL	 2 /* bits 10 to 0: vectors - 1 */
#define TABLE	 4 /* bits 2 to 0: the BAR */
#define PENDING	 8
#define ENABLE	 BIT(15)
#define MASK_ALL BIT(14)

#define ENTRY_SIZE 16
#define ADDRESS_RO 3ull

/* ---- messages, under the lock ---- */

static bool is_pending(const struct msix *msix, unsigned n) { return msix->pending[n / 64] & BIT(n % 64); }

static bool may_send(const struct msix *msix, unsigned n) { return msix->enabled && !msix->silent && !msix->masked[n]; }

static void send_pending(struct msix *msix, unsigned n)
{
	if (!is_pending(msix, n) || !may_send(msix, n))
		return;
	msix->pending[n / 64] &= ~BIT(n % 64);
	irq_msi(msix->pci->device.bus, msix->address[n], msix->data[n]);
}

void msix_notify(struct msix *msix, unsigned vector)
{
	BUG_ON(vector >= msix->vectors);
	pthread_mutex_lock(&msix->lock);
	if (msix->enabled) {
		msix->pending[vector / 64] |= BIT(vector % 64);
		send_pending(msix, vector);
	}
	pthread_mutex_unlock(&msix->lock);
}

void msix_withdraw(struct msix *msix, unsigned vector)
{
	BUG_ON(vector >= msix->vectors);
	pthread_mutex_lock(&msix->lock);
	msix->pending[vector / 64] &= ~BIT(vector % 64);
	pthread_mutex_unlock(&msix->lock);
}

bool msix_enabled(const struct msix *msix) { return msix->enabled; }

/* ---- table and pending bits ---- */

static uint32_t read_entry(const struct msix *msix, unsigned n, unsigned field)
{
	switch (field) {
	case 0: return (uint32_t)msix->address[n];
	case 1: return (uint32_t)(msix->address[n] >> 32);
	case 2: return msix->data[n];
	default: return msix->masked[n];
	}
}

static void write_entry(struct msix *msix, unsigned n, unsigned field, uint32_t value)
{
	switch (field) {
	case 0: msix->address[n] = (msix->address[n] & ~(uint64_t)UINT32_MAX) | (value & ~ADDRESS_RO); break;
	case 1: msix->address[n] = (uint32_t)msix->address[n] | (uint64_t)value << 32; break;
	case 2: msix->data[n] = value; break;
	default: msix->masked[n] = value & 1; break;
	}
}

static uint32_t read_dword(const struct msix *msix, uint64_t offset)
{
	uint64_t table = (uint64_t)msix->vectors * ENTRY_SIZE, bit = 8 * (offset - table);

	if (offset < table)
		return read_entry(msix, (unsigned)(offset / ENTRY_SIZE), offset % ENTRY_SIZE / 4);
	return bit < align_up(msix->vectors, 64) ? (uint32_t)(msix->pending[bit / 64] >> bit % 64) : 0;
}

uint64_t msix_read(struct device *device, uint64_t offset, unsigned size)
{
	struct msix *msix = ((struct pci_device *)device)->msix;
	uint64_t value;

	if (size < 4)
		return 0;
	pthread_mutex_lock(&msix->lock);
	value = read_dword(msix, offset);
	if (size == 8)
		value |= (uint64_t)read_dword(msix, offset + 4) << 32;
	pthread_mutex_unlock(&msix->lock);
	return value;
}

/* Eight bytes are written before what they unmask is sent. */
void msix_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct msix *msix = ((struct pci_device *)device)->msix;
	unsigned n = (unsigned)(offset / ENTRY_SIZE);

	if (size < 4 || offset >= (uint64_t)msix->vectors * ENTRY_SIZE)
		return;
	pthread_mutex_lock(&msix->lock);
	write_entry(msix, n, offset % ENTRY_SIZE / 4, (uint32_t)value);
	if (size == 8)
		write_entry(msix, n, offset % ENTRY_SIZE / 4 + 1, (uint32_t)(value >> 32));
	send_pending(msix, n);
	pthread_mutex_unlock(&msix->lock);
}

/* ---- configuration space ---- */

static uint16_t control_of(const struct msix *msix)
{
	return load_le16(&msix->pci->config[msix->capability + CONTROL]);
}

bool msix_replaces_intx(const struct msix *msix) { return control_of(msix) & ENABLE; }

static bool is_silent(const struct msix *msix)
{
	return control_of(msix) & MASK_ALL || !(load_le16(&msix->pci->config[PCI_COMMAND]) & COMMAND_MASTER);
}

void msix_update(struct msix *msix)
{
	pthread_mutex_lock(&msix->lock);
	msix->enabled = msix_replaces_intx(msix);
	msix->silent = is_silent(msix);
	for (unsigned n = 0; n < msix->vectors; n++)
		send_pending(msix, n);
	pthread_mutex_unlock(&msix->lock);
}

/* ---- life ---- */

void msix_reset(struct msix *msix)
{
	memset(msix->address, 0, sizeof(msix->address));
	memset(msix->data, 0, sizeof(msix->data));
	memset(msix->pending, 0, sizeof(msix->pending));
	for (unsigned n = 0; n < MSIX_MAX_VECTORS; n++)
		msix->masked[n] = 1;
}

/* As after a reset are those that it does not have. */
static bool is_absent(const struct msix *msix, unsigned n)
{
	return !msix->address[n] && !msix->data[n] && msix->masked[n] && !is_pending(msix, n);
}

int msix_loaded(const struct msix *msix, struct error *err)
{
	bool sends = msix_replaces_intx(msix) && !is_silent(msix);

	for (unsigned n = 0; n < MSIX_MAX_VECTORS; n++) {
		if (msix->address[n] & ADDRESS_RO)
			return error_set(err, EINVAL,
					 "%s: MSI-X vector %u has the address 0x%" PRIx64 "; expected a multiple of 4",
					 msix->pci->device.name, n, msix->address[n]);
		if (n >= msix->vectors && !is_absent(msix, n))
			return error_set(err, EINVAL, "%s: MSI-X vector %u is not as after a reset; there are %u",
					 msix->pci->device.name, n, msix->vectors);
		if (is_pending(msix, n) && sends && !msix->masked[n])
			return error_set(err, EINVAL,
					 "%s: MSI-X vector %u is pending; expected it sent, as it is not masked",
					 msix->pci->device.name, n);
	}
	return 0;
}

void msix_init(struct msix *msix, struct pci_device *pci, unsigned vectors, unsigned bar, uint32_t offset)
{
	uint32_t table = vectors * ENTRY_SIZE;
	uint8_t *config;

	BUG_ON(!vectors || vectors > MSIX_MAX_VECTORS || offset % 8 || pci->bars[bar].io ||
	       offset + table + align_up(vectors, 64) / 8 > pci->bars[bar].size);
	msix->pci = pci;
	msix->vectors = vectors;
	msix->capability = pci_add_capability(pci, CAPABILITY_MSIX, CAPABILITY_SIZE);
	config = &pci->config[msix->capability];
	store_le16(config + CONTROL, (uint16_t)(vectors - 1));
	store_le32(config + TABLE, offset | bar);
	store_le32(config + PENDING, (offset + table) | bar);
	store_le16(&pci->config_mask[msix->capability + CONTROL], ENABLE | MASK_ALL);
	pthread_mutex_init(&msix->lock, NULL);
	pci->msix = msix;
	msix_reset(msix);
}

void msix_remove(struct msix *msix) { pthread_mutex_destroy(&msix->lock); }
