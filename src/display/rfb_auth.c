/*
 * VNC authentication (RFC 6143, 7.2.2): a challenge, encrypted by DES with the password as the key, of whose bytes the bits are taken the other way round.
 */
#include "display/rfb.h"

#include <errno.h>
#include <nettle/des.h>
#include <sys/random.h>

void rfb_challenge(uint8_t challenge[RFB_CHALLENGE])
{
	ssize_t n;

	do
		n = getrandom(challenge, RFB_CHALLENGE, 0);
	while (n < 0 && errno == EINTR);
	BUG_ON(n != RFB_CHALLENGE);
}

static uint8_t reversed(uint8_t byte)
{
	uint8_t result = 0;

	for (unsigned bit = 0; bit < 8; bit++)
		result |= (byte >> bit & 1) << (7 - bit);
	return result;
}

bool rfb_answers(const char *password, const uint8_t challenge[RFB_CHALLENGE], const uint8_t answer[RFB_CHALLENGE])
{
	uint8_t key[RFB_PASSWORD] = { 0 }, expected[RFB_CHALLENGE], differs = 0;
	struct des_ctx des;

	for (unsigned n = 0; n < RFB_PASSWORD && password[n]; n++)
		key[n] = reversed((uint8_t)password[n]);
	des_set_key(&des, key); /* a weak key is the user's choice */
	des_encrypt(&des, RFB_CHALLENGE, expected, challenge);
	for (unsigned n = 0; n < RFB_CHALLENGE; n++)
		differs |= expected[n] ^ answer[n];
	return !differs;
}
