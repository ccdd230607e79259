/*
 * A server of one page and of one WebSocket, of which each connection is one or the other. Both are only for who knows the token.
 */
#include "display/web.h"

#include <ctype.h>
#include <errno.h>
#include <nettle/base64.h>
#include <nettle/sha1.h>
#include <stdlib.h>

#define MOST_REQUEST 8192
#define MOST_CONTROL 125

extern const char web_page[], web_page_end[]; /* web_page.S */

enum { OP_MORE, OP_TEXT, OP_BINARY, OP_CLOSE = 8, OP_PING, OP_PONG };
#define FRAME_FINAL  BIT(7)
#define FRAME_RSV    0x70
#define FRAME_OPCODE 0x0f
#define FRAME_MASKED BIT(7) /* in the second byte */
#define LENGTH_16    126
#define LENGTH_64    127

struct web {
	const char *token;
	bool open;
	char request[MOST_REQUEST + 1];
	size_t request_size;
	/* The frame that comes: its head, then what is left of it. */
	uint8_t head[14];
	size_t head_size;
	bool in_payload;
	uint64_t left;
	uint64_t at; /* bytes of it that came, for the mask */
	uint8_t control[MOST_CONTROL];
};

/* ---- HTTP ---- */

static int respond(struct bytes *out, const char *status, const char *type, const char *body, size_t size)
{
	char head[512];
	int n = snprintf(
		head, sizeof(head),
		"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\n"
		"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
		"Content-Security-Policy: default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
		"img-src data:; connect-src 'self' ws: wss:; frame-ancestors 'none'\r\n\r\n",
		status, type, size);

	bytes_add(out, head, (size_t)n);
	bytes_add(out, body, size);
	return -ESHUTDOWN;
}

static int respond_text(struct bytes *out, const char *status, const char *text)
{
	return respond(out, status, "text/plain; charset=utf-8", text, strlen(text));
}

/* The value of a header, without blanks around it; its length. NULL: there is none. */
static const char *header(const char *request, const char *name, size_t *length)
{
	size_t n = strlen(name);

	for (const char *line = strstr(request, "\r\n"); line; line = strstr(line, "\r\n")) {
		line += 2;
		if (strncasecmp(line, name, n) != 0 || line[n] != ':')
			continue;
		line += n + 1;
		line += strspn(line, " \t");
		*length = strcspn(line, "\r\n");
		while (*length && isblank((unsigned char)line[*length - 1]))
			--*length;
		return line;
	}
	return NULL;
}

/* However much of it is right, it takes as long. */
static bool knows_token(const struct web *w, const char *query)
{
	static const char name[] = "token=";
	size_t length = strlen(w->token);
	unsigned differs = 0;

	if (strncmp(query, name, sizeof(name) - 1) != 0)
		return false;
	query += sizeof(name) - 1;
	if (strcspn(query, " &") != length)
		return false;
	for (size_t n = 0; n < length; n++)
		differs |= (unsigned)(query[n] ^ w->token[n]);
	return !differs;
}

/* RFC 6455, 4.2.2 */
static void accept_key(const char *key, size_t length, char answer[BASE64_ENCODE_RAW_LENGTH(SHA1_DIGEST_SIZE) + 1])
{
	static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
	uint8_t digest[SHA1_DIGEST_SIZE];
	struct sha1_ctx sha1;

	sha1_init(&sha1);
	sha1_update(&sha1, length, (const uint8_t *)key);
	sha1_update(&sha1, sizeof(guid) - 1, (const uint8_t *)guid);
	sha1_digest(&sha1, sizeof(digest), digest);
	base64_encode_raw(answer, sizeof(digest), digest);
	answer[BASE64_ENCODE_RAW_LENGTH(SHA1_DIGEST_SIZE)] = 0;
}

static int open_socket(struct web *w, struct bytes *out)
{
	char answer[BASE64_ENCODE_RAW_LENGTH(SHA1_DIGEST_SIZE) + 1], head[256];
	size_t length, version_length = 0, protocol_length;
	const char *key = header(w->request, "Sec-WebSocket-Key", &length);
	const char *version = header(w->request, "Sec-WebSocket-Version", &version_length);
	const char *protocol = header(w->request, "Sec-WebSocket-Protocol", &protocol_length);
	int n;

	if (!key || length > 64 || !version || version_length != 2 || memcmp(version, "13", 2) != 0)
		return respond_text(out, "400 Bad Request", "This is for WebSockets, version 13.\n");
	accept_key(key, length, answer);
	n = snprintf(head, sizeof(head),
		     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		     "Sec-WebSocket-Accept: %s\r\n%s\r\n",
		     answer,
		     protocol && protocol_length == 6 && !memcmp(protocol, "binary", 6)
			     ? "Sec-WebSocket-Protocol: binary\r\n"
			     : "");
	w->open = true;
	return bytes_add(out, head, (size_t)n) ? 0 : -ENOMEM;
}

static int serve_request(struct web *w, struct bytes *out)
{
	const char *target = w->request + 4, *query;
	bool socket;

	if (strncmp(w->request, "GET /", 5) != 0)
		return respond_text(out, "405 Method Not Allowed", "There is only GET.\n");
	socket = !strncmp(target, "/socket?", 8);
	query = socket ? target + 8 : !strncmp(target, "/?", 2) ? target + 2 : "";
	if (!knows_token(w, query))
		return respond_text(out, "403 Forbidden",
				    "The address has a token at its end, which doppel printed when it started.\n");
	if (socket)
		return open_socket(w, out);
	return respond(out, "200 OK", "text/html; charset=utf-8", web_page, (size_t)(web_page_end - web_page));
}

/* How much of it was the request's. */
static size_t add_to_request(struct web *w, const uint8_t *data, size_t size, bool *complete)
{
	for (size_t n = 0; n < size; n++) {
		if (w->request_size == MOST_REQUEST || !data[n])
			return 0;
		w->request[w->request_size++] = (char)data[n];
		if (w->request_size >= 4 && !memcmp(w->request + w->request_size - 4, "\r\n\r\n", 4)) {
			w->request[w->request_size] = 0;
			*complete = true;
			return n + 1;
		}
	}
	return size;
}

/* ---- frames ---- */

bool web_is_open(const struct web *w) { return w->open; }

static bool put_frame(struct bytes *out, unsigned opcode, const void *data, size_t size)
{
	uint8_t head[10] = { (uint8_t)(FRAME_FINAL | opcode), (uint8_t)size };
	size_t head_size = 2;

	if (size > UINT16_MAX) {
		head[1] = LENGTH_64;
		store_be64(head + 2, size);
		head_size = 10;
	} else if (size >= LENGTH_16) {
		head[1] = LENGTH_16;
		store_be16(head + 2, (uint16_t)size);
		head_size = 4;
	}
	return bytes_add(out, head, head_size) && bytes_add(out, data, size);
}

bool web_wrap(const struct bytes *message, struct bytes *out)
{
	return put_frame(out, OP_BINARY, message->data, message->size);
}

/* Of a frame's head, with its mask; 2 while that is not known. */
static size_t head_length(const struct web *w)
{
	unsigned length = w->head_size < 2 ? 0 : w->head[1] & ~FRAME_MASKED;

	return w->head_size < 2 ? 2 : length == LENGTH_64 ? 14 : length == LENGTH_16 ? 8 : 6;
}

static unsigned opcode(const struct web *w) { return w->head[0] & FRAME_OPCODE; }

static int begin_payload(struct web *w)
{
	unsigned length = w->head[1] & ~FRAME_MASKED;

	w->left = length == LENGTH_64 ? load_be64(w->head + 2) : length == LENGTH_16 ? load_be16(w->head + 2) : length;
	w->at = 0;
	w->in_payload = true;
	if (!(w->head[1] & FRAME_MASKED) || (w->head[0] & FRAME_RSV) || w->left >> 63)
		return -EPROTO;
	switch (opcode(w)) {
	case OP_MORE:
	case OP_BINARY: return 0;
	case OP_CLOSE:
	case OP_PING:
	case OP_PONG: return w->left <= MOST_CONTROL && (w->head[0] & FRAME_FINAL) ? 0 : -EPROTO;
	default: return -EPROTO;
	}
}

static int end_payload(struct web *w, struct bytes *out)
{
	w->in_payload = false;
	w->head_size = 0;
	if (opcode(w) == OP_PING)
		return put_frame(out, OP_PONG, w->control, w->at) ? 0 : -ENOMEM;
	if (opcode(w) != OP_CLOSE)
		return 0;
	put_frame(out, OP_CLOSE, w->control, MIN(w->at, 2));
	return -ESHUTDOWN;
}

/* How much of it there is in one piece; unmasked in *plain. */
static size_t unmask(struct web *w, const uint8_t *data, size_t size, uint8_t *plain, size_t room)
{
	const uint8_t *mask = w->head + head_length(w) - 4;

	size = MIN(MIN(size, room), w->left);
	for (size_t n = 0; n < size; n++)
		plain[n] = data[n] ^ mask[(w->at + n) % 4];
	return size;
}

static int receive_frames(struct web *w, const uint8_t *data, size_t size, struct bytes *out,
			  int (*payload)(void *, const uint8_t *, size_t), void *opaque)
{
	uint8_t plain[4096];
	int rc = 0;

	while (!rc && (size || (w->in_payload && !w->left))) {
		size_t n;

		if (!w->in_payload) {
			w->head[w->head_size++] = *data++;
			size--;
			if (w->head_size >= 2 && w->head_size == head_length(w))
				rc = begin_payload(w);
			continue;
		}
		n = unmask(w, data, size, plain, sizeof(plain));
		if (opcode(w) >= OP_CLOSE)
			memcpy(w->control + w->at, plain, n);
		else if (n)
			rc = payload(opaque, plain, n);
		w->at += n;
		w->left -= n;
		data += n;
		size -= n;
		if (!rc && !w->left)
			rc = end_payload(w, out);
	}
	return rc;
}

int web_receive(struct web *w, const uint8_t *data, size_t size, struct bytes *out,
		int (*payload)(void *opaque, const uint8_t *, size_t), void *opaque)
{
	bool complete = false;
	size_t n = 0;
	int rc;

	if (!w->open) {
		n = add_to_request(w, data, size, &complete);
		if (!n && size)
			return respond_text(out, "400 Bad Request", "This is no request.\n");
		if (!complete)
			return 0;
		rc = serve_request(w, out);
		if (rc)
			return rc;
	}
	return receive_frames(w, data + n, size - n, out, payload, opaque);
}

/* ---- life ---- */

struct web *web_create(const char *token)
{
	struct web *w = calloc(1, sizeof(*w));

	if (w)
		w->token = token;
	return w;
}

void web_destroy(struct web *w) { free(w); }
