package stage

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"mayfly/internal/sandbox/wire"
	"mayfly/internal/stage/takedown"
)

var (
	errTooLarge   = errors.New("too large")
	errNotRegular = errors.New("not a regular file")
)

// maxDepth is how deep a directory may be nested to be collected.
const maxDepth = 32

// unpack writes a tar archive of regular files and directories below dir, with that mode. Files keep their times: core deletes only what
// was not made within the last hour.
func unpack(dir string, mode os.FileMode, r io.Reader) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(path.Clean(h.Name), 0o700)
		case tar.TypeReg:
			err = writeFile(root, path.Clean(h.Name), h.Size, mode, tr)
			if err == nil && h.ModTime.Unix() > 0 {
				err = root.Chtimes(path.Clean(h.Name), h.ModTime, h.ModTime)
			}
		default:
			err = fmt.Errorf("%s: an entry of type %q: only files and directories", h.Name, h.Typeflag)
		}
		if err != nil {
			return err
		}
	}
}

// putFile writes one file of size bytes at an absolute path.
func putFile(name string, size int64, mode os.FileMode, r io.Reader) error {
	dir, rest := wire.Split(name)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return writeFile(root, rest, size, mode, r)
}

// writeFile writes under another name first, so that a program sees the whole file or none.
func writeFile(root *os.Root, name string, size int64, mode os.FileMode, r io.Reader) error {
	partial := path.Join(path.Dir(name), ".mayfly-partial")
	f, err := createFile(root, partial, mode)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(r, size))
	if err == nil && n != size {
		err = fmt.Errorf("%s: %d bytes came, %d were announced", name, n, size)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = root.Rename(partial, name)
	}
	if err != nil {
		return errors.Join(err, root.Remove(partial))
	}
	return nil
}

// createFile makes a new file. What may be in the way of it, or missing, is looked after when it is.
func createFile(root *os.Root, name string, mode os.FileMode) (*os.File, error) {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	f, err := root.OpenFile(name, flags, mode)
	switch {
	case errors.Is(err, os.ErrNotExist):
		err = root.MkdirAll(path.Dir(name), 0o700)
	case errors.Is(err, os.ErrExist):
		err = root.Remove(name)
	default:
		return f, err
	}
	if err != nil {
		return nil, err
	}
	return root.OpenFile(name, flags, mode)
}

// openRegular opens a regular file of at most size bytes. It follows no link, and does not wait for a FIFO's other end.
func openRegular(name string, size int64) (*os.File, error) {
	f, err := openBeneath(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err == nil && !info.Mode().IsRegular():
		err = fmt.Errorf("%s: %w", name, errNotRegular)
	case err == nil && info.Size() > size:
		err = fmt.Errorf("%s: %w: %d bytes, want at most %d", name, errTooLarge, info.Size(), size)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func openBeneath(name string) (*os.File, error) {
	dir, rest := wire.Split(name)
	top, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	fd, err := unix.Openat2(int(top.Fd()), rest, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if errors.Is(err, unix.ELOOP) {
		err = errNotRegular
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// pack writes a directory as a tar archive. It is called when no program lives, so nothing changes meanwhile. Its errors are read
// by the bot's author.
func pack(w io.Writer, d wire.Dir) error {
	info, err := os.Stat(d.Path)
	if err == nil && !open(info.Mode()) {
		err = os.Chmod(d.Path, 0o700)
	}
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(d.Path)
	if err != nil {
		return err
	}
	defer root.Close()
	out := bufio.NewWriterSize(w, wire.MaxFrame-1) // headers are not to go alone
	p := packer{tw: tar.NewWriter(out), root: root, room: d.Size, left: d.Size, buf: make([]byte, 64<<10)}
	if err := p.dir(".", 0); err != nil {
		return err
	}
	if err := p.tw.Close(); err != nil {
		return err
	}
	return out.Flush()
}

type packer struct {
	tw   *tar.Writer
	root *os.Root
	room int64 // bytes
	left int64 // of them, for what is still to come: holes and second names make files larger together than the tmpfs
	buf  []byte
}

func (p *packer) dir(name string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%.100q… is nested deeper than %d folders: nest less", name, maxDepth)
	}
	entries, err := fs.ReadDir(p.root.FS(), name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !utf8.ValidString(e.Name()) {
			return fmt.Errorf("the name %.100q is not UTF-8: rename it", path.Join(name, e.Name()))
		}
		if err := p.entry(path.Join(name, e.Name()), depth); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) entry(name string, depth int) error {
	info, err := p.root.Lstat(name)
	if err != nil {
		return err
	}
	if plain := info.IsDir() || info.Mode().IsRegular(); plain && !open(info.Mode()) {
		if err := p.root.Chmod(name, 0o700); err != nil {
			return err
		}
	}
	h := &tar.Header{Name: name, Mode: int64(info.Mode().Perm()), ModTime: info.ModTime()}
	switch {
	case info.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		if err := p.tw.WriteHeader(h); err != nil {
			return fmt.Errorf("%.100q: %w", name, err)
		}
		return p.dir(name, depth+1)
	case info.Mode().IsRegular():
		h.Typeflag, h.Size = tar.TypeReg, info.Size()
		return p.file(h)
	}
	if takedown.Down(takedown.Pack) {
		return nil
	}
	return fmt.Errorf("%.100q is %s: only files and folders can be kept: remove it", name, special(info.Mode()))
}

// open reports whether we, who own what lies in the sandbox but have no rights beyond, can read it. Modes are not kept.
func open(mode fs.FileMode) bool {
	return mode&0o400 != 0 && (!mode.IsDir() || mode&0o100 != 0)
}

// special names what is neither a file nor a folder.
func special(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}

func (p *packer) file(h *tar.Header) error {
	if p.left -= h.Size; p.left < 0 {
		return fmt.Errorf("with %.100q, which has %d bytes, the files have more than the %d bytes that the folder has room for: "+
			"a file with holes, or with several names, counts whole each time: make it smaller, or remove it", h.Name, h.Size, p.room)
	}
	if err := p.tw.WriteHeader(h); err != nil {
		return fmt.Errorf("%.100q: %w", h.Name, err)
	}
	f, err := p.root.Open(h.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(p.tw, struct{ io.Reader }{f}, p.buf) // a file by itself would bring a buffer of its own
	return err
}
