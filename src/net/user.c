/*
 * The user network, the monitor's side: starts the process (helper.c), exchanges frames with it by a channel, and starts it again when it dies; meanwhile the
 * guest's link is down. The process is not trusted: of what it writes nothing is used that was not checked.
 */
#define _GNU_SOURCE
#include "net/helper.h"
#include "net/net_private.h"
#include "net/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_TIMEOUT 60000 /* ms */
#define AGAIN_LEAST   1	    /* seconds behind its death; twice as many each time, */
#define AGAIN_MOST    32
#define STEADY	      60 /* but for one that ran so many seconds */

struct user {
	struct channel channel;
	pid_t process;	 /* 0: none */
	int socket;	 /* -1: none */
	bool answered;	 /* it runs. Changed under send_lock; otherwise the channel is the net's thread's alone */
	bool complained; /* that it cannot be started again */
	uint64_t since;	 /* when it began to run, or died; ns, monotonic */
	unsigned delay;	 /* seconds from then on until it is started again; 0: it never died */
};

/* ---- starting the process ---- */

static int spawn(struct user *u, int its_end, struct error *err)
{
	char *const argv[] = { "doppel", NET_HELPER_COMMAND, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none;
	int rc;

	sigemptyset(&none);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, its_end, HELPER_SOCKET);
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
	posix_spawnattr_setsigmask(&attributes, &none);
	rc = posix_spawn(&u->process, "/proc/self/exe", &actions, &attributes, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
	if (rc)
		u->process = 0;
	return rc ? error_set_errno(err, rc, "cannot start the user network's process") : 0;
}

static int send_spec(const struct user *u, const struct net_user_spec *spec, struct error *err)
{
	const int fds[HELPER_FDS] = { [HELPER_FD_MEMORY] = u->channel.fd,
				      [HELPER_FD_MONITOR_EVENT] = u->channel.monitor_event,
				      [HELPER_FD_HELPER_EVENT] = u->channel.helper_event };
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(fds))];
	} control = { .space = { 0 } };
	struct iovec iov = { (void *)spec, sizeof(*spec) };
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
	};

	control.header = (struct cmsghdr){ CMSG_LEN(sizeof(fds)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(&control.header), fds, sizeof(fds));
	if (sendmsg(u->socket, &message, MSG_NOSIGNAL) == (ssize_t)sizeof(*spec))
		return 0;
	return error_set_errno(err, errno, "cannot tell the user network's process what to do");
}

/* A socket that an earlier process left behind is in the way, or was this one's. */
static void remove_sockets(const struct net_user_spec *spec)
{
	for (unsigned i = 0; i < spec->forward_count; i++)
		if (spec->forwards[i].kind == FORWARD_UNIX)
			host_unix_remove_stale(spec->forwards[i].path, NULL);
}

static void stop(struct user *u)
{
	if (u->socket >= 0)
		close(u->socket);
	u->socket = -1;
	if (u->process) {
		kill(u->process, SIGKILL);
		waitpid(u->process, NULL, 0);
	}
	u->process = 0;
	channel_close(&u->channel);
}

static int start(struct net *net, struct error *err)
{
	struct user *u = net->data;
	int ends[2], rc;

	remove_sockets(&net->spec.user);
	rc = channel_create(&u->channel, err);
	if (rc)
		return rc;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends)) {
		channel_close(&u->channel);
		return error_set_errno(err, errno, "cannot make a socket for the user network's process");
	}
	u->socket = ends[0];
	rc = spawn(u, ends[1], err);
	close(ends[1]);
	if (!rc)
		rc = send_spec(u, &net->spec.user, err);
	if (rc)
		stop(u);
	return rc;
}

/* ---- its answer ---- */

static int explain(const struct net_user_spec *spec, const struct helper_answer *answer, struct error *err)
{
	const struct net_forward *f = &spec->forwards[answer->forward >= 0 ? answer->forward : 0];
	char forward[192], owner[128] = "";

	if (answer->forward < 0 || (unsigned)answer->forward >= spec->forward_count)
		return error_set(err, answer->code, "%.255s", answer->text);
	net_forward_print(f, forward, sizeof(forward));
	if (f->kind == FORWARD_UNIX)
		return error_set_errno(err, answer->code, "option 'forward' is '%s': cannot listen on '%s'", forward,
				       f->path);
	if (answer->code != EADDRINUSE)
		return error_set_errno(err, answer->code, "option 'forward' is '%s': cannot listen on port %u", forward,
				       f->host.port);
	host_port_owner(f->kind == FORWARD_UDP, f->ip6, f->host.address.ip4.s_addr, f->host.port, owner, sizeof(owner));
	return error_set(err, answer->code, "option 'forward' is '%s': port %u is already in use%s", forward,
			 f->host.port, owner);
}

/* It is there, or its end. */
static int read_answer(struct net *net, struct error *err)
{
	struct user *u = net->data;
	struct helper_answer answer;

	if (recv(u->socket, &answer, sizeof(answer), MSG_DONTWAIT) != (ssize_t)sizeof(answer))
		return error_set(err, EPIPE, "the user network's process ended before it ran");
	answer.text[sizeof(answer.text) - 1] = 0;
	if (answer.code)
		return explain(&net->spec.user, &answer, err);
	pthread_mutex_lock(&net->send_lock);
	u->answered = true;
	u->since = host_monotonic_ns();
	atomic_store(&u->channel.shared->can, atomic_load(&net->can));
	pthread_mutex_unlock(&net->send_lock);
	return 0;
}

static int wait_for_answer(struct net *net, struct error *err)
{
	struct pollfd wait = { .fd = ((struct user *)net->data)->socket, .events = POLLIN };
	int n;

	do
		n = poll(&wait, 1, START_TIMEOUT);
	while (n < 0 && errno == EINTR);
	return n > 0 ? read_answer(net, err) : error_set(err, ETIMEDOUT, "the user network's process does not answer");
}

/* ---- its end ---- */

static void describe_end(int status, char *text, size_t size)
{
	if (WIFSIGNALED(status))
		snprintf(text, size, "was ended by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		snprintf(text, size, "ended with status %d", WEXITSTATUS(status));
}

#define SECOND 1000000000ull

static void wait_longer(struct user *u)
{
	u->delay = u->delay ? MIN(2 * u->delay, AGAIN_MOST) : AGAIN_LEAST;
	u->since = host_monotonic_ns();
}

/* It died, or broke the rings: it is started again soon. */
static void lost(struct net *net)
{
	struct user *u = net->data;
	char how[80];
	int status;

	kill(u->process, SIGKILL);
	waitpid(u->process, &status, 0);
	u->process = 0;
	describe_end(status, how, sizeof(how));
	if (host_monotonic_ns() - u->since >= STEADY * SECOND)
		u->delay = 0;
	wait_longer(u);
	/* A guest may know how to cause it. */
	log_guest("user network: its process %s; connections are lost, it is started again in %u s", how, u->delay);
	pthread_mutex_lock(&net->send_lock);
	u->answered = false;
	pthread_mutex_unlock(&net->send_lock);
	stop(u);
	net_set_link(net, false);
	net_writable(net);
}

/* How many ms until then. */
static int start_again_in(const struct user *u)
{
	uint64_t due = u->since + u->delay * SECOND, now = host_monotonic_ns();

	return now < due ? (int)((due - now) / 1000000 + 1) : 0;
}

static void start_again(struct net *net)
{
	struct user *u = net->data;
	struct error err = { 0 };

	if (!start(net, &err) && !wait_for_answer(net, &err)) {
		u->complained = false;
		net_set_link(net, true);
		return;
	}
	if (!u->complained)
		log_error("user network: %s; it is tried again", err.text);
	u->complained = true;
	wait_longer(u);
	stop(u);
}

/* ---- frames ---- */

static int user_send(struct net *net, const struct iovec *iov, unsigned count, size_t size,
		     const struct net_offload *offload)
{
	struct user *u = net->data;
	uint8_t *place;
	int code;

	if (!u->answered)
		return 0;
	place = ring_reserve(&u->channel.from_guest, size, &code);
	if (!place)
		return code ? 0 : -EAGAIN;
	net_gather(place, iov, count, 0, size);
	ring_write(&u->channel.from_guest, size, offload);
	ring_wake(&u->channel.from_guest);
	return 0;
}

/* Everything that is there, as long as the card takes it. */
static int deliver_all(struct net *net)
{
	struct ring *ring = &((struct user *)net->data)->channel.to_guest;
	struct net_frame frames[NET_BATCH];
	int count;
	unsigned taken;

	while (!net_holds(net)) {
		count = ring_peek(ring, frames, NET_BATCH);
		if (count <= 0)
			return count;
		taken = net_deliver(net, frames, (unsigned)count);
		ring_release(ring, frames, taken);
		if (taken < (unsigned)count && net_holds(net))
			return 0;
	}
	return 0;
}

static unsigned user_prepare(struct net *net, struct pollfd *fds, int *timeout)
{
	struct user *u = net->data;

	if (!u->answered) {
		*timeout = start_again_in(u);
		return 0;
	}
	if (!net_holds(net) && !ring_sleep(&u->channel.to_guest))
		*timeout = 0;
	fds[0] = (struct pollfd){ .fd = u->channel.monitor_event, .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = u->socket, .events = POLLIN };
	return 2;
}

static void user_ready(struct net *net, const struct pollfd *fds)
{
	struct user *u = net->data;

	if (!u->answered) {
		if (!start_again_in(u))
			start_again(net);
		return;
	}
	ring_awake(&u->channel.to_guest);
	if (fds[0].revents) {
		drain_event(u->channel.monitor_event);
		net_writable(net);
	}
	/* It has nothing more to say: whatever comes is its end, or no end of a good one. */
	if (deliver_all(net) || fds[1].revents)
		lost(net);
}

static bool user_look_out(struct net *net, uint64_t until, bool (*enough)(void *), void *opaque)
{
	struct user *u = net->data;
	struct ring *ring = &u->channel.to_guest;
	bool came = false;
	int rc = 0;

	/* Who holds waits for the guest, not for frames. */
	if (!u->answered || net_holds(net))
		return false;
	ring_awake(ring);
	while (!(came = ring_has_frames(ring)) && !enough(opaque) && host_monotonic_ns() < until)
		look_out_pause();
	/* Either the net's thread is woken for the next one, or it is here already. */
	while (!rc && !net_holds(net) && !ring_sleep(ring))
		rc = deliver_all(net);
	/* The process is its business. */
	if (rc)
		wake_event(net->wake_fd);
	return came;
}

static void user_offloads_changed(struct net *net)
{
	struct user *u = net->data;

	pthread_mutex_lock(&net->send_lock);
	if (u->answered)
		atomic_store(&u->channel.shared->can, atomic_load(&net->can));
	pthread_mutex_unlock(&net->send_lock);
}

/* ---- life ---- */

static void user_close(struct net *net)
{
	struct user *u = net->data;

	stop(u);
	remove_sockets(&net->spec.user);
	free(u);
}

static int user_open(struct net *net, struct error *err)
{
	struct user *u = calloc(1, sizeof(*u));
	int rc;

	if (!u)
		return error_set_errno(err, ENOMEM, "user network");
	u->socket = -1;
	u->channel = (struct channel){ .fd = -1, .monitor_event = -1, .helper_event = -1 };
	net->data = u;
	for (unsigned i = 0; i < net->spec.user.forward_count; i++) {
		const struct net_forward *f = &net->spec.user.forwards[i];

		rc = f->kind == FORWARD_UNIX ? host_unix_remove_stale(f->path, err) : 0;
		if (rc) {
			free(u);
			return err ? error_prefix(err, "option 'forward'") : rc;
		}
	}
	rc = start(net, err);
	if (!rc)
		rc = wait_for_answer(net, err);
	if (rc) {
		stop(u);
		free(u);
	}
	return rc;
}

const struct net_kind net_user = {
	.open = user_open,
	.close = user_close,
	.send = user_send,
	.prepare = user_prepare,
	.ready = user_ready,
	.look_out = user_look_out,
	.offloads_changed = user_offloads_changed,
};
