/* HTTP and WebSockets (RFC 6455) as far as the viewer's page needs them, between bytes: knows no sockets. */
#ifndef DOPPEL_DISPLAY_WEB_H
#define DOPPEL_DISPLAY_WEB_H

#include "display/rfb.h"

struct web;
/* token: who does not say it gets nothing; the caller's. NULL: no memory. */
struct web *web_create(const char *token);
void web_destroy(struct web *);
/*
 * What came; answers are added to *out. What it was about is passed on. An error, of payload() too: the connection is over, when the answers are sent.
 */
int web_receive(struct web *, const uint8_t *, size_t, struct bytes *out,
		int (*payload)(void *opaque, const uint8_t *, size_t), void *opaque);
/* Is it a WebSocket by now? */
bool web_is_open(const struct web *);
/* A message of these bytes. */
bool web_wrap(const struct bytes *message, struct bytes *out);

#endif
