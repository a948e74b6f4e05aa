package e2e

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"mayfly/internal/bot"
	"mayfly/internal/keystore"
	"mayfly/internal/minirelay"
)

// TestAbuse sends every sample of /shared/samples over SMTP to a bot that has the key for which they were made. None of the
// abusive ones makes a run, and each is counted by its reason; the valid ones make one run each.
func TestAbuse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, client := w.newAccount("bot000002")
	w.putKey(address, "bot2-secret.asc")
	w.append(client, address, script("Echo", echo))
	w.serve()
	w.installed(client)
	mx := w.listenMX()

	runs := 0
	for _, sample := range []struct {
		file   string
		runs   int    // how many runs it makes
		reason string // under which it is counted; empty: it is a job
	}{
		{"eml/5-text.user.eml", 1, ""},
		{"abuse/abuse-01.eml", 0, "cleartext"},
		{"abuse/abuse-02.eml", 0, "cleartext"},
		{"abuse/abuse-03.eml", 0, "not-for-us"},
		{"abuse/abuse-04.eml", 0, "unsigned"},
		{"abuse/abuse-05.eml", 0, "unsigned"},
		{"abuse/abuse-06.eml", 0, "unknown-signer"},
		{"abuse/abuse-07.eml", 1, ""},
		{"abuse/abuse-08.eml", 1, ""},
		{"abuse/abuse-09.eml", 1, ""},
		{"abuse/abuse-10.eml", 0, "tampered"},
		{"abuse/abuse-11.eml", 1, ""},
		{"abuse/abuse-12.eml", 0, "unsigned"},
		{"abuse/abuse-13.eml", 0, "not-openpgp"},
		{"abuse/abuse-14.eml", 0, "replay"},
		{"abuse/abuse-15.eml", 0, "replay"},
		{"eml/1-vc-request-pubkey.user.eml", 0, "not-for-us"}, // its invite token is not of this installation
		{"gpg-seipdv1.eml", 1, ""},
	} {
		mail := readAll(t, "../../internal/gate/testdata/"+sample.file)
		before := w.refusals(address)
		w.sendFromOutside(mx, address, mail)
		runs += sample.runs
		w.awaitVerdict(address, runs, before, sample.reason, sample.file)
	}
	if got := w.runs(address); got != runs {
		t.Errorf("%d runs, want %d", got, runs)
	}
}

// TestRelayRefusesCleartext sends the cleartext samples by submission, where the embedded relay's filter stands, as on a
// chatmail relay.
func TestRelayRefusesCleartext(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	receiver, _ := w.newAccount("bot000002")
	mallory, _ := w.newAccount("mallory01")
	known, _ := w.newAccount("user00002")
	for name, sender := range map[string]bot.Address{"abuse-01.eml": mallory, "abuse-02.eml": known, "abuse-13.eml": mallory} {
		err := w.submit(sender, receiver, readAll(t, "../../internal/gate/testdata/abuse/"+name))
		var refused *smtp.SMTPError
		if !errors.As(err, &refused) || refused.Code != 523 {
			t.Errorf("%s: %v, want 523", name, err)
		}
	}
	if n := w.relay.Stats().Delivered; n != 0 {
		t.Errorf("%d mails delivered", n)
	}
}

// putKey puts a bot's key into the host's key store before the bot is installed.
func (w *world) putKey(address bot.Address, name string) {
	w.t.Helper()
	block, err := armor.Decode(bytes.NewReader(readAll(w.t, "../../internal/gate/testdata/"+name)))
	if err != nil {
		w.t.Fatal(err)
	}
	var key bytes.Buffer
	if _, err := key.ReadFrom(block.Body); err != nil {
		w.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(w.dir, "state"), 0o700); err != nil {
		w.t.Fatal(err)
	}
	store, err := keystore.Open(filepath.Join(w.dir, "state", "keys"))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := store.PutKeys(address, [][]byte{key.Bytes()}); err != nil {
		w.t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		w.t.Fatal(err)
	}
}

// mx takes mail from outside by SMTP, without a login and without a filter, and delivers it: what a relay whose filter has a
// hole would let through.
type mx struct{ relay *minirelay.Relay }

func (m mx) NewSession(*smtp.Conn) (smtp.Session, error) { return &mxSession{relay: m.relay}, nil }

type mxSession struct {
	relay *minirelay.Relay
	to    bot.Address
}

func (s *mxSession) Mail(string, *smtp.MailOptions) error { return nil }
func (s *mxSession) Rcpt(to string, _ *smtp.RcptOptions) (err error) {
	s.to, err = bot.ParseAddress(to)
	return err
}
func (s *mxSession) Data(r io.Reader) error {
	var mail bytes.Buffer
	if _, err := mail.ReadFrom(r); err != nil {
		return err
	}
	return s.relay.Deliver(s.to, mail.Bytes())
}
func (s *mxSession) Reset()        {}
func (s *mxSession) Logout() error { return nil }

func (w *world) listenMX() string {
	server := smtp.NewServer(mx{w.relay})
	w.t.Cleanup(func() { server.Close() })
	return listen(w.t, server.Serve)
}

func (w *world) sendFromOutside(addr string, to bot.Address, mail []byte) {
	w.t.Helper()
	if err := send(addr, nil, "stranger@elsewhere.test", to, mail); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) submit(from, to bot.Address, mail []byte) error {
	master := string(readAll(w.t, filepath.Join(w.dir, "master-password")))
	return send(w.smtp, sasl.NewPlainClient("", string(from)+"*mayfly", master), string(from), to, mail)
}

func send(addr string, auth sasl.Client, from string, to bot.Address, mail []byte) error {
	c, err := smtp.Dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if auth != nil {
		if err := c.Auth(auth); err != nil {
			return err
		}
	}
	return c.SendMail(from, []string{string(to)}, bytes.NewReader(mail))
}

func (w *world) refusals(address bot.Address) map[string]int64 {
	w.t.Helper()
	counts, err := w.ledger().Refusals(w.ctx, address)
	if err != nil {
		w.t.Fatal(err)
	}
	return counts
}

func (w *world) runs(address bot.Address) int {
	w.t.Helper()
	runs, err := w.ledger().Runs(w.ctx, address, 100)
	if err != nil {
		w.t.Fatal(err)
	}
	return len(runs)
}

// awaitVerdict waits until a mail has been counted under its reason, or has made its run.
func (w *world) awaitVerdict(address bot.Address, runs int, before map[string]int64, reason, file string) {
	w.t.Helper()
	after := w.log.offset()
	want := maps.Clone(before)
	if reason != "" {
		want[reason]++
	}
	err := w.poll(func() bool { return maps.Equal(w.refusals(address), want) && w.runs(address) >= runs })
	if err != nil {
		w.t.Fatalf("%s: refusals %v and %d runs, want %v and %d\n%s", file, w.refusals(address), w.runs(address), want, runs, w.log.String()[after:])
	}
}
