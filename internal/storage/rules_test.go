package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestStatsAreASentence(t *testing.T) {
	for _, c := range []struct {
		stats Stats
		want  string
	}{
		{Stats{}, "kept nothing new"},
		{Stats{Files: 9, Bytes: 1 << 20}, "kept nothing new"},
		{Stats{Changed: 3, ChangedBytes: 12_345}, "kept 3 files, 12 kB"},
		{Stats{Changed: 1, ChangedBytes: 0}, "kept 1 file, 0 B"},
		{Stats{Changed: 1, ChangedBytes: 999}, "kept 1 file, 999 B"},
		{Stats{Changed: 5000, ChangedBytes: 31_999_999}, "kept 5000 files, 32 MB"},
		{Stats{Removed: 2}, "removed 2 files"},
		{Stats{Changed: 1, ChangedBytes: 1500, Removed: 1}, "kept 1 file, 1.5 kB, removed 1 file"},
		{Stats{Folders: 1}, "made or removed 1 folder"},
		{Stats{Changed: 2, ChangedBytes: 20, Folders: 2}, "kept 2 files, 20 B, made or removed 2 folders"},
	} {
		if got := c.stats.String(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.stats, got, c.want)
		}
	}
}

type stageError struct{}

func (stageError) Error() string { return "stream given up: \"p\" is a pipe" }
func (stageError) Told() string  { return "\"p\" is a \x1b[31mpipe\xff" }

// TestAuthorsAreTold: what a bot's author reads of a folder that breaks the rules, word for word.
func TestAuthorsAreTold(t *testing.T) {
	rules := Rules{Files: 3, Depth: 2, Name: 8, Bytes: 100_000, File: 50_000, Change: 60_000}
	x := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct {
		folder tree
		want   string
	}{
		{tree{"data/log": x(50_001)}, `"data/log" has 50 kB, a file may have 50kB: store less in it`},
		{tree{"a": x(50_000), "b": x(10_001)}, `with "b", which has 10 kB, more than 60kB have changed in this run: change less at a time; a file that changed counts whole`},
		{tree{"a": "", "b": "", "c": "", "d": ""}, `with "d" there are more than 3 files and folders: delete some, or store several things in one file`},
		{tree{"a/b/c": ""}, `"a/b/c" is more than 2 folders deep: nest less`},
		{tree{"chats/too long a name": ""}, `the name "too long a name" is longer than 8 bytes: shorten it`},
		{tree{"a\tb": ""}, `the name "a\tb" has a control character: rename it`},
	} {
		s := openStore(t, t.TempDir())
		_, _, err := s.Import(t.Context(), dice, Folder, 0, bytes.NewReader(pack(t, c.folder)), rules)
		if err == nil || Explain(err) != "the folder was not kept: "+c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
	s := openStore(t, t.TempDir())
	base, _ := load(t, s, 0, tree{"a": x(50_000)})
	_, _, err := s.Import(t.Context(), dice, Folder, base, bytes.NewReader(pack(t, tree{"a": x(50_000), "b": x(50_000), "c": "x"})), rules)
	want := `the folder was not kept: with "c", which has 1 B, there are more than 100kB in all: delete some files`
	if err == nil || Explain(err) != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	err = fmt.Errorf("storage: import: %w", stageError{})
	if got := Explain(err); got != `the folder was not kept: "p" is a ?[31mpipe?` {
		t.Errorf("a stage's words: %q", got)
	}
	if got := Explain(context.Canceled); got != "the folder was not kept: context canceled" {
		t.Error(got)
	}
}

func TestFolderRules(t *testing.T) {
	if r := FolderRules(1_000_000, DefaultChange, nil); r.Bytes != 1_000_000 || r.Change != 1_000_000 || r.File != 1_000_000 {
		t.Errorf("a small quota: %+v", r)
	}
}

// mounted is a tmpfs as a run gets it.
func mounted(t *testing.T, size int64, inodes int) string {
	t.Helper()
	dir := t.TempDir()
	options := fmt.Sprintf("size=%d,nr_inodes=%d", size, inodes)
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", options, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s: this test runs as root", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

func writeAll(dir string, folder tree) error {
	for name, content := range folder {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(name+".new", []byte(content), 0o600); err != nil {
			return err
		}
		if err := os.Rename(name+".new", name); err != nil {
			return err
		}
	}
	return nil
}

// TestRoom: a run's tmpfs, which counts whole pages, holds the generation and every change that the rules allow. Without the
// changes it is hardly larger than what is there.
func TestRoom(t *testing.T) {
	rules := Rules{Files: 3000, Depth: 4, Name: 255, Bytes: 12_000_000, File: 4_000_000, Change: 4_000_000}
	for _, c := range []struct {
		name         string
		base, change tree
	}{
		{"nothing", tree{}, tree{}},
		{"thousands of tiny files", tree{}, files(3000, 7)},
		{"tiny files beside a full quota", tree{"a": files(1, 4_000_000)["0000000"], "b": files(1, 4_000_000)["0000000"], "c": files(1, 3_979_000)["0000000"]}, files(2997, 7)},
		{"files just beyond a page", files(2900, 4097), files(900, 4097)},
		{"everything rewritten", files(10, 400_000), files(10, 399_999)},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openStore(t, t.TempDir())
			base, _, err := s.Import(t.Context(), dice, Folder, 0, bytes.NewReader(pack(t, c.base)), Rules{Files: 3000, Depth: 4, Name: 255, Bytes: 1 << 30, File: 1 << 30, Change: 1 << 30})
			must(t, err)
			room, err := s.Room(dice, Folder, base, rules)
			must(t, err)
			dir := mounted(t, room.Bytes, room.Inodes)
			must(t, writeAll(dir, c.base))
			must(t, writeAll(dir, c.change))
			if most := rules.Bytes + int64(rules.Files)*4096; room.Bytes > most {
				t.Errorf("room for %d bytes, the quota with every file's last page is %d", room.Bytes, most)
			}
		})
	}
	s := openStore(t, t.TempDir())
	one, err := s.Room(dice, Folder, 0, Rules{Files: 1, Bytes: 12_000_000, Change: 4_000_000})
	must(t, err)
	must(t, writeAll(mounted(t, one.Bytes, one.Inodes), files(1, 4_000_000)))
	empty, err := s.Room(dice, Folder, 0, FolderRules(DefaultQuota, DefaultChange, nil))
	if err != nil || empty.Bytes > DefaultChange+5000*4096 || empty.Inodes != 5002 {
		t.Errorf("for an empty folder: %+v, %v", empty, err)
	}
	if _, err := s.Room(dice, Folder, 9, rules); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a generation that is not there: %v", err)
	}
}

// TestRoomUnderStricterRules: a folder that has become too large can still be copied in, for the bot to make it smaller.
func TestRoomUnderStricterRules(t *testing.T) {
	s := openStore(t, t.TempDir())
	folder := files(90, 10_000)
	base, _ := load(t, s, 0, folder)
	room, err := s.Room(dice, Folder, base, Rules{Files: 10, Bytes: 1000, Change: 1000})
	must(t, err)
	must(t, writeAll(mounted(t, room.Bytes, room.Inodes), folder))
}
