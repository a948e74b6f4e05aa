//go:build relay

package relay

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

const doomed = "RELAY_TEST_DIES"

// TestNothingIsLeftOfAKilledTest runs itself in a process that is killed while its relay runs.
func TestNothingIsLeftOfAKilledTest(t *testing.T) {
	if os.Getenv(doomed) != "" {
		fmt.Printf("%s=%s\n", doomed, Start(t).dir)
		must(t, syscall.Kill(os.Getpid(), syscall.SIGKILL))
		select {}
	}
	command := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	command.Env = append(os.Environ(), doomed+"=yes")
	out, err := command.Output()
	if err == nil {
		t.Fatal("it was not killed")
	}
	_, dir, found := strings.Cut(string(out), doomed+"=")
	if !found {
		t.Fatalf("its relay did not start: %s", out)
	}
	dir = strings.TrimSpace(dir)
	for start := time.Now(); time.Since(start) < 15*time.Second; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && len(processesIn(dir)) == 0 {
			return
		}
	}
	t.Errorf("%s, and of its processes %v", dir, processesIn(dir))
}
