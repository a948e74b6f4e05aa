package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/dispatch"
	"mayfly/internal/install"
	"mayfly/internal/mailbox"
	"mayfly/internal/wake"
)

// maxAccounts bounds the accounts that a relay's users can make the host watch by making Bot folders in them.
const maxAccounts = 20_000

// listen makes the socket for the relay's hook, or returns nil where the configuration has none.
func (h *host) listen(ctx context.Context) (*wake.Listener, error) {
	if h.cfg.Relay.WakeSocket == "" {
		return nil, nil
	}
	group, err := h.cfg.Relay.wakeGroup()
	if err != nil {
		return nil, err
	}
	told := func(account bot.Address, folder string, _ uint32) { h.told(ctx, account, folder) }
	return wake.Listen(wake.Options{Path: h.cfg.Relay.WakeSocket, Group: group, Changed: told, Log: h.log})
}

// told takes a hint of the relay's. New mail counts only where a Bot folder is known; a Bot folder makes its account known.
func (h *host) told(ctx context.Context, account bot.Address, folder string) {
	switch {
	case folder == "INBOX":
		if h.knows(account) {
			h.dispatcher.Wake(ctx, account, dispatch.WakeInbox)
		}
	case strings.HasPrefix(folder, install.Folder):
		if err := h.Announce(ctx, account); err != nil {
			h.log.Warn("account not watched", "bot", account, "err", err)
			return
		}
		h.dispatcher.Wake(ctx, account, dispatch.WakeFolder)
	}
}

func (h *host) knows(account bot.Address) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.watching[account]
}

// Announce tells the host of an account with a Bot folder. It is remembered over restarts.
func (h *host) Announce(ctx context.Context, account bot.Address) error {
	h.mu.Lock()
	known, full := h.watching[account], len(h.watching) >= maxAccounts
	h.mu.Unlock()
	if known {
		return nil
	}
	if full {
		return fmt.Errorf("%d accounts are watched already, which is the most", maxAccounts)
	}
	if err := h.ledger.AddAccount(ctx, account); err != nil {
		return err
	}
	h.watch(ctx, account)
	return nil
}

// watch looks at an account now and from now on: when the hook tells, or else by two IDLE connections, for its INBOX and its
// Bot folder.
func (h *host) watch(ctx context.Context, account bot.Address) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watching[account] || ctx.Err() != nil {
		return
	}
	h.watching[account] = true
	if h.cfg.Relay.WakeSocket != "" {
		h.dispatcher.Wake(ctx, account, dispatch.WakeInbox|dispatch.WakeFolder)
		return
	}
	for folder, what := range map[string]dispatch.Wake{"INBOX": dispatch.WakeInbox, install.Folder: dispatch.WakeFolder} {
		h.watchers.Go(func() {
			dial := func(ctx context.Context) (*mailbox.Client, error) { return h.dialMailbox(ctx, account) }
			changed := func() { h.dispatcher.Wake(ctx, account, what) }
			mailbox.Watch(ctx, dial, folder, changed, h.log.With("bot", account))
		})
	}
}

// poll is the net under hook and IDLE: it looks at every account once in a period, one after the other.
func (h *host) poll(ctx context.Context) {
	for ctx.Err() == nil {
		accounts := h.watched()
		pause := h.pollEvery / time.Duration(len(accounts)+1)
		for _, account := range append(accounts, "") {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
			if account != "" {
				h.dispatcher.Wake(ctx, account, dispatch.WakeInbox|dispatch.WakeFolder)
			}
		}
	}
}

func (h *host) watched() []bot.Address {
	h.mu.Lock()
	defer h.mu.Unlock()
	accounts := make([]bot.Address, 0, len(h.watching))
	for account := range h.watching {
		accounts = append(accounts, account)
	}
	return accounts
}
