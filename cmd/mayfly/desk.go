package main

import (
	"context"
	"io"
	"time"

	"mayfly/internal/admin"
	"mayfly/internal/backup"
	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/dispatch"
	"mayfly/internal/install"
	"mayfly/internal/ledger"
	"mayfly/internal/outbox"
)

// desk answers the operator. live is false where no daemon runs and the state folder was opened for one question; else life is the
// daemon's.
func (h *host) desk(life context.Context, live bool) *admin.Desk {
	return &admin.Desk{Ledger: h.ledger, Host: deskHost{h, life, live}, Live: live, Now: time.Now}
}

// openForDesk opens what a desk needs where no daemon runs.
func (h *host) openForDesk() (err error) {
	if h.master, err = h.cfg.Relay.masterPassword(); err != nil { // only remove needs it
		h.master = ""
	}
	if h.outbox, err = outbox.New(h.path("outbox"), h.ledger, nil, h.log); err != nil {
		return err
	}
	h.installer = install.New(install.Options{Ledger: h.ledger, Bundles: h.store, Keys: h.keys, Mails: h.outbox, Log: h.log})
	return nil
}

// deskHost is the host as the operator's desk needs it.
type deskHost struct {
	*host
	life context.Context
	live bool
}

// Evict removes a bot, on its own goroutine where there is one.
func (d deskHost) Evict(ctx context.Context, addr bot.Address, why string) (e admin.Evicted, err error) {
	whole := context.WithoutCancel(ctx) // what was begun is finished
	evict := func() {
		e.Untold, err = d.installer.Evict(whole, addr, why, func(ctx context.Context) (install.Appender, error) { return d.dialMailbox(ctx, addr) })
	}
	if !d.live {
		evict()
		return e, err
	}
	ended, undone := d.dispatcher.DoNow(d.life, ctx, addr, evict)
	if undone != nil {
		return admin.Evicted{}, undone
	}
	e.Ended = ended
	return e, err
}

// Wake has the bot's goroutine look.
func (d deskHost) Wake(addr bot.Address) {
	if d.live {
		d.dispatcher.Wake(d.life, addr, dispatch.WakeInbox|dispatch.WakeFolder)
	}
}

// Disk is what a bot, or with "" all bots, take.
func (d deskHost) Disk(addr bot.Address) (int64, error) {
	if addr == "" {
		return d.store.Usage()
	}
	return d.store.UsageOf(addr)
}

// Over is what a bot, or all of them together, have used up.
func (d deskHost) Over(ctx context.Context, addr bot.Address) (what string, until time.Time, err error) {
	if addr == "" {
		return d.cpu.Over(ctx)
	}
	b, err := d.ledger.Bot(ctx, addr)
	if err == nil {
		what, until, err = d.limits.Over(ctx, d.ledger, b)
	}
	if err != nil || what != "" {
		return what, until, err
	}
	return d.cpu.Over(ctx)
}

// CPU is what all sandboxes took within the last hour.
func (d deskHost) CPU(ctx context.Context) (time.Duration, error) { return d.cpu.Used(ctx) }

// Ceilings are the configuration's, which was checked.
func (d deskHost) Ceilings() admin.Ceilings {
	disk, _ := bundle.ParseSize(d.cfg.Install.Disk)
	cpu, _ := time.ParseDuration(d.cfg.Limits.HostCPUPerHour)
	return admin.Ceilings{Bots: d.cfg.Install.Bots, Disk: disk, CPUHour: cpu}
}

// Free is what is left for all.
func (d deskHost) Free() (int64, error) { return freeBytes(d.cfg.State) }

// Backup writes an archive.
func (d deskHost) Backup(ctx context.Context, w io.Writer) ([]backup.Problem, error) {
	return d.files.Write(ctx, d.ledger, w)
}

// Verify checks the state folder.
func (d deskHost) Verify(ctx context.Context) ([]backup.Problem, error) {
	if !d.live {
		return d.files.Check(ctx)
	}
	return d.files.CheckLive(ctx, d.ledger)
}

// tidyEvery is how often what is over is forgotten.
const tidyEvery = 24 * time.Hour

// tidyDaily forgets, at the start and once a day, what is over and old.
func (h *host) tidyDaily(ctx context.Context) {
	every(ctx, tidyEvery, func() {
		rows, err := h.ledger.Tidy(ctx, time.Now(), ledger.DefaultRetention())
		files, err2 := h.outbox.SweepOld(ctx, tidyEvery)
		switch {
		case ctx.Err() != nil:
		case err != nil || err2 != nil:
			h.log.Warn("tidying failed; it is tried again tomorrow", "ledger", err, "outbox", err2)
		default:
			h.log.Debug("tidied", "rows", rows, "files", files, "ledger_bytes", h.ledger.Size())
		}
	})
}

// every calls f now and then once in each period, until ctx ends.
func every(ctx context.Context, period time.Duration, f func()) {
	ticks := time.NewTicker(period)
	defer ticks.Stop()
	for {
		f()
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
	}
}
