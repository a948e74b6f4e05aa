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
	flood bool
}

// maxLog is how much a program may write to its stderr, in bytes: beyond what a script may log.
const maxLog = 2 << 20

func newTail(max int) *tail { return &tail{max: max, ended: make(chan struct{})} }

// read takes everything from r until it ends. More than maxLog is a flood: it is read no further, and stop is called.
func (t *tail) read(r io.Reader, stop func()) {
	defer close(t.ended)
	t.also(r, stop)
}

// also takes everything from another stream.
func (t *tail) also(r io.Reader, stop func()) {
	buf := make([]byte, 8<<10)
	for {
		n, err := r.Read(buf)
		if t.add(buf[:n]) {
			stop()
			return
		}
		if err != nil {
			return
		}
	}
}

// flooded reports whether more than maxLog was written.
func (t *tail) flooded() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.flood
}

// add reports whether it is a flood by now.
func (t *tail) add(b []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total += int64(len(b))
	t.flood = t.total > maxLog
	t.kept = append(t.kept, b...)
	if len(t.kept) > 2*t.max {
		t.kept = append(t.kept[:0], t.kept[len(t.kept)-t.max:]...)
	}
	return t.flood
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

// last is the last line that was written, where most programs say what went wrong.
func (t *tail) last() string {
	text := t.String()
	return text[strings.LastIndexByte(text, '\n')+1:]
}
