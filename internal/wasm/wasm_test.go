package wasm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"mayfly/internal/wasm/wasmtest"
)

const testMemory = "67108864"

// makeDirs makes a sandbox's directories with a module main.wasm in the bundle.
func makeDirs(t testing.TB, module []byte) Dirs {
	t.Helper()
	dir := t.TempDir()
	d := Dirs{Bundle: dir + "/bundle", Compiled: dir + "/compiled", Attachments: dir + "/attachments", Storage: dir + "/storage", Tmp: dir + "/tmp"}
	for _, name := range []string{d.Bundle, d.Compiled, d.Attachments, d.Storage, d.Tmp} {
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, d.Bundle+"/main.wasm", string(module))
	return d
}

func write(t testing.TB, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// compileIn compiles main.wasm and returns the report, or what else was said, and the exit code.
func compileIn(t testing.TB, d Dirs, limit ...string) (report, int) {
	t.Helper()
	var out, why bytes.Buffer
	code := Compile(t.Context(), d, &out, &why, append([]string{"main.wasm"}, limit...))
	if code == exitInternal {
		return report{Message: why.String()}, code
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || strings.Count(out.String(), "\n") != 1 || why.Len() > 0 {
		t.Fatalf("no report: %q, %q, %v", out.String(), why.String(), err)
	}
	return r, code
}

type result struct {
	code        int
	out, stderr string
}

// runIn runs main.wasm as a process of the environment env.
func runIn(t testing.TB, d Dirs, stdin string, env ...string) result {
	t.Helper()
	var out, why bytes.Buffer
	code := Run(t.Context(), d, strings.NewReader(stdin), &out, &why, env, []string{"main.wasm", testMemory})
	return result{code, out.String(), why.String()}
}

// worldIn checks the module's clocks and returns its random number.
func worldIn(t *testing.T, d Dirs) string {
	t.Helper()
	var now int64
	var slept bool
	got := runIn(t, d, "world")
	_, err := fmt.Sscan(got.out, &now, &slept)
	if err != nil || !slept || time.Since(time.Unix(now, 0)).Abs() > time.Minute {
		t.Errorf("the clocks: %+v, %v", got, err)
	}
	_, random, _ := strings.Cut(got.out, "[")
	return random
}

// TestGuest runs a module that the Go compiler made.
func TestGuest(t *testing.T) {
	d := makeDirs(t, wasmtest.Build(t, "testdata/guest"))
	if r, code := compileIn(t, d, testMemory); r != (report{Status: "OK"}) || code != exitOK {
		t.Fatalf("compiled: %+v, code %d", r, code)
	}
	write(t, d.Bundle+"/note", "a note")
	write(t, d.Attachments+"/photo", "a photo")
	write(t, d.Tmp+"/../secret", "a secret")
	tests := []struct {
		name, stdin string
		want        result
	}{
		{"streams", "echo\none\ntwo", result{0, "one\ntwo", "to stderr\n"}},
		{"arguments", "args", result{0, "[\"main.wasm\"]\n", ""}},
		{"environment", "env BOT", result{0, "a=b 2\n", ""}},
		{"exit code", "exit 75", result{75, "", ""}},
		{"exit code beyond a byte", "exit 256", result{255, "", ""}},
		{"bundle", "read /bundle/note", result{0, "a note\n", ""}},
		{"attachments", "read /attachments/photo", result{0, "a photo\n", ""}},
		{"storage", "write /storage/new", result{0, "", ""}},
		{"append", "append /storage/new", result{0, "", ""}},
		{"rename", "rename /storage/new /storage/newer", result{0, "", ""}},
		{"tmp", "write /tmp/new", result{0, "", ""}},
		{"list", "list /tmp", result{0, "[- new]\n", ""}},
		{"remove", "remove /tmp/new", result{0, "", ""}},
		{"nothing there", "read /storage/none", result{0, "\nerror: open /storage/none: No such file or directory\n", ""}},
		{"elsewhere", "read /secret", result{0, "\nerror: open /secret: Bad file number\n", ""}},
		{"out by dots", "read /storage/../secret", result{0, "\nerror: open /storage/../secret: Bad file number\n", ""}},
		{"write to the bundle", "write /bundle/new", result{0, "error: open /bundle/new: Read-only file system\n", ""}},
		{"write to the attachments", "write /attachments/new", result{0, "error: open /attachments/new: Read-only file system\n", ""}},
		{"remove from the bundle", "remove /bundle/note", result{0, "error: remove /bundle/note: Read-only file system\n", ""}},
		{"link to elsewhere", "link /etc/passwd /storage/passwd", result{0, "error: symlink /etc/passwd /storage/passwd: Operation not permitted\n", ""}},
		{"sockets", "connect 127.0.0.1:25", result{0, "error: dial tcp 127.0.0.1:25: address 127.0.0.1:25: connect: Connection refused\n", ""}},
		{"memory", "memory 20", result{0, "has 20\n", ""}},
	}
	for _, tt := range tests {
		if got := runIn(t, d, tt.stdin, "BOT=a=b", "HOME=/storage", "=odd", "odd"); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
	if got := read(t, d.Storage+"/newer"); got != "guestmore" {
		t.Errorf("the file in /storage holds %q", got)
	}
	one, other := worldIn(t, d), worldIn(t, d)
	if one == other {
		t.Errorf("the same random number twice: %s", one)
	}
	if got := runIn(t, d, "panic oh"); got.code != 2 || !strings.HasPrefix(got.stderr, "panic: oh\n") {
		t.Errorf("panic: %+v", got)
	}
	if got := runIn(t, d, "memory 200"); got.code != 2 || !strings.Contains(got.stderr, "out of memory") {
		t.Errorf("memory beyond the limit: %+v", got)
	}
}
