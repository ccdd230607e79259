/*
 * The DSDT's definition block: what an operating system cannot find out by itself about this PC: the root bus and its windows, how
 * PCI interrupt pins reach the interrupt controllers, the legacy devices, virtio devices that are not on PCI, the processors, how to power off.
 */
#include "boot/dsdt.h"

/* The end of the 32-bit window for PCI memory, before the IOAPIC. */
#define PCI_WINDOW_LAST 0xfebfffffu

static const char *const link_names[PC_PIRQS] = { "LNKA", "LNKB", "LNKC", "LNKD" };
static const char *const link_fields[PC_PIRQS] = { "PRQ0", "PRQ1", "PRQ2", "PRQ3" };
static const char *const link_paths[PC_PIRQS] = {
	"\\_SB_.PCI0.ISA_.PRQ0",
	"\\_SB_.PCI0.ISA_.PRQ1",
	"\\_SB_.PCI0.ISA_.PRQ2",
	"\\_SB_.PCI0.ISA_.PRQ3",
};
#define LINK_DISABLED 0x80 /* bit 7 of a PIIX3's PIRQ route control register */

static void power_states(struct aml *aml)
{
	size_t package;

	aml_name(aml, "\\_S5_");
	package = aml_package(aml, 4);
	aml_integer(aml, ACPI_SLP_TYP_S5);
	aml_integer(aml, ACPI_SLP_TYP_S5);
	aml_integer(aml, 0);
	aml_integer(aml, 0);
	aml_end(aml, package);
}

/* Firmware gives out what is above RAM, but nothing of the first half. */
static uint32_t pci_window_first(const struct pc *pc) { return (uint32_t)MAX(MIN(pc->memory, MEM_LOW_TOP), BIT(31)); }

static void root_bus_windows(struct aml *aml, const struct pc *pc)
{
	size_t resources;

	aml_name(aml, "_CRS");
	resources = aml_resources(aml);
	aml_resource_bus_numbers(aml, 0, 0xff);
	aml_resource_io(aml, 0xcf8, 8);
	aml_resource_io_window(aml, 0, 0xcf7);
	aml_resource_io_window(aml, 0xd00, 0xffff);
	aml_resource_memory_window(aml, 0xa0000, 0xbffff, true);
	aml_resource_memory_window(aml, pci_window_first(pc), PCI_WINDOW_LAST, false);
	if (pc->window_last)
		aml_resource_wide_window(aml, pc->window_first, pc->window_last);
	aml_resources_end(aml, resources);
}

/* Present when its modem control register does not read as what nobody answers: the upper bits of a real one are 0. */
static void serial_port(struct aml *aml, const char *name, unsigned n)
{
	static const char *const fields[] = { "MCR_" };
	size_t device = aml_device(aml, name), method, condition, resources;
	unsigned port = pc_serial_port(n);

	aml_name_eisa_id(aml, "_HID", "PNP0501");
	aml_name_integer(aml, "_UID", n + 1);
	aml_region(aml, "REGS", AML_SYSTEM_IO, port + 4, 1);
	aml_byte_fields(aml, "REGS", fields, 1);
	method = aml_method(aml, "_STA", 0);
	condition = aml_if(aml);
	aml_byte(aml, AML_LEQUAL);
	aml_path(aml, "MCR_");
	aml_integer(aml, 0xff);
	aml_byte(aml, AML_RETURN);
	aml_integer(aml, 0);
	aml_end(aml, condition);
	aml_byte(aml, AML_RETURN);
	aml_integer(aml, 0xf);
	aml_end(aml, method);
	aml_name(aml, "_CRS");
	resources = aml_resources(aml);
	aml_resource_io(aml, port, 8);
	aml_resource_irq(aml, pc_serial_irq(n));
	aml_resources_end(aml, resources);
	aml_end(aml, device);
}

static void real_time_clock(struct aml *aml)
{
	size_t device = aml_device(aml, "RTC_"), resources;

	aml_name_eisa_id(aml, "_HID", "PNP0B00");
	aml_name(aml, "_CRS");
	resources = aml_resources(aml);
	aml_resource_io(aml, 0x70, 2);
	aml_resource_irq(aml, 8);
	aml_resources_end(aml, resources);
	aml_end(aml, device);
}

/* The 8042's ports are the keyboard's resources, the mouse has its interrupt alone. */
static void keyboard_and_mouse(struct aml *aml)
{
	size_t device = aml_device(aml, "KBD_"), resources;

	aml_name_eisa_id(aml, "_HID", "PNP0303");
	aml_name(aml, "_CRS");
	resources = aml_resources(aml);
	aml_resource_io(aml, 0x60, 1);
	aml_resource_io(aml, 0x64, 1);
	aml_resource_irq(aml, 1);
	aml_resources_end(aml, resources);
	aml_end(aml, device);
	device = aml_device(aml, "MOU_");
	aml_name_eisa_id(aml, "_HID", "PNP0F13");
	aml_name(aml, "_CRS");
	resources = aml_resources(aml);
	aml_resource_irq(aml, 12);
	aml_resources_end(aml, resources);
	aml_end(aml, device);
}

/* The PIIX3 in slot 1 and what is on its ISA bus. */
static void isa_bridge(struct aml *aml)
{
	size_t device = aml_device(aml, "ISA_");

	aml_name_integer(aml, "_ADR", PIIX_SLOT << 16);
	aml_region(aml, "PIRQ", AML_PCI_CONFIG, PIIX_PIRQRC, PC_PIRQS);
	aml_byte_fields(aml, "PIRQ", link_fields, PC_PIRQS);
	serial_port(aml, "COM1", 0);
	serial_port(aml, "COM2", 1);
	real_time_clock(aml);
	keyboard_and_mouse(aml);
	aml_end(aml, device);
}

static void link_status(struct aml *aml, const char *field)
{
	size_t method = aml_method(aml, "_STA", 0), condition = aml_if(aml);

	aml_byte(aml, AML_AND);
	aml_path(aml, field);
	aml_integer(aml, LINK_DISABLED);
	aml_byte(aml, AML_ZERO);
	aml_byte(aml, AML_RETURN);
	aml_integer(aml, 0x9); /* present, functioning, not enabled */
	aml_end(aml, condition);
	aml_byte(aml, AML_RETURN);
	aml_integer(aml, 0xb);
	aml_end(aml, method);
}

/* Offset of the interrupt number in a resource template of one extended interrupt descriptor. */
#define INTERRUPT_NUMBER 5

static void link_current(struct aml *aml, const char *field)
{
	const uint32_t none = 0;
	size_t method = aml_method(aml, "_CRS", 0), resources, condition;

	aml_name(aml, "BUFF");
	resources = aml_resources(aml);
	aml_resource_interrupts(aml, &none, 1);
	aml_resources_end(aml, resources);
	aml_create_dword_field(aml, "BUFF", INTERRUPT_NUMBER, "NUMB");
	condition = aml_if(aml);
	aml_byte(aml, AML_LLESS);
	aml_path(aml, field);
	aml_integer(aml, LINK_DISABLED);
	aml_byte(aml, AML_STORE);
	aml_path(aml, field);
	aml_path(aml, "NUMB");
	aml_end(aml, condition);
	aml_byte(aml, AML_RETURN);
	aml_path(aml, "BUFF");
	aml_end(aml, method);
}

static void link_set(struct aml *aml, const char *field)
{
	size_t method = aml_method(aml, "_DIS", 0);

	aml_byte(aml, AML_OR);
	aml_path(aml, field);
	aml_integer(aml, LINK_DISABLED);
	aml_path(aml, field);
	aml_end(aml, method);

	method = aml_method(aml, "_SRS", 1);
	aml_create_dword_field(aml, NULL, INTERRUPT_NUMBER, "NUMB");
	aml_byte(aml, AML_STORE);
	aml_path(aml, "NUMB");
	aml_path(aml, field);
	aml_end(aml, method);
}

/* A PIRQ of the PIIX3 as an interrupt link device (ACPI 6.4, 6.2.13): steered to one of three ISA lines. */
static void link_device(struct aml *aml, unsigned pirq)
{
	static const uint32_t lines[] = PIIX_PIRQ_CHOICES;
	size_t device = aml_device(aml, link_names[pirq]), resources;

	aml_name_eisa_id(aml, "_HID", "PNP0C0F");
	aml_name_integer(aml, "_UID", pirq);
	aml_name(aml, "_PRS");
	resources = aml_resources(aml);
	aml_resource_interrupts(aml, lines, ARRAY_SIZE(lines));
	aml_resources_end(aml, resources);
	link_status(aml, link_paths[pirq]);
	link_current(aml, link_paths[pirq]);
	link_set(aml, link_paths[pirq]);
	aml_end(aml, device);
}

static void interrupt_routing(struct aml *aml)
{
	size_t scope = aml_scope(aml, "\\_SB_.PCI0"), table;

	aml_name(aml, "_PRT");
	table = aml_package(aml, PC_PCI_SLOTS * PC_PCI_PINS);
	for (unsigned slot = 0; slot < PC_PCI_SLOTS; slot++) {
		for (unsigned pin = 0; pin < PC_PCI_PINS; pin++) {
			size_t entry = aml_package(aml, 4);

			aml_integer(aml, slot << 16 | 0xffff);
			aml_integer(aml, pin);
			aml_path(aml, link_names[pc_pirq(slot, pin)]);
			aml_integer(aml, 0);
			aml_end(aml, entry);
		}
	}
	aml_end(aml, table);
	aml_end(aml, scope);
}

static void processors(struct aml *aml, unsigned cpu_count)
{
	for (unsigned i = 0; i < cpu_count; i++) {
		char name[8];

		snprintf(name, sizeof(name), "C%03X", i & 0xfff);
		aml_processor(aml, name, i);
	}
}

/* A virtio device that is not on PCI, by the ID that Linux, QEMU and Firecracker have for such. */
static void virtio_device(struct aml *aml, unsigned window)
{
	const uint32_t line = VIRTIO_MMIO_LINE(window);
	size_t device, resources;
	char name[8];

	snprintf(name, sizeof(name), "V%03X", window & 0xfff);
	device = aml_device(aml, name);
	aml_name_string(aml, "_HID", "LNRO0005");
	aml_name_integer(aml, "_UID", window);
	aml_name(aml, "_CRS");
	resources = aml_resources(aml);
	aml_resource_memory(aml, VIRTIO_MMIO_ADDRESS(window), VIRTIO_MMIO_SIZE);
	aml_resource_interrupts(aml, &line, 1);
	aml_resources_end(aml, resources);
	aml_end(aml, device);
}

/* By the ID that QEMU gave it. */
static void firmware_configuration(struct aml *aml)
{
	size_t device = aml_device(aml, "FWCF"), resources;

	aml_name_string(aml, "_HID", "QEMU0002");
	aml_name_integer(aml, "_STA", 0xb); /* nothing that a user would be shown */
	aml_name(aml, "_CRS");
	resources = aml_resources(aml);
	aml_resource_io(aml, FW_CFG_PORT, FW_CFG_PORTS);
	aml_resources_end(aml, resources);
	aml_end(aml, device);
}

static void event_timers(struct aml *aml)
{
	size_t device = aml_device(aml, "HPET"), resources;

	aml_name_eisa_id(aml, "_HID", "PNP0103");
	aml_name_integer(aml, "_UID", 0);
	aml_name(aml, "_CRS");
	resources = aml_resources(aml);
	aml_resource_memory(aml, HPET_ADDRESS, HPET_SIZE);
	aml_resources_end(aml, resources);
	aml_end(aml, device);
}

/* "Virtual Machine Generation ID", a paper of Microsoft's. The first ID is QEMU's, the drivers go by the second. */
static void generation_id(struct aml *aml)
{
	size_t device = aml_device(aml, "VGEN"), package;

	aml_name_string(aml, "_HID", "QEMUVGID");
	aml_name_string(aml, "_CID", "VM_Gen_Counter");
	aml_name_string(aml, "_DDN", "VM_Gen_Counter");
	aml_name(aml, "ADDR");
	package = aml_package(aml, 2);
	aml_integer(aml, VMGENID_ADDRESS);
	aml_integer(aml, 0);
	aml_end(aml, package);
	aml_end(aml, device);
}

/* "_E05", of VMGENID_EVENT: that it is another one */
static void generation_event(struct aml *aml)
{
	size_t scope = aml_scope(aml, "\\_GPE"), method;

	_Static_assert(VMGENID_EVENT == 5, "the method's name");
	method = aml_method(aml, "_E05", 0);
	aml_byte(aml, AML_NOTIFY);
	aml_path(aml, "\\_SB_.VGEN");
	aml_integer(aml, 0x80);
	aml_end(aml, method);
	aml_end(aml, scope);
}

void dsdt_build(struct aml *aml, const struct pc *pc)
{
	size_t system_bus, root_bus;

	power_states(aml);
	system_bus = aml_scope(aml, "\\_SB_");
	processors(aml, pc->cpu_count);
	root_bus = aml_device(aml, "PCI0");
	aml_name_eisa_id(aml, "_HID", "PNP0A03");
	aml_name_integer(aml, "_UID", 0);
	root_bus_windows(aml, pc);
	isa_bridge(aml);
	if (pc->fw_cfg)
		firmware_configuration(aml);
	aml_end(aml, root_bus);
	for (unsigned pirq = 0; pirq < PC_PIRQS; pirq++)
		link_device(aml, pirq);
	for (unsigned window = 0; window < VIRTIO_MMIO_WINDOWS; window++)
		if (pc->virtio_windows & 1u << window)
			virtio_device(aml, window);
	if (pc->hpet)
		event_timers(aml);
	if (pc->vmgenid)
		generation_id(aml);
	aml_end(aml, system_bus);
	if (pc->vmgenid)
		generation_event(aml);
	interrupt_routing(aml);
}
