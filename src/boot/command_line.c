/*
 * The kernel's command line, for kernels that get one: the user's, and for those that are told not to use ACPI the virtio devices that are not on PCI, which Linux's driver
 * takes from there as well (virtio_mmio.device=). Not both: it would find each device twice, and complain of one.
 */
#include "boot/private.h"
#include "devices/devices.h"

#include <errno.h>
#include <stdlib.h>

#define NO_ACPI	  "acpi=off"
#define PARAMETER "virtio_mmio.device="
#define ONE_MOST  64u /* characters of one device */

/* Where a word begins so, and ends there if it is to be whole; or where the kernel's part of the line ends: at a word "--". */
static size_t find_word(const char *line, const char *word, bool whole)
{
	size_t length = strlen(word), size, at = strspn(line, " ");

	for (; line[at]; at += size, at += strspn(line + at, " ")) {
		size = strcspn(line + at, " ");
		if (size == 2 && !strncmp(line + at, "--", 2))
			break;
		if (!strncmp(line + at, word, length) && (!whole || size == length))
			break;
	}
	return at;
}

static void append_devices(char *to, uint32_t windows)
{
	for (unsigned window = 0; window < VIRTIO_MMIO_WINDOWS; window++)
		if (windows & 1u << window)
			to += snprintf(to, ONE_MOST, PARAMETER "%uK@0x%x:%u ", VIRTIO_MMIO_SIZE / 1024,
				       VIRTIO_MMIO_ADDRESS(window), VIRTIO_MMIO_LINE(window));
}

/* What the kernel is to get; the caller's to free. NULL: there is no memory. */
static char *complete(const char *line, uint32_t windows)
{
	size_t end = find_word(line, "--", true);
	bool announce = windows && find_word(line, NO_ACPI, true) < end && find_word(line, PARAMETER, false) == end;
	char *copy = malloc(strlen(line) + 2 + VIRTIO_MMIO_WINDOWS * ONE_MOST);

	if (!copy)
		return NULL;
	if (!announce)
		return strcpy(copy, line);
	sprintf(copy, "%.*s%s", (int)end, line, line[end - 1] != ' ' ? " " : "");
	append_devices(copy + strlen(copy), windows);
	return strcat(copy, line + end);
}

int boot_place_command_line(const struct boot_image *image, size_t max, struct error *err)
{
	char *line = complete(image->config->command_line, image->config->virtio_windows);
	size_t length;

	if (!line)
		return error_set_errno(err, ENOMEM, "the kernel command line");
	max = MIN(max, COMMAND_LINE_ROOM - 1);
	length = strlen(line);
	if (length <= max)
		boot_write(image->mem, LOW_COMMAND_LINE, line, length + 1);
	free(line);
	if (length <= max)
		return 0;
	return error_set(err, E2BIG, "the kernel command line has %zu bytes; kernel '%s' takes at most %zu", length,
			 image->name, max);
}
