package session

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"mayfly/internal/bot"
	"mayfly/internal/keystore"
	"mayfly/internal/ledger"
)

const (
	grumble = bot.Address("grumble@chat.test")
	ada     = bot.Address("ada@chat.test")
)

// bodies is an outbox's folder.
type bodies struct{ staged int }

func (b *bodies) Stage([]byte) (string, error) {
	b.staged++
	return fmt.Sprint("body ", b.staged), nil
}

func (b *bodies) Discard(string) error { return nil }

func (b *bodies) DiscardUnnamed(context.Context, []string) error { return nil }

// newSpeaker makes a runner that can write to people, and a bot whose account holds ada's key.
func newSpeaker(t *testing.T) (*Runner, *ledger.Ledger, ledger.Bot, bot.Fingerprint) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), filepath.Join(dir, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	keys, err := keystore.Open(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	self, secret, _ := key(t, grumble)
	if err := keys.PutKeys(grumble, [][]byte{secret}); err != nil {
		t.Fatal(err)
	}
	her, _, public := key(t, ada)
	b := ledger.Bot{Address: grumble, Fingerprint: self, State: bot.AccountState{Schema: 1, Readable: true, PublicKeys: [][]byte{public}}}
	if err := l.Install(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return New(Options{Ledger: l, Keys: keys, Outbox: &bodies{}, Log: slog.New(slog.DiscardHandler)}), l, b, her
}

func key(t *testing.T, of bot.Address) (fingerprint bot.Fingerprint, secret, public []byte) {
	t.Helper()
	e, err := openpgp.NewEntity("", "", string(of), nil)
	if err != nil {
		t.Fatal(err)
	}
	var s, p bytes.Buffer
	if err := e.SerializePrivate(&s, nil); err != nil {
		t.Fatal(err)
	}
	if err := e.Serialize(&p); err != nil {
		t.Fatal(err)
	}
	return bot.Fingerprint(fmt.Sprintf("%X", e.PrimaryKey.Fingerprint)), s.Bytes(), p.Bytes()
}

// word lets a contact stop a bot, or go on.
func word(t *testing.T, l *ledger.Ledger, contact bot.Fingerprint, stop bool) {
	t.Helper()
	a := ledger.Answer{Bot: grumble, Word: &ledger.Word{Contact: contact, Address: ada, Stop: stop}, At: time.Now()}
	if err := l.Answer(t.Context(), a); err != nil {
		t.Fatal(err)
	}
}

// TestWhoHearsOfAFailedRun: not who has stopped the bot, or heard within the hour, or caused no message, or wrote in a group only.
func TestWhoHearsOfAFailedRun(t *testing.T) {
	r, l, b, her := newSpeaker(t)
	selfKeys, err := r.Keys.Keys(grumble)
	if err != nil {
		t.Fatal(err)
	}
	message := &runFailed{record: bot.RunRecord{Status: bot.RunError}, message: true}
	hears := func(failed *runFailed, sender, wrote bot.Fingerprint) bool {
		t.Helper()
		end := ending{state: b.State, selfKeys: selfKeys, consent: wrote}
		r.apologize(context.Background(), Work{Bot: b, Job: ledger.Job{Sender: sender, From: ada, MessageID: "m@x"}}, failed, &end)
		if (end.notice != nil) != (len(end.outgoing) == 1) || len(end.outgoing) == 1 && end.outgoing[0].To[0] != ada {
			t.Errorf("outgoing %+v with notice %v", end.outgoing, end.notice)
		}
		return end.notice != nil
	}
	for _, test := range []struct {
		name          string
		failed        *runFailed
		sender, wrote bot.Fingerprint
		want          bool
	}{
		{"directly", message, her, her, true},
		{"in a group", message, her, "", false},
		{"an unknown key", message, "AB", "AB", false},
		{"a schedule", message, "", "", false},
		{"an update of an app", &runFailed{record: message.record}, her, her, false},
		{"nothing failed", nil, her, her, false},
	} {
		if got := hears(test.failed, test.sender, test.wrote); got != test.want {
			t.Errorf("%s: told %v", test.name, got)
		}
	}
	word(t, l, her, false)
	if !hears(message, her, "") {
		t.Error("in a group, after a direct message: not told")
	}
	word(t, l, her, true)
	if hears(message, her, "") || hears(message, her, her) {
		t.Error("told after a stop")
	}
	word(t, l, her, false)
	about := ledger.Notice{Contact: her, About: "a failed run"}
	for ago, want := range map[time.Duration]bool{59 * time.Minute: false, 61 * time.Minute: true} {
		c := ledger.Commit{Bot: grumble, UIDNext: 1, Notice: &about, Ended: time.Now().Add(-ago)}
		if err := l.Commit(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if got := hears(message, her, her); got != want {
			t.Errorf("%s after the last: told %v", ago, got)
		}
	}
}

// TestSorry: what is said of trying again is true.
func TestSorry(t *testing.T) {
	for want, r := range map[string]bot.RunRecord{
		sorryError: {Status: bot.RunError, ExitCode: 1},
		sorryLater: {Status: bot.RunError, ExitCode: 75},
		sorryPart:  {Status: bot.RunTimeout, AtOnce: 1},
	} {
		if got := sorry(r); got != want {
			t.Errorf("%+v: %s", r, got)
		}
	}
	for _, r := range []bot.RunRecord{{Status: bot.RunTimeout, ExitCode: 75}, {Status: bot.RunTimeout}, {Status: bot.RunSignal, OOMKilled: true}} {
		if got := sorry(r); got != sorryLimit {
			t.Errorf("%+v: %s", r, got)
		}
	}
}

// TestLettersToTheAuthor go to a key that the account holds, and to nobody who has stopped the bot.
func TestLettersToTheAuthor(t *testing.T) {
	r, l, b, her := newSpeaker(t)
	written := func(contact string) bot.Address {
		t.Helper()
		b.Manifest.Contact = contact
		letter, err := r.Letter(t.Context(), b, "something failed")
		if err != nil {
			t.Fatal(err)
		}
		if letter == nil {
			return ""
		}
		return letter.To[0]
	}
	link := "https://i.delta.chat/#" + string(her) + "&a=old%40chat.test"
	if at := written("mailto:" + string(ada)); at != "" {
		t.Errorf("to %s, which has never written", at)
	}
	if at := written(link); at != "old@chat.test" {
		t.Errorf("by a link, to %q", at)
	}
	if at := written("https://i.delta.chat/#" + string(b.Fingerprint[:39]) + "0&a=old%40chat.test"); at != "" {
		t.Errorf("to %s, whose key is not known", at)
	}
	word(t, l, her, false)
	for _, contact := range []string{string(ada), "mailto:" + string(ada), link} {
		if at := written(contact); at != ada {
			t.Errorf("%s: to %q, want where she writes from", contact, at)
		}
	}
	word(t, l, her, true)
	for _, contact := range []string{string(ada), link} {
		if at := written(contact); at != "" {
			t.Errorf("%s: to %q after a stop", contact, at)
		}
	}
}
