package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"mayfly/internal/bot"
)

// File is one file of a bundle.
type File struct {
	Path string // relative, with slashes
	Data []byte
}

const (
	maxBundleDepth = 16
	maxNameLength  = 255 // what Linux takes
)

// PutBundle stores a bundle's files under its digest (lower-case hexadecimal), durably and whole. The digest stands for
// the content: where it is there already, nothing is written.
func (s *Store) PutBundle(addr bot.Address, digest string, files []File) error {
	if err := s.putBundle(addr, digest, files); err != nil {
		return fmt.Errorf("storage: put bundle %.100q of %s: %w", digest, addr, hint(err))
	}
	return nil
}

func (s *Store) putBundle(addr bot.Address, digest string, files []File) error {
	if err := checkDigest(digest); err != nil {
		return err
	}
	dir, err := s.create(addr, bundles)
	if err != nil {
		return err
	}
	defer dir.Close()
	if _, err := dir.Stat(digest); err != nil {
		tmp := tmpName()
		err = writeBundle(dir, tmp, files)
		if err == nil {
			err = dir.Rename(tmp, digest)
		}
		if err != nil {
			return errors.Join(err, dir.RemoveAll(tmp))
		}
	}
	// Also where it is there: the call that has put it there may have failed here.
	return errors.Join(syncDir(dir, "."), s.syncParents(addr))
}

func writeBundle(dir *os.Root, tmp string, files []File) error {
	dirs := []string{tmp}
	if err := dir.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	for _, f := range files {
		if err := checkName(f.Path, maxBundleDepth, maxNameLength); err != nil {
			return err
		}
		name := path.Join(tmp, f.Path)
		if err := dir.MkdirAll(path.Dir(name), 0o700); err != nil {
			return err
		}
		err := write(dir, name, true, func(w *os.File) error { _, err := w.Write(f.Data); return err })
		if errors.Is(err, fs.ErrExist) {
			return refuse("%.100q is there twice", f.Path)
		}
		if err != nil {
			return err
		}
		for d := path.Dir(name); d != tmp && !slices.Contains(dirs, d); d = path.Dir(d) {
			dirs = append(dirs, d)
		}
	}
	for _, d := range dirs {
		if err := syncDir(dir, d); err != nil {
			return err
		}
	}
	return nil
}

func checkDigest(digest string) error {
	if len(digest) < 32 || len(digest) > 128 || strings.Trim(digest, "0123456789abcdef") != "" {
		return refuse("%.100q is not a digest in lower-case hexadecimal", digest)
	}
	return nil
}
