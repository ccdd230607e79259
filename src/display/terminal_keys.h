/* What a terminal sends for keys. */
#ifndef DOPPEL_DISPLAY_TERMINAL_KEYS_H
#define DOPPEL_DISPLAY_TERMINAL_KEYS_H

#include "base/base.h"

struct terminal_key {
	uint32_t character; /* of Unicode; 0: none, but */
	unsigned code;	    /* Linux's */
	bool shift, ctrl, alt;
};

/* Begins as zeros. */
struct terminal_keys {
	uint8_t bytes[32]; /* of a key that is not complete */
	unsigned size;
};

/* True: with this byte it is a key. */
bool terminal_keys_add(struct terminal_keys *, uint8_t byte, struct terminal_key *);
/* Nothing followed for a while: what there is is all. True: that is a key, Esc for one. */
bool terminal_keys_end(struct terminal_keys *, struct terminal_key *);

#endif
