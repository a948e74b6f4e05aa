//go:build bench

package bench

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/core"
	"mayfly/internal/core/coretest"
	"mayfly/internal/install"
	"mayfly/internal/mailbox"
	"mayfly/internal/user"
	"mayfly/test/relay"
)

const (
	ada      = bot.Address("ada000001@chat.test")
	resident = bot.Address("echo.here@chat.test")

	// After a minute without mail the host has no connection to the relay left for a bot (dispatch.Options.IdleClose).
	asleep = 65 * time.Second
)

// turn is one mail to a bot and its reply.
type turn struct {
	accepted time.Time // the user's SMTP accept, as the user's core tells
	there    time.Time // the mail is in the bot's INBOX
	echoed   echoed    // of the resident bot only
	replied  time.Time // the reply is in the user's INBOX
	seen     time.Time // the user's core has the reply
}

// bots is the world of the third part: a relay, its host with sleeping bots, a resident bot and a user who knows them all.
type bots struct {
	t          *testing.T
	relay      *relay.Relay
	host       *host
	deliveries *deliveries
	user       *user.User
	chats      map[bot.Address]core.ChatID
	joined     map[bot.Address]time.Time
	echo       *echo
}

// measureBots asks, by turns, a bot that sleeps for more than a minute (each of n bots once), the resident bot, a bot that was
// asked a moment ago, for which the host still has its connections to the relay, and the resident bot again, which is now told
// of the mail by the hook: Dovecot waits half a second before it tells IDLE.
func measureBots(t *testing.T, ctx context.Context, n int) []Row {
	b := startBots(t, ctx, n)
	var cold, resides, warm, poked []turn
	alone := func() {}
	poke := func() { must(t, b.echo.user.Call(ctx, "maybe_network", nil)) }
	for i := range n {
		time.Sleep(time.Until(b.joined[sleeper(i)].Add(asleep)))
		cold = append(cold, b.ask(ctx, sleeper(i), alone))
		resides = append(resides, b.ask(ctx, resident, alone))
		warm = append(warm, b.ask(ctx, sleeper(i), alone))
		poked = append(poked, b.ask(ctx, resident, poke))
	}
	sessions := b.host.sessions()
	base := whole(resides)
	rows := []Row{
		{Name: "bot: resident, a core of its own in IDLE", Times: base, Base: base},
		{Name: "bot: resident, poked by the hook", Times: whole(poked), Base: base},
		{Name: "bot: sleeping, for more than a minute", Times: whole(cold), Base: base},
		{Name: "bot: sleeping, asked a moment ago", Times: whole(warm), Base: base},
	}
	rows = append(rows, residentPhases("resident", resides)...)
	rows = append(rows, residentPhases("poked", poked)...)
	rows = append(rows, sleepingPhases(t, "sleeping", cold, sessions)...)
	rows = append(rows, sleepingPhases(t, "a moment ago", warm, sessions)...)
	return append(rows, b.measureQuiet(ctx, min(n, 10))...)
}

// measureQuiet asks bots that were written as daemons (mode resident), which are ended when they are quiet: how long a run is, and how
// much of it was waiting for that. One says when it is done, by marking the message as seen; of the other it shows only by its quiet.
func (b *bots) measureQuiet(ctx context.Context, n int) []Row {
	var rows []Row
	for _, test := range []struct {
		account bot.Address
		what    string
		without string // a line of its script
	}{
		{"daemon001@chat.test", "a daemon that says when it is done", ""},
		{"daemon002@chat.test", "a daemon that does not", "\t\tcall markseen_msgs \"$account, [$msg]\"\n"},
	} {
		author := login(b.t, b.relay, test.account)
		b.join(ctx, test.account, installBundle(b.t, ctx, author, test.account, shellBot(b.t, test.without)))
		author.Close()
		var runs, waits []time.Duration
		var turns []turn
		for range n {
			turns = append(turns, b.ask(ctx, test.account, func() {}))
		}
		sessions := b.host.sessions()
		for _, x := range turns {
			s := sessionOf(b.t, x, sessions)
			runs = append(runs, s.at["handler done"]-s.at["handler"])
			waits = append(waits, s.at["handler done"]-s.at["quiet"])
		}
		rows = append(rows, Row{Name: test.what + ": a run", Times: runs, Base: runs}, Row{Name: "  of it waiting for quiet", Times: waits, Base: runs})
	}
	return rows
}

// shellBot is test/bots/shell without a line of its script.
func shellBot(t *testing.T, without string) *bundle.Bundle {
	t.Helper()
	b, err := bundle.FromDir("../bots/shell", bundle.DefaultCeilings())
	must(t, err)
	for i, f := range b.Files {
		if f.Path == "echo.sh" && without != "" {
			changed := strings.Replace(string(f.Data), without, "", 1)
			if changed == string(f.Data) {
				t.Fatalf("echo.sh has no line %q", without)
			}
			b.Files[i].Data = []byte(changed)
		}
	}
	return b
}

func sleeper(i int) bot.Address { return bot.Address(fmt.Sprintf("echo%05d@chat.test", i)) }

func startBots(t *testing.T, ctx context.Context, n int) *bots {
	b := &bots{t: t, relay: relay.StartWith(t, relay.Config{MailsPerMinute: 6000, Burst: 1000}), chats: map[bot.Address]core.ChatID{}, joined: map[bot.Address]time.Time{}}
	b.host = startHost(t, b.relay)
	b.deliveries = watchDeliveries(t, b.relay, b.host.socket)
	b.user = b.person(ctx, ada)
	b.echo = startEcho(t, ctx, b.person(ctx, resident))
	invite, err := b.echo.user.Invite(ctx, b.echo.user.Account)
	must(t, err)
	b.join(ctx, resident, invite)
	for i := range n {
		b.join(ctx, sleeper(i), b.install(ctx, sleeper(i)))
	}
	b.ask(ctx, resident, func() {}) // its first connection
	return b
}

// person starts a core and configures an account.
func (b *bots) person(ctx context.Context, address bot.Address) *user.User {
	b.t.Helper()
	return startUser(b.t, ctx, address, b.relay.IMAP, b.relay.SubmissionPlain)
}

func startUser(t *testing.T, ctx context.Context, address bot.Address, imap, smtp string) *user.User {
	t.Helper()
	in, err := net.ResolveTCPAddr("tcp", imap)
	must(t, err)
	out, err := net.ResolveTCPAddr("tcp", smtp)
	must(t, err)
	u, err := user.Start(ctx, coretest.Binary(t), filepath.Join(t.TempDir(), "core"), address.Local(), core.Transport{
		Addr: string(address), Password: password,
		IMAPServer: "127.0.0.1", IMAPPort: uint16(in.Port), SMTPServer: "127.0.0.1", SMTPPort: uint16(out.Port),
	})
	must(t, err)
	t.Cleanup(func() { must(t, u.Close()) })
	return u
}

func (b *bots) join(ctx context.Context, address bot.Address, invite string) {
	b.t.Helper()
	chat, err := b.user.Join(ctx, invite)
	must(b.t, err)
	b.chats[address], b.joined[address] = chat, time.Now()
}

func (b *bots) install(ctx context.Context, address bot.Address) string {
	b.t.Helper()
	author := login(b.t, b.relay, address)
	defer author.Close()
	return installEcho(b.t, ctx, author, address)
}

// installEcho appends examples/echo to an account's Bot folder and returns the invite link of the answer.
func installEcho(t *testing.T, ctx context.Context, author *mailbox.Client, address bot.Address) string {
	t.Helper()
	echo, err := bundle.FromDir("../../examples/echo", bundle.DefaultCeilings())
	must(t, err)
	return installBundle(t, ctx, author, address, echo)
}

func installBundle(t *testing.T, ctx context.Context, author *mailbox.Client, address bot.Address, b *bundle.Bundle) string {
	t.Helper()
	mail, err := install.Compose(b, address)
	must(t, err)
	must(t, author.Append(ctx, install.Folder, mail))
	for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		if _, err := author.Select(ctx, install.StatusFolder); err != nil {
			continue // not made yet
		}
		list, err := author.List(ctx, 0, 1)
		must(t, err)
		if len(list) == 0 {
			continue
		}
		answer, err := author.Fetch(ctx, list[0].UID, 1<<20)
		must(t, err)
		plain := strings.NewReplacer("=\r\n", "", "=3D", "=").Replace(string(answer)) // quoted-printable
		if invite := regexp.MustCompile(`https://i\.delta\.chat/#\S+`).FindString(plain); invite != "" {
			return invite
		}
		t.Fatalf("%s is not installed:\n%s", address, answer)
	}
	t.Fatalf("%s is not installed: %v", address, ctx.Err())
	return ""
}

// ask says something to a bot, calls delivered when that is in the bot's INBOX, and requires that it is said back.
func (b *bots) ask(ctx context.Context, address bot.Address, delivered func()) turn {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	time.Sleep(300 * time.Millisecond) // what the turn before has left to do
	b.deliveries.forget()
	var x turn
	text := fmt.Sprintf("this is %s", address)
	_, err := b.user.Say(ctx, b.chats[address], text)
	must(b.t, err)
	_, err = b.user.Await(ctx, func(e core.Event) bool { return e.Kind == "SmtpMessageSent" })
	must(b.t, err)
	x.accepted = time.Now()
	x.there, err = b.deliveries.await(ctx, address)
	must(b.t, err)
	delivered()
	x.replied, err = b.deliveries.await(ctx, ada)
	must(b.t, err)
	reply, err := b.user.Next(ctx)
	must(b.t, err)
	x.seen = time.Now()
	if reply.Text != text || !reply.Authentic() {
		b.t.Fatalf("%s said %+v", address, reply)
	}
	if address == resident {
		x.echoed = <-b.echo.done
	}
	return x
}

func whole(turns []turn) []time.Duration {
	return each(turns, func(_ int, x turn) time.Duration { return x.replied.Sub(x.accepted) })
}

func each(turns []turn, took func(int, turn) time.Duration) []time.Duration {
	var times []time.Duration
	for i, x := range turns {
		times = append(times, took(i, x))
	}
	return times
}

// residentPhases splits the turns of the resident bot.
func residentPhases(what string, turns []turn) []Row {
	phase := func(name string, took func(int, turn) time.Duration) Row {
		return Row{Name: "  " + what + ": " + name, Times: each(turns, took)}
	}
	return []Row{
		phase("accepted to its INBOX", func(_ int, x turn) time.Duration { return x.there.Sub(x.accepted) }),
		phase("to IncomingMsg", func(_ int, x turn) time.Duration { return x.echoed.incoming.Sub(x.there) }),
		phase("to said", func(_ int, x turn) time.Duration { return x.echoed.said.Sub(x.echoed.incoming) }),
		phase("to the user's INBOX", func(_ int, x turn) time.Duration { return x.replied.Sub(x.echoed.said) }),
		phase("to the user's core", func(_ int, x turn) time.Duration { return x.seen.Sub(x.replied) }),
	}
}

// sleepingPhases splits the turns of sleeping bots by what the host has logged.
func sleepingPhases(t *testing.T, what string, turns []turn, sessions []stages) []Row {
	t.Helper()
	of := make([]stages, len(turns))
	for i, x := range turns {
		of[i] = sessionOf(t, x, sessions)
	}
	phase := func(name string, took func(int, turn) time.Duration) Row {
		return Row{Name: "  " + what + ": " + name, Times: each(turns, took)}
	}
	between := func(name, from, to string) Row {
		return phase(name, func(i int, _ turn) time.Duration { return of[i].at[to] - of[i].at[from] })
	}
	return []Row{
		phase("accepted to its INBOX", func(_ int, x turn) time.Duration { return x.there.Sub(x.accepted) }),
		phase("to the wake", func(i int, x turn) time.Duration { return of[i].wake.Sub(x.there) }),
		between("to the gate's verdict", "wake", "gate"),
		between("to core up", "gate", "core up"),
		between("(beside it: gate to the worker waits)", "gate", "sandbox up"),
		between("to IncomingMsg", "core up", "IncomingMsg"),
		between("to the handler", "IncomingMsg", "handler"),
		between("to the handler's end", "handler", "handler done"),
		between("to the commit", "handler done", "commit"),
		phase("to the user's INBOX", func(i int, x turn) time.Duration { return x.replied.Sub(of[i].wake.Add(of[i].at["commit"])) }),
		phase("to the user's core", func(_ int, x turn) time.Duration { return x.seen.Sub(x.replied) }),
	}
}

// sessionOf finds the session that woke in a turn: turns follow one another.
func sessionOf(t *testing.T, x turn, sessions []stages) stages {
	t.Helper()
	for _, s := range sessions {
		if s.wake.After(x.accepted.Add(-100*time.Millisecond)) && s.wake.Before(x.replied) {
			return s
		}
	}
	t.Fatalf("no session in the host's log woke between %v and %v", x.accepted, x.replied)
	return stages{}
}
