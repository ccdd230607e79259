/* Characters, keysyms and scan codes to keys. */
#ifndef DOPPEL_DISPLAY_KEYMAP_H
#define DOPPEL_DISPLAY_KEYMAP_H

#include "display/private.h"

#include <uchar.h>

#define KEYMAP_CHARACTER(unicode) (0x1000000u + (unicode)) /* its keysym */

struct keymap_key {
	unsigned code;
	bool character; /* it has others with other modifiers, so that these are to be as here: */
	bool shift, alt_gr;
	bool letter; /* Caps Lock is as good as Shift */
};

static inline bool keymap_wants_shift(const struct keymap_key *key, unsigned lamps)
{
	return key->shift ^ (key->letter && (lamps & LAMP_CAPS));
}

/* NULL: there is none of that name. */
const struct keymap *keymap_find(const char *name);
/* The key of an X11 keysym. A character's is KEYMAP_CHARACTER(). False: no key has it. */
bool keymap_keysym(const struct keymap *, uint32_t keysym, struct keymap_key *);
/* The key of a code of set 1, with bit 7 for those behind 0xe0. 0: there is none. */
unsigned keymap_set_1(uint32_t code);

#endif
