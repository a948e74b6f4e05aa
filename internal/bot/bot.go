// Package bot holds the vocabulary that the other packages share: addresses, fingerprints, the manifest, limits, what
// core's account knows, and what is recorded of a run. It does no I/O and imports nothing of ours.
package bot

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Address is a mailbox address as in RFC 5321, local-part@domain, in lower case.
type Address string

// ErrAddress is wrapped by ParseAddress.
var ErrAddress = errors.New("not a mail address")

// ParseAddress takes the bare form local@domain (no display name, no angle brackets) and lowers its case. It accepts what
// chatmail relays issue and refuses everything that could be mistaken for a path, a header or a second address.
func ParseAddress(s string) (Address, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	local, domain, ok := strings.Cut(s, "@")
	if !ok || local == "" || domain == "" || len(s) > 254 || len(local) > 64 {
		return "", fmt.Errorf("%w: %q: want local@domain", ErrAddress, s)
	}
	for _, r := range local {
		if !isAddressRune(r) && r != '+' && r != '=' {
			return "", fmt.Errorf("%w: %q: %q may not stand in the local part", ErrAddress, s, r)
		}
	}
	for _, r := range strings.Trim(domain, "[]") {
		if !isAddressRune(r) && r != ':' {
			return "", fmt.Errorf("%w: %q: %q may not stand in the domain", ErrAddress, s, r)
		}
	}
	if strings.HasPrefix(local, ".") || strings.Contains(s, "..") {
		return "", fmt.Errorf("%w: %q: dots may not lead or double", ErrAddress, s)
	}
	return Address(s), nil
}

func isAddressRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_'
}

// Local is the part before the @.
func (a Address) Local() string { local, _, _ := strings.Cut(string(a), "@"); return local }

// Domain is the part after the @.
func (a Address) Domain() string { _, domain, _ := strings.Cut(string(a), "@"); return domain }

// Fingerprint is that of an OpenPGP key, in upper-case hexadecimal (40 digits for v4 keys, 64 for v6). It is the identity
// of a contact; an address is not.
type Fingerprint string

// Generation numbers one immutable state of a bot's account or folder on disk; 0 means that there is none yet.
type Generation int64

// Runtime says what runs the bot's code.
type Runtime string

// The runtimes that a manifest may name.
const (
	RuntimeJS     Runtime = "js"     // a script on QuickJS
	RuntimeWASM   Runtime = "wasm"   // a WASI preview 1 module
	RuntimeNative Runtime = "native" // a program of the host's, such as python3, or of the bundle
)

// Mode says how a program that is no script of RuntimeJS is spoken to.
type Mode string

// The modes that a manifest may name.
const (
	ModePipe     Mode = "pipe"     // one message on stdin, what is printed is the reply
	ModeResident Mode = "resident" // an unmodified daemon that speaks to deltachat-rpc-server
	ModeMail     Mode = "mail"     // one that speaks IMAP and SMTP
)

// Manifest is a checked bot.toml. Its format is described in package bundle.
type Manifest struct {
	Name          string
	Summary       string
	Version       string
	License       string
	SourceCodeURL string
	Contact       string // how to reach the author: invite link, mailto: or address
	Icon          string // path in the bundle, or empty
	Runtime       Runtime
	Main          string   // path in the bundle, of js and wasm
	Command       []string // of native: an interpreter of the operator's list or a path in the bundle, and its arguments
	Mode          Mode     // of wasm and native
	Resident      Resident // of ModeResident and ModeMail
	AtOnce        bool     // what the bot says is sent as soon as it has said it, and so at least once; else together, when the run counts
	Limits        Limits
	PerUser       PerUser
	Sending       Sending
	GroupPrivacy  bool // in groups only commands, mentions and answers to the bot wake it
	FromBots      bool // messages of other bots wake it, too, where the operator allows that
	Commands      []Command
	Schedules     []string // when the bot is run without a message: lines of crontab(5), in UTC
}

// Resident says when a daemon is done with a message.
type Resident struct {
	Grace time.Duration // how long it must have been quiet
}

// Command is one that the bot understands, without the leading slash.
type Command struct {
	Name        string
	Description string
}

// Limits bound one run. A manifest may lower the operator's, never raise them.
type Limits struct {
	Memory int64         // bytes
	Wall   time.Duration // wall clock
}

// Within are the stricter of two bounds.
func (l Limits) Within(most Limits) Limits {
	return Limits{Memory: stricter(l.Memory, most.Memory), Wall: time.Duration(stricter(int64(l.Wall), int64(most.Wall)))}
}

// PerUser bounds what one contact may cause.
type PerUser struct {
	MailsPerHour   int
	MailsPerDay    int
	SecondsPerHour int    // wall-clock seconds of runs
	BytesPerHour   int64  // received and sent
	Drop           bool   // mail over a limit is dropped; else it waits until there is room
	Notice         string // what a contact over a limit is told, with "{limit}" and "{until}"; empty: the host's words
}

// Sending bounds what a bot sends: within an hour, and in one message. A manifest may lower the operator's bounds. 0 is none.
type Sending struct {
	Mails           int   // counted once for each recipient
	Bytes           int64 // likewise
	MailsPerContact int   // to one address
	BytesPerContact int64
	Attachment      int64 // bytes of one file
}

// Within are the stricter of two bounds.
func (s Sending) Within(most Sending) Sending {
	return Sending{
		Mails: int(stricter(int64(s.Mails), int64(most.Mails))), Bytes: stricter(s.Bytes, most.Bytes),
		MailsPerContact: int(stricter(int64(s.MailsPerContact), int64(most.MailsPerContact))),
		BytesPerContact: stricter(s.BytesPerContact, most.BytesPerContact), Attachment: stricter(s.Attachment, most.Attachment),
	}
}

// stricter is the lower of two bounds, of which 0 is none.
func stricter(a, b int64) int64 {
	if a <= 0 || b > 0 && b < a {
		return b
	}
	return a
}

// AccountState is what the gate must know of core's account, read from dc.db inside core's sandbox at the end of a session.
// It has been shaped by foreign mail: every field is bounded by its reader and parsed as hostile input.
type AccountState struct {
	Schema           int      `json:"schema"`   // dc.db's schema version
	Readable         bool     `json:"readable"` // false: the schema is unknown, and core must decide on what the gate cannot
	SelfKeys         [][]byte `json:"self_keys"`
	PublicKeys       [][]byte `json:"public_keys"` // binary transferable public keys of the contacts
	InviteNumbers    []string `json:"invite_numbers"`
	AuthTokens       []string `json:"auth_tokens"`
	BroadcastSecrets []string `json:"broadcast_secrets"`
}

// Pending counts the rows that core has still to work on: a session with Pending left is not drained.
type Pending struct {
	SMTP      int `json:"smtp"`
	Status    int `json:"smtp_status_updates"`
	Download  int `json:"download"`
	PostMsgs  int `json:"available_post_msgs"`
	IMAPQueue int `json:"imap"` // moves, deletions and flags that core wants of its server
}

// Drained reports whether nothing is left that would be lost to the user if core ended now.
func (p Pending) Drained() bool {
	return p.SMTP == 0 && p.Status == 0 && p.Download == 0 && p.PostMsgs == 0
}

// RunStatus is how a run ended, in the words of isolate's meta file.
type RunStatus string

// The ways a run ends. RunOK is the only one that lets the bot's messages out.
const (
	RunOK       RunStatus = "OK" // exit code 0, handler resolved
	RunError    RunStatus = "RE" // the bot's own error
	RunSignal   RunStatus = "SG" // died on a signal
	RunTimeout  RunStatus = "TO" // wall clock or CPU
	RunInternal RunStatus = "XX" // our fault or the host's
)

// RunRecord is what is kept of one run. The JSON keys are those of isolate(1) where it has one.
type RunRecord struct {
	Status    RunStatus     `json:"status"`
	ExitCode  int           `json:"exitcode"`
	ExitSig   int           `json:"exitsig,omitempty"`
	CPU       time.Duration `json:"time"`
	Wall      time.Duration `json:"time-wall"`
	Memory    int64         `json:"cg-mem"`            // peak bytes of the cgroup
	MaxRSS    int64         `json:"max-rss,omitempty"` // peak bytes of the program's largest process
	OOMKilled bool          `json:"cg-oom-killed,omitempty"`
	Message   string        `json:"message,omitempty"`  // for the author
	Kept      string        `json:"kept,omitempty"`     // what of the bot's folder was kept, in words
	Log       string        `json:"log,omitempty"`      // what the bot wrote, bounded
	AtOnce    int           `json:"at-once,omitempty"`  // mails that were sent without waiting for the run to count
	Schedule  string        `json:"schedule,omitempty"` // the one that the run was for; empty: a message

	// Unsent are messages that were refused or left out since a limit of sending was reached: how many, by that limit.
	Unsent map[string]int `json:"unsent,omitempty"`

	CoreCPU    time.Duration `json:"core-time"`
	CoreMemory int64         `json:"core-cg-mem"`
}

// Missing says in words what was not sent; "" for nothing.
func (r RunRecord) Missing() string {
	var parts []string
	for _, limit := range slices.Sorted(maps.Keys(r.Unsent)) {
		parts = append(parts, fmt.Sprintf("%d not sent: %s", r.Unsent[limit], limit))
	}
	return strings.Join(parts, "; ")
}
