/*
 * What the user network's process is not able to do, in case a guest takes it over: seccomp, no capabilities, limits.
 *
 * libslirp opens /etc/resolv.conf again whenever that has changed. No filter can look at a path in memory, but it can at the pointer: allowed is openat() of
 * the one constant below, which nothing can change (there is no mprotect() and no mmap()). libslirp's own call is trapped, and the handler makes that one.
 */
#define _GNU_SOURCE
#include "net/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static const char resolv_conf[] = "/etc/resolv.conf";
#define RESOLV_FLAGS (O_RDONLY | O_CLOEXEC)

#define MOST_DESCRIPTORS 1024
#define MOST_HEAP	 (256ull << 20)

/* Always allowed, and why. */
static const int allowed[] = {
	/* frames: eventfds; connections */
	SCMP_SYS(read),
	SCMP_SYS(write),
	SCMP_SYS(readv),
	SCMP_SYS(writev),
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(recvfrom),
	SCMP_SYS(recvmsg),
	SCMP_SYS(sendto),
	SCMP_SYS(sendmsg),
	SCMP_SYS(close),
	SCMP_SYS(connect),
	SCMP_SYS(accept),
	SCMP_SYS(accept4),
	SCMP_SYS(bind),
	SCMP_SYS(shutdown),
	SCMP_SYS(getsockopt),
	SCMP_SYS(setsockopt),
	SCMP_SYS(getsockname),
	SCMP_SYS(getpeername),
	/* reading resolv.conf */
	SCMP_SYS(newfstatat),
	SCMP_SYS(fstat),
	SCMP_SYS(stat),
	SCMP_SYS(lseek),
	/* the C library: heap, time, the end */
	SCMP_SYS(brk),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(time),
	SCMP_SYS(getrandom),
	SCMP_SYS(futex),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(getpid),
	SCMP_SYS(gettid),
	SCMP_SYS(tgkill),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
};

/* With these second arguments. */
static const struct {
	int call;
	scmp_datum_t value;
} allowed_with[] = {
	{ SCMP_SYS(ioctl), FIONREAD }, { SCMP_SYS(ioctl), FIONBIO }, { SCMP_SYS(fcntl), F_GETFL },
	{ SCMP_SYS(fcntl), F_SETFL },  { SCMP_SYS(fcntl), F_SETFD },
};

static struct scmp_arg_cmp argument(unsigned n, enum scmp_compare is, scmp_datum_t value)
{
	return (struct scmp_arg_cmp){ n, is, value, 0 };
}

/* A handler's ucontext has the trapped call's arguments: RSI is openat's path. */
static void trapped(int signal_number, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	int saved = errno, fd = -1;

	(void)signal_number;
	errno = EACCES;
	if (info->si_syscall == SYS_openat && !strcmp((const char *)regs[REG_RSI], resolv_conf))
		fd = openat(AT_FDCWD, resolv_conf, RESOLV_FLAGS);
	regs[REG_RAX] = fd < 0 ? -errno : fd;
	errno = saved;
}

/* Streams and datagrams of the Internet: no raw sockets, no Unix ones, no netlink. */
static int allow_sockets(scmp_filter_ctx filter)
{
	static const unsigned families[] = { AF_INET, AF_INET6 };
	static const unsigned types[] = { SOCK_STREAM, SOCK_DGRAM };
	int rc = 0;

	for (size_t f = 0; f < ARRAY_SIZE(families); f++)
		for (size_t t = 0; !rc && t < ARRAY_SIZE(types); t++)
			rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2,
					      argument(0, SCMP_CMP_EQ, families[f]),
					      (struct scmp_arg_cmp){ 1, SCMP_CMP_MASKED_EQ, 0xf, types[t] });
	return rc;
}

static int allow_resolv_conf(scmp_filter_ctx filter)
{
	const scmp_datum_t path = (scmp_datum_t)(uintptr_t)resolv_conf;
	int rc;

	rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(openat), 2, argument(1, SCMP_CMP_EQ, path),
			      argument(2, SCMP_CMP_EQ, RESOLV_FLAGS));
	return rc ? rc : seccomp_rule_add(filter, SCMP_ACT_TRAP, SCMP_SYS(openat), 1, argument(1, SCMP_CMP_NE, path));
}

static int add_rules(scmp_filter_ctx filter)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < ARRAY_SIZE(allowed); i++)
		rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0);
	for (size_t i = 0; !rc && i < ARRAY_SIZE(allowed_with); i++)
		rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed_with[i].call, 1,
				      argument(1, SCMP_CMP_EQ, allowed_with[i].value));
	if (!rc)
		rc = allow_sockets(filter);
	if (!rc)
		rc = allow_resolv_conf(filter);
	return rc;
}

/* Allocators ask for memory by mmap() when the heap is at its end: they are told that there is none. */
static int add_refusals(scmp_filter_ctx filter)
{
	int rc = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOMEM), SCMP_SYS(mmap), 0);

	return rc ? rc : seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(munmap), 0);
}

/* What sanitizers do besides (they map memory, look into /proc, have threads) is not worth a list. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || __has_feature(address_sanitizer)
#define SANITIZED true
#else
#define SANITIZED false
#endif

static int seccomp_on(void)
{
	struct sigaction trap = { .sa_sigaction = trapped, .sa_flags = SA_SIGINFO };
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int rc;

	if (!filter)
		return -ENOMEM;
	sigaction(SIGSYS, &trap, NULL);
	rc = add_rules(filter);
	if (!rc)
		rc = add_refusals(filter);
	if (!rc && !SANITIZED)
		rc = seccomp_load(filter);
	seccomp_release(filter);
	return rc;
}

static void set_limits(void)
{
	static const struct {
		int resource;
		rlim_t most;
	} limits[] = {
		{ RLIMIT_NOFILE, MOST_DESCRIPTORS },
		{ RLIMIT_DATA, MOST_HEAP },
		{ RLIMIT_FSIZE, 0 },
		{ RLIMIT_CORE, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		struct rlimit limit;

		if (getrlimit(limits[i].resource, &limit))
			continue;
		limit.rlim_max = MIN(limit.rlim_max, limits[i].most);
		limit.rlim_cur = limit.rlim_max;
		setrlimit(limits[i].resource, &limit);
	}
}

static int drop_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { 0 };

	return syscall(SYS_capset, &header, none) ? -errno : 0;
}

int walls_up(struct error *err)
{
	int rc;

	prctl(PR_SET_DUMPABLE, 0);
	rc = drop_capabilities();
	if (rc)
		return error_set_errno(err, -rc, "cannot give up capabilities");
	if (!SANITIZED)
		set_limits();
	rc = seccomp_on();
	return rc ? error_set_errno(err, -rc, "cannot set the filter of system calls (seccomp)") : 0;
}
