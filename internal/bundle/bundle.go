// Package bundle turns a folder, a zip or the attachments of a mail into a checked manifest and files. The three ways give
// the same Bundle, with the same Digest, for the same files. It reads foreign bytes: memory is bounded by the Ceilings
// whatever it is given, and all faults are reported at once.
//
// # Files
//
// A bundle is a set of regular files. bot.toml is at its root. Paths are relative, slash-separated, valid UTF-8 without
// control or format characters or backslashes, at most 200 bytes and 15 folders
// deep, and have no empty, "." or ".." element. Two paths may not
// differ only in case or in Unicode composition, nor may one be a folder of the other. Links and other special files are
// refused. Files and folders whose name begins with a dot, and __MACOSX, are left out: they are version control and what
// desktops add. account.toml at the root is refused, since it holds a password. Ceilings bound the number of files, the size of each and the total; a zip entry of more than 1 MB that
// unpacks to more than 100 times its size is refused.
//
// # bot.toml
//
// TOML 1.0, UTF-8, at most 64 KiB. Unknown keys are errors. Sizes are strings with a unit, B, kB, MB, GB (powers of 1000) or
// KiB, MiB, GiB (powers of 1024); durations are strings as in "500ms", "30s", "1m".
//
//	name = "Dice"                     required; the display name in chats, at most 80 characters
//	summary = "Rolls dice"            at most 500 characters
//	version = "1.2.0"                 required; at most 40 characters, no spaces
//	license = "MIT"
//	source_code_url = "https://…"     http or https
//	contact = "…"                     required; how to reach the author: an invite link of i.delta.chat, mailto:address, or an address
//	icon = "icon.png"                 the bot's picture in chats: a PNG or JPEG of the bundle, at most 500 kB and 1024 × 1024 pixels
//	runtime = "js"                    required; js, wasm or native
//	main = "main.js"                  js, wasm: required; a .js or .mjs, or a .wasm file of the bundle
//	command = ["python3", "bot.py"]   native: required; an interpreter of the operator's list, or a file of the bundle, and arguments;
//	                                  it runs in the bundle's folder
//	mode = "pipe"                     wasm, native: a message on stdin, the reply on stdout (default); or
//	                                  native: "resident", a daemon that speaks to deltachat-rpc-server, or
//	                                  "mail", one that speaks IMAP and SMTP
//
//	replies = "together"              what the bot says is sent when the run counts, exactly once (default); or
//	                                  "at once": each message as soon as the bot has said it, at least once. Not with mode = "pipe"
//
//	[resident]                        of such a daemon, of both kinds
//	grace = "300ms"                   how long it is quiet before it is ended: 50ms to 10s
//
//	[limits]                          may lower the operator's limits, never raise them; what is left out is the operator's
//	memory = "128MB"                  of one run
//	wall = "30s"                      of one run
//	[limits.per_user]                 what one contact may cause; the same rule
//	mails_per_hour = 60
//	mails_per_day = 120
//	seconds_per_hour = 60             wall-clock seconds of runs
//	bytes_per_hour = "60MB"           received and sent
//	over = "defer"                    what is over a limit waits (default), or "drop": it is deleted
//	notice = "…"                      what the contact is then told, once an hour at most, instead of the host's words; at most 200
//	                                  characters; {limit} and {until} are replaced by the limit and the time
//
//	[limits.sending]                  what the bot sends; the same rule
//	mails_per_hour = 2000             counted once for each recipient, also in groups
//	bytes_per_hour = "300MB"          likewise
//	mails_per_hour_and_contact = 200  to one address
//	bytes_per_hour_and_contact = "60MB"
//	attachment = "20MB"               one file
//
//	[groups]
//	privacy = true                    in groups only commands, mentions and answers to the bot wake it (default)
//
//	[messages]
//	from_bots = true                  messages of other bots wake it, too, where the operator allows that; by default they do not
//
//	[[commands]]                      at most 100
//	name = "roll"                     without the slash: a-z, 0-9, _; at most 32; not stop, about or usage: those are the host's. With
//	                                  start and help the bot gets these: see docs/AUTHORS.md
//	description = "Roll dice"         at most 200 characters
//
//	[[schedule]]                      at most 10: when the bot is run without a message
//	cron = "0 8 * * *"                minute, hour, day of the month, month, day of the week, as in crontab(5), in UTC; any two
//	                                  runs of the bot's schedules are at least as far apart as the operator wants, an hour by default
//
// Known, checked, and then refused because this host does not support them yet:
//
//	[network]
//	origins = ["https://api.example.org"]
package bundle

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"mayfly/internal/bot"
)

// ManifestName is the path of the manifest in a bundle.
const ManifestName = "bot.toml"

// AccountName is the path of a file that is never part of a bundle: package install takes the account's password from it.
const AccountName = "account.toml"

// Bundle is a checked bundle.
type Bundle struct {
	Manifest bot.Manifest
	Files    []File // sorted by path, bot.toml among them
	Digest   string // hexadecimal SHA-256 over the files: for each, 64-bit big-endian length and bytes of path and content
}

// File is one file of a bundle. Path is slash-separated and relative to the bundle's root.
type File struct {
	Path string
	Data []byte
}

// Problem is one fault of a bundle. Line and Column count from 1, Column in bytes; Line 0 means the file as a whole. Fix says
// what to write instead, and may be empty.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
	Fix     string `json:"fix,omitempty"`
}

// String is the problem as compilers print theirs: bot.toml:7:1: unknown key "mainn": did you mean "main"?
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": " + p.Message)
	if p.Fix != "" {
		b.WriteString(": " + p.Fix)
	}
	return b.String()
}

// Problems are all the faults found, in the order of files and lines. As an error it prints them a line each.
type Problems []Problem

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// maxProblems bounds a report: whoever has more faults than this starts anew anyway.
const maxProblems = 100

// orNil sorts the problems and returns them as an error, or nil if there are none.
func (ps Problems) orNil() error {
	if len(ps) == 0 {
		return nil
	}
	sort.SliceStable(ps, func(i, j int) bool {
		a, b := ps[i], ps[j]
		if a.File != b.File {
			return a.File < b.File
		}
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Column < b.Column
	})
	if rest := len(ps) - maxProblems; rest > 0 {
		ps = append(ps[:maxProblems:maxProblems], Problem{File: "bundle", Message: fmt.Sprintf("and %d more faults", rest)})
	}
	return ps
}

// Ceilings are what the operator allows a bundle to be and to ask for.
type Ceilings struct {
	Memory  int64         // bytes of one run
	Wall    time.Duration // of one run
	Files   int           // number of files
	File    int64         // bytes of one file
	Total   int64         // bytes of all files
	PerUser bot.PerUser
	Sending bot.Sending

	ScheduleGap time.Duration // between two runs of a bot that schedules cause, at least

	Interpreters []string // the programs of the host that a native bot may name; none: there are no native bots
	FromBots     bool     // messages of other bots may wake those that ask for them
}

// Withheld says, in lines for its author, what a manifest asks for and the host does not grant. The bot runs without it.
func (c Ceilings) Withheld(m bot.Manifest) []string {
	var lines []string
	if m.FromBots && !c.FromBots {
		lines = append(lines, "[messages] from_bots has no effect: messages of other bots wake this one only on a host whose operator has set from_bots = true below [bots]")
	}
	return lines
}

// DefaultInterpreters are those that a host lets native bots use, where it has them.
func DefaultInterpreters() []string {
	return []string{"python3", "node", "sh", "perl", "lua", "qjs", "llrt"}
}

// DefaultCeilings are those of a host whose operator has set none.
func DefaultCeilings() Ceilings {
	return Ceilings{
		Memory: 128e6,
		Wall:   30 * time.Second,
		Files:  2000,
		File:   20e6,
		Total:  20e6,
		PerUser: bot.PerUser{
			MailsPerHour:   60,
			MailsPerDay:    120,
			SecondsPerHour: 60,
			BytesPerHour:   60e6,
		},
		ScheduleGap:  time.Hour,
		Sending:      bot.Sending{Mails: 2000, Bytes: 300e6, MailsPerContact: 200, BytesPerContact: 60e6, Attachment: 20e6},
		Interpreters: DefaultInterpreters(),
	}
}

// FromFiles checks files that are in memory already, such as the attachments of a mail. The error is Problems.
func FromFiles(files []File, c Ceilings) (*Bundle, error) {
	set := newCollector(c)
	for _, f := range files {
		if set.admit(f.Path, int64(len(f.Data))) {
			set.files = append(set.files, f)
		}
	}
	return set.bundle()
}

// Digest is that of a bundle of these files, in any order.
func Digest(files []File) string {
	sorted := slices.SortedFunc(slices.Values(files), func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return digest(sorted)
}

// digest is the identity of a set of sorted files. Lengths stand before path and content, so that no two sets share the bytes.
func digest(files []File) string {
	h := sha256.New()
	for _, f := range files {
		hashField(h.Write, []byte(f.Path))
		hashField(h.Write, f.Data)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func hashField(write func([]byte) (int, error), b []byte) {
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(b)))
	write(length[:])
	write(b)
}
