/*
 * The south bridge and the other ways to reset and power off: PIRQ routing, ports 0xcf9, 0x92, 0x64, ACPI's fixed hardware.
 */
#include "lib/board.h"

#define ISA_BRIDGE 0x08
#define PM	   0x0b
#define SEC	   1000000000ull

static int setup(void **state)
{
	struct board *b = board_create(1);

	assert_int_equal(pci_bus_create(b->bus, NULL), 0);
	assert_int_equal(piix_type.create(b->bus, NULL, NULL), 0);
	assert_int_equal(kbc_type.create(b->bus, NULL, NULL), 0);
	board_pic_init(b);
	*state = b;
	return 0;
}

static void end_slave_interrupt(struct board *b)
{
	outb(b, 0xa0, 0x20);
	outb(b, 0x20, 0x20);
}

static void identification(void **state)
{
	struct board *b = *state;

	assert_int_equal(board_config_read(b, ISA_BRIDGE, 0, 4), 0x70008086);
	assert_int_equal(board_config_read(b, ISA_BRIDGE, 0xe, 1), 0x80);
	assert_int_equal(board_config_read(b, ISA_BRIDGE, 0xb, 1), 0x06);
	assert_int_equal(board_config_read(b, ISA_BRIDGE, 0xa, 1), 0x01);
	assert_int_equal(board_config_read(b, PM, 0, 4), 0x71138086);
	assert_int_equal(board_config_read(b, PM, 0x40, 4), ACPI_PM_BASE | 1);
	assert_int_equal(board_config_read(b, PM, 0x3c, 2), 0x0100 | ACPI_SCI_IRQ);
}

static void pirq_registers_route(void **state)
{
	struct board *b = *state;

	board_config_write(b, ISA_BRIDGE, 0x60, 4, 0x8f0b7f05);
	assert_int_equal(board_config_read(b, ISA_BRIDGE, 0x60, 4), 0x8f0b0f05); /* reserved bits are 0 */
	bus_reset(b->bus);
	assert_int_equal(board_config_read(b, ISA_BRIDGE, 0x60, 4), 0x0b0b0a0a);
	assert_int_equal(inb(b, 0x4d1), 0x0c);
}

static void power_off(void **state)
{
	struct board *b = *state;

	assert_int_equal(inw(b, 0x604) & 1, 1); /* SCI_EN */
	outw(b, 0x604, ACPI_SLP_TYP_S5 << 10);
	assert_int_equal(b->requests[BUS_REQUEST_POWEROFF], 0);
	outw(b, 0x604, 1 << 13 | 5 << 10); /* another sleep state */
	assert_int_equal(b->requests[BUS_REQUEST_POWEROFF], 0);
	outw(b, 0x604, 1 << 13 | ACPI_SLP_TYP_S5 << 10 | 1);
	assert_int_equal(b->requests[BUS_REQUEST_POWEROFF], 1);
	assert_int_equal(inw(b, 0x604), 1); /* SLP_EN reads as 0, SCI_EN stays */
	outb(b, 0x605, 1 << 5);		    /* by bytes */
	assert_int_equal(b->requests[BUS_REQUEST_POWEROFF], 2);
}

static void reset_requests(void **state)
{
	struct board *b = *state;

	outb(b, 0xcf9, 0x02);
	assert_int_equal(b->requests[BUS_REQUEST_RESET], 0);
	outb(b, 0xcf9, ACPI_RESET_VALUE);
	assert_int_equal(b->requests[BUS_REQUEST_RESET], 1);
	outb(b, 0xcf9, ACPI_RESET_VALUE); /* no rise */
	assert_int_equal(b->requests[BUS_REQUEST_RESET], 1);
	assert_int_equal(inb(b, 0xcf9), ACPI_RESET_VALUE);
	outb(b, 0xcf9, 0);
	outb(b, 0xcf9, 0x04); /* the processors alone */
	assert_int_equal(b->requests[BUS_REQUEST_RESET], 1);
	assert_int_equal(b->requests[BUS_REQUEST_INIT], 1);
	outb(b, 0x64, 0xfe);
	assert_int_equal(b->requests[BUS_REQUEST_INIT], 2);
	outb(b, 0x64, 0xff); /* pulses nothing */
	outb(b, 0x92, 0x02);
	assert_int_equal(b->requests[BUS_REQUEST_INIT], 2);
	outb(b, 0x92, 0x03);
	assert_int_equal(b->requests[BUS_REQUEST_INIT], 3);
	outb(b, 0x64, 0xd1);
	outb(b, 0x60, 0xfe);
	assert_int_equal(b->requests[BUS_REQUEST_INIT], 4);
	assert_int_equal(b->requests[BUS_REQUEST_RESET], 1);
}

static void power_button_is_an_sci(void **state)
{
	struct board *b = *state;

	piix_power_button(b->bus);
	assert_int_equal(inw(b, 0x600), 0x100);
	assert_int_equal(board_take(b), -1);
	outw(b, 0x602, 0x100);
	assert_int_equal(inw(b, 0x602), 0x100);
	assert_int_equal(board_take(b), 0x29);
	end_slave_interrupt(b);
	outw(b, 0x600, 0x100);
	assert_int_equal(inw(b, 0x600), 0);
	piix_power_button(b->bus);
	assert_int_equal(board_take(b), 0x29); /* a new edge */
	assert_int_equal(inl(b, 0x600), 0x01000100);
	outl(b, 0x600, 0x00000100); /* both halves in one: clears, disables */
	assert_int_equal(inl(b, 0x600), 0);
}

static void timer_counts_and_overflows(void **state)
{
	struct board *b = *state;

	board_run_until(b, SEC);
	assert_int_equal(inl(b, 0x608), ACPI_PM_TIMER_HZ);
	assert_int_equal(inb(b, 0x609), ACPI_PM_TIMER_HZ >> 8 & 0xff);
	assert_int_equal(inw(b, 0x60a), ACPI_PM_TIMER_HZ >> 16);
	assert_int_equal(inw(b, 0x600), 0);
	assert_true(clock_next_deadline(b->clock) == VTIME_NEVER); /* nobody waits */
	board_run_until(b, 3 * SEC);
	assert_int_equal(inw(b, 0x600), 1);
	outw(b, 0x600, 1);
	assert_int_equal(inw(b, 0x600), 0);
	outw(b, 0x602, 1);
	board_run_until(b, 46 * SEC / 10);
	assert_int_equal(board_take(b), -1);
	board_run_until(b, 47 * SEC / 10);
	assert_int_equal(board_take(b), 0x29);
	assert_in_range(inl(b, 0x608), 0, 0xffffff);
}

static void gpe_block(void **state)
{
	struct board *b = *state;

	assert_int_equal(inl(b, ACPI_GPE0_BASE), 0);
	outw(b, ACPI_GPE0_BASE + 2, 0x1234);
	assert_int_equal(inl(b, ACPI_GPE0_BASE), 0x12340000);
	outw(b, ACPI_GPE0_BASE, 0xffff);
	assert_int_equal(board_take(b), -1);
}

static void registers_move_with_their_base(void **state)
{
	struct board *b = *state;

	board_config_write(b, PM, 0x40, 4, 0xb000);
	assert_int_equal(board_config_read(b, PM, 0x40, 4), 0xb001);
	assert_int_equal(inw(b, 0x604), 0xffff);
	assert_int_equal(inw(b, 0xb004), 1);
	board_config_write(b, PM, 0x40, 4, 0x0000);
	assert_int_equal(inw(b, 0xb004), 0xffff);
	board_config_write(b, PM, 0x40, 4, 0x0cc0); /* taken by the configuration ports */
	assert_int_equal(inw(b, 0xcc4), 0xffff);
	board_config_write(b, PM, 0x40, 4, 0xb000);
	board_config_write(b, PM, 0x80, 1, 0);
	assert_int_equal(inw(b, 0xb004), 0xffff);
	bus_reset(b->bus);
	assert_int_equal(inw(b, 0x604), 1);
}

static void apm_ports(void **state)
{
	struct board *b = *state;

	outb(b, 0xb2, 0x12);
	outb(b, 0xb3, 0x34);
	assert_int_equal(inb(b, 0xb2), 0x12);
	assert_int_equal(inb(b, 0xb3), 0x34);
	bus_reset(b->bus);
	assert_int_equal(inb(b, 0xb2), 0);
}

/* A firmware that finds the registers enabled takes it that somebody has put them where they are to be. */
static void a_firmware_places_them(void **state)
{
	struct board *b = board_create(1);

	(void)state;
	b->bus->firmware = true;
	assert_int_equal(pci_bus_create(b->bus, NULL), 0);
	assert_int_equal(piix_type.create(b->bus, NULL, NULL), 0);
	assert_int_equal(piix_pm_base(b->bus), 0);
	assert_int_equal(inw(b, 0x604), 0xffff);
	board_config_write(b, PM, 0x40, 4, 0xb000);
	board_config_write(b, PM, 0x80, 1, 1);
	assert_int_equal(piix_pm_base(b->bus), 0xb000);
	assert_int_equal(inw(b, 0xb004), 1);
	board_destroy(b);
}

static void keyboard_controller(void **state)
{
	struct board *b = *state;

	assert_int_equal(inb(b, 0x64), 0x14);
	outb(b, 0x64, 0xaa);
	assert_int_equal(inb(b, 0x64) & 1, 1);
	assert_int_equal(board_take(b), 0x21); /* the command byte says so */
	assert_int_equal(inb(b, 0x60), 0x55);
	outb(b, 0x20, 0x20);
	outb(b, 0x64, 0x60);
	outb(b, 0x60, 0x30);
	outb(b, 0x64, 0x20);
	assert_int_equal(inb(b, 0x60), 0x30);
	assert_int_equal(board_take(b), -1);
	outb(b, 0x64, 0xd3);
	outb(b, 0x60, 0xa5);
	assert_int_equal(inb(b, 0x64) & 0x61, 0x21);
	assert_int_equal(inb(b, 0x60), 0xa5);
	assert_int_equal(inb(b, 0x64) & 0x61, 0);
	outb(b, 0x64, 0xd1); /* A20 is the same in both places */
	outb(b, 0x60, 0x01);
	assert_int_equal(inb(b, 0x92), 0);
	outb(b, 0x92, 0x02);
	outb(b, 0x64, 0xd0);
	assert_int_equal(inb(b, 0x60) & 3, 3);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, board_teardown)
	const struct CMUnitTest tests[] = {
		TEST(identification),
		TEST(pirq_registers_route),
		TEST(power_off),
		TEST(reset_requests),
		TEST(power_button_is_an_sci),
		TEST(timer_counts_and_overflows),
		TEST(gpe_block),
		TEST(registers_move_with_their_base),
		TEST(keyboard_controller),
		TEST(apm_ports),
		cmocka_unit_test(a_firmware_places_them),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
