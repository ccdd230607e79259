/*
 * What may be written to CR0, CR3, CR4 and EFER outside of long mode, and on the way there: SDM vol. 3A 4.1.2, 4.4.1, 4.10.1, 9.8.5. A test
 * is a list of such writes, which is carried out by 32-bit code with paging off at first, up to the one that gives #GP.
 */
#include "guest.h"

#define CR0_NW	BIT(29)
#define CR0_CD	BIT(30)
#define CR4_PSE BIT(4)
#define TSS_16	GDT_FREE
#define AT(p)	((u32)(u64)(p))

enum target { END_OF_LIST, TO_CR0, TO_CR3, TO_CR4, TO_EFER, TO_TR, TO_MEMORY };

struct step {
	u32 to, value; /* TO_MEMORY: the address of a doubleword, whose bit 1 is set */
};

/* Where it ended: steps done (all: no fault), the fault's error code, and what the registers then had. */
struct outcome {
	u32 done, faulted, error, cr0, cr3, cr4, efer;
};
struct outcome outcome;
void carry_out(const struct step *);

u64 old_rsp, old_cr0, old_cr3, old_cr4;
u32 old_efer;
struct {
	u16 limit;
	u64 base;
} __attribute__((packed)) old_idtr;
static u64 transition_idt[EXC_GP + 1];
struct {
	u16 limit;
	u32 base;
} __attribute__((packed)) transition_idtr;
u8 transition_stack[4096] __attribute__((aligned(16)));

asm(".text\n"
    "carry_out:\n"
    "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "mov %rsp, old_rsp\n"
    "mov %cr0, %rax; mov %rax, old_cr0; mov %cr3, %rax; mov %rax, old_cr3; mov %cr4, %rax; mov %rax, old_cr4\n"
    "mov $0xc0000080, %ecx; rdmsr; mov %eax, old_efer; sidt old_idtr\n"
    "pushq $0x08; pushq $1f; lretq\n"
    ".code32\n"
    "1: mov $0x18, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss; mov $transition_stack + 4096, %esp\n"
    "mov %edi, %esi\n"
    "mov $0x21, %eax; mov %eax, %cr0\n" /* PE, NE */
    "xor %eax, %eax; xor %edx, %edx; wrmsr; mov %eax, %cr4\n"
    "lidt transition_idtr\n"
    "movl $0, outcome; movl $0, outcome + 4; movl $0, outcome + 8\n"

    "2: mov (%esi), %eax; mov 4(%esi), %edi; xor %edx, %edx\n"
    "cmp $0, %eax; je 9f\n"
    "cmp $1, %eax; jne 3f; mov %edi, %cr0\n"
    "3: cmp $2, %eax; jne 3f; mov %edi, %cr3\n"
    "3: cmp $3, %eax; jne 3f; mov %edi, %cr4\n"
    "3: cmp $5, %eax; jne 3f; ltr %di\n"
    "3: cmp $6, %eax; jne 3f; orl $2, (%edi)\n"
    "3: cmp $4, %eax; jne 3f; mov %edi, %eax; wrmsr\n"
    "3: incl outcome; add $8, %esi; jmp 2b\n"

    ".globl transition_fault\n"
    "transition_fault: pop outcome + 8; movl $1, outcome + 4; mov $transition_stack + 4096, %esp\n"

    "9: mov %cr0, %eax; mov %eax, outcome + 12; mov %cr3, %eax; mov %eax, outcome + 16\n"
    "mov %cr4, %eax; mov %eax, outcome + 20\n"
    "mov $0xc0000080, %ecx; rdmsr; mov %eax, outcome + 24\n"
    "mov %cr4, %eax; test $0x20000, %eax; jz 3f; btr $17, %eax; mov %eax, %cr4\n" /* PCIDE, without which PG stays */
    "3: mov $0x21, %eax; mov %eax, %cr0; mov $0x100, %eax; ltr %ax\n" /* GDT_TSS: a 16-bit TSS would be in the way */
    "mov old_cr4, %eax; btr $17, %eax; mov %eax, %cr4\n"
    "mov old_cr3, %eax; mov %eax, %cr3\n"
    "mov old_efer, %eax; btr $10, %eax; xor %edx, %edx; wrmsr\n"
    "mov old_cr0, %eax; mov %eax, %cr0\n"
    "ljmp $0x10, $3f\n"
    ".code64\n"
    "3: mov old_rsp, %rsp; lidt old_idtr\n"
    "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "ret\n");
extern const u8 transition_fault[];

static void attempt(const struct step *steps)
{
	u32 at = AT(transition_fault);

	transition_idt[EXC_GP] = (at & 0xffff) | (u64)KERNEL_CS32 << 16 | 0x8eull << 40 | (u64)(at >> 16) << 48;
	transition_idtr.limit = sizeof(transition_idt) - 1;
	transition_idtr.base = AT(transition_idt);
	*gdt_entry(GDT_TSS) &= ~BIT(41);
	carry_out(steps);
	*gdt_entry(GDT_TSS) &= ~BIT(41);
	asm volatile("ltr %w0" ::"r"(GDT_TSS));
}
#define ATTEMPT(...) attempt((const struct step[]){ __VA_ARGS__, { END_OF_LIST, 0 } })

static bool refused_at(u32 step)
{
	bool good = outcome.faulted && outcome.error == 0 && outcome.done == step - 1;

	if (!good)
		print("# after %u steps fault %u error 0x%x\n", outcome.done, outcome.faulted, outcome.error);
	return good;
}

static bool all_done(void)
{
	if (outcome.faulted)
		print("# step %u: #GP(0x%x)\n", outcome.done + 1, outcome.error);
	return !outcome.faulted;
}

#define PE (u32)(CR0_PE | CR0_NE)
#define PG (u32)(CR0_PG | CR0_PE | CR0_NE)
#define NX (has_nx() ? (u32)EFER_NXE : 0)

/* ---- tables: one for each kind of paging, the first GiB or 4 MiB at its place ---- */

static u64 pointers[4] __attribute__((aligned(32))), other_pointers[4] __attribute__((aligned(32)));
static u64 pae_directory[512] __attribute__((aligned(4096)));
static u32 directory[1024] __attribute__((aligned(4096)));

static void make_tables(void)
{
	for (u64 n = 0; n < 512; n++)
		pae_directory[n] = n << 21 | PTE_P | PTE_W | PTE_PS;
	for (u32 n = 0; n < 256; n++)
		directory[n] = n << 22 | (u32)(PTE_P | PTE_W | PTE_PS);
	pointers[0] = other_pointers[0] = (u64)pae_directory | PTE_P;
}

/* ---- CR0 ---- */

static void test_cr0(void)
{
	ATTEMPT({ TO_CR0, (u32)(CR0_PG | CR0_NE) });
	check(refused_at(1), "2 MOV CR: CR0.PG without PE: #GP(0)");
	check_equal(outcome.cr0, 0x31, "2 MOV CR: and nothing changes"); /* ET is wired */
	ATTEMPT({ TO_CR0, PE | (u32)CR0_NW });
	check(refused_at(1), "2 MOV CR: CR0.NW without CD: #GP(0)");
	ATTEMPT({ TO_CR0, PE | (u32)(CR0_NW | CR0_CD) }, { TO_CR0, PE | (u32)CR0_CD }, { TO_CR0, PE });
	check(all_done(), "2 MOV CR: CD and NW, CD, none");
	ATTEMPT({ TO_CR4, (u32)CR4_PSE }, { TO_CR3, AT(directory) }, { TO_CR0, PG }, { TO_CR0, PE });
	check(all_done() && !(outcome.cr0 & CR0_PG), "3A 9.8.5: 32-bit paging on and off");
}

/* ---- into long mode ---- */

static void test_long_mode(void)
{
	u32 cr3 = (u32)read_cr3(), pae = (u32)CR4_PAE, lme = (u32)EFER_LME | NX;

	ATTEMPT({ TO_CR4, pae }, { TO_CR3, cr3 }, { TO_EFER, lme });
	check(all_done() && (outcome.efer & (EFER_LME | EFER_LMA)) == EFER_LME,
	      "3A 9.8.5: LME without paging: LMA is clear");
	ATTEMPT({ TO_CR4, pae }, { TO_CR3, cr3 }, { TO_EFER, lme }, { TO_CR0, PG });
	check(all_done() && (outcome.efer & EFER_LMA), "3A 9.8.5: paging with LME and PAE: LMA is set");
	ATTEMPT({ TO_CR3, cr3 }, { TO_EFER, lme }, { TO_CR0, PG });
	check(refused_at(3), "3A 9.8.5: paging with LME, without PAE: #GP(0)");
	check(!(outcome.efer & EFER_LMA) && !(outcome.cr0 & CR0_PG), "3A 9.8.5: and nothing changes");
	ATTEMPT({ TO_CR4, pae }, { TO_CR3, cr3 }, { TO_EFER, lme }, { TO_CR0, PG }, { TO_CR0, PE });
	check(all_done() && (outcome.efer & (EFER_LME | EFER_LMA)) == EFER_LME,
	      "3A 9.8.5.4: paging off in compatibility mode ends long mode");
	ATTEMPT({ TO_CR4, (u32)CR4_PSE }, { TO_CR3, AT(directory) }, { TO_CR0, PG }, { TO_EFER, lme });
	check(refused_at(4), "3A 4.1.2: LME set while paging: #GP(0)");
	ATTEMPT({ TO_EFER, (u32)(EFER_LME | EFER_LMA) });
	if (vendor_is_amd())
		check(refused_at(1), "APM 2 3.1.7: LMA set by software: #GP(0)");
	else
		check(all_done() && outcome.efer == EFER_LME, "3A 2.2.1: LMA written: ignored");

	*gdt_entry(TSS_16) = descriptor(AT(directory), 43, 0x81);
	ATTEMPT({ TO_TR, TSS_16 }, { TO_CR4, pae }, { TO_CR3, cr3 }, { TO_EFER, lme }, { TO_CR0, PG });
	check(refused_at(5), "3A 9.8.5.2: with a 16-bit TSS: #GP(0)");
	*gdt_entry(TSS_16) = descriptor(AT(directory), 103, 0x89);
	ATTEMPT({ TO_TR, TSS_16 }, { TO_CR4, pae }, { TO_CR3, cr3 }, { TO_EFER, lme }, { TO_CR0, PG });
	check(all_done(), "3A 9.8.5.2: with a 32-bit one");
	*gdt_entry(TSS_16) = 0;
}

/* ---- PCIDE ---- */

static void test_pcide(void)
{
	u32 cr3 = (u32)read_cr3(), pae = (u32)CR4_PAE, pcide = (u32)CR4_PCIDE;

	if (!has_pcid()) {
		skip("3A 4.10.1: CR4.PCIDE", "not offered");
		return;
	}
	ATTEMPT({ TO_CR4, pae }, { TO_CR4, pae | pcide });
	check(refused_at(2), "3A 4.10.1: PCIDE outside of long mode: #GP(0)");
	ATTEMPT({ TO_CR4, pae }, { TO_CR3, cr3 }, { TO_EFER, (u32)EFER_LME | NX }, { TO_CR0, PG },
		{ TO_CR4, pae | pcide });
	check(all_done() && (outcome.cr4 & CR4_PCIDE), "3A 4.10.1: in compatibility mode");
}

/* ---- PAE paging: the four pointers are loaded and checked with CR3, and when paging changes ---- */

static bool refused_pointer(unsigned n, u64 value)
{
	other_pointers[n] = value;
	ATTEMPT({ TO_CR4, (u32)CR4_PAE }, { TO_CR3, AT(other_pointers) }, { TO_CR0, PG });
	other_pointers[n] = n ? 0 : (u64)pae_directory | PTE_P;
	return outcome.faulted && outcome.error == 0 && outcome.done == 2;
}

static void test_pae(void)
{
	u32 pae = (u32)CR4_PAE, good = AT(pointers), bad = AT(other_pointers);
	u64 memory = BIT(cpuid(0x80000008, 0).a & 0xff) - 1, reserved = (~memory | 0x1e6), refused = 0;

	for (unsigned bit = 0; bit < 64; bit++)
		if (reserved >> bit & 1 && refused_pointer(bit % 4, (u64)pae_directory | PTE_P | BIT(bit)))
			refused |= BIT(bit);
	check_equal(refused, reserved, "3A 4.4.1: reserved bits of a PDPTE: #GP(0) when CR0.PG is set");
	check(!refused_pointer(3, reserved), "3A 4.4.1: but not of an absent one");
	check(!refused_pointer(2, (u64)pae_directory | PTE_P | 0xe18), "3A 4.4.1: PWT, PCD and bits 11:9 are free");

	other_pointers[1] = PTE_P | PTE_W;
	ATTEMPT({ TO_CR4, pae }, { TO_CR3, good }, { TO_CR0, PG }, { TO_CR3, bad });
	check(refused_at(4), "3A 4.4.1: and by MOV to CR3");
	check_equal(outcome.cr3, good, "3A 4.4.1: CR3 stays");
	ATTEMPT({ TO_CR4, pae }, { TO_CR3, bad }, { TO_CR0, PE | (u32)CR0_WP });
	check(all_done(), "3A 4.4.1: without paging nobody looks");
	ATTEMPT({ TO_CR3, bad }, { TO_CR4, pae | (u32)CR4_PGE });
	check(all_done(), "3A 4.4.1: nor when CR4.PAE is set before paging");
	other_pointers[1] = 0;
}

/* A pointer is spoiled in memory while paging is on: is it loaded anew by this step? */
static bool reloads(u32 to, u32 value)
{
	other_pointers[1] = (u64)pae_directory | PTE_P;
	ATTEMPT({ TO_CR4, (u32)CR4_PAE }, { TO_CR3, AT(other_pointers) }, { TO_CR0, PG },
		{ TO_MEMORY, AT(&other_pointers[1]) }, { to, value });
	other_pointers[1] = 0;
	return outcome.faulted && outcome.error == 0 && outcome.done == 4;
}

static void test_reload(void)
{
	u32 pae = (u32)CR4_PAE;

	check(reloads(TO_CR4, pae | (u32)CR4_PGE), "3A 4.4.1: a change of CR4.PGE loads the PDPTEs");
	check(reloads(TO_CR4, pae | (u32)CR4_PSE), "3A 4.4.1: of CR4.PSE");
	if (has_smep())
		check(reloads(TO_CR4, pae | (u32)CR4_SMEP), "3A 4.4.1: of CR4.SMEP");
	check(reloads(TO_CR0, PG | (u32)CR0_CD), "3A 4.4.1: of CR0.CD");
	check(!reloads(TO_CR4, pae | (u32)CR4_DE), "3A 4.4.1: none of CR4.DE");
	check(!reloads(TO_CR0, PG | (u32)CR0_WP), "3A 4.4.1: of CR0.WP");
	check(!reloads(TO_CR0, PE), "3A 4.4.1: nor when paging ends");
}

void guest(void)
{
	make_tables();
	test_cr0();
	test_long_mode();
	test_pcide();
	test_pae();
	test_reload();
}
