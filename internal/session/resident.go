package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"path"
	"strings"
	"sync"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/core"
	"mayfly/internal/gateway"
	"mayfly/internal/sandbox"
)

// resident runs bots that were written as daemons, and are not changed for us: they start deltachat-rpc-server, find a script of
// ours by that name on their PATH, and through it the gateway, which has one message for them. When they have gone quiet they are
// ended.
type resident struct {
	furnisher func(spec *sandbox.Spec, m bot.Manifest) error
}

// shimDir has what stands for deltachat-rpc-server, and rpcPort is where it finds the gateway.
const (
	shimDir  = "/mayfly"
	shimPath = shimDir + "/deltachat-rpc-server"
	rpcPort  = 2062
)

// shim joins the program's standard streams to the gateway. It ends when the gateway hangs up, and when its input ends, as core's
// server does, and tells the version that core has.
func shim(version string) string {
	return fmt.Sprintf(`#!/bin/bash
case "$1" in --version) echo %s; exit ;; esac
exec 3<>/dev/tcp/127.0.0.1/%d || exit 1
(/usr/bin/cat >&3; kill $$) <&0 2>/dev/null &
exec /usr/bin/cat <&3
`, version, rpcPort)
}

// The shape of an end.
const (
	stopGrace      = 500 * time.Millisecond // between SIGTERM and the kill
	maxConnections = 4                      // servers that a bot has started at a time
	allConnections = 100                    // and in its run
)

func (r *resident) furnish(spec *sandbox.Spec, m bot.Manifest) error {
	if err := r.furnisher(spec, m); err != nil {
		return err
	}
	spec.Dirs = append(spec.Dirs, sandbox.Dir{Path: shimDir, Size: 16 << 10, Inodes: 10, Exec: true})
	spec.Listen = []uint16{rpcPort}
	main := &spec.Programs[0]
	main.Env = append(main.Env, "DELTA_CHAT_RPC_SERVER="+shimPath, "PYTHONUNBUFFERED=1") // the first is for the client of npm
	return nil
}

// ready lays the shim down. The bot is started with its message, so that what it uses is in the record of a run.
func (r *resident) ready(p *program) error {
	script := shim(p.r.CoreVersion)
	return p.box.PutFile(shimPath, int64(len(script)), strings.NewReader(script))
}

func (r *resident) run(ctx context.Context, p *program, c *coreSide, o occasion, timeline *Timeline) (finish, error) {
	ctx, cancel := context.WithTimeout(ctx, p.bot.Manifest.Limits.Wall)
	defer cancel()
	files := newFiles(c, p)
	if o.msg.File != "" && o.event.Kind == core.IncomingMsg {
		if _, _, err := files.show(o.msg, path.Base(o.msg.File)); err != nil { // as core calls it: a bot may send it on
			return finish{}, err
		}
	}
	if err := p.box.Seal(attachmentsDir); err != nil {
		return finish{}, err
	}
	options := p.gatewayOptions(c, o, files)
	options.Occasion = &gateway.Occasion{Message: uint32(o.msg.ID), New: o.event.Kind == core.IncomingMsg, Event: o.event.Raw}
	d := &daemon{p: p, g: gateway.New(options), schedule: o.schedule, cancel: cancel}
	p.asked = d.g.Asked
	return d.run(ctx, c, timeline)
}

// daemon is a resident bot in its run.
type daemon struct {
	p        *program
	g        *gateway.Gateway
	schedule *Schedule // nil: it is run for a message
	cancel   context.CancelFunc
	tasks    sync.WaitGroup

	mu  sync.Mutex
	err error // how the bot broke the protocol
}

func (d *daemon) run(ctx context.Context, c *coreSide, timeline *Timeline) (finish, error) {
	p := d.p
	if err := p.box.Start(programName, d.schedule.env()...); err != nil {
		return finish{}, err
	}
	timeline.Mark("handler")
	stdio := p.box.Program(programName)
	_ = stdio.Stdin.Close() // a daemon reads nothing
	var printed sync.WaitGroup
	printed.Go(func() { p.log.also(stdio.Stdout, func() { _ = p.box.Kill() }) })
	d.tasks.Go(func() { d.accept(ctx, p.box.Listener(rpcPort)) })
	d.tasks.Go(func() { d.report(ctx, c) })

	exit, own, trouble := d.attend(ctx, timeline)
	taken := d.g.Activity().Taken
	d.hangUp(p.box.Listener(rpcPort))
	printed.Wait()
	if p.log.flooded() {
		trouble = errOutput
	}
	return d.finish(signalled(exit), own, taken, cmp.Or(d.err, trouble)), nil
}

// attend waits until the bot is quiet and ends it, or until it ends by itself (own), or at ctx's end.
func (d *daemon) attend(ctx context.Context, timeline *Timeline) (exit sandbox.Exit, own bool, trouble error) {
	ended := make(chan struct{})
	d.tasks.Go(func() {
		defer close(ended)
		exit, trouble = d.p.wait(ctx)
	})
	since, quiet := d.quiet(ctx, ended)
	if !quiet {
		<-ended
		return exit, true, trouble
	}
	timeline.MarkAt("quiet", since)
	if err := d.p.stop(ended); err != nil {
		return exit, false, err
	}
	return exit, false, trouble
}

// stop ends a program that is quiet: ended is closed when it has ended.
func (p *program) stop(ended <-chan struct{}) error {
	if err := p.box.Terminate(); err != nil {
		return err
	}
	select {
	case <-ended:
		return nil
	case <-time.After(stopGrace):
		err := p.box.Kill()
		<-ended
		return err
	}
}

// The pace at which a bot is looked at: a part of its grace, and the shortest.
const (
	looksInGrace = 6
	shortLook    = 20 * time.Millisecond
	idleShare    = 20 // a bot that uses less than this part of the time is not working
)

// quiet waits until the bot has been told of its message, waits for more, has made no other call and used no CPU time for its
// grace, and returns since when that is so. One that says that it is done (gateway.Done) has a grace of one short look: it may have left work to another thread.
func (d *daemon) quiet(ctx context.Context, ended <-chan struct{}) (since time.Time, quiet bool) {
	grace := d.p.bot.Manifest.Resident.Grace
	look, done := grace/looksInGrace, d.g.Done()
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	var used time.Duration
	since = time.Now()
	for {
		select {
		case <-ended:
			return since, false
		case <-ctx.Done():
			return since, false
		case <-done:
			done, look, grace = nil, shortLook, shortLook
			ticker.Reset(look)
		case <-ticker.C:
		}
		now, before := time.Now(), used
		var err error
		if used, err = d.p.box.Usage(); err != nil {
			return since, false // it is dead, and its end tells why
		}
		a := d.g.Activity()
		said := done == nil
		if !a.Taken || a.Busy > 0 || a.Waiting == 0 && !said || used-before > look/idleShare || a.Last.After(since) && !said {
			since = now
		}
		if now.Sub(since) >= grace {
			return since, true
		}
	}
}

// accept serves the servers that the bot starts, until ctx ends and the listener is closed. After as many as a run may have, the
// others wait in vain: to refuse them costs more than to try.
func (d *daemon) accept(ctx context.Context, l net.Listener) {
	slots := make(chan struct{}, maxConnections)
	for range allConnections {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		select {
		case slots <- struct{}{}:
			d.tasks.Go(func() {
				d.serve(ctx, conn)
				<-slots
			})
		default: // as core's server does when another one has its accounts
			_ = conn.Close()
		}
	}
}

func (d *daemon) serve(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close()
	if err := d.g.Serve(ctx, conn, conn); errors.Is(err, gateway.ErrLine) {
		d.broke(err)
	}
}

// broke ends the run of a bot that broke the protocol.
func (d *daemon) broke(err error) {
	d.mu.Lock()
	d.err = err
	d.mu.Unlock()
	d.cancel()
}

// hangUp ends all that serves the bot, and returns when no call of it can reach core any more.
func (d *daemon) hangUp(l net.Listener) {
	d.cancel()
	_ = l.Close()
	d.tasks.Wait()
}

// report passes core's events on while the bot runs.
func (d *daemon) report(ctx context.Context, c *coreSide) {
	for {
		select {
		case e, ok := <-c.events:
			if !ok {
				return
			}
			c.count(e)
			d.g.Event(e.Kind, e.Raw)
		case <-ctx.Done():
			return
		}
	}
}

// finish judges how the bot ended. One that was quiet, and so was ended by us, is well. So is one that ended by itself when it was run for
// a schedule: there is nothing that it must have asked for.
func (d *daemon) finish(exit sandbox.Exit, own, taken bool, trouble error) finish {
	switch {
	case trouble == nil && (!own || (taken || d.schedule != nil) && exit == sandbox.Exit{}):
		return finish{status: bot.RunOK}
	case trouble == nil && exit == sandbox.Exit{}:
		return finish{status: bot.RunError, message: bounded("the bot ended before it asked for its message\n" + d.p.log.last())}
	case trouble == nil && exit.Signal == 0:
		return finish{status: bot.RunError, message: bounded(fmt.Sprintf("exit code %d%s\n%s", exit.Code, sysexit(exit.Code), d.p.log.last())), exit: exit}
	case errors.Is(trouble, context.DeadlineExceeded) && !taken:
		return finish{status: bot.RunTimeout, exit: exit, trouble: trouble,
			message: bounded("the bot did not call start_io and ask for its events within [limits] wall\n" + d.p.log.last())}
	}
	return finish{exit: exit, trouble: trouble}
}
