/*
 * What an 8042 has at its two ports: devices that take a byte and answer with bytes, when the controller fetches them. All run under the controller's
 * lock.
 */
#ifndef DOPPEL_DEVICES_PS2_H
#define DOPPEL_DEVICES_PS2_H

#include "devices/devices.h"
#include "display/display.h"

/* The 11 bits of a byte, at the fastest clock that the devices may have, 16.7 kHz. */
#define PS2_BYTE_NS 660000ull
/* A device's self-test behind a reset. Real ones take half a second, which nobody depends on. */
#define PS2_SELF_TEST_NS 3000000ull

#define PS2_ACKNOWLEDGE 0xfa
#define PS2_RESEND	0xfe
#define PS2_SELF_TESTED 0xaa
#define PS2_ERROR	0xfc

struct kbc;
struct ps2_device;

struct ps2_ops {
	void (*write)(struct ps2_device *, uint8_t byte);
	/* The next byte that it has. False: none. */
	bool (*take)(struct ps2_device *, uint8_t *byte);
	bool (*waits)(const struct ps2_device *);
};

struct ps2_device {
	struct device device;
	const struct ps2_ops *ops;
	struct kbc *kbc;
};

/* Plugs it in, where it stays for as long as the controller is there. */
int ps2_keyboard_create(struct kbc *, struct error *);
int ps2_mouse_create(struct kbc *, struct error *);

/* kbc.c: of a device that is zero but for its own; port 0 is the keyboard's, 1 the mouse's. */
void ps2_init(struct ps2_device *, struct kbc *, unsigned port, const char *name, const struct device_ops *,
	      const struct ps2_ops *);
/* It may have a byte now. */
void ps2_ready(struct ps2_device *);
/* What the controller makes of a code of set 2: one of set 1. */
uint8_t ps2_translate(uint8_t code);

/* The first of some bytes, which is taken out. */
static inline bool ps2_shift(uint8_t *bytes, uint8_t *count, uint8_t *byte)
{
	if (!*count)
		return false;
	*byte = bytes[0];
	memmove(bytes, bytes + 1, --*count);
	return true;
}

#endif
