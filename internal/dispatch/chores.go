package dispatch

import (
	"context"
	"errors"

	"mayfly/internal/bot"
)

// ErrEnded is returned by Do when the bot's goroutine ends, or has ended, without calling the function.
var ErrEnded = errors.New("the host is about to end")

// Do has the goroutine of account call f between two mails, and returns when it has. No session, look or installation of the bot is
// under way meanwhile. life ends the goroutine, as in Wake; ctx ends the waiting, and then f is not called.
func (d *Dispatcher) Do(life, ctx context.Context, account bot.Address, f func()) error {
	a := d.find(life, account)
	if a == nil {
		return ErrEnded
	}
	done := make(chan struct{})
	select {
	case a.chores <- func() { defer close(done); f() }:
		<-done
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-life.Done():
		return ErrEnded
	}
}

// DoNow is Do, but ends the session of the bot that is under way, as the end of the host would: nothing of it is kept. It reports whether
// there was one.
func (d *Dispatcher) DoNow(life, ctx context.Context, account bot.Address, f func()) (ended bool, err error) {
	a := d.find(life, account)
	if a == nil {
		return false, ErrEnded
	}
	d.mu.Lock()
	a.hurries++
	if ended = a.end != nil; ended {
		a.end()
	}
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		a.hurries--
		d.mu.Unlock()
	}()
	return ended, d.Do(life, ctx, account, f)
}

// hurried returns the context of a session, which DoNow ends. done is called after the session.
func (a *actor) hurried(ctx context.Context) (session context.Context, done func()) {
	session, end := context.WithCancel(ctx)
	a.d.mu.Lock()
	defer a.d.mu.Unlock()
	if a.end = end; a.hurries > 0 {
		end()
	}
	return session, func() {
		a.d.mu.Lock()
		a.end = nil
		a.d.mu.Unlock()
		end()
	}
}

// find returns the goroutine of account, which it starts when there is none yet; nil when no more are.
func (d *Dispatcher) find(ctx context.Context, account bot.Address) *actor {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.locked(ctx, account)
}

// locked is find, with d.mu held.
func (d *Dispatcher) locked(ctx context.Context, account bot.Address) *actor {
	a := d.actors[account]
	if a == nil && !d.closed {
		a = d.newActor(account)
		d.actors[account] = a
		d.group.Go(func() { a.serve(ctx) })
	}
	return a
}

// interrupted does what Do wants of the bot, and reports whether it wanted something. The mail that was looked at has to be looked
// at anew.
func (a *actor) interrupted(ctx context.Context) (bool, error) {
	select {
	case f := <-a.chores:
		err := a.dropRefused(ctx)
		f()
		a.d.Wake(ctx, a.account, WakeInbox)
		return true, err
	default:
		return false, nil
	}
}

// paused reports whether the operator lets the bot's mail wait.
func (a *actor) paused(ctx context.Context) (bool, error) {
	p, paused, err := a.d.opts.Ledger.Paused(ctx, a.account)
	if err != nil || !paused {
		a.heard = heard{}
		return false, err
	}
	if !a.heard.since.Equal(p.Since) {
		a.heard = heard{since: p.Since}
		a.log.Info("mail waits: the operator has paused the bot", "why", p.Why, "since", p.Since)
	}
	return true, nil
}
