/*
 * What the machine is, for those who write tables about it; and where such tables go.
 */
#include "boot/pc.h"
#include "boot/private.h"

static const struct {
	uint16_t port;
	uint8_t irq;
} serial_places[UART_COUNT] = {
#define _(port, irq) { port, irq },
	UART_PLACES(_)
#undef _
};

/* Four bits, one value of which means all. */
#define IOAPIC_ID_MAX 14

void pc_describe(struct pc *pc, const struct boot_config *config, const struct guest_mem *mem)
{
	*pc = (struct pc){
		.cpu_count = config->cpu_count,
		.cpu_signature = config->cpu_signature,
		.cpu_features = config->cpu_features,
		.serial_ports = config->serial_ports,
		.virtio_windows = config->virtio_windows,
		.memory = mem->ram_size,
		.pm_base = ACPI_PM_BASE,
		.fw_cfg = config->fw_cfg,
		.hpet = config->hpet,
		.vmgenid = config->vmgenid,
		.smbios = config->smbios,
		.smbios_count = config->smbios_count,
		.ioapic_id = boot_ioapic_id(config->cpu_count),
	};
}

uint8_t boot_ioapic_id(unsigned cpu_count) { return cpu_count <= IOAPIC_ID_MAX ? (uint8_t)cpu_count : 0; }

uint16_t pc_serial_port(unsigned n) { return serial_places[n].port; }

uint8_t pc_serial_irq(unsigned n) { return serial_places[n].irq; }

/* Input 2 is free because the 8259s cascade there. */
unsigned pc_ioapic_input(unsigned isa_line) { return isa_line ? isa_line : 2; }

bool pc_line_is_level(unsigned isa_line)
{
	static const uint8_t choices[] = PIIX_PIRQ_CHOICES;

	for (unsigned i = 0; i < ARRAY_SIZE(choices); i++)
		if (choices[i] == isa_line)
			return true;
	return isa_line == ACPI_SCI_IRQ;
}

unsigned pc_pirq(unsigned slot, unsigned pin) { return (slot + pin + 3) & 3; }

unsigned pc_pirq_line(unsigned pirq)
{
	static const uint8_t lines[PC_PIRQS] = PIIX_PIRQ_LINES;

	return lines[pirq];
}

uint32_t table_place(struct table_area *area, const void *data, size_t size, unsigned alignment)
{
	uint64_t where = align_up(area->next, alignment);

	BUG_ON(!range_ok(where, size, area->end));
	boot_write(area->mem, where, data, size);
	area->next = where + size;
	return (uint32_t)where;
}

uint8_t table_checksum(const void *data, size_t size)
{
	const uint8_t *p = data;
	uint8_t sum = 0;

	while (size--)
		sum = (uint8_t)(sum + *p++);
	return (uint8_t)-sum;
}
