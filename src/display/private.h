/* display: what its files share. */
#ifndef DOPPEL_DISPLAY_PRIVATE_H
#define DOPPEL_DISPLAY_PRIVATE_H

#include "display/display.h"

/* When the seen screen is drawn: a one-shot timer that is armed while there are viewers. */
struct cadence {
	struct event_source source; /* a timerfd */
	unsigned still;		    /* draws in a row that changed nothing */
};

struct display {
	struct event_loop *loop;
	struct list screens; /* the last one is seen */
	struct list viewers;
	struct cadence cadence;
	struct list inputs;
	_Atomic unsigned lamps;
};

int cadence_init(struct display *, struct error *);
void cadence_end(struct display *);
/* Something was typed or pointed at: what the guest makes of it is soon to be seen. */
void cadence_hurry(struct display *);

#endif
