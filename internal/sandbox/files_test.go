package sandbox

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

func listenLoopback(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

type entry struct{ name, body string }

func archive(t *testing.T, entries []entry) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Size: int64(len(e.body)), Mode: 0o600, Typeflag: tar.TypeReg}
		if strings.HasSuffix(e.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, e.body)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func unarchive(t *testing.T, r io.Reader) []entry {
	t.Helper()
	var entries []entry
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return entries
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, entry{h.Name, string(b)})
	}
}

func TestCollectGivesWhatPutTook(t *testing.T) {
	s := open(t, testSpec("write=/data/d/new", "wait"))
	big := strings.Repeat("0123456789abcdef", 30000) // several frames
	in := []entry{{"a", "first"}, {"d/", ""}, {"d/big", big}, {"d/empty", ""}}
	if err := s.Put("/data", archive(t, in)); err != nil {
		t.Fatal(err)
	}
	if err := s.PutFile("/data/d/later", 5, strings.NewReader("later")); err != nil {
		t.Fatal(err)
	}
	if err := s.Start("probe"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	s.Program("probe").Stdout.Read(buf) // the first report: it has written, and waits
	r, err := s.Collect("/data")
	if err != nil {
		t.Fatal(err)
	}
	out := unarchive(t, r)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	want := []entry{{"a", "first"}, {"d/", ""}, {"d/big", big}, {"d/empty", ""}, {"d/later", "later"}, {"d/new", "probe"}}
	if len(out) != len(want) {
		t.Fatalf("got %d entries, want %d", len(out), len(want))
	}
	for i := range want {
		if out[i] != want[i] {
			t.Errorf("entry %d: got %s, %d bytes, want %s, %d bytes", i, out[i].name, len(out[i].body), want[i].name, len(want[i].body))
		}
	}
	if exit, err := s.Wait(t.Context(), "probe"); err != nil || exit.Signal != 9 {
		t.Errorf("the program ended with %+v, %v; Collect should have killed it", exit, err)
	}
	if err := s.Start("probe"); err == nil {
		t.Error("a dead program could be started")
	}
}

func TestPutRefuses(t *testing.T) {
	s := open(t, testSpec())
	tests := []struct {
		name string
		err  error
		text string
	}{
		{"outside", s.Put("/elsewhere", archive(t, nil)), "none of the sandbox's directories"},
		{"parent", s.PutFile("/data/../fixed/x", 1, strings.NewReader("x")), "none of the sandbox's directories"},
		{"climbing entry", s.Put("/data", archive(t, []entry{{"../fixed/x", "x"}})), "escapes"},
		{"too big", s.PutFile("/data/x", 2<<20, strings.NewReader(strings.Repeat("x", 2<<20))), "no space left"},
		{"short", s.PutFile("/data/x", 10, strings.NewReader("x")), "1 bytes came, 10 were announced"},
		{"broken source", s.PutFile("/data/x", 10, io.MultiReader(strings.NewReader("x"), broken{})), errBroken.Error()},
		{"no archive", s.Put("/data", strings.NewReader(strings.Repeat("junk", 1000))), "tar"},
	}
	for _, tt := range tests {
		if tt.err == nil || !strings.Contains(tt.err.Error(), tt.text) {
			t.Errorf("%s: got %v, want %q", tt.name, tt.err, tt.text)
		}
	}
	r, err := s.Collect("/data")
	if err != nil {
		t.Fatal(err)
	}
	if left := unarchive(t, r); len(left) != 0 {
		t.Errorf("refused files have left %v", left)
	}
}

var errBroken = errors.New("the source broke")

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errBroken }

func TestGetFile(t *testing.T) {
	s := open(t, testSpec("files=/data"))
	if err := s.Put("/data", archive(t, []entry{{"d/f", "content"}})); err != nil {
		t.Fatal(err)
	}
	if b, err := s.GetFile("/data/d/f", 7); err != nil || string(b) != "content" {
		t.Errorf("got %q, %v", b, err)
	}
	tests := []struct {
		path string
		max  int64
		want error
	}{
		{"/data/none", 7, ErrNotFound},
		{"/data/d/f", 6, ErrTooLarge},
		{"/data/d", 7, ErrNotRegular},
		{"/data", 7, ErrNotRegular},
	}
	for _, tt := range tests {
		if _, err := s.GetFile(tt.path, tt.max); !errors.Is(err, tt.want) {
			t.Errorf("%s up to %d: got %v, want %v", tt.path, tt.max, err, tt.want)
		}
	}
	if _, err := s.GetFile("/etc/passwd", 7); err == nil {
		t.Error("read a file outside of the directories")
	}
}

func TestSeal(t *testing.T) {
	s := open(t, testSpec("write=/data/new", "write=/data/f"))
	if err := s.Put("/data", archive(t, []entry{{"f", "x"}})); err != nil {
		t.Fatal(err)
	}
	if err := s.Seal("/data"); err != nil {
		t.Fatal(err)
	}
	if err := s.PutFile("/data/g", 1, strings.NewReader("x")); err == nil {
		t.Error("put a file into a sealed directory")
	}
	reports, _ := probe(t, s, "probe")
	for _, r := range reports {
		if r.Done {
			t.Errorf("%s succeeded in a sealed directory", r.Attempt)
		}
	}
	if len(reports) != 2 {
		t.Errorf("got %d reports, want 2", len(reports))
	}
	if err := s.Seal("/"); err == nil {
		t.Error("sealed what is none of the directories")
	}
}

func TestListenersAreOurs(t *testing.T) {
	spec := testSpec("connect=127.0.0.1:143", "connect=127.0.0.1:25")
	spec.Programs[0].Profile = ProfileCore
	spec.Listen = []uint16{143, 25}
	s := open(t, spec)
	for port, greeting := range map[uint16]string{143: "imap", 25: "smtp"} {
		go func() {
			c, err := s.Listener(port).Accept()
			if err == nil {
				io.WriteString(c, greeting)
				c.Close()
			}
		}()
	}
	reports, _ := probe(t, s, "probe")
	if len(reports) != 2 || reports[0].Text != "imap" || reports[1].Text != "smtp" {
		t.Errorf("got %+v", reports)
	}
	if s.Listener(80) != nil {
		t.Error("a listener that was not asked for")
	}
}
