/*
 * A PCI function with nothing of its own but what PCI asks of it. Included behind struct card, whose first member is its struct pci_device, and
 * behind CARD_STATE, if its record has more than that.
 */
#ifndef TESTS_CARD_H
#define TESTS_CARD_H

#include "bus/bus.h"

#include <stdlib.h>

static void card_reset(struct device *device) { pci_reset((struct pci_device *)device); }

static void card_destroy(struct device *device)
{
	pci_remove((struct pci_device *)device);
	free(device);
}

static int card_loaded(void *object, uint16_t version, struct error *err)
{
	(void)version;
	return pci_loaded(object, err);
}

static void card_attach(struct device *device) { pci_attach((struct pci_device *)device); }

#ifndef CARD_STATE
#define CARD_STATE PCI_CONFIG_STATE
#endif
STATE_DESC(card_state_desc, "card", 1, struct card, CARD_STATE, .loaded = card_loaded);

static const struct device_ops card_ops = {
	.state = &card_state_desc, .reset = card_reset, .attach = card_attach, .destroy = card_destroy
};

#endif
