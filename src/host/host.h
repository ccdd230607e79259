/*
 * host: what doppel asks of Linux: threads, memory mappings, files, the event loop, terminals. Nothing here knows
 * of guests.
 */
#ifndef DOPPEL_HOST_H
#define DOPPEL_HOST_H

#include "base/base.h"

#include <pthread.h>
#include <signal.h>
#include <sys/types.h>

/* ---- time: for src/clock (guest time), what measures, and the user network's process, which has no other clock ---- */
uint64_t host_monotonic_ns(void);
uint64_t host_realtime_ns(void); /* since 1970-01-01 UTC */
/* Measured in some milliseconds: the rate in Hz at which the TSC counts. 0: it is no clock on this host. */
uint64_t host_tsc_hz(void);

/* ---- threads ---- */

/* Starts a thread called `name` (at most 15 characters), all signals blocked but those that report its own faults. */
int host_thread_create(pthread_t *, const char *name, void *(*fn)(void *), void *arg, struct error *);

/* The calling thread's number, as the kernel counts. */
int host_thread_id(void);

/* ---- locks ---- */

/*
 * A group of locks that threads may wait for in the middle of something: waits tells whom it may concern. They are taken in one order: by rank,
 * those of one rank by age; and given back the other way round. A thread has single ones, or all of a group.
 */
struct lock_group {
	/* The calling thread is about to wait for a lock, or has waited, and has it. Called with other locks of the group held, or none. */
	void (*waits)(void *opaque, bool begins);
	void *waits_opaque;
	struct list locks; /* private: in their order */
	uint32_t made;	   /* private: so many, ever */
};
struct lock {
	pthread_mutex_t mutex;
	struct lock_group *group;
	uint64_t order;	    /* private: its place */
	struct lock *outer; /* private: what who has it had taken last before */
	struct list node;   /* private */
};
void lock_group_init(struct lock_group *);
/* Created and destroyed while nobody uses the group, or by who has all of it. */
void lock_init(struct lock *, struct lock_group *, unsigned rank);
void lock_destroy(struct lock *);
/* Not twice, and none that comes before one that the thread has: that is a mistake of ours, and found at once. */
void lock_take(struct lock *);
/* False: somebody else has it. */
bool lock_try(struct lock *);
/* The one taken last. Behind the last one lines of the log and of traces are written that were made meanwhile: as within lock_waits(). */
void lock_drop(struct lock *);
/*
 * pthread_cond_wait() with the lock taken last: as when one waits for the lock itself, whom it concerns is told. For what another thread will do
 * soon, without the other locks that the caller has.
 */
void lock_wait(struct lock *, pthread_cond_t *);
/* For so many ns at most; false: they are over. */
bool lock_wait_for(struct lock *, pthread_cond_t *, uint64_t ns);
/* All of the group, while the thread has none: taking one of them is nothing then. Not twice. */
void lock_take_all(struct lock_group *);
void lock_drop_all(struct lock_group *);
/*
 * Around what may take its time besides, takes no lock of the group and touches nothing of the guest's: output of the host's. With locks held or
 * none. Whom it concerns is told, as if the thread waited for a lock, so that all vCPUs can be stopped meanwhile.
 */
void lock_waits(struct lock_group *, bool begins);

/* ---- memory ---- */

/* A memfd and its mapping; shared, so that it can be mapped again elsewhere (translation windows, vhost-user). */
struct host_memory {
	int fd;
	uint8_t *base;
	size_t size;
};
int host_memory_create(struct host_memory *, const char *name, size_t size, struct error *);
/* Memory that is a file: its first `size` bytes, whole pages. fd: the file's, for reading alone where `readonly`; it is the memory's if this succeeds. */
int host_memory_open(struct host_memory *, const char *name, int fd, size_t size, bool readonly, struct error *);
void host_memory_destroy(struct host_memory *);
/* Shows [offset, offset + size) of it, whole pages, at `at` too, in place of what is mapped there. 0 or -errno. */
int host_memory_show(const struct host_memory *, size_t offset, size_t size, void *at);

/*
 * The first piece of it at or behind `offset` that may hold anything but zeros: where it begins, with its size in *size; or the memory's
 * size, if all are zeros from there on. Looking does not make the host provide memory.
 */
size_t host_memory_data(const struct host_memory *, size_t offset, size_t *size);
/* [offset, offset + size), whole pages: zeros, and given back to the host. Other mappings of it see that too. */
void host_memory_clear(const struct host_memory *, size_t offset, size_t size);

/*
 * Memory for generated code, mapped twice: `write` (never executable) and `exec` (never writable). The same offset in
 * both is the same byte. Code written becomes visible to the thread that wrote it at once (x86).
 */
struct host_code {
	uint8_t *write, *exec;
	size_t size;
};
int host_code_create(struct host_code *, size_t size, struct error *);
void host_code_destroy(struct host_code *);
/* Gives the memory back to the host, as far as it takes it; the contents are then undefined. */
void host_code_discard(struct host_code *);
/*
 * The executable view is somewhere else from now on, and nothing else is ever mapped where it was: an address means one thing
 * only. 0, or -errno and it is where it was.
 */
int host_code_move(struct host_code *, struct error *);

/* ---- files ---- */

/*
 * Read a whole regular file of at most max bytes. *data is malloc'ed, owned by the caller, followed by one NUL byte
 * that is not counted. -EFBIG when larger, -EINVAL for a directory or a device.
 */
int host_file_read(const char *path, size_t max, uint8_t **data, size_t *size, struct error *);
/* Write all of it, going on after short writes and EINTR; 0 or -errno. Blocks. */
int host_write_all(int fd, const void *data, size_t size);
int host_set_nonblocking(int fd, bool on);
/*
 * A descriptor that can be non-blocking without making everybody else's so: O_NONBLOCK belongs to the open file,
 * which the shell shares. Opening a terminal or a pipe again gives another open file. A regular file has one
 * position for all, so it is only duplicated; it does not block anyway. What cannot be opened again (a socket,
 * another user's terminal) is duplicated, too, and may block. -errno, or it is the caller's.
 */
int host_reopen(int fd, int mode, bool *may_block);

/* ---- Unix sockets with a path; streams, not blocking ---- */

struct host_listener {
	int fd; /* -1: none */
	char path[108];
	bool bound; /* private, as what follows: the socket's file, to remove no other one */
	dev_t device;
	ino_t inode;
};
/* In place of a socket that an earlier process left behind; never of another file, nor of a socket in use. Only this user may connect. */
int host_unix_listen(struct host_listener *, const char *path, struct error *);
/* Closes it, and removes its file. */
void host_unix_unlisten(struct host_listener *);
/* A descriptor, or -errno. */
int host_unix_connect(const char *path, struct error *);
/* What host_unix_listen() does first. 0, too, when there is nothing. */
int host_unix_remove_stale(const char *path, struct error *);

struct addrinfo;
/* A socket that listens there, non-blocking, or -errno; where and port are the address in words, for the sentence, which says who has a port that is taken. */
int host_tcp_listen(const struct addrinfo *, int backlog, const char *where, const char *port, struct error *);
/* "HOST:PORT", an IPv6 address in brackets: a socket that listens, or is connected; it does not block. Waits for name servers and the other end. */
int host_tcp_open(const char *where, bool listens, int backlog, struct error *);
/* " by NAME (process N)" of who has a port of this host bound, as far as /proc tells; else "". The address is one of IPv4, in the network's order; those of IPv6 are not compared. */
void host_port_owner(bool udp, bool ip6, uint32_t address, uint16_t port, char *text, size_t size);

/* ---- event loop: one thread runs it; add/remove only from that thread or before it runs ---- */

struct event_loop;

struct event_source {
	int fd;
	short events; /* POLLIN, POLLOUT */
	void (*ready)(void *opaque, short revents);
	void *opaque;
	bool active;	  /* private */
	struct list node; /* private */
};

struct event_loop *event_loop_create(struct error *);
void event_loop_destroy(struct event_loop *);
/* The source is the caller's and must outlive its registration. */
void event_loop_add(struct event_loop *, struct event_source *);
void event_loop_remove(struct event_loop *, struct event_source *);
/* Change what is waited for; events may be 0 (only errors and hang-up are then reported: none if fd is -1). */
void event_loop_modify(struct event_loop *, struct event_source *, short events);
/* Any thread: run fn(opaque) soon in the loop's thread, in the order posted. */
void event_loop_post(struct event_loop *, void (*fn)(void *), void *opaque);
/* Forget what was posted with this opaque and has not run: for an owner who is about to free it, in the loop's thread. */
void event_loop_cancel_posts(struct event_loop *, const void *opaque);
/* Any thread, async-signal-safe: wake the loop, so that it asks for its deadline again or sees stop. */
void event_loop_wake(struct event_loop *);
/*
 * Called before each wait: run what is due (e.g. guest timers), then return the host monotonic time (ns) of the next
 * thing due, or UINT64_MAX. One callback a loop.
 */
void event_loop_set_tick(struct event_loop *, uint64_t (*tick)(void *), void *opaque);
/* Runs until event_loop_stop (any thread). */
void event_loop_run(struct event_loop *);
void event_loop_stop(struct event_loop *);

/* ---- signals and terminals ---- */

/* For a signal handler: what came is for whoever had the signal before (sigaction(2)'s old one); host_signal_end() where nobody had. */
void host_signal_pass_on(const struct sigaction *, int signal, siginfo_t *, void *context);
/*
 * Memory that is mapped here may turn out not to be there when it is touched, or to be damaged: SIGBUS then ends the process as always, but
 * a sentence names the memory. What: a constant string. host_memory_create() and ..._destroy() call these.
 */
void host_backed_add(const void *base, size_t size, const char *what);
/*
 * Of a file, which others may cut: it gets its size back (what was lost is zeros), the access goes on, and a line says so. Where it cannot be changed, what is behind its
 * end is shown as zeros.
 */
void host_backed_add_file(const void *base, size_t size, const char *what, int fd);
void host_backed_remove(const void *base);

/*
 * Puts the terminal `fd` in raw mode; restored by host_terminal_restore, at exit and on any fatal signal. Does nothing
 * when fd is no terminal. Process-wide by nature: a process has one controlling terminal.
 */
int host_terminal_raw(int fd, struct error *);
void host_terminal_restore(void);
/* Is there one in raw mode? */
bool host_terminal_is_raw(void);
/* What it is told when it is restored, however that comes; until then, a constant. */
void host_terminal_farewell(const char *);
/*
 * What a handler does with a signal that is not its own: the terminal is restored, and as soon as the handler returns the signal ends
 * the process, as it would have without one (its status, a core where they are allowed). Async-signal-safe.
 */
void host_signal_end(int signal);

/*
 * SIGHUP, SIGINT and SIGTERM, but for those that are ignored: the first one that comes is to be waited for instead of killing. They are blocked in
 * this thread (others have them blocked, see host_thread_create).
 */
struct host_signals {
	int fd; /* readable when one came; -1: not open */
	/* private */
	int to;
	pthread_t thread;
	_Atomic bool ends;
};
int host_signals_open(struct host_signals *, struct error *);
int host_signals_read(const struct host_signals *); /* its number, 0: none */
/* Unblocks them: one that came and was not read kills. Not open: nothing. */
void host_signals_close(struct host_signals *);
/* Unblocks one of them, which a second time kills, and sends it again after some seconds: whatever holds up the end of the process. */
void host_signal_insist(int signal_number, unsigned seconds);
/* Ends the process by the signal, so that whoever waits for it sees what it was. */
void host_signal_die(int signal_number);

/* ---- what this host is ---- */
uint64_t host_page_size(void);
unsigned host_cpu_count(void);
uint64_t host_memory_total(void); /* bytes */
/*
 * Does the kernel notice locked accesses across cache lines (split_lock_detect)? Such an access then ends the process or puts it to
 * sleep for some milliseconds, as the host's administrator chose.
 */
bool host_detects_split_locks(void);
/* Is this word among the flags of the processor in /proc/cpuinfo? */
bool host_cpu_flag(const char *name);
/* First line of a /proc or /sys file as a number; -1 when unreadable. */
int64_t host_proc_number(const char *path);
/* Pages of files and shared memory that this process has mapped and resident; one mapped n times counts n times. */
uint64_t host_shared_pages(void);

#endif
