//go:build linux && (amd64 || arm64)

package faults

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"mayfly/internal/backup"
	"mayfly/internal/bot"
	"mayfly/internal/ledger"
	"mayfly/internal/storage"
)

// whole is a state folder with all that a bot has.
func whole(t *testing.T, dir string) {
	l := openLedger(t, dir)
	defer l.Close()
	s, k := openStorage(t, dir), openKeys(t, dir)
	defer s.Close()
	defer k.Close()
	for _, kind := range []storage.Kind{storage.Account, storage.Folder} {
		_, _, err := s.Import(t.Context(), dice, kind, 0, bytes.NewReader(archive(tree{"a": "1", "b/": "", "b/c": "2"})), rules())
		must(t, err)
	}
	must(t, k.PutKeys(dice, [][]byte{secretKey(t, "one")}))
	must(t, l.Install(t.Context(), ledger.Bot{Address: dice, Installed: at(0), Updated: at(0)}))
	o := openOutbox(t, dir, l, &relay{})
	defer o.Close()
	path, err := o.Stage([]byte(mail))
	must(t, err)
	must(t, l.Commit(t.Context(), ledger.Commit{
		Bot: dice, Account: 1, Storage: 1, UIDNext: 2, Fingerprint: "AB", Started: at(1), Ended: at(2),
		Outgoing: []ledger.Outgoing{{From: dice, To: []bot.Address{"ada@example.org"}, MessageID: "<a>", Path: path, Size: int64(len(mail))}},
	}))
}

func bounds() backup.Bounds { return backup.Bounds{Files: 1000, Bytes: 1e9} }

// verified is a state folder as a start finds it, and what mayfly verify has to say. One into which a restore was cut off is emptied, as
// the error says.
func verified(t *testing.T, dir string) string {
	f := backup.Of(dir)
	if err := f.Clean(); errors.Is(err, backup.ErrUnfinished) {
		empty(t, dir)
	} else {
		must(t, err)
	}
	if len(globbed(filepath.Join(dir, "*"))) == 0 {
		return "  nothing"
	}
	problems, err := f.Check(t.Context())
	must(t, err)
	for _, p := range problems {
		t.Errorf("mayfly verify says: %s", p)
	}
	return ledgerState(t, dir) + "\n" + listing(t, filepath.Join(dir, "bots")) + "\n" + listing(t, filepath.Join(dir, "keys")) + "\n" + listing(t, filepath.Join(dir, "outbox"))
}

func empty(t *testing.T, dir string) {
	t.Helper()
	for _, name := range globbed(filepath.Join(dir, "*")) {
		must(t, os.RemoveAll(name))
	}
}

func backupOperations() []operation {
	var packed bytes.Buffer
	prepareRestore := func(t *testing.T, dir string) {
		from := t.TempDir()
		must(t, os.Chmod(from, 0o700))
		whole(t, from)
		l := openLedger(t, from)
		defer l.Close()
		packed.Reset()
		_, err := backup.Of(from).Write(t.Context(), l, &packed)
		must(t, err)
	}
	write := func(t *testing.T, dir string) work {
		l := openLedger(t, dir)
		return work{func() error {
			var b bytes.Buffer
			problems, err := backup.Of(dir).Write(t.Context(), l, &b)
			if err != nil {
				return err
			}
			more, err := backup.CheckArchive(t.Context(), &b, bounds())
			if len(problems)+len(more) > 0 || err != nil {
				t.Errorf("an archive that was said to be whole: %v, %v, %v", problems, more, err)
			}
			return nil
		}, func() { l.Close() }}
	}
	restore := func(t *testing.T, dir string) work {
		return work{func() error {
			if errors.Is(backup.Of(dir).Clean(), backup.ErrUnfinished) {
				empty(t, dir)
			} else if len(globbed(filepath.Join(dir, "bots"))) > 0 { // after a restart: it was done
				return nil
			}
			problems, err := backup.Of(dir).Restore(t.Context(), bytes.NewReader(packed.Bytes()), bounds())
			if len(problems) > 0 { // something of what it has just written could not be read
				err = fmt.Errorf("%s: the disk: %v", dir, problems)
			}
			return err
		}, nil}
	}
	check := func(t *testing.T, dir string) work {
		return work{func() error {
			problems, err := backup.Of(dir).Check(t.Context())
			if err == nil && len(problems) > 0 {
				err = errors.New(dir + ": disk: " + problems[0].String())
			}
			return err
		}, nil}
	}
	all := []operation{
		looking(op("backup", "write", whole, write, verified)),
		op("backup", "restore", prepareRestore, restore, verified),
		looking(op("backup", "verify", whole, check, verified)),
	}
	for i := range all {
		all[i].slow = true
	}
	return all
}
