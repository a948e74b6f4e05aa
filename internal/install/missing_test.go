package install

import (
	"context"
	"errors"
	"slices"
	"testing"

	"mayfly/internal/ledger"
	"mayfly/internal/mailbox"
)

func TestRemovingTheFolderUninstalls(t *testing.T) {
	h := newHost(t)
	h.append(pack(t, "1.0.0"))
	h.process()
	h.removeFolder()
	h.want(Result{Changed: true, State: Uninstalled}, "")
	h.want(Result{}, "")
	h.want(Result{}, "")
	if folders := h.folders(); slices.Contains(folders, Folder) {
		t.Errorf("the folder that its owner removed was made again: %q", folders)
	}
	h.append(pack(t, "2.0.0")) // which makes the folder
	h.want(Result{Changed: true, State: Installed}, "2.0.0")
	h.removeFolder()
	h.want(Result{Changed: true, State: Uninstalled}, "")
	h.createFolder(Folder)
	h.want(Result{}, "")
}

// Before there was a bot, and not after one, the folder is made.
func TestTheFolderIsMadeForNewAccounts(t *testing.T) {
	h := newHost(t)
	for range 2 {
		h.want(Result{}, "")
		if folders := h.folders(); !slices.Contains(folders, Folder) {
			t.Fatalf("no folder was made: %q", folders)
		}
		h.removeFolder()
	}
	h.append(pack(t, "1.0.0"), uninstall(t))
	h.want(Result{State: Uninstalled}, "")
	h.append(pack(t, "1.0.0"))
	h.process()
	h.append(uninstall(t))
	h.want(Result{Changed: true, State: Uninstalled}, "")
	h.removeFolder()
	h.want(Result{}, "")
	if folders := h.folders(); slices.Contains(folders, Folder) {
		t.Errorf("the folder was made again: %q", folders)
	}
}

// doubtful is a mailbox whose server says odd things about its folders.
type doubtful struct {
	Mailbox
	list     []string
	err      error
	validity uint32
}

func (d doubtful) Folders(context.Context) ([]string, error) { return d.list, d.err }

func (d doubtful) UIDValidity(ctx context.Context, folder string) (uint32, error) {
	if d.validity == 0 {
		return d.Mailbox.UIDValidity(ctx, folder)
	}
	return d.validity, nil
}

// What only looks like a removal uninstalls nothing.
func TestDoubtfulRemovals(t *testing.T) {
	away := errors.New("the relay is away")
	for name, test := range map[string]struct {
		mailbox doubtful
		fails   bool
		made    bool // the folder is there afterwards
	}{
		"the list fails":            {doubtful{err: away}, true, false},
		"the list is empty":         {doubtful{}, true, false},
		"no INBOX":                  {doubtful{list: []string{"Sent", StatusFolder}}, true, false},
		"the folder is in the list": {doubtful{list: []string{"INBOX", Folder}}, true, false},
		"another mailbox":           {doubtful{list: []string{"INBOX"}, validity: 77}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.append(pack(t, "1.0.0"))
			h.process()
			h.removeFolder()
			test.mailbox.Mailbox = h.mailbox
			result, err := h.installer.Process(t.Context(), addr, test.mailbox)
			if (err != nil) != test.fails || result != (Result{}) || h.version() != "1.0.0" {
				t.Errorf("%+v, %v, version %q", result, err, h.version())
			}
			if test.mailbox.err != nil && !errors.Is(err, test.mailbox.err) {
				t.Errorf("got %v", err)
			}
			if made := slices.Contains(h.folders(), Folder); made != test.made {
				t.Errorf("the folder is there: %v, want %v", made, test.made)
			}
		})
	}
}

// A bot of an older host, whose folder was never seen by this one, is not uninstalled.
func TestNeverSeenFolder(t *testing.T) {
	h := newHost(t)
	if err := h.ledger.Install(t.Context(), ledger.Bot{Address: addr, Digest: "d"}); err != nil {
		t.Fatal(err)
	}
	if result := h.process(); result != (Result{}) {
		t.Errorf("got %+v", result)
	}
	if _, err := h.ledger.Bot(t.Context(), addr); err != nil {
		t.Error(err)
	}
}

// unreachable is a mailbox whose connection breaks at the first word.
type unreachable struct{ Mailbox }

func (unreachable) Select(context.Context, string) (mailbox.Status, error) {
	return mailbox.Status{}, mailbox.ErrSilent
}

func TestABrokenConnectionUninstallsNothing(t *testing.T) {
	h := newHost(t)
	h.append(pack(t, "1.0.0"))
	h.process()
	h.removeFolder()
	_, err := h.installer.Process(t.Context(), addr, unreachable{h.mailbox})
	if !errors.Is(err, mailbox.ErrSilent) || h.version() != "1.0.0" {
		t.Errorf("%v, version %q", err, h.version())
	}
}
