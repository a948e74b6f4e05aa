package session

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The script in the place of deltachat-rpc-server tells the version of the core that is configured, whichever that is.
func TestShimTellsTheVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deltachat-rpc-server")
	if err := os.WriteFile(path, []byte(shim("9.8.7")), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("/bin/bash", path, "--version").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "9.8.7" {
		t.Errorf("it says %q, %v", out, err)
	}
}
