package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
)

// missing decides what it means that the folder is not there.
func (in *Installer) missing(ctx context.Context, addr bot.Address, c Mailbox, folder ledger.Folder) (Result, error) {
	_, err := in.Ledger.Bot(ctx, addr)
	switch {
	case errors.Is(err, ledger.ErrNotFound) && folder.HadBot:
		return Result{}, in.uninstall(ctx, addr) // a crash may have left something of it
	case errors.Is(err, ledger.ErrNotFound):
		return Result{}, c.Create(ctx, Folder)
	case err != nil:
		return Result{}, err
	}
	removed, err := in.removed(ctx, c, folder)
	if err != nil {
		return Result{}, err
	}
	if !removed {
		in.Log.Warn("Bot folder: it is missing in a mailbox that is not the one it was; the bot stays, and the folder is made again", "bot", addr)
		return Result{}, c.Create(ctx, Folder)
	}
	in.Log.Info("Bot folder: it was removed; the bot is uninstalled", "bot", addr)
	return Result{Changed: true, State: Uninstalled}, in.uninstall(ctx, addr)
}

// removed reports whether somebody has removed the folder from the mailbox that it was last seen in.
func (in *Installer) removed(ctx context.Context, c Mailbox, folder ledger.Folder) (bool, error) {
	names, err := c.Folders(ctx)
	if err != nil {
		return false, err
	}
	inbox := slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, "INBOX") })
	if !inbox || slices.Contains(names, Folder) {
		return false, fmt.Errorf("the folder %s is said to be missing, but the list of folders is %.1000q: nothing is uninstalled", Folder, names)
	}
	validity, err := c.UIDValidity(ctx, "INBOX")
	if err != nil {
		return false, err
	}
	return validity != 0 && validity == folder.Inbox, nil
}
