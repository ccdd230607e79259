/*
 * Looking out awake: a thread that expects something soon does better not to sleep, since it takes some tens of microseconds to be woken. For as long as that pays: who often looked in
 * vain does so seldom.
 */
#ifndef DOPPEL_NET_LOOK_OUT_H
#define DOPPEL_NET_LOOK_OUT_H

#include "base/base.h"
#include "host/host.h"

struct look_out {
	unsigned trust, skipped;
};
#define LOOK_OUT_TRUST 8u  /* so often in vain, and it does not pay */
#define LOOK_OUT_AGAIN 32u /* times that are let go by then */

static inline bool look_out_pays(struct look_out *l)
{
	if (!l->trust && ++l->skipped < LOOK_OUT_AGAIN)
		return false;
	l->skipped = 0;
	return true;
}

static inline void look_out_ended(struct look_out *l, bool came)
{
	if (came)
		l->trust = MIN(l->trust + 2, LOOK_OUT_TRUST);
	else if (l->trust)
		l->trust--;
}

static inline void look_out_pause(void) { __builtin_ia32_pause(); }

#endif
