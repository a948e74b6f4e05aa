//go:build bench

package bench

import (
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/mailbox"
	"mayfly/internal/wake"
	"mayfly/test/relay"
)

const password = "a password for tests"

// login opens a mailbox over verified TLS, and makes the account at the first time.
func login(t testing.TB, r *relay.Relay, address bot.Address) *mailbox.Client {
	t.Helper()
	server := mailbox.Server{Addr: r.IMAPTLS, TLS: mailbox.TLS, RootCAs: r.Roots}
	c, err := mailbox.Dial(t.Context(), server, mailbox.Login{Username: string(address), Password: password})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// measureLMTP delivers n mails by turns to three relays that differ in the hook.
func measureLMTP(t *testing.T, n int) []Row {
	const account = bot.Address("dice00001@chat.test")
	off, on, hangs := relay.StartWith(t, relay.Config{NoHook: true}), relay.Start(t), relay.Start(t)
	hear(t, on)
	hang(t, hangs)
	relays := []*relay.Relay{off, on, hangs}
	mail := string(sample(t, "eml/5-text.user.eml"))
	for _, r := range relays {
		login(t, r, account)
		for range 5 { // the first ones start Dovecot's processes
			must(t, r.Deliver(account, mail))
		}
	}
	times := make([][]time.Duration, len(relays))
	for range n {
		for i, r := range relays {
			start := time.Now()
			must(t, r.Deliver(account, mail))
			times[i] = append(times[i], time.Since(start))
		}
	}
	return []Row{
		{Name: "LMTP: no hook", Times: times[0], Base: times[0]},
		{Name: "LMTP: hook, Mayfly listens", Times: times[1], Base: times[0]},
		{Name: "LMTP: hook, its receiver hangs with a full queue", Times: times[2], Base: times[0]},
	}
}

// hear listens as the daemon does.
func hear(t *testing.T, r *relay.Relay) {
	t.Helper()
	l, err := wake.Listen(wake.Options{Path: r.Hook, Group: r.HookGroup, Log: slog.New(slog.DiscardHandler),
		Changed: func(bot.Address, string, uint32) {}})
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
}

// hang makes a socket that nobody reads, and fills its queue.
func hang(t *testing.T, r *relay.Relay) {
	t.Helper()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: r.Hook, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	must(t, os.Chmod(r.Hook, 0o666))
	conn, err := net.Dial("unixgram", r.Hook)
	must(t, err)
	defer conn.Close()
	for range 10_000 {
		must(t, conn.SetWriteDeadline(time.Now().Add(100*time.Millisecond)))
		if _, err := conn.Write([]byte("x")); err != nil {
			return // full
		}
	}
	t.Fatal("the queue is never full")
}
