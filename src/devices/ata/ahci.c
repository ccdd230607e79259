/*
 * AHCI's registers (Serial ATA AHCI 1.3, 3): a controller as ICH9 has one, without staggered spin-up, port multipliers and coalescing of interrupts; and drives on its ports.
 */
#include "devices/ata/ahci.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define BAR_REGISTERS  5u
#define REGISTERS_SIZE 4096u
#define PORT_BASE      0x100u
#define PORT_SIZE      0x80u

/* Generic host control */
enum { HBA_CAP = 0x00, HBA_GHC = 0x04, HBA_IS = 0x08, HBA_PI = 0x0c, HBA_VS = 0x10 };
#define CAP_SLOTS     ((AHCI_SLOTS - 1) << 8)
#define CAP_AHCI      BIT(18) /* and nothing else */
#define CAP_SPEED     (2u << 20)
#define CAP_OVERRIDE  BIT(24) /* of BSY and DRQ: CLO */
#define CAP_QUEUES    BIT(30)
#define CAP_WIDE      BIT(31)
#define GHC_RESET     BIT(0)
#define GHC_INTERRUPT BIT(1)
#define GHC_AHCI      BIT(31)
#define VERSION	      0x00010300u

/* Of a port */
enum {
	PORT_LIST = 0x00,
	PORT_RECEIVED = 0x08,
	PORT_STATUS = 0x10,
	PORT_ENABLE = 0x14,
	PORT_COMMAND = 0x18,
	PORT_TASK_FILE = 0x20,
	PORT_SIGNATURE = 0x24,
	PORT_LINK = 0x28,
	PORT_CONTROL = 0x2c,
	PORT_ERROR = 0x30,
	PORT_QUEUED = 0x34,
	PORT_ISSUED = 0x38,
};
#define CMD_POWERED   0x00000006u /* SUD and POD, which do not change */
#define CMD_OVERRIDE  BIT(3)
#define CMD_SLOT(n)   ((uint32_t)(n) << 8)
#define LINK_UP	      0x123u /* a drive, 3 Gb/s, active */
#define CONTROL_INIT  1u     /* DET: COMRESET goes out */
#define CONTROL_OFF   4u
#define LIST_MASK     0x3ffu
#define RECEIVED_MASK 0xffu

/* PCI configuration: which ports are on (ICH9, 14.1.29), that ICH9's driver looks at */
#define PCS 0x92u

static struct ahci_port *port_of(struct device *device) { return container_of(device, struct ahci_port, device); }

/* ---- interrupts ---- */

/* With what the error register says. */
static uint32_t status_of(const struct ahci_port *p)
{
	return p->status | (p->error & SERR_EXCHANGED ? IS_CONNECTED : 0) | (p->error & SERR_PHY ? IS_PHY : 0);
}

/* Ports that have an interrupt, a bit each. */
static uint32_t ports_waiting(const struct ahci *ahci)
{
	uint32_t ports = 0;

	for (unsigned n = 0; n < AHCI_PORTS; n++)
		ports |= status_of(&ahci->ports[n]) & ahci->ports[n].enable ? (uint32_t)BIT(n) : 0;
	return ports;
}

/* A message for whatever has come, or is there still when something else was acknowledged (10.6.2). */
static void update(struct ahci *ahci)
{
	bool asserts = ahci->interrupts && ports_waiting(ahci);

	irq_set(&ahci->pci.intx, asserts);
	if (asserts)
		pci_send_msi(&ahci->pci);
}

void ahci_event(struct ahci_port *p, uint32_t status)
{
	p->status |= status;
	update(p->ahci);
}

/* ---- resets ---- */

void ahci_greet(struct ahci_port *p)
{
	struct ata_task task = { 0 };

	if (!p->drive)
		return;
	ata_signature(p->drive, &task);
	p->signature = (uint32_t)(task.count & 0xff) | (uint32_t)task.lba << 8;
	p->greets = !(p->command & CMD_FIS);
	ahci_send_task(p, &task, false);
}

/* The link is up again, if there is somebody. */
static void connect(struct ahci_port *p)
{
	p->task_file = 0x7f;
	p->signature = UINT32_MAX;
	p->greets = p->resets = false;
	if (!p->drive)
		return;
	ata_soft_reset(p->drive);
	p->error |= SERR_EXCHANGED | SERR_PHY;
	ahci_greet(p);
}

static void stop(struct ahci_port *p)
{
	ahci_drop(p);
	p->issued = p->queued = 0;
	p->halted = false;
	p->last = AHCI_SLOTS - 1;
}

/* GHC.HR: all but where the guest has its lists, which it says again anyway. */
static void reset_all(struct ahci *ahci)
{
	ahci->interrupts = false;
	for (unsigned n = 0; n < AHCI_PORTS; n++) {
		struct ahci_port *p = &ahci->ports[n];

		ahci_drop(p);
		state_reset(p->device.ops->state, p);
		connect(p);
	}
	update(ahci);
}

/* A worker has something of what was dropped. */
static bool is_busy(const struct ahci *ahci)
{
	uint32_t active = 0;

	for (unsigned n = 0; n < AHCI_PORTS; n++)
		active |= ahci->ports[n].active & ~ahci->ports[n].pending;
	return active;
}

/* ---- a port's registers ---- */

static uint32_t command_of(const struct ahci_port *p)
{
	uint32_t value = p->command | CMD_POWERED | CMD_SLOT(p->last);

	/* It runs until nothing of it is under way. */
	if (p->command & CMD_START || p->active)
		value |= CMD_RUNS;
	return value | (p->command & CMD_FIS ? CMD_FIS_RUNS : 0);
}

static void write_command(struct ahci_port *p, uint32_t value)
{
	uint32_t before = p->command;

	p->command = value & CMD_KEPT;
	if (before & ~value & CMD_START)
		stop(p);
	if (value & CMD_OVERRIDE && !(p->command & CMD_START))
		p->task_file &= ~(uint32_t)(ATA_BSY | ATA_DRQ);
	if (p->command & CMD_FIS && p->greets)
		ahci_greet(p);
}

static bool is_off(const struct ahci_port *p) { return (p->control & 15) == CONTROL_OFF || !p->drive; }

/* COMRESET goes out as long as DET says so: behind it the drive is as after power-on. */
static void write_control(struct ahci_port *p, uint32_t value)
{
	uint32_t before = p->control & 15, now = value & 15;

	p->control = value & 0xfff;
	if (now == before)
		return;
	stop(p);
	if (now)
		p->task_file = 0x7f;
	else
		connect(p);
}

static uint32_t read_port(const struct ahci_port *p, unsigned n)
{
	switch (n) {
	case PORT_LIST: return (uint32_t)p->list;
	case PORT_LIST + 4: return (uint32_t)(p->list >> 32);
	case PORT_RECEIVED: return (uint32_t)p->received;
	case PORT_RECEIVED + 4: return (uint32_t)(p->received >> 32);
	case PORT_STATUS: return status_of(p);
	case PORT_ENABLE: return p->enable;
	case PORT_COMMAND: return command_of(p);
	case PORT_TASK_FILE: return p->task_file;
	case PORT_SIGNATURE: return p->signature;
	case PORT_LINK:
		if (is_off(p))
			return p->drive ? CONTROL_OFF : 0;
		return (p->control & 15) == CONTROL_INIT ? 0 : LINK_UP;
	case PORT_CONTROL: return p->control;
	case PORT_ERROR: return p->error;
	case PORT_QUEUED: return p->queued;
	case PORT_ISSUED: return p->issued;
	default: return 0;
	}
}

static void set_low(uint64_t *address, uint32_t value) { *address = (*address & ~(uint64_t)UINT32_MAX) | value; }
static void set_high(uint64_t *address, uint32_t value) { *address = (uint32_t)*address | (uint64_t)value << 32; }

static void issue(struct ahci_port *p, uint32_t slots)
{
	uint32_t fresh = slots & ~p->issued;

	if (!(p->command & CMD_START) || !p->drive)
		return;
	p->issued |= fresh;
	p->pending |= fresh;
}

static void write_port(struct ahci_port *p, unsigned n, uint32_t value)
{
	switch (n) {
	case PORT_LIST: set_low(&p->list, value & ~LIST_MASK); break;
	case PORT_LIST + 4: set_high(&p->list, value); break;
	case PORT_RECEIVED: set_low(&p->received, value & ~RECEIVED_MASK); break;
	case PORT_RECEIVED + 4: set_high(&p->received, value); break;
	case PORT_STATUS: p->status &= ~value; break;
	case PORT_ENABLE: p->enable = value & IS_ENABLE; break;
	case PORT_COMMAND: write_command(p, value); break;
	case PORT_CONTROL: write_control(p, value); break;
	case PORT_ERROR: p->error &= ~value; break;
	case PORT_QUEUED: p->queued |= p->command & CMD_START ? value : 0; return;
	case PORT_ISSUED:
		issue(p, value);
		ahci_run(p, true);
		return;
	default: return;
	}
	update(p->ahci);
	ahci_run(p, true);
}

/* ---- the controller's ---- */

static uint32_t read_hba(const struct ahci *ahci, unsigned n)
{
	switch (n) {
	case HBA_CAP:
		return (uint32_t)((AHCI_PORTS - 1) | CAP_SLOTS | CAP_AHCI | CAP_SPEED | CAP_OVERRIDE | CAP_QUEUES |
				  CAP_WIDE);
	case HBA_GHC:
		return (uint32_t)(GHC_AHCI | (ahci->interrupts ? GHC_INTERRUPT : 0) | (is_busy(ahci) ? GHC_RESET : 0));
	case HBA_IS: return ports_waiting(ahci);
	case HBA_PI: return (1u << AHCI_PORTS) - 1;
	case HBA_VS: return VERSION;
	default: return 0;
	}
}

static void write_hba(struct ahci *ahci, unsigned n, uint32_t value)
{
	if (n == HBA_GHC && value & GHC_RESET)
		reset_all(ahci);
	else if (n == HBA_GHC)
		ahci->interrupts = value & GHC_INTERRUPT;
	if (n == HBA_GHC || n == HBA_IS)
		update(ahci);
}

static uint64_t registers_read(struct device *device, uint64_t offset, unsigned size)
{
	struct ahci *ahci = (struct ahci *)device;
	unsigned word = (unsigned)offset & ~3u, port = (word - PORT_BASE) / PORT_SIZE;
	uint32_t value = 0;

	if (word < PORT_BASE)
		value = read_hba(ahci, word);
	else if (port < AHCI_PORTS)
		value = read_port(&ahci->ports[port], (word - PORT_BASE) % PORT_SIZE);
	return value >> 8 * (offset & 3) & (uint32_t)(BIT(8 * size) - 1);
}

/* By whole words. */
static void registers_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct ahci *ahci = (struct ahci *)device;
	unsigned port = ((unsigned)offset - PORT_BASE) / PORT_SIZE;

	if (size != 4 || offset & 3)
		return;
	if (offset < PORT_BASE)
		write_hba(ahci, (unsigned)offset, (uint32_t)value);
	else if (port < AHCI_PORTS)
		write_port(&ahci->ports[port], ((unsigned)offset - PORT_BASE) % PORT_SIZE, (uint32_t)value);
}

/* ---- ports as devices ---- */

static void port_reset(struct device *device)
{
	struct ahci_port *p = port_of(device);

	ahci_drop(p);
	connect(p);
	p->error = 0;
}

static void port_pause(struct device *device)
{
	struct ahci_port *p = port_of(device);

	lock_take(device->lock);
	p->paused = true;
	lock_drop(device->lock);
	if (p->drive && ata_block(p->drive))
		block_drain(ata_block(p->drive));
}

static void port_resume(struct device *device)
{
	struct ahci_port *p = port_of(device);

	lock_take(device->lock);
	p->paused = false;
	ahci_run(p, false);
	lock_drop(device->lock);
}

static void port_destroy(struct device *device) { free(port_of(device)->commands); }

static int port_loaded(void *object, uint16_t version, struct error *err)
{
	const struct ahci_port *p = object;

	(void)version;
	if (p->list & LIST_MASK || p->received & RECEIVED_MASK)
		return error_set(err, EINVAL,
				 "%s: a list at 0x%" PRIx64 ", FISes at 0x%" PRIx64 ", which are not aligned",
				 p->device.name, p->list, p->received);
	if (p->pending & ~(p->issued | p->queued) || ((p->pending | p->issued) && !p->drive))
		return error_set(err, EINVAL, "%s: commands 0x%x are not done, of 0x%x and 0x%x", p->device.name,
				 p->pending, p->issued, p->queued);
	return 0;
}

STATE_DESC(ahci_port_state_desc, "ahci-port", 1, struct ahci_port, AHCI_PORT_STATE, .loaded = port_loaded);

static const struct device_ops port_ops = { .state = &ahci_port_state_desc,
					    .reset = port_reset,
					    .pause = port_pause,
					    .resume = port_resume,
					    .destroy = port_destroy };

static void port_create(struct ahci *ahci, unsigned n)
{
	struct ahci_port *p = &ahci->ports[n];
	struct bus *bus = ahci->pci.device.bus;

	p->ahci = ahci;
	p->number = n;
	p->in_line = clock_kind(bus->clock) == CLOCK_VIRTUAL;
	device_init_sharing(&p->device, bus, "ahci-port", &port_ops, ahci->pci.device.lock);
	state_reset(&ahci_port_state_desc, p);
}

/* ---- the function ---- */

static void config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
	(void)offset, (void)size;
	atomic_store(&((struct ahci *)pci)->master, pci->config[0x04] & 4);
}

static void ahci_reset(struct device *device)
{
	struct ahci *ahci = (struct ahci *)device;

	pci_reset(&ahci->pci);
	config_written(&ahci->pci, 0, 0);
}

static int ahci_loaded(void *object, uint16_t version, struct error *err)
{
	(void)version;
	return pci_loaded(object, err);
}

static void ahci_attach(struct device *device)
{
	struct ahci *ahci = (struct ahci *)device;

	pci_attach(&ahci->pci);
	config_written(&ahci->pci, 0, 0);
}

static void ahci_destroy(struct device *device)
{
	pci_remove((struct pci_device *)device);
	free(device);
}

#define AHCI_ALL_STATE(_, T)                                                                                           \
	PCI_CONFIG_STATE(_, T)                                                                                         \
	AHCI_STATE(_, T)
STATE_DESC(ahci_state_desc, "ahci", 1, struct ahci, AHCI_ALL_STATE, .loaded = ahci_loaded);

static const struct device_ops ahci_ops = {
	.state = &ahci_state_desc, .reset = ahci_reset, .attach = ahci_attach, .destroy = ahci_destroy
};

static int ahci_create(struct bus *bus, const void *options, struct error *err)
{
	struct ahci *ahci = calloc(1, sizeof(*ahci));
	struct pci_device *pci = &ahci->pci;
	int rc;

	(void)options;
	if (!ahci)
		return error_set_errno(err, ENOMEM, "ahci");
	device_init(&pci->device, bus, "ahci", &ahci_ops);
	state_reset(&ahci_state_desc, ahci);
	pci_init_config(pci, 0x8086, 0x2922, 0x01060102, 0x8086, 0x2922, 1);
	store_le16(&pci->config_mask[PCS], 0xffff);
	pci->bars[BAR_REGISTERS].size = REGISTERS_SIZE;
	pci->bars[BAR_REGISTERS].range =
		(struct bus_range){ .sizes = 1 | 2 | 4, .read = registers_read, .write = registers_write };
	pci_add_msi(pci);
	pci->config_written = config_written;
	rc = pci_add(bus, pci, PCI_ANY_SLOT, 0, err);
	for (unsigned n = 0; !rc && n < AHCI_PORTS; n++)
		port_create(ahci, n);
	return rc;
}

/* ---- drives ---- */

static struct ahci *find_ahci(struct bus *bus, struct error *err)
{
	if (!bus_find_device(bus, "ahci", 0) && device_create_own(bus, ahci_create, NULL, err))
		return NULL;
	return (struct ahci *)bus_find_device(bus, "ahci", 0);
}

/* A firmware knows ICH9's by what it is. */
static bool boot_path(const struct ata_drive *d, struct device_boot *boot)
{
	const struct ahci_port *p = d->controller;
	char behind[32];

	snprintf(behind, sizeof(behind), "/drive@%u/disk@0", p->number);
	pci_boot_path(&p->ahci->pci, "pci8086,2922", behind, boot);
	return true;
}

/* While the machine is paused: nothing of it is under way. */
static void drive_gone(struct ata_drive *d)
{
	struct ahci_port *p = d->controller;

	stop(p);
	p->drive = NULL;
	connect(p);
	p->error |= SERR_EXCHANGED | SERR_PHY;
	update(p->ahci);
}

/* NULL with a sentence. */
static struct ahci_port *free_port(struct ahci *ahci, unsigned wanted, struct error *err)
{
	if (wanted && ahci->ports[wanted - 1].drive) {
		error_set(err, EBUSY, "ahci: there is a drive on port %u already", wanted);
		return NULL;
	}
	for (unsigned n = 0; n < AHCI_PORTS; n++)
		if (wanted ? n == wanted - 1 : !ahci->ports[n].drive)
			return &ahci->ports[n];
	error_set(err, EBUSY, "ahci: there are %u drives already", AHCI_PORTS);
	return NULL;
}

static int add_drive(struct bus *bus, const struct disk_options *o, bool cd, unsigned wanted, struct error *err)
{
	struct ahci *ahci = find_ahci(bus, err);
	struct ahci_port *p = ahci ? free_port(ahci, wanted, err) : NULL;
	struct ata_drive *d = NULL;

	if (p && !ahci_init_commands(p, err))
		d = (cd ? ata_cd_create : ata_disk_create)(bus, ahci->pci.device.lock, p->number, o, err);
	if (!d)
		return err ? -err->code : -EINVAL;
	d->controller = p;
	d->gone = drive_gone;
	d->boot_path = boot_path;
	d->queues = true;
	p->drive = d;
	connect(p);
	update(ahci);
	return 0;
}

int sata_disk_create(struct bus *bus, const struct disk_options *o, struct error *err)
{
	return add_drive(bus, o, false, 0, err);
}

int sata_cd_create(struct bus *bus, const struct disk_options *o, struct error *err)
{
	return add_drive(bus, o, true, 0, err);
}

/* clang-format off */
#define PORT_OPTION(_, T) _(T, NUMBER, port, 1, AHCI_PORTS, NULL, "which one; by default the first that is free")
#define SATA_DISK_OPTIONS(_, T)                                                                                        \
	DISK_OPTIONS(_, T)                                                                                             \
	PORT_OPTION(_, T)
#define SATA_CD_OPTIONS(_, T)                                                                                          \
	_(T, TEXT, file, 0, 0, NULL, "the disc's image, or a block device; without it the drive is empty")             \
	_(T, TEXT, format, 0, 0, "auto", "raw, qcow2, or auto: what its first bytes say")                              \
	_(T, NUMBER, boot, 1, DEVICE_BOOT_ORDER_MOST, NULL, "its turn when a firmware looks for a system")             \
	PORT_OPTION(_, T)
/* clang-format on */

struct sata_disk_options {
	DEVICE_OPTION_FIELDS(SATA_DISK_OPTIONS)
};

struct sata_cd_options {
	DEVICE_OPTION_FIELDS(SATA_CD_OPTIONS)
};

static int disk_create(struct bus *bus, const void *options, struct error *err)
{
	const struct sata_disk_options *o = options;

	return add_drive(bus, &DISK_OPTIONS_OF(o), false, (unsigned)o->port, err);
}

static int cd_create(struct bus *bus, const void *options, struct error *err)
{
	const struct sata_cd_options *o = options;

	return add_drive(bus, &DISC_OPTIONS_OF(o), true, (unsigned)o->port, err);
}

const struct device_type ahci_type = {
	.name = "ahci",
	.help = "an AHCI controller, for --disk FILE,bus=sata and --cdrom FILE,bus=sata; made with the first of them "
		"otherwise",
	.most = 1,
	.create = ahci_create,
};

const struct device_type sata_disk_type = {
	.name = "sata-disk",
	.help = "a disk on the AHCI controller",
	.most = AHCI_PORTS,
	.starts = true,
	DEVICE_OPTIONS(SATA_DISK_OPTIONS, struct sata_disk_options),
	.create = disk_create,
};

const struct device_type sata_cd_type = {
	.name = "sata-cd",
	.help = "a CD or DVD drive on the AHCI controller",
	.most = AHCI_PORTS,
	.starts = true,
	DEVICE_OPTIONS(SATA_CD_OPTIONS, struct sata_cd_options),
	.create = cd_create,
};
