/*
 * Threads: started with a name and with the process's signals left to the thread that started them all.
 */
#define _GNU_SOURCE
#include "host/host.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

struct thread_start {
	char name[16];
	void *(*fn)(void *);
	void *arg;
};

static void *thread_main(void *opaque)
{
	struct thread_start start = *(struct thread_start *)opaque;

	free(opaque);
	pthread_setname_np(pthread_self(), start.name);
	return start.fn(start.arg);
}

int host_thread_create(pthread_t *thread, const char *name, void *(*fn)(void *), void *arg, struct error *err)
{
	struct thread_start *start = malloc(sizeof(*start));
	sigset_t block, old;
	int rc;

	if (!start)
		return error_set_errno(err, ENOMEM, "cannot start thread '%s'", name);
	snprintf(start->name, sizeof(start->name), "%s", name);
	start->fn = fn;
	start->arg = arg;

	/* A new thread inherits its creator's mask, so this one's is changed for as long as the creation takes. */
	sigfillset(&block);
	sigdelset(&block, SIGSEGV);
	sigdelset(&block, SIGBUS);
	sigdelset(&block, SIGFPE);
	sigdelset(&block, SIGILL);
	pthread_sigmask(SIG_SETMASK, &block, &old);
	rc = pthread_create(thread, NULL, thread_main, start);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc) {
		free(start);
		return error_set_errno(err, rc, "cannot start thread '%s'", name);
	}
	return 0;
}

int host_thread_id(void) { return (int)syscall(SYS_gettid); }
