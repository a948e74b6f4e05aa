// Package wake is the daemon's side of the wake hook: a unix datagram socket on which the relay's Dovecot says at once that an
// account has new mail or that its Bot folder has changed. contrib/dovecot/mayfly_push.lua is the other side.
//
// # Protocol
//
// The socket is of type SOCK_DGRAM. A datagram is one change: at most 1,024 bytes of UTF-8, four fields with a TAB between
// them, and one LF at the end, which may be missing:
//
//		version TAB account TAB mailbox TAB uid LF
//
//	  - version: the digit 1. Who knows only this version ignores datagrams of every other.
//	  - account: the address local@domain, as bot.ParseAddress takes it.
//	  - mailbox: the name as Dovecot knows it, in UTF-8 and with the server's own hierarchy delimiter, such as "INBOX", "Bot" or
//	    "Bot.drafts": 1 to 255 bytes, no control characters. INBOX in any case is handed on as "INBOX".
//	  - uid: of the newest message of the change, decimal, 0 to 4294967295; 0 where the change is not one of messages: a mailbox
//	    was made, removed or renamed. A fraction of zeros is ignored ("42.0"), as Lua prints floats.
//
// Nothing is answered. The sender does not wait: where nobody listens, or the queue of the socket is full (the kernel's
// net.unix.max_dgram_qlen at the time of Listen, 10 to 512), the datagram is dropped, so a change may go untold. It is a hint, never the
// only way: a slow poll has to stand behind it. What is told may also be wrong, and means no more than "look there".
//
// # Promises
//
//   - A datagram that is not of this form is counted and dropped, whatever it holds.
//   - The socket is emptied as fast as the kernel hands it out, however long the callback takes: a sender never finds it full
//     because of what the callback does.
//   - The callback is called by one goroutine, one call at a time, at most 1,000 times a second after a burst of 1,000. Changes
//     that wait are told once for each mailbox, with the newest UID, in the order in which the mailboxes began to wait: one
//     account cannot keep the others waiting.
//   - Memory is bounded: 10,000 mailboxes may wait; what comes above that is dropped, counted and logged.
package wake

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"mayfly/internal/bot"
)

const (
	version    = "1"
	maxLine    = 1024 // bytes of a datagram
	maxMailbox = 255  // bytes of a mailbox's name
)

// errMalformed is wrapped by the errors of parse.
var errMalformed = errors.New("not a change")

// change is what one datagram tells.
type change struct {
	account bot.Address
	mailbox string
	uid     uint32
}

// parse reads one datagram.
func parse(datagram []byte) (change, error) {
	if len(datagram) > maxLine || !utf8.Valid(datagram) {
		return change{}, fmt.Errorf("%w: want at most %d bytes of UTF-8", errMalformed, maxLine)
	}
	fields := strings.Split(strings.TrimSuffix(string(datagram), "\n"), "\t")
	if len(fields) != 4 || fields[0] != version {
		return change{}, fmt.Errorf("%w: want the fields 1, account, mailbox, uid", errMalformed)
	}
	account, err := bot.ParseAddress(fields[1])
	if err != nil {
		return change{}, fmt.Errorf("%w: %w", errMalformed, err)
	}
	mailbox, err := parseMailbox(fields[2])
	if err != nil {
		return change{}, err
	}
	uid, err := parseUID(fields[3])
	return change{account, mailbox, uid}, err
}

func parseMailbox(s string) (string, error) {
	if s == "" || len(s) > maxMailbox || strings.ContainsFunc(s, unicode.IsControl) {
		return "", fmt.Errorf("%w: want a mailbox name of 1 to %d bytes", errMalformed, maxMailbox)
	}
	if strings.EqualFold(s, "INBOX") {
		return "INBOX", nil
	}
	return s, nil
}

func parseUID(s string) (uint32, error) {
	whole, fraction, _ := strings.Cut(s, ".")
	uid, err := strconv.ParseUint(whole, 10, 32)
	if err != nil || strings.Trim(fraction, "0") != "" {
		return 0, fmt.Errorf("%w: want a UID", errMalformed)
	}
	return uint32(uid), nil
}
