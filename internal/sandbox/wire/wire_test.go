package wire

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// TestPathsOfPrograms holds which executables a System Spec may name.
func TestPathsOfPrograms(t *testing.T) {
	for path, good := range map[string]bool{
		"/usr/bin/python3": true, "/bundle/bot": true, "/bundle/bin/bot": true,
		"/usr": false, "/bundle": false, "/usr/../etc/x": false, "/storage/bot": false, "/bin/sh": false, "usr/bin/sh": false, "/usr/bin/\x00": false,
	} {
		s := Spec{Name: "x", Memory: 64 << 20, Pids: 64, Wall: time.Second, System: true,
			Dirs:     []Dir{{Path: "/bundle", Size: 1 << 20, Inodes: 10, Exec: true}, {Path: "/storage", Size: 1 << 20, Inodes: 10, Writable: true}},
			Programs: []Program{{Name: "main", Path: path, Profile: ProfileNative}}}
		if err := s.Check(); (err == nil) != good {
			t.Errorf("%q: %v", path, err)
		}
		s.Programs[0].Profile = ProfileCore
		if err := s.Check(); err == nil {
			t.Errorf("%q runs under the profile core", path)
		}
	}
}

func goodSpec() Spec {
	return Spec{
		Name: "bot-1", Memory: 64 << 20, Pids: 64, Wall: time.Second,
		Dirs:   []Dir{{Path: "/account", Size: 1 << 20, Inodes: 10, Writable: true}},
		Listen: []uint16{143},
		Programs: []Program{{Name: "core", Binary: true, Profile: ProfileCore, Dir: "/account/x"},
			{Name: "reader", Builtin: "account-reader", Profile: ProfileWorker}},
	}
}

func TestCheckBoundsEveryField(t *testing.T) {
	good := goodSpec()
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	if good.Files() != 8 || good.Limit() != 65<<20 {
		t.Errorf("%d files, limit %d; want 8 and 65 MB", good.Files(), good.Limit())
	}
	tests := map[string]func(*Spec){
		"name \"\"":        func(s *Spec) { s.Name = "" },
		"name \"../x\"":    func(s *Spec) { s.Name = "../x" },
		"memory 1":         func(s *Spec) { s.Memory = 1 },
		"memory 8589":      func(s *Spec) { s.Memory = 8 << 30 },
		"pids 0":           func(s *Spec) { s.Pids = 0 },
		"pids 100000":      func(s *Spec) { s.Pids = 100000 },
		"wall clock 0s":    func(s *Spec) { s.Wall = 0 },
		"wall clock 25h":   func(s *Spec) { s.Wall = 25 * time.Hour },
		"cpu time -1":      func(s *Spec) { s.CPU = -1 },
		"17 directories":   func(s *Spec) { s.Dirs = make([]Dir, 17) },
		"\"/a/b\"":         func(s *Spec) { s.Dirs[0].Path = "/a/b" },
		"\"/..\"":          func(s *Spec) { s.Dirs[0].Path = "/.." },
		"\"account\"":      func(s *Spec) { s.Dirs[0].Path = "account" },
		"twice":            func(s *Spec) { s.Dirs = append(s.Dirs, s.Dirs[0]) },
		"size -1":          func(s *Spec) { s.Dirs[0].Size = -1 },
		"size 1099":        func(s *Spec) { s.Dirs[0].Size = 1 << 40 },
		"0 inodes":         func(s *Spec) { s.Dirs[0].Inodes = 0 },
		"port 0":           func(s *Spec) { s.Listen = []uint16{0} },
		"port 143":         func(s *Spec) { s.Listen = []uint16{143, 143} },
		"9 programs":       func(s *Spec) { s.Programs = make([]Program, 9) },
		"\"core\" twice":   func(s *Spec) { s.Programs[1].Name = "core" },
		"program name":     func(s *Spec) { s.Programs[0].Name = "a b" },
		"one of builtin":   func(s *Spec) { s.Programs[0].Builtin = "worker" },
		"profile \"root\"": func(s *Spec) { s.Programs[0].Profile = "root" },
		"none of the":      func(s *Spec) { s.Programs[0].Dir = "/account/../.." },
		"NUL":              func(s *Spec) { s.Programs[0].Env = []string{"A=\x00"} },
		"neither in /usr":  func(s *Spec) { s.Programs[1] = Program{Name: "x", Path: "/usr/bin/sh", Profile: ProfileNative} },
		"cannot be exec":   func(s *Spec) { s.Dirs[0].Exec = true },
		"system's root":    func(s *Spec) { s.System, s.Dirs[0].Path, s.Programs[0].Dir = true, "/etc", "" },
		"1 origins":        func(s *Spec) { s.Origins = []Origin{{"api.example.org", 443}} },
		"origin \"a b\"":   func(s *Spec) { s.System, s.Origins = true, []Origin{{"a b", 443}} },
		"257 arguments":    func(s *Spec) { s.Programs[0].Args = make([]string, 257) },
	}
	for want, spoil := range tests {
		s := goodSpec()
		spoil(&s)
		err := s.Check()
		want = strings.TrimPrefix(want, "257 ")
		if !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func pair(t *testing.T) (*Conn, *Conn) {
	t.Helper()
	a, f, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	b, err := FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestFramesCarryFiles(t *testing.T) {
	a, b := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := a.Send(KindHello, []byte("x"), w); err != nil {
		t.Fatal(err)
	}
	w.Close()
	f, err := b.Read()
	if err != nil || f.Kind != KindHello || string(f.Payload) != "x" || len(f.Files) != 1 {
		t.Fatalf("%+v, %v", f, err)
	}
	f.Files[0].WriteString("through")
	f.CloseFiles()
	if got, err := io.ReadAll(r); err != nil || string(got) != "through" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestFrameLimit(t *testing.T) {
	a, b := pair(t)
	if err := a.Send(KindData, make([]byte, MaxFrame)); !errors.Is(err, ErrProtocol) {
		t.Errorf("sent an oversized frame: %v", err)
	}
	if _, err := a.Socket().Write(make([]byte, MaxFrame+1)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Read(); !errors.Is(err, ErrProtocol) {
		t.Errorf("read an oversized frame: %v", err)
	}
	a.Close()
	if _, err := b.Read(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestStream(t *testing.T) {
	broken := errors.New("the disk broke")
	tests := []struct {
		name string
		from io.Reader
		text string
		err  error
	}{
		{"long", strings.NewReader(strings.Repeat("x", 3*MaxFrame)), strings.Repeat("x", 3*MaxFrame), nil},
		{"empty", strings.NewReader(""), "", nil},
		{"given up", io.MultiReader(strings.NewReader("begin"), failing{broken}), "begin", ErrAborted},
	}
	for _, tt := range tests {
		a, b := pair(t)
		go a.SendStream(tt.from)
		got, err := io.ReadAll(b.Stream())
		if string(got) != tt.text || !errors.Is(err, tt.err) {
			t.Errorf("%s: %d bytes, %v; want %d, %v", tt.name, len(got), err, len(tt.text), tt.err)
		}
	}
	a, b := pair(t)
	a.Send(KindData, []byte("half"))
	a.Close()
	if _, err := io.ReadAll(b.Stream()); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a stream without an end: %v", err)
	}
}

func TestDrainLeavesTheNextFrame(t *testing.T) {
	a, b := pair(t)
	go func() {
		a.SendStream(bytes.NewReader(make([]byte, 2*MaxFrame)))
		a.Send(KindRequest, []byte("next"))
	}()
	s := b.Stream()
	s.Read(make([]byte, 10))
	if err := s.Drain(); err != nil {
		t.Fatal(err)
	}
	if f, err := b.Read(); err != nil || f.Kind != KindRequest {
		t.Errorf("%+v, %v", f, err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestSplitAndInside(t *testing.T) {
	s := goodSpec()
	for path, want := range map[string]bool{"/account": true, "/account/a/b": true, "/account/": false, "/account/../x": false, "/account/a//b": false,
		"/accounts": false, "/": false, "": false, "account/x": false, "/account/\x00": false} {
		if s.Inside(path) != want {
			t.Errorf("Inside(%q) is %v", path, !want)
		}
	}
	if dir, rest := Split("/account/a/b"); dir != "/account" || rest != "a/b" {
		t.Errorf("%q, %q", dir, rest)
	}
}
