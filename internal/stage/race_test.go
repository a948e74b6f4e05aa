package stage

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFilesThatAreSwapped opens a file ten thousand times while a bot swaps it, and its folder, for a link, a pipe, a shorter and a larger
// one. What is read is never another file's, and never more than was asked for.
func TestFilesThatAreSwapped(t *testing.T) {
	dir := t.TempDir()
	own, secret := bytes.Repeat([]byte("o"), 1000), []byte("canary")
	for name, content := range map[string][]byte{"elsewhere/f": secret, "elsewhere/d/f": secret, "d/f": own, "f": own} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stop, swapped := make(chan struct{}), make(chan error, 1)
	go func() { swapped <- swap(dir, own, stop) }()
	const size = 5000
	var whole, refused int
	for i := range 10_000 {
		f, err := openRegular(filepath.Join(dir, []string{"f", "d/f"}[i%2]), size)
		if err != nil {
			refused++
			continue
		}
		content, err := io.ReadAll(io.LimitReader(f, size)) // as get does
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		if left := bytes.Trim(content, "o\x00"); len(left) > 0 || len(content) > size {
			t.Fatalf("opened a file with %q, %d bytes", left, len(content))
		}
		whole++
	}
	close(stop)
	if err := <-swapped; err != nil {
		t.Fatal(err)
	}
	if whole == 0 || refused == 0 {
		t.Errorf("%d were opened, %d refused: nothing was raced", whole, refused)
	}
}

func swap(dir string, own []byte, stop <-chan struct{}) error {
	f, d, next := filepath.Join(dir, "f"), filepath.Join(dir, "d"), filepath.Join(dir, "next")
	replace := func(made error) error { return errors.Join(made, os.Rename(next, f)) }
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		if err := errors.Join(
			replace(os.Symlink("elsewhere/f", next)), replace(os.WriteFile(next, own, 0o600)), os.Truncate(f, 1<<30), os.Truncate(f, 10),
			replace(unix.Mkfifo(next, 0o600)), replace(os.Symlink("/proc/self/environ", next)), replace(os.WriteFile(next, own, 0o600)),
			os.Rename(d, d+"2"), os.Symlink("elsewhere/d", d), os.Remove(d), os.Rename(d+"2", d),
		); err != nil {
			return err
		}
	}
}
