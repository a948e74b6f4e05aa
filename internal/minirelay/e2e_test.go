package minirelay

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"mayfly/internal/bot"
	"mayfly/internal/core"
	"mayfly/internal/core/coretest"
)

// realCore is a running deltachat-rpc-server with one account.
type realCore struct {
	*core.Client
	t       testing.TB
	account core.AccountID
	events  <-chan core.Event
	cmd     *exec.Cmd
}

// startCore starts core on its folder. It ends, at the latest, with the test.
func startCore(t testing.TB, dir string) *realCore {
	t.Helper()
	cmd := exec.Command(coretest.Binary(t))
	cmd.Env = []string{"DC_ACCOUNTS_PATH=" + dir}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &realCore{Client: core.New(stdin, stdout), t: t, cmd: cmd}
	c.events = c.Events(t.Context())
	t.Cleanup(c.end)
	ids, err := c.AccountIDs(t.Context())
	c.must(err)
	if len(ids) == 1 {
		c.account = ids[0]
	}
	return c
}

func (c *realCore) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *realCore) end() {
	if c.cmd == nil {
		return
	}
	c.Close()
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("core: %v", err)
	}
	c.cmd = nil
}

// configure makes the account with the provider at those endpoints, as DESIGN says a bot's core is set.
func (c *realCore) configure(at endpoints, address bot.Address, isBot bool) {
	c.t.Helper()
	ctx := c.t.Context()
	var err error
	c.account, err = c.AddAccount(ctx)
	c.must(err)
	if isBot {
		c.must(c.BatchSetConfig(ctx, c.account, map[string]string{"bot": "1", "mdns_enabled": "0"}))
	}
	c.must(c.Configure(ctx, c.account, core.Transport{
		Addr: string(address), Password: password,
		IMAPServer: "127.0.0.1", IMAPPort: port(c.t, at.imap),
		SMTPServer: "127.0.0.1", SMTPPort: port(c.t, at.smtp),
	}))
}

func port(t testing.TB, address string) uint16 {
	t.Helper()
	_, p, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint16(n)
}

func (c *realCore) online() {
	c.t.Helper()
	c.must(c.StartIO(c.t.Context(), c.account))
	c.wait("idle", func(e core.Event) bool { return e.Kind == core.ImapInboxIdle })
}

// wait reads events until one fits.
func (c *realCore) wait(what string, fits func(core.Event) bool) core.Event {
	c.t.Helper()
	timeout := time.After(deadline)
	for {
		select {
		case e, ok := <-c.events:
			if !ok {
				c.t.Fatalf("core ended: %s", what)
			}
			if e.Kind == "Warning" || e.Kind == "Error" {
				c.t.Logf("core: %s: %s", e.Kind, e.Msg)
			}
			if fits(e) {
				return e
			}
		case <-timeout:
			c.t.Fatalf("timed out: %s", what)
		}
	}
}

// incoming waits for a message with that text, which must be encrypted.
func (c *realCore) incoming(text string) core.Message {
	c.t.Helper()
	for {
		e := c.wait("message "+text, func(e core.Event) bool { return e.Kind == core.IncomingMsg })
		m, err := c.GetMessage(c.t.Context(), c.account, e.MsgID)
		c.must(err)
		if m.Text == text {
			if !m.Authentic() {
				c.t.Errorf("%q is not authentic", text)
			}
			return m
		}
	}
}

func (c *realCore) say(chat core.ChatID, text string) {
	c.t.Helper()
	_, err := c.SendMsg(c.t.Context(), c.account, chat, core.MessageData{Text: text})
	c.must(err)
}

func (c *realCore) join(invite string) core.ChatID {
	c.t.Helper()
	chat, err := c.SecureJoin(c.t.Context(), c.account, invite)
	c.must(err)
	c.wait("securejoin", func(e core.Event) bool { return e.Kind == core.JoinerProgress && e.Progress == 1000 })
	return chat
}

func TestTwoCoresTalkOverRelay(t *testing.T) {
	seen := newChanges()
	cfg := relayConfig()
	cfg.OnChange = seen.hook
	r, at := startRelay(t, cfg)
	robot, user := startCore(t, t.TempDir()), startCore(t, t.TempDir())
	robot.configure(at, botAddress, true)
	user.configure(at, userAddress, false)
	robot.online()
	user.online()
	invite, err := robot.Invite(t.Context(), robot.account)
	robot.must(err)
	chat := user.join(invite)
	user.say(chat, "2d6")
	robot.say(robot.incoming("2d6").ChatID, "7")
	user.incoming("7")
	s := r.Stats()
	if s.Accounts != 2 || s.Refused != 0 || s.Accepted < 6 || s.Accepted != s.Delivered {
		t.Errorf("stats are %+v", s)
	}
	for range s.Delivered {
		<-seen.more
	}
	if got := seen.all(); len(got) != int(s.Delivered) || !slices.Contains(got, change{botAddress, inbox, 1}) {
		t.Errorf("%d mails, but told %v", s.Delivered, got)
	}
}

// host does for one bot what Mayfly does: it carries mail from the relay's INBOX to the Private, and what core sends to the
// relay's submission, by its own logins.
type host struct {
	t       testing.TB
	at      endpoints // of the relay
	private *Private
	carried int
}

// fetch reads one mail from the bot's INBOX, as master.
func (h *host) fetch(uid uint32) []byte {
	h.t.Helper()
	c := imapClient(h.t, h.at.imap, string(botAddress)+"*mayfly", masterPassword, nil)
	defer c.Close()
	if _, err := c.Select(inbox, nil).Wait(); err != nil {
		h.t.Fatal(err)
	}
	whole := &imap.FetchItemBodySection{Peek: true}
	got, err := c.Fetch(imap.UIDSetNum(imap.UID(uid)), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{whole}}).Collect()
	if err != nil || len(got) != 1 {
		h.t.Fatalf("UID %d: %d mails, %v", uid, len(got), err)
	}
	return got[0].FindBodySection(whole)
}

func (h *host) carryOut() error {
	out := h.private.Outgoing()
	for ; h.carried < len(out); h.carried++ {
		o := out[h.carried]
		var to []string
		for _, address := range o.To {
			to = append(to, string(address))
		}
		if err := submit(h.at.smtp, string(botAddress)+"*mayfly", masterPassword, string(o.From), to, o.Data); err != nil {
			return fmt.Errorf("submit %s: %w", o.MessageID, err)
		}
	}
	return nil
}

// carry works until the context ends.
func (h *host) carry(ctx context.Context, woken <-chan uint32) error {
	for {
		select {
		case uid := <-woken:
			h.private.Present(h.fetch(uid))
		case <-h.private.Changed():
			if err := h.carryOut(); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// A bot's life in two sessions: core is configured and joined on an empty Private; then it starts cold, with mail waiting.
func TestCoreLivesOnPrivate(t *testing.T) {
	woken := make(chan uint32, 100)
	cfg := relayConfig()
	cfg.OnChange = func(addr bot.Address, mailbox string, uid uint32) {
		if addr == botAddress && mailbox == inbox {
			woken <- uid
		}
	}
	_, relay := startRelay(t, cfg)
	register(t, relay, botAddress)
	user := startCore(t, t.TempDir())
	user.configure(relay, userAddress, false)
	user.online()

	// Core remembers the ports, as it does in its sandbox.
	dir, where := t.TempDir(), endpoints{freePort(t), freePort(t)}
	first := NewPrivate(privateConfig())
	serveOn(t, first, listen(t, where.imap), listen(t, where.smtp))
	robot := startCore(t, dir)
	robot.configure(where, botAddress, true)
	robot.online()
	h := &host{t: t, at: relay, private: first}
	ctx, stop := context.WithCancel(t.Context())
	carried := make(chan error, 1)
	go func() { carried <- h.carry(ctx, woken) }()
	invite, err := robot.Invite(t.Context(), robot.account)
	robot.must(err)
	chat := user.join(invite)
	robot.wait("inviter", func(e core.Event) bool { return e.Kind == core.InviterProgress && e.Progress == 1000 })
	eventually(t, "the first session settles", tick(t), first.Settled)
	stop()
	if err := <-carried; err != nil {
		t.Fatal(err)
	}
	robot.end()
	eventually(t, "without core nothing is settled", tick(t), func() bool { return !first.Settled() })
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	user.say(chat, "2d6")
	mail := h.fetch(<-woken)
	next := privateConfig()
	next.UIDNext = first.UIDNext()
	second := NewPrivate(next)
	stages := make(chan string, 10)
	second.Stages(func(s string) { stages <- s })
	second.Present(mail)
	serveOn(t, second, listen(t, where.imap), listen(t, where.smtp))
	started := time.Now()
	robot = startCore(t, dir)
	robot.must(robot.StartIO(t.Context(), robot.account))
	m := robot.incoming("2d6")
	t.Logf("cold start to IncomingMsg: %v", time.Since(started))
	if out := second.Outgoing(); len(out) != 0 {
		t.Errorf("core said %d things before the bot", len(out))
	}
	robot.say(m.ChatID, "7")
	eventually(t, "a reply", second.Changed(), func() bool { return len(second.Outgoing()) == 1 })
	t.Logf("cold start to reply: %v", time.Since(started))
	eventually(t, "the second session settles", second.Changed(), second.Settled)
	out := second.Outgoing()[0]
	if out.From != botAddress || !slices.Equal(out.To, []bot.Address{userAddress}) || out.MessageID == "" {
		t.Errorf("outgoing is from %s to %v with ID %q", out.From, out.To, out.MessageID)
	}
	// A cleartext mail stays where it is: core looks at its header, and has nothing more to do.
	second.Present(toCRLF([]byte("From: <" + string(userAddress) + ">\nTo: <" + string(botAddress) + ">\nMessage-ID: <clear@text>\nDate: Thu, 19 Nov 2026 17:21:26 +0000\nSubject: hi\n\nhello\n")))
	eventually(t, "settled after cleartext", second.Changed(), second.Settled)
	h.private, h.carried = second, 0
	if err := h.carryOut(); err != nil {
		t.Fatal(err)
	}
	user.incoming("7")
	robot.end()
	var seen []string
	for len(stages) > 0 {
		seen = append(seen, <-stages)
	}
	if got := strings.Join(seen, " "); !strings.HasPrefix(got, "imap-login fetched submitted") {
		t.Errorf("stages were %q", got)
	}
}

func freePort(t testing.TB) string {
	t.Helper()
	l := listen(t, "127.0.0.1:0")
	defer l.Close()
	return l.Addr().String()
}
