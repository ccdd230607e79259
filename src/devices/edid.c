#include "devices/edid.h"

#define REFRESH 60u /* Hz */

/* As by VESA's CVT, reduced blanking. */
#define H_BLANK 160u
#define H_FRONT 48u
#define H_SYNC	32u
#define V_FRONT 3u
#define V_SYNC	6u
#define V_BACK	6u

#define DOTS_PER_MM 4u /* some 100 an inch */

static void put_detailed_timing(uint8_t *at, uint32_t width, uint32_t height)
{
	/* At least 460 us of vertical blanking, of lines that take 1/60 s less those 460 us by the height */
	uint32_t line_ns = (1000000000u / REFRESH - 460000u) / height;
	uint32_t v_blank = MAX(460000u / line_ns + 1, V_FRONT + V_SYNC + V_BACK);
	uint32_t clock = (width + H_BLANK) * (height + v_blank) * REFRESH / 10000; /* in units of 10 kHz */
	uint32_t mm = width / DOTS_PER_MM, mm_high = height / DOTS_PER_MM;

	store_le16(at, (uint16_t)MIN(clock, UINT16_MAX));
	at[2] = (uint8_t)width;
	at[3] = (uint8_t)H_BLANK;
	at[4] = (uint8_t)((width >> 8) << 4 | H_BLANK >> 8);
	at[5] = (uint8_t)height;
	at[6] = (uint8_t)v_blank;
	at[7] = (uint8_t)((height >> 8) << 4 | v_blank >> 8);
	at[8] = H_FRONT;
	at[9] = H_SYNC;
	at[10] = V_FRONT << 4 | V_SYNC;
	at[12] = (uint8_t)mm;
	at[13] = (uint8_t)mm_high;
	at[14] = (uint8_t)((mm >> 8) << 4 | mm_high >> 8);
	at[17] = 0x1a; /* digital separate sync, horizontal positive */
}

static void put_descriptor(uint8_t *at, uint8_t tag, const void *data, size_t size)
{
	at[3] = tag;
	memset(at + 5, ' ', 13);
	memcpy(at + 5, data, size);
}

void edid_make(uint8_t edid[EDID_SIZE], uint32_t width, uint32_t height)
{
	static const uint8_t header[8] = { 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00 };
	/* Red, green, blue and white of sRGB */
	static const uint8_t chromaticity[10] = { 0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54 };
	/* 1280x1024, 1280x800, 1440x900, 1600x1200, 1680x1050, 1920x1080, 1920x1200, 2048x1152 */
	static const uint8_t standard[16] = { 0x81, 0x80, 0x81, 0x00, 0x95, 0x00, 0xa9, 0x40,
					      0xb3, 0x00, 0xd1, 0xc0, 0xd1, 0x00, 0xe1, 0xc0 };
	static const uint8_t limits[13] = { 50, 125, 30, 160, 60, 0, '\n', ' ', ' ', ' ', ' ', ' ', ' ' };
	uint8_t sum = 0;

	memset(edid, 0, EDID_SIZE);
	memcpy(edid, header, sizeof(header));
	store_be16(edid + 8, ('D' - '@') << 10 | ('P' - '@') << 5 | ('L' - '@')); /* its maker */
	edid[16] = 1;
	edid[17] = 2026 - 1990;
	edid[18] = 1;
	edid[19] = 4;
	edid[20] = 0xa5; /* digital, 8 bits a colour, as by DisplayPort */
	edid[21] = (uint8_t)(width / DOTS_PER_MM / 10);
	edid[22] = (uint8_t)(height / DOTS_PER_MM / 10);
	edid[23] = 120;	 /* gamma 2.2 */
	edid[24] = 0x06; /* sRGB; the first timing is the native one */
	memcpy(edid + 25, chromaticity, sizeof(chromaticity));
	edid[35] = 0x21; /* 640x480, 800x600 at 60 Hz */
	edid[36] = 0x08; /* 1024x768 at 60 Hz */
	memcpy(edid + 38, standard, sizeof(standard));
	put_detailed_timing(edid + 54, width, height);
	put_descriptor(edid + 72, 0xfc, "doppel\n", 7);
	put_descriptor(edid + 90, 0xfd, limits, sizeof(limits));
	put_descriptor(edid + 108, 0x10, "", 0);
	memset(edid + 113, 0, 13);
	for (unsigned n = 0; n < EDID_SIZE - 1; n++)
		sum += edid[n];
	edid[EDID_SIZE - 1] = (uint8_t)-sum;
}
