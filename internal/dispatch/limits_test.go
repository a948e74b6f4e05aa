package dispatch

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
	"mayfly/internal/session"
)

// left waits until there is nothing to do but to wait, and returns the UIDs that are still in the INBOX.
func (b *bench) left(a bot.Address) []uint32 {
	b.t.Helper()
	time.Sleep(10 * time.Second)
	return b.inboxes[a].uids()
}

func (b *bench) said(a bot.Address) int {
	b.t.Helper()
	out, err := b.ledger.Outbox(b.t.Context(), a, 100)
	if err != nil {
		b.t.Fatal(err)
	}
	return len(out)
}

// What is over a contact's limit waits in the INBOX, in order, and is worked off when there is room; the contact is told once an hour.
// Of the five mails, 1, 4 and 5 are of one key, 2 and 3 of another, and all but 3 of one address.
func TestAContactOverALimitWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, one)
		b.opts.Limits.PerUser = bot.PerUser{MailsPerHour: 1}
		for i, name := range valid {
			b.put(one, uint32(i+1), name)
		}
		b.Wake(b.ctx, one, WakeInbox)
		for i, want := range []struct {
			waiting string
			said    int // all in all; never to the owner of the second key, which core does not know
		}{{"[2 3 4 5]", 1}, {"[3 4 5]", 2}, {"[5]", 3}, {"[]", 3}} {
			left := b.left(one)
			if fmt.Sprint(left) != want.waiting || b.said(one) != want.said {
				t.Errorf("after %d hours %v wait, and it was said %d times; want %s, %d times", i, left, b.said(one), want.waiting, want.said)
			}
			time.Sleep(30 * time.Minute)
			b.Wake(b.ctx, one, WakeInbox) // too early
			if early := b.left(one); !slices.Equal(early, left) || b.said(one) != want.said {
				t.Errorf("half an hour later %v wait, and it was said %d times", early, b.said(one))
			}
			time.Sleep(31 * time.Minute) // without a wake
		}
		if got := b.sessions.uids(); !slices.Equal(got, []uint32{1, 2, 3, 4, 5}) {
			t.Errorf("sessions %v", got)
		}
	})
}

func TestAContactOverALimitIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, one)
		b.manifest(one, bot.Manifest{PerUser: bot.PerUser{MailsPerHour: 3, Drop: true}})
		b.opts.Limits.PerUser = bot.PerUser{MailsPerHour: 2} // wins
		for i, name := range valid {
			b.put(one, uint32(i+1), name)
		}
		b.Wake(b.ctx, one, WakeInbox)
		left := b.left(one)
		refused, err := b.ledger.Refusals(t.Context(), one)
		if err != nil || len(left) != 0 || refused["over-limit"] != 2 || b.said(one) != 1 || len(b.sessions.uids()) != 3 {
			t.Errorf("%v wait, refused %v, said %d, sessions %v, %v", left, refused, b.said(one), b.sessions.uids(), err)
		}
	})
}

func (b *bench) manifest(a bot.Address, m bot.Manifest) {
	b.t.Helper()
	if err := b.ledger.Install(b.t.Context(), ledger.Bot{Address: a, Manifest: m}); err != nil {
		b.t.Fatal(err)
	}
}

// Seconds and bytes count as mails do.
func TestSecondsAndBytesOfAContact(t *testing.T) {
	for name, limits := range map[string]bot.PerUser{"seconds": {SecondsPerHour: 7}, "bytes": {BytesPerHour: 5000}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, one)
				b.opts.Limits.PerUser = limits
				b.sessions.spend = func(session.Work) bot.RunRecord { return bot.RunRecord{Status: bot.RunOK, Wall: 4 * time.Second} }
				for i, name := range valid {
					b.put(one, uint32(i+1), name)
				}
				b.Wake(b.ctx, one, WakeInbox)
				if left := b.left(one); len(left) == 0 || len(left) == len(valid) {
					t.Errorf("%v wait", left)
				}
				time.Sleep(5 * time.Hour)
				if left := b.left(one); len(left) != 0 || !slices.IsSorted(b.sessions.uids()) {
					t.Errorf("%v wait in the end, sessions %v", left, b.sessions.uids())
				}
			})
		})
	}
}

// A run gets what is left of the bot's CPU time and no more; without, its mail waits and its author is told once. Failed runs count.
func TestABotOverItsCPUTimeWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, one)
		b.opts.Limits = Limits{CPUPerHour: 10 * time.Second, CPUPerDay: 14 * time.Second}
		var granted []time.Duration
		b.sessions.spend = func(w session.Work) bot.RunRecord {
			granted = append(granted, w.CPU)
			return bot.RunRecord{Status: bot.RunTimeout, CPU: min(6*time.Second, w.CPU)}
		}
		for i, name := range valid {
			b.put(one, uint32(i+1), name)
		}
		b.Wake(b.ctx, one, WakeInbox)
		if left := b.left(one); len(left) != 3 {
			t.Errorf("%v wait", left)
		}
		why, there, err := b.ledger.Overrun(t.Context(), one)
		if err != nil || !there || !strings.Contains(why.Why, "10s of CPU time an hour") || b.said(one) != 0 {
			t.Errorf("the author is to be told: %v %+v, %v", there, why, err)
		}
		time.Sleep(62 * time.Minute)
		if left := b.left(one); len(left) != 2 {
			t.Errorf("after an hour %v wait", left)
		}
		time.Sleep(25 * time.Hour)
		if left := b.left(one); len(left) != 0 {
			t.Errorf("after a day %v wait", left)
		}
		if want := []time.Duration{10e9, 4e9, 4e9, 10e9, 4e9}; !slices.Equal(granted, want) {
			t.Errorf("granted %v, want %v", granted, want)
		}
	})
}

func TestABotTakesSoManyMails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, one)
		b.opts.Limits.MailsPerHour = 4
		for i, name := range valid {
			b.put(one, uint32(i+1), name)
		}
		b.Wake(b.ctx, one, WakeInbox)
		if left := b.left(one); !slices.Equal(left, []uint32{5}) {
			t.Errorf("%v wait", left)
		}
	})
}

func TestNoticesNameTheLimitAndTheTime(t *testing.T) {
	until := time.Now().UTC().Truncate(time.Hour).Add(time.Minute + time.Second)
	at := until.Add(59 * time.Second).Format("15:04 UTC")
	for _, test := range []struct {
		user bot.PerUser
		want string
	}{
		{bot.PerUser{}, "You have reached a limit of Dice: 6 messages an hour. What you write is kept, and answered after " + at + "."},
		{bot.PerUser{Drop: true}, "You have reached a limit of Dice: 6 messages an hour. What you write before " + at + " is not answered."},
		{bot.PerUser{Notice: "{limit}! Back at {until}"}, "6 messages an hour! Back at " + at},
	} {
		if got := noticeText(test.user, "Dice", "6 messages an hour", until); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

// Mails arrive at random at several bots with random limits, runs use what they like, sessions fail, hosts wake: within any hour nothing
// exceeds its limit, and in the end each mail was worked off, once, in order.
func TestLimitsModel(t *testing.T) {
	type event struct {
		uid uint32
		at  time.Time
		cpu time.Duration
	}
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 6))
				var accounts []bot.Address
				for i := range 4 {
					accounts = append(accounts, bot.Address(fmt.Sprintf("bot00000%d@chat.test", i)))
				}
				b := newBench(t, accounts...)
				mails := 1 + rng.IntN(3)
				b.opts.Limits = Limits{PerUser: bot.PerUser{MailsPerHour: mails}, CPUPerHour: 10 * time.Second}
				var mu sync.Mutex
				byBot := map[bot.Address][]event{}
				b.sessions.spend = func(w session.Work) bot.RunRecord {
					time.Sleep(time.Second)
					cpu := min(w.CPU, time.Duration(w.Job.ID%7)*2*time.Second)
					mu.Lock()
					defer mu.Unlock()
					byBot[w.Bot.Address] = append(byBot[w.Bot.Address], event{w.Job.Cursor.UID, time.Now(), cpu})
					return bot.RunRecord{Status: bot.RunOK, CPU: cpu}
				}
				for i, name := range valid {
					for _, a := range accounts {
						b.inboxes[a].mu.Lock()
						b.inboxes[a].mails[uint32(i+1)] = sample(t, name)
						b.inboxes[a].mu.Unlock()
						b.Wake(b.ctx, a, WakeInbox)
					}
					time.Sleep(time.Duration(rng.Int64N(int64(40 * time.Minute))))
				}
				time.Sleep(24 * time.Hour)
				mu.Lock()
				defer mu.Unlock()
				for _, a := range accounts {
					done := byBot[a]
					if len(done) != len(valid) || len(b.inboxes[a].uids()) != 0 {
						t.Errorf("%s: %d of %d worked off", a, len(done), len(valid))
					}
					for i, e := range done {
						var byKey, byAddress int
						cpu, ordered := time.Duration(0), true
						for _, before := range done[:i+1] {
							key, address := keyOf(before.uid) == keyOf(e.uid), addressOf(before.uid) == addressOf(e.uid)
							ordered = ordered && (before.uid <= e.uid || !key && !address)
							if e.at.Sub(before.at) >= time.Hour-time.Minute {
								continue
							}
							cpu += before.cpu
							byKey, byAddress = byKey+count(key), byAddress+count(address)
						}
						if !ordered || max(byKey, byAddress) > mails || cpu > 10*time.Second {
							t.Errorf("%s: mail %d as the %d.; %d by key, %d by address (at most %d) and %s within an hour", a, e.uid, i+1, byKey, byAddress, mails, cpu)
						}
					}
				}
			})
		})
	}
}

// keyOf and addressOf say who sent the valid samples, by UID.
func keyOf(uid uint32) bool     { return uid == 2 || uid == 3 }
func addressOf(uid uint32) bool { return uid == 3 }

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// A run that asks to be tried again waits longer each time, and holds up its own contact only; with the last attempt it is over. What it
// used counts.
func TestARunIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, one)
		b.opts.MaxAttempts = 5
		start := time.Now()
		var tries []time.Duration
		b.sessions.run = func(w session.Work) error {
			if w.Job.Cursor.UID != 2 {
				return nil
			}
			tries = append(tries, time.Since(start).Round(time.Second))
			if !w.Retry {
				return nil
			}
			return &session.Again{Record: bot.RunRecord{Status: bot.RunError, ExitCode: 75, CPU: time.Second}}
		}
		b.put(one, 1, "abuse/abuse-11.eml") // so that the contact would be told of a limit
		b.put(one, 2, "eml/5-text.user.eml")
		b.put(one, 3, "abuse/abuse-08.eml") // of another key and address
		b.put(one, 4, "abuse/abuse-09.eml") // of the same contact
		b.Wake(b.ctx, one, WakeInbox)
		if left := b.left(one); !slices.Equal(left, []uint32{2, 4}) {
			t.Errorf("%v wait, want 2 and 4", left)
		}
		time.Sleep(time.Hour)
		if left := b.left(one); len(left) != 0 || b.said(one) != 0 {
			t.Errorf("%v wait, said %d", left, b.said(one))
		}
		if want := []time.Duration{0, 15e9, 75e9, 315e9, 1275e9}; !slices.Equal(tries, want) {
			t.Errorf("tries after %v, want %v", tries, want)
		}
		cpu, err := b.ledger.Used(t.Context(), one, ledger.WholeBot, ledger.CPU, 24*time.Hour)
		if err != nil || cpu != 4e6 {
			t.Errorf("charged %d, %v", cpu, err)
		}
	})
}

// A session that has said something at once, and that the host then fails to finish, says it anew each time it is tried: that has an end,
// also where the host is at fault.
func TestWhatWasSaidAtOnceIsNotSaidWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, one)
		b.opts.MaxAttempts = 5
		start := time.Now()
		var tries []time.Duration
		b.sessions.run = func(w session.Work) error {
			if w.Job.Cursor.UID != 2 {
				return nil
			}
			tries = append(tries, time.Since(start).Round(time.Second))
			return &session.Spent{Cause: errors.New("no space left on device"), CPU: time.Second, AtOnce: 1}
		}
		b.put(one, 2, "eml/5-text.user.eml")
		b.put(one, 3, "abuse/abuse-08.eml") // of another key and address
		b.Wake(b.ctx, one, WakeInbox)
		if left := b.left(one); !slices.Equal(left, []uint32{2}) {
			t.Errorf("%v wait, want 2", left)
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if want := []time.Duration{0, 15e9, 75e9, 315e9, 1275e9}; !slices.Equal(tries, want) {
			t.Errorf("tries after %v, want %v", tries, want)
		}
	})
}

// Who got all that the bot may send to one contact in an hour waits, as does the mail of all to a bot that has sent all it may; a manifest may
// lower both.
func TestWhoGotMuchWaits(t *testing.T) {
	for name, c := range map[string]struct {
		operator, manifest bot.Sending
		told               int // of the limit
	}{
		"the contact":             {bot.Sending{MailsPerContact: 2}, bot.Sending{}, 1},
		"the contact's bytes":     {bot.Sending{BytesPerContact: 20}, bot.Sending{}, 1},
		"the contact, lowered":    {bot.Sending{MailsPerContact: 9}, bot.Sending{MailsPerContact: 2}, 1},
		"the bot":                 {bot.Sending{Mails: 2}, bot.Sending{}, 0},
		"the bot's bytes":         {bot.Sending{Bytes: 20}, bot.Sending{}, 0},
		"the bot, by its own":     {bot.Sending{}, bot.Sending{Mails: 2}, 0},
		"the operator's is lower": {bot.Sending{Mails: 2}, bot.Sending{Mails: 9}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, one)
				b.opts.Limits.Sending = c.operator
				b.manifest(one, bot.Manifest{Name: "Dice", Sending: c.manifest})
				b.sessions.replies = true
				for i := range uint32(3) {
					b.say(one, i+1, "hello")
				}
				b.Wake(b.ctx, one, WakeInbox)
				if left := b.left(one); !slices.Equal(left, []uint32{3}) || b.said(one) != 2+c.told {
					t.Errorf("%v wait, said %d", left, b.said(one))
				}
				time.Sleep(62 * time.Minute)
				if left := b.left(one); len(left) != 0 {
					t.Errorf("an hour later %v wait", left)
				}
			})
		})
	}
}
