/* display: what its files share. */
#ifndef DOPPEL_DISPLAY_PRIVATE_H
#define DOPPEL_DISPLAY_PRIVATE_H

#include "display/display.h"

#include <linux/input-event-codes.h>

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
	struct input *pressed[KEY_CNT]; /* keys and buttons that are down: who was told */
	bool placed;			/* an absolute place came that nobody wanted as such */
	uint32_t place_x, place_y;	/* this one, in points of the picture */
	_Atomic unsigned lamps;
	const struct keymap *keymap;
	struct list servers;
	struct text *text; /* NULL: none */
	void (*quit)(void *opaque);
	void *quit_opaque;
};

/* server.c */
void servers_close(struct display *);

/* As it was drawn last; NULL: there is no screen. */
const struct picture *display_seen(struct display *);

int cadence_init(struct display *, struct error *);
void cadence_end(struct display *);
/* Something was typed or pointed at: what the guest makes of it is soon to be seen. */
void cadence_hurry(struct display *);

#endif
