/*
 * Between a user network's net and its process: what each tells the other on the socket that the process finds as descriptor 3.
 */
#ifndef DOPPEL_NET_HELPER_H
#define DOPPEL_NET_HELPER_H

#include "net/spec.h"

#define HELPER_SOCKET 3
/* The first message is a struct net_user_spec, with these descriptors. */
enum { HELPER_FD_MEMORY, HELPER_FD_MONITOR_EVENT, HELPER_FD_HELPER_EVENT, HELPER_FDS };

/* The answer, when everything is open and the walls are up; or why not. Nothing more is said. */
struct helper_answer {
	int code;    /* positive errno; 0: it runs */
	int forward; /* which one cannot be opened; -1: that is not the reason */
	char text[256];
};

/*
 * From now on the process may talk to the network by the sockets it has and new ones, and read /etc/resolv.conf: no other file, no program, no new memory but
 * the heap, which is bounded. Whatever else it tries ends it.
 */
int walls_up(struct error *);

#endif
