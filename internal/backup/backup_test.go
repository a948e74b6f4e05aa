package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/keystore"
	"mayfly/internal/ledger"
	"mayfly/internal/storage"
)

const dice, echo = bot.Address("dice@chat.test"), bot.Address("echo@chat.test")

var bounds = Bounds{Files: 10_000, Bytes: 1 << 30}

// state is a state folder with real contents.
type state struct {
	t      testing.TB
	dir    string
	ledger *ledger.Ledger
	store  *storage.Store
	keys   *keystore.Store
	*Files
}

func open(t testing.TB, dir string) *state {
	t.Helper()
	l, err := ledger.Open(t.Context(), filepath.Join(dir, "ledger.db"))
	must(t, err)
	t.Cleanup(func() { l.Close() })
	store, err := storage.Open(filepath.Join(dir, "bots"))
	must(t, err)
	keys, err := keystore.Open(filepath.Join(dir, "keys"))
	must(t, err)
	must(t, os.MkdirAll(filepath.Join(dir, "outbox"), 0o700))
	return &state{t, dir, l, store, keys, Of(dir)}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newState has two bots with all that a bot may have.
func newState(t testing.TB) *state {
	s := open(t, t.TempDir())
	for i, addr := range []bot.Address{dice, echo} {
		s.install(addr, fmt.Sprint("v1 ", i))
		s.install(addr, fmt.Sprint("v2 ", i))
		s.commit(addr, fmt.Sprint("session 1 ", i))
		s.commit(addr, fmt.Sprint("session 2 ", i))
		must(t, s.keys.PutPassword(addr, "secret"))
	}
	must(t, os.WriteFile(filepath.Join(s.dir, "keys", string(dice), "secret.key"), []byte("key"), 0o600))
	must(t, os.WriteFile(filepath.Join(s.dir, "keys", string(echo), "secret.key"), []byte("key"), 0o600))
	must(t, os.WriteFile(filepath.Join(s.dir, "keys", "README"), []byte("of the operator"), 0o600))
	return s
}

func (s *state) install(addr bot.Address, source string) {
	s.t.Helper()
	files := []bundle.File{{Path: "a/b.js", Data: []byte(source)}, {Path: "a-b.js", Data: []byte("x")}, {Path: "bot.toml", Data: []byte("name")}}
	var stored []storage.File
	for _, f := range files {
		stored = append(stored, storage.File(f))
	}
	digest := bundle.Digest(files)
	must(s.t, s.store.PutBundle(addr, digest, stored))
	must(s.t, s.ledger.Install(s.t.Context(), ledger.Bot{Address: addr, Digest: digest, Fingerprint: "AB"}))
}

// commit is a session: new generations, a mail, and the old generations deleted.
func (s *state) commit(addr bot.Address, text string) {
	s.t.Helper()
	ctx := s.t.Context()
	b, err := s.ledger.Bot(ctx, addr)
	must(s.t, err)
	rules := storage.FolderRules(1<<20, 1<<20, nil)
	b.Account, _, err = s.store.Import(ctx, addr, storage.Account, b.Account, tree(s.t, map[string]string{"core/": "", "core/dc.db": text}), rules)
	must(s.t, err)
	b.Storage, _, err = s.store.Import(ctx, addr, storage.Folder, b.Storage, tree(s.t, map[string]string{"empty/": "", "note.txt": text}), rules)
	must(s.t, err)
	path := fmt.Sprintf("%032x.eml", time.Now().UnixNano())
	must(s.t, os.WriteFile(filepath.Join(s.dir, "outbox", path), []byte(text), 0o600))
	must(s.t, s.ledger.Commit(ctx, ledger.Commit{Bot: addr, Account: b.Account, Storage: b.Storage, UIDNext: b.UIDNext + 1,
		Outgoing: []ledger.Outgoing{{To: []bot.Address{"user@chat.test"}, Path: path, Size: int64(len(text))}}}))
	_, err = s.store.Sweep(addr, storage.Account, b.Account)
	must(s.t, err)
	_, err = s.store.Sweep(addr, storage.Folder, b.Storage)
	must(s.t, err)
}

// send takes all of a bot's mail out of the outbox.
func (s *state) send(addr bot.Address) {
	mails, err := s.ledger.Outbox(s.t.Context(), addr, 99)
	must(s.t, err)
	for _, m := range mails {
		must(s.t, s.ledger.Sent(s.t.Context(), m.ID))
		must(s.t, os.Remove(filepath.Join(s.dir, "outbox", m.Path)))
	}
}

// tree is a tar stream as a sandbox sends it; names of folders end in a slash.
func tree(t testing.TB, files map[string]string) io.Reader {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, folders := range []bool{true, false} {
		for name, text := range files {
			if strings.HasSuffix(name, "/") == folders {
				h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(text)), Mode: 0o600}
				if folders {
					h.Typeflag = tar.TypeDir
				}
				must(t, w.WriteHeader(h))
				_, err := io.WriteString(w, text)
				must(t, err)
			}
		}
	}
	must(t, w.Close())
	return &buf
}

func (s *state) backup() []byte {
	s.t.Helper()
	var buf bytes.Buffer
	problems, err := s.Write(s.t.Context(), s.ledger, &buf)
	must(s.t, err)
	if len(problems) > 0 {
		s.t.Fatalf("the backup has problems: %v", problems)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "snapshot")); err == nil {
		s.t.Error("the snapshot was left behind")
	}
	return buf.Bytes()
}

// restored puts a backup into a new folder.
func restored(t testing.TB, data []byte) *state {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600))
	problems, err := Of(dir).Restore(t.Context(), bytes.NewReader(data), bounds)
	must(t, err)
	if len(problems) > 0 {
		t.Fatalf("restored with problems: %v", problems)
	}
	problems, err = Of(dir).Check(t.Context())
	must(t, err)
	if len(problems) > 0 {
		t.Fatalf("what was restored has problems: %v", problems)
	}
	return open(t, dir)
}

// contents are all files of a state folder that a backup has.
func contents(t *testing.T, dir string) map[string]string {
	all := map[string]string{}
	for _, top := range []string{"bots", "keys", "outbox"} {
		must(t, filepath.WalkDir(filepath.Join(dir, top), func(path string, e os.DirEntry, err error) error {
			name, _ := filepath.Rel(dir, path)
			if err != nil || e.Name() == "README" {
				return err
			}
			info, err := e.Info()
			must(t, err)
			text := []byte("folder")
			if !e.IsDir() {
				text, err = os.ReadFile(path)
			}
			all[name] = fmt.Sprintf("%v %s", info.Mode(), text)
			return err
		}))
	}
	return all
}

func TestABackupIsTheWholeState(t *testing.T) {
	s := newState(t)
	data := s.backup()
	problems, err := CheckArchive(t.Context(), bytes.NewReader(data), bounds)
	if err != nil || len(problems) > 0 {
		t.Fatalf("the archive: %v, %v", problems, err)
	}
	again := restored(t, data)
	want, got := contents(t, s.dir), contents(t, again.dir)
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s: restored %q, was %q", name, got[name], text)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d files and folders restored, there were %d", len(got), len(want))
	}
	before, err := s.ledger.Bots(t.Context())
	must(t, err)
	after, err := again.ledger.Bots(t.Context())
	must(t, err)
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("the ledger has %v, it had %v", after, before)
	}
	again.commit(dice, "goes on")
}

// Backups that are made while sessions are committed, mails sent and bots removed are whole, each of them.
func TestABackupBesideWorkIsConsistent(t *testing.T) {
	s := newState(t)
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	defer work.Wait()
	defer stop()
	for _, addr := range []bot.Address{dice, echo} {
		work.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				s.commit(addr, fmt.Sprint("while a backup is made ", n))
				if n%3 == 0 {
					s.send(addr)
				}
			}
		})
	}
	work.Go(func() {
		const other = bot.Address("other@chat.test")
		for n := 0; ctx.Err() == nil; n++ {
			s.install(other, fmt.Sprint(n))
			must(t, os.MkdirAll(filepath.Join(s.dir, "keys", string(other)), 0o700))
			must(t, os.WriteFile(filepath.Join(s.dir, "keys", string(other), "secret.key"), []byte("key"), 0o600))
			if b, err := s.ledger.Bot(t.Context(), other); err != nil || b.Digest == "" {
				t.Error(b, err)
			}
			must(t, s.ledger.Remove(t.Context(), other))
			must(t, s.store.Remove(other))
			must(t, s.keys.DeleteKeys(other))
		}
	})
	for range 8 {
		var buf bytes.Buffer
		problems, err := s.Write(t.Context(), s.ledger, &buf)
		must(t, err)
		// The other bot is in the ledger before its key is in its place, as here nobody waits.
		for _, p := range problems {
			if p.Bot != "other@chat.test" || !strings.Contains(p.What, "secret.key") {
				t.Errorf("a backup has a problem: %v", p)
			}
		}
		if _, err := CheckArchive(t.Context(), &buf, bounds); err != nil {
			t.Error(err)
		}
		live, err := s.CheckLive(t.Context(), s.ledger)
		must(t, err)
		for _, p := range live {
			if p.Bot != "other@chat.test" {
				t.Errorf("the live folder has a problem: %v", p)
			}
		}
	}
}

// Everything that can be wrong with a state folder is found, with its bot and a mend.
func TestCheckFindsWhatIsWrong(t *testing.T) {
	first := func(s *state, pattern string) string {
		found, err := filepath.Glob(filepath.Join(s.dir, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("nothing is %s", pattern)
		}
		return found[0]
	}
	remove := func(pattern string) func(*state) {
		return func(s *state) { must(t, os.RemoveAll(first(s, pattern))) }
	}
	for _, test := range []struct {
		name string
		harm func(*state)
		bot  bot.Address
		what string
	}{
		{"account gone", remove("bots/dice@chat.test/account/2"), dice, "bots/dice@chat.test/account/2 is missing"},
		{"folder gone", remove("bots/echo@chat.test/folder/2"), echo, "bots/echo@chat.test/folder/2 is missing"},
		{"bundle gone", remove("bots/echo@chat.test/bundle/*"), echo, "is missing"},
		{"file of a bundle gone", remove("bots/echo@chat.test/bundle/*/a/b.js"), echo, "is not what its digest stands for"},
		{"bundle changed", func(s *state) {
			must(t, os.WriteFile(first(s, "bots/dice@chat.test/bundle/*/a/b.js"), []byte("other"), 0o600))
		}, dice, "is not what its digest stands for"},
		{"key gone", remove("keys/dice@chat.test/secret.key"), dice, "keys/dice@chat.test/secret.key is missing"},
		{"mail gone", remove("outbox/*.eml"), dice, ".eml is missing"},
		{"mail cut", func(s *state) { must(t, os.Truncate(first(s, "outbox/*.eml"), 3)) }, dice, ".eml has 3 bytes, its mail had 11"},
		{"a link", func(s *state) {
			must(t, os.Symlink("/etc/passwd", filepath.Join(s.dir, "bots/dice@chat.test/folder/2/link")))
		}, dice, "bots/dice@chat.test/folder/2/link is neither a file nor a folder"},
		{"a generation too many", func(s *state) {
			must(t, os.Mkdir(filepath.Join(s.dir, "bots/dice@chat.test/account/7"), 0o700))
		}, "", "bots/dice@chat.test/account/7 is not named by the ledger"},
		{"a bot too many", func(s *state) {
			must(t, os.MkdirAll(filepath.Join(s.dir, "bots/nobody@chat.test/account/7"), 0o700))
		}, "", "bots/nobody@chat.test is not named by the ledger"},
		{"a mail too many", func(s *state) {
			must(t, os.WriteFile(filepath.Join(s.dir, "outbox/x.eml"), nil, 0o600))
		}, "", "outbox/x.eml is not named by the ledger"},
		{"the ledger", func(s *state) {
			must(t, s.ledger.Close())
			must(t, os.WriteFile(filepath.Join(s.dir, "ledger.db"), []byte("something else"), 0o600))
		}, "", "the ledger is damaged"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newState(t)
			must(t, os.Remove(filepath.Join(s.dir, "keys", "README")))
			problems, err := s.Check(t.Context())
			must(t, err)
			if len(problems) > 0 {
				t.Fatalf("found without harm: %v", problems)
			}
			test.harm(s)
			problems, err = s.Check(t.Context())
			must(t, err)
			if len(problems) == 0 || problems[0].Bot != test.bot || !strings.Contains(problems[0].What, test.what) || problems[0].Mend == "" {
				t.Errorf("found %+v, want %q of %q", problems, test.what, test.bot)
			}
		})
	}
}

// A bot that has written nothing yet has an empty place for it.
func TestCheckTakesABotWithoutAFolder(t *testing.T) {
	s := open(t, t.TempDir())
	s.install(dice, "v1")
	must(t, os.MkdirAll(filepath.Join(s.dir, "bots", string(dice), "folder"), 0o700))
	must(t, os.MkdirAll(filepath.Join(s.dir, "keys", string(dice)), 0o700))
	must(t, os.WriteFile(filepath.Join(s.dir, "keys", string(dice), "secret.key"), []byte("key"), 0o600))
	if problems, err := s.Check(t.Context()); err != nil || len(problems) > 0 {
		t.Errorf("found %v, %v", problems, err)
	}
}

// A backup of a damaged folder has what is there, and says what is not.
func TestABackupSaysWhatItLacks(t *testing.T) {
	s := newState(t)
	must(t, os.RemoveAll(filepath.Join(s.dir, "bots/dice@chat.test/account/2")))
	var buf bytes.Buffer
	problems, err := s.Write(t.Context(), s.ledger, &buf)
	must(t, err)
	if len(problems) != 1 || !strings.Contains(problems[0].What, "account/2 is missing") {
		t.Errorf("problems %v", problems)
	}
	found, err := Of(t.TempDir()).Restore(t.Context(), &buf, bounds)
	must(t, err)
	if fmt.Sprint(found) != fmt.Sprint(problems) {
		t.Errorf("the restore says %v, the backup said %v", found, problems)
	}
}

func TestRestoreWantsAnEmptyFolder(t *testing.T) {
	s := newState(t)
	data := s.backup()
	_, err := s.Restore(t.Context(), bytes.NewReader(data), bounds)
	if !errors.Is(err, ErrNotEmpty) {
		t.Errorf("restored over a state: %v", err)
	}
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "restoring"), 0o700))
	if _, err = Of(dir).Restore(t.Context(), bytes.NewReader(data), bounds); !errors.Is(err, ErrUnfinished) {
		t.Errorf("restored where a restore was cut off: %v", err)
	}
	if err := Of(dir).Clean(); !errors.Is(err, ErrUnfinished) {
		t.Errorf("a host would start where a restore was cut off: %v", err)
	}
}

// An archive that is cut off or changed anywhere is refused, and leaves nothing.
func TestDamagedArchivesAreRefused(t *testing.T) {
	data := newState(t).backup()
	dir := t.TempDir()
	f := Of(dir)
	for at := 0; at < len(data); at += 1 + len(data)/60 {
		for what, bad := range map[string][]byte{"cut off": data[:at], "changed": append(append(bytes.Clone(data[:at]), data[at]^0x55), data[at+1:]...)} {
			if what == "changed" && at > 3 && at < 10 { // the header of gzip has a time, and nothing of ours
				continue
			}
			if _, err := f.Restore(t.Context(), bytes.NewReader(bad), bounds); err == nil {
				t.Fatalf("%s at %d of %d: restored", what, at, len(data))
			}
			entries, err := os.ReadDir(dir)
			must(t, err)
			if len(entries) > 0 {
				t.Fatalf("%s at %d: left %v", what, at, entries)
			}
		}
	}
}

// entry is one of an archive.
type entry struct {
	tar.Header
	data string
}

// entries takes an archive apart.
func entries(t testing.TB, data []byte) []entry {
	zip, err := gzip.NewReader(bytes.NewReader(data))
	must(t, err)
	r := tar.NewReader(zip)
	var all []entry
	for {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		must(t, err)
		data, err := io.ReadAll(r)
		must(t, err)
		all = append(all, entry{*h, string(data)})
	}
}

func pack(t testing.TB, all []entry) []byte {
	var buf bytes.Buffer
	zip := gzip.NewWriter(&buf)
	w := tar.NewWriter(zip)
	for _, e := range all {
		e.Size = int64(len(e.data))
		must(t, w.WriteHeader(&e.Header))
		_, err := io.WriteString(w, e.data)
		must(t, err)
	}
	must(t, errors.Join(w.Close(), zip.Close()))
	return buf.Bytes()
}

// What a stranger may put into an archive stays outside.
func TestHostileArchivesAreRefused(t *testing.T) {
	good := entries(t, newState(t).backup())
	file := func(name, data string) entry {
		return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600}, data}
	}
	insert := func(e ...entry) []entry { // before the checksums
		return append(append(append([]entry{}, good[:len(good)-1]...), e...), good[len(good)-1])
	}
	newer := append([]entry{file("mayfly-backup.json", `{"version":2}`)}, good[1:]...)
	for name, test := range map[string]struct {
		entries []entry
		bounds  Bounds
		want    string
	}{
		"up and away":       {insert(file("../evil", "")), bounds, `the name "../evil"`},
		"absolute":          {insert(file("/etc/evil", "")), bounds, `the name "/etc/evil"`},
		"control character": {insert(file("keys/a@b/\n", "")), bounds, "the name"},
		"deep":              {insert(file("bots/dice@chat.test/folder/2"+strings.Repeat("/x", 30), "")), bounds, "the name"},
		"long":              {insert(file("bots/dice@chat.test/folder/2/"+strings.Repeat("x", 300), "")), bounds, "the name"},
		"unnamed":           {insert(file("bots/dice@chat.test/account/99", "")), bounds, "is not named"},
		"another file":      {insert(file("lock", "")), bounds, "is not named"},
		"no account":        {insert(file("keys/../x", "")), bounds, "the name"},
		"twice":             {insert(good[len(good)-2]), bounds, "is there twice"},
		"without folder":    {insert(file("bots/dice@chat.test/folder/2/none/x", "")), bounds, "comes before its folder"},
		"symbolic link":     {insert(entry{tar.Header{Typeflag: tar.TypeSymlink, Name: "bots/dice@chat.test/folder/2/l", Linkname: "/etc"}, ""}), bounds, "has the type '2'"},
		"hard link":         {insert(entry{tar.Header{Typeflag: tar.TypeLink, Name: "bots/dice@chat.test/folder/2/l", Linkname: "ledger.db"}, ""}), bounds, "has the type '1'"},
		"device":            {insert(entry{tar.Header{Typeflag: tar.TypeChar, Name: "bots/dice@chat.test/folder/2/l"}, ""}), bounds, "has the type '3'"},
		"behind the end":    {append(insert(), file("x", "")), bounds, "behind the checksums"},
		"no checksums":      {good[:len(good)-1], bounds, "cut off"},
		"wrong checksums":   {append(append([]entry{}, good[:len(good)-1]...), file("SHA256SUMS", "none")), bounds, "the checksums are not"},
		"newer":             {newer, bounds, "install the mayfly that made it"},
		"no head":           {good[1:], bounds, "in the place of mayfly-backup.json"},
		"another ledger":    {append([]entry{good[0], file("ledger.db", "not a ledger at all")}, good[2:]...), bounds, "its ledger is not sound"},
		"too many":          {good, Bounds{Files: 10, Bytes: 1 << 30}, "more than 10 files"},
		"too large":         {good, Bounds{Files: 1000, Bytes: 20_000}, "more than 20000 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			data, dir := pack(t, test.entries), t.TempDir()
			_, err := Of(dir).Restore(t.Context(), bytes.NewReader(data), test.bounds)
			_, err2 := CheckArchive(t.Context(), bytes.NewReader(data), test.bounds)
			if !errors.Is(err, ErrRefused) || !errors.Is(err2, ErrRefused) || !strings.Contains(err.Error(), test.want) || err.Error() != strings.ReplaceAll(err2.Error(), "mayfly-verify", "") {
				t.Errorf("restore: %v\ncheck: %v\nwant %q", err, err2, test.want)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left %v, %v", left, err)
			}
		})
	}
}

// FuzzArchive reads anything without a panic, and nothing outside of its folder.
func FuzzArchive(f *testing.F) {
	f.Add([]byte("no archive"))
	f.Add(pack(f, []entry{{tar.Header{Typeflag: tar.TypeReg, Name: "mayfly-backup.json", Mode: 0o600}, `{"version":1}`}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := CheckArchive(t.Context(), bytes.NewReader(data), Bounds{Files: 100, Bytes: 1 << 20})
		if err != nil && !errors.Is(err, ErrRefused) && !errors.Is(err, ledger.ErrCorrupt) && !errors.Is(err, ledger.ErrForeign) && !errors.Is(err, ledger.ErrNewer) {
			t.Error(err)
		}
	})
}
