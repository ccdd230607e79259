/*
 * Who looks at a machine's screen besides its devices' business: what its configuration asks for.
 */
#include "machine/private.h"

static void quit(void *machine) { machine_quit(machine); }

static int open_displays(struct machine *m, struct error *err)
{
	const struct machine_config *c = &m->config;
	int rc = c->keyboard ? display_set_keyboard(m->display, c->keyboard, err) : 0;

	display_on_quit(m->display, quit, m);
	for (unsigned n = 0; !rc && n < c->display_count; n++) {
		rc = display_show(m->display, c->displays[n], err);
		if (rc)
			error_prefix(err, "--display %.128s", c->displays[n]);
	}
	return rc;
}

int views_open(struct machine *m, struct error *err)
{
	for (unsigned n = 0; n < m->config.screenshot_count; n++) {
		m->screenshots[n] = screenshot_open(m->display, m->loop, m->config.screenshots[n], err);
		if (!m->screenshots[n])
			return -err->code;
	}
	return open_displays(m, err);
}

void views_end(struct machine *m)
{
	for (unsigned n = 0; n < m->config.screenshot_count; n++)
		screenshot_end(m->screenshots[n]);
	display_end(m->display);
}

void views_close(struct machine *m)
{
	for (unsigned n = 0; n < m->config.screenshot_count; n++)
		screenshot_close(m->screenshots[n]);
}
