package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"mayfly/internal/ledger"
)

// version is that of the archive's layout; the ledger has its own.
const version = 1

type head struct {
	Version int       `json:"version"`
	Made    time.Time `json:"made"`
}

// Write writes a backup of the state folder on which a host with that ledger may work. What the ledger names and the folder lacks is
// returned as problems, and the archive is of what there is. After an error the archive is cut off.
func (f *Files) Write(ctx context.Context, l *ledger.Ledger, w io.Writer) ([]Problem, error) {
	f.turn.Lock()
	defer f.turn.Unlock()
	dir, err := f.snapshot(ctx, l)
	if err != nil {
		return nil, err
	}
	problems, err := checkFolder(ctx, dir, false)
	if err == nil {
		err = writeArchive(ctx, dir, w)
	}
	if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
		return nil, failed(err, f.state)
	}
	return problems, nil
}

// snapshot makes a folder like the state folder as it is now.
func (f *Files) snapshot(ctx context.Context, l *ledger.Ledger) (string, error) {
	dir := filepath.Join(f.state, snapshotDir)
	err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700))
	if err == nil {
		err = l.Snapshot(ctx, filepath.Join(dir, ledgerFile), func() error { return f.link(ctx, dir) })
	}
	if err != nil {
		return "", errors.Join(failed(err, f.state), os.RemoveAll(dir))
	}
	return dir, nil
}

// link puts what the ledger in a folder names, and all keys, beside it.
func (f *Files) link(ctx context.Context, dir string) error {
	n, err := openNamed(ctx, filepath.Join(dir, ledgerFile))
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(f.state)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, top := range []string{botsDir, keysDir, outboxDir} {
		if err := root.Mkdir(path.Join(snapshotDir, top), 0o700); err != nil {
			return err
		}
	}
	for at := range n.items {
		if err := linkTree(ctx, root, at); err != nil {
			return err
		}
	}
	return linkKeys(ctx, root)
}

// linkKeys links the keys and passwords of all accounts.
func linkKeys(ctx context.Context, root *os.Root) error {
	names, err := fs.Glob(root.FS(), keysDir+"/*/*")
	for _, name := range names {
		if err == nil && spare(name) {
			err = linkTree(ctx, root, name)
		}
	}
	return err
}

// linkTree links a file, or all files of a folder. What is missing is left out.
func linkTree(ctx context.Context, root *os.Root, top string) error {
	if err := root.MkdirAll(path.Join(snapshotDir, path.Dir(top)), 0o700); err != nil {
		return err
	}
	return fs.WalkDir(root.FS(), top, func(name string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		to := path.Join(snapshotDir, name)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case e.IsDir():
			err = root.Mkdir(to, 0o700)
		case e.Type().IsRegular():
			err = root.Link(name, to)
		default:
			return fmt.Errorf("%s is neither a file nor a folder: somebody changed it", name)
		}
		if errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

// archive writes files and their checksums.
type archive struct {
	tar  *tar.Writer
	sums bytes.Buffer
}

func writeArchive(ctx context.Context, dir string, w io.Writer) error {
	zip, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	a := &archive{tar: tar.NewWriter(zip)}
	text, err := json.Marshal(head{version, time.Now().UTC()})
	if err != nil {
		return err
	}
	if err := a.bytes(headFile, text); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := a.file(root, ledgerFile); err != nil {
		return err
	}
	for _, top := range []string{botsDir, keysDir, outboxDir} {
		if err := a.tree(ctx, root, top); err != nil {
			return err
		}
	}
	sums := a.sums.Bytes()
	if err := a.put(sumsFile, int64(len(sums)), bytes.NewReader(sums)); err != nil {
		return err
	}
	return errors.Join(a.tar.Close(), zip.Close())
}

func (a *archive) tree(ctx context.Context, root *os.Root, top string) error {
	return fs.WalkDir(root.FS(), top, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if e.IsDir() {
			return a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o700, Format: tar.FormatPAX})
		}
		return a.file(root, name)
	})
}

func (a *archive) file(root *os.Root, name string) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return a.put(name, info.Size(), f)
}

func (a *archive) bytes(name string, data []byte) error {
	return a.put(name, int64(len(data)), bytes.NewReader(data))
}

func (a *archive) put(name string, size int64, r io.Reader) error {
	if err := a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, Format: tar.FormatPAX}); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(a.tar, sum), r); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(&a.sums, "%x  %s\n", sum.Sum(nil), name)
	return nil
}
