/*
 * TAP on the debug console, and the end through the debug-exit port.
 */
#include "private.h"

#define CONSOLE_PORT 0xe9
#define EXIT_PORT    0xf4

static unsigned checks, failures;

static void put(char c) { out8(CONSOLE_PORT, (u8)c); }

static void put_text(const char *s)
{
	while (*s)
		put(*s++);
}

static void put_number(u64 value, unsigned base)
{
	char digits[24];
	unsigned n = 0;

	do
		digits[n++] = "0123456789abcdef"[value % base];
	while (value /= base);
	while (n)
		put(digits[--n]);
}

static void put_list(const char *format, va_list list)
{
	for (; *format; format++) {
		bool wide;

		if (*format != '%') {
			put(*format);
			continue;
		}
		wide = *++format == 'l';
		format += wide;
		switch (*format) {
		case 's': put_text(va_arg(list, const char *)); break;
		case 'c': put((char)va_arg(list, int)); break;
		case 'u': put_number(wide ? va_arg(list, u64) : va_arg(list, u32), 10); break;
		case 'x': put_number(wide ? va_arg(list, u64) : va_arg(list, u32), 16); break;
		case 'd': {
			int value = va_arg(list, int);

			if (value < 0)
				put('-');
			put_number(value < 0 ? -(u64)value : (u64)value, 10);
			break;
		}
		default: put(*format); break;
		}
	}
}

void print(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	put_list(format, list);
	va_end(list);
}

void check_list(bool good, const char *name, va_list list)
{
	checks++;
	failures += !good;
	print("%sok %u - ", good ? "" : "not ", checks);
	put_list(name, list);
	put('\n');
}

bool check(bool good, const char *name, ...)
{
	va_list list;

	va_start(list, name);
	check_list(good, name, list);
	va_end(list);
	return good;
}

bool check_equal(u64 got, u64 wanted, const char *name, ...)
{
	va_list list;

	va_start(list, name);
	check_list(got == wanted, name, list);
	va_end(list);
	if (got != wanted)
		print("#   got 0x%lx, expected 0x%lx\n", got, wanted);
	return got == wanted;
}

void skip(const char *name, const char *reason)
{
	checks++;
	print("ok %u - %s # skip %s\n", checks, name, reason);
}

/* ---- traps ---- */

static void print_trap(const struct trap *t)
{
	print("#   got vector %lu error 0x%lx cs:rip 0x%lx:0x%lx rflags 0x%lx ss:rsp 0x%lx:0x%lx cr2 0x%lx dr6 0x%lx\n",
	      t->vector, t->error, t->cs, t->rip, t->rflags, t->ss, t->rsp, t->cr2, t->dr6);
	print("#   rax 0x%lx rcx 0x%lx rdx 0x%lx rbx 0x%lx rbp 0x%lx rsi 0x%lx rdi 0x%lx\n", t->rax, t->rcx, t->rdx,
	      t->rbx, t->rbp, t->rsi, t->rdi);
}

bool check_end(const struct trap *t, const char *name, ...)
{
	bool good = t->vector == END_VECTOR;
	va_list list;

	va_start(list, name);
	check_list(good, name, list);
	va_end(list);
	if (!good) {
		print("#   expected no fault\n");
		print_trap(t);
	}
	return good;
}

bool check_fault(const struct trap *t, u64 vector, u64 error, const char *name, ...)
{
	bool good = t->vector == vector && t->error == error;
	va_list list;

	va_start(list, name);
	check_list(good, name, list);
	va_end(list);
	if (!good) {
		print("#   expected vector %lu error 0x%lx\n", vector, error);
		print_trap(t);
	}
	return good;
}

bool check_page_fault(const struct trap *t, u64 error, u64 address, const char *name, ...)
{
	bool good = t->vector == EXC_PF && t->error == error && t->cr2 == address;
	va_list list;

	va_start(list, name);
	check_list(good, name, list);
	va_end(list);
	if (!good) {
		print("#   expected vector 14 error 0x%lx cr2 0x%lx\n", error, address);
		print_trap(t);
	}
	return good;
}

/* ---- the end ---- */

static _Noreturn void leave(u8 status)
{
	for (;;) {
		out8(EXIT_PORT, status);
		cpu_pause();
	}
}

void finish(void)
{
	print("1..%u\n", checks);
	leave(failures != 0);
}

void die(const char *format, ...)
{
	va_list list;

	put_text("Bail out! ");
	va_start(list, format);
	put_list(format, list);
	va_end(list);
	put('\n');
	leave(2);
}
