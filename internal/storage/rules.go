package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"unicode"

	"mayfly/internal/bot"
)

// Rules bound what Import takes. A zero allows nothing.
type Rules struct {
	Files  int    // regular files and folders together
	Depth  int    // parts of a name: 1 allows no folder that holds something
	Name   int    // bytes of one part of a name
	Bytes  int64  // of all files together, as announced
	File   int64  // bytes of one file
	Change int64  // bytes of all files that are new or differ from the base: what has to be written
	Pacer  *Pacer // what is written has to keep its pace; nil: as fast as the disk is
	Slow   func() // called once when the pace makes Import wait for more than a moment; nil: nobody asks
}

// The defaults for a bot's folder. At DefaultPace, the most that a run can change is written in 47 s.
const (
	DefaultQuota  = 100_000_000 // bytes of all files
	DefaultChange = 32_000_000  // bytes of the files that one run changes
)

// FolderRules are those for a bot's folder of at most quota bytes, of which a run may change so many.
func FolderRules(quota, change int64, pacer *Pacer) Rules {
	return Rules{Files: 5000, Depth: 16, Name: 255, Bytes: quota, File: quota, Change: min(quota, change), Pacer: pacer}
}

// streamBytes is how long a stream within the rules can be: content and padding, headers, and PAX records with a name.
func (r Rules) streamBytes() int64 {
	name := int64(r.Depth) * int64(r.Name+1)
	return r.Bytes + (int64(r.Files)+1)*(8<<10+2*name)
}

// Room is what the tmpfs of a run must be able to hold: bytes, in whole pages of memory, and files and folders.
type Room struct {
	Bytes  int64
	Inodes int
}

// Room is what a run needs that begins with a generation and changes it within the rules: no more, because a run's memory is
// bounded to its own and its tmpfs's. A generation that is larger than the rules, which may have become stricter, still fits.
func (s *Store) Room(addr bot.Address, kind Kind, gen bot.Generation, rules Rules) (Room, error) {
	page := int64(os.Getpagesize())
	const spare = 2 // inodes: the root, and a file that is written under another name before it takes its place
	var now Room
	err := s.walk(addr, kind, gen, func(info fs.FileInfo) {
		now.Inodes++
		if !info.IsDir() {
			now.Bytes += (info.Size() + page - 1) / page * page
		}
	})
	if err != nil {
		return Room{}, fmt.Errorf("storage: room for %s %d of %s: %w", kind, gen, addr, hint(err))
	}
	most := Room{Bytes: rules.Bytes + int64(rules.Files)*page, Inodes: rules.Files}
	most.Bytes = most.Bytes / page * page
	fresh := int64(max(0, rules.Files-now.Inodes)) * page // the last page of each new file
	return Room{
		Bytes:  max(now.Bytes, min(now.Bytes+rules.Change+fresh, most.Bytes)),
		Inodes: max(now.Inodes, most.Inodes) + spare,
	}, nil
}

// Stats says what a new generation is made of.
type Stats struct {
	Files        int   // regular files
	Changed      int   // files that are new or differ
	Removed      int   // files of the base that are gone
	Folders      int   // folders that are new or gone
	Bytes        int64 // of all files
	ChangedBytes int64 // of the changed files, whole
}

// String is the line of a run's log that says what was kept: "kept 3 files, 12 kB".
func (s Stats) String() string {
	var parts []string
	if s.Changed > 0 {
		parts = append(parts, fmt.Sprintf("kept %s, %s", count(s.Changed, "file"), bot.RoundSize(s.ChangedBytes)))
	}
	if s.Removed > 0 {
		parts = append(parts, "removed "+count(s.Removed, "file"))
	}
	if s.Folders > 0 {
		parts = append(parts, "made or removed "+count(s.Folders, "folder"))
	}
	if len(parts) == 0 {
		return "kept nothing new"
	}
	return strings.Join(parts, ", ")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// told is an error that has words for a bot's author.
type told struct {
	kind error // ErrRefused or context.DeadlineExceeded
	why  error
}

func (t told) Error() string   { return t.kind.Error() + ": " + t.why.Error() }
func (t told) Unwrap() []error { return []error{t.kind, t.why} }

// Told is the part of the error that is meant for the author.
func (t told) Told() string { return t.why.Error() }

// refuse makes an error that wraps ErrRefused: what is wrong, with its name and the limit, and what to do.
func refuse(format string, args ...any) error { return told{ErrRefused, fmt.Errorf(format, args...)} }

// Explain says to a bot's author why a folder was not kept. err is Import's, and may wrap one of its stream's that has words for
// the author itself: a method Told() string.
func Explain(err error) string {
	text := err.Error()
	var t interface{ Told() string }
	if errors.As(err, &t) {
		text = t.Told()
	}
	return "the folder was not kept: " + strings.Map(printable, strings.ToValidUTF8(text, "?"))
}

// printable: what a stage says is not trusted.
func printable(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return '?'
}
