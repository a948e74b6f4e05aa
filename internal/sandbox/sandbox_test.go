package sandbox

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// binary is mayfly-sandbox as built by TestMain, below a 0700 directory as in a home.
var binary string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "mayfly-sandbox-test")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "mayfly-sandbox")
	build := exec.Command("go", "build", "-o", binary, "mayfly/cmd/mayfly-sandbox")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build mayfly-sandbox: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

func TestSmoke(t *testing.T) {
	b, err := StartBroker(context.Background(), StartOptions{Binary: binary, Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	s, err := b.Client().Open(context.Background(), Spec{Name: "smoke", Memory: 64 << 20, Pids: 64, Wall: 10 * time.Second,
		Dirs:     []Dir{{Path: "/data", Size: 1 << 20, Inodes: 100, Writable: true}},
		Programs: []Program{{Name: "p", Builtin: "probe", Profile: ProfileWorker, Args: []string{"whoami", "list=/", "files=/data"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("p"); err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(s.Program("p").Stdout)
	e, _ := io.ReadAll(s.Program("p").Stderr)
	t.Logf("%s|%s", out, e)
	t.Log(s.Wait(context.Background(), "p"))
	t.Log(s.Close())
	t.Log(b.Close())
}
