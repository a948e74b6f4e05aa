package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/bot"
)

// files makes n of them, each of size bytes that no other has.
func files(n, size int) tree {
	t := tree{}
	for i := range n {
		t[fmt.Sprintf("%07d", i)] = fmt.Sprintf("%07d", i) + strings.Repeat("x", size-7)
	}
	return t
}

// TestPace writes to the disk with a clock that stands still while something is written: what passes is waiting.
func TestPace(t *testing.T) {
	for _, c := range []struct {
		name     string
		folder   tree
		min, max time.Duration
	}{
		{"1 MB in 100 files", files(100, 10_000), 0, 0},
		{"1 MB in one file", files(1, 1_000_000), 0, 0},
		{"100 small files in folders of their own", func() tree {
			f := tree{}
			for i := range 100 {
				f[fmt.Sprintf("%d/f", i)] = "x"
			}
			return f
		}(), 0, 0},
		{"2 MB", files(1, 2_000_000), 950 * time.Millisecond, 1050 * time.Millisecond},
		{"the most that a run may change", files(100, 320_000), 30 * time.Second, 32 * time.Second},
		{"the most files", files(5000, 7), 47 * time.Second, 49 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openStore(t, t.TempDir())
			stream := pack(t, c.folder)
			synctest.Test(t, func(t *testing.T) {
				rules := FolderRules(DefaultQuota, DefaultChange, NewPacer(DefaultPace()))
				began := time.Now()
				gen, _, err := s.Import(t.Context(), dice, Folder, 0, bytes.NewReader(stream), rules)
				must(t, err)
				if took := time.Since(began); took < c.min || took > c.max {
					t.Errorf("took %s, want %s to %s", took, c.min, c.max)
				}
				time.Sleep(time.Minute)
				began = time.Now()
				again, _, err := s.Import(t.Context(), dice, Folder, gen, bytes.NewReader(stream), rules)
				must(t, err)
				if took := time.Since(began); again != gen || took > 0 {
					t.Errorf("unchanged, it is generation %d after %s", again, took)
				}
			})
		})
	}
}

// TestSlowIsToldOnce: who holds something for the time of an Import learns early that it takes long, and is not bothered else.
func TestSlowIsToldOnce(t *testing.T) {
	for name, c := range map[string]struct {
		folder tree
		told   int
	}{"little": {files(100, 10_000), 0}, "one large file": {files(1, 5_000_000), 1}, "many files": {files(1000, 7), 1}} {
		s := openStore(t, t.TempDir())
		stream := pack(t, c.folder)
		synctest.Test(t, func(t *testing.T) {
			rules := FolderRules(DefaultQuota, DefaultChange, NewPacer(DefaultPace()))
			told, began := 0, time.Now()
			rules.Slow = func() {
				if told++; time.Since(began) > time.Second {
					t.Errorf("%s: told after %s", name, time.Since(began))
				}
			}
			if _, _, err := s.Import(t.Context(), dice, Folder, 0, bytes.NewReader(stream), rules); err != nil || told != c.told {
				t.Errorf("%s: told %d times, want %d: %v", name, told, c.told, err)
			}
		})
	}
}

// TestPaceOfLargeFolder: what did not change is linked anew, and nearly free.
func TestPaceOfLargeFolder(t *testing.T) {
	s := openStore(t, t.TempDir())
	folder := files(4000, 7)
	rules := FolderRules(DefaultQuota, DefaultChange, nil)
	base, _, err := s.Import(t.Context(), dice, Folder, 0, bytes.NewReader(pack(t, folder)), rules)
	must(t, err)
	folder["new"] = "x"
	stream := pack(t, folder)
	synctest.Test(t, func(t *testing.T) {
		rules.Pacer = NewPacer(DefaultPace())
		began := time.Now()
		_, _, err := s.Import(t.Context(), dice, Folder, base, bytes.NewReader(stream), rules)
		must(t, err)
		if took := time.Since(began); took > 0 {
			t.Errorf("one new file beside 4000 waited %s", took)
		}
	})
}

func TestPaceEndsWithTheContext(t *testing.T) {
	stream := pack(t, files(10, 320_000))
	for _, c := range []struct {
		name string
		ctx  func(context.Context) (context.Context, context.CancelFunc)
		want error
		says string
	}{
		{"deadline", func(c context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(c, time.Second)
		},
			context.DeadlineExceeded, "no time was left to write what has changed, at 1MB and 100 files a second: change less in one run"},
		{"cancelled", func(c context.Context) (context.Context, context.CancelFunc) {
			c, cancel := context.WithCancel(c)
			time.AfterFunc(time.Second, cancel)
			return c, cancel
		}, context.Canceled, "context canceled"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openStore(t, t.TempDir())
			base, _ := load(t, s, 0, tree{"kept": "x"})
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := c.ctx(t.Context())
				defer cancel()
				began := time.Now()
				_, _, err := s.Import(ctx, dice, Folder, base, bytes.NewReader(stream), FolderRules(DefaultQuota, DefaultChange, NewPacer(DefaultPace())))
				if !errors.Is(err, c.want) || !strings.Contains(Explain(err), c.says) || time.Since(began) > time.Second {
					t.Errorf("after %s: %v", time.Since(began), err)
				}
			})
			if names := onDisk(t, s); !slices.Equal(names, []string{"1"}) {
				t.Errorf("left on disk: %v", names)
			}
		})
	}
}

// TestPacerOfManyBots: each has a pace of its own, and who is at rest is forgotten.
func TestPacerOfManyBots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPacer(DefaultPace())
		began := time.Now()
		for i := range 2000 {
			must(t, p.wait(t.Context(), bot.Address(fmt.Sprintf("bot%d@relay.example", i)), 1_000_000, 250))
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("bots hold each other up: %s", took)
		}
		time.Sleep(3 * time.Second)
		must(t, p.wait(t.Context(), dice, 1_500_000, 1))
		if took := time.Since(began) - 3*time.Second; took < 499*time.Millisecond || took > 501*time.Millisecond {
			t.Errorf("half a burst too much waited %s", took)
		}
		if len(p.bots) != 1 {
			t.Errorf("%d bots are remembered", len(p.bots))
		}
	})
}
