package accountreader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"mayfly/internal/bot"
	"mayfly/internal/core"
	"mayfly/internal/core/coretest"
)

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// reader is a Client on a Main, as the daemon and the sandbox have them, for the accounts folder dir.
func reader(t *testing.T, dir string) *Client {
	t.Helper()
	stdin, toReader, err := os.Pipe()
	ok(t, err)
	fromReader, stdout, err := os.Pipe()
	ok(t, err)
	ended := make(chan int)
	go func() {
		status := Main(stdin, stdout, os.Stderr, []string{dir})
		_ = stdout.Close()
		ended <- status
	}()
	c := NewClient(toReader, fromReader)
	t.Cleanup(func() {
		_ = c.Close()
		if status := <-ended; status != 0 {
			t.Errorf("the reader's exit status is %d", status)
		}
	})
	return c
}

// joined is a bot and a user on one relay, in contact with each other.
func joined(t *testing.T) (relay *coretest.Relay, bot, user *coretest.Core, chat core.ChatID) {
	t.Helper()
	relay = coretest.NewRelay(t)
	bot, user = coretest.Start(t, t.TempDir()), coretest.Start(t, t.TempDir())
	bot.Configure(t, relay, "dice@chat.test", true)
	user.Configure(t, relay, "alice@chat.test", false)
	bot.Online(t)
	user.Online(t)
	return relay, bot, user, user.Join(t, bot)
}

// invite makes an invite link and takes it apart: fingerprint, invite number, auth token.
func invite(t *testing.T, c *coretest.Core) (fingerprint, number, auth string) {
	t.Helper()
	link, err := c.Invite(t.Context(), c.Account)
	ok(t, err)
	_, rest, _ := strings.Cut(link, "#")
	fingerprint, query, _ := strings.Cut(rest, "&")
	values, err := url.ParseQuery(query)
	ok(t, err)
	return fingerprint, values.Get("i"), values.Get("s")
}

func fingerprints(t *testing.T, keys [][]byte, secret bool) []string {
	t.Helper()
	var list []string
	for _, key := range keys {
		entity, err := openpgp.ReadEntity(packet.NewReader(bytes.NewReader(key)))
		ok(t, err)
		if (entity.PrivateKey != nil) != secret {
			t.Errorf("a key has a secret part: %v, want %v", entity.PrivateKey != nil, secret)
		}
		list = append(list, fmt.Sprintf("%X", entity.PrimaryKey.Fingerprint))
	}
	return list
}

func TestStateOfARealCore(t *testing.T) {
	_, botCore, user, _ := joined(t)
	botKey, number, auth := invite(t, botCore)
	userKey, _, _ := invite(t, user)

	r := reader(t, botCore.Dir)
	live, err := r.State(t.Context())
	ok(t, err)
	if !live.Readable || live.Schema < firstSchema || live.Schema > lastSchema {
		t.Errorf("schema %d, readable %v", live.Schema, live.Readable)
	}
	if got := fingerprints(t, live.SelfKeys, true); !slices.Equal(got, []string{botKey}) {
		t.Errorf("own keys %v, want %s", got, botKey)
	}
	if got := fingerprints(t, live.PublicKeys, false); !slices.Contains(got, userKey) {
		t.Errorf("public keys %v, want %s among them", got, userKey)
	}
	if !slices.Equal(live.InviteNumbers, []string{number}) || !slices.Contains(live.AuthTokens, auth) {
		t.Errorf("tokens %q and %q, want %q and %q", live.InviteNumbers, live.AuthTokens, number, auth)
	}

	botCore.End(t)
	ended, err := r.State(t.Context())
	ok(t, err)
	if fmt.Sprint(ended) != fmt.Sprint(live) {
		t.Errorf("after core's end the state is %+v, before it was %+v", ended, live)
	}
	if left := walFiles(t, botCore.Dir); len(left) > 0 {
		t.Errorf("left in the account's folder: %v", left)
	}
}

// walFiles lists what SQLite leaves when the last connection was not closed.
func walFiles(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	ok(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, "-wal") || strings.HasSuffix(path, "-shm") {
			found = append(found, path)
		}
		return err
	}))
	return found
}

func TestBroadcastSecret(t *testing.T) {
	c := coretest.Start(t, t.TempDir())
	c.Configure(t, coretest.NewRelay(t), "dice@chat.test", true)
	ok(t, c.Call(t.Context(), "create_broadcast", nil, c.Account, "News"))
	s, err := reader(t, c.Dir).State(t.Context())
	ok(t, err)
	if len(s.BroadcastSecrets) != 1 || len(s.BroadcastSecrets[0]) < 40 {
		t.Errorf("broadcast secrets %q, want one", s.BroadcastSecrets)
	}
}

// A mail that the provider refuses stays in core's queue, over core's end, until it is sent.
func TestPendingOfARealCore(t *testing.T) {
	relay, botCore, user, chat := joined(t)
	r := reader(t, botCore.Dir)
	waitFor(t, r, bot.Pending.Drained)

	relay.Refusing.Store(true)
	_, err := botCore.SendMsg(t.Context(), botCore.Account, 10, core.MessageData{Text: "refused"})
	ok(t, err)
	botCore.Wait(t, func(e core.Event) bool { return e.Kind == "Warning" && strings.Contains(e.Msg, "Retry") })
	p, err := r.Pending(t.Context())
	ok(t, err)
	if p.Drained() || p.SMTP != 1 {
		t.Errorf("with a refused mail: %+v, want one mail in SMTP", p)
	}
	botCore.End(t)
	if p, err := r.Pending(t.Context()); err != nil || p.SMTP != 1 {
		t.Errorf("after core's end: %+v, %v, want one mail in SMTP", p, err)
	}

	relay.Refusing.Store(false)
	botCore = coretest.Start(t, botCore.Dir)
	botCore.Online(t)
	if m := user.WaitMessage(t); m.Text != "refused" || m.ChatID != chat {
		t.Errorf("the user got %+v", m)
	}
	waitFor(t, r, bot.Pending.Drained)
}

// Reading all the time disturbs neither core's work nor the end of it.
func TestReadingBesideALiveCore(t *testing.T) {
	_, botCore, user, chat := joined(t)
	r := reader(t, botCore.Dir)
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error)
	go func() {
		for {
			if _, err := r.Pending(t.Context()); err != nil || ctx.Err() != nil {
				asked <- err
				return
			}
		}
	}()
	_, err := user.SendMsg(t.Context(), user.Account, chat, core.MessageData{Text: "count"})
	ok(t, err)
	question := botCore.WaitMessage(t)
	for n := range 5 {
		_, err := botCore.SendMsg(t.Context(), botCore.Account, question.ChatID, core.MessageData{Text: fmt.Sprint(n)})
		ok(t, err)
		if m := user.WaitMessage(t); m.Text != fmt.Sprint(n) {
			t.Errorf("message %d is %q", n, m.Text)
		}
	}
	botCore.End(t)
	cancel()
	ok(t, <-asked)
	if left := walFiles(t, botCore.Dir); len(left) > 0 {
		t.Errorf("left in the account's folder: %v", left)
	}
}

func waitFor(t *testing.T, r *Client, fits func(bot.Pending) bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		p, err := r.Pending(t.Context())
		ok(t, err)
		if fits(p) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("core still has %+v", p)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestNoAccountYet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	r := reader(t, dir)
	if _, err := r.State(t.Context()); !errors.Is(err, ErrReader) {
		t.Errorf("without a folder: %v", err)
	}
	c := coretest.Start(t, dir)
	if _, err := r.State(t.Context()); !errors.Is(err, ErrReader) || !strings.Contains(err.Error(), "found 0 accounts") {
		t.Errorf("without an account: %v", err)
	}
	_, err := c.AddAccount(t.Context())
	ok(t, err)
	if s, err := r.State(t.Context()); err != nil || !s.Readable || len(s.SelfKeys) != 0 {
		t.Errorf("with an empty account: %+v, %v", s, err)
	}
	_, err = c.AddAccount(t.Context())
	ok(t, err)
	if _, err := r.Pending(t.Context()); !errors.Is(err, ErrReader) || !strings.Contains(err.Error(), "found 2 accounts") {
		t.Errorf("with two accounts: %v", err)
	}
}

func TestMainWantsOneArgument(t *testing.T) {
	devNull, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	ok(t, err)
	defer devNull.Close()
	if status := Main(devNull, devNull, devNull, nil); status != 64 {
		t.Errorf("exit status %d, want 64", status)
	}
}
