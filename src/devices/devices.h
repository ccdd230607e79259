/*
 * devices: the devices of the PC. Each create function makes one, maps its ranges on the bus and returns 0 or -errno. They are
 * destroyed and reset with the bus. All run under bus->lock.
 */
#ifndef DOPPEL_DEVICES_H
#define DOPPEL_DEVICES_H

#include "backend/backend.h"
#include "bus/bus.h"

/* 8254 at 0x40..0x43 and port 0x61 (gate and output of channel 2, refresh toggle); IRQ 0. */
int pit_create(struct bus *, struct error *);
/* MC146818 at 0x70/0x71, 128 bytes of CMOS; date from clock_wall_ns; IRQ 8. Memory sizes go in CMOS 0x15..0x18, 0x30..0x35, 0x5b..0x5d, cpu_count - 1 in 0x5f. */
int rtc_create(struct bus *, unsigned cpu_count, struct error *);
/* 16550A; chardev may be NULL (nothing connected). `n` 0..3 = COM1..COM4. */
int uart_create(struct bus *, unsigned n, struct chardev *, struct error *);
/* 8042 at 0x60/0x64: self-test, output port (A20, reset pulse 0xfe), no keyboard attached yet; port 0x92 (fast A20, reset). */
int kbc_create(struct bus *, struct error *);
/* FERR#, IGNNE#, port 0xf0 and IRQ 13: x87 errors of the boot processor with CR0.NE = 0. */
int coprocessor_create(struct bus *, struct error *);
/* The processor drives FERR#, learns IGNNE#. Takes bus->lock. */
bool coprocessor_error(struct bus *, bool asserted);
/* PIIX3 ISA bridge 00:01.0 (PIRQ routing, reset control 0xcf9) and PIIX4 power management 00:01.3 (ACPI: PM1 event/control at
 * ACPI_PM_BASE, PM timer, GPE0). SCI on line 9. */
int piix_create(struct bus *, struct error *);
/* Press the power button (SCI), any thread. */
void piix_power_button(struct bus *);
/* Port 0xf4: a write of v ends doppel with status v << 1 | 1 (as QEMU's isa-debug-exit). */
int debug_exit_create(struct bus *, struct error *);
/* Port 0xe9: bytes go to the chardev; reads give 0xe9. */
int debug_console_create(struct bus *, struct chardev *, struct error *);

/* Ports 0xe0..0xeb and 0x2000..0x2017, memory at 0xff000000: what test suites ask of a PC (as QEMU's pc-testdev). */
int testdev_create(struct bus *, struct error *);

/* ---- fixed places that boot/'s tables and the devices agree on ---- */

/* _(port, IRQ) of COM1 to COM4 */
#define UART_PLACES(_)                                                                                                 \
	_(0x3f8, 4)                                                                                                    \
	_(0x2f8, 3)                                                                                                    \
	_(0x3e8, 4)                                                                                                    \
	_(0x2e8, 3)
#define UART_COUNT 4
/* ISA line of each PIRQ after a reset, and those to which operating systems may steer it instead. */
#define PIIX_PIRQ_LINES                                                                                                \
	{                                                                                                              \
		10, 10, 11, 11                                                                                         \
	}
#define PIIX_PIRQ_CHOICES                                                                                              \
	{                                                                                                              \
		5, 10, 11                                                                                              \
	}
#define PIIX_SLOT   1	 /* of the bridge, on bus 0 */
#define PIIX_PIRQRC 0x60 /* its route control registers, one a PIRQ */

#define ACPI_PM_BASE	 0x600	/* PM1a_EVT 0x600, PM1a_CNT 0x604, PM_TMR 0x608 */
#define ACPI_GPE0_BASE	 0xafe0 /* 4 bytes */
#define ACPI_SCI_IRQ	 9
#define ACPI_RESET_PORT	 0xcf9
#define ACPI_RESET_VALUE 0x06
#define ACPI_SLP_TYP_S5	 0 /* as in the DSDT's \_S5 */
#define ACPI_PM_TIMER_HZ 3579545

#endif
