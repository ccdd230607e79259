/*
 * picture FILE [X,Y,WIDTH,HEIGHT]: the size of a PNG and a checksum of its pixels, or of those in a part of it: what a test compares pictures by.
 */
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* FNV-1a */
static unsigned checksum(unsigned sum, const unsigned char *bytes, size_t size)
{
	while (size--)
		sum = (sum ^ *bytes++) * 16777619u;
	return sum;
}

int main(int argc, char **argv)
{
	png_image image = { .version = PNG_IMAGE_VERSION };
	unsigned x = 0, y = 0, width, height, sum = 2166136261u;
	unsigned char *pixels;

	if (argc < 2 || !png_image_begin_read_from_file(&image, argv[1])) {
		fprintf(stderr, "picture: %s\n", argc < 2 ? "no file" : image.message);
		return 1;
	}
	image.format = PNG_FORMAT_RGB;
	pixels = malloc(PNG_IMAGE_SIZE(image));
	if (!pixels || !png_image_finish_read(&image, NULL, pixels, 0, NULL)) {
		fprintf(stderr, "picture: %s\n", image.message);
		return 1;
	}
	width = image.width;
	height = image.height;
	if (argc > 2 && (sscanf(argv[2], "%u,%u,%u,%u", &x, &y, &width, &height) != 4 || x + width > image.width ||
			 y + height > image.height)) {
		fprintf(stderr, "picture: no part '%s' of %ux%u\n", argv[2], image.width, image.height);
		return 1;
	}
	for (unsigned row = y; row < y + height; row++)
		sum = checksum(sum, pixels + 3 * ((size_t)row * image.width + x), 3 * (size_t)width);
	printf("%ux%u %08x\n", image.width, image.height, sum);
	free(pixels);
	return 0;
}
