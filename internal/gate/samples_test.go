package gate

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"mayfly/internal/bot"
)

const (
	botAddress = bot.Address("bot000002@chat.test")
	botPrint   = bot.Fingerprint("CBBB7F413E9714E5B33B3FA840596022FB614910")
	userPrint  = bot.Fingerprint("15705CD4825403E2589075F5C39956DD96AA7649")
	authToken  = "mtlmg9S1NgHae8FVqCbg9M2N" // of the invite that the samples were made with
	invite     = "an-invite-number"
	channel    = "a broadcast channel's secret"
)

func sample(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func dearmored(t testing.TB, name string) []byte {
	t.Helper()
	block, err := armor.Decode(bytes.NewReader(sample(t, name)))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(block.Body); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func entityOf(t testing.TB, name string) *openpgp.Entity {
	t.Helper()
	ring, err := openpgp.ReadKeyRing(bytes.NewReader(dearmored(t, name)))
	if err != nil {
		t.Fatal(err)
	}
	return ring[0]
}

// public is the transferable public key of e.
func public(t testing.TB, e *openpgp.Entity) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := e.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// botState is what the bot of the samples knows after its first contact.
func botState(t testing.TB) bot.AccountState {
	t.Helper()
	return bot.AccountState{
		Readable:         true,
		SelfKeys:         [][]byte{dearmored(t, "bot2-secret.asc")},
		PublicKeys:       [][]byte{public(t, entityOf(t, "user2-secret.asc"))},
		AuthTokens:       []string{"another-token", authToken},
		InviteNumbers:    []string{invite},
		BroadcastSecrets: []string{"another secret", channel},
	}
}

func keysOf(t testing.TB, state bot.AccountState) *Keys {
	t.Helper()
	keys, err := NewKeys(botAddress, state)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// The README of the samples, row by row. testdata/README.md is a copy of it.
func TestSamples(t *testing.T) {
	const user, mallory = "user00002@chat.test", "mallory01@chat.test"
	tests := []struct {
		file   string
		kind   Kind
		reason Reason
		sender bot.Fingerprint
		from   bot.Address
		step   string
	}{
		{"eml/1-vc-request-pubkey.user.eml", Handshake, "", "", user, "vc-request-pubkey"},
		{"eml/2-vc-pubkey.bot.eml", Own, "", botPrint, botAddress, "vc-pubkey"},
		{"eml/3-vc-request-with-auth.user.eml", Handshake, "", userPrint, user, "vc-request-with-auth"},
		{"eml/4-vc-contact-confirm.bot.eml", Own, "", botPrint, botAddress, "vc-contact-confirm"},
		{"eml/5-text.user.eml", Message, "", userPrint, user, ""},
		{"eml/6-reply.bot.eml", Own, "", botPrint, botAddress, ""},
		{"gpg-seipdv1.eml", Message, "", userPrint, user, ""},
		{"abuse/abuse-01.eml", Refused, Cleartext, "", mallory, ""},
		{"abuse/abuse-02.eml", Refused, Cleartext, "", user, ""},
		{"abuse/abuse-03.eml", Refused, NotForUs, "", mallory, ""},
		{"abuse/abuse-04.eml", Refused, Unsigned, "", mallory, ""},
		{"abuse/abuse-05.eml", Refused, Unsigned, "", user, ""},
		{"abuse/abuse-06.eml", Refused, UnknownSigner, "", user, ""},
		{"abuse/abuse-07.eml", Message, "", "A2C75FD16EC26E013D8CB25E1E93907B1818C4DE", user, ""},
		{"abuse/abuse-08.eml", Message, "", "A2C75FD16EC26E013D8CB25E1E93907B1818C4DE", mallory, ""},
		{"abuse/abuse-09.eml", Message, "", userPrint, user, ""},
		{"abuse/abuse-10.eml", Refused, Tampered, "", user, ""},
		{"abuse/abuse-11.eml", Message, "", userPrint, user, ""},
		{"abuse/abuse-12.eml", Refused, Unsigned, "", mallory, ""},
		{"abuse/abuse-13.eml", Refused, NotOpenPGP, "", mallory, ""},
		{"abuse/abuse-14.eml", Message, "", userPrint, user, ""},
		{"abuse/abuse-15.eml", Message, "", userPrint, user, ""},
	}
	keys := keysOf(t, botState(t))
	for _, test := range tests {
		t.Run(test.file, func(t *testing.T) {
			v := Check(sample(t, test.file), keys, nil, DefaultBounds())
			if v.Kind != test.kind || v.Reason != test.reason || v.Sender != test.sender || v.From != test.from || v.Step != test.step || v.Uncertain {
				t.Errorf("got %+v", v)
			}
			if v.Kind != Refused && !strings.Contains(v.MessageID, "@") {
				t.Errorf("Message-ID %q", v.MessageID)
			}
		})
	}
}

// abuse/14 and 15 are eml/5 again, one of them under a new outer Message-ID: the protected one counts.
func TestReplaysOfAFinishedJob(t *testing.T) {
	keys := keysOf(t, botState(t))
	first := Check(sample(t, "eml/5-text.user.eml"), keys, nil, DefaultBounds())
	finished := func(sender bot.Fingerprint, id string) bool { return sender == first.Sender && id == first.MessageID }
	for name, want := range map[string]Kind{
		"abuse/abuse-14.eml": Replay, "abuse/abuse-15.eml": Replay, "abuse/abuse-09.eml": Message, "eml/6-reply.bot.eml": Own,
	} {
		if v := Check(sample(t, name), keys, finished, DefaultBounds()); v.Kind != want {
			t.Errorf("%s: %+v; want %s", name, v, want)
		}
	}
}

// What the bot has not seen before: without user2's key, only mails that bring it along are messages.
func TestKeyKnownFromBefore(t *testing.T) {
	state := botState(t)
	state.PublicKeys = nil
	keys := keysOf(t, state)
	if v := Check(sample(t, "abuse/abuse-09.eml"), keys, nil, DefaultBounds()); v.Reason != UnknownSigner {
		t.Errorf("without Autocrypt: %+v; want unknown-signer", v)
	}
	v := Check(sample(t, "eml/5-text.user.eml"), keys, nil, DefaultBounds())
	if v.Kind != Message || v.Sender != userPrint || len(v.SenderKey) == 0 {
		t.Fatalf("with Autocrypt: %+v; want a message and the key", v)
	}
	state.PublicKeys = [][]byte{[]byte("noise"), v.SenderKey}
	if v := Check(sample(t, "abuse/abuse-09.eml"), keysOf(t, state), nil, DefaultBounds()); v.Sender != userPrint {
		t.Errorf("with the key remembered: %+v", v)
	}
}

func TestPublicKeyOfAContact(t *testing.T) {
	state := botState(t)
	keys := keysOf(t, state)
	if !bytes.Equal(keys.PublicKey(userPrint), state.PublicKeys[0]) || keys.PublicKey(botPrint) != nil || keys.PublicKey("") != nil {
		t.Errorf("%x, of the bot %x", keys.PublicKey(userPrint), keys.PublicKey(botPrint))
	}
}

// Before core has a schema that we can read, what the gate cannot know is for core to decide; what it can, it does.
func TestUnreadableStateIsUncertain(t *testing.T) {
	keys := keysOf(t, bot.AccountState{SelfKeys: botState(t).SelfKeys})
	tests := []struct {
		file      string
		kind      Kind
		uncertain bool
		sender    bot.Fingerprint
	}{
		{"eml/1-vc-request-pubkey.user.eml", Handshake, true, ""},
		{"eml/3-vc-request-with-auth.user.eml", Handshake, true, userPrint},
		{"eml/5-text.user.eml", Message, false, userPrint},
		{"abuse/abuse-09.eml", Message, true, ""},
		{"abuse/abuse-06.eml", Message, true, ""},
		{"abuse/abuse-03.eml", Refused, false, ""},
		{"abuse/abuse-04.eml", Refused, false, ""},
		{"abuse/abuse-10.eml", Refused, false, ""},
		{"abuse/abuse-01.eml", Refused, false, ""},
	}
	for _, test := range tests {
		v := Check(sample(t, test.file), keys, nil, DefaultBounds())
		if v.Kind != test.kind || v.Uncertain != test.uncertain || v.Sender != test.sender {
			t.Errorf("%s: %+v; want %s, uncertain %v", test.file, v, test.kind, test.uncertain)
		}
	}
}

func TestLooksEncrypted(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.eml")
	if err != nil || len(files) < 20 {
		t.Fatal(files, err)
	}
	junk := []string{"abuse-01.eml", "abuse-02.eml", "abuse-13.eml"}
	for _, file := range append(files, "testdata/gpg-seipdv1.eml") {
		err := LooksEncrypted(sample(t, strings.TrimPrefix(file, "testdata/")))
		if want := !slices.Contains(junk, filepath.Base(file)); (err == nil) != want {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestNewKeysSaysWhyNot(t *testing.T) {
	locked := entityOf(t, "bot2-secret.asc")
	if err := locked.EncryptPrivateKeys([]byte("pass"), nil); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := locked.SerializePrivateWithoutSigning(&b, nil); err != nil {
		t.Fatal(err)
	}
	for name, keys := range map[string][][]byte{
		"none": nil, "armored": {sample(t, "bot2-secret.asc")}, "public": {public(t, locked)}, "locked": {b.Bytes()},
	} {
		if _, err := NewKeys(botAddress, bot.AccountState{SelfKeys: keys}); err == nil || !strings.Contains(err.Error(), string(botAddress)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
