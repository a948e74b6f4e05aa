// Package backup copies a state folder while the host works, puts a copy into an empty folder on any machine, and checks both.
//
// A backup is a tar archive, compressed with gzip, of regular files and folders in this order:
//
//	mayfly-backup.json    {"version": 1, "made": "2026-01-31T12:00:00Z"}
//	ledger.db             a snapshot of the ledger
//	bots/, keys/, outbox/ what that snapshot names, laid out as in the state folder, each folder before what is in it
//	SHA256SUMS            of all files before it, as sha256sum(1) writes it; an archive that ends without it is cut off
//
// It holds the bots' secret keys and is not encrypted. What can be made again (compiled bundles) is not in it.
//
// A snapshot costs no copy: while the ledger stands still, what it names is linked into the folder snapshot/ of the state folder.
// Generations, bundles, keys and mails are never changed in place, so the links keep what they were.
//
// An archive is read as foreign: a file comes in only under a name that its own ledger names, once, and all of it within Bounds.
// Restore writes into the folder restoring/, moves all to its place when the checksums were right, and the ledger last.
package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"

	"mayfly/internal/bot"
)

// The names in a state folder.
const (
	ledgerFile   = "ledger.db"
	botsDir      = "bots"
	keysDir      = "keys"
	outboxDir    = "outbox"
	snapshotDir  = "snapshot"
	restoringDir = "restoring"
	lockFile     = "lock"
)

// The names that only an archive has.
const (
	headFile = "mayfly-backup.json"
	sumsFile = "SHA256SUMS"
)

// What errors of this package wrap.
var (
	ErrRefused    = errors.New("not a backup that can be read")
	ErrNotEmpty   = errors.New("the state folder is not empty")
	ErrUnfinished = errors.New("a restore into the state folder was interrupted")
)

// Problem is something that is wrong with a state folder or a backup.
type Problem struct {
	Bot  bot.Address `json:"bot,omitempty"`
	What string      `json:"what"`
	Mend string      `json:"mend"`
}

// String is the problem as a line of text.
func (p Problem) String() string { return p.What + ": " + p.Mend }

// Bounds are what an archive may hold.
type Bounds struct {
	Files int   // files and folders
	Bytes int64 // of all files together
}

const (
	maxDepth = 4 + 20 // parts of a name
	maxName  = 255    // bytes of one part
)

// checkName says why a name may not stand in an archive.
func checkName(name string) error {
	parts := strings.Split(name, "/")
	if !fs.ValidPath(name) || name == "." || len(parts) > maxDepth {
		return fmt.Errorf("%w: the name %.100q", ErrRefused, name)
	}
	for _, part := range parts {
		if len(part) > maxName || strings.ContainsFunc(part, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("%w: the name %.100q", ErrRefused, name)
		}
	}
	return nil
}

// Files makes backups of one state folder, one at a time.
type Files struct {
	state string
	turn  sync.Mutex
}

// Of returns the files of a state folder.
func Of(state string) *Files { return &Files{state: state} }

// Clean deletes at start what a backup that was cut off has left, and refuses a folder into which a restore was cut off.
func (f *Files) Clean() error {
	if _, err := os.Lstat(path.Join(f.state, restoringDir)); err == nil {
		return fmt.Errorf("backup: %w: delete all that is in %s, and restore the backup again", ErrUnfinished, f.state)
	}
	if err := os.RemoveAll(path.Join(f.state, snapshotDir)); err != nil {
		return failed(err, f.state)
	}
	return nil
}

// failed says what to do where the disk is the reason.
func failed(err error, where string) error {
	return fmt.Errorf("backup: %w", bot.DiskError(err, where))
}
