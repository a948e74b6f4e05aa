package storage

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mayfly/internal/bot"
)

// TestFullDiskAtEveryWrite gives the disk one page, or one inode, more at a time, until an import succeeds: wherever it fails
// before, the base is as it was and nothing else is left.
func TestFullDiskAtEveryWrite(t *testing.T) {
	old := tree{"a": strings.Repeat("x", 5000), "dir/b": "kept"}
	change := maps.Clone(old)
	maps.Copy(change, tree{"a": strings.Repeat("y", 50_000), "new/deep/c": strings.Repeat("z", 9000), "new/d": "1", "empty/": ""})
	stream := pack(t, change)
	for option, grow := range map[string]func(dir string, used unix.Statfs_t, more uint64) error{
		"pages": func(dir string, used unix.Statfs_t, more uint64) error {
			return remount(dir, fmt.Sprintf("size=%d", (used.Blocks-used.Bfree+more)*uint64(used.Bsize)))
		},
		"inodes": func(dir string, used unix.Statfs_t, more uint64) error {
			return remount(dir, fmt.Sprintf("nr_inodes=%d", used.Files-used.Ffree+more))
		},
	} {
		t.Run(option, func(t *testing.T) {
			dir := mounted(t, 1<<20, 1000)
			s := openStore(t, dir)
			base, _ := load(t, s, 0, old)
			var used unix.Statfs_t
			must(t, unix.Statfs(dir, &used))
			for more := range uint64(100) {
				must(t, grow(dir, used, more))
				gen, _, err := s.Import(t.Context(), dice, Folder, base, bytes.NewReader(stream), generous())
				if err == nil {
					if more < 5 {
						t.Errorf("with %d more it was kept: the disk was not full", more)
					}
					if got := content(t, s, gen); got["new/deep/c"] != change["new/deep/c"] {
						t.Error("what was kept is not what came")
					}
					return
				}
				if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "free some space") {
					t.Fatalf("with %d more: %v", more, err)
				}
				unharmed(t, s, base, old)
			}
			t.Error("it was never kept")
		})
	}
}

func remount(dir, option string) error {
	if out, err := exec.Command("mount", "-o", "remount,"+option, dir).CombinedOutput(); err != nil {
		return fmt.Errorf("remount: %w: %s", err, out)
	}
	return nil
}

func unharmed(t *testing.T, s *Store, base bot.Generation, old tree) {
	t.Helper()
	if names := onDisk(t, s); !slices.Equal(names, []string{number(base)}) {
		t.Errorf("left on disk: %v", names)
	}
	got := content(t, s, base)
	maps.DeleteFunc(got, func(name, _ string) bool { return strings.HasSuffix(name, "/") })
	if !maps.Equal(got, old) {
		t.Errorf("the base changed: %v", got)
	}
}

// TestFullDiskWithManyFiles: on a real file system, where they are made durable together.
func TestFullDiskWithManyFiles(t *testing.T) {
	dir, _ := ext4(t, 8<<20)
	s := openStore(t, dir)
	if !canSyncAll(s.root) || canSyncAll(openStore(t, mounted(t, 1<<20, 100)).root) {
		t.Error("syncfs is trusted on ext4 alone, of the two")
	}
	old := tree{"a": "1", "b": strings.Repeat("x", 5000)}
	base, _ := load(t, s, 0, old)
	rules := FolderRules(DefaultQuota, DefaultChange, nil)
	_, _, err := s.Import(t.Context(), dice, Folder, base, bytes.NewReader(pack(t, files(200, 100_000))), rules)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("20 MB on a disk of 8: %v", err)
	}
	unharmed(t, s, base, old)
	many := files(100, 20_000)
	gen, _, err := s.Import(t.Context(), dice, Folder, base, bytes.NewReader(pack(t, many)), rules)
	must(t, err)
	if got := content(t, s, gen); !maps.Equal(got, many) {
		t.Errorf("%d files of %d were kept", len(got), len(many))
	}
}

// TestDurableWhenNumbered looks at the disk behind the file system's back, as it is when the plug is pulled: what has a number is
// whole there.
func TestDurableWhenNumbered(t *testing.T) {
	for _, n := range []int{1, few, few + 1, 300} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			dir, image := ext4(t, 16<<20)
			s := openStore(t, dir)
			base, _ := load(t, s, 0, tree{"old": "x"})
			folder := files(n, 5000)
			folder["old"], folder["f/g/h"] = "x", "deep"
			gen, _, err := s.Import(t.Context(), dice, Folder, base, bytes.NewReader(pack(t, folder)), FolderRules(DefaultQuota, DefaultChange, nil))
			must(t, err)
			run(t, "cp", image, image+"2")
			got := content(t, openStore(t, mountImage(t, image+"2")), gen)
			delete(got, "f/")
			delete(got, "f/g/")
			if !maps.Equal(got, folder) {
				t.Errorf("%d files of %d are left whole", len(got), len(folder))
			}
		})
	}
}

// ext4 makes a file system of its own, in an image, and mounts it.
func ext4(t *testing.T, size int64) (dir, image string) {
	t.Helper()
	image = t.TempDir() + "/disk"
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, size))
	run(t, "mkfs.ext4", "-q", image)
	return mountImage(t, image), image
}

func mountImage(t *testing.T, image string) string {
	t.Helper()
	dir := t.TempDir()
	run(t, "mount", "-o", "loop", image, dir)
	t.Cleanup(func() { run(t, "umount", dir) })
	return dir
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}

const killedVariable = "MAYFLY_TEST_KILLED"

// TestKilledImport kills the process that imports, with kill -9, at many places of the stream.
func TestKilledImport(t *testing.T) {
	if root := os.Getenv(killedVariable); root != "" {
		s := openStore(t, root)
		s.Import(t.Context(), dice, Folder, 1, os.Stdin, generous())
		return
	}
	root := t.TempDir()
	s := openStore(t, root)
	old := tree{"a": "1", "b": strings.Repeat("x", 5000)}
	base, _ := load(t, s, 0, old)
	change := files(20, 10_000)
	change["b"] = old["b"]
	stream := pack(t, change)
	for sent := 0; sent <= len(stream); sent += len(stream) / 10 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledImport$")
		cmd.Env = []string{killedVariable + "=" + root}
		stdin, err := cmd.StdinPipe()
		must(t, err)
		must(t, cmd.Start())
		stdin.Write(stream[:sent]) // what a pipe holds at the end may not have been read: so may it be in life
		must(t, cmd.Process.Kill())
		cmd.Wait()
		_, err = s.SweepAll(map[bot.Address]struct{ Account, Storage bot.Generation }{dice: {Storage: base}})
		must(t, err)
		unharmed(t, s, base, old)
	}
	if gen, _ := load(t, s, base, change); gen != 2 {
		t.Errorf("after that, the next is %d", gen)
	}
}
