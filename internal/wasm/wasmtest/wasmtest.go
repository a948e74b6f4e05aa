// Package wasmtest builds WebAssembly modules for tests.
package wasmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Build compiles the Go main package in dir, which lies in a module, for wasip1, and returns the WebAssembly module.
func Build(t testing.TB, dir string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "main.wasm")
	cmd := exec.Command("go", "build", "-o", out, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build for wasip1 in %s: %v\n%s", dir, err, said)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
