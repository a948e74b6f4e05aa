package sandbox

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"mayfly/internal/sandbox/cgroup"
)

func TestCheckFindsAllWallsInForce(t *testing.T) {
	walls := Check(t.Context(), broker.Client(), CheckOptions{Landlock: true, Native: true})
	if len(walls) != 12 {
		t.Errorf("%d walls, want 12", len(walls))
	}
	for _, w := range walls {
		t.Logf("%-28s %v: %s", w.Name, w.InForce, w.Why)
		if !w.InForce || w.Required != (w.Name != "own uid") || w.Why == "" || w.Mend == "" {
			t.Errorf("%+v", w)
		}
	}
}

// TestCheckTellsAMissingWall asks the tests of two walls for what is not so: they must notice.
func TestCheckTellsAMissingWall(t *testing.T) {
	ctx, c := t.Context(), broker.Client()
	if err := wantRefused(ctx, c, ProfileWorker, syscall.ENOENT, "read=/x", "list=/"); err == nil || !strings.Contains(err.Error(), "list=/") {
		t.Errorf("an attempt that succeeded passed as refused: %v", err)
	}
	if err := wantKilled(ctx, c, "wall", func(s *Spec) { s.Wall = 10 * time.Second }, "whoami"); err == nil {
		t.Error("a run that was not killed passed as killed")
	}
	walls := Check(ctx, NewClient("@mayfly-nobody"), CheckOptions{})
	for _, w := range walls {
		if w.InForce {
			t.Errorf("without a broker, %q is in force", w.Name)
		}
	}
}

// TestWithoutRootTheUIDIsShared starts a daemon as an ordinary user, in a cgroup that is his: all walls stand but that of the uid.
func TestWithoutRootTheUIDIsShared(t *testing.T) {
	const user = 65533
	tree, err := cgroup.Prepare(user, user, cgroup.Ceilings{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := tree.Remove(); err != nil {
			t.Error(err)
		}
	}()
	f, err := os.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"MAYFLY_TEST_USER=" + tree.Encode()}
	cmd.ExtraFiles = []*os.File{f}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	home, err := tree.Home()
	if err != nil {
		t.Fatal(err)
	}
	if home != nil {
		defer home.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(home.Fd())
	}
	out, err := cmd.CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(lines) != 12 {
		t.Fatalf("%v: %s", err, out)
	}
	for i, line := range lines {
		want := "in force true required true"
		switch i {
		case 9, 10: // landlock and native programs: not asked for
			want = "in force true required false"
		case 11:
			want = "own uid: in force false required false: sandboxes run as uid 65533, as we do"
		}
		if !strings.Contains(line, want) {
			t.Errorf("got %q, want %q", line, want)
		}
	}
}

// userMain is TestWithoutRootTheUIDIsShared's other half.
func userMain(encoded string) int {
	tree, err := cgroup.Decode(encoded)
	if err == nil {
		err = tree.Join()
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	b, err := StartBroker(context.Background(), StartOptions{Binary: "/proc/self/fd/3"})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for _, w := range Check(context.Background(), b.Client(), CheckOptions{}) {
		fmt.Printf("%s: in force %v required %v: %s\n", w.Name, w.InForce, w.Required, w.Why)
	}
	if err := b.Close(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}
