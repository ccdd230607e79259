/*
 * Which key makes which character. Most viewers tell the key's place, and nothing of this is asked; others, and who types a text, know only the character,
 * and `--keyboard` says what the guest makes of its keys. Written as tables, because what is installed on the host must not matter.
 */
#include "display/keymap.h"

#include <errno.h>

/* ---- characters ---- */

/* The keys that have some, from the left to the right and from the top: as in each row below. */
static const uint8_t places[] = {
	KEY_GRAVE, KEY_1,	  KEY_2,	  KEY_3,	 KEY_4,	    KEY_5, KEY_6, KEY_7, KEY_8, KEY_9, KEY_0,
	KEY_MINUS, KEY_EQUAL,	  KEY_Q,	  KEY_W,	 KEY_E,	    KEY_R, KEY_T, KEY_Y, KEY_U, KEY_I, KEY_O,
	KEY_P,	   KEY_LEFTBRACE, KEY_RIGHTBRACE, KEY_A,	 KEY_S,	    KEY_D, KEY_F, KEY_G, KEY_H, KEY_J, KEY_K,
	KEY_L,	   KEY_SEMICOLON, KEY_APOSTROPHE, KEY_BACKSLASH, KEY_102ND, KEY_Z, KEY_X, KEY_C, KEY_V, KEY_B, KEY_N,
	KEY_M,	   KEY_COMMA,	  KEY_DOT,	  KEY_SLASH,
};
#define PLACES ARRAY_SIZE(places)
#define LEVELS 3 /* alone, with Shift, with AltGr */

/* A dead key has the combining character of its accent. */
struct keymap {
	const char *name;
	char16_t characters[LEVELS][PLACES + 1];
};

/* clang-format off */
static const struct keymap keymaps[] = {
	{ "us",
	  { u"`1234567890-=qwertyuiop[]asdfghjkl;'\\<zxcvbnm,./",
	    u"~!@#$%^&*()_+QWERTYUIOP{}ASDFGHJKL:\"|>ZXCVBNM<>?",
	    u"                                     |          " } },
	{ "uk",
	  { u"`1234567890-=qwertyuiop[]asdfghjkl;'#\\zxcvbnm,./",
	    u"¬!\"£$%^&*()_+QWERTYUIOP{}ASDFGHJKL:@~|ZXCVBNM<>?",
	    u"|¹²³€½¾{[]}\\\u0327@ſe¶ŧ←↓→øþ\u0308\u0303æßðđŋħ ĸł\u0301\u0302\u0300|«»¢„“”µ•· " } },
	{ "de",
	  { u"\u03021234567890ß\u0301qwertzuiopü+asdfghjklöä#<yxcvbnm,.-",
	    u"°!\"§$%&/()=?\u0300QWERTZUIOPÜ*ASDFGHJKLÖÄ'>YXCVBNM;:_",
	    u"′¹²³¼½¬{[]}\\\u0327@ſ€¶ŧ←↓→øþ\u0308~æſðđŋħ ĸł\u030b\u0302’|»«¢„“”µ·…–" } },
	{ "ch",
	  { u"§1234567890'\u0302qwertzuiopü\u0308asdfghjklöä$<yxcvbnm,.-",
	    u"°+\"*ç%&/()=?\u0300QWERTZUIOPè!ASDFGHJKLéà£>YXCVBNM;:_",
	    u"¬|@#¼½¬|¢]}\u0301\u0303@ſ€¶ŧ←↓→œþ[]æßðđŋħ ĸł\u0301{}\\«»¢„“”µ•· " } },
	{ "fr",
	  { u"²&é\"'(-è_çà)=azertyuiop\u0302$qsdfghjklmù*<wxcvbn,;:!",
	    u"~1234567890°+AZERTYUIOP\u0308£QSDFGHJKLM%µ>WXCVBN?./§",
	    u"¬¹~#{[|`\\^@]}æ«€¶ŧ←↓→øþ\u0308¤@ßðđŋħ ĸłµ\u0302\u0300|ł»¢„“”\u0301•· " } },
	{ "be",
	  { u"²&é\"'(§è!çà)-azertyuiop\u0302$qsdfghjklmùµ<wxcvbn,;:=",
	    u"³1234567890°_AZERTYUIOP\u0308*QSDFGHJKLM%£>WXCVBN?./+",
	    u"¬|@#¼½^{[{}\\\u0327@ſ€¶ŧ←↓→œþ[]æßðđŋħ ĸł\u0301\u0301\u0300\\«»¢„“”\u0327•·\u0303" } },
	{ "es",
	  { u"º1234567890'¡qwertyuiop\u0300+asdfghjklñ\u0301ç<zxcvbnm,.-",
	    u"ª!\"·$%&/()=?¿QWERTYUIOP\u0302*ASDFGHJKLÑ\u0308Ç>ZXCVBNM;:_",
	    u"\\|@#~½¬{[]}\\\u0327@ſ€¶ŧ←↓→øþ[]æßðđŋħ ĸł\u0303{}|«»¢„“”µ•· " } },
	{ "it",
	  { u"\\1234567890'ìqwertyuiopè+asdfghjklòàù<zxcvbnm,.-",
	    u"|!\"£$%&/()=?^QWERTYUIOPé*ASDFGHJKLç°§>ZXCVBNM;:_",
	    u"¬¹²³¼½¬{[]}`~@ſ€¶ŧ←↓→øþ[]æßðđŋħ ĸł@#\u0300««»¢“”ñµ\u0301·\u0304" } },
	{ "pt",
	  { u"\\1234567890'«qwertyuiop+\u0301asdfghjklçº\u0303<zxcvbnm,.-",
	    u"|!\"#$%&/()=?»QWERTYUIOP*\u0300ASDFGHJKLÇª\u0302>ZXCVBNM;:_",
	    u"¬¹@£§½¬{[]}\\\u0327@ſ€¶ŧ←↓→øþ\u0308\u0303æßðđŋħ ĸł\u0301\u0302\u0300\\«»¢„“”µ•· " } },
	{ "br",
	  { u"'1234567890-=qwertyuiop\u0301[asdfghjklç\u0303]\\zxcvbnm,.;",
	    u"\"!@#$%\u0308&*()_+QWERTYUIOP\u0300{ASDFGHJKLÇ\u0302}|ZXCVBNM<>:",
	    u"¬¹²³£¢¬{[]}\\§/?°®ŧ←↓→øþ´ªæßðđŋħ ĸł\u0301~º\u030c«»©„“”µ•· " } },
	{ "nl",
	  { u"@1234567890/°qwertyuiop\u0308*asdfghjkl+\u0301<]zxcvbnm,.-",
	    u"§!\"#$%&_()'?\u0303QWERTYUIOP\u0302|ASDFGHJKL±\u0300>[ZXCVBNM;:=",
	    u"¬¹²³¼½¾£{}°\\\u0327@ſ€¶þÿüïò¶~\u0303áßðªŋħ ĸł\u0301'\u0300|«»¢“”ñμ¸·\u00ad" } },
	{ "dk",
	  { u"½1234567890+\u0301qwertyuiopå\u0308asdfghjklæø'<zxcvbnm,.-",
	    u"§!\"#¤%&/()=?\u0300QWERTYUIOPÅ\u0302ASDFGHJKLÆØ*>ZXCVBNM;:_",
	    u"¾¡@£$½¥{[]}±|@ſ€®þ←↓→œþ\u0308\u0303ªßðđŋħ ĸł\u0301\u0302\u030b\\«»©„“”µ\u0327· " } },
	{ "no",
	  { u"|1234567890+\\qwertyuiopå\u0308asdfghjkløæ'<zxcvbnm,.-",
	    u"§!\"#¤%&/()=?\u0300QWERTYUIOPÅ\u0302ASDFGHJKLØÆ*>ZXCVBNM;:_",
	    u"¦¡@£$½¥{[]}±\u0301@ſ€®þ←↓→œπ\u0308\u0303ªßðđŋħ ĸł\u0301\u0302\u030b½«»©„“”µ\u0327…–" } },
	{ "se",
	  { u"§1234567890+\u0301qwertyuiopå\u0308asdfghjklöä'<zxcvbnm,.-",
	    u"½!\"#¤%&/()=?\u0300QWERTYUIOPÅ\u0302ASDFGHJKLÖÄ*>ZXCVBNM;:_",
	    u"¶¡@£$€¥{[]}\\±@ſ€®þ←↓→œþ\u0308\u0303ªßðđŋħ ĸłøæ´|«»©„“”µ\u0327· " } },
	{ "fi",
	  { u"§1234567890+\u0301qwertyuiopå\u0308asdfghjklöä'<zxcvbnm,.-",
	    u"½!\"#¤%&/()=?\u0300QWERTYUIOPÅ\u0302ASDFGHJKLÖÄ*>ZXCVBNM;:_",
	    u"  @£$‰‚{[]}\\\u0327qw€rþyuıœ \u030b\u0303əßðfghjĸ øæ\u030c|ʒ×cvbŋµ’ –" } },
	{ "is",
	  { u"\u030a1234567890ö-qwertyuiopð'asdfghjklæ\u0301+<zxcvbnm,.þ",
	    u"\u0308!\"#$%&/()=Ö_QWERTYUIOPÐ?ASDFGHJKLÆ\u0301*>ZXCVBNM;:Þ",
	    u"¬¹²³¼½¬{[]}\\\u0327@ſ€¶ŧ←↓→ø|\u0308~æß„đŋħ ĸł^\u0302`|«»¢„“”µ•· " } },
	{ "pl",
	  { u"`1234567890-=qwertyuiop[]asdfghjkl;'\\<zxcvbnm,./",
	    u"~!@#$%^&*()_+QWERTYUIOP{}ASDFGHJKL:\"|>ZXCVBNM<>?",
	    u"¬≠²³¢€½§·«»–\u0327πœę©ß←↓→óþ\u0308\u0303ąśðæŋ’ə…ł\u0301\u0302\u0300|żźć„”ńµ≤≥ " } },
	{ "cz",
	  { u";+ěščřžýáíé=\u0301qwertzuiopú)asdfghjklů§\u0308\\yxcvbnm,.-",
	    u"\u030a1234567890%\u030cQWERTZUIOP/(ASDFGHJKL\"!'|YXCVBNM?:_",
	    u"`!@#$%^&*{}\\\u0304\\|€¶ŧ←↓→øþ[]~đĐ[]`'łŁ$'\\/°#&@{}^<>*" } },
	{ "hu",
	  { u"0123456789öüóqwertzuiopőúasdfghjkléáűíyxcvbnm,.-",
	    u"§'\"+!%/=()ÖÜÓQWERTZUIOPŐÚASDFGHJKLÉÁŰÍYXCVBNM?:_",
	    u"¬~\u030c^\u0306\u030a\u0328`\u0307\u0301\u030b\u0308\u0327\\|Ä¶ŧ–€Í„”÷×äđĐ[]ħíłŁ$ß¤<>#&@{}<;>*" } },
	{ "tr",
	  { u"\"1234567890*-qwertyuıopğüasdfghjklşi,<zxcvbnmöç.",
	    u"é!'^+%&/()=?_QWERTYUIOPĞÜASDFGHJKLŞİ;>ZXCVBNMÖÇ:",
	    u"<>£#$½¾{[]}\\|@ €¶₺←ûîô \u0308~âß ª     ´'`|«»¢„“”µ×·\u0307" } },
};
/* clang-format on */

const struct keymap *keymap_find(const char *name)
{
	for (size_t n = 0; n < ARRAY_SIZE(keymaps); n++)
		if (!strcmp(keymaps[n].name, name))
			return &keymaps[n];
	return NULL;
}

const char *display_keyboard_name(unsigned n) { return n < ARRAY_SIZE(keymaps) ? keymaps[n].name : NULL; }

int display_set_keyboard(struct display *d, const char *name, struct error *err)
{
	const struct keymap *map = keymap_find(name);

	if (map) {
		d->keymap = map;
		return 0;
	}
	return error_set(err, EINVAL, "'%.32s' is unknown; expected a layout such as us, uk, de or fr", name);
}

static bool is_letter(uint32_t small, uint32_t large)
{
	return small == large + 0x20 && ((small >= 'a' && small <= 'z') || small >= 0xe0);
}

static bool find_character(const struct keymap *map, uint32_t character, struct keymap_key *key)
{
	for (unsigned level = 0; level < LEVELS; level++)
		for (unsigned n = 0; n < PLACES; n++)
			if (map->characters[level][n] == character) {
				*key = (struct keymap_key){
					.code = places[n], .character = true, .shift = level == 1, .alt_gr = level == 2
				};
				key->letter = level < 2 && is_letter(map->characters[0][n], map->characters[1][n]);
				return true;
			}
	return false;
}

/* What some keyboards have only as a dead key. */
static uint32_t accent_of(uint32_t character)
{
	switch (character) {
	case '`': return 0x300;
	case 0xb4: return 0x301;
	case '^': return 0x302;
	case '~': return 0x303;
	case 0xa8: return 0x308;
	case 0xb8: return 0x327;
	default: return 0;
	}
}

/* ---- keysyms (X11's keysymdef.h) ---- */

struct pair {
	uint16_t keysym, code;
};

/* clang-format off */
/* Of characters beyond Latin 1 on the keyboards above: Unicode. */
static const struct pair characters[] = {
	{ 0x01a3, 0x0141 }, { 0x01aa, 0x015e }, { 0x01b1, 0x0105 }, { 0x01b3, 0x0142 }, { 0x01b6, 0x015b }, { 0x01b9, 0x0161 },
	{ 0x01ba, 0x015f }, { 0x01bc, 0x017a }, { 0x01be, 0x017e }, { 0x01bf, 0x017c }, { 0x01d0, 0x0110 }, { 0x01d5, 0x0150 },
	{ 0x01db, 0x0170 }, { 0x01e6, 0x0107 }, { 0x01e8, 0x010d }, { 0x01ea, 0x0119 }, { 0x01ec, 0x011b }, { 0x01f0, 0x0111 },
	{ 0x01f1, 0x0144 }, { 0x01f5, 0x0151 }, { 0x01f8, 0x0159 }, { 0x01f9, 0x016f }, { 0x01fb, 0x0171 }, { 0x02a9, 0x0130 },
	{ 0x02ab, 0x011e }, { 0x02b1, 0x0127 }, { 0x02b9, 0x0131 }, { 0x02bb, 0x011f }, { 0x03a2, 0x0138 }, { 0x03bc, 0x0167 },
	{ 0x03bf, 0x014b }, { 0x07ec, 0x03bc }, { 0x07f0, 0x03c0 }, { 0x08bc, 0x2264 }, { 0x08bd, 0x2260 }, { 0x08be, 0x2265 },
	{ 0x08fb, 0x2190 }, { 0x08fd, 0x2192 }, { 0x08fe, 0x2193 }, { 0x0aaa, 0x2013 }, { 0x0aae, 0x2026 }, { 0x0ad1, 0x2019 },
	{ 0x0ad2, 0x201c }, { 0x0ad3, 0x201d }, { 0x0ad5, 0x2030 }, { 0x0afd, 0x201a }, { 0x0afe, 0x201e }, { 0x13bd, 0x0153 },
	{ 0x20ac, 0x20ac },
};

/* Dead keys, from 0xfe50 on. */
static const char16_t accents[] = {
	0x300, 0x301, 0x302, 0x303, 0x304, 0x306, 0x307, 0x308, 0x30a, 0x30b, 0x30c, 0x327, 0x328,
};
#define KEYSYM_DEAD    0xfe50

/* Of keys without characters, or with the same ones everywhere: keys. */
static const struct pair others[] = {
	{ 0x0020, KEY_SPACE }, { 0xff08, KEY_BACKSPACE }, { 0xff09, KEY_TAB }, { 0xfe20, KEY_TAB }, { 0xff0d, KEY_ENTER }, { 0xff0a, KEY_ENTER },
	{ 0xff13, KEY_PAUSE }, { 0xff6b, KEY_PAUSE }, { 0xff14, KEY_SCROLLLOCK }, { 0xff15, KEY_SYSRQ }, { 0xff61, KEY_SYSRQ }, { 0xff1b, KEY_ESC },
	{ 0xff50, KEY_HOME }, { 0xff51, KEY_LEFT }, { 0xff52, KEY_UP }, { 0xff53, KEY_RIGHT }, { 0xff54, KEY_DOWN }, { 0xff55, KEY_PAGEUP },
	{ 0xff56, KEY_PAGEDOWN }, { 0xff57, KEY_END }, { 0xff63, KEY_INSERT }, { 0xffff, KEY_DELETE }, { 0xff67, KEY_COMPOSE }, { 0xff7f, KEY_NUMLOCK },
	{ 0xff7e, KEY_RIGHTALT }, { 0xff8d, KEY_KPENTER }, { 0xff95, KEY_KP7 }, { 0xff96, KEY_KP4 }, { 0xff97, KEY_KP8 }, { 0xff98, KEY_KP6 },
	{ 0xff99, KEY_KP2 }, { 0xff9a, KEY_KP9 }, { 0xff9b, KEY_KP3 }, { 0xff9c, KEY_KP1 }, { 0xff9d, KEY_KP5 }, { 0xff9e, KEY_KP0 },
	{ 0xff9f, KEY_KPDOT }, { 0xffaa, KEY_KPASTERISK }, { 0xffab, KEY_KPPLUS }, { 0xffac, KEY_KPCOMMA }, { 0xffad, KEY_KPMINUS }, { 0xffae, KEY_KPDOT },
	{ 0xffaf, KEY_KPSLASH }, { 0xffb0, KEY_KP0 }, { 0xffb1, KEY_KP1 }, { 0xffb2, KEY_KP2 }, { 0xffb3, KEY_KP3 }, { 0xffb4, KEY_KP4 },
	{ 0xffb5, KEY_KP5 }, { 0xffb6, KEY_KP6 }, { 0xffb7, KEY_KP7 }, { 0xffb8, KEY_KP8 }, { 0xffb9, KEY_KP9 }, { 0xffbd, KEY_KPEQUAL },
	{ 0xffbe, KEY_F1 }, { 0xffbf, KEY_F2 }, { 0xffc0, KEY_F3 }, { 0xffc1, KEY_F4 }, { 0xffc2, KEY_F5 }, { 0xffc3, KEY_F6 },
	{ 0xffc4, KEY_F7 }, { 0xffc5, KEY_F8 }, { 0xffc6, KEY_F9 }, { 0xffc7, KEY_F10 }, { 0xffc8, KEY_F11 }, { 0xffc9, KEY_F12 },
	{ 0xffe1, KEY_LEFTSHIFT }, { 0xffe2, KEY_RIGHTSHIFT }, { 0xffe3, KEY_LEFTCTRL }, { 0xffe4, KEY_RIGHTCTRL }, { 0xffe5, KEY_CAPSLOCK },
	{ 0xffe7, KEY_LEFTALT }, { 0xffe8, KEY_RIGHTALT }, { 0xffe9, KEY_LEFTALT }, { 0xffea, KEY_RIGHTALT }, { 0xffeb, KEY_LEFTMETA },
	{ 0xffec, KEY_RIGHTMETA }, { 0xfe03, KEY_RIGHTALT },
};

/* Codes of set 1 that are not Linux's numbers: beyond the first keyboards, and those behind 0xe0, which have bit 7 here. */
static const struct pair set_1[] = {
	{ 0x54, KEY_SYSRQ }, { 0x59, KEY_KPEQUAL }, { 0x70, KEY_KATAKANAHIRAGANA }, { 0x73, KEY_RO }, { 0x79, KEY_HENKAN }, { 0x7b, KEY_MUHENKAN },
	{ 0x7d, KEY_YEN }, { 0x7e, KEY_KPCOMMA }, { 0x64, KEY_F13 }, { 0x65, KEY_F14 }, { 0x66, KEY_F15 }, { 0x67, KEY_F16 },
	{ 0x90, KEY_PREVIOUSSONG }, { 0x99, KEY_NEXTSONG }, { 0x9c, KEY_KPENTER }, { 0x9d, KEY_RIGHTCTRL }, { 0xa0, KEY_MUTE }, { 0xa1, KEY_CALC },
	{ 0xa2, KEY_PLAYPAUSE }, { 0xa4, KEY_STOPCD }, { 0xae, KEY_VOLUMEDOWN }, { 0xb0, KEY_VOLUMEUP }, { 0xb2, KEY_HOMEPAGE }, { 0xb5, KEY_KPSLASH },
	{ 0xb7, KEY_SYSRQ }, { 0xb8, KEY_RIGHTALT }, { 0xc6, KEY_PAUSE }, { 0xc7, KEY_HOME }, { 0xc8, KEY_UP }, { 0xc9, KEY_PAGEUP },
	{ 0xcb, KEY_LEFT }, { 0xcd, KEY_RIGHT }, { 0xcf, KEY_END }, { 0xd0, KEY_DOWN }, { 0xd1, KEY_PAGEDOWN }, { 0xd2, KEY_INSERT },
	{ 0xd3, KEY_DELETE }, { 0xdb, KEY_LEFTMETA }, { 0xdc, KEY_RIGHTMETA }, { 0xdd, KEY_COMPOSE }, { 0xde, KEY_POWER }, { 0xdf, KEY_SLEEP },
	{ 0xe3, KEY_WAKEUP }, { 0xe5, KEY_SEARCH }, { 0xe6, KEY_BOOKMARKS }, { 0xe7, KEY_REFRESH }, { 0xe8, KEY_STOP }, { 0xe9, KEY_FORWARD },
	{ 0xea, KEY_BACK }, { 0xeb, KEY_COMPUTER }, { 0xec, KEY_MAIL },
};
/* clang-format on */

static unsigned find_pair(const struct pair *pairs, size_t count, uint32_t keysym)
{
	for (size_t n = 0; n < count; n++)
		if (pairs[n].keysym == keysym)
			return pairs[n].code;
	return 0;
}

static uint32_t character_of(uint32_t keysym)
{
	if (keysym >= 0x20 && keysym <= 0xff)
		return keysym;
	if (keysym >= KEYMAP_CHARACTER(0) && keysym <= KEYMAP_CHARACTER(0x10ffff))
		return keysym - KEYMAP_CHARACTER(0);
	if (keysym >= KEYSYM_DEAD && keysym < KEYSYM_DEAD + ARRAY_SIZE(accents))
		return accents[keysym - KEYSYM_DEAD];
	return find_pair(characters, ARRAY_SIZE(characters), keysym);
}

bool keymap_keysym(const struct keymap *map, uint32_t keysym, struct keymap_key *key)
{
	uint32_t character;

	*key = (struct keymap_key){ .code = find_pair(others, ARRAY_SIZE(others), keysym) };
	if (key->code)
		return true;
	character = character_of(keysym);
	return character > 0x20 && (find_character(map, character, key) ||
				    (accent_of(character) && find_character(map, accent_of(character), key)));
}

unsigned keymap_set_1(uint32_t code)
{
	if (code <= KEY_KPDOT || (code >= KEY_102ND && code <= KEY_F12))
		return code;
	return find_pair(set_1, ARRAY_SIZE(set_1), code);
}
