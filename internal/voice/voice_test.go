package voice_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"mayfly/internal/bot"
	"mayfly/internal/core"
	"mayfly/internal/core/coretest"
	"mayfly/internal/gate"
	"mayfly/internal/minirelay"
	"mayfly/internal/user"
	"mayfly/internal/voice"
)

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// keys makes a key pair.
func keys(t *testing.T, config *packet.Config) (secret, public []byte, fingerprint bot.Fingerprint) {
	t.Helper()
	e, err := openpgp.NewEntity("", "", "someone@chat.test", config)
	ok(t, err)
	var s, p bytes.Buffer
	ok(t, e.SerializePrivateWithoutSigning(&s, nil))
	ok(t, e.Serialize(&p))
	f := strings.ToUpper(hex.EncodeToString(e.PrimaryKey.Fingerprint))
	return s.Bytes(), p.Bytes(), bot.Fingerprint(f)
}

func message(secret, public []byte) voice.Message {
	return voice.Message{
		From: "dice00001@chat.test", Name: "Würfel \r\nBcc: x <y@z>", SelfKey: secret, To: "alice0001@chat.test", ToKey: public,
		Text: "Zwölf – twelve.\n" + strings.Repeat("long ", 400), Date: time.Now(), InReplyTo: "id@localhost",
	}
}

// The gate of the other side takes it for a message of the bot, that anybody else's gate does not open, whatever keys the two have.
func TestTheOtherSidesGateSaysMessage(t *testing.T) {
	for name, config := range map[string]*packet.Config{
		"as core makes them": {Algorithm: packet.PubKeyAlgoEdDSA, AEADConfig: &packet.AEADConfig{}},
		"without SEIPD 2":    {Algorithm: packet.PubKeyAlgoEdDSA},
		"version 6":          {Algorithm: packet.PubKeyAlgoEd25519, V6Keys: true, AEADConfig: &packet.AEADConfig{}},
		"RSA":                {Algorithm: packet.PubKeyAlgoRSA, RSABits: 2048},
		"Ed448":              {Algorithm: packet.PubKeyAlgoEd448, V6Keys: true},
	} {
		t.Run(name, func(t *testing.T) {
			secret, _, fingerprint := keys(t, config)
			theirs, public, _ := keys(t, config)
			mail, id, err := voice.Compose(message(secret, public))
			ok(t, err)
			theirKeys, err := gate.NewKeys("alice0001@chat.test", bot.AccountState{Readable: true, SelfKeys: [][]byte{theirs}})
			ok(t, err)
			v := gate.Check(mail, theirKeys, nil, gate.DefaultBounds())
			if v.Kind != gate.Message || v.Sender != fingerprint || v.MessageID != id || v.From != "dice00001@chat.test" || len(v.SenderKey) == 0 {
				t.Errorf("%+v", v)
			}
			if err := gate.LooksEncrypted(mail); err != nil {
				t.Error(err)
			}
			botKeys, err := gate.NewKeys("dice00001@chat.test", bot.AccountState{Readable: true, SelfKeys: [][]byte{secret}})
			ok(t, err)
			if v := gate.Check(mail, botKeys, nil, gate.DefaultBounds()); v.Reason != gate.NotForUs {
				t.Errorf("others: %+v", v)
			}
			for line := range strings.SplitSeq(string(mail), "\r\n") {
				if strings.Contains(line, "\n") || len(line) > 100 {
					t.Errorf("line %q", line)
				}
			}
		})
	}
}

func TestComposeRefuses(t *testing.T) {
	secret, public, _ := keys(t, nil)
	for name, change := range map[string]func(*voice.Message){
		"no text":           func(m *voice.Message) { m.Text = "" },
		"a long text":       func(m *voice.Message) { m.Text = strings.Repeat("x", voice.MaxText+1) },
		"a public own key":  func(m *voice.Message) { m.SelfKey = public },
		"no own key":        func(m *voice.Message) { m.SelfKey = nil },
		"noise for a key":   func(m *voice.Message) { m.ToKey = []byte("noise") },
		"half a key":        func(m *voice.Message) { m.ToKey = public[:len(public)/2] },
		"no encryption key": func(m *voice.Message) { m.ToKey = public[:53] },
	} {
		m := message(secret, public)
		change(&m)
		if mail, _, err := voice.Compose(m); err == nil || mail != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	m := message(public, public)
	if _, _, err := voice.Compose(m); !errors.Is(err, voice.ErrKey) {
		t.Error(err)
	}
}

// A real app shows it in the chat with the bot that it has, as a text of the bot, with a padlock. The relay takes it.
func TestARealCoreShowsIt(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	transport, submission := relay(t)
	people := map[string]*user.User{}
	for _, name := range []string{"dice00001", "alice0001"} {
		u, err := user.Start(ctx, coretest.Binary(t), t.TempDir(), name, transport(name+"@chat.test"))
		ok(t, err)
		t.Cleanup(func() { ok(t, u.Close()) })
		people[name] = u
	}
	dice, alice := people["dice00001"], people["alice0001"]
	ok(t, dice.BatchSetConfig(ctx, dice.Account, map[string]string{"bot": "1", "mdns_enabled": "0"}))
	invite, err := dice.Invite(ctx, dice.Account)
	ok(t, err)
	chat, err := alice.Join(ctx, invite)
	ok(t, err)

	m := message(exported(t, dice, "private"), exported(t, alice, "public"))
	m.Text, m.Name = "You have stopped Dïce.\n\nSend /start to go on.", "Dïce"
	mail, id, err := voice.Compose(m)
	ok(t, err)
	relayed, err := smtp.Dial(submission)
	ok(t, err)
	ok(t, relayed.Auth(sasl.NewPlainClient("", "dice00001@chat.test", password)))
	ok(t, relayed.SendMail("dice00001@chat.test", []string{"alice0001@chat.test"}, bytes.NewReader(mail)))
	ok(t, relayed.Quit())
	got, err := alice.Next(ctx)
	ok(t, err)
	if got.Text != m.Text || got.ChatID != chat || !got.Authentic() || !got.IsBot || got.Sender.DisplayName != "Dïce" || got.ViewType != "Text" {
		t.Errorf("%+v", got)
	}
	var info string
	ok(t, alice.Call(ctx, "get_message_info", &info, alice.Account, got.ID))
	if !strings.Contains(info, id) {
		t.Errorf("Message-ID %s is not in %s", id, info)
	}
}

const password = "password123"

// relay is the embedded one, with its filter.
func relay(t *testing.T) (transport func(address string) core.Transport, submission string) {
	t.Helper()
	r := minirelay.NewRelay(minirelay.RelayConfig{Domain: "chat.test"})
	var ports []uint16
	for _, serve := range []func(net.Listener) error{r.ServeIMAP, r.ServeSMTP} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ok(t, err)
		go func() { _ = serve(l) }()
		ports = append(ports, uint16(l.Addr().(*net.TCPAddr).Port))
		submission = l.Addr().String()
	}
	t.Cleanup(func() { ok(t, r.Close()) })
	return func(address string) core.Transport {
		return core.Transport{
			Addr: address, Password: password, IMAPServer: "127.0.0.1", IMAPPort: ports[0], SMTPServer: "127.0.0.1", SMTPPort: ports[1],
		}
	}, submission
}

// exported is a core's own key, binary.
func exported(t *testing.T, u *user.User, kind string) []byte {
	t.Helper()
	dir := t.TempDir()
	ok(t, u.Call(t.Context(), "export_self_keys", nil, u.Account, dir, nil))
	files, err := filepath.Glob(filepath.Join(dir, kind+"-key-*"))
	ok(t, err)
	if len(files) != 1 {
		t.Fatalf("exported %v", files)
	}
	f, err := os.Open(files[0])
	ok(t, err)
	defer f.Close()
	block, err := armor.Decode(f)
	ok(t, err)
	var b bytes.Buffer
	_, err = b.ReadFrom(block.Body)
	ok(t, err)
	return b.Bytes()
}
