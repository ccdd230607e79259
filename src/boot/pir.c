/*
 * The PCI interrupt routing table of a PC's BIOS, "$PIR" (Microsoft, PCI IRQ Routing Table Specification 1.0): for systems that use the
 * 8259 and no ACPI. To which PIRQ of the bridge each slot's pins go, and to which lines it may steer that.
 */
#include "boot/pc.h"

struct pir_pin {
	uint8_t link; /* here the bridge's register for the PIRQ */
	uint16_t lines;
} __attribute__((packed));

struct pir_slot {
	uint8_t bus, device; /* slot << 3 */
	struct pir_pin pins[PC_PCI_PINS];
	uint8_t number, reserved; /* 0: soldered on */
} __attribute__((packed));

struct pir {
	char signature[4];
	uint16_t version, size;
	uint8_t router_bus, router_device;
	uint16_t exclusive_lines;
	uint16_t vendor, device; /* of a router that this one is compatible with */
	uint32_t miniport;
	uint8_t reserved[11], checksum;
	struct pir_slot slots[PC_PCI_SLOTS];
} __attribute__((packed));

static uint16_t possible_lines(void)
{
	static const uint8_t choices[] = PIIX_PIRQ_CHOICES;
	uint16_t lines = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(choices); i++)
		lines |= (uint16_t)BIT(choices[i]);
	return lines;
}

void pir_build(struct table_area *area)
{
	struct pir pir = {
		.signature = { '$', 'P', 'I', 'R' },
		.version = 0x100,
		.size = sizeof(pir),
		.router_device = PIIX_SLOT << 3,
		.vendor = 0x8086,
		.device = 0x7000, /* PIIX3 */
	};

	for (unsigned slot = 0; slot < PC_PCI_SLOTS; slot++) {
		pir.slots[slot].device = (uint8_t)(slot << 3);
		pir.slots[slot].number = slot > PIIX_SLOT ? (uint8_t)slot : 0;
		for (unsigned pin = 0; pin < PC_PCI_PINS; pin++)
			pir.slots[slot].pins[pin] =
				(struct pir_pin){ (uint8_t)(PIIX_PIRQRC + pc_pirq(slot, pin)), possible_lines() };
	}
	pir.checksum = table_checksum(&pir, sizeof(pir));
	table_place(area, &pir, sizeof(pir), 16);
}
