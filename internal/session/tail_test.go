package session

import (
	"strings"
	"testing"
)

func TestTailKeepsTheEnd(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{
		{"nothing", "", ""},
		{"less than it keeps", "one\ntwo\n", "one\ntwo"},
		{"more", strings.Repeat("x", 95) + "12345678\n", "(94 bytes before this were dropped)\nx12345678"},
		{"not UTF-8", "a\xffb", "a?b"},
	} {
		tail := newTail(10)
		tail.read(strings.NewReader(test.in), func() { t.Errorf("%s: stopped", test.name) })
		if got := tail.String(); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestTailOfAFloodIsBounded(t *testing.T) {
	tail := newTail(10)
	for range 100_000 {
		tail.add([]byte("0123456789abcdef"))
	}
	if cap(tail.kept) > 100 {
		t.Errorf("a flood takes %d bytes", cap(tail.kept))
	}
}

func TestTailStopsAFlood(t *testing.T) {
	tail, stopped := newTail(10), 0
	rest := strings.NewReader(strings.Repeat("x", maxLog+64<<10))
	tail.read(rest, func() { stopped++ })
	if stopped != 1 || !tail.flooded() || rest.Len() == 0 {
		t.Errorf("stopped %d times, flooded %v, %d bytes not read", stopped, tail.flooded(), rest.Len())
	}
}

func TestSafeName(t *testing.T) {
	for in, want := range map[string]string{
		"cat.png": "cat.png", "../../etc/passwd": ".._.._etc_passwd", "..": "file", "": "file", ".": "file",
		"a\nb": "a_b", "c:\\d": "c:_d", strings.Repeat("x", 300): "file", "a\xffb": "a_b", "naïve 名": "naïve 名",
	} {
		if got := safeName(in); got != want {
			t.Errorf("safeName(%q) is %q, want %q", in, got, want)
		}
	}
}
