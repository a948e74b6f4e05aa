package storage

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"mayfly/internal/bot"
)

// Export writes a generation to w as a tar stream: regular files and folders in lexical order, each folder before what is
// in it, modes 0600 and 0700, then the end-of-archive marker. Generation 0 is an empty archive.
func (s *Store) Export(addr bot.Address, kind Kind, gen bot.Generation, w io.Writer) error {
	if gen == 0 {
		return tar.NewWriter(w).Close()
	}
	if err := s.export(addr, string(kind), number(gen), w); err != nil {
		return fmt.Errorf("storage: export %s %d of %s: %w", kind, gen, addr, hint(err))
	}
	return nil
}

// ExportBundle writes a bundle to w as Export does.
func (s *Store) ExportBundle(addr bot.Address, digest string, w io.Writer) error {
	err := checkDigest(digest)
	if err == nil {
		err = s.export(addr, bundles, digest, w)
	}
	if err != nil {
		return fmt.Errorf("storage: export bundle %.100q of %s: %w", digest, addr, hint(err))
	}
	return nil
}

func (s *Store) export(addr bot.Address, kind, name string, w io.Writer) error {
	dir, err := s.create(addr, kind)
	if err != nil {
		return err
	}
	defer dir.Close()
	tree, err := openTree(dir, name)
	if err != nil {
		return err
	}
	defer tree.Close()
	const frame = 64<<10 - 1 // what a packet to the sandbox carries: headers are not to go alone
	out := bufio.NewWriterSize(w, frame)
	tw, buf := tar.NewWriter(out), make([]byte, 64<<10)
	err = fs.WalkDir(tree.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		return exportEntry(tw, tree, name, e, buf)
	})
	if err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return err
	}
	return out.Flush()
}

// openTree opens a generation or a bundle that must be there.
func openTree(dir *os.Root, name string) (*os.Root, error) {
	tree, err := dir.OpenRoot(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s/%s: restore it from the backup that the ledger is of, or install the bot again",
			ErrMissing, dir.Name(), name)
	}
	return tree, err
}

func exportEntry(tw *tar.Writer, tree *os.Root, name string, e fs.DirEntry, buf []byte) error {
	info, err := e.Info()
	if err != nil {
		return err
	}
	if e.IsDir() {
		return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o700, ModTime: info.ModTime()})
	}
	if !e.Type().IsRegular() {
		return fmt.Errorf("%s/%s is neither file nor folder: somebody changed a generation", tree.Name(), name)
	}
	f, err := tree.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: info.Size(), ModTime: info.ModTime()}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.CopyBuffer(tw, struct{ io.Reader }{f}, buf) // a file by itself would bring a buffer of its own
	return err
}
