package backup

import (
	"archive/tar"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// reader takes an archive apart.
type reader struct {
	tar    *tar.Reader
	bounds Bounds
	files  int
	bytes  int64
	sums   bytes.Buffer
	seen   map[string]bool
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrRefused}, args...)...)
}

// CheckArchive reads a backup and says what is wrong with it. An archive that breaks the format is an error.
func CheckArchive(ctx context.Context, r io.Reader, bounds Bounds) ([]Problem, error) {
	tmp, err := os.MkdirTemp("", ".mayfly-verify-")
	if err != nil {
		return nil, failed(err, os.TempDir())
	}
	defer os.RemoveAll(tmp)
	problems, err := read(ctx, r, bounds, tmp, false)
	if err != nil {
		return nil, failed(err, tmp)
	}
	return problems, nil
}

// Restore puts a backup into the state folder, which must be empty but for its lock. After an error it is empty again. The
// problems are those of the backup.
func (f *Files) Restore(ctx context.Context, r io.Reader, bounds Bounds) ([]Problem, error) {
	f.turn.Lock()
	defer f.turn.Unlock()
	if err := f.Clean(); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(f.state)
	if err != nil {
		return nil, failed(err, f.state)
	}
	for _, e := range entries {
		if e.Name() != lockFile {
			return nil, fmt.Errorf("backup: %w: %s is in it: move what is in %s away, or set state to another folder", ErrNotEmpty, e.Name(), f.state)
		}
	}
	dir := filepath.Join(f.state, restoringDir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, failed(err, f.state)
	}
	problems, err := read(ctx, r, bounds, dir, true)
	if err == nil {
		err = syncAll(dir)
	}
	if err != nil {
		return nil, errors.Join(failed(err, f.state), os.RemoveAll(dir))
	}
	return problems, f.moveIn(dir)
}

// moveIn puts what was restored in its place. The empty folder that is removed last says, while it is there, that not all is done.
func (f *Files) moveIn(dir string) error {
	var err error
	for _, name := range []string{botsDir, keysDir, outboxDir, ledgerFile} {
		err = errors.Join(err, os.Rename(filepath.Join(dir, name), filepath.Join(f.state, name)))
	}
	if err == nil {
		err = syncAll(f.state)
	}
	if err == nil {
		err = os.Remove(dir)
	}
	if err == nil {
		err = syncAll(f.state)
	}
	if err != nil {
		return fmt.Errorf("%w: delete all that is in %s, and try again", failed(err, f.state), f.state)
	}
	return nil
}

func syncAll(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd()))), f.Close())
}

// read takes an archive apart into a folder: all of it, or only the ledger.
func read(ctx context.Context, r io.Reader, bounds Bounds, dir string, all bool) ([]Problem, error) {
	zip, err := gzip.NewReader(r)
	if err != nil {
		return nil, refuse("%v: it is not compressed as a backup is", err)
	}
	a := &reader{tar: tar.NewReader(zip), bounds: bounds, seen: map[string]bool{}}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if err := a.head(); err != nil {
		return nil, err
	}
	if err := a.ledger(root); err != nil {
		return nil, err
	}
	n, problems, err := readLedger(ctx, filepath.Join(dir, ledgerFile))
	if err != nil {
		return nil, err
	}
	if len(problems) > 0 { // without a sound ledger there is no saying what belongs to it
		return nil, refuse("its ledger is not sound: %s", problems[0].What)
	}
	c := newChecker(n)
	for {
		ended, err := a.entry(ctx, c, root, all)
		if err != nil {
			return nil, err
		}
		if ended {
			return c.finish(), nil
		}
	}
}

// next returns the next file or folder, within the bounds.
func (a *reader) next() (*tar.Header, error) {
	h, err := a.tar.Next()
	if err == io.EOF {
		return nil, refuse("it is cut off: take it from where it came once more")
	}
	if err != nil {
		return nil, refuse("%v", err)
	}
	if h.Typeflag == tar.TypeDir {
		h.Name = strings.TrimSuffix(h.Name, "/")
	}
	if h.Typeflag != tar.TypeDir && h.Typeflag != tar.TypeReg {
		return nil, refuse("%.100q has the type %q", h.Name, h.Typeflag)
	}
	if err := checkName(h.Name); err != nil {
		return nil, err
	}
	a.files++
	a.bytes += h.Size
	switch {
	case a.seen[h.Name]:
		return nil, refuse("%.100q is there twice", h.Name)
	case a.files > a.bounds.Files:
		return nil, refuse("there are more than %d files and folders in it", a.bounds.Files)
	case h.Size < 0 || a.bytes > a.bounds.Bytes:
		return nil, refuse("it holds more than %d bytes, for which there is no room", a.bounds.Bytes)
	}
	a.seen[h.Name] = true
	return h, nil
}

// expect is next, for a file that must come now.
func (a *reader) expect(name string) (*tar.Header, error) {
	h, err := a.next()
	if err == nil && (h.Name != name || h.Typeflag != tar.TypeReg) {
		err = refuse("%.100q is in the place of %s", h.Name, name)
	}
	return h, err
}

func (a *reader) head() error {
	if _, err := a.expect(headFile); err != nil {
		return err
	}
	var text bytes.Buffer
	if err := a.copy(headFile, io.LimitReader(a.tar, 4<<10), &text); err != nil {
		return err
	}
	var h head
	if err := json.Unmarshal(text.Bytes(), &h); err != nil || h.Version < 1 {
		return refuse("%s says no version", headFile)
	}
	if h.Version > version {
		return refuse("its version is %d, this program knows %d: install the mayfly that made it", h.Version, version)
	}
	return nil
}

func (a *reader) ledger(root *os.Root) error {
	if _, err := a.expect(ledgerFile); err != nil {
		return err
	}
	return a.create(root, ledgerFile)
}

// entry takes the next file or folder, and reports whether it was the checksums, which are the last.
func (a *reader) entry(ctx context.Context, c *checker, root *os.Root, all bool) (ended bool, err error) {
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	h, err := a.next()
	if err != nil {
		return false, err
	}
	if h.Name == sumsFile {
		return true, a.end()
	}
	folder := h.Typeflag == tar.TypeDir
	it, wanted := c.enter(h.Name, folder)
	if !wanted {
		return false, refuse("%.100q is not named by the ledger in it", h.Name)
	}
	if parent := path.Dir(h.Name); parent != "." && !a.seen[parent] {
		return false, refuse("%.100q comes before its folder", h.Name)
	}
	switch {
	case folder && all:
		return false, root.Mkdir(h.Name, 0o700)
	case folder:
		return false, nil
	case !all:
		return false, a.check(c, it, h)
	}
	return false, a.take(c, it, h, root)
}

// check reads a file for the checker alone.
func (a *reader) check(c *checker, it item, h *tar.Header) error {
	r, w := io.Pipe()
	go func() { w.CloseWithError(a.copy(h.Name, a.tar, w)) }()
	err := c.file(h.Name, it, h.Size, r)
	r.CloseWithError(err)
	return err
}

// take writes a file, and then has the checker read it.
func (a *reader) take(c *checker, it item, h *tar.Header, root *os.Root) error {
	if err := a.create(root, h.Name); err != nil {
		return err
	}
	return c.open(root, h.Name, it)
}

func (a *reader) create(root *os.Root, name string) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(a.copy(name, a.tar, f), f.Close())
}

// copy reads a file, and counts it among those with a checksum.
func (a *reader) copy(name string, r io.Reader, w io.Writer) error {
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w, sum), r); damaged(err) {
		return refuse("%.100q: %v: it is cut off or damaged", name, err)
	} else if err != nil {
		return fmt.Errorf("%.100q: %w", name, err)
	}
	fmt.Fprintf(&a.sums, "%x  %s\n", sum.Sum(nil), name)
	return nil
}

// damaged reports whether an error is the archive's, and not that of a disk.
func damaged(err error) bool {
	var corrupt flate.CorruptInputError
	return errors.As(err, &corrupt) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) ||
		errors.Is(err, tar.ErrHeader)
}

// end compares the checksums, and requires that nothing comes behind them.
func (a *reader) end() error {
	want := a.sums.Bytes()
	got, err := io.ReadAll(io.LimitReader(a.tar, int64(len(want))+1))
	if err != nil {
		return refuse("%v: it is cut off or damaged", err)
	}
	if !slices.Equal(got, want) {
		return refuse("the checksums are not those of its files: it is damaged")
	}
	if _, err := a.tar.Next(); err != io.EOF {
		return refuse("something comes behind the checksums")
	}
	return nil
}
