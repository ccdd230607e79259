/* The page that the web display serves, as it is in web_page.html. */
	.section .rodata
	.globl	web_page, web_page_end
web_page:
	.incbin	"src/display/web_page.html"
web_page_end:
	.byte	0
	.section .note.GNU-stack, "", @progbits
