package storage

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"mayfly/internal/bot"
)

const dice = bot.Address("dice@relay.example")

func generous() Rules {
	return Rules{Files: 100, Depth: 8, Name: 64, Bytes: 4 << 20, File: 2 << 20, Change: 3 << 20}
}

func openStore(t *testing.T, root string) *Store {
	t.Helper()
	s, err := Open(root)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tree maps names to contents; a name with a trailing slash is a folder.
type tree map[string]string

// pack makes a stream of a tree; the folders that lead to a file need not be named.
func pack(t testing.TB, files tree) []byte {
	all := maps.Clone(files)
	for name := range files {
		for i, c := range strings.TrimSuffix(name, "/") {
			if c == '/' {
				all[name[:i+1]] = ""
			}
		}
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		add(t, w, &tar.Header{Name: name, Mode: 0o4777, Size: int64(len(all[name])), Uid: 7}, all[name])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func add(t testing.TB, w *tar.Writer, h *tar.Header, data string) {
	t.Helper()
	if err := w.WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, data); err != nil {
		t.Fatal(err)
	}
}

func unpack(t *testing.T, r io.Reader) tree {
	t.Helper()
	got := tree{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return got
		}
		must(t, err)
		data, err := io.ReadAll(tr)
		must(t, err)
		got[h.Name] = string(data)
	}
}

func load(t *testing.T, s *Store, base bot.Generation, files tree) (bot.Generation, Stats) {
	t.Helper()
	gen, stats, err := s.Import(t.Context(), dice, Folder, base, bytes.NewReader(pack(t, files)), generous())
	must(t, err)
	return gen, stats
}

func content(t *testing.T, s *Store, gen bot.Generation) tree {
	t.Helper()
	var b bytes.Buffer
	must(t, s.Export(dice, Folder, gen, &b))
	return unpack(t, &b)
}

func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.root.Name(), string(dice), "folder"}, parts...)...)
}

// onDisk lists the generations and leftovers of the folder kind.
func onDisk(t *testing.T, s *Store) []string {
	t.Helper()
	entries, err := os.ReadDir(s.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestGenerationsRoundTrip(t *testing.T) {
	s := openStore(t, t.TempDir())
	big := strings.Repeat("0123456789abcdef", 10<<10)
	first := tree{"a": "one", "dir/": "", "dir/b ü\\": big, "empty/": "", "zero": ""}
	gen, stats := load(t, s, 0, first)
	if gen != 1 || stats != (Stats{Files: 3, Changed: 3, Folders: 2, Bytes: int64(len(big)) + 3, ChangedBytes: int64(len(big)) + 3}) {
		t.Errorf("generation %d, %+v", gen, stats)
	}
	if got := content(t, s, gen); !maps.Equal(got, first) {
		t.Errorf("got %v", got)
	}
	err := filepath.WalkDir(s.root.Name(), func(path string, d fs.DirEntry, err error) error {
		must(t, err)
		info, err := d.Info()
		must(t, err)
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if path != s.root.Name() && (info.Mode().Perm() != want || info.Mode()&fs.ModeSetuid != 0) {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	must(t, err)
}

func TestGenerationZeroIsAnEmptyArchive(t *testing.T) {
	s := openStore(t, t.TempDir())
	if got := content(t, s, 0); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	if gen, _ := load(t, s, 0, tree{}); gen != 0 {
		t.Errorf("nothing on nothing is generation %d", gen)
	}
}

func TestNoChangeIsNoGeneration(t *testing.T) {
	s := openStore(t, t.TempDir())
	files := tree{"a": "one", "dir/b": strings.Repeat("x", 100<<10), "empty/": ""}
	gen, _ := load(t, s, 0, files)
	again, stats := load(t, s, gen, files)
	if again != gen || stats.Changed != 0 || stats.ChangedBytes != 0 || stats.Files != 2 {
		t.Errorf("generation %d, %+v", again, stats)
	}
	if names := onDisk(t, s); !slices.Equal(names, []string{"1"}) {
		t.Errorf("on disk %v", names)
	}
}

func TestEveryChangeIsSeenAndLeavesTheBaseAlone(t *testing.T) {
	long := strings.Repeat("x", 100<<10)
	base := tree{"a": "one", "dir/": "", "dir/b": long, "empty/": ""}
	for name, c := range map[string]struct {
		change func(tree)
		want   Stats
	}{
		"same size":           {func(f tree) { f["a"] = "two" }, Stats{Changed: 1, ChangedBytes: 3}},
		"last byte":           {func(f tree) { f["dir/b"] = long[1:] + "y" }, Stats{Changed: 1, ChangedBytes: 100 << 10}},
		"first byte":          {func(f tree) { f["dir/b"] = "y" + long[1:] }, Stats{Changed: 1, ChangedBytes: 100 << 10}},
		"longer":              {func(f tree) { f["a"] = "one more" }, Stats{Changed: 1, ChangedBytes: 8}},
		"shorter":             {func(f tree) { f["a"] = "" }, Stats{Changed: 1}},
		"new file":            {func(f tree) { f["c"] = "new" }, Stats{Changed: 1, ChangedBytes: 3}},
		"gone file":           {func(f tree) { delete(f, "a") }, Stats{Removed: 1}},
		"new folder":          {func(f tree) { f["new/"] = "" }, Stats{}},
		"gone folder":         {func(f tree) { delete(f, "empty/") }, Stats{}},
		"file becomes folder": {func(f tree) { delete(f, "a"); f["a/"] = "" }, Stats{Removed: 1}},
		"folder becomes file": {func(f tree) { delete(f, "empty/"); f["empty"] = "" }, Stats{Changed: 1}},
		"everything gone":     {func(f tree) { clear(f) }, Stats{Removed: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, t.TempDir())
			gen, _ := load(t, s, 0, base)
			changed := maps.Clone(base)
			c.change(changed)
			next, stats := load(t, s, gen, changed)
			if next != 2 || stats.Changed != c.want.Changed || stats.ChangedBytes != c.want.ChangedBytes || stats.Removed != c.want.Removed {
				t.Errorf("generation %d, %+v", next, stats)
			}
			if got := content(t, s, next); !maps.Equal(got, changed) {
				t.Errorf("the new generation has %v", slices.Sorted(maps.Keys(got)))
			}
			if got := content(t, s, gen); !maps.Equal(got, base) {
				t.Errorf("the base changed")
			}
		})
	}
}

func TestUnchangedFilesAreShared(t *testing.T) {
	s := openStore(t, t.TempDir())
	first, _ := load(t, s, 0, tree{"same": "x", "other": "y"})
	second, _ := load(t, s, first, tree{"same": "x", "other": "z"})
	if a, b := inode(t, s.path(number(first), "same")), inode(t, s.path(number(second), "same")); a != b {
		t.Errorf("an unchanged file is a copy: inodes %d and %d", a, b)
	}
	if a, b := inode(t, s.path(number(first), "other")), inode(t, s.path(number(second), "other")); a == b {
		t.Error("a changed file is shared with its base")
	}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	return info.Sys().(*syscall.Stat_t).Ino
}

func TestNumbersAreAboveAllOnDisk(t *testing.T) {
	s := openStore(t, t.TempDir())
	first, _ := load(t, s, 0, tree{"a": "1"})
	orphan, _ := load(t, s, first, tree{"a": "2"}) // as if the ledger's commit never came
	next, _ := load(t, s, first, tree{"a": "3"})
	if orphan != 2 || next != 3 {
		t.Errorf("orphan %d, next %d", orphan, next)
	}
	high, _, err := s.Import(t.Context(), dice, Account, 0, bytes.NewReader(pack(t, tree{"a": "1"})), generous())
	if err != nil || high != 1 {
		t.Errorf("the kinds share numbers: %d, %v", high, err)
	}
	_, _, err = s.Import(t.Context(), dice, Folder, 9, bytes.NewReader(pack(t, tree{"a": "1"})), generous())
	if !errors.Is(err, ErrMissing) {
		t.Errorf("a base that is not there: %v", err)
	}
	if err := s.Export(dice, Folder, 9, io.Discard); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "restore it") {
		t.Errorf("a generation that is not there: %v", err)
	}
}

// hostile streams, and what the error says.
func hostile(t testing.TB) map[string]struct {
	stream []byte
	says   string
} {
	one := func(h *tar.Header, data string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		add(t, w, &tar.Header{Name: "good", Size: 4}, "good")
		add(t, w, h, data)
		w.Close()
		return b.Bytes()
	}
	reg := func(name string) []byte { return one(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 1}, "x") }
	typed := func(flag byte) []byte { return one(&tar.Header{Typeflag: flag, Name: "x", Linkname: "good"}, "") }
	whole := pack(t, tree{"a": "one", "b": strings.Repeat("y", 3000)})
	return map[string]struct {
		stream []byte
		says   string
	}{
		"parent":            {reg("../x"), "not a clean"},
		"parent inside":     {reg("good/../../x"), "not a clean"},
		"absolute":          {reg("/etc/passwd"), "not a clean"},
		"dot":               {reg("."), "not a clean"},
		"dot slash":         {reg("./x"), "not a clean"},
		"double slash":      {reg("a//b"), "not a clean"},
		"not UTF-8":         {rename(whole, "a", "\xff"), "not a clean"},
		"control character": {reg("a\nb"), "control character"},
		"file with a slash": {rename(whole, "a", "a/"), "not a clean"},
		"empty name":        {rename(whole, "a", "\x00"), "not a clean"},
		"twice":             {reg("good"), "there twice"},
		"folder is a file":  {reg("good/x"), "comes before its folder"},
		"folder too late":   {reg("later/x"), "comes before its folder"},
		"symlink":           {typed(tar.TypeSymlink), "only regular files"},
		"hard link":         {typed(tar.TypeLink), "only regular files"},
		"device":            {typed(tar.TypeChar), "only regular files"},
		"block device":      {typed(tar.TypeBlock), "only regular files"},
		"fifo":              {typed(tar.TypeFifo), "only regular files"},
		"global header":     {one(&tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "x", PAXRecords: map[string]string{"path": "y"}}, ""), "only regular files"},
		"contiguous":        {retype(whole, '7'), "only regular files"},
		"GNU sparse":        {retype(whole, 'S'), ""},
		"PAX sparse": {raw(paxRecord("GNU.sparse.major", "1")+paxRecord("GNU.sparse.minor", "0")+paxRecord("GNU.sparse.name", "s")+
			paxRecord("GNU.sparse.realsize", "1000000"), "1\n0\n0\n"+strings.Repeat("\x00", 506)), "extended attribute"},
		"extended attribute": {one(&tar.Header{Name: "x", PAXRecords: map[string]string{"SCHILY.xattr.user.overlay.opaque": "y"}}, ""), "extended attribute"},
		"1 TB announced":     {announced(1 << 40), "a file may have"},
		"too deep":           {pack(t, tree{strings.Repeat("d/", 8) + "x": ""}), "folders deep"},
		"name too long":      {reg(strings.Repeat("n", 65)), "longer than 64"},
		"huge name":          {reg(strings.Repeat("n", 900<<10)), ""},
		"too big a file":     {pack(t, tree{"x": strings.Repeat("x", 2<<20+1)}), "a file may have"},
		"too many bytes":     {pack(t, tree{"x": strings.Repeat("x", 2<<20), "y": strings.Repeat("y", 2<<20), "z": "z"}), "more than"},
		"too many changes":   {pack(t, tree{"x": strings.Repeat("x", 2<<20), "y": strings.Repeat("y", 2<<20)}), "have changed"},
		"too many files":     {pack(t, many(101)), "more than 100 files"},
		"too many folders":   {pack(t, manyFolders(101)), "more than 100 files"},
		"nothing":            {nil, "ended before the end"},
		"cut in a header":    {whole[:300], ""},
		"cut after a header": {whole[:512], ""},
		"cut in content":     {whole[:1700], ""},
		"cut between files":  {whole[:1024], "ended before the end"},
		"half an end":        {whole[:len(whole)-512], "ended before the end"},
		"no tar":             {bytes.Repeat([]byte("no tar at all. "), 100), ""},
	}
}

func many(n int) tree {
	files := tree{}
	for i := range n {
		files[fmt.Sprint(i)] = ""
	}
	return files
}

func manyFolders(n int) tree {
	files := tree{}
	for i := range n {
		files[fmt.Sprint(i, "/")] = ""
	}
	return files
}

// rename writes another name into the header of a file; retype another type. Go's writer would refuse both.
func rename(stream []byte, old, name string) []byte {
	return header(stream, old, func(h []byte) { clear(h[:100]); copy(h, name) })
}

func retype(stream []byte, flag byte) []byte {
	return header(stream, "a", func(h []byte) { h[156] = flag })
}

func header(stream []byte, name string, change func([]byte)) []byte {
	stream = slices.Clone(stream)
	at := bytes.Index(stream, []byte(name+"\x00"))
	h := stream[at : at+512]
	change(h)
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return stream
}

func paxRecord(key, value string) string {
	for n := len(key) + len(value) + 3; ; n++ {
		if s := fmt.Sprintf("%d %s=%s\n", n, key, value); len(s) == n {
			return s
		}
	}
}

// raw is a stream with PAX records that Go's writer would not write, before a file.
func raw(records, data string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: "a", Size: int64(len(records)), Format: tar.FormatUSTAR})
	io.WriteString(w, records)
	w.WriteHeader(&tar.Header{Name: "file", Size: int64(len(data)), Format: tar.FormatUSTAR})
	io.WriteString(w, data)
	w.Close()
	return retype(b.Bytes(), 'x')
}

// announced is a header for so many bytes that are not there.
func announced(size int64) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: "x", Size: size})
	w.Flush()
	return b.Bytes()
}

func TestImportRefuses(t *testing.T) {
	for name, c := range hostile(t) {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, t.TempDir())
			base, _ := load(t, s, 0, tree{"good": "good", "kept": "x"})
			_, _, err := s.Import(t.Context(), dice, Folder, base, bytes.NewReader(c.stream), generous())
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want one that says %q", err, c.says)
			}
			if err != nil && len(err.Error()) > 500 {
				t.Errorf("an error of %d bytes: %.100s", len(err.Error()), err)
			}
			if names := onDisk(t, s); !slices.Equal(names, []string{"1"}) {
				t.Errorf("left on disk: %v", names)
			}
			if got := content(t, s, base); !maps.Equal(got, tree{"good": "good", "kept": "x"}) {
				t.Errorf("the base changed: %v", got)
			}
		})
	}
}

func TestZeroRulesAllowNothing(t *testing.T) {
	s := openStore(t, t.TempDir())
	for name, change := range map[string]func(*Rules){
		"files": func(r *Rules) { r.Files = 0 }, "depth": func(r *Rules) { r.Depth = 0 }, "name": func(r *Rules) { r.Name = 0 },
		"bytes": func(r *Rules) { r.Bytes = 0 }, "file": func(r *Rules) { r.File = 0 }, "change": func(r *Rules) { r.Change = 0 },
	} {
		rules := generous()
		change(&rules)
		_, _, err := s.Import(t.Context(), dice, Folder, 0, bytes.NewReader(pack(t, tree{"a": "x"})), rules)
		if !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Only what differs counts as change: a large folder may stay large.
func TestUnchangedBytesAreNotChange(t *testing.T) {
	s := openStore(t, t.TempDir())
	rules := generous()
	files := tree{"big": strings.Repeat("x", 2<<20), "small": "1"}
	base, _ := load(t, s, 0, files)
	rules.Change = 1
	files["small"] = "2"
	if _, _, err := s.Import(t.Context(), dice, Folder, base, bytes.NewReader(pack(t, files)), rules); err != nil {
		t.Error(err)
	}
	files["small"] = "22"
	if _, _, err := s.Import(t.Context(), dice, Folder, base, bytes.NewReader(pack(t, files)), rules); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
}

// endless sends PAX records for ever: no content, and no end.
type endless struct{ block []byte }

func (e endless) Read(p []byte) (int, error) { return copy(p, e.block), nil }

func TestStreamIsBounded(t *testing.T) {
	s := openStore(t, t.TempDir())
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: "a", Format: tar.FormatUSTAR})
	w.Flush()
	_, _, err := s.Import(t.Context(), dice, Folder, 0, endless{retype(b.Bytes(), 'x')[:512]}, generous())
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "longer than") {
		t.Error(err)
	}
}

// cancelling ends ctx in the middle of the stream.
type cancelling struct {
	r      io.Reader
	after  int
	cancel func()
}

func (c *cancelling) Read(p []byte) (int, error) {
	if c.after -= len(p); c.after < 0 {
		c.cancel()
	}
	return c.r.Read(p)
}

func TestCancelledImportLeavesNothing(t *testing.T) {
	s := openStore(t, t.TempDir())
	stream := pack(t, tree{"a/b": strings.Repeat("x", 1<<20), "c": "y"})
	for _, after := range []int{0, 10 << 10, 500 << 10} {
		ctx, cancel := context.WithCancel(t.Context())
		_, _, err := s.Import(ctx, dice, Folder, 0, &cancelling{bytes.NewReader(stream), after, cancel}, generous())
		if !errors.Is(err, context.Canceled) {
			t.Errorf("after %d: %v", after, err)
		}
		if names := onDisk(t, s); len(names) != 0 {
			t.Errorf("after %d: left on disk: %v", after, names)
		}
	}
}

func TestImportReadsNothingBehindTheEnd(t *testing.T) {
	s := openStore(t, t.TempDir())
	stream := pack(t, tree{"a": "x"})
	r := bytes.NewReader(append(slices.Clone(stream), "the next thing on this connection"...))
	_, _, err := s.Import(t.Context(), dice, Folder, 0, r, generous())
	must(t, err)
	if rest, _ := io.ReadAll(r); string(rest) != "the next thing on this connection" {
		t.Errorf("left %q", rest)
	}
}

// A link that somebody put into a generation is not followed, in neither direction.
func TestLinksOnDiskAreNotFollowed(t *testing.T) {
	s := openStore(t, t.TempDir())
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("abc"), 0o600))
	base, _ := load(t, s, 0, tree{"a": "abc", "dir/b": "abc"})
	must(t, os.Remove(s.path("1", "a")))
	must(t, os.Symlink(secret, s.path("1", "a")))
	var b bytes.Buffer
	if err := s.Export(dice, Folder, base, &b); err == nil {
		t.Error("a link was exported")
	}
	_, _, err := s.Import(t.Context(), dice, Folder, base, bytes.NewReader(pack(t, tree{"a": "abd"})), generous())
	must(t, err)
	if data, _ := os.ReadFile(secret); string(data) != "abc" {
		t.Errorf("a file outside was changed to %q", data)
	}
}

func TestFullDiskLeavesTheBase(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s: this test runs as root", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	s, err := Open(dir)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	base, _ := load(t, s, 0, tree{"a": "x"})
	_, _, err = s.Import(t.Context(), dice, Folder, base, bytes.NewReader(pack(t, tree{"a": "x", "b": strings.Repeat("y", 1<<20)})), generous())
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "free some space") {
		t.Errorf("got %v", err)
	}
	if names := onDisk(t, s); !slices.Equal(names, []string{"1"}) {
		t.Errorf("left on disk: %v", names)
	}
	err = s.PutBundle(dice, digest, []File{{"main.js", make([]byte, 2<<20)}})
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "free some space") {
		t.Errorf("bundle: %v", err)
	}
	if gen, _ := load(t, s, base, tree{"a": "x", "b": strings.Repeat("y", 500<<10)}); gen != 2 {
		t.Errorf("after the room came back: %d", gen)
	}
}

func TestSweep(t *testing.T) {
	s := openStore(t, t.TempDir())
	base, _ := load(t, s, 0, tree{"a": "1"})
	named, _ := load(t, s, base, tree{"a": "1", "b": "2"})
	load(t, s, named, tree{"a": "3"})
	must(t, os.MkdirAll(s.path(".tmp-0011", "half"), 0o700))
	removed, err := s.Sweep(dice, Folder, named)
	if removed != 3 || err != nil {
		t.Errorf("removed %d, %v", removed, err)
	}
	if names := onDisk(t, s); !slices.Equal(names, []string{"2"}) {
		t.Errorf("on disk %v", names)
	}
	if got := content(t, s, named); !maps.Equal(got, tree{"a": "1", "b": "2"}) {
		t.Errorf("the sweep of its base took something: %v", got)
	}
	if removed, err := s.Sweep("nobody@relay.example", Folder); removed != 0 || err != nil {
		t.Errorf("where nothing is: %d, %v", removed, err)
	}
}

func TestSweepAllAtStart(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, root)
	kept, _ := load(t, s, 0, tree{"a": "1"})
	load(t, s, kept, tree{"a": "2"})
	_, _, err := s.Import(t.Context(), "gone@relay.example", Account, 0, bytes.NewReader(pack(t, tree{"a": "1"})), generous())
	must(t, err)
	must(t, os.Mkdir(filepath.Join(root, "lost+found"), 0o700))

	if removed, err := s.SweepAll(nil); removed != 0 || err != nil {
		t.Errorf("an empty ledger swept %d away: %v", removed, err)
	}
	removed, err := s.SweepAll(map[bot.Address]struct{ Account, Storage bot.Generation }{dice: {Storage: kept}})
	if removed != 2 || err != nil {
		t.Errorf("removed %d, %v", removed, err)
	}
	left, err := os.ReadDir(root)
	must(t, err)
	if names := onDisk(t, s); !slices.Equal(names, []string{"1"}) || len(left) != 2 {
		t.Errorf("on disk %v, %v", names, left)
	}
}

func TestRemove(t *testing.T) {
	s := openStore(t, t.TempDir())
	load(t, s, 0, tree{"a": "1"})
	must(t, s.Remove(dice))
	must(t, s.Remove(dice))
	if _, err := os.Stat(filepath.Join(s.root.Name(), string(dice))); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestSize(t *testing.T) {
	s := openStore(t, t.TempDir())
	load(t, s, 0, tree{"a": "123", "b/c": "45"})
	if n, err := s.Size(dice, Folder, 1); err != nil || n != 5 {
		t.Errorf("size %d, %v, want 5", n, err)
	}
	if n, err := s.Size(dice, Folder, 0); err != nil || n != 0 {
		t.Errorf("size of no generation %d, %v", n, err)
	}
	if _, err := s.Size(dice, Folder, 9); err == nil {
		t.Error("a generation that is not there has a size")
	}
}

// TestHalfRemovedIsGone leaves what a crash in the middle of Remove leaves.
func TestHalfRemovedIsGone(t *testing.T) {
	s := openStore(t, t.TempDir())
	load(t, s, 0, tree{"a": "1"})
	must(t, os.Rename(filepath.Join(s.root.Name(), string(dice)), filepath.Join(s.root.Name(), tmpName())))
	must(t, s.PutBundle("other@relay.example", digest, nil))
	_, err := s.SweepAll(map[bot.Address]struct{ Account, Storage bot.Generation }{"other@relay.example": {}})
	must(t, err)
	left, err := list(s.root)
	if err != nil || len(left) != 1 {
		t.Errorf("left are %q, %v, want the other bot alone", left, err)
	}
}

func TestAddressesCannotLeadOut(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "root"))
	for _, addr := range []bot.Address{"", ".", "..", "../x@y", "a/b@c", "A@relay.example", " a@b"} {
		_, _, err := s.Import(t.Context(), addr, Folder, 0, bytes.NewReader(pack(t, tree{"a": "1"})), generous())
		_, err2 := s.Sweep(addr, Folder)
		for _, err := range []error{err, err2, s.Remove(addr), s.Export(addr, Folder, 1, io.Discard), s.PutBundle(addr, digest, nil)} {
			if !errors.Is(err, bot.ErrAddress) {
				t.Errorf("%q: %v", addr, err)
			}
		}
	}
}

const digest = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

func TestBundles(t *testing.T) {
	s := openStore(t, t.TempDir())
	files := []File{{"bot.toml", []byte("name")}, {"lib/deep/x.js", []byte("code")}, {"lib/y.js", nil}}
	must(t, s.PutBundle(dice, digest, files))
	must(t, s.PutBundle(dice, digest, nil)) // the digest stands for the content
	var b bytes.Buffer
	must(t, s.ExportBundle(dice, digest, &b))
	if got := unpack(t, &b); !maps.Equal(got, tree{"bot.toml": "name", "lib/": "", "lib/deep/": "", "lib/deep/x.js": "code", "lib/y.js": ""}) {
		t.Errorf("got %v", got)
	}
	other := strings.Repeat("ab", 32)
	for name, bad := range map[string][]File{
		"parent": {{"../x", nil}}, "absolute": {{"/x", nil}}, "twice": {{"x", nil}, {"x", nil}}, "under a file": {{"x", nil}, {"x/y", nil}},
		"long": {{strings.Repeat("n", 256), nil}},
	} {
		if err := s.PutBundle(dice, other, bad); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if err := s.PutBundle(dice, "../../x", files); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	if err := s.ExportBundle(dice, other, io.Discard); !errors.Is(err, ErrMissing) {
		t.Errorf("half a bundle is there: %v", err)
	}
	must(t, s.PutBundle(dice, other, files))
	removed, err := s.SweepBundles(dice, other)
	if removed != 1 || err != nil {
		t.Errorf("removed %d, %v: something was left half written", removed, err)
	}
}

func TestBotsAtTheSameTime(t *testing.T) {
	s := openStore(t, t.TempDir())
	var all sync.WaitGroup
	for n := range 6 {
		addr := bot.Address(fmt.Sprintf("bot%d@relay.example", n))
		all.Go(func() {
			gen := bot.Generation(0)
			for i := range 10 {
				next, _, err := s.Import(t.Context(), addr, Folder, gen, bytes.NewReader(pack(t, tree{"a": fmt.Sprint(i), "b": "same"})), generous())
				if err != nil || next != gen+1 {
					t.Errorf("%s: %d, %v", addr, next, err)
					return
				}
				gen = next
			}
		})
	}
	all.Wait()
}

// FuzzImport: whatever the stream is, either it is refused and nothing is left, or it becomes a tree within the rules that
// comes out as it went in.
func FuzzImport(f *testing.F) {
	f.Add(pack(f, tree{"a": "one", "dir/b": "two", "empty/": ""}))
	f.Add(pack(f, tree{"kept": "x"}))
	for _, c := range hostile(f) {
		if len(c.stream) < 4<<10 {
			f.Add(c.stream)
		}
	}
	rules := Rules{Files: 8, Depth: 3, Name: 16, Bytes: 4096, File: 2048, Change: 3000}
	s, err := Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		must(t, s.Remove(dice))
		base, _ := load(t, s, 0, tree{"kept": "x", "dir/b": "two"})
		gen, stats, err := s.Import(t.Context(), dice, Folder, base, bytes.NewReader(stream), rules)
		if err != nil {
			if names := onDisk(t, s); !slices.Equal(names, []string{"1"}) {
				t.Fatalf("left on disk: %v", names)
			}
			return
		}
		var b bytes.Buffer
		must(t, s.Export(dice, Folder, gen, &b))
		got := unpack(t, bytes.NewReader(b.Bytes()))
		if len(got) > rules.Files || stats.Bytes > rules.Bytes || stats.ChangedBytes > rules.Change {
			t.Fatalf("beyond the rules: %d files, %+v", len(got), stats)
		}
		again, _, err := s.Import(t.Context(), dice, Folder, gen, &b, rules)
		if err != nil || again != gen {
			t.Fatalf("what was exported came back as generation %d, not %d: %v", again, gen, err)
		}
		if left, err := os.ReadDir(s.root.Name()); err != nil || len(left) != 1 {
			t.Fatalf("outside the bot's folder: %v %v", left, err)
		}
	})
}
