/*
 * Does KVM run kernel-mode code at speed here? /dev/kvm that opens proves nothing: some hosts offer a KVM that is itself
 * emulated, or that traps on everything privileged. So a tiny long-mode guest runs two loops in ring 0, plain arithmetic and reloads
 * of CR3, and is timed. In a child process, because a KVM that hangs or kills its user must not take doppel along.
 *
 * KVM's interface: Linux Documentation/virt/kvm/api.rst.
 */
#define _GNU_SOURCE
#include "engine/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define GUEST_SIZE     (2u << 20)
#define PAGE_TABLES    0x1000u /* PML4, PDPT, PD */
#define CODE	       0x8000u
#define FIRST_LOOPS    100u
#define LOOPS_GROWTH   4u
#define LONG_ENOUGH_NS 2000000u /* for the cost of entering the guest not to matter */
#define NATIVE_LOOPS   4000000u
#define TIMEOUT_MS     3000

/* mov eax, imm32 patched in: loops; 1: add rdx, rcx; xor rbx, rdx; dec eax; jnz 1b; hlt */
static const uint8_t arithmetic_code[] = { 0xb8, 0,    0,    0,	   0,	 0x48, 0x01, 0xca,
					   0x48, 0x31, 0xd3, 0xff, 0xc8, 0x75, 0xf6, 0xf4 };
/* mov eax, imm32; 1: mov rcx, cr3; mov cr3, rcx; dec eax; jnz 1b; hlt */
static const uint8_t cr3_code[] = {
	0xb8, 0, 0, 0, 0, 0x0f, 0x20, 0xd9, 0x0f, 0x22, 0xd9, 0xff, 0xc8, 0x75, 0xf6, 0xf4
};

struct probe_vm {
	int kvm, vm, vcpu;
	uint8_t *memory;
	struct kvm_run *run;
	size_t run_size;
};

static int fail(struct error *err, const char *what)
{
	return error_set_errno(err, errno ? errno : EIO, "KVM: %s", what);
}

static int open_vm(struct probe_vm *p, struct error *err)
{
	struct kvm_userspace_memory_region region = { .memory_size = GUEST_SIZE };
	int size;

	p->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (p->kvm < 0)
		return fail(err, "open /dev/kvm");
	if (ioctl(p->kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return error_set(err, ENOTSUP, "KVM: /dev/kvm does not speak API version %d", KVM_API_VERSION);
	p->vm = ioctl(p->kvm, KVM_CREATE_VM, 0);
	if (p->vm < 0)
		return fail(err, "create a virtual machine");
	p->memory = mmap(NULL, GUEST_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p->memory == MAP_FAILED)
		return fail(err, "map guest memory");
	region.userspace_addr = (uintptr_t)p->memory;
	if (ioctl(p->vm, KVM_SET_USER_MEMORY_REGION, &region))
		return fail(err, "set guest memory");
	p->vcpu = ioctl(p->vm, KVM_CREATE_VCPU, 0);
	if (p->vcpu < 0)
		return fail(err, "create a vCPU");
	size = ioctl(p->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (size < (int)sizeof(struct kvm_run))
		return fail(err, "size of the vCPU's shared page");
	p->run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu, 0);
	if (p->run == MAP_FAILED)
		return fail(err, "map the vCPU's shared page");
	return 0;
}

/* Long mode, ring 0, the first 2 MiB identity-mapped. */
static int set_registers(struct probe_vm *p, struct error *err)
{
	struct kvm_segment code = {
		.limit = UINT32_MAX, .selector = 0x10, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1
	};
	struct kvm_segment data = {
		.limit = UINT32_MAX, .selector = 0x18, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1
	};
	struct kvm_regs regs = { .rip = CODE, .rflags = 2 };
	struct kvm_sregs sregs;

	store_le64(p->memory + PAGE_TABLES, (PAGE_TABLES + 0x1000) | 3);
	store_le64(p->memory + PAGE_TABLES + 0x1000, (PAGE_TABLES + 0x2000) | 3);
	store_le64(p->memory + PAGE_TABLES + 0x2000, 0x83);
	if (ioctl(p->vcpu, KVM_GET_SREGS, &sregs))
		return fail(err, "read registers");
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = data;
	sregs.cr0 = CR0_PG | CR0_PE | CR0_ET | CR0_NE;
	sregs.cr3 = PAGE_TABLES;
	sregs.cr4 = CR4_PAE;
	sregs.efer = EFER_LME | EFER_LMA;
	if (ioctl(p->vcpu, KVM_SET_SREGS, &sregs) || ioctl(p->vcpu, KVM_SET_REGS, &regs))
		return fail(err, "set registers for long mode");
	return 0;
}

/* Runs the code until its HLT; ns in all. */
static int time_run(struct probe_vm *p, const uint8_t *code, size_t size, uint32_t loops, uint64_t *ns,
		    struct error *err)
{
	uint64_t start;
	int rc = set_registers(p, err);

	if (rc)
		return rc;
	memcpy(p->memory + CODE, code, size);
	store_le32(p->memory + CODE + 1, loops);
	start = host_monotonic_ns();
	if (ioctl(p->vcpu, KVM_RUN, 0))
		return fail(err, "run kernel-mode code");
	if (p->run->exit_reason != KVM_EXIT_HLT)
		return error_set(err, ENOTSUP, "KVM: kernel-mode code ended with exit reason %u, expected HLT (%d)",
				 p->run->exit_reason, KVM_EXIT_HLT);
	*ns = host_monotonic_ns() - start;
	return 0;
}

/* ns an iteration, from as few iterations as give a good figure: on a bad host one can take microseconds. */
static int time_loop(struct probe_vm *p, const uint8_t *code, size_t size, double *ns, struct error *err)
{
	uint32_t loops = FIRST_LOOPS;
	uint64_t elapsed = 0;

	for (;;) {
		int rc = time_run(p, code, size, loops, &elapsed, err);

		if (rc)
			return rc;
		if (elapsed >= LONG_ENOUGH_NS || loops > UINT32_MAX / LOOPS_GROWTH)
			break;
		loops *= LOOPS_GROWTH;
	}
	*ns = (double)elapsed / loops;
	return 0;
}

/* The same arithmetic natively: what the guest is compared with. */
static double time_natively(void)
{
	uint64_t start = host_monotonic_ns();
	uint64_t a = 1, b = 2;
	uint32_t loops = NATIVE_LOOPS;

	__asm__ volatile("1: add %[b], %[a]\n\txor %[a], %[b]\n\tdec %[n]\n\tjnz 1b"
			 : [a] "+r"(a), [b] "+r"(b), [n] "+r"(loops)
			 :
			 : "cc");
	return (double)(host_monotonic_ns() - start) / NATIVE_LOOPS;
}

/* What the child says to its parent. */
struct probe_answer {
	struct kvm_timing timing;
	struct error err;
};

static void measure(struct probe_answer *answer)
{
	struct probe_vm p = { 0 };
	struct kvm_timing *t = &answer->timing;

	t->native_ns = time_natively();
	if (!open_vm(&p, &answer->err) &&
	    !time_loop(&p, arithmetic_code, sizeof(arithmetic_code), &t->arithmetic_ns, &answer->err))
		time_loop(&p, cr3_code, sizeof(cr3_code), &t->cr3_ns, &answer->err);
}

static _Noreturn void child(int fd)
{
	struct probe_answer answer = { 0 };

	measure(&answer);
	_exit(host_write_all(fd, &answer, sizeof(answer)) ? 1 : 0);
}

/* Waits for the answer at most TIMEOUT_MS. */
static int read_answer(int fd, struct probe_answer *answer, struct error *err)
{
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	int rc;

	do
		rc = poll(&ready, 1, TIMEOUT_MS);
	while (rc < 0 && errno == EINTR);
	if (!rc)
		return error_set(err, ETIMEDOUT,
				 "KVM: a few milliseconds' worth of kernel-mode code was not done after %d ms",
				 TIMEOUT_MS);
	/* Less than PIPE_BUF: it comes whole or not at all. */
	if (read(fd, answer, sizeof(*answer)) != (ssize_t)sizeof(*answer))
		return error_set(err, EIO, "KVM: the process that tried it died");
	if (answer->err.code) {
		if (err)
			*err = answer->err;
		return -answer->err.code;
	}
	return 0;
}

int kvm_measure(struct kvm_timing *timing, struct error *err)
{
	struct probe_answer answer = { 0 };
	int ends[2], rc;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC))
		return fail(err, "make a pipe");
	pid = fork();
	if (!pid)
		child(ends[1]);
	close(ends[1]);
	rc = pid < 0 ? fail(err, "fork") : read_answer(ends[0], &answer, err);
	close(ends[0]);
	if (pid > 0) {
		kill(pid, SIGKILL);
		/* One that hangs inside of KVM is left to its fate: waiting for it would hang us. */
		waitpid(pid, NULL, rc == -ETIMEDOUT ? WNOHANG : 0);
	}
	*timing = answer.timing;
	return rc;
}
