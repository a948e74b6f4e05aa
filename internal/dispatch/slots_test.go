package dispatch

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/bot"
)

// A bot with a thousand mails, each of ten seconds, is ahead of one with a single mail by what runs at the moment.
func TestABusyBotDelaysNobodyForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSlots(1, 0)
		ctx, stop := context.WithCancel(t.Context())
		var busy sync.WaitGroup
		for _, name := range []bot.Address{"busy1", "busy2", "busy3"} {
			busy.Go(func() {
				for ctx.Err() == nil {
					s.Do(ctx, name, 0, func() error { time.Sleep(10 * time.Second); return nil })
				}
			})
		}
		time.Sleep(time.Hour)
		for range 5 {
			asked := time.Now()
			if err := s.Do(ctx, "quiet", 0, func() error { return nil }); err != nil || time.Since(asked) > 10*time.Second {
				t.Errorf("waited for %s, %v", time.Since(asked), err)
			}
			time.Sleep(13 * time.Second)
		}
		stop()
		busy.Wait()
	})
}

// Many that ask for little do not keep one out that has held much.
func TestNobodyWaitsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSlots(1, 0)
		s.Do(t.Context(), "heavy", 0, func() error { time.Sleep(time.Hour); return nil })
		ctx, stop := context.WithCancel(t.Context())
		var others sync.WaitGroup
		for i := range 5 {
			others.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					s.Do(ctx, bot.Address(fmt.Sprint(i, n)), 0, func() error { time.Sleep(time.Second); return nil })
				}
			})
		}
		time.Sleep(time.Second / 2)
		asked := time.Now()
		s.Do(ctx, "heavy", 0, func() error { return nil })
		if waited := time.Since(asked); waited < longest || waited > longest+10*time.Second {
			t.Errorf("waited for %s", waited)
		}
		stop()
		others.Wait()
	})
}

func TestWhoGivesUpHoldsNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSlots(1, 0)
		release := make(chan struct{})
		go s.Do(t.Context(), "one", 0, func() error { <-release; return nil })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Do(ctx, "two", 0, func() error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		close(release)
		if err := s.Do(t.Context(), "three", 0, func() error { return nil }); err != nil || len(s.queue) != 0 || s.free != 1 {
			t.Errorf("%v, queue %d, free %d", err, len(s.queue), s.free)
		}
	})
}

// Random bots ask for random times: there are never more than so many at a time, nor more memory, everybody has a turn, and whoever
// gets a slot is the one that a list of all that was ever held says.
func TestSlotsModel(t *testing.T) {
	type span struct {
		end  time.Time
		held time.Duration
	}
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 6))
			n := 1 + rng.IntN(3)
			const memory = 10
			sizes := map[bot.Address]int64{}
			for i := range 6 {
				sizes[bot.Address(fmt.Sprint("bot", i))] = 1 + rng.Int64N(12) // more than there is, too
			}
			var taken int64
			s := NewSlots(n, memory)
			var mu sync.Mutex
			waiting := map[bot.Address]time.Time{}
			past := map[bot.Address][]span{}
			running, turns := 0, 0
			use := func(who bot.Address) (sum float64) {
				for _, p := range past[who] {
					sum += float64(p.held) * math.Exp2(-float64(time.Since(p.end))/float64(halfLife))
				}
				return sum
			}
			wrong := map[bot.Address]map[time.Time]string{} // who was passed over; no matter if it had its turn at the same time
			check := func(who bot.Address, since time.Time) {
				mine := use(who)
				delete(wrong[who], time.Now())
				for other, asked := range waiting {
					aged := time.Since(asked) >= longest && asked.Before(since)
					lighter := use(other) < mine-float64(time.Millisecond) && time.Since(since) < longest
					if aged || lighter {
						if wrong[other] == nil {
							wrong[other] = map[time.Time]string{}
						}
						wrong[other][time.Now()] = fmt.Sprintf("seed %d: %s, waiting for %s with %.1f s, went before %s, waiting for %s with %.1f s",
							seed, who, time.Since(since), mine/1e9, other, time.Since(asked), use(other)/1e9)
					}
				}
			}
			var bots sync.WaitGroup
			for i := range 6 {
				who := bot.Address(fmt.Sprint("bot", i))
				var pauses, holds []time.Duration
				for range 30 {
					pauses = append(pauses, time.Duration(rng.Int64N(int64(time.Duration(1+i*i)*3*time.Second))))
					holds = append(holds, time.Duration(rng.Int64N(int64(time.Duration(1+i)*5*time.Second))))
				}
				bots.Go(func() {
					for k := range pauses {
						time.Sleep(pauses[k])
						mu.Lock()
						since := time.Now()
						waiting[who] = since
						mu.Unlock()
						ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
						err := s.Do(ctx, who, sizes[who], func() error {
							mu.Lock()
							delete(waiting, who)
							check(who, since)
							running, turns = running+1, turns+1
							if taken += min(sizes[who], memory); taken > memory {
								t.Errorf("seed %d: %d of %d memory", seed, taken, memory)
							}
							if running > n {
								t.Errorf("seed %d: %d at a time, of %d", seed, running, n)
							}
							mu.Unlock()
							time.Sleep(holds[k])
							mu.Lock()
							running--
							taken -= min(sizes[who], memory)
							past[who] = append(past[who], span{time.Now(), holds[k]})
							mu.Unlock()
							return nil
						})
						cancel()
						mu.Lock()
						delete(waiting, who)
						if err != nil {
							t.Errorf("seed %d: %s waited in vain for 2 min", seed, who)
						}
						mu.Unlock()
					}
				})
			}
			bots.Wait()
			for _, of := range wrong {
				for _, what := range of {
					t.Error(what)
				}
			}
			if turns != 6*30 || s.free != n || s.left != memory || len(s.queue) != 0 {
				t.Errorf("seed %d: %d turns, %d of %d free, %d wait", seed, turns, s.free, n, len(s.queue))
			}
		})
	}
}
