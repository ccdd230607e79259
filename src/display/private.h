/* display: what its files share. */
#ifndef DOPPEL_DISPLAY_PRIVATE_H
#define DOPPEL_DISPLAY_PRIVATE_H

#include "display/display.h"

struct display {
	struct event_loop *loop;
	struct list screens; /* the last one is seen */
	struct list viewers;
	struct list inputs;
	_Atomic unsigned lamps;
};

#endif
