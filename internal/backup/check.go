package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"mayfly/internal/bundle"
	"mayfly/internal/ledger"
)

// maxProblems bounds what a check reports; a folder that is wrong in more ways is best replaced.
const maxProblems = 1000

// maxBundle is how much of a bundle is held in memory: no bundle is larger.
const maxBundle = 256 << 20

// checker compares files, as they come, with what a ledger names.
type checker struct {
	named    named
	there    map[string]bool // the items that came
	files    []bundle.File   // of the bundle that is coming
	bundle   string          // its path
	bytes    int64           // its size so far
	problems []Problem
}

func newChecker(n named) *checker { return &checker{named: n, there: map[string]bool{}} }

func (c *checker) wrong(it item, mend, format string, args ...any) {
	if len(c.problems) < maxProblems {
		c.problems = append(c.problems, Problem{Bot: it.bot, What: fmt.Sprintf(format, args...), Mend: mend})
	}
}

const (
	mendSweep  = "start mayfly, which deletes it; or move it away"
	mendBackup = "stop mayfly and restore the newest backup"
)

// mend says what to do about something that a bot lacks.
func mend(it item) string {
	switch it.kind {
	case bundleTree:
		return "let its author put the bundle into the folder Bot once more; or stop mayfly and restore the newest backup"
	case mail:
		return "nothing can bring this mail back but a backup; mayfly gives it up and tells the author"
	}
	return fmt.Sprintf("stop mayfly and restore the newest backup; without one, mayfly remove %s and let its author install it again", it.bot)
}

// enter notes a file or folder and reports whether it is wanted.
func (c *checker) enter(name string, folder bool) (item, bool) {
	at, it, ok := c.named.find(name)
	if at != c.bundle {
		c.endBundle()
	}
	isTree := it.kind == generation || it.kind == bundleTree
	switch {
	case ok && (at != name || folder == isTree):
		c.there[at] = true
		if it.kind == bundleTree {
			c.bundle = at
		}
		return it, true
	case ok:
		c.wrong(it, mend(it), "%s is a file in the place of a folder, or the other way round", name)
		return it, false
	}
	return item{}, folder && c.named.holds(name) || !folder && spare(name)
}

// file reads a file to its end.
func (c *checker) file(name string, it item, size int64, r io.Reader) error {
	if it.kind == mail && it.size != size {
		c.wrong(it, mend(it), "%s has %d bytes, its mail had %d", name, size, it.size)
	}
	if c.bundle == "" {
		_, err := io.Copy(io.Discard, r)
		return err
	}
	if c.bytes += size; c.bytes > maxBundle {
		_, err := io.Copy(io.Discard, r) // its digest will not be the right one
		return err
	}
	data, err := io.ReadAll(r)
	c.files = append(c.files, bundle.File{Path: name[len(c.bundle)+1:], Data: data})
	return err
}

// endBundle holds what came of a bundle against its digest.
func (c *checker) endBundle() {
	if c.bundle == "" {
		return
	}
	if it := c.named.items[c.bundle]; bundle.Digest(c.files) != it.digest {
		c.wrong(it, mend(it), "%s is not what its digest stands for", c.bundle)
	}
	c.bundle, c.files, c.bytes = "", nil, 0
}

// finish says what did not come.
func (c *checker) finish() []Problem {
	c.endBundle()
	var missing []string
	for at := range c.named.items {
		if !c.there[at] {
			missing = append(missing, at)
		}
	}
	slices.Sort(missing)
	for _, at := range missing {
		it := c.named.items[at]
		c.wrong(it, mend(it), "%s is missing", at)
	}
	return c.problems
}

// Check looks at a state folder on which no host works: the ledger, and whether all that it names is there, and nothing else.
func (f *Files) Check(ctx context.Context) ([]Problem, error) {
	f.turn.Lock()
	defer f.turn.Unlock()
	if err := f.Clean(); err != nil {
		return nil, err
	}
	return checkFolder(ctx, f.state, true)
}

// CheckLive looks at a state folder while a host with that ledger works. It cannot tell what is superfluous: the host makes
// files before it names them.
func (f *Files) CheckLive(ctx context.Context, l *ledger.Ledger) ([]Problem, error) {
	f.turn.Lock()
	defer f.turn.Unlock()
	dir, err := f.snapshot(ctx, l)
	if err != nil {
		return nil, err
	}
	problems, err := checkFolder(ctx, dir, false)
	return problems, errors.Join(err, os.RemoveAll(dir))
}

func checkFolder(ctx context.Context, dir string, strict bool) ([]Problem, error) {
	tmp, err := os.MkdirTemp("", ".mayfly-verify-")
	if err != nil {
		return nil, failed(err, os.TempDir())
	}
	defer os.RemoveAll(tmp)
	for _, suffix := range []string{"", "-wal"} { // looked at in a copy: opening it might bring it up to date
		err := copyFile(filepath.Join(dir, ledgerFile+suffix), filepath.Join(tmp, ledgerFile+suffix))
		if errors.Is(err, fs.ErrNotExist) && suffix == "" {
			return nil, fmt.Errorf("backup: %w: this is no state folder", err)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, failed(err, dir+" or "+tmp)
		}
	}
	n, problems, err := readLedger(ctx, filepath.Join(tmp, ledgerFile))
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, failed(err, dir)
	}
	defer root.Close()
	c := newChecker(n)
	for _, top := range []string{botsDir, keysDir, outboxDir} {
		if err := c.walk(ctx, root, top, strict); err != nil {
			return nil, failed(err, dir)
		}
	}
	return append(problems, c.finish()...), nil
}

// openNamed says what a ledger names.
func openNamed(ctx context.Context, at string) (n named, err error) {
	l, err := ledger.Open(ctx, at)
	if err != nil {
		return n, err
	}
	n, err = readNamed(ctx, l)
	return n, errors.Join(err, l.Close())
}

// readLedger opens a ledger, looks for damages and says what it names.
func readLedger(ctx context.Context, at string) (n named, problems []Problem, err error) {
	l, err := ledger.Open(ctx, at)
	for _, bad := range []error{ledger.ErrCorrupt, ledger.ErrForeign} {
		if errors.Is(err, bad) { // its own hint is of the copy
			return n, []Problem{{What: bad.Error(), Mend: mendBackup}}, nil
		}
	}
	if err != nil {
		return n, nil, err
	}
	defer l.Close()
	damages, err := l.Damages(ctx)
	for _, d := range damages {
		problems = append(problems, Problem{What: "the ledger is damaged: " + d, Mend: mendBackup})
	}
	if err != nil {
		return n, problems, err
	}
	if err := l.SameSchema(ctx); errors.Is(err, ledger.ErrSchema) {
		problems = append(problems, Problem{What: ledger.ErrSchema.Error(), Mend: mendBackup})
	} else if err != nil {
		return n, problems, err
	}
	n, err = readNamed(ctx, l)
	return n, problems, err
}

// walk checks what lies in a folder. What has a temporary name is not looked at: a crash leaves it.
func (c *checker) walk(ctx context.Context, root *os.Root, top string, strict bool) error {
	return fs.WalkDir(root.FS(), top, func(name string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && name == top {
			return nil
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		it, wanted := c.enter(name, e.IsDir())
		switch {
		case !wanted && (derived(name) || name == top):
			return nil
		case !wanted:
			if strict {
				c.wrong(it, mendSweep, "%s is not named by the ledger", name)
			}
			return skip(e)
		case e.IsDir():
			return nil
		case !e.Type().IsRegular():
			c.wrong(it, mend(it), "%s is neither a file nor a folder", name)
			return nil
		}
		return c.open(root, name, it)
	})
}

func skip(e fs.DirEntry) error {
	if e.IsDir() {
		return fs.SkipDir
	}
	return nil
}

func (c *checker) open(root *os.Root, name string, it item) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := c.file(name, it, info.Size(), f); err != nil {
		c.wrong(it, mend(it), "%s cannot be read: %v", name, err)
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
