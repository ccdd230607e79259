/*
 * Screens and who looks at them. A screen is drawn when somebody wants to see it: viewers, by a timer that runs faster while something changes and
 * not at all without viewers; or display_picture().
 */
#include "display/private.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define MS 1000000ull

/* From one draw to the next: while something changes, and did so in the last second; otherwise; at least, behind a key. */
#define PERIOD	       (33 * MS)
#define PERIOD_STILL   (200 * MS)
#define PERIOD_HURRY   (10 * MS)
#define DRAWS_A_SECOND 30

struct screen {
	struct display *display;
	const struct screen_ops *ops;
	void *opaque;
	struct picture picture; /* with room for the largest one */
	bool resized;		/* since viewers were told */
	bool active;		/* this draw has changed something */
	struct list node;
};

static struct screen *seen(struct display *d)
{
	return list_empty(&d->screens) ? NULL : list_entry(d->screens.prev, struct screen, node);
}

/* ---- drawing ---- */

static void draw(struct screen *s)
{
	struct viewer *v;

	s->active = false;
	s->ops->draw(s->opaque, s);
	if (!s->resized)
		return;
	s->resized = false;
	list_for_each (v, &s->display->viewers, node)
		v->ops->resized(v->opaque, &s->picture);
}

/* 0: never. */
static void arm(struct display *d, uint64_t ns)
{
	const struct itimerspec in = { .it_value.tv_nsec = (long)ns };

	BUG_ON(timerfd_settime(d->cadence.source.fd, 0, &in, NULL));
}

static void cadence_ready(void *opaque, short revents)
{
	struct display *d = opaque;
	struct screen *s = seen(d);
	uint64_t expired;

	(void)revents;
	if (read(d->cadence.source.fd, &expired, sizeof(expired)) < 0)
		return; /* armed anew meanwhile */
	if (s) {
		draw(s);
		d->cadence.still = s->active ? 0 : d->cadence.still + 1;
	}
	if (!list_empty(&d->viewers))
		arm(d, d->cadence.still < DRAWS_A_SECOND ? PERIOD : PERIOD_STILL);
}

void cadence_hurry(struct display *d)
{
	struct itimerspec left;

	if (list_empty(&d->viewers))
		return;
	d->cadence.still = 0;
	BUG_ON(timerfd_gettime(d->cadence.source.fd, &left));
	if ((uint64_t)left.it_value.tv_nsec > PERIOD_HURRY)
		arm(d, PERIOD_HURRY);
}

int cadence_init(struct display *d, struct error *err)
{
	d->cadence.source = (struct event_source){ .fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC),
						   .events = POLLIN,
						   .ready = cadence_ready,
						   .opaque = d };
	if (d->cadence.source.fd < 0)
		return error_set_errno(err, errno, "cannot create the display's timer");
	return 0;
}

void cadence_end(struct display *d) { close(d->cadence.source.fd); }

/* ---- screens ---- */

struct screen *screen_create(struct display *d, const struct screen_ops *ops, void *opaque)
{
	struct screen *s;

	if (!d)
		return NULL;
	s = calloc(1, sizeof(*s));
	/* What the guest never shows is never touched. */
	if (s)
		s->picture.pixels = calloc((size_t)PICTURE_MAX_WIDTH * PICTURE_MAX_HEIGHT, sizeof(*s->picture.pixels));
	if (!s || !s->picture.pixels) {
		log_error("no memory for a screen: the guest's is not to be seen");
		free(s);
		return NULL;
	}
	s->display = d;
	s->ops = ops;
	s->opaque = opaque;
	s->resized = true;
	list_append(&d->screens, &s->node);
	cadence_hurry(d);
	return s;
}

void screen_destroy(struct screen *s)
{
	if (!s)
		return;
	list_remove(&s->node);
	if (seen(s->display))
		seen(s->display)->resized = true;
	free(s->picture.pixels);
	free(s);
}

struct picture *screen_picture(struct screen *s) { return s ? &s->picture : NULL; }

void screen_set_size(struct screen *s, uint32_t width, uint32_t height)
{
	width = MIN(width, PICTURE_MAX_WIDTH);
	height = MIN(height, PICTURE_MAX_HEIGHT);
	if (!s || (width == s->picture.width && height == s->picture.height))
		return;
	s->picture.width = width;
	s->picture.height = height;
	memset(s->picture.pixels, 0, (size_t)width * height * sizeof(*s->picture.pixels));
	s->resized = s->active = true;
}

void screen_changed(struct screen *s, struct rectangle r)
{
	struct viewer *v;

	if (!s || r.x >= s->picture.width || r.y >= s->picture.height || !r.width || !r.height)
		return;
	r.width = MIN(r.width, s->picture.width - r.x);
	r.height = MIN(r.height, s->picture.height - r.y);
	s->active = true;
	if (s->resized || s != seen(s->display))
		return;
	list_for_each (v, &s->display->viewers, node)
		v->ops->changed(v->opaque, &s->picture, r);
}

/* ---- viewers ---- */

void viewer_add(struct display *d, struct viewer *v)
{
	if (list_empty(&d->viewers)) {
		event_loop_add(d->loop, &d->cadence.source);
		arm(d, PERIOD_HURRY);
	}
	d->cadence.still = 0;
	list_append(&d->viewers, &v->node);
}

void viewer_remove(struct display *d, struct viewer *v)
{
	list_remove(&v->node);
	if (!list_empty(&d->viewers))
		return;
	arm(d, 0);
	event_loop_remove(d->loop, &d->cadence.source);
}

const struct picture *display_picture(struct display *d)
{
	struct screen *s = seen(d);

	if (!s)
		return NULL;
	draw(s);
	return &s->picture;
}

const struct picture *display_seen(struct display *d)
{
	struct screen *s = seen(d);

	return s ? &s->picture : NULL;
}

bool display_read_text(struct display *d, struct text_picture *text)
{
	struct screen *s = seen(d);

	return s && s->ops->read_text && s->ops->read_text(s->opaque, text);
}

void display_wish_size(struct display *d, uint32_t width, uint32_t height)
{
	struct screen *s = seen(d);

	if (s && s->ops->wish_size)
		s->ops->wish_size(s->opaque, width, height);
}
