//go:build linux && (amd64 || arm64)

package inject

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

func TestCallsAreSeenAndFail(t *testing.T) {
	dir := t.TempDir()
	var seen []string
	var failed error
	err := Run(dir, func(c Call) Answer {
		seen = append(seen, c.Name)
		if c.Effect == Sync {
			return Answer{Errno: syscall.EIO}
		}
		return Answer{}
	}, func() {
		f, err := os.Create(filepath.Join(dir, "a"))
		if err != nil {
			failed = err
			return
		}
		_, err = f.WriteString("hello")
		failed = errors.Join(err, f.Sync(), f.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(seen, []string{"openat", "write", "fsync"}) || !errors.Is(failed, syscall.EIO) {
		t.Errorf("%q were seen, and %v came of them", seen, failed)
	}
}

func TestHalfAWrite(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a")
	writes := 0
	err := Run(filepath.Dir(name), func(c Call) Answer {
		if c.Effect == Write {
			writes++
		}
		return Answer{Half: writes == 1}
	}, func() {
		if err := os.WriteFile(name, []byte("hello, world"), 0o600); err != nil {
			t.Error(err)
		}
	})
	if text, _ := os.ReadFile(name); err != nil || string(text) != "hello, world" || writes != 2 {
		t.Errorf("%q after %d writes, %v", text, writes, err)
	}
}

func TestElsewhereIsLeftAlone(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	err := Run(dir, func(Call) Answer { return Answer{Errno: syscall.EIO} }, func() {
		if err := os.WriteFile(filepath.Join(other, "a"), nil, 0o600); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
