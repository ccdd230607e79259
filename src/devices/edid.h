/* EDID 1.4, 128 bytes: what a monitor says of itself (VESA E-EDID Standard, release A). */
#ifndef DOPPEL_DEVICES_EDID_H
#define DOPPEL_DEVICES_EDID_H

#include "base/base.h"

#define EDID_SIZE 128
/* One that likes this size best, of at most 4095 either way, 60 times a second, and knows the usual ones. */
void edid_make(uint8_t edid[EDID_SIZE], uint32_t width, uint32_t height);

#endif
