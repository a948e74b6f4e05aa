package bundle

import (
	"archive/zip"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/internal/bot"
)

// Written with: go test ./internal/bundle -update
var update = flag.Bool("update", false, "write the golden files")

const minimal = `name = "Dice"
version = "1.2.0"
contact = "author@example.org"
runtime = "js"
main = "main.js"
`

const full = `name = "Dice"
summary = "Rolls dice: send me 2d6"
version = "1.2.0"
license = "MIT"
source_code_url = "https://example.org/dice"
contact = "mailto:author@example.org"
icon = "img/icon.png"
runtime = "js"
main = "src/main.js"

[limits.per_user]
mails_per_hour = 6
mails_per_day = 12
seconds_per_hour = 30
bytes_per_hour = "6MB"
over = "drop"
notice = "{limit}: wait until {until}"
[limits.sending]
mails_per_hour = 100
bytes_per_hour = "10MB"
mails_per_hour_and_contact = 20
bytes_per_hour_and_contact = "5MB"
attachment = "1MB"
[limits]
memory = "64MiB"
wall = "1500ms"

[groups]
privacy = false

[messages]
from_bots = true

[[commands]]
name = "roll"
description = "Roll dice, e.g. /roll 2d6"
[[commands]]
name = "help"
`

func fullFiles() []File {
	return []File{
		{"src/main.js", []byte("export default {}\n")},
		{"bot.toml", []byte(full)},
		{"img/icon.png", picture(64, 64, encodePNG)},
		{"empty", nil},
	}
}

func with(manifest string, more ...File) []File {
	return append([]File{{"bot.toml", []byte(manifest)}, {"main.js", []byte("1")}}, more...)
}

func TestManifest(t *testing.T) {
	b, err := FromFiles(fullFiles(), DefaultCeilings())
	if err != nil {
		t.Fatal(err)
	}
	want := bot.Manifest{
		Name: "Dice", Summary: "Rolls dice: send me 2d6", Version: "1.2.0", License: "MIT",
		SourceCodeURL: "https://example.org/dice", Contact: "mailto:author@example.org", Icon: "img/icon.png",
		Runtime: bot.RuntimeJS, Main: "src/main.js",
		Limits:       bot.Limits{Memory: 64 << 20, Wall: 1500 * time.Millisecond},
		PerUser:      bot.PerUser{MailsPerHour: 6, MailsPerDay: 12, SecondsPerHour: 30, BytesPerHour: 6e6, Drop: true, Notice: "{limit}: wait until {until}"},
		Sending:      bot.Sending{Mails: 100, Bytes: 10e6, MailsPerContact: 20, BytesPerContact: 5e6, Attachment: 1e6},
		GroupPrivacy: false, FromBots: true,
		Commands: []bot.Command{{Name: "roll", Description: "Roll dice, e.g. /roll 2d6"}, {Name: "help"}},
	}
	if !reflect.DeepEqual(b.Manifest, want) {
		t.Errorf("got  %+v\nwant %+v", b.Manifest, want)
	}
}

func TestWhatIsLeftOutIsTheOperators(t *testing.T) {
	c := DefaultCeilings()
	b, err := FromFiles(with(minimal), c)
	if err != nil {
		t.Fatal(err)
	}
	if m := b.Manifest; m.Limits != (bot.Limits{Memory: c.Memory, Wall: c.Wall}) || m.PerUser != c.PerUser || m.Sending != c.Sending || !m.GroupPrivacy {
		t.Errorf("got %+v", m)
	}
}

// A folder, a zip and single files are the same bundle.
func TestThreeWays(t *testing.T) {
	single, err := FromFiles(fullFiles(), DefaultCeilings())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range append(fullFiles(), File{".git/config", nil}, File{"src/.main.js.swp", nil}, File{"__MACOSX/x", nil}) {
		write(t, filepath.Join(dir, f.Path), f.Data)
	}
	folder, err := FromDir(dir, DefaultCeilings())
	if err != nil {
		t.Fatal(err)
	}
	packed, err := single.Zip()
	if err != nil {
		t.Fatal(err)
	}
	zipped, err := FromZip(packed, DefaultCeilings())
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*Bundle{"folder": folder, "zip": zipped} {
		if b.Digest != single.Digest || !slices.EqualFunc(b.Files, single.Files, func(a, b File) bool {
			return a.Path == b.Path && bytes.Equal(a.Data, b.Data)
		}) {
			t.Errorf("%s: %d files, digest %s; single files: %d, %s", name, len(b.Files), b.Digest, len(single.Files), single.Digest)
		}
	}
	if !slices.IsSortedFunc(single.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) }) {
		t.Error("the files are not sorted by path")
	}
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// The digest tells bundles apart whose concatenated bytes are alike.
func TestDigestHasNoCollisions(t *testing.T) {
	seen := map[string]int{}
	for i, more := range [][]File{
		{}, {{"a", []byte("bc")}}, {{"ab", []byte("c")}}, {{"a", nil}, {"bc", nil}}, {{"a", []byte("b")}, {"c", nil}},
	} {
		b, err := FromFiles(with(minimal, more...), DefaultCeilings())
		if err != nil {
			t.Fatal(err)
		}
		if j, ok := seen[b.Digest]; ok {
			t.Errorf("bundles %d and %d have the same digest", i, j)
		}
		seen[b.Digest] = i
	}
}

// Each testdata/bad/*.toml is a manifest with faults beside a main.js; the .txt beside it is the whole report.
func TestBadManifests(t *testing.T) {
	paths, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(paths) == 0 {
		t.Fatal("no testdata", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = FromFiles(with(string(data)), DefaultCeilings())
			var problems Problems
			if !errors.As(err, &problems) {
				t.Fatalf("got %v, want problems", err)
			}
			golden := strings.TrimSuffix(path, ".toml") + ".txt"
			got := err.Error() + "\n"
			if *update {
				write(t, golden, []byte(got))
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestReplies(t *testing.T) {
	const resident = "name = \"Dice\"\nversion = \"1\"\ncontact = \"author@example.org\"\nruntime = \"native\"\ncommand = [\"./main.js\"]\nmode = \"resident\"\n"
	for manifest, atOnce := range map[string]bool{
		minimal:                              false,
		minimal + "replies = \"together\"\n": false,
		minimal + "replies = \"at once\"\n":  true,
		resident + "replies = \"at once\"\n": true,
	} {
		b, err := FromFiles(with(manifest), DefaultCeilings())
		if err != nil {
			t.Fatal(err)
		}
		if b.Manifest.AtOnce != atOnce {
			t.Errorf("at once: %v, want %v, of\n%s", b.Manifest.AtOnce, atOnce, manifest)
		}
	}
}

// Manifests of the runtimes that have no script.
func TestRuntimes(t *testing.T) {
	head := "name = \"Dice\"\nversion = \"1\"\ncontact = \"author@example.org\"\n"
	for _, test := range []struct {
		body    string
		command []string
		mode    bot.Mode
	}{
		{"runtime = \"native\"\ncommand = [\"python3\", \"-u\", \"main.js\"]", []string{"python3", "-u", "main.js"}, bot.ModePipe},
		{"runtime = \"native\"\ncommand = [\"main.js\"]\nmode = \"pipe\"", []string{"main.js"}, bot.ModePipe},
		{"runtime = \"native\"\ncommand = [\"./main.js\"]", []string{"./main.js"}, bot.ModePipe},
		{"runtime = \"native\"\ncommand = [\"./main.js\"]\nmode = \"resident\"\n[resident]\ngrace = \"1s\"", []string{"./main.js"}, bot.ModeResident},
		{"runtime = \"native\"\ncommand = [\"./main.js\"]\nmode = \"mail\"\n[resident]\ngrace = \"1s\"", []string{"./main.js"}, bot.ModeMail},
		{"runtime = \"wasm\"\nmain = \"main.wasm\"", nil, bot.ModePipe},
	} {
		b, err := FromFiles(with(head+test.body, File{"main.wasm", nil}), DefaultCeilings())
		if err != nil {
			t.Errorf("%s: %v", test.body, err)
			continue
		}
		if !slices.Equal(b.Manifest.Command, test.command) || b.Manifest.Mode != test.mode {
			t.Errorf("%s: %+v", test.body, b.Manifest)
		}
	}
	none := DefaultCeilings()
	none.Interpreters = nil
	if _, err := FromFiles(with(head+"runtime = \"native\"\ncommand = [\"sh\"]"), none); !strings.Contains(report(err), "no native bots") {
		t.Errorf("got %v", err)
	}
}

func TestContacts(t *testing.T) {
	for contact, usable := range map[string]bool{
		"author@example.org":                     true,
		"mailto:author@example.org":              true,
		"mailto:author@example.org?subject=Dice": true,
		"https://i.delta.chat/#" + strings.Repeat("A1", 20) + "&v=3&i=x&s=y&a=z%40example.org&n=Z": true,
		"https://i.delta.chat/#…":     false,
		"https://i.delta.chat/":       false,
		"https://example.org/me":      false,
		"Author <author@example.org>": false,
		"me":                          false,
		"":                            false,
		"mailto:":                     false,
	} {
		_, err := FromFiles(with(strings.Replace(minimal, "author@example.org", contact, 1)), DefaultCeilings())
		if (err == nil) != usable {
			t.Errorf("%q: %v", contact, err)
		}
	}
}

func TestPaths(t *testing.T) {
	for _, c := range []struct {
		paths []string
		want  string // the report, "" for none
	}{
		{[]string{"a/b/c.js", "a/b.js", "ä.txt", "a b.txt", "x..y"}, ""},
		{[]string{"../x"}, `../x: ".." in the path: write it relative to the root of the bundle`},
		{[]string{"a/../x"}, `a/../x: ".." in the path: write it relative to the root of the bundle`},
		{[]string{"./x"}, `./x: "." in the path: write it relative to the root of the bundle`},
		{[]string{"/etc/passwd"}, `/etc/passwd: absolute path: write it relative to the root of the bundle`},
		{[]string{`C:x`}, `C:x: absolute path: write it relative to the root of the bundle`},
		{[]string{`a\b`}, `a\b: backslash in the path: separate folders with /`},
		{[]string{"a//b"}, `a//b: empty element in the path: write it without double or trailing slashes`},
		{[]string{"a/"}, `a/: empty element in the path: write it without double or trailing slashes`},
		{[]string{""}, `: a file has no name: give it one`},
		{[]string{"a\x00b"}, "a\uFFFDb: control or invisible characters in the path: use letters of ASCII"},
		{[]string{"a\u202Eb"}, "a\uFFFDb: control or invisible characters in the path: use letters of ASCII"},
		{[]string{"a\xffb"}, "a\uFFFDb: the name is not UTF-8: use letters of ASCII"},
		{[]string{strings.Repeat("x/", 16) + "y"}, strings.Repeat("x/", 16) + "y: more than 15 folders deep: put it higher up"},
		{[]string{strings.Repeat("x", 201)}, strings.Repeat("x", 200) + "…: the path is longer than 200 bytes: shorten it"},
		{[]string{"x", "x"}, "x: is there twice: keep one of them"},
		{[]string{"a", "A"}, `A: "A" and "a" differ only in case or Unicode composition: rename one of them`},
		{[]string{"a/x", "A/y"}, `A/y: "A" and "a" differ only in case or Unicode composition: rename one of them`},
		{[]string{"\u00e4", "a\u0308"}, "a\u0308: \"a\u0308\" and \"\u00e4\" differ only in case or Unicode composition: rename one of them"},
		{[]string{"straße", "STRASSE"}, `STRASSE: "STRASSE" and "straße" differ only in case or Unicode composition: rename one of them`},
		{[]string{"a", "a/b"}, `a/b: "a" is both a file and a folder: rename one of them`},
		{[]string{"a/b", "a"}, `a: "a" is both a file and a folder: rename one of them`},
	} {
		var more []File
		for _, path := range c.paths {
			more = append(more, File{Path: path})
		}
		_, err := FromFiles(with(minimal, more...), DefaultCeilings())
		if got := report(err); got != c.want {
			t.Errorf("%q:\n got %q\nwant %q", c.paths, got, c.want)
		}
	}
}

func report(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestCeilings(t *testing.T) {
	c := DefaultCeilings()
	c.Files, c.File, c.Total = 4, 1000, 1500
	for _, test := range []struct {
		more []File
		want string
	}{
		{[]File{{"a", make([]byte, 600)}, {"b", make([]byte, 600)}}, ""},
		{[]File{{"a", make([]byte, 1001)}}, "a: larger than 1kB, the operator's ceiling for one file: make it smaller or leave it out"},
		{[]File{{"a", make([]byte, 900)}, {"b", make([]byte, 900)}}, "bundle: larger than 1500B in all, the operator's ceiling: leave out what the bot does not need at run time"},
		{[]File{{"a", nil}, {"b", nil}, {"c", nil}}, "bundle: more than 4 files, the operator's ceiling: leave out what the bot does not need at run time"},
	} {
		_, err := FromFiles(with(minimal, test.more...), c)
		if got := report(err); got != test.want {
			t.Errorf("files: got %q, want %q", got, test.want)
		}
		dir := t.TempDir()
		for _, f := range with(minimal, test.more...) {
			write(t, filepath.Join(dir, f.Path), f.Data)
		}
		if _, err := FromDir(dir, c); report(err) == "" != (test.want == "") {
			t.Errorf("folder: got %q, want %q", report(err), test.want)
		}
		if _, err := FromZip(pack(t, with(minimal, test.more...)), c); report(err) != test.want {
			t.Errorf("zip: got %q, want %q", report(err), test.want)
		}
	}
}

func pack(t *testing.T, files []File) []byte {
	t.Helper()
	data, err := (&Bundle{Files: files}).Zip()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestReportIsBounded(t *testing.T) {
	var more []File
	for i := range 100_000 {
		more = append(more, File{Path: fmt.Sprintf("../%d", i)})
	}
	_, err := FromFiles(with(minimal, more...), DefaultCeilings())
	var problems Problems
	if !errors.As(err, &problems) || len(problems) > maxProblems+1 {
		t.Errorf("%d problems", len(problems))
	}
}

func TestLinksInFolder(t *testing.T) {
	dir := t.TempDir()
	for _, f := range with(minimal) {
		write(t, filepath.Join(dir, f.Path), f.Data)
	}
	for name, target := range map[string]string{"passwd": "/etc/passwd", "up": "..", "same": "main.js"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := FromDir(dir, DefaultCeilings())
	const fault = ": is a link or special file: put a copy of the file there"
	if got, want := report(err), "passwd"+fault+"\nsame"+fault+"\nup"+fault; got != want {
		t.Errorf("got %q", got)
	}
}

func TestFolderMissing(t *testing.T) {
	if _, err := FromDir(filepath.Join(t.TempDir(), "none"), DefaultCeilings()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestManifestElsewhere(t *testing.T) {
	for want, files := range map[string][]File{
		"bot.toml: is missing: add it at the root of the bundle; it names the bot, its author and its main file": {{"main.js", nil}},
		`bot.toml: is in the folder "dice-main", not at the root: pack what is in the folder, not the folder`:    {{"dice-main/bot.toml", nil}, {"dice-main/main.js", nil}},
	} {
		if _, err := FromFiles(files, DefaultCeilings()); report(err) != want {
			t.Errorf("got %q, want %q", report(err), want)
		}
	}
}

func TestHostileZips(t *testing.T) {
	minimalEntries := func(w *zip.Writer) {
		for _, f := range with(minimal) {
			entry(w, &zip.FileHeader{Name: f.Path}, f.Data)
		}
	}
	link := &zip.FileHeader{Name: "link"}
	link.SetMode(fs.ModeSymlink | 0o777)
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"not a zip": {[]byte("hello"), "bundle: not a readable zip: pack it anew"},
		"empty":     {nil, "bundle: not a readable zip: pack it anew"},
		"link": {zipOf(minimalEntries, func(w *zip.Writer) { entry(w, link, []byte("/etc/passwd")) }),
			"link: is a link or special file: put a copy of the file there"},
		"encrypted": {zipOf(minimalEntries, func(w *zip.Writer) {
			raw(w, &zip.FileHeader{Name: "secret", Flags: 1, UncompressedSize64: 1}, []byte("x"))
		}),
			"secret: is encrypted: pack it without a password"},
		"unknown method": {zipOf(minimalEntries, func(w *zip.Writer) {
			raw(w, &zip.FileHeader{Name: "odd", Method: 93, UncompressedSize64: 1}, []byte("x"))
		}),
			"odd: cannot be unpacked: zip: unsupported compression algorithm: pack it anew, with deflate or without compression"},
		"ratio": {zipOf(minimalEntries, func(w *zip.Writer) {
			entry(w, &zip.FileHeader{Name: "bomb", Method: zip.Deflate}, make([]byte, 2_000_000))
		}), "bomb: unpacks to more than 100 times its size: leave it out"},
		"up and out": {zipOf(minimalEntries, func(w *zip.Writer) { entry(w, &zip.FileHeader{Name: "../../x"}, nil) }),
			`../../x: ".." in the path: write it relative to the root of the bundle`},
		"truncated": {zipOf(minimalEntries)[:200], "bundle: not a readable zip: pack it anew"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := FromZip(test.data, DefaultCeilings()); report(err) != test.want {
				t.Errorf("got %q, want %q", report(err), test.want)
			}
		})
	}
}

// A header that claims less than there is must not make us read more than it claims.
func TestZipThatLiesAboutItsSize(t *testing.T) {
	var deflated bytes.Buffer
	w := zip.NewWriter(&deflated)
	entry(w, &zip.FileHeader{Name: "x", Method: zip.Deflate}, bytes.Repeat([]byte("0123456789"), 100_000))
	w.Close()
	r, err := zip.NewReader(bytes.NewReader(deflated.Bytes()), int64(deflated.Len()))
	if err != nil {
		t.Fatal(err)
	}
	offset, _ := r.File[0].DataOffset()
	content := deflated.Bytes()[offset:][:r.File[0].CompressedSize64]
	data := zipOf(func(w *zip.Writer) {
		raw(w, &zip.FileHeader{Name: "x", Method: zip.Deflate, UncompressedSize64: 10}, content)
	})
	set := newCollector(DefaultCeilings())
	reader, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	set.zipEntry(reader.File[0])
	if len(set.files) != 0 || len(set.problems) != 1 || set.total != 10 {
		t.Errorf("took %d files, %d bytes: %v", len(set.files), set.total, set.problems)
	}
}

// Entries that share their data, as in a bomb without recursion, are counted before they are unpacked.
func TestManyEntries(t *testing.T) {
	names := func(n int) func(*zip.Writer) {
		return func(w *zip.Writer) {
			for i := range n {
				entry(w, &zip.FileHeader{Name: fmt.Sprintf("f%d", i)}, nil)
			}
		}
	}
	const want = "bundle: more than 2000 files, the operator's ceiling: leave out what the bot does not need at run time"
	for _, n := range []int{2001, zipEntries + 1} {
		if _, err := FromZip(zipOf(names(n)), DefaultCeilings()); report(err) != want {
			t.Errorf("%d entries: %q", n, report(err))
		}
	}
	big := make([]byte, DefaultCeilings().Total+zipSlack+1)
	if _, err := FromZip(big, DefaultCeilings()); !strings.Contains(report(err), "the zip is larger than 20MB") {
		t.Errorf("got %q", report(err))
	}
}

func zipOf(fill ...func(*zip.Writer)) []byte {
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for _, f := range fill {
		f(w)
	}
	w.Close()
	return buf.Bytes()
}

func entry(w *zip.Writer, h *zip.FileHeader, data []byte) {
	f, err := w.CreateHeader(h)
	if err == nil {
		_, err = f.Write(data)
	}
	if err != nil {
		panic(err)
	}
}

func raw(w *zip.Writer, h *zip.FileHeader, data []byte) {
	h.CompressedSize64 = uint64(len(data))
	f, err := w.CreateRaw(h)
	if err == nil {
		_, err = f.Write(data)
	}
	if err != nil {
		panic(err)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"0B": 0, "1B": 1, "2kB": 2000, "128MB": 128e6, "128 MB": 128e6, "1GB": 1e9, "1KiB": 1024, "3MiB": 3 << 20, "2GiB": 2 << 30,
		"": -1, "128": -1, "MB": -1, "-1MB": -1, "1.5MB": -1, "1TB": -1, "128mb": -1, "1KB": -1, "9999999999999MB": -1, "999999999999GB": -1,
	} {
		got, err := ParseSize(text)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: got %d (%v), want %d", text, got, err, want)
		}
		if err == nil {
			if back, err := ParseSize(FormatSize(got)); err != nil || back != got {
				t.Errorf("%d is written %q and read as %d, %v", got, FormatSize(got), back, err)
			}
		}
	}
}

// What FromZip accepts keeps the promises of the package doc, and nothing makes it panic.
func FuzzFromZip(f *testing.F) {
	f.Add(zipOf(func(w *zip.Writer) {
		for _, file := range fullFiles() {
			entry(w, &zip.FileHeader{Name: file.Path, Method: zip.Deflate}, file.Data)
		}
	}))
	f.Add(zipOf(func(w *zip.Writer) { entry(w, &zip.FileHeader{Name: "../x"}, nil) }))
	c := DefaultCeilings()
	c.File, c.Total = 10_000, 20_000
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := FromZip(data, c)
		if err != nil {
			if !errors.As(err, new(Problems)) {
				t.Fatalf("not a problem: %v", err)
			}
			return
		}
		checkPromises(t, b, c)
	})
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(full))
	paths, _ := filepath.Glob("testdata/bad/*.toml")
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("[[a]]\n[a.b]\nc={d=[{e=1}]}\n\"x.y\".z=1979-05-27"))
	f.Fuzz(func(t *testing.T, data []byte) {
		files := []File{{"bot.toml", data}, {"main.js", nil}}
		b, err := FromFiles(files, DefaultCeilings())
		var problems Problems
		if err == nil {
			checkPromises(t, b, DefaultCeilings())
		} else if !errors.As(err, &problems) {
			t.Fatalf("not a problem: %v", err)
		}
		for _, p := range problems {
			if p.Line < 0 || p.Line > bytes.Count(data, []byte("\n"))+1 || strings.ContainsRune(p.String(), '\n') {
				t.Errorf("problem %q at line %d", p, p.Line)
			}
		}
	})
}

func checkPromises(t *testing.T, b *Bundle, c Ceilings) {
	m := b.Manifest
	if m.Name == "" || m.Version == "" || m.Contact == "" || m.Runtime != bot.RuntimeJS || m.Main == "" ||
		m.Limits.Memory <= 0 || m.Limits.Memory > c.Memory || m.Limits.Wall <= 0 || m.Limits.Wall > c.Wall {
		t.Errorf("accepted %+v", m)
	}
	var total int64
	for _, f := range b.Files {
		if !fs.ValidPath(f.Path) || strings.ContainsAny(f.Path, "\\\x00\n") || int64(len(f.Data)) > c.File {
			t.Errorf("accepted %q with %d bytes", f.Path, len(f.Data))
		}
		total += int64(len(f.Data))
	}
	if total > c.Total || len(b.Files) > c.Files {
		t.Errorf("accepted %d files, %d bytes", len(b.Files), total)
	}
}

// A file that has grown since it was admitted is not taken, and not read further.
func TestGrownFile(t *testing.T) {
	set := newCollector(DefaultCeilings())
	rest := strings.NewReader("fourteen bytes")
	if err := set.add("x", 4, rest); err == nil || len(set.files) != 0 || rest.Len() != 9 {
		t.Errorf("got %v, %d files, %d bytes unread", err, len(set.files), rest.Len())
	}
}

// TestWithheld: what only the operator can grant is no fault, and its author is told.
func TestWithheld(t *testing.T) {
	c := DefaultCeilings()
	if lines := c.Withheld(bot.Manifest{FromBots: true}); len(lines) != 1 || !strings.Contains(lines[0], "from_bots has no effect") {
		t.Errorf("not granted: %q", lines)
	}
	if lines := c.Withheld(bot.Manifest{}); len(lines) > 0 {
		t.Errorf("not asked for: %q", lines)
	}
	c.FromBots = true
	if lines := c.Withheld(bot.Manifest{FromBots: true}); len(lines) > 0 {
		t.Errorf("granted: %q", lines)
	}
}
