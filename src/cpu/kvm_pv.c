/*
 * KVM's published paravirtual interface, as far as doppel implements it: the clock (page and wall clock record), polling
 * control, and hypercalls (none is offered). Linux Documentation/virt/kvm/x86/msr.rst, cpuid.rst, hypercalls.rst.
 */
#include "cpu/private.h"

/* struct pvclock_vcpu_time_info: system time = system_time + ((TSC - tsc_timestamp) << tsc_shift) * tsc_to_system_mul >> 32 ns. */
struct clock_page {
	uint32_t version; /* odd while the rest changes */
	uint32_t pad0;
	uint64_t tsc_timestamp;
	uint64_t system_time;
	uint32_t tsc_to_system_mul;
	int8_t tsc_shift;
	uint8_t flags;
	uint8_t pad[2];
};
#define CLOCK_FLAG_TSC_STABLE BIT(0)

/* struct pvclock_wall_clock: UTC at system time 0. */
struct wall_clock {
	uint32_t version, sec, nsec;
};

/* Ticks to nanoseconds with all 32 bits of the multiplier in use. */
static void set_rate(struct clock_page *page, uint64_t hz)
{
	unsigned __int128 scaled = (unsigned __int128)NS_PER_S << 32;

	for (; scaled / hz > UINT32_MAX; scaled >>= 1)
		page->tsc_shift++;
	for (; scaled / hz < 1u << 31; scaled <<= 1)
		page->tsc_shift--;
	page->tsc_to_system_mul = (uint32_t)(scaled / hz);
}

/*
 * Write a record that begins with its version: odd, then the body, then even, so that a reader on any vCPU sees all of it
 * or tries again. The version the guest left there is the guest's; only its parity is relied on.
 */
static void publish(struct vcpu *v, uint64_t address, void *record, size_t size)
{
	uint32_t version;
	gpa_t at = gpa(address);

	if (mem_read(v->mem, at, &version, sizeof(version)))
		goto bad;
	version = (version | 1) + (version & 1 ? 2 : 0);
	if (cpu_write_physical(v, at, &version, sizeof(version)))
		goto bad;
	atomic_thread_fence(memory_order_seq_cst);
	if (cpu_write_physical(v, gpa(address + sizeof(version)), (char *)record + sizeof(version),
			       (unsigned)(size - sizeof(version))))
		goto bad;
	atomic_thread_fence(memory_order_seq_cst);
	version++;
	cpu_write_physical(v, at, &version, sizeof(version));
	return;
bad:
	log_guest("cpu%u: paravirtual clock record at %#lx: expected an address in RAM", v->index,
		  (unsigned long)address);
}

/*
 * Once per write of the MSR or move of the TSC is enough: both TSC and system time follow the machine's one clock at the same
 * rate ever after, which is what the stable flag says. All vCPUs reckon from power-on, so that what the multiplier leaves out is the
 * same for all.
 */
void cpu_kvm_clock_update(struct vcpu *v)
{
	uint64_t msr = v->s.kvm_system_time;

	if (!v->model->kvm_pv || !(msr & BIT(0)))
		return;
	struct clock_page page = { .tsc_timestamp = v->s.tsc_offset, .flags = CLOCK_FLAG_TSC_STABLE };

	set_rate(&page, clock_tsc_hz(v->clock));
	publish(v, msr & ~3ull, &page, sizeof(page));
}

void cpu_kvm_wall_clock_update(struct vcpu *v)
{
	uint64_t now = clock_tsc_time(v->clock, cpu_tsc(v) - v->s.tsc_offset);
	uint64_t wall = clock_wall_ns(v->clock) - now;
	struct wall_clock record = { .sec = (uint32_t)(wall / NS_PER_S), .nsec = (uint32_t)(wall % NS_PER_S) };

	publish(v, v->s.kvm_wall_clock & ~3ull, &record, sizeof(record));
}

/*
 * VMCALL, VMMCALL. Linux asks for what no feature bit announces (pairing of clocks), so the answer is "no such call". Without
 * the interface it is an instruction for virtual machine extensions that this processor does not have.
 */
void op_hypercall(struct vcpu *v, const struct insn *i)
{
	enum { KVM_ENOSYS = 1000, KVM_EPERM = 1 };

	(void)i;
	if (!v->model->kvm_pv)
		cpu_raise(v, EXC_UD);
	cpu_set_reg(v, 8 * RAX, v->code_mode == MODE_64 ? 8 : 4, v->cpl ? (uint64_t)-KVM_EPERM : (uint64_t)-KVM_ENOSYS);
}
