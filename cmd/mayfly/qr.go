package main

import (
	"strings"

	"rsc.io/qr"
)

// terminalQR draws text as a QR code, two modules a character. It is drawn for a dark terminal: phones read the inverse too,
// but not all, so the quiet zone and the white modules are the blocks. Text that does not fit a QR code gives an empty string.
func terminalQR(text string) string {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return ""
	}
	const quiet = 2
	white := func(x, y int) bool { return !code.Black(x, y) }
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		for x := -quiet; x < code.Size+quiet; x++ {
			switch top, bottom := white(x, y), white(x, y+1); {
			case top && bottom:
				b.WriteRune('█')
			case top:
				b.WriteRune('▀')
			case bottom:
				b.WriteRune('▄')
			default:
				b.WriteRune(' ')
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
