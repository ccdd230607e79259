#include "display/keymap.h"
#include "display/text.h"

#include <errno.h>
#include <stdlib.h>

struct display *display_create(struct event_loop *loop, struct error *err)
{
	struct display *d = calloc(1, sizeof(*d));

	if (!d) {
		error_set_errno(err, ENOMEM, "create a display");
		return NULL;
	}
	d->loop = loop;
	list_init(&d->screens);
	list_init(&d->viewers);
	list_init(&d->inputs);
	list_init(&d->servers);
	d->keymap = keymap_find("us");
	if (cadence_init(d, err)) {
		free(d);
		return NULL;
	}
	return d;
}

void display_on_quit(struct display *d, void (*quit)(void *), void *opaque)
{
	d->quit = quit;
	d->quit_opaque = opaque;
}

void display_end(struct display *d)
{
	text_close(d->text);
	d->text = NULL;
}

void display_destroy(struct display *d)
{
	if (!d)
		return;
	display_end(d);
	servers_close(d);
	BUG_ON(!list_empty(&d->screens) || !list_empty(&d->viewers) || !list_empty(&d->inputs));
	event_loop_cancel_posts(d->loop, d);
	cadence_end(d);
	free(d);
}
