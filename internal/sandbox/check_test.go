package sandbox

import (
	"strings"
	"testing"
	"time"
)

func TestCheckFindsAllWallsInForce(t *testing.T) {
	walls := Check(t.Context(), broker.Client())
	if len(walls) != 9 {
		t.Errorf("%d walls, want 9", len(walls))
	}
	for _, w := range walls {
		t.Logf("%-28s %v: %s", w.Name, w.InForce, w.Why)
		if !w.InForce || !w.Required || w.Why == "" || w.Mend == "" {
			t.Errorf("%+v", w)
		}
	}
}

// TestCheckTellsAMissingWall asks the tests of two walls for what is not so: they must notice.
func TestCheckTellsAMissingWall(t *testing.T) {
	ctx, c := t.Context(), broker.Client()
	if err := wantRefused(ctx, c, ProfileWorker, "list=/", 2); err == nil || !strings.Contains(err.Error(), "list=/") {
		t.Errorf("an attempt that succeeded passed as refused: %v", err)
	}
	if err := wantKilled(ctx, c, "wall", func(s *Spec) { s.Wall = 10 * time.Second }, "whoami"); err == nil {
		t.Error("a run that was not killed passed as killed")
	}
	walls := Check(ctx, NewClient("@mayfly-nobody"))
	for _, w := range walls {
		if w.InForce {
			t.Errorf("without a broker, %q is in force", w.Name)
		}
	}
}
