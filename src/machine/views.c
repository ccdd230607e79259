/*
 * Who looks at a machine's screen besides its devices' business: what its configuration asks for.
 */
#include "machine/private.h"

int views_open(struct machine *m, struct error *err)
{
	for (unsigned n = 0; n < m->config.screenshot_count; n++) {
		m->screenshots[n] = screenshot_open(m->display, m->loop, m->config.screenshots[n], err);
		if (!m->screenshots[n])
			return -err->code;
	}
	return 0;
}

void views_end(struct machine *m)
{
	for (unsigned n = 0; n < m->config.screenshot_count; n++)
		screenshot_end(m->screenshots[n]);
}

void views_close(struct machine *m)
{
	for (unsigned n = 0; n < m->config.screenshot_count; n++)
		screenshot_close(m->screenshots[n]);
}
