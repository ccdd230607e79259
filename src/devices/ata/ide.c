/*
 * IDE: the function of the PIIX3 beside the ISA bridge, 00:01.1 (Intel 82371SB data sheet, 290550, 2.3 and 2.6): two channels at the ports and interrupts that PCs have always
 * had, with two drives each, and bus master DMA (Programming Interface for Bus Master IDE Controller, 1.0).
 */
#include "devices/ata/channel.h"

#include <errno.h>
#include <stdlib.h>

#define CHANNELS 2u

/* PCI configuration: timing, with the bit that has the ports decoded */
#define IDETIM	0x40u
#define BAR_DMA 4u

/* Bus master registers of a channel */
enum { BM_COMMAND = 0, BM_STATUS = 2, BM_TABLE = 4, BM_SIZE = 8 };

struct ide {
	struct pci_device pci;
	_Atomic bool master; /* as the command register says */
	struct channel channels[CHANNELS];
};

/* ---- bus master ---- */

static void bm_set_command(struct channel *ch, uint8_t value)
{
	bool starts = value & ~ch->bm_command & BM_START;

	ch->bm_command = value & BM_COMMAND_BITS;
	if (!(value & BM_START))
		ch->bm_status &= (uint8_t)~BM_ACTIVE;
	if (!starts)
		return;
	ch->prd[PRD_NEXT] = ch->table;
	ch->prd[PRD_LEFT] = 0;
	ch->prd_last = false;
	ch->bm_status |= BM_ACTIVE;
	channel_start_dma(ch);
}

static uint8_t bm_read_byte(const struct channel *ch, unsigned n)
{
	switch (n) {
	case BM_COMMAND: return ch->bm_command;
	case BM_STATUS: return ch->bm_status;
	case BM_TABLE ... BM_SIZE - 1: return (uint8_t)(ch->table >> 8 * (n - BM_TABLE));
	default: return 0;
	}
}

static void bm_write_byte(struct channel *ch, unsigned n, uint8_t value)
{
	unsigned shift = 8 * (n & 3);

	switch (n) {
	case BM_COMMAND: bm_set_command(ch, value); break;
	case BM_STATUS:
		ch->bm_status &= (uint8_t) ~(value & (BM_ERROR | BM_INTERRUPT)) & ~BM_CAPABLE;
		ch->bm_status |= value & BM_CAPABLE;
		break;
	case BM_TABLE ... BM_SIZE - 1:
		ch->table = ((ch->table & ~(0xffu << shift)) | (uint32_t)value << shift) & ~3u;
		break;
	default: break;
	}
}

static uint64_t bm_read(struct device *device, uint64_t offset, unsigned size)
{
	struct ide *ide = (struct ide *)device;
	uint64_t value = 0;

	for (unsigned n = 0; n < size; n++)
		value |= (uint64_t)bm_read_byte(&ide->channels[offset / BM_SIZE], (offset + n) % BM_SIZE) << 8 * n;
	return value;
}

static void bm_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct ide *ide = (struct ide *)device;

	for (unsigned n = 0; n < size; n++)
		bm_write_byte(&ide->channels[offset / BM_SIZE], (offset + n) % BM_SIZE, (uint8_t)(value >> 8 * n));
}

/* ---- the function ---- */

static void config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
	(void)offset, (void)size;
	atomic_store(&((struct ide *)pci)->master, pci->config[0x04] & 4);
}

static void ide_reset(struct device *device)
{
	struct ide *ide = (struct ide *)device;

	pci_reset(&ide->pci);
	config_written(&ide->pci, 0, 0);
}

static int ide_loaded(void *object, uint16_t version, struct error *err)
{
	(void)version;
	return pci_loaded(object, err);
}

static void ide_attach(struct device *device)
{
	struct ide *ide = (struct ide *)device;

	pci_attach(&ide->pci);
	config_written(&ide->pci, 0, 0);
}

static void ide_destroy(struct device *device)
{
	pci_remove((struct pci_device *)device);
	free(device);
}

STATE_DESC(ide_state_desc, "piix3-ide", 1, struct ide, PCI_CONFIG_STATE, .loaded = ide_loaded);

static const struct device_ops ide_ops = {
	.state = &ide_state_desc, .reset = ide_reset, .attach = ide_attach, .destroy = ide_destroy
};

static int ide_create(struct bus *bus, const void *options, struct error *err)
{
	struct ide *ide = calloc(1, sizeof(*ide));
	struct pci_device *pci = &ide->pci;
	int rc;

	(void)options;
	if (!ide)
		return error_set_errno(err, ENOMEM, "ide");
	device_init(&pci->device, bus, "piix3-ide", &ide_ops);
	pci_init_config(pci, 0x8086, 0x7010, 0x01018000, 0, 0, 0); /* a bus master, at compatible ports */
	store_le16(&pci->config[0x06], 0x0280);
	/* Both channels are decoded, as firmware leaves them; their ports are whatever is said here. */
	store_le16(&pci->config[IDETIM], 0x8000);
	store_le16(&pci->config[IDETIM + 2], 0x8000);
	memset(&pci->config_mask[IDETIM], 0xff, 5);
	pci->bars[BAR_DMA].size = CHANNELS * BM_SIZE;
	pci->bars[BAR_DMA].io = true;
	pci->bars[BAR_DMA].range.sizes = 1 | 2 | 4;
	pci->bars[BAR_DMA].range.read = bm_read;
	pci->bars[BAR_DMA].range.write = bm_write;
	pci->config_written = config_written;
	rc = pci_add(bus, pci, PIIX_SLOT, 1, err);
	for (unsigned n = 0; !rc && n < CHANNELS; n++)
		rc = ide_channel_create(&ide->channels[n], pci, &ide->master, n, err);
	return rc;
}

/* ---- drives ---- */

#define DRIVES (2 * CHANNELS)

static struct ide *find_ide(struct bus *bus, struct error *err)
{
	if (!bus_find_device(bus, "piix3-ide", 0) && device_create_own(bus, ide_create, NULL, err))
		return NULL;
	return (struct ide *)bus_find_device(bus, "piix3-ide", 0);
}

static struct ata_drive **place_of(struct ide *ide, unsigned n) { return &ide->channels[n / 2].drives[n % 2]; }

static bool boot_path(const struct ata_drive *d, struct device_boot *boot)
{
	const struct channel *ch = d->controller;
	char behind[32];

	snprintf(behind, sizeof(behind), "/drive@%u/disk@%u", d->number / 2, d->number % 2);
	pci_boot_path(ch->pci, "ide", behind, boot);
	return true;
}

static void drive_gone(struct ata_drive *d)
{
	struct channel *ch = d->controller;

	if (drive_of(ch) == d)
		channel_drop(ch);
	ch->drives[d->number % 2] = NULL;
}

/* -1 with a sentence. */
static int free_place(struct ide *ide, const unsigned order[DRIVES], int wanted, struct error *err)
{
	if (wanted >= 0 && *place_of(ide, (unsigned)wanted))
		return error_set(err, EBUSY, "ide: there is a drive %d already", wanted), -1;
	if (wanted >= 0)
		return wanted;
	for (unsigned n = 0; n < DRIVES; n++)
		if (!*place_of(ide, order[n]))
			return (int)order[n];
	error_set(err, EBUSY, "ide: there are %u drives already", DRIVES);
	return -1;
}

static int add_drive(struct bus *bus, const struct disk_options *o, bool cd, int wanted, struct error *err)
{
	/* CDs first where PCs had them: on the second channel. */
	static const unsigned orders[2][DRIVES] = { { 0, 1, 2, 3 }, { 2, 3, 0, 1 } };
	struct ide *ide = find_ide(bus, err);
	int n = ide ? free_place(ide, orders[cd], wanted, err) : -1;
	struct ata_drive *d = NULL;

	if (n >= 0)
		d = (cd ? ata_cd_create : ata_disk_create)(bus, ide->pci.device.lock, (unsigned)n, o, err);
	if (!d)
		return err ? -err->code : -EINVAL;
	d->controller = &ide->channels[n / 2];
	d->gone = drive_gone;
	d->boot_path = boot_path;
	*place_of(ide, (unsigned)n) = d;
	channel_set_signature(&ide->channels[n / 2], (unsigned)n % 2);
	return 0;
}

int ide_disk_create(struct bus *bus, const struct disk_options *o, struct error *err)
{
	return add_drive(bus, o, false, -1, err);
}

int ide_cd_create(struct bus *bus, const struct disk_options *o, struct error *err)
{
	return add_drive(bus, o, true, -1, err);
}

/* clang-format off */
#define UNIT_OPTION(_, T)                                                                                              \
	_(T, TEXT, unit, 0, 0, NULL, "0, 1: on the first channel; 2, 3: on the second; by default one that is free")
#define IDE_DISK_OPTIONS(_, T)                                                                                         \
	WAITING_DISK_OPTIONS(_, T)                                                                                     \
	UNIT_OPTION(_, T)
#define IDE_CD_OPTIONS(_, T)                                                                                           \
	_(T, TEXT, file, 0, 0, NULL, "the disc's image, or a block device; without it the drive is empty")             \
	_(T, TEXT, format, 0, 0, "auto", "raw, qcow2, or auto: what its first bytes say")                              \
	_(T, NUMBER, boot, 1, DEVICE_BOOT_ORDER_MOST, NULL, "its turn when a firmware looks for a system")             \
	UNIT_OPTION(_, T)
/* clang-format on */

struct ide_disk_options {
	DEVICE_OPTION_FIELDS(IDE_DISK_OPTIONS)
};

struct ide_cd_options {
	DEVICE_OPTION_FIELDS(IDE_CD_OPTIONS)
};

/* -1: any; or -EINVAL. */
static int unit_of(const char *unit, int *n, struct error *err)
{
	*n = -1;
	if (!unit)
		return 0;
	if (*unit < '0' || *unit > '3' || unit[1])
		return error_set(err, EINVAL, "ide: option 'unit' is '%.64s'; expected a number from 0 to 3", unit);
	*n = *unit - '0';
	return 0;
}

static int disk_create(struct bus *bus, const void *options, struct error *err)
{
	const struct ide_disk_options *o = options;
	int n, rc = unit_of(o->unit, &n, err);

	return rc ? rc : add_drive(bus, &WAITING_DISK_OPTIONS_OF(o), false, n, err);
}

static int cd_create(struct bus *bus, const void *options, struct error *err)
{
	const struct ide_cd_options *o = options;
	struct disk_options disk = DISC_OPTIONS_OF(o);
	int n, rc = unit_of(o->unit, &n, err);

	return rc ? rc : add_drive(bus, &disk, true, n, err);
}

const struct device_type ide_type = {
	.name = "ide",
	.help = "an IDE controller, for --disk FILE,bus=ide and --cdrom FILE,bus=ide; made with the first of them "
		"otherwise",
	.most = 1,
	.create = ide_create,
};

const struct device_type ide_disk_type = {
	.name = "ide-disk",
	.help = "a disk on the IDE controller",
	.most = DRIVES,
	.starts = true,
	DEVICE_OPTIONS(IDE_DISK_OPTIONS, struct ide_disk_options),
	.create = disk_create,
};

const struct device_type ide_cd_type = {
	.name = "ide-cd",
	.help = "a CD or DVD drive on the IDE controller",
	.most = DRIVES,
	.starts = true,
	DEVICE_OPTIONS(IDE_CD_OPTIONS, struct ide_cd_options),
	.create = cd_create,
};
