/*
 * Inside vhost/: messages and how they go over the socket.
 */
#ifndef DOPPEL_VHOST_PRIVATE_H
#define DOPPEL_VHOST_PRIVATE_H

#include "vhost/vhost.h"

/* Requests to the back end that are used: _(name, number) */
#define VHOST_REQUESTS(_)                                                                                              \
	_(GET_FEATURES, 1)                                                                                             \
	_(SET_FEATURES, 2)                                                                                             \
	_(SET_OWNER, 3)                                                                                                \
	_(SET_MEM_TABLE, 5)                                                                                            \
	_(SET_VRING_NUM, 8)                                                                                            \
	_(SET_VRING_ADDR, 9)                                                                                           \
	_(SET_VRING_BASE, 10)                                                                                          \
	_(GET_VRING_BASE, 11)                                                                                          \
	_(SET_VRING_KICK, 12)                                                                                          \
	_(SET_VRING_CALL, 13)                                                                                          \
	_(GET_PROTOCOL_FEATURES, 15)                                                                                   \
	_(SET_PROTOCOL_FEATURES, 16)                                                                                   \
	_(GET_QUEUE_NUM, 17)                                                                                           \
	_(SET_VRING_ENABLE, 18)                                                                                        \
	_(SET_BACKEND_REQ_FD, 21)                                                                                      \
	_(GET_CONFIG, 24)                                                                                              \
	_(SET_CONFIG, 25)

enum vhost_request {
#define _(name, number) VHOST_##name = number,
	VHOST_REQUESTS(_)
#undef _
};
/* And of the back end's */
#define VHOST_BACKEND_CONFIG_CHANGE 2u

#define VHOST_VERSION	 1u /* flags: version, and */
#define VHOST_REPLY	 4u
#define VHOST_NEED_REPLY 8u

#define VHOST_HEADER 12u
#define VHOST_FDS    2 /* that are sent at most */

struct vhost_message {
	uint32_t request, flags, size; /* of what follows */
	union {
		uint64_t number;
		struct {
			uint32_t index, value;
		} ring;
		struct {
			uint32_t index, flags;
			uint64_t descriptors, used, available, log;
		} address;
		struct {
			uint32_t count, padding;
			struct {
				uint64_t guest, size, user, offset;
			} regions[VHOST_FDS];
		} memory;
		struct {
			uint32_t offset, size, flags;
			uint8_t bytes[VHOST_CONFIG_MOST];
		} config;
	};
};
_Static_assert(offsetof(struct vhost_message, number) == 16, "the header is 12 bytes, which message.c knows");

const char *vhost_request_name(uint32_t request);
/* All of it until the deadline (host_monotonic_ns()). 0 or -errno. */
int vhost_send(int fd, const struct vhost_message *, const int *fds, unsigned count, uint64_t deadline, struct error *);
/* -EPROTO: no message of version 1, or a longer one than there are. Descriptors that come with it are closed. */
int vhost_receive(int fd, struct vhost_message *, uint64_t deadline, struct error *);

#endif
