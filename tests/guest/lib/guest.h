/*
 * What bare-metal guests are made of. A guest is one file that defines guest(), which makes checks; the library starts it in
 * 64-bit mode on the boot processor, prints TAP on the debug console (port 0xe9) and ends through the debug-exit port (0xf4).
 *
 * The heart is run(): it sets every general register, RIP, CS, RFLAGS and SS from a struct frame, by IRETQ, and comes back
 * with the state at the first exception or interrupt that has no handler of its own, or at the snippet's end (INT END_VECTOR).
 * So a test says what a few instructions find and what they must leave, whatever ring and mode they run in.
 *
 * Names of checks begin with the section that demands it: "3A 4.7" is the Intel SDM volume 3A, "2" is volume 2's page of the
 * instruction, "APM" is AMD's manual.
 */
#ifndef GUEST_H
#define GUEST_H

#define END_VECTOR 0x40

/* Selectors: see gdt in lib/cpu.c. SYSCALL, SYSRET, SYSENTER and SYSEXIT want this order. */
#define KERNEL_CS32 0x08
#define KERNEL_CS   0x10
#define KERNEL_DS   0x18
#define USER_CS32   0x23
#define USER_DS	    0x2b
#define USER_CS	    0x33
#define USER_DS2    0x3b
#define KERNEL_CS16 0x40
#define KERNEL_DS16 0x48
#define USER_CS16   0x53
#define GDT_FREE    0x58  /* to 0xf8: the tests' own */
#define GDT_TSS	    0x100 /* 16 bytes a CPU */

#define MAX_CPUS   9 /* eight, and one number more for the one that test_smp starts again */
#define STACK_SIZE 0x4000

/*
 * Linear addresses. The first GiB is identity-mapped for the supervisor; USER() is the same memory for everybody. Devices are
 * where they are. What is from FREE_BASE to DEVICES is not mapped: the tests' own.
 */
#define USER_WINDOW 0x40000000ull
#define USER(p)	    ((u64)(p) + USER_WINDOW)
#define FREE_BASE   0x80000000ull
#define DEVICES	    0xc0000000ull

#ifndef __ASSEMBLER__

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define BIT(n)	      (1ull << (n))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define noinline      __attribute__((noinline))
#define unused	      __attribute__((unused))

void guest(void); /* each test's */

/* ---- TAP (print.c) ---- */

void print(const char *format, ...) __attribute__((format(printf, 1, 2))); /* %s %c %u %d %x %lu %lx %%, no widths */
bool check(bool good, const char *name, ...) __attribute__((format(printf, 2, 3)));
bool check_equal(u64 got, u64 wanted, const char *name, ...) __attribute__((format(printf, 3, 4)));
void skip(const char *name, const char *reason);
_Noreturn void finish(void);
/* The guest itself went wrong: says so and ends it. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- the processor ---- */

#define CR0_PE		   BIT(0)
#define CR0_MP		   BIT(1)
#define CR0_EM		   BIT(2)
#define CR0_TS		   BIT(3)
#define CR0_NE		   BIT(5)
#define CR0_WP		   BIT(16)
#define CR0_AM		   BIT(18)
#define CR0_PG		   BIT(31)
#define CR4_TSD		   BIT(2)
#define CR4_DE		   BIT(3)
#define CR4_PAE		   BIT(5)
#define CR4_PGE		   BIT(7)
#define CR4_PCE		   BIT(8)
#define CR4_UMIP	   BIT(11)
#define CR4_FSGSBASE	   BIT(16)
#define CR4_PCIDE	   BIT(17)
#define CR4_SMEP	   BIT(20)
#define CR4_SMAP	   BIT(21)
#define FLAG_CF		   BIT(0)
#define FLAG_ZF		   BIT(6)
#define FLAG_TF		   BIT(8)
#define FLAG_IF		   BIT(9)
#define FLAG_DF		   BIT(10)
#define FLAG_OF		   BIT(11)
#define FLAG_IOPL	   (3ull << 12)
#define FLAG_NT		   BIT(14)
#define FLAG_RF		   BIT(16)
#define FLAG_AC		   BIT(18)
#define FLAG_ID		   BIT(21)
#define MSR_TSC		   0x10
#define MSR_APIC_BASE	   0x1b
#define MSR_TSC_ADJUST	   0x3b
#define MSR_SYSENTER_CS	   0x174
#define MSR_SYSENTER_ESP   0x175
#define MSR_SYSENTER_EIP   0x176
#define MSR_TSC_DEADLINE   0x6e0
#define MSR_X2APIC	   0x800
#define MSR_EFER	   0xc0000080
#define MSR_STAR	   0xc0000081
#define MSR_LSTAR	   0xc0000082
#define MSR_CSTAR	   0xc0000083
#define MSR_FMASK	   0xc0000084
#define MSR_FS_BASE	   0xc0000100
#define MSR_GS_BASE	   0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102
#define EFER_SCE	   BIT(0)
#define EFER_LME	   BIT(8)
#define EFER_LMA	   BIT(10)
#define EFER_NXE	   BIT(11)
enum {
	EXC_DE,
	EXC_DB,
	EXC_NMI,
	EXC_BP,
	EXC_OF,
	EXC_BR,
	EXC_UD,
	EXC_NM,
	EXC_DF,
	EXC_TS = 10,
	EXC_NP,
	EXC_SS,
	EXC_GP,
	EXC_PF,
	EXC_MF = 16,
	EXC_AC
};

#define READ_REGISTER(name, mnemonic)                                                                                  \
	static inline u64 name(void)                                                                                   \
	{                                                                                                              \
		u64 value;                                                                                             \
		asm volatile(mnemonic ", %0" : "=r"(value)::"memory");                                                 \
		return value;                                                                                          \
	}
#define WRITE_REGISTER(name, mnemonic)                                                                                 \
	static inline void name(u64 value) { asm volatile("mov %0, " mnemonic ::"r"(value) : "memory"); }
READ_REGISTER(read_cr0, "mov %%cr0")
READ_REGISTER(read_cr2, "mov %%cr2")
READ_REGISTER(read_cr3, "mov %%cr3")
READ_REGISTER(read_cr4, "mov %%cr4")
READ_REGISTER(read_cr8, "mov %%cr8")
READ_REGISTER(read_dr6, "mov %%dr6")
READ_REGISTER(read_dr7, "mov %%dr7")
WRITE_REGISTER(write_cr0, "%%cr0")
WRITE_REGISTER(write_cr2, "%%cr2")
WRITE_REGISTER(write_cr3, "%%cr3")
WRITE_REGISTER(write_cr4, "%%cr4")
WRITE_REGISTER(write_cr8, "%%cr8")
WRITE_REGISTER(write_dr0, "%%dr0")
WRITE_REGISTER(write_dr1, "%%dr1")
WRITE_REGISTER(write_dr2, "%%dr2")
WRITE_REGISTER(write_dr3, "%%dr3")
WRITE_REGISTER(write_dr6, "%%dr6")
WRITE_REGISTER(write_dr7, "%%dr7")

static inline u64 read_msr(u32 msr)
{
	u32 low, high;
	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
	return (u64)high << 32 | low;
}
static inline void write_msr(u32 msr, u64 value)
{
	asm volatile("wrmsr" ::"c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}
static inline u64 read_tsc(void)
{
	u32 low, high;
	asm volatile("rdtsc" : "=a"(low), "=d"(high)::"memory");
	return (u64)high << 32 | low;
}
struct cpuid {
	u32 a, b, c, d;
};
static inline struct cpuid cpuid(u32 leaf, u32 subleaf)
{
	struct cpuid r;
	asm volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(subleaf));
	return r;
}
static inline u8 in8(u16 port)
{
	u8 value;
	asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}
static inline u32 in32(u16 port)
{
	u32 value;
	asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}
static inline void out8(u16 port, u8 value) { asm volatile("outb %0, %1" ::"a"(value), "Nd"(port) : "memory"); }
static inline void cpu_pause(void) { asm volatile("pause" ::: "memory"); }
static inline void invlpg(u64 a) { asm volatile("invlpg (%0)" ::"r"(a) : "memory"); }
static inline void interrupts_on(void) { asm volatile("sti" ::: "memory"); }
static inline void interrupts_off(void) { asm volatile("cli" ::: "memory"); }
static inline void flush_tlb(void) { write_cr3(read_cr3() & ~BIT(63)); }

/* Features that guests ask for. */
bool has_nx(void), has_1g_pages(void), has_pge(void), has_pcid(void), has_invpcid(void), has_smep(void), has_smap(void);
bool has_x2apic(void), has_tsc_deadline(void), has_cx16(void), has_umip(void), has_fsgsbase(void), has_monitor(void);
bool has_bmi2(void), has_movbe(void), vendor_is_amd(void);

/* ---- exceptions and interrupts (cpu.c) ---- */

/* The registers as they were, and what was pushed; error is 0 for vectors that push none. */
#define FRAME                                                                                                          \
	u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax, vector, error, rip, cs, rflags,   \
		rsp, ss;

struct frame {
	FRAME
};

struct trap {
	FRAME
	u64 cr2, dr6;
};

/*
 * Runs from *start; `at` names RIP, KERNEL() and USER_MODE() fill in the rest, which further arguments override. RFLAGS is 2.
 * The stacks are the CPU's own scratch stacks.
 */
struct trap run(const struct frame *start);
u64 kernel_stack(void) __attribute__((pure)),
	user_stack(void) __attribute__((pure)); /* tops of the scratch stacks; user_stack() is in the user window */
#define KERNEL(at, ...)                                                                                                \
	run(&(struct frame){ .rip = (u64)(at),                                                                         \
			     .cs = KERNEL_CS,                                                                          \
			     .ss = KERNEL_DS,                                                                          \
			     .rsp = kernel_stack(),                                                                    \
			     .rflags = 2,                                                                              \
			     ##__VA_ARGS__ })
#define USER_MODE(at, ...)                                                                                             \
	run(&(struct frame){                                                                                           \
		.rip = USER(at), .cs = USER_CS, .ss = USER_DS, .rsp = user_stack(), .rflags = 2, ##__VA_ARGS__ })

/*
 * A few instructions, position-independent, that end with INT END_VECTOR; `name` is their first byte. Labels inside are
 * `name`_<something> and global by LABEL().
 */
#define CODE(name, text)                                                                                               \
	asm(".pushsection .text\n.balign 16\n.globl " #name "\n" #name ": " text "\nint $0x40\n.popsection\n");        \
	extern const u8 name[];
#define CODE32(name, text) CODE(name, ".code32\n" text "\nint $0x40\n.code64\n")
#define CODE16(name, text) CODE(name, ".code16\n" text "\nint $0x40\n.code64\n")
#define LABEL(name)	   ".globl " #name "\n" #name ":\n"

/* What run() must have come back with. */
bool check_end(const struct trap *, const char *name, ...) __attribute__((format(printf, 2, 3)));
bool check_fault(const struct trap *, u64 vector, u64 error, const char *name, ...)
	__attribute__((format(printf, 4, 5)));
bool check_page_fault(const struct trap *, u64 error, u64 address, const char *name, ...)
	__attribute__((format(printf, 4, 5)));

/* Handlers that return to what they interrupted, possibly after changing the frame. NULL: run() comes back. All CPUs'. */
typedef void handler_fn(struct frame *);
void set_handler(u8 vector, handler_fn *);
/* The gate of a vector: present, interrupt gate, the library's stub. */
struct gate {
	u64 low, high;
};
struct gate *idt_gate(u8 vector);
void set_gate(u8 vector, u64 offset, u16 selector, unsigned type, unsigned dpl, unsigned ist);
void reset_gate(u8 vector);
#define GATE_INTERRUPT 14
#define GATE_TRAP      15
u64 *gdt_entry(u16 selector);
void load_idt(u64 base, u16 limit);
extern u64 idt_base;
/* 64-bit TSS of the running CPU. */
struct tss {
	u32 reserved;
	u64 rsp[3], reserved2, ist[7], reserved3;
	u16 reserved4, io_map;
} __attribute__((packed));
struct tss *tss(void);
unsigned this_cpu(void);

/* Descriptors: bits 40..55 as attributes. */
static inline u64 descriptor(u32 base, u32 limit, u32 attributes)
{
	return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)attributes << 40 |
	       (u64)(limit >> 16 & 0xf) << 48 | (u64)(base >> 24) << 56;
}
#define ATTR_CODE64 0xa09b
#define ATTR_CODE32 0xc09b
#define ATTR_CODE16 0x009b
#define ATTR_DATA32 0xc093
#define ATTR_DATA16 0x0093
#define ATTR_DPL3   0x0060

/* ---- paging (page.c) ---- */

#define PTE_P	    BIT(0)
#define PTE_W	    BIT(1)
#define PTE_U	    BIT(2)
#define PTE_A	    BIT(5)
#define PTE_D	    BIT(6)
#define PTE_PS	    BIT(7)
#define PTE_G	    BIT(8)
#define PTE_NX	    BIT(63)
#define PTE_ADDRESS 0x000ffffffffff000ull
#define PF_P	    BIT(0)
#define PF_W	    BIT(1)
#define PF_U	    BIT(2)
#define PF_RSVD	    BIT(3)
#define PF_I	    BIT(4)
/* The entry that maps `linear` at a level: 1 for 4 KiB pages, 2 for 2 MiB, 3 for 1 GiB; makes the tables above. */
u64 *entry_of(u64 linear, unsigned level);
/* A 4 KiB page of the current tables, and INVLPG. */
void map_page(u64 linear, u64 physical, u64 flags);
void unmap_page(u64 linear);
/* A fresh zeroed frame, from memory that the identity mapping covers. */
void *frame_alloc(void);
/* A copy of the top-level table, sharing everything below: an address space. Returns the value for CR3. */
u64 address_space(void);
void paging_init(void);

/* ---- local APIC, I/O APIC, 8259 (apic.c) ---- */

enum apic_register {
	APIC_ID = 0x02,
	APIC_VERSION = 0x03,
	APIC_TPR = 0x08,
	APIC_PPR = 0x0a,
	APIC_EOI = 0x0b,
	APIC_LDR = 0x0d,
	APIC_DFR = 0x0e,
	APIC_SVR = 0x0f,
	APIC_ISR = 0x10,
	APIC_TMR = 0x18,
	APIC_IRR = 0x20,
	APIC_ESR = 0x28,
	APIC_ICR = 0x30,
	APIC_ICR_HIGH = 0x31,
	APIC_LVT_TIMER = 0x32,
	APIC_LVT_THERMAL,
	APIC_LVT_PERF,
	APIC_LVT_LINT0,
	APIC_LVT_LINT1,
	APIC_LVT_ERROR,
	APIC_TIMER_INITIAL = 0x38,
	APIC_TIMER_CURRENT = 0x39,
	APIC_TIMER_DIVIDE = 0x3e,
	APIC_SELF_IPI = 0x3f
};
#define ICR_NMI		 (4 << 8)
#define ICR_INIT	 (5 << 8)
#define ICR_SIPI	 (6 << 8)
#define ICR_LOGICAL	 BIT(11)
#define ICR_ASSERT	 BIT(14)
#define ICR_LEVEL	 BIT(15)
#define ICR_SELF	 (1 << 18)
#define ICR_ALL		 (2 << 18)
#define ICR_OTHERS	 (3 << 18)
#define LVT_MASKED	 BIT(16)
#define LVT_PERIODIC	 BIT(17)
#define LVT_TSC_DEADLINE BIT(18)
u32 apic_read(unsigned reg); /* in whichever of the two modes the APIC is in */
void apic_write(unsigned reg, u32 value);
void apic_ipi(u32 destination, u32 command);
bool apic_bit(unsigned first_register, u8 vector); /* of ISR, TMR or IRR */
static inline void apic_eoi(void) { apic_write(APIC_EOI, 0); }
/* Enabled, all local vectors masked, nothing in service, TPR 0. */
void apic_init(void);
u32 ioapic_read(unsigned reg);
void ioapic_write(unsigned reg, u32 value);
void ioapic_route(unsigned pin, u64 entry);
void pic_init(void); /* vectors 0x20 and 0x28, all masked */
void pic_mask(u16 mask);

/* ---- time (time.c): all by the TSC's frequency, measured once against the PM timer ---- */

#define PIT_HZ	    1193182
#define PM_TIMER_HZ 3579545
bool pm_timer_init(void); /* found through the ACPI tables */
u32 pm_timer(void);	  /* 24 bits */
void delay_us(u64 us);	  /* by the PM timer, PAUSE in between */
/* Waits until *flag != 0; false after `us`. */
bool wait_for(volatile u32 *flag, u64 us);
/* Is time a count of instructions, so that nothing outside can disturb a measurement? */
bool time_is_exact(void);

/* ---- other processors (smp.c) ---- */

/* Starts all that ACPI names; returns how many there are with this one. */
unsigned smp_start(void);
void smp_run(unsigned cpu, void (*fn)(u64), u64 argument); /* there; does not wait */
void smp_wait(unsigned cpu);				   /* until it is done; dies after a long time */
void smp_run_all(void (*fn)(u64 cpu));			   /* on every CPU, this too, and waits */
unsigned cpus_online(void);
void smp_send_sipi(unsigned cpu); /* after an INIT it comes up anew, as number cpus_online() */
u32 apic_id_of(unsigned cpu);

/* ---- start information (start.c) ---- */
u64 acpi_table(const char *signature); /* address, 0 if absent */

void *memset(void *, int, size_t);
void *memcpy(void *, const void *, size_t);
int memcmp(const void *, const void *, size_t);

static inline bool same_text(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

#endif
#endif
