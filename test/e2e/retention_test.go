package e2e

import (
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	_ "modernc.org/sqlite" // opens core's database while nothing runs

	"mayfly/internal/core"
)

// TestCoreForgets lets a month pass for an account with files, by way of its database and of its files' times. Core deletes the messages,
// and then the files that nothing refers to.
func TestCoreForgets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("forgets01", script("Forgets", echo))
	ada := w.person("ada000301")
	chat := ada.join(invite)
	for i := range 4 {
		data := make([]byte, 100_000)
		rand.Read(data)
		text := fmt.Sprint("file ", i)
		_, err := ada.SendMsg(w.ctx, ada.Account, chat, core.MessageData{Text: text, File: w.write(fmt.Sprint(i, ".bin"), string(data))})
		if err != nil {
			t.Fatal(err)
		}
		ada.expect("you said: " + text)
	}
	w.stop()
	before := w.accountSize(string(address))
	w.age(string(address), 30*24*time.Hour)
	w.serve()
	for i := range 3 {
		text := fmt.Sprint("later ", i)
		ada.say(chat, text)
		ada.expect("you said: " + text)
	}
	w.awaitJobs(address, 9)
	w.stop()
	after := w.accountSize(string(address))
	if before < 400_000 || after > before-300_000 {
		t.Errorf("the account has %d bytes, before a month it had %d, of which 400000 are of files that are forgotten", after, before)
	}
}

func (w *world) accountSize(address string) (size int64) {
	w.t.Helper()
	err := filepath.WalkDir(filepath.Join(w.dir, "state", "bots", address, "account"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return size
}

// age makes all that core has of a bot's account older.
func (w *world) age(address string, by time.Duration) {
	w.t.Helper()
	root := filepath.Join(w.dir, "state", "bots", address, "account")
	databases := glob(filepath.Join(root, "*", "core", "*", "dc.db"))
	if len(databases) != 1 {
		w.t.Fatalf("databases: %q", databases)
	}
	db, err := sql.Open("sqlite", databases[0])
	if err != nil {
		w.t.Fatal(err)
	}
	seconds := int64(by / time.Second)
	for _, query := range []string{
		`UPDATE msgs SET timestamp = timestamp - ?1, timestamp_sent = timestamp_sent - ?1, timestamp_rcvd = timestamp_rcvd - ?1 WHERE id > 9`,
		`UPDATE config SET value = value - ?1 WHERE keyname = 'last_housekeeping'`,
	} {
		if _, err := db.Exec(query, seconds); err != nil {
			w.t.Fatal(err)
		}
	}
	_, err = db.Exec(`PRAGMA wal_checkpoint(TRUNCATE)`)
	if err = errors.Join(err, db.Close()); err != nil {
		w.t.Fatal(err)
	}
	err = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		at := time.Now().Add(-by)
		return os.Chtimes(path, at, at)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}
