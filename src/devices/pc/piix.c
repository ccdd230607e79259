/*
 * The south bridge: PIIX3 ISA bridge at 00:01.0 (Intel 82371SB data sheet, 290550) with PIRQ routing and the reset control
 * register, and the PIIX4's power management function at 00:01.3 (82371AB, 290562), which is ACPI's fixed hardware (ACPI 6.5,
 * 4.8). What a firmware programs in these is done at reset where a kernel is started without one.
 */
#include "devices/devices.h"

#include <errno.h>
#include <stdlib.h>

static void request(struct bus *bus, enum bus_request what)
{
	if (bus->request)
		bus->request(bus->request_opaque, what);
}

/* ---- PIIX3: PIRQ routing, reset control ---- */

#define PIRQ_DISABLED BIT(7)
#define RCR_HARD      BIT(1)
#define RCR_RESET     BIT(2)

#define PIIX3_STATE(_, T)  _(T, uint8_t, reset_control, 1, 1, 0, 0x06)
#define PIIX3_RECORD(_, T) PCI_CONFIG_STATE(_, T) PIIX3_STATE(_, T)

struct piix3 {
	struct pci_device pci;
	STATE_FIELDS(PIIX3_STATE)
	struct bus_range reset_port;
};

/* Interrupts that a PIRQ may be steered to; the others are reserved. */
#define PIRQ_TARGETS                                                                                                   \
	(BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(7) | BIT(9) | BIT(10) | BIT(11) | BIT(12) | BIT(14) | BIT(15))

static void update_routes(struct piix3 *piix3)
{
	int lines[PIRQS];

	for (unsigned i = 0; i < PIRQS; i++) {
		uint8_t route = piix3->pci.config[PIIX_PIRQRC + i];
		bool valid = !(route & PIRQ_DISABLED) && (PIRQ_TARGETS & BIT(route & 15));

		lines[i] = valid ? route & 15 : -1;
	}
	pci_set_pirqs(piix3->pci.device.bus, lines);
}

static void piix3_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
	if (offset + size > PIIX_PIRQRC && offset < PIIX_PIRQRC + 4)
		update_routes((struct piix3 *)pci);
}

static uint64_t reset_read(struct device *device, uint64_t offset, unsigned size)
{
	(void)offset;
	(void)size;
	return ((struct piix3 *)device)->reset_control;
}

static void reset_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct piix3 *piix3 = (struct piix3 *)device;
	bool rises = value & ~(uint64_t)piix3->reset_control & RCR_RESET;

	(void)offset;
	(void)size;
	piix3->reset_control = value & (RCR_HARD | RCR_RESET);
	if (rises)
		request(device->bus, value & RCR_HARD ? BUS_REQUEST_RESET : BUS_REQUEST_INIT);
}

static void piix3_reset(struct device *device)
{
	struct piix3 *piix3 = (struct piix3 *)device;
	struct bus_access elcr = { .space = BUS_PIO, .address = 0x4d1, .size = 1, .write = true, .value = 0x0c };

	pci_reset(&piix3->pci);
	update_routes(piix3);
	bus_access(device->bus, &elcr); /* PCI interrupts, on 10 and 11 here, are level-triggered */
}

static void piix3_destroy(struct device *device)
{
	struct piix3 *piix3 = (struct piix3 *)device;

	if (device->bus->pci)
		pci_set_byte_ports(device->bus, NULL);
	pci_remove(&piix3->pci);
	free(piix3);
}

static int piix3_loaded(void *object, uint16_t version, struct error *err)
{
	(void)version;
	return pci_loaded(object, err);
}

/* The levels that the routes make of the functions' pins are what was saved: no line moves. */
static void piix3_attach(struct device *device)
{
	struct piix3 *piix3 = (struct piix3 *)device;

	pci_attach(&piix3->pci);
	update_routes(piix3);
}

STATE_DESC(piix3_state_desc, "piix3", 1, struct piix3, PIIX3_RECORD, .loaded = piix3_loaded);

static const struct device_ops piix3_ops = {
	.state = &piix3_state_desc, .reset = piix3_reset, .attach = piix3_attach, .destroy = piix3_destroy
};

static int piix3_create(struct bus *bus, struct error *err)
{
	static const uint8_t routes[4] = PIIX_PIRQ_LINES;
	struct piix3 *piix3 = calloc(1, sizeof(*piix3));
	struct pci_device *pci = &piix3->pci;
	int result;

	if (!piix3)
		return error_set(err, ENOMEM, "out of memory for the ISA bridge");
	/* Its reset control register is among the ports of configuration space. */
	device_init_sharing(&pci->device, bus, "piix3", &piix3_ops, &bus->pci_lock);
	pci_init_config(pci, 0x8086, 0x7000, 0x06010000, 0, 0, 0);
	store_le16(&pci->config[0x04], 0x0007); /* I/O, memory and master are always on */
	store_le16(&pci->config_mask[0x04], 0x0108);
	pci->config[0x0e] = 0x80; /* more functions */
	memcpy(&pci->config[PIIX_PIRQRC], routes, sizeof(routes));
	memset(&pci->config_mask[PIIX_PIRQRC], 0x8f, sizeof(routes));
	pci->config[0x4c] = 0x4d; /* I/O recovery timer, X-bus chip selects, top of memory: kept, without effect */
	pci->config_mask[0x4c] = 0xff;
	store_le16(&pci->config[0x4e], 0x0003);
	store_le16(&pci->config_mask[0x4e], 0x0fff);
	pci->config[0x69] = 0x02;
	pci->config_mask[0x69] = 0xfe;
	pci->config_written = piix3_config_written;
	result = pci_add(bus, pci, PIIX_SLOT, 0, err);
	if (result)
		return result;
	piix3->reset_port = (struct bus_range){ .start = ACPI_RESET_PORT,
						.size = 1,
						.sizes = 1,
						.device = &pci->device,
						.read = reset_read,
						.write = reset_write };
	pci_set_byte_ports(bus, &piix3->reset_port);
	piix3_reset(&pci->device);
	return 0;
}

/* ---- PIIX4 power management ---- */

#define PMBA	  0x40 /* I/O base of the PM registers */
#define DEVACTB	  0x58 /* bit 25: writes of the APM control port raise SMIs */
#define PMREGMISC 0x80 /* bit 0: they are enabled */
#define PM_SIZE	  64
#define GPE0_SIZE 4
#define APM_PORTS 0xb2

/* Offsets from PMBA */
enum { PM1_STS = 0, PM1_EN = 2, PM1_CNT = 4, PM_TMR = 8 };

#define PM1_TMR		 BIT(0)
#define PM1_GBL		 BIT(5)
#define PM1_PWRBTN	 BIT(8)
#define PM1_RTC		 BIT(10)
#define PM1_WAK		 BIT(15)
#define PM1_STATUSES	 (PM1_TMR | BIT(4) | PM1_GBL | PM1_PWRBTN | PM1_RTC | PM1_WAK)
#define PM1_ENABLES	 (PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_RTC)
#define CNT_SCI_EN	 BIT(0)
#define CNT_SLP_TYP(cnt) bits(cnt, 12, 10)
#define CNT_SLP_EN	 BIT(13)
#define CNT_WRITABLE	 0x1c02 /* SLP_TYP, BM_RLD; SLP_EN and GBL_RLS read as 0 */

#define PM_STATE(_, T)                                                                                                 \
	_(T, uint16_t, status, 1, 1, 0, PM1_STATUSES)                                                                  \
	_(T, uint16_t, enable, 1, 2, 0, PM1_ENABLES)                                                                   \
	_(T, uint16_t, control, 1, 3, CNT_SCI_EN, CNT_WRITABLE | CNT_SCI_EN) /* ACPI mode, as the FADT says */         \
	_(T, uint16_t, gpe_status, 1, 4, 0, 0xffff)                                                                    \
	_(T, uint16_t, gpe_enable, 1, 5, 0, 0xffff)                                                                    \
	_(T, uint64_t, timer_seen, 1, 6, 0, UINT64_MAX) /* vtime to which TMR_STS is up to date */                     \
	_(T, uint64_t, timer_at, 1, 7, VTIME_NEVER, UINT64_MAX)                                                        \
	_(T, bool, mapped, 1, 8, 0, 1)	  /* the registers are where PMBA says */                                      \
	_(T, uint8_t, apm, 2, 9, 0, 0xff) /* control and status of power management by SMIs, which nobody takes */
#define PM_RECORD(_, T) PCI_CONFIG_STATE(_, T) PM_STATE(_, T)

/* Where the registers are is under pci_lock; what is in them under the device's own. */
struct piix4_pm {
	struct pci_device pci;
	STATE_FIELDS(PM_STATE)
	struct irq_line sci;
	struct timer timer;
	struct bus_range registers, gpe0, apm_ports;
};

static uint64_t timer_ticks(vtime_t t) { return (uint64_t)((unsigned __int128)t * ACPI_PM_TIMER_HZ / 1000000000); }

/* TMR_STS is set whenever bit 23 of the timer changes. */
static void update_timer_status(struct piix4_pm *pm)
{
	vtime_t now = clock_now(pm->pci.device.bus->clock);

	if (timer_ticks(now) >> 23 != timer_ticks(pm->timer_seen) >> 23)
		pm->status |= PM1_TMR;
	pm->timer_seen = now;
}

static void update_sci(struct piix4_pm *pm)
{
	vtime_t now = clock_now(pm->pci.device.bus->clock);
	uint64_t change = ((timer_ticks(now) >> 23) + 1) << 23;

	irq_set(&pm->sci, (pm->status & pm->enable & PM1_ENABLES) || (pm->gpe_status & pm->gpe_enable));
	/* The timer's overflow needs a timer only while somebody waits for its interrupt. */
	pm->timer_at = VTIME_NEVER;
	if ((pm->enable & PM1_TMR) && !(pm->status & PM1_TMR))
		pm->timer_at =
			(vtime_t)(((unsigned __int128)change * 1000000000 + ACPI_PM_TIMER_HZ - 1) / ACPI_PM_TIMER_HZ);
	timer_arm(&pm->timer, pm->timer_at);
}

static void timer_overflow(void *opaque)
{
	struct piix4_pm *pm = opaque;

	update_timer_status(pm);
	update_sci(pm);
}

static void write_control(struct piix4_pm *pm, uint16_t value)
{
	/* There is no SMM to leave ACPI mode for: SCI_EN stays. */
	pm->control = (value & CNT_WRITABLE) | CNT_SCI_EN;
	if (!(value & CNT_SLP_EN))
		return;
	if (CNT_SLP_TYP(value) == ACPI_SLP_TYP_S5)
		request(pm->pci.device.bus, BUS_REQUEST_POWEROFF);
	else
		log_guest("sleep type %u ignored; expected %u (S5), the only one that the ACPI tables offer",
			  (unsigned)CNT_SLP_TYP(value), ACPI_SLP_TYP_S5);
}

static uint64_t pm_read(struct device *device, uint64_t offset, unsigned size)
{
	struct piix4_pm *pm = (struct piix4_pm *)device;
	uint32_t value = 0;

	(void)size;
	switch (offset & ~1ull) {
	case PM1_STS:
		update_timer_status(pm);
		value = pm->status | (uint32_t)pm->enable << 16;
		break;
	case PM1_EN: value = pm->enable; break;
	case PM1_CNT: value = pm->control; break;
	case PM_TMR: value = timer_ticks(clock_now(device->bus->clock)) & 0xffffff; break;
	case PM_TMR + 2: value = timer_ticks(clock_now(device->bus->clock)) >> 16 & 0xff; break;
	}
	return offset & 1 ? value >> 8 : value;
}

/* Byte writes change one half of a register; a half that is not written counts as unchanged. */
static uint16_t merge(uint16_t old, uint64_t offset, unsigned size, uint64_t value)
{
	if (size == 2)
		return (uint16_t)value;
	return offset & 1 ? (uint16_t)((old & 0xff) | (value & 0xff) << 8)
			  : (uint16_t)((old & 0xff00) | (value & 0xff));
}

static void pm_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct piix4_pm *pm = (struct piix4_pm *)device;

	if (size == 4) {
		pm_write(device, offset, 2, value & 0xffff);
		pm_write(device, offset + 2, 2, value >> 16);
		return;
	}
	update_timer_status(pm);
	switch (offset & ~1ull) {
	case PM1_STS: pm->status &= ~merge(0, offset, size, value); break;
	case PM1_EN: pm->enable = merge(pm->enable, offset, size, value) & PM1_ENABLES; break;
	case PM1_CNT: write_control(pm, merge(pm->control, offset, size, value)); break;
	default: break; /* the timer is read-only */
	}
	update_sci(pm);
}

static uint64_t gpe_read(struct device *device, uint64_t offset, unsigned size)
{
	struct piix4_pm *pm = (struct piix4_pm *)device;
	uint32_t value = pm->gpe_status | (uint32_t)pm->gpe_enable << 16;

	(void)size;
	return value >> (8 * offset);
}

static void gpe_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct piix4_pm *pm = (struct piix4_pm *)device;

	(void)size;
	if (offset < 2)
		pm->gpe_status &= ~(value << (8 * offset));
	else
		pm->gpe_enable = merge(pm->gpe_enable, offset, 1, value);
	update_sci(pm);
}

static uint64_t apm_read(struct device *device, uint64_t offset, unsigned size)
{
	(void)size;
	return ((struct piix4_pm *)device)->apm[offset];
}

static void apm_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	(void)size;
	((struct piix4_pm *)device)->apm[offset] = (uint8_t)value;
}

static const struct device_ops pm_ops;

void piix_event(struct bus *bus, unsigned n)
{
	struct piix4_pm *pm = (struct piix4_pm *)bus_find_device(bus, "piix4-pm", 0);

	if (!pm)
		return;
	lock_take(pm->pci.device.lock);
	pm->gpe_status |= BIT(n);
	update_sci(pm);
	lock_drop(pm->pci.device.lock);
}

void piix_power_button(struct bus *bus)
{
	struct device *device;

	list_for_each (device, &bus->devices, node) {
		if (device->ops == &pm_ops) {
			struct piix4_pm *pm = (struct piix4_pm *)device;

			lock_take(device->lock);
			pm->status |= PM1_PWRBTN;
			update_sci(pm);
			lock_drop(device->lock);
		}
	}
}

/* Where the registers are to be; 0: nowhere. */
static uint16_t base_of(const struct piix4_pm *pm)
{
	return pm->pci.config[PMREGMISC] & 1 ? load_le16(&pm->pci.config[PMBA]) & 0xffc0 : 0;
}

uint16_t piix_pm_base(struct bus *bus)
{
	const struct piix4_pm *pm = (struct piix4_pm *)bus_find_device(bus, "piix4-pm", 0);
	uint16_t base = 0;

	if (!pm)
		return 0;
	lock_take(&bus->pci_lock);
	base = base_of(pm);
	lock_drop(&bus->pci_lock);
	return base;
}

static void map_registers(struct piix4_pm *pm)
{
	struct error error;

	pm->registers.start = base_of(pm);
	pm->mapped = !bus_map(pm->pci.device.bus, BUS_PIO, &pm->registers, &error);
	if (!pm->mapped)
		log_guest("power management base: %s", error.text);
}

static void update_mapping(struct piix4_pm *pm)
{
	uint16_t base = base_of(pm);

	if (pm->registers.mapped && pm->registers.start != base) {
		bus_unmap(pm->pci.device.bus, BUS_PIO, &pm->registers);
		pm->mapped = false;
	}
	if (base && !pm->registers.mapped)
		map_registers(pm);
}

static void pm_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
	(void)offset;
	(void)size;
	update_mapping((struct piix4_pm *)pci);
}

static void pm_reset(struct device *device)
{
	struct piix4_pm *pm = (struct piix4_pm *)device;

	pci_reset(&pm->pci);
	update_mapping(pm);
	pm->mapped = pm->registers.mapped; /* where they were already */
	pm->timer_seen = clock_now(device->bus->clock);
	update_sci(pm);
}

static void pm_destroy(struct device *device)
{
	struct piix4_pm *pm = (struct piix4_pm *)device;

	timer_disarm(&pm->timer);
	bus_unmap(device->bus, BUS_PIO, &pm->registers);
	bus_unmap(device->bus, BUS_PIO, &pm->gpe0);
	bus_unmap(device->bus, BUS_PIO, &pm->apm_ports);
	irq_line_free(&pm->sci);
	pci_remove(&pm->pci);
	free(pm);
}

static int pm_loaded(void *object, uint16_t version, struct error *err)
{
	struct piix4_pm *pm = object;

	(void)version;
	if (pm->mapped && !base_of(pm))
		return error_set(err, EINVAL, "piix4-pm: mapped is 1, but the registers are disabled or nowhere");
	return pci_loaded(&pm->pci, err);
}

static void pm_attach(struct device *device)
{
	struct piix4_pm *pm = (struct piix4_pm *)device;

	pci_attach(&pm->pci);
	if (pm->mapped)
		map_registers(pm);
	timer_arm(&pm->timer, pm->timer_at);
}

STATE_DESC(pm_state_desc, "piix4-pm", 1, struct piix4_pm, PM_RECORD, .loaded = pm_loaded);

static const struct device_ops pm_ops = {
	.state = &pm_state_desc, .reset = pm_reset, .attach = pm_attach, .destroy = pm_destroy
};

static int pm_create(struct bus *bus, struct error *err)
{
	struct piix4_pm *pm = calloc(1, sizeof(*pm));
	struct pci_device *pci = &pm->pci;
	int result;

	if (!pm)
		return error_set(err, ENOMEM, "out of memory for power management");
	device_init(&pci->device, bus, "piix4-pm", &pm_ops);
	device_timer_init(&pci->device, &pm->timer, "acpi-pm", timer_overflow, pm);
	pci_init_config(pci, 0x8086, 0x7113, 0x06800003, 0, 0, 1);
	pci->config[0x3c] = ACPI_SCI_IRQ;
	store_le16(&pci->config[0x06], 0x0280);
	store_le32(&pci->config[PMBA], bus->firmware ? 1 : ACPI_PM_BASE | 1);
	store_le16(&pci->config_mask[PMBA], 0xffc0);
	/* Firmware takes it for a sign that somebody has set up SMM, and leaves alone what is not there. */
	store_le32(&pci->config[DEVACTB], BIT(25));
	pci->config[PMREGMISC] = !bus->firmware;
	pci->config_mask[PMREGMISC] = 1;
	pci->config_written = pm_config_written;
	pm->sci = irq_isa_line(&pm->pci.device, ACPI_SCI_IRQ);
	pm->registers = (struct bus_range){ .size = PM_SIZE,
					    .sizes = 1 | 2 | 4,
					    .device = &pci->device,
					    .read = pm_read,
					    .write = pm_write,
					    .moves = true };
	pm->gpe0 = (struct bus_range){ .start = ACPI_GPE0_BASE,
				       .size = GPE0_SIZE,
				       .sizes = 1,
				       .device = &pci->device,
				       .read = gpe_read,
				       .write = gpe_write };
	pm->apm_ports = (struct bus_range){
		.start = APM_PORTS, .size = 2, .sizes = 1, .device = &pci->device, .read = apm_read, .write = apm_write
	};
	result = pci_add(bus, pci, PIIX_SLOT, 3, err);
	if (!result)
		result = bus_map(bus, BUS_PIO, &pm->gpe0, err);
	if (!result)
		result = bus_map(bus, BUS_PIO, &pm->apm_ports, err);
	if (result)
		return result;
	pm_reset(&pci->device);
	return 0;
}

static int piix_create(struct bus *bus, const void *options, struct error *err)
{
	int result = piix3_create(bus, err);

	(void)options;
	return result ? result : pm_create(bus, err);
}

const struct device_type piix_type = {
	.name = "piix",
	.help = "PIIX3 ISA bridge at 00:01.0 and PIIX4 power management (ACPI) at 00:01.3",
	.most = 1,
	.in_every_pc = true,
	.create = piix_create,
};
