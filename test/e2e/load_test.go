package e2e

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"mayfly/internal/core"
	"mayfly/internal/mailbox"
)

// load is mail to many bots at once. Each honest bot has a user of its own, who says so many things to it as fast as an app sends
// them; the hostile bots have one more user, who says as much to each of them.
type load struct {
	honest, hostile, mails int
	patience               time.Duration // for all answers
}

// TestLoad has honest bots answer all that they are asked, alone and beside hostile ones. `make load` is its full size.
func TestLoad(t *testing.T) {
	compare(t, load{honest: 5, hostile: 2, mails: 6, patience: 2 * time.Minute})
}

// compare runs a load without its hostile part, and whole, and prints what the honest bots' users saw.
func compare(t *testing.T, whole load) {
	t.Helper()
	alone := whole
	alone.hostile = 0
	for _, l := range []load{alone, whole} {
		t.Run(fmt.Sprintf("%d hostile", l.hostile), func(t *testing.T) {
			took, all := l.run(t)
			slices.Sort(took)
			at := func(q float64) time.Duration {
				return took[min(int(q*float64(len(took))), len(took)-1)].Round(time.Millisecond)
			}
			t.Logf("%d honest bots, %d hostile, %d mails to each: the honest ones' answers took p50 %v, p99 %v; %.1f answers a second",
				l.honest, l.hostile, l.mails, at(0.5), at(0.99), float64(len(took))/all.Seconds())
		})
	}
}

// hostileScripts take, each in its way, all that they can get: CPU time, a slot, memory, the log.
func hostileScripts() []string {
	return []string{
		`export default { message() { for (;;); } }`,
		`export default { message() { return new Promise(() => setTimeout(() => {}, 1e9)) } }`,
		`export default { message() { const all = []; for (;;) all.push("x".repeat(1 << 20) + all.length) } }`,
		`export default { message() { for (;;) console.log("x".repeat(1 << 16)) } }`,
		`export default { async message() { for (;;) await new Promise((done) => setTimeout(done, 1)) } }`,
	}
}

// run returns, for each answer of an honest bot, how long it took, from the relay's 250 to the answer in the user's core, and how long
// all of it took.
func (l load) run(t *testing.T) ([]time.Duration, time.Duration) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), l.patience+10*time.Minute)
	defer cancel()
	w.ctx = ctx
	scripts := hostileScripts()
	var honest, hostile []*mailbox.Client
	for i := range l.honest + l.hostile {
		source := echo
		if i >= l.honest {
			source = scripts[(i-l.honest)%len(scripts)]
		}
		address, client := w.newAccount(fmt.Sprintf("bot%06d", i))
		w.append(client, address, script("Bot", source))
		if i < l.honest {
			honest = append(honest, client)
		} else {
			hostile = append(hostile, client)
		}
	}
	w.serve()
	var users []*talker
	for i, client := range honest {
		p := w.person(fmt.Sprintf("ada%06d", i))
		users = append(users, &talker{person: p, chat: p.join(w.installed(client))})
	}
	if len(hostile) > 0 {
		mallory := w.person("mallory01")
		for _, client := range hostile {
			chat := mallory.join(w.installed(client))
			for i := range l.mails {
				mallory.say(chat, strconv.Itoa(i))
			}
		}
	}
	start := time.Now()
	took := l.talk(w, users)
	return took, time.Since(start)
}

func (l load) talk(w *world, users []*talker) []time.Duration {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, l.patience)
	defer cancel()
	errs := make([]error, len(users))
	var group sync.WaitGroup
	for i, u := range users {
		group.Go(func() { errs[i] = u.talk(ctx, l.mails) })
	}
	group.Wait()
	var took []time.Duration
	for i, u := range users {
		if errs[i] != nil {
			w.t.Errorf("user %d has %d of %d answers: %v", i, len(u.took), l.mails, errs[i])
		}
		took = append(took, u.took...)
	}
	if w.t.Failed() {
		w.t.FailNow()
	}
	return took
}

// talker is the user of one bot.
type talker struct {
	*person
	chat core.ChatID
	took []time.Duration
}

// talk says n things at once, and waits until each of them is answered, once.
func (u *talker) talk(ctx context.Context, n int) error {
	said := map[core.MsgID]string{}
	sent := map[string]time.Time{}
	for i := range n {
		text := strconv.Itoa(i)
		id, err := u.Say(ctx, u.chat, text)
		if err != nil {
			return err
		}
		said[id] = text
	}
	for len(u.took) < n {
		e, err := u.Await(ctx, func(e core.Event) bool { return e.Kind == core.MsgDelivered || e.Kind == core.IncomingMsg })
		if err != nil {
			return err
		}
		if e.Kind == core.MsgDelivered {
			sent[said[e.MsgID]] = time.Now()
			continue
		}
		m, err := u.GetMessage(ctx, u.Account, e.MsgID)
		if err != nil {
			return err
		}
		text, ok := strings.CutPrefix(m.Text, "you said: ")
		at := sent[text]
		if !ok || at.IsZero() {
			return fmt.Errorf("heard %q, which answers nothing that was said and is not answered yet", m.Text)
		}
		delete(sent, text)
		u.took = append(u.took, time.Since(at))
	}
	return nil
}
