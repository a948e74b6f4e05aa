package stage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mayfly/internal/bot"
	"mayfly/internal/sandbox/wire"
	"mayfly/internal/storage"
)

// tmpfs mounts one as the stage does.
func tmpfs(t *testing.T, size int64, inodes int) wire.Dir {
	t.Helper()
	dir := t.TempDir()
	options := fmt.Sprintf("size=%d,nr_inodes=%d,mode=0700", size, inodes)
	if err := unix.Mount("tmpfs", dir, "tmpfs", mountFlags(), options); err != nil {
		t.Fatalf("mount: %v: this test runs as root", err)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return wire.Dir{Path: dir, Size: size, Inodes: inodes}
}

// deepTree nests folders deeper than any path can say.
func deepTree(dir string, depth int) error {
	at, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for range depth {
		if err != nil {
			return err
		}
		if err := unix.Mkdirat(at, "d", 0o700); err != nil {
			return err
		}
		var next int
		next, err = unix.Openat(at, "d", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(at)
		at = next
	}
	return errors.Join(err, unix.Close(at))
}

func manyFiles(dir string, n int) error {
	for i := range n {
		f, err := os.Create(fmt.Sprintf("%s/%d", dir, i))
		if err != nil {
			return err
		}
		f.Close()
	}
	return nil
}

// TestHostileFolders: whatever a program leaves, storage either keeps it as it is or says to its author, in one line, what is
// wrong with which file and what to do; then nothing is left on disk.
func TestHostileFolders(t *testing.T) {
	const size = 16 << 20
	text := func(dir, name, content string) error {
		return os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600)
	}
	tests := []struct {
		name string
		make func(dir string) error
		says string // empty: it is kept
	}{
		{"a sparse terabyte", func(d string) error {
			return errors.Join(text(d, "big", ""), os.Truncate(d+"/big", 1<<40))
		}, `with "big", which has 1099511627776 bytes, the files have more than the 16777216 bytes that the folder has room for: a file with holes`},
		{"a tree of 100,000 levels", func(d string) error { return deepTree(d, 100_000) }, `is nested deeper than 32 folders: nest less`},
		{"a tree of 17 levels", func(d string) error { return deepTree(d, 17) }, `is more than 16 folders deep: nest less`},
		{"100,000 files", func(d string) error { return manyFiles(d, 100_000) }, `there are more than 5000 files and folders: delete some`},
		{"a hundred names of one file", func(d string) error {
			err := text(d, "0", strings.Repeat("x", 1<<20))
			for i := range 100 {
				err = errors.Join(err, os.Link(d+"/0", fmt.Sprintf("%s/%d", d, i+1)))
			}
			return err
		}, `or with several names, counts whole each time`},
		{"two names of one file", func(d string) error { return errors.Join(text(d, "a", "x"), os.Link(d+"/a", d+"/b")) }, ""},
		{"a link to a host's file", func(d string) error { return os.Symlink("/etc/shadow", d+"/a") }, `"a" is a symbolic link: only files and folders can be kept: remove it`},
		{"a link to a folder", func(d string) error { return errors.Join(os.Mkdir(d+"/f", 0o700), os.Symlink(".", d+"/f/l")) }, `"f/l" is a symbolic link`},
		{"a named pipe", func(d string) error { return unix.Mkfifo(d+"/p", 0o600) }, `"p" is a named pipe`},
		{"a socket", func(d string) error { return unix.Mknod(d+"/s", unix.S_IFSOCK|0o600, 0) }, `"s" is a socket`},
		{"a device", func(d string) error { return unix.Mknod(d+"/null", unix.S_IFCHR|0o600, 0x103) }, `"null" is a device`},
		{"a name that is not UTF-8", func(d string) error { return text(d, "a\xff", "") }, `the name "a\xff" is not UTF-8: rename it`},
		{"a folder that is not UTF-8", func(d string) error { return os.Mkdir(d+"/\xff", 0o700) }, `the name "\xff" is not UTF-8: rename it`},
		{"a name with a newline", func(d string) error { return text(d, "a\nb", "") }, `the name "a\nb" has a control character: rename it`},
		{"odd but honest names", func(d string) error {
			return errors.Join(text(d, "..x", "1"), text(d, `a\b`, "2"), text(d, " ", "3"), text(d, "-rf", "4"), text(d, "ü\u202e", "5"), text(d, strings.Repeat("n", 255), "6"))
		}, ""},
		{"what is closed to its owner", func(d string) error {
			return errors.Join(os.Mkdir(d+"/f", 0o700), text(d, "f/a", "x"), os.Chmod(d+"/f/a", 0), os.Chmod(d+"/f", 0), os.Chmod(d, 0))
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := tmpfs(t, size, 200_000)
			if err := tt.make(d.Path); err != nil {
				t.Fatal(err)
			}
			root := t.TempDir()
			err := keep(t, root, d)
			if tt.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil {
				t.Fatal("it was kept")
			}
			why := storage.Explain(err)
			if !strings.HasPrefix(why, "the folder was not kept: ") || !strings.Contains(why, tt.says) || strings.Contains(why, d.Path) || strings.Contains(why, "storage:") || len(why) > 500 {
				t.Errorf("the author reads %q", why)
			}
			if left, _ := filepath.Glob(root + "/*/folder/*"); len(left) != 0 {
				t.Errorf("left on disk: %q", left)
			}
			if left, _ := filepath.Glob(root + "/*/folder/.*"); len(left) != 0 {
				t.Errorf("left on disk: %q", left)
			}
		})
	}
}

// keep packs a folder as the stage does, without a right to files of others, and imports it as the daemon does.
func keep(t *testing.T, root string, d wire.Dir) error {
	t.Helper()
	s, err := storage.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ours, theirs, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{fmt.Sprintf("%s=%s %d", packVariable, d.Path, d.Size)}
	cmd.ExtraFiles, cmd.Stderr = []*os.File{theirs}, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	_, _, err = s.Import(t.Context(), bot.Address("dice@relay.example"), storage.Folder, 0, ours.Stream(),
		storage.FolderRules(storage.DefaultQuota, storage.DefaultChange, nil))
	if err == nil {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		return nil
	}
	_ = cmd.Process.Kill() // it may wait for us to read on
	_ = cmd.Wait()
	return err
}

const packVariable = "MAYFLY_TEST_PACK"

func TestMain(m *testing.M) {
	if order := os.Getenv(packVariable); order != "" {
		os.Exit(packMain(order))
	}
	os.Exit(m.Run())
}

// packMain is keep's other half.
func packMain(order string) int {
	var d wire.Dir
	if _, err := fmt.Sscan(order, &d.Path, &d.Size); err != nil {
		return 1
	}
	if err := shrink(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	control, err := wire.FileConn(os.NewFile(3, "control"))
	if err != nil {
		return 1
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(pack(w, d)) }()
	_ = control.SendStream(r) // its reader knows
	return 0
}
