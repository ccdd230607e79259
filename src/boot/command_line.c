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

/* A word that begins so, and ends there if it is to be whole; NULL: there is none. */
static const char *find_word(const char *line, const char *word, bool whole)
{
	size_t length = strlen(word);

	for (const char *at = line + strspn(line, " "); *at; at += strcspn(at, " "), at += strspn(at, " "))
		if (!strncmp(at, word, length) && (!whole || strcspn(at, " ") == length))
			return at;
	return NULL;
}

static void append_devices(char *to, uint32_t windows)
{
	for (unsigned window = 0; window < VIRTIO_MMIO_WINDOWS; window++)
		if (windows & 1u << window)
			to += snprintf(to, ONE_MOST, PARAMETER "%uK@0x%x:%u ", VIRTIO_MMIO_SIZE / 1024,
				       VIRTIO_MMIO_ADDRESS(window), VIRTIO_MMIO_LINE(window));
}

/* What the kernel is to get; the caller's to free. NULL: there is no memory. Behind a word "--" it is not the kernel's. */
static char *complete(const char *line, uint32_t windows)
{
	bool announce = windows && find_word(line, NO_ACPI, true) && !find_word(line, PARAMETER, false);
	const char *rest = find_word(line, "--", true);
	size_t front = rest ? (size_t)(rest - line) : strlen(line);
	char *copy = malloc(strlen(line) + 2 + VIRTIO_MMIO_WINDOWS * ONE_MOST);

	if (!copy)
		return NULL;
	if (!announce)
		return strcpy(copy, line);
	sprintf(copy, "%.*s%s", (int)front, line, front && line[front - 1] != ' ' ? " " : "");
	append_devices(copy + strlen(copy), windows);
	return strcat(copy, line + front);
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
