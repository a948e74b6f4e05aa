package session

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// tail keeps the last bytes that a program writes, where the error is, and counts the rest, so that a flood costs no memory.
type tail struct {
	mu    sync.Mutex
	max   int
	kept  []byte // at most twice max
	total int64
	ended chan struct{}
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
	t.total += int64(len(b))
	t.kept = append(t.kept, b...)
	if len(t.kept) > 2*t.max {
		t.kept = append(t.kept[:0], t.kept[len(t.kept)-t.max:]...)
	}
}

// String is what was kept, as valid UTF-8, with a line on what was not.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	kept := t.kept[max(0, len(t.kept)-t.max):]
	text := strings.TrimSpace(strings.ToValidUTF8(string(kept), "?"))
	if dropped := t.total - int64(len(kept)); dropped > 0 {
		return fmt.Sprintf("(%d bytes before this were dropped)\n%s", dropped, text)
	}
	return text
}
