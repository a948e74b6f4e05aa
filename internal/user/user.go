// Package user is a person with Delta Chat, for the demo and the tests: the official core in a process of its own, used as an
// app uses it. It knows nothing of Mayfly and talks to the relay by itself.
package user

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"

	"mayfly/internal/core"
)

// User is one running core with one configured account.
type User struct {
	*core.Client
	Account core.AccountID

	command *exec.Cmd
	stderr  *bytes.Buffer
	stop    context.CancelFunc

	mu     sync.Mutex
	seen   []core.Event // events that nobody has waited for yet
	closed bool
	news   chan struct{}
}

// Start runs the core at path on an empty folder and configures one account. It is online when Start returns.
func Start(ctx context.Context, path, folder, name string, t core.Transport) (*User, error) {
	u := &User{command: exec.Command(path), stderr: &bytes.Buffer{}, news: make(chan struct{}, 1)}
	u.command.Env = append(os.Environ(), "DC_ACCOUNTS_PATH="+folder, "RUST_LOG=error")
	u.command.Stderr = u.stderr
	stdin, err := u.command.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := u.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := u.command.Start(); err != nil {
		return nil, fmt.Errorf("core: %w", err)
	}
	u.Client = core.New(stdin, stdout)
	events, stop := context.WithCancel(context.Background())
	u.stop = stop
	go u.collect(u.Events(events))
	if err := u.configure(ctx, name, t); err != nil {
		return nil, errors.Join(err, u.Close())
	}
	return u, nil
}

func (u *User) configure(ctx context.Context, name string, t core.Transport) error {
	var err error
	if u.Account, err = u.AddAccount(ctx); err != nil {
		return err
	}
	if err := u.SetConfig(ctx, u.Account, "displayname", name); err != nil {
		return err
	}
	if err := u.Configure(ctx, u.Account, t); err != nil {
		return err
	}
	if err := u.StartIO(ctx, u.Account); err != nil {
		return err
	}
	// Core never sees what came into the INBOX before it looked for the first time.
	_, err = u.Await(ctx, func(e core.Event) bool { return e.Kind == core.ImapInboxIdle })
	return err
}

func (u *User) collect(events <-chan core.Event) {
	for e := range events {
		u.mu.Lock()
		u.seen = append(u.seen, e)
		u.mu.Unlock()
		u.wake()
	}
	u.mu.Lock()
	u.closed = true
	u.mu.Unlock()
	u.wake()
}

func (u *User) wake() {
	select {
	case u.news <- struct{}{}:
	default:
	}
}

// Await returns the first event for which match is true, and forgets it and all before it. One goroutine at a time may wait.
func (u *User) Await(ctx context.Context, match func(core.Event) bool) (core.Event, error) {
	for {
		if e, ok := u.take(match); ok {
			return e, nil
		}
		u.mu.Lock()
		closed := u.closed
		u.mu.Unlock()
		if closed {
			return core.Event{}, fmt.Errorf("core has ended: %s", u.stderr)
		}
		select {
		case <-u.news:
		case <-ctx.Done():
			return core.Event{}, ctx.Err()
		}
	}
}

func (u *User) take(match func(core.Event) bool) (core.Event, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, e := range u.seen {
		if match(e) {
			u.seen = u.seen[i+1:]
			return e, true
		}
	}
	return core.Event{}, false
}

// Join accepts an invite link and returns the chat when the handshake is through.
func (u *User) Join(ctx context.Context, invite string) (core.ChatID, error) {
	chat, err := u.SecureJoin(ctx, u.Account, invite)
	if err != nil {
		return 0, err
	}
	done, err := u.Await(ctx, func(e core.Event) bool {
		return e.Kind == core.JoinerProgress && (e.Progress == 1000 || e.Progress == 0)
	})
	if err != nil {
		return 0, fmt.Errorf("waiting for the handshake: %w", err)
	}
	if done.Progress == 0 {
		return 0, errors.New("the handshake failed")
	}
	return chat, nil
}

// Next waits for the next message of a person or bot; what core writes itself into chats is passed over.
func (u *User) Next(ctx context.Context) (core.Message, error) {
	for {
		e, err := u.Await(ctx, func(e core.Event) bool { return e.Kind == core.IncomingMsg })
		if err != nil {
			return core.Message{}, fmt.Errorf("waiting for a message: %w", err)
		}
		m, err := u.GetMessage(ctx, u.Account, e.MsgID)
		if err != nil || !m.IsInfo {
			return m, err
		}
	}
}

// Say sends a text.
func (u *User) Say(ctx context.Context, chat core.ChatID, text string) (core.MsgID, error) {
	return u.SendMsg(ctx, u.Account, chat, core.MessageData{Text: text})
}

// Close ends core and waits for it.
func (u *User) Close() error {
	u.stop()
	err := u.Client.Close()
	return errors.Join(err, u.command.Wait())
}
