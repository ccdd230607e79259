/* The screen's text on a terminal. */
#ifndef DOPPEL_DISPLAY_TEXT_H
#define DOPPEL_DISPLAY_TEXT_H

#include "display/private.h"

struct text;
/* Terminals, which stay the caller's; the one that is typed on is in raw mode until text_close(). */
struct text *text_open(struct display *, int in, int out, bool readonly, struct error *);
/* Its last picture stays there. NULL: nothing. */
void text_close(struct text *);

#endif
