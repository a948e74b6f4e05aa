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
	"time"

	"mayfly/internal/bot"
)

// Import reads a hostile tar stream into a new generation of a bot's kind, based on an older one (0: on nothing), and returns
// its number when it is durable; the ledger has still to name it. A stream that equals the base makes no new generation:
// base is returned. After an error, or when ctx ends, nothing is left on disk; input that breaks the rules gives an error
// that wraps ErrRefused, and a pace that leaves no time until ctx's deadline one that wraps context.DeadlineExceeded: Explain
// has their words for an author. A Read of r that hangs is ended by whoever owns r. Nothing behind the end of the archive
// is read.
func (s *Store) Import(ctx context.Context, addr bot.Address, kind Kind, base bot.Generation, r io.Reader, rules Rules) (bot.Generation, Stats, error) {
	dir, err := s.create(addr, string(kind))
	if err != nil {
		return 0, Stats{}, fmt.Errorf("storage: import %s of %s: %w", kind, addr, hint(err))
	}
	defer dir.Close()
	im := newImporter(ctx, dir, addr, base, rules)
	gen, err := s.importTree(ctx, im, addr, base, r)
	im.closeFiles()
	if err != nil {
		err = errors.Join(err, dir.RemoveAll(im.tmp))
		return 0, Stats{}, fmt.Errorf("storage: import %s of %s: %w", kind, addr, hint(err))
	}
	return gen, im.stats, nil
}

func (s *Store) importTree(ctx context.Context, im *importer, addr bot.Address, base bot.Generation, r io.Reader) (bot.Generation, error) {
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
	gen, err := s.publish(im.dir, im.tmp, base)
	if err == nil && base == 0 {
		err = s.syncParents(addr)
	}
	return gen, err
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

	tree    *os.Root // the base
	x, y    []byte   // for compare
	pace    func(bytes, operations int) error
	folders map[string]bool // those of the new generation that are made
	batch   bool            // files have been written that are not durable yet
	remade  int
}

type entry struct {
	folder bool
	linked bool // the same as in the base
}

// moment is how long Import may wait for its pace before it tells Rules.Slow.
const moment = 200 * time.Millisecond

func newImporter(ctx context.Context, dir *os.Root, addr bot.Address, base bot.Generation, rules Rules) *importer {
	im := &importer{dir: dir, tmp: tmpName(), base: number(base), rules: rules, entries: map[string]entry{}, folders: map[string]bool{}}
	var waited time.Duration
	im.pace = func(bytes, operations int) error {
		began := time.Now()
		err := rules.Pacer.wait(ctx, addr, bytes, operations)
		if waited += time.Since(began); waited > moment && im.rules.Slow != nil {
			im.rules.Slow()
			im.rules.Slow = nil
		}
		return err
	}
	return im
}

const isFolder = -1

func (im *importer) readBase(base bot.Generation) error {
	im.old = map[string]int64{}
	if base == 0 {
		return nil
	}
	var err error
	if im.tree, err = openTree(im.dir, im.base); err != nil {
		return err
	}
	return fs.WalkDir(im.tree.FS(), ".", func(name string, e fs.DirEntry, err error) error {
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
			return refuse("the stream ended before the end of the archive")
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return broken(err)
		}
		if err := im.take(h, tr); err != nil {
			return broken(err)
		}
	}
}

// broken marks what the tar reader has against a stream.
func broken(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) || errors.Is(err, io.ErrUnexpectedEOF) {
		return refuse("the stream is no tar archive of regular files and folders: %w", err)
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
		return refuse("%.100q has type %q: only regular files and folders may come in", h.Name, h.Typeflag)
	}
	if key, ok := foreignRecord(h); ok {
		return refuse("%.100q has the extended attribute %.100q: store what it says in a file", name, key)
	}
	if err := checkName(name, im.rules.Depth, im.rules.Name); err != nil {
		return err
	}
	if _, twice := im.entries[name]; twice {
		return refuse("%.100q is there twice", name)
	}
	if parent := path.Dir(name); parent != "." && !im.entries[parent].folder {
		return refuse("%.100q comes before its folder", name)
	}
	return im.checkSize(name, h.Size)
}

// checkSize says why an entry is too many or too large.
func (im *importer) checkSize(name string, size int64) error {
	if len(im.order) >= im.rules.Files {
		return refuse("with %.100q there are more than %d files and folders: delete some, or store several things in one file", name, im.rules.Files)
	}
	if size < 0 || size > im.rules.File {
		return refuse("%.100q has %s, a file may have %s: store less in it", name, bot.RoundSize(size), bot.FormatSize(im.rules.File))
	}
	if size > im.rules.Bytes-im.stats.Bytes {
		return refuse("with %.100q, which has %s, there are more than %s in all: delete some files", name, bot.RoundSize(size), bot.FormatSize(im.rules.Bytes))
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
		f, err := im.tree.Open(name)
		if err != nil {
			return false, err
		}
		defer f.Close()
		if same, rest, err = im.compare(f, r, size); err != nil {
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
		return false, refuse("with %.100q, which has %s, more than %s have changed in this run: change less at a time; a file that changed counts whole",
			name, bot.RoundSize(size), bot.FormatSize(im.rules.Change))
	}
	return false, im.writeFile(name, size, r)
}

// few is up to how many files or folders are made durable one by one. Each takes a flush of the disk's cache: a thousand files of
// 20 kB take 4,000 writes and 1,000 flushes so, and by one syncfs 26 and 1. But syncfs waits for everybody's files, too.
const few = 16

func (im *importer) writeFile(name string, size int64, r io.Reader) error {
	if err := im.pace(0, 1); err != nil {
		return err
	}
	name = path.Join(im.tmp, name)
	if err := im.makeFolders(path.Dir(name)); err != nil {
		return err
	}
	im.batch = im.batch || im.stats.Changed > few && canSyncAll(im.dir)
	return write(im.dir, name, !im.batch, func(f *os.File) error {
		n, err := io.Copy(paced{f, im.pace}, r)
		if err == nil && n != size {
			err = refuse("%.100q has %d bytes, announced were %d", name, n, size)
		}
		return err
	})
}

// paced is a file to which is written as fast as the pace allows.
type paced struct {
	f    *os.File
	pace func(bytes, operations int) error
}

// Write implements io.Writer.
func (p paced) Write(b []byte) (int, error) {
	if err := p.pace(len(b), 0); err != nil {
		return 0, err
	}
	return p.f.Write(b)
}

func (im *importer) makeFolders(name string) error {
	if im.folders[name] {
		return nil
	}
	if err := im.dir.MkdirAll(name, 0o700); err != nil {
		return err
	}
	for ; name != "."; name = path.Dir(name) {
		im.folders[name] = true
	}
	return nil
}

// compare reads both, which have size bytes, as far as they are equal. It returns how far, and the bytes that it has read of
// b beyond.
func (im *importer) compare(a, b io.Reader, size int64) (same int64, rest []byte, err error) {
	if im.x == nil {
		im.x, im.y = make([]byte, 64<<10), make([]byte, 64<<10)
	}
	x, y := im.x, im.y
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
	for name, size := range im.old {
		e, there := im.entries[name]
		if size != isFolder && (!there || e.folder) {
			im.stats.Removed++
		}
		if size == isFolder && !(there && e.folder) {
			im.stats.Folders++
		}
	}
	for name, e := range im.entries {
		if size, was := im.old[name]; e.folder && !(was && size == isFolder) {
			im.stats.Folders++
		}
	}
	return im.stats.Changed == 0 && im.stats.Removed == 0 && im.stats.Folders == 0
}

// finish makes the folders and the links, and all of it durable.
func (im *importer) finish(ctx context.Context) error {
	if err := im.makeFolders(im.tmp); err != nil {
		return err
	}
	for _, name := range im.order {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, to := im.entries[name], path.Join(im.tmp, name)
		var err error
		switch {
		case e.folder:
			err = errors.Join(im.remake(), im.makeFolders(to))
		case e.linked:
			err = errors.Join(im.remake(), im.dir.Link(path.Join(im.base, name), to))
		}
		if err != nil {
			return err
		}
	}
	return im.syncFolders()
}

// remake paces links and folders. They go to the disk many together: 10,000 links took 66 writes and 300 kB.
func (im *importer) remake() error {
	const together = 64
	if im.remade++; im.remade%together != 0 {
		return nil
	}
	return im.pace(0, 1)
}

// syncFolders makes the folders durable, and the files that are not yet.
func (im *importer) syncFolders() error {
	if im.batch || len(im.folders) > few && canSyncAll(im.dir) {
		return errors.Join(im.pace(0, 1), syncAll(im.dir, im.tmp))
	}
	for folder := range im.folders {
		if err := errors.Join(im.pace(0, 1), syncDir(im.dir, folder)); err != nil {
			return err
		}
	}
	return nil
}

func (im *importer) closeFiles() {
	if im.tree != nil {
		im.tree.Close()
	}
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
		return 0, refuse("the stream is longer than the rules allow: delete some files")
	}
	n, err := s.r.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	if n > 0 && err == io.EOF {
		return n, nil
	}
	s.ended = s.ended || err == io.EOF
	return n, err
}
