/*
 * What viewers type and point at goes to the devices that accept it. A key or button that is let go of goes where it was pressed, wherever others go
 * meanwhile.
 */
#include "display/private.h"

#include <linux/input-event-codes.h>

void input_add(struct display *d, struct input *input)
{
	input->happened = false;
	if (d)
		list_append(&d->inputs, &input->node);
}

void input_remove(struct display *d, struct input *input)
{
	if (!d)
		return;
	list_remove(&input->node);
	for (unsigned code = 0; code < ARRAY_SIZE(d->pressed); code++)
		if (d->pressed[code] == input)
			d->pressed[code] = NULL;
}

/* NULL: nobody wants it. */
static struct input *receiver(struct display *d, enum input_kind kind)
{
	struct input *input;

	list_for_each_reverse (input, &d->inputs, node)
		if (input->kind == kind && !atomic_load_explicit(&input->unwanted, memory_order_relaxed))
			return input;
	return NULL;
}

/* The wheel and the buttons are of what points. */
static struct input *pointer(struct display *d)
{
	struct input *absolute = receiver(d, INPUT_ABSOLUTE);

	return absolute ? absolute : receiver(d, INPUT_RELATIVE);
}

bool display_points_absolutely(struct display *d) { return receiver(d, INPUT_ABSOLUTE); }

/* Who gets it; NULL: nobody, or nothing changes. Viewers repeat keys that are held, devices or guests do that themselves. */
static struct input *press(struct display *d, struct input *to, unsigned code, bool down)
{
	struct input *held;

	if (code >= ARRAY_SIZE(d->pressed))
		return NULL;
	held = d->pressed[code];
	if (down && held)
		return NULL;
	d->pressed[code] = down ? to : NULL;
	to = down ? to : held;
	if (to)
		to->happened = true;
	return to;
}

void display_key(struct display *d, unsigned code, bool down)
{
	struct input *to = press(d, receiver(d, INPUT_KEYS), code, down);

	if (to)
		to->ops->key(to->opaque, code, down);
}

void display_button(struct display *d, unsigned code, bool down)
{
	struct input *to = press(d, pointer(d), code, down);

	if (to)
		to->ops->button(to->opaque, code, down);
}

void display_move(struct display *d, int32_t x, int32_t y)
{
	struct input *to = receiver(d, INPUT_RELATIVE);

	if (!to || !(x || y))
		return;
	to->happened = true;
	to->ops->move(to->opaque, x, y);
}

/* In points of the picture, which are a mouse's counts. */
static void place_relatively(struct display *d, uint32_t x, uint32_t y)
{
	const struct picture *picture = display_seen(d);
	uint32_t width = picture ? picture->width : 0, height = picture ? picture->height : 0;

	x = (uint32_t)((uint64_t)x * width / INPUT_PLACES);
	y = (uint32_t)((uint64_t)y * height / INPUT_PLACES);
	if (d->placed)
		display_move(d, (int32_t)(x - d->place_x), (int32_t)(y - d->place_y));
	d->placed = true;
	d->place_x = x;
	d->place_y = y;
}

void display_place(struct display *d, uint32_t x, uint32_t y)
{
	struct input *to = receiver(d, INPUT_ABSOLUTE);

	x = MIN(x, INPUT_PLACES - 1u);
	y = MIN(y, INPUT_PLACES - 1u);
	if (!to) {
		place_relatively(d, x, y);
		return;
	}
	to->happened = true;
	to->ops->place(to->opaque, x, y);
}

void display_wheel(struct display *d, int32_t up)
{
	struct input *to = pointer(d);

	if (!to || !up)
		return;
	to->happened = true;
	to->ops->wheel(to->opaque, up);
}

void display_complete(struct display *d)
{
	struct input *input;

	list_for_each (input, &d->inputs, node) {
		if (input->happened && input->ops->complete)
			input->ops->complete(input->opaque);
		input->happened = false;
	}
	cadence_hurry(d);
}

/* ---- lamps ---- */

static void tell_lamps(void *opaque)
{
	struct display *d = opaque;
	struct viewer *v;

	list_for_each (v, &d->viewers, node)
		if (v->ops->lamps)
			v->ops->lamps(v->opaque, display_lamps(d));
}

void display_set_lamps(struct display *d, unsigned lamps)
{
	if (atomic_exchange(&d->lamps, lamps) != lamps)
		event_loop_post(d->loop, tell_lamps, d);
}

unsigned display_lamps(struct display *d) { return atomic_load(&d->lamps); }
