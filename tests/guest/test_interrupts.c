/*
 * Interrupts, SDM vol. 3A chapters 6 and 11: when they are taken and when held off, in which order, on which stack, and what
 * the controllers on the way do: local APIC, I/O APIC, 8259 pair, with the interval timer as the source.
 */
#include "guest.h"

#define A	  0x60 /* vectors, by priority class */
#define A1	  0x61
#define B	  0x70
#define C	  0x80
#define PIC_TIMER 0x20	  /* IRQ 0 of the 8259 as pic_init() programs it */
#define LONG	  2000000 /* us, before something that should happen counts as lost */

/* ---- what was taken ---- */

static u8 taken[32];
static volatile u32 taken_count;
static struct frame last;

static void note(struct frame *f)
{
	memcpy(&last, f, sizeof(last));
	if (taken_count < ARRAY_SIZE(taken))
		taken[taken_count] = (u8)f->vector;
	taken_count++;
}

static void note_and_eoi(struct frame *f)
{
	note(f);
	apic_eoi();
}

static bool took(unsigned count, u8 first, u8 second, u8 third)
{
	bool good = taken_count == count && (count < 1 || taken[0] == first) && (count < 2 || taken[1] == second) &&
		    (count < 3 || taken[2] == third);

	if (!good)
		print("# taken: %u, 0x%x 0x%x 0x%x\n", taken_count, taken[0], taken[1], taken[2]);
	taken_count = 0;
	return good;
}

static void send(u8 vector) { apic_ipi(0, ICR_SELF | vector); }

/* Lets through what is pending. */
static void window(void) { asm volatile("sti; nop; nop; cli" ::: "memory"); }

/* ---- the boundary at which an interrupt is taken ---- */

CODE(sti_nop, "sti; nop\n" LABEL(sti_nop_after) "nop; nop")
CODE(sti_sti, "sti; sti\n" LABEL(sti_sti_after) "nop; nop")
CODE(sti_cli, "sti; cli; nop")
CODE(sti_hlt, "sti; hlt\n" LABEL(sti_hlt_after) "nop")
CODE(popf_if, "push %rdx; popf\n" LABEL(popf_if_after) "nop; nop")
CODE(cr8_down, "mov %rdx, %cr8\n" LABEL(cr8_down_after) "nop; nop")
CODE(two_nops, "nop; nop")
CODE(hlt_only, "hlt\n" LABEL(hlt_only_after) "nop")
extern const u8 sti_nop_after[], sti_sti_after[], sti_hlt_after[], popf_if_after[], cr8_down_after[], hlt_only_after[];

/* With one interrupt pending: it comes out of run(), which has no handler for it. */
static void try_boundary(const u8 *code, u64 rip, const char *name)
{
	struct trap t;

	send(A);
	t = KERNEL(code, .rcx = KERNEL_DS, .rdx = 2 | FLAG_IF);
	check(t.vector == A && t.rip == rip && t.cs == KERNEL_CS && (t.rflags & FLAG_IF), "%s", name);
	if (t.vector != A || t.rip != rip)
		print("# vector 0x%lx at 0x%lx, expected 0x%lx\n", t.vector, t.rip, rip);
	apic_eoi();
	if (t.vector != A) {
		set_handler(A, note_and_eoi);
		window();
		set_handler(A, NULL);
	}
}

static void test_shadows(void)
{
	struct trap t;

	try_boundary(sti_nop, (u64)sti_nop_after, "2 STI: interrupts come after the next instruction");
	try_boundary(sti_sti, (u64)sti_sti_after, "2 STI: a second one does not hold them off longer");
	try_boundary(sti_hlt, (u64)sti_hlt_after, "2 STI: HLT after it sleeps, and is woken at once");
	try_boundary(popf_if, (u64)popf_if_after, "2 POPF: IF counts at once");
	send(A);
	t = KERNEL(sti_cli);
	check_end(&t, "2 STI: followed by CLI: nothing is taken");
	check(apic_bit(APIC_IRR, A), "3A 11.8.4: it stays in the IRR");
	t = KERNEL(two_nops, .rflags = 2 | FLAG_IF);
	check(t.vector == A && t.rip == (u64)two_nops, "2 IRET: IF counts at once");
	check(apic_bit(APIC_ISR, A) && !apic_bit(APIC_IRR, A), "3A 11.8.4: taken, it moves from IRR to ISR");
	apic_eoi();
	check(!apic_bit(APIC_ISR, A), "3A 11.8.5: until EOI");

	write_cr8(A >> 4);
	send(A);
	t = KERNEL(two_nops, .rflags = 2 | FLAG_IF, .rdx = 0);
	check_end(&t, "3A 11.8.3: the task priority holds off its own class");
	t = KERNEL(cr8_down, .rflags = 2 | FLAG_IF, .rdx = (A >> 4) - 1);
	check(t.vector == A && t.rip == (u64)cr8_down_after, "3A 11.8.6: CR8 lowered: taken after that instruction");
	apic_eoi();
	check_equal(apic_read(APIC_TPR), A - 0x10, "3A 11.8.6: CR8 is the upper half of TPR");
	apic_write(APIC_TPR, 0x2f);
	check_equal(read_cr8(), 2, "3A 11.8.6: and TPR seen as CR8");
	write_cr8(0);
}

/* A loop half of whose boundaries are behind loads of SS: no interrupt may ever come there. */
CODE(mov_ss_loop, "1: mov %ecx, %ss\n" LABEL(mov_ss_1) "nop; mov %ecx, %ss\n" LABEL(mov_ss_2) "mov %ecx, %ss\n"
											      "nop; jmp 1b")
extern const u8 mov_ss_1[], mov_ss_2[];

static void test_mov_ss(void)
{
	unsigned bad = 0, other = 0;

	apic_write(APIC_TIMER_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, B);
	for (u32 n = 0; n < 200; n++) {
		apic_write(APIC_TIMER_INITIAL, 5000 + n * 37 % 101);
		struct trap t = KERNEL(mov_ss_loop, .rcx = KERNEL_DS, .rflags = 2 | FLAG_IF);

		bad += t.rip == (u64)mov_ss_1 || t.rip == (u64)mov_ss_2;
		other += t.vector != B;
		apic_eoi();
	}
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
	check(!bad && !other, "2 MOV: no interrupt between a load of SS and the next instruction");
	if (bad || other)
		print("# %u of 200 there, %u others\n", bad, other);
}

/* ---- order ---- */

static volatile u32 depth, deepest;

/* Opens the window in the handler, so that what has a higher priority comes in. */
static void nest(struct frame *f)
{
	note(f);
	depth++;
	if (depth > deepest)
		deepest = depth;
	window();
	depth--;
	apic_eoi();
}

static void send_inside(struct frame *f)
{
	note(f);
	if (taken_count == 1) {
		send(A);
		send(A1);
		send(B);
		window();
	}
	apic_eoi();
}

static void test_priority(void)
{
	set_handler(A, note_and_eoi);
	set_handler(A1, note_and_eoi);
	set_handler(B, note_and_eoi);
	send(A);
	send(B);
	send(A1);
	window();
	check(took(3, B, A1, A), "3A 11.8.4: the highest vector first");
	send(A);
	send(A);
	send(A);
	window();
	check(took(1, A, 0, 0), "3A 11.8.4: one request a vector is remembered");

	set_handler(A, nest);
	set_handler(A1, nest);
	set_handler(B, nest);
	deepest = 0;
	send(A);
	send(A1);
	send(B);
	window();
	check(took(3, B, A1, A) && deepest == 1, "3A 11.8.3: lower ones wait while a handler runs");
	set_handler(A1, send_inside);
	set_handler(A, note_and_eoi);
	set_handler(B, note_and_eoi);
	send(A1);
	window();
	check(took(4, A1, B, A1), "3A 11.8.3.1: only a higher class interrupts a handler");
	set_handler(A1, note_and_eoi);
	window();
	taken_count = 0;

	write_cr8(B >> 4);
	send(A);
	send(B);
	send(C);
	set_handler(C, note_and_eoi);
	window();
	check(took(1, C, 0, 0), "3A 11.8.3.1: a task priority between");
	check_equal(apic_read(APIC_PPR), B & 0xf0, "3A 11.8.3.1: the processor priority is it");
	write_cr8(0);
	window();
	check(took(2, B, A, 0), "3A 11.8.3.1: lowered, the others come");
	set_handler(A, NULL);
	set_handler(A1, NULL);
	set_handler(B, NULL);
	set_handler(C, NULL);
}

/* ---- the flags and stacks of handlers ---- */

static u64 flags_inside, frame_inside;

static void note_flags(struct frame *f)
{
	asm volatile("pushf; pop %0" : "=r"(flags_inside));
	frame_inside = (u64)f;
	note_and_eoi(f);
}

CODE(user_loop, "1: inc %rax; jmp 1b")

static void test_gates(void)
{
	u64 ist3 = tss()->ist[2];
	struct trap t;

	set_handler(A, note_flags);
	send(A);
	t = KERNEL(two_nops, .rflags = 2 | FLAG_IF | FLAG_NT | FLAG_AC | FLAG_DF | FLAG_CF | FLAG_ID);
	check(!(flags_inside & (FLAG_IF | FLAG_NT | FLAG_TF | FLAG_RF)) && (flags_inside & FLAG_AC) &&
		      (flags_inside & FLAG_ID),
	      "3A 6.12.1.3: an interrupt gate clears IF, TF, NT, RF and nothing else");
	check(last.rflags == (2 | FLAG_IF | FLAG_NT | FLAG_AC | FLAG_DF | FLAG_CF | FLAG_ID),
	      "3A 6.14.2: and pushes them");
	idt_gate(A)->low |= BIT(40);
	send(A);
	t = KERNEL(two_nops, .rflags = 2 | FLAG_IF);
	check(t.vector == END_VECTOR && (flags_inside & FLAG_IF), "3A 6.12.1.3: a trap gate leaves IF");
	reset_gate(A);

	send(A);
	t = USER_MODE(two_nops, .rflags = 2 | FLAG_IF);
	check(t.vector == END_VECTOR && frame_inside + sizeof(struct frame) == tss()->rsp[0],
	      "3A 6.14.4: from ring 3 the handler has the stack of the TSS");
	check(last.cs == USER_CS && last.ss == USER_DS && last.rsp == user_stack() && last.rip == USER(two_nops),
	      "3A 6.14.2: with ring 3's CS, RIP, SS and RSP pushed");
	check(t.rsp == user_stack() && t.cs == USER_CS, "2 IRET: and back");
	idt_gate(A)->low |= 3ull << 32;
	send(A);
	t = USER_MODE(two_nops, .rflags = 2 | FLAG_IF);
	check(t.vector == END_VECTOR && frame_inside + sizeof(struct frame) == ist3, "3A 6.14.5: or of its IST entry");
	reset_gate(A);
	set_handler(A, NULL);

	/* User code that never ends by itself; on a busy host the timer may be due before it begins. */
	apic_write(APIC_TIMER_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, B);
	for (unsigned n = 0; n < 20; n++) {
		apic_write(APIC_TIMER_INITIAL, 100000);
		t = USER_MODE(user_loop, .rflags = 2 | FLAG_IF, .rax = 0);
		if (t.rax)
			break;
		apic_eoi();
	}
	check(t.vector == B && t.cs == USER_CS && t.rax > 0, "3A 6.3: a timer interrupts a loop of ring 3");
	apic_eoi();
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
}

/* ---- HLT ---- */

/* The interrupt of a busy host's timer may come before HLT is reached: then HLT would sleep for ever, so there is another. */
static void note_or_repeat(struct frame *f)
{
	if (f->rip == (u64)hlt_only)
		apic_write(APIC_TIMER_INITIAL, 200000);
	else
		note(f);
	apic_eoi();
}

static void test_hlt(void)
{
	struct trap t = { 0 };

	apic_write(APIC_LVT_TIMER, B);
	for (unsigned n = 0; n < 20 && t.rip != (u64)hlt_only_after; n++) {
		apic_write(APIC_TIMER_INITIAL, 200000);
		t = KERNEL(hlt_only, .rflags = 2 | FLAG_IF);
		apic_eoi();
	}
	check(t.vector == B && t.rip == (u64)hlt_only_after, "2 HLT: an interrupt wakes it; RIP is behind it");
	set_handler(B, note_or_repeat);
	taken_count = 0;
	apic_write(APIC_TIMER_INITIAL, 200000);
	t = KERNEL(hlt_only, .rflags = 2 | FLAG_IF);
	check(t.vector == END_VECTOR && took(1, B, 0, 0), "2 HLT: and execution goes on behind it");
	set_handler(B, NULL);
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
}

/* ---- NMI ---- */

static volatile u32 nmis, nmi_depth, nmi_deepest;
static bool nmi_sends, nmi_irets;

static void send_nmi(void) { apic_ipi(apic_read(APIC_ID) >> 24, ICR_NMI | ICR_ASSERT); }

static void on_nmi(struct frame *f)
{
	memcpy(&last, f, sizeof(last));
	nmis++;
	if (++nmi_depth > nmi_deepest)
		nmi_deepest = nmi_depth;
	if (nmi_sends && nmis == 1) {
		send_nmi();
		for (unsigned n = 0; n < 100; n++)
			cpu_pause();
		if (nmi_irets)
			asm volatile("int $0x50");
	}
	nmi_depth--;
}

static void do_nothing(struct frame *f) { (void)f; }

static void test_nmi(void)
{
	set_handler(EXC_NMI, on_nmi);
	set_handler(0x50, do_nothing);
	send_nmi();
	check(nmis == 1 && !(last.rflags & FLAG_IF), "3A 6.7: an NMI is taken with IF clear");
	nmis = 0;
	nmi_sends = true;
	send_nmi();
	cpu_pause();
	check(nmis == 2 && nmi_deepest == 1, "3A 6.7.1: a second one waits for the first handler's IRET");
	nmis = 0;
	nmi_irets = true;
	send_nmi();
	cpu_pause();
	check(nmis == 2 && nmi_deepest == 2, "3A 6.7.1: any IRET ends that, also one inside the handler");
	nmi_sends = false;
	set_handler(EXC_NMI, NULL);
	set_handler(0x50, NULL);
}

/* The PIT through the 8259 and LINT0 in NMI mode. */
static void nmi_soon(void)
{
	pic_init();
	out8(0x43, 0x30);
	out8(0x40, 0);
	out8(0x40, 4); /* 0.9 ms */
	pic_mask(0xfffe);
}

static void on_waking_nmi(struct frame *f)
{
	if (f->rip == (u64)hlt_only_after)
		nmis++;
	else
		nmi_soon(); /* too early */
}

static void test_nmi_wakes(void)
{
	struct trap t;

	set_handler(EXC_NMI, on_waking_nmi);
	nmis = 0;
	apic_write(APIC_LVT_LINT0, 4 << 8);
	nmi_soon();
	t = KERNEL(hlt_only);
	check(t.vector == END_VECTOR && nmis == 1, "3A 6.7: an NMI wakes HLT with IF clear, by LINT0 in NMI mode");
	apic_write(APIC_LVT_LINT0, LVT_MASKED);
	pic_init();
	set_handler(EXC_NMI, NULL);
}

/* ---- the 8259s and the I/O APIC, with the interval timer ---- */

static void pit_one_shot(u16 count)
{
	out8(0x43, 0x30); /* channel 0, mode 0 */
	out8(0x40, (u8)count);
	out8(0x40, (u8)(count >> 8));
}

static void note_pic(struct frame *f)
{
	note(f);
	out8(0x20, 0x20);
}

static void note_without_eoi(struct frame *f) { note(f); }

static bool wait_taken(unsigned count, u64 us)
{
	u32 start = pm_timer();
	u64 passed = 0;

	interrupts_on();
	while (taken_count < count && passed < us * PM_TIMER_HZ / 1000000) {
		u32 now = pm_timer();

		passed += (now - start) & 0xffffff;
		start = now;
		cpu_pause();
	}
	interrupts_off();
	return taken_count >= count;
}

static u8 pic_register(u8 command)
{
	out8(0x20, command);
	return in8(0x20);
}

static void test_pic(void)
{
	pic_init();
	apic_write(APIC_LVT_LINT0, 7 << 8); /* ExtINT */
	set_handler(PIC_TIMER, note_pic);
	pit_one_shot(1000);
	check(!wait_taken(1, 3000), "8259: a masked line is not delivered");
	for (unsigned n = 0; n < LONG / 100 && !(pic_register(0x0a) & 1); n++)
		delay_us(100);
	check(pic_register(0x0a) & 1, "8259: but is in its IRR");
	pic_mask(0xfffe);
	check(wait_taken(1, LONG) && took(1, PIC_TIMER, 0, 0), "8259: unmasked, it is");
	set_handler(PIC_TIMER, note_without_eoi);
	pit_one_shot(1000);
	check(wait_taken(1, LONG) && took(1, PIC_TIMER, 0, 0), "8259: the timer again");
	check(pic_register(0x0b) & 1, "8259: in service until its EOI");
	pit_one_shot(1000);
	check(!wait_taken(1, 3000), "8259: nothing of that priority meanwhile");
	out8(0x20, 0x60); /* specific EOI of IRQ 0 */
	check(wait_taken(1, LONG) && took(1, PIC_TIMER, 0, 0), "8259: after the EOI the next comes");
	out8(0x20, 0x60);
	check(!apic_bit(APIC_ISR, PIC_TIMER), "3A 11.1: an ExtINT interrupt is not in the local APIC's ISR");
	apic_write(APIC_LVT_LINT0, LVT_MASKED | 7 << 8);
	pit_one_shot(1000);
	check(!wait_taken(1, 3000), "3A 11.5.1: LINT0 masked: nothing comes through");
	apic_write(APIC_LVT_LINT0, 7 << 8);
	check(wait_taken(1, LONG), "3A 11.5.1: unmasked: what is pending does");
	out8(0x20, 0x60);
	taken_count = 0;
	pic_mask(0xffff);
	apic_write(APIC_LVT_LINT0, LVT_MASKED);
	set_handler(PIC_TIMER, NULL);
}

static void stop_level(struct frame *f)
{
	note(f);
	if (taken_count == 3)
		pit_one_shot(0); /* takes its output down */
	apic_eoi();
}

static void test_ioapic(void)
{
	u64 self = (u64)apic_read(APIC_ID) << 32; /* already in bits 31:24 */

	check_equal(ioapic_read(1) >> 16 & 0xff, 23, "82093AA: 24 inputs");
	set_handler(B, note_and_eoi);
	pit_one_shot(0);
	ioapic_route(2, self | B | LVT_MASKED);
	pit_one_shot(1000);
	check(!wait_taken(1, 3000), "82093AA: masked");
	pit_one_shot(0);
	ioapic_route(2, self | B);
	pit_one_shot(1000);
	check(wait_taken(1, LONG) && took(1, B, 0, 0), "82093AA: the interval timer on input 2, by its edge");
	check(!wait_taken(1, 3000), "82093AA: once");
	ioapic_route(2, self | C | LVT_MASKED);
	set_handler(C, stop_level);
	pit_one_shot(1000);
	ioapic_route(2, self | C | BIT(15));
	check(wait_taken(3, LONG) && !wait_taken(4, 3000),
	      "82093AA: by level: again after each EOI while the line is high");
	taken_count = 0;
	ioapic_route(2, LVT_MASKED);
	set_handler(B, NULL);
	set_handler(C, NULL);
}

/* ---- inside of a string instruction ---- */

CODE(rep_stosb, "rep stosb")
#define MANY 0x1000000ull

/* 16 MiB of linear addresses, all the same page. */
static u64 fill_area(void)
{
	u64 base = 0x9000000000ull, page = (u64)frame_alloc();
	u64 *table = frame_alloc();

	for (unsigned n = 0; n < 512; n++)
		table[n] = page | PTE_P | PTE_W;
	for (u64 n = 0; n < MANY >> 21; n++)
		*entry_of(base + (n << 21), 2) = (u64)table | PTE_P | PTE_W;
	return base;
}

static void test_string(void)
{
	u64 base = fill_area(), done;
	struct trap t;

	apic_write(APIC_LVT_TIMER, B);
	apic_write(APIC_TIMER_DIVIDE, 0xb);
	for (u32 count = 20000;; count *= 2) {
		apic_write(APIC_TIMER_INITIAL, count);
		t = KERNEL(rep_stosb, .rdi = base, .rcx = MANY, .rflags = 2 | FLAG_IF);
		if (t.vector != B || t.rdi != base || count > 100000000)
			break;
		apic_eoi(); /* too early, before its first iteration */
	}
	done = t.rdi - base;
	if (t.vector == B) {
		check(t.rip == (u64)rep_stosb && t.rcx == MANY - done,
		      "2 REP: interrupted, with registers that say what is left");
		check(t.rflags & FLAG_RF, "3B 17.3.1.1: interrupts between iterations push RF set");
		apic_eoi();
		struct frame f;

		memcpy(&f, &t, sizeof(f));
		t = run(&f);
		check(t.vector == END_VECTOR && t.rcx == 0 && t.rdi == base + MANY, "2 REP: and it goes on");
	} else {
		/* Where time is a count of instructions, a string instruction takes next to none. */
		skip("2 REP: interrupted", "it takes less than the timer's shortest period");
	}
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
	apic_write(APIC_TIMER_INITIAL, 0);
}

void guest(void)
{
	test_shadows();
	test_mov_ss();
	test_priority();
	test_gates();
	test_hlt();
	test_nmi();
	test_pic();
	test_nmi_wakes();
	test_ioapic();
	test_string();
}
