package sandbox

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mayfly/internal/bot"
	"mayfly/internal/storage"
)

// TestFolderOfARun is the way of a bot's folder: into a tmpfs as large as it needs, through the hands of a program, back to disk.
// When the program has broken the rules, the old one stands, and the author reads why.
func TestFolderOfARun(t *testing.T) {
	many := "i=0; while [ $i -lt 4800 ]; do echo $i > $i; i=$((i+1)); done; "
	tests := []struct {
		name, script string
		says         string // of what was kept
		refused      string
	}{
		{"nothing", "true", "kept nothing new", ""},
		{"one file", "echo new > old", "kept 1 file, 4 B", ""},
		{"files come and go", "mkdir d; echo 12345 > d/a; rm old", "kept 1 file, 6 B, removed 1 file, made or removed 1 folder", ""},
		{"thousands of tiny files", many, "kept 4800 files, 23 kB", ""},
		{"files that go on changing", "for i in 1 2 3; do while :; do echo x > busy$i; echo y > tmp$i; mv tmp$i busy$i; rm busy$i; done & done; sleep 0.2", "", ""},
		{"too many files", "seq 6000 | xargs touch; ls | wc -l >&2", "", `there are more than 5000 files and folders`},
		{"a link", "ln -s /etc/passwd l", "", `"l" is a symbolic link`},
		{"holes", "truncate -s 100M big", "", `"big", which has 104857600 bytes`},
		{"too much", "head -c 40M /dev/zero > big", "", `"big", which has 42 MB, more than 32MB have changed in this run`},
		{"deep", "i=0; while [ $i -lt 40 ]; do mkdir d; cd d; i=$((i+1)); done", "", "is nested deeper than 32 folders"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			store, err := storage.Open(root)
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			rules := storage.FolderRules(storage.DefaultQuota, storage.DefaultChange, nil)
			base, _, err := store.Import(t.Context(), folderBot, storage.Folder, 0, archive(t, []entry{{"old", "old"}, {"sub/", ""}, {"sub/kept", "kept"}}), rules)
			if err != nil {
				t.Fatal(err)
			}
			gen, stats, err := runOnFolder(t, store, base, rules, tt.script)
			if (err != nil) != (tt.refused != "") {
				t.Fatalf("%s, %v", stats, err)
			}
			if err != nil && !strings.Contains(storage.Explain(err), tt.refused) {
				t.Errorf("the author reads %q", storage.Explain(err))
			}
			if err == nil && tt.says != "" && stats.String() != tt.says {
				t.Errorf("the author reads %q, want %q", stats, tt.says)
			}
			if kept, err := os.ReadFile(filepath.Join(root, string(folderBot), "folder", "1", "old")); err != nil || string(kept) != "old" {
				t.Errorf("the old generation has %q, %v", kept, err)
			}
			left, _ := os.ReadDir(filepath.Join(root, string(folderBot), "folder"))
			if want := map[bool]int{true: 1, false: 2}[err != nil || gen == base]; len(left) != want {
				t.Errorf("%d generations on disk, want %d: %v", len(left), want, left)
			}
		})
	}
}

// runOnFolder runs a script of sh in a copy of a generation.
func runOnFolder(t *testing.T, store *storage.Store, base bot.Generation, rules storage.Rules, script string) (bot.Generation, storage.Stats, error) {
	t.Helper()
	room, err := store.Room(folderBot, storage.Folder, base, rules)
	if err != nil {
		t.Fatal(err)
	}
	spec := nativeSpec("/usr/bin/sh", "-c", fmt.Sprintf("cd /storage; %s; echo done; sleep 60", strings.TrimSuffix(strings.TrimSpace(script), ";")))
	spec.Dirs[1].Size, spec.Dirs[1].Inodes = room.Bytes, room.Inodes+2000 // beyond: so that the rules are what refuses
	s := open(t, spec)
	r, w := io.Pipe()
	go func() { w.CloseWithError(store.Export(folderBot, storage.Folder, base, w)) }()
	if err := s.Put("/storage", r); err != nil {
		t.Fatal(err)
	}
	if err := s.Start("main"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(s.Program("main").Stdout).ReadString('\n'); line != "done\n" {
		why, _ := io.ReadAll(s.Program("main").Stderr)
		t.Fatalf("the script said %q, %v: %s", line, err, why)
	}
	stream, err := s.Collect("/storage")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	return store.Import(t.Context(), folderBot, storage.Folder, base, stream, rules)
}
