package storage

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"mayfly/internal/bot"
)

// Rules bound what Import takes. A zero allows nothing.
type Rules struct {
	Files  int   // regular files and folders together
	Depth  int   // parts of a name: 1 allows no folder that holds something
	Name   int   // bytes of one part of a name
	Bytes  int64 // of all files together, as announced
	File   int64 // bytes of one file
	Change int64 // bytes of all files that are new or differ from the base: what has to be written
}

// Stats says what a new generation is made of.
type Stats struct {
	Files        int   // regular files
	Changed      int   // files that are new or differ
	Removed      int   // files of the base that are gone
	Bytes        int64 // of all files
	ChangedBytes int64 // of the changed files, whole
}

// Import reads a hostile tar stream into a new generation of a bot's kind, based on an older one (0: on nothing), and returns
// its number when it is durable; the ledger has still to name it. A stream that equals the base makes no new generation:
// base is returned. After an error, or when ctx ends, nothing is left on disk; input that breaks the rules gives an error
// that wraps ErrRefused. A Read of r that hangs is ended by whoever owns r. Nothing behind the end of the archive is read.
func (s *Store) Import(ctx context.Context, addr bot.Address, kind Kind, base bot.Generation, r io.Reader, rules Rules) (bot.Generation, Stats, error) {
	dir, err := s.create(addr, string(kind))
	if err != nil {
		return 0, Stats{}, fmt.Errorf("storage: import %s of %s: %w", kind, addr, hint(err))
	}
	defer dir.Close()
	im := &importer{dir: dir, tmp: tmpName(), base: number(base), rules: rules, entries: map[string]entry{}}
	gen, err := s.importTree(ctx, im, base, r)
	if err != nil {
		err = errors.Join(err, dir.RemoveAll(im.tmp))
		return 0, Stats{}, fmt.Errorf("storage: import %s of %s: %w", kind, addr, hint(err))
	}
	return gen, im.stats, nil
}

func (s *Store) importTree(ctx context.Context, im *importer, base bot.Generation, r io.Reader) (bot.Generation, error) {
	if err := im.readBase(base); err != nil {
		return 0, err
	}
	if err := im.readStream(ctx, r); err != nil {
		return 0, err
	}
	if im.same() {
		return base, nil
	}
	if err := im.finish(ctx); err != nil {
		return 0, err
	}
	return s.publish(im.dir, im.tmp, base)
}

// importer builds one generation in tmp. Nothing is written before the first difference.
type importer struct {
	dir     *os.Root // of the bot's kind
	tmp     string
	base    string
	rules   Rules
	old     map[string]int64 // the base: size of each file, or isFolder
	entries map[string]entry
	order   []string // of the entries in the stream: folders before what is in them
	stats   Stats
}

type entry struct {
	folder bool
	linked bool // the same as in the base
}

const isFolder = -1

func (im *importer) readBase(base bot.Generation) error {
	im.old = map[string]int64{}
	if base == 0 {
		return nil
	}
	tree, err := openTree(im.dir, im.base)
	if err != nil {
		return err
	}
	defer tree.Close()
	return fs.WalkDir(tree.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		im.old[name] = info.Size()
		if e.IsDir() {
			im.old[name] = isFolder
		}
		return nil
	})
}

func (im *importer) readStream(ctx context.Context, r io.Reader) error {
	in := &source{ctx: ctx, r: r, left: im.rules.streamBytes()}
	tr := tar.NewReader(in)
	for {
		h, err := tr.Next()
		if err == io.EOF && in.ended {
			return fmt.Errorf("%w: the stream ended before the end of the archive", ErrRefused)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return refuse(err)
		}
		if err := im.take(h, tr); err != nil {
			return refuse(err)
		}
	}
}

// refuse marks what the tar reader has against a stream.
func refuse(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
}

func (im *importer) take(h *tar.Header, r io.Reader) error {
	name, folder := h.Name, h.Typeflag == tar.TypeDir
	if folder {
		name = strings.TrimSuffix(name, "/")
	}
	if err := im.check(h, name); err != nil {
		return err
	}
	im.order = append(im.order, name)
	if folder {
		im.entries[name] = entry{folder: true}
		return nil
	}
	im.stats.Files++
	im.stats.Bytes += h.Size
	linked, err := im.takeFile(name, h.Size, r)
	im.entries[name] = entry{linked: linked}
	return err
}

// check says why an entry may not come in.
func (im *importer) check(h *tar.Header, name string) error {
	if h.Typeflag != tar.TypeDir && h.Typeflag != tar.TypeReg {
		return fmt.Errorf("%w: %.100q has type %q: only regular files and folders may come in", ErrRefused, h.Name, h.Typeflag)
	}
	if key, ok := foreignRecord(h); ok {
		return fmt.Errorf("%w: %.100q has the extended attribute %.100q", ErrRefused, name, key)
	}
	if err := checkName(name, im.rules.Depth, im.rules.Name); err != nil {
		return err
	}
	if _, twice := im.entries[name]; twice {
		return fmt.Errorf("%w: %.100q is there twice", ErrRefused, name)
	}
	if parent := path.Dir(name); parent != "." && !im.entries[parent].folder {
		return fmt.Errorf("%w: %.100q comes before its folder", ErrRefused, name)
	}
	if len(im.order) >= im.rules.Files {
		return fmt.Errorf("%w: more than %d files and folders", ErrRefused, im.rules.Files)
	}
	if h.Size < 0 || h.Size > im.rules.File {
		return fmt.Errorf("%w: %.100q has %d bytes, a file may have %d", ErrRefused, name, h.Size, im.rules.File)
	}
	if h.Size > im.rules.Bytes-im.stats.Bytes {
		return fmt.Errorf("%w: with %.100q there are more than %d bytes", ErrRefused, name, im.rules.Bytes)
	}
	return nil
}

// foreignRecord finds a PAX record that is neither a name, a size, nor one of those that do not count. Among the others
// are GNU's sparse maps, which announce one size and unpack to another.
func foreignRecord(h *tar.Header) (string, bool) {
	harmless := []string{"path", "size", "mtime", "atime", "ctime", "uid", "gid", "uname", "gname"}
	for key := range h.PAXRecords {
		if !slices.Contains(harmless, key) {
			return key, true
		}
	}
	return "", false
}

// takeFile compares a file with the one of the base, and begins to write where they differ.
func (im *importer) takeFile(name string, size int64, r io.Reader) (linked bool, err error) {
	var same int64
	var rest []byte
	if old, ok := im.old[name]; ok && old == size {
		f, err := im.dir.Open(path.Join(im.base, name))
		if err != nil {
			return false, err
		}
		defer f.Close()
		if same, rest, err = compare(f, r, size); err != nil {
			return false, err
		}
		if same == size {
			return true, nil
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return false, err
		}
		r = io.MultiReader(io.LimitReader(f, same), bytes.NewReader(rest), r)
	}
	im.stats.Changed++
	im.stats.ChangedBytes += size
	if im.stats.ChangedBytes > im.rules.Change {
		return false, fmt.Errorf("%w: with %.100q more than %d bytes have changed", ErrRefused, name, im.rules.Change)
	}
	return false, im.writeFile(name, size, r)
}

func (im *importer) writeFile(name string, size int64, r io.Reader) error {
	name = path.Join(im.tmp, name)
	if err := im.dir.MkdirAll(path.Dir(name), 0o700); err != nil {
		return err
	}
	return write(im.dir, name, func(f *os.File) error {
		n, err := io.Copy(f, r)
		if err == nil && n != size {
			err = fmt.Errorf("%w: %.100q has %d bytes, announced were %d", ErrRefused, name, n, size)
		}
		return err
	})
}

// compare reads both, which have size bytes, as far as they are equal. It returns how far, and the bytes that it has read of
// b beyond.
func compare(a, b io.Reader, size int64) (same int64, rest []byte, err error) {
	x, y := make([]byte, 32<<10), make([]byte, 32<<10)
	for same < size {
		n := min(size-same, int64(len(y)))
		if _, err := io.ReadFull(b, y[:n]); err != nil {
			return same, nil, err
		}
		if _, err := io.ReadFull(a, x[:n]); err != nil {
			return same, nil, err
		}
		if !bytes.Equal(x[:n], y[:n]) {
			return same, y[:n], nil
		}
		same += n
	}
	return same, nil, nil
}

// same reports whether the stream was the base, and counts what it lacks.
func (im *importer) same() bool {
	folders := true
	for name, size := range im.old {
		e, there := im.entries[name]
		if size != isFolder && (!there || e.folder) {
			im.stats.Removed++
		}
		folders = folders && (size != isFolder || there && e.folder)
	}
	return folders && im.stats.Changed == 0 && im.stats.Removed == 0 && len(im.entries) == len(im.old)
}

// finish makes the folders and the links, and all of it durable.
func (im *importer) finish(ctx context.Context) error {
	if err := im.dir.MkdirAll(im.tmp, 0o700); err != nil {
		return err
	}
	folders := []string{im.tmp}
	for _, name := range im.order {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, to := im.entries[name], path.Join(im.tmp, name)
		var err error
		switch {
		case e.folder:
			folders = append(folders, to)
			err = im.dir.MkdirAll(to, 0o700)
		case e.linked:
			err = im.dir.Link(path.Join(im.base, name), to)
		}
		if err != nil {
			return err
		}
	}
	for _, folder := range folders {
		if err := syncDir(im.dir, folder); err != nil {
			return err
		}
	}
	return nil
}

// streamBytes is how long a stream within the rules can be: content and padding, headers, and PAX records with a name.
func (r Rules) streamBytes() int64 {
	name := int64(r.Depth) * int64(r.Name+1)
	return r.Bytes + (int64(r.Files)+1)*(8<<10+2*name)
}

// source is the stream: bounded, ended by ctx, and aware of whether it was read to its end.
type source struct {
	ctx   context.Context
	r     io.Reader
	left  int64
	ended bool
}

func (s *source) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	if s.left <= 0 {
		return 0, fmt.Errorf("%w: the stream is longer than the rules allow", ErrRefused)
	}
	n, err := s.r.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	if n > 0 && err == io.EOF {
		return n, nil
	}
	s.ended = s.ended || err == io.EOF
	return n, err
}
