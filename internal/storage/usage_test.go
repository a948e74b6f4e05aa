package storage

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"mayfly/internal/bot"
)

// Usage counts what lies on the disk, whatever it is, and what has two names once.
func TestUsage(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	usage := func() int64 {
		t.Helper()
		n, err := s.Usage()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	empty := usage()
	const addr, size = bot.Address("dice@example.org"), 1 << 20
	digest := "00112233445566778899aabbccddeeff"
	if err := s.PutBundle(addr, digest, []File{{Path: "a/data", Data: bytes.Repeat([]byte("x"), size)}}); err != nil {
		t.Fatal(err)
	}
	one := usage()
	if more := one - empty; more < size || more > size+100_000 {
		t.Errorf("a file of %d bytes takes %d", size, more)
	}
	if of, err := s.UsageOf(addr); err != nil || of < size || of > one {
		t.Errorf("the bot takes %d, %v", of, err)
	}
	if of, err := s.UsageOf("nobody@example.org"); err != nil || of != 0 {
		t.Errorf("a bot that is not there takes %d, %v", of, err)
	}
	file := filepath.Join(dir, string(addr), "bundle", digest, "a", "data")
	if err := os.Link(file, file+"2"); err != nil {
		t.Fatal(err)
	}
	if two := usage(); two != one {
		t.Errorf("a second name takes %d bytes", two-one)
	}
	if err := s.Remove(addr); err != nil {
		t.Fatal(err)
	}
	if n := usage(); n != empty {
		t.Errorf("%d bytes left, %d before", n, empty)
	}
}
