// Package coretest starts the real deltachat-rpc-server for tests, and a mail provider on loopback for it.
package coretest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mayfly/internal/core"
)

// Binary is the path of deltachat-rpc-server: MAYFLY_CORE, or .tools/bin of the module.
func Binary(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("MAYFLY_CORE"); path != "" {
		return path
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
	}
	path := filepath.Join(dir, ".tools", "bin", "deltachat-rpc-server")
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make setup, or set MAYFLY_CORE", err)
	}
	return path
}

// Core is a running core. Its account is set by Configure, and by Start on a folder that has one.
type Core struct {
	*core.Client
	Account core.AccountID
	Events  <-chan core.Event
	Dir     string

	cmd *exec.Cmd
}

// Start starts core on an accounts folder. It is ended at the end of the test, if it was not ended before.
func Start(t testing.TB, dir string) *Core {
	t.Helper()
	cmd := exec.Command(Binary(t))
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
	c := &Core{Client: core.New(stdin, stdout), Dir: dir, cmd: cmd}
	c.Events = c.Client.Events(t.Context())
	t.Cleanup(func() { c.End(t) })
	ids, err := c.AccountIDs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(ids) > 0 {
		c.Account = ids[0]
	}
	return c
}

// End closes core's stdin and waits for it to exit. It may be called more than once.
func (c *Core) End(t testing.TB) {
	t.Helper()
	if c.cmd == nil {
		return
	}
	_ = c.Close()
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("core: %v", err)
	}
	c.cmd = nil
}

// Configure makes an account whose provider is the relay. A bot accepts chats by itself and asks for no receipts.
func (c *Core) Configure(t testing.TB, r *Relay, addr string, bot bool) {
	t.Helper()
	ctx := t.Context()
	var err error
	if c.Account, err = c.AddAccount(ctx); err != nil {
		t.Fatal(err)
	}
	config := map[string]string{"displayname": addr[:strings.IndexByte(addr, '@')]}
	if bot {
		config["bot"], config["mdns_enabled"] = "1", "0"
	}
	if err := c.BatchSetConfig(ctx, c.Account, config); err != nil {
		t.Fatal(err)
	}
	if err := c.Client.Configure(ctx, c.Account, r.transport(t, addr)); err != nil {
		t.Fatal(err)
	}
}

// Online starts I/O and waits until core watches its INBOX.
func (c *Core) Online(t testing.TB) {
	t.Helper()
	if err := c.StartIO(t.Context(), c.Account); err != nil {
		t.Fatal(err)
	}
	c.Wait(t, func(e core.Event) bool { return e.Kind == core.ImapInboxIdle })
}

// Join makes the contact of two cores that are online, by securejoin, and returns the joiner's chat.
func (c *Core) Join(t testing.TB, inviter *Core) core.ChatID {
	t.Helper()
	invite, err := inviter.Invite(t.Context(), inviter.Account)
	if err != nil {
		t.Fatal(err)
	}
	chat, err := c.SecureJoin(t.Context(), c.Account, invite)
	if err != nil {
		t.Fatal(err)
	}
	c.Wait(t, func(e core.Event) bool { return e.Kind == core.JoinerProgress && e.Progress == 1000 })
	return chat
}

// Wait reads events until one fits, for ten seconds at most.
func (c *Core) Wait(t testing.TB, fits func(core.Event) bool) core.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		select {
		case e, ok := <-c.Events:
			if !ok {
				t.Fatal("core's events ended")
			}
			if fits(e) {
				return e
			}
		case <-ctx.Done():
			t.Fatal("core did not report what the test waits for")
		}
	}
}

// WaitMessage waits for a new message and reads it.
func (c *Core) WaitMessage(t testing.TB) core.Message {
	t.Helper()
	e := c.Wait(t, func(e core.Event) bool { return e.Kind == core.IncomingMsg })
	m, err := c.GetMessage(t.Context(), c.Account, e.MsgID)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
