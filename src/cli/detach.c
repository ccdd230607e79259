/*
 * A machine in the background.
 */
#define _GNU_SOURCE /* pipe2 */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

bool cli_detach(int *ready, int *status)
{
	struct error err = { 0 };
	int ends[2], wait_status = 0;
	char byte;
	pid_t pid;

	*status = EXIT_FAILED;
	if (pipe2(ends, O_CLOEXEC)) {
		error_set_errno(&err, errno, "--detach: cannot make a pipe");
		cli_complain("run", &err);
		return true;
	}
	pid = fork();
	if (!pid) {
		close(ends[0]);
		(void)setsid();
		*ready = ends[1];
		return false;
	}
	close(ends[1]);
	if (pid < 0) {
		error_set_errno(&err, errno, "--detach: cannot start a process");
		cli_complain("run", &err);
	} else if (read(ends[0], &byte, 1) == 1) {
		*status = 0;
	} else if (waitpid(pid, &wait_status, 0) == pid && WIFEXITED(wait_status)) {
		*status = WEXITSTATUS(wait_status);
	}
	close(ends[0]);
	return true;
}

void cli_detached(int ready)
{
	int null = ready < 0 ? -1 : open("/dev/null", O_RDWR | O_CLOEXEC);

	if (ready < 0)
		return;
	for (int fd = 0; null >= 0 && fd < 3; fd++)
		(void)dup2(null, fd);
	if (null >= 0)
		close(null);
	(void)!write(ready, "", 1);
	close(ready);
}

int cli_write_pid(const char *path, struct error *err)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644), rc = 0;

	if (fd < 0)
		return error_set_errno(err, errno, "--pid-file: cannot write '%s'", path);
	if (dprintf(fd, "%d\n", (int)getpid()) < 0)
		rc = error_set_errno(err, errno, "--pid-file: cannot write '%s'", path);
	close(fd);
	return rc;
}
