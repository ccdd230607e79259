#include "base/base.h"

bool guid_parse(const char *text, uint8_t guid[GUID_SIZE])
{
	static const uint8_t order[GUID_SIZE] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };

	for (unsigned n = 0; n < GUID_SIZE; n++) {
		unsigned value;

		if ((n == 4 || n == 6 || n == 8 || n == 10) && *text++ != '-')
			return false;
		if (strspn(text, "0123456789abcdefABCDEF") < 2 || sscanf(text, "%2x", &value) != 1)
			return false;
		guid[order[n]] = (uint8_t)value;
		text += 2;
	}
	return !*text;
}
