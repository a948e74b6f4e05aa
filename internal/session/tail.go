package session

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// tail keeps the first bytes that a program writes and counts the rest, so that a flood costs no memory.
type tail struct {
	mu      sync.Mutex
	max     int
	kept    []byte
	dropped int64
	ended   chan struct{}
}

func newTail(max int) *tail { return &tail{max: max, ended: make(chan struct{})} }

// read takes everything from r until it ends.
func (t *tail) read(r io.Reader) {
	defer close(t.ended)
	buf := make([]byte, 8<<10)
	for {
		n, err := r.Read(buf)
		t.add(buf[:n])
		if err != nil {
			return
		}
	}
}

func (t *tail) add(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	keep := min(len(b), t.max-len(t.kept))
	t.kept = append(t.kept, b[:keep]...)
	t.dropped += int64(len(b) - keep)
}

// String is what was kept, as valid UTF-8, with a line on what was not.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := strings.TrimSpace(strings.ToValidUTF8(string(t.kept), "?"))
	if t.dropped > 0 {
		s += fmt.Sprintf("\n(%d bytes more were dropped)", t.dropped)
	}
	return s
}
