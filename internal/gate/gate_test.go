package gate

import (
	"bytes"
	"compress/bzip2"
	"crypto"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/ProtonMail/go-crypto/openpgp/s2k"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"mayfly/internal/bot"
)

// want is the part of a verdict that a test looks at; detail is a part of Detail.
type want struct {
	kind   Kind
	reason Reason
	detail string
}

func (w want) check(t *testing.T, v Verdict) {
	t.Helper()
	if v.Kind != w.kind || v.Reason != w.reason || !strings.Contains(v.Detail, w.detail) {
		t.Errorf("got %+v; want %+v", v, w)
	}
	if v.Kind == Message && v.Sender == "" {
		t.Errorf("a message without a sender: %+v", v)
	}
}

// cast is who the self-made mails are between.
type cast struct {
	bot      *openpgp.Entity
	stranger *openpgp.Entity
	other    *openpgp.Entity
	keys     *Keys
}

func newCast(t testing.TB) cast {
	return cast{entityOf(t, "bot2-secret.asc"), newEntity(t, nil), newEntity(t, nil), keysOf(t, botState(t))}
}

func (c cast) toBot() sealing { return sealing{to: []*openpgp.Entity{c.bot}} }

// intro is a text that brings the stranger's key along.
func (c cast) intro(t testing.TB, extra ...string) string {
	return text(append(extra, autocrypt(t, c.stranger, stranger))...)
}

func (c cast) byStranger(t testing.TB, extra ...string) []byte {
	return signed(t, signing{key: c.stranger.PrivateKey}, c.intro(t, extra...))
}

func TestWhoSigned(t *testing.T) {
	c := newCast(t)
	me := c.stranger.PrivateKey
	hello := c.intro(t)
	v6 := newEntity(t, &packet.Config{V6Keys: true, Algorithm: packet.PubKeyAlgoEd25519})
	weak := newEntity(t, &packet.Config{Algorithm: packet.PubKeyAlgoRSA, RSABits: 1024, MinRSABits: 1024})
	expired := newEntity(t, &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: 60, Time: func() time.Time { return time.Now().Add(-time.Hour) },
	})
	ops, sig := signing{key: me}.sign(t, hello)
	ops2, sig2 := signing{key: c.other.PrivateKey}.sign(t, hello)
	ops2[len(ops2)-1] = 0 // not the last: another one-pass signature follows
	join := func(packets ...[]byte) []byte { return bytes.Join(packets, nil) }

	tests := map[string]struct {
		packets []byte
		want    want
	}{
		"with Autocrypt":            {signed(t, signing{key: me}, hello), want{kind: Message}},
		"issuer by key ID only":     {signed(t, signing{key: me, keyIDOnly: true}, hello), want{kind: Message}},
		"canonical text, bare LF":   {signed(t, signing{key: me, text: true}, strings.ReplaceAll(hello, "\r\n", "\n")), want{kind: Message}},
		"SHA-512":                   {signed(t, signing{key: me, hash: crypto.SHA512}, hello), want{kind: Message}},
		"signature before the text": {join(sig, literal(t, hello)), want{kind: Message}},
		"compressed":                {compressed(t, signed(t, signing{key: me}, hello)), want{kind: Message}},
		"v6 key":                    {signed(t, signing{key: v6.PrivateKey}, text(autocrypt(t, v6, stranger))), want{kind: Message}},
		"v6 key, altered": {bytes.Replace(signed(t, signing{key: v6.PrivateKey}, text(autocrypt(t, v6, stranger))),
			[]byte("hello"), []byte("jello"), 1), want{Refused, BadSignature, "hash tag"}},
		// As in core: keys of chat users are pinned by fingerprint, their dates do not count.
		"expired key":           {signed(t, signing{key: expired.PrivateKey}, text(autocrypt(t, expired, stranger))), want{kind: Message}},
		"expired signature":     {signed(t, signing{key: me, created: time.Now().Add(-time.Hour), lifetime: 1}, hello), want{kind: Message}},
		"signed in the future":  {signed(t, signing{key: me, created: time.Now().Add(time.Hour)}, hello), want{kind: Message}},
		"meant for the bot":     {signed(t, signing{key: me, recipients: []*openpgp.Entity{c.stranger, c.bot}}, hello), want{kind: Message}},
		"meant for others":      {signed(t, signing{key: me, recipients: []*openpgp.Entity{c.stranger, c.other}}, hello), want{Refused, OtherRecipients, ""}},
		"altered":               {bytes.Replace(signed(t, signing{key: me}, hello), []byte("hello"), []byte("jello"), 1), want{Refused, BadSignature, ""}},
		"another's Autocrypt":   {signed(t, signing{key: c.other.PrivateKey}, hello), want{Refused, UnknownSigner, ""}},
		"Autocrypt for another": {signed(t, signing{key: me}, text(autocrypt(t, c.stranger, "someone@chat.test"))), want{Refused, UnknownSigner, ""}},
		"RSA with 1024 bits":    {signed(t, signing{key: weak.PrivateKey}, text(autocrypt(t, weak, stranger))), want{Refused, BadSignature, "2048"}},
		"by a subkey": {signed(t, signing{key: c.stranger.Subkeys[0].PrivateKey, keyIDOnly: true}.withSigningSubkey(t, c.stranger), hello),
			want{Refused, UnknownSigner, ""}},
		"two signers":           {join(ops2, ops, literal(t, hello), sig, sig2), want{Refused, Malformed, "packet type 4"}},
		"one more signature":    {join(ops, literal(t, hello), sig, sig2), want{Refused, Malformed, "more than one"}},
		"announced, not there":  {join(ops, literal(t, hello)), want{Refused, Malformed, "missing"}},
		"not what is announced": {join(sha512(ops), literal(t, hello), sig), want{Refused, BadSignature, "announced"}},
		"SHA-1":                 {join(sha1(ops), literal(t, hello), sig), want{Refused, BadSignature, "too weak"}},
		"two texts":             {join(ops, literal(t, hello), literal(t, hello), sig), want{Refused, Malformed, ""}},
		"unsigned":              {literal(t, hello), want{Refused, Unsigned, ""}},
		"compressed twice":      {compressed(t, compressed(t, signed(t, signing{key: me}, hello))), want{Refused, Malformed, "packet type 8"}},
		"encrypted twice":       {c.toBot().seal(t, signed(t, signing{key: me}, hello)), want{Refused, Malformed, "packet type 1"}},
		"nothing":               {nil, want{Refused, Malformed, ""}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, s := range []sealing{c.toBot(), {to: c.toBot().to, v1: true}} {
				test.want.check(t, Check(envelope(t, s.seal(t, test.packets)), c.keys, nil, DefaultBounds()))
			}
		})
	}
}

// withSigningSubkey gives the entity a signing subkey and signs with it.
func (s signing) withSigningSubkey(t *testing.T, e *openpgp.Entity) signing {
	t.Helper()
	must(t, e.AddSigningSubkey(&packet.Config{Algorithm: packet.PubKeyAlgoEdDSA}))
	s.key = e.Subkeys[len(e.Subkeys)-1].PrivateKey
	return s
}

// sha1 and sha512 change the hash algorithm that a one-pass packet (new format, one length octet) announces.
func sha1(ops []byte) []byte   { b := slices.Clone(ops); b[4] = 2; return b }
func sha512(ops []byte) []byte { b := slices.Clone(ops); b[4] = 10; return b }

func TestSenderKeyIsTheOneThatSigned(t *testing.T) {
	c := newCast(t)
	v := Check(envelope(t, c.toBot().seal(t, c.byStranger(t))), c.keys, nil, DefaultBounds())
	if v.Sender != fingerprint(c.stranger.PrimaryKey) || !bytes.Equal(v.SenderKey, public(t, c.stranger)) {
		t.Errorf("got %+v", v)
	}
}

// The last valid Autocrypt header for the outer From counts; an inner one hides all outer ones.
func TestWhichAutocryptHeader(t *testing.T) {
	c := newCast(t)
	mine, others := autocrypt(t, c.stranger, stranger), autocrypt(t, c.other, stranger)
	tests := map[string]struct {
		inner, outer []string
		want         Kind
	}{
		"last of two":              {[]string{others, mine}, nil, Message},
		"not the first of two":     {[]string{mine, others}, nil, Refused},
		"last is for another":      {[]string{mine, autocrypt(t, c.other, "someone@chat.test")}, nil, Message},
		"last is unknown critical": {[]string{mine, others + "; new=1"}, nil, Message},
		"last is no key":           {[]string{mine, "Autocrypt: addr=" + stranger + "; keydata=AAAA"}, nil, Message},
		"address in another case":  {[]string{autocrypt(t, c.stranger, strings.ToUpper(stranger))}, nil, Message},
		"outer alone":              {nil, []string{mine}, Message},
		"outer hidden":             {[]string{others}, []string{mine}, Refused},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			packets := signed(t, signing{key: c.stranger.PrivateKey}, text(test.inner...))
			v := Check(envelope(t, c.toBot().seal(t, packets), test.outer...), c.keys, nil, DefaultBounds())
			if v.Kind != test.want {
				t.Errorf("got %+v", v)
			}
		})
	}
}

func TestHowItIsSealed(t *testing.T) {
	c := newCast(t)
	hello := c.byStranger(t)
	join := "securejoin/" + string(botPrint) + "/" + authToken
	to := c.toBot().to
	sealed := c.toBot().seal(t, hello)
	tests := map[string]struct {
		message []byte
		want    want
	}{
		"last of three recipients":  {sealing{to: []*openpgp.Entity{c.other, c.other, c.bot}}.seal(t, hello), want{kind: Message}},
		"to another":                {sealing{to: []*openpgp.Entity{c.other}}.seal(t, hello), want{Refused, NotForUs, ""}},
		"old key packets":           {sealing{to: to, oldKeys: true}.seal(t, hello), want{Refused, NotForUs, ""}},
		"as many recipients as may": {sealing{to: to, copies: DefaultBounds().Packets}.seal(t, hello), want{kind: Message}},
		"one recipient too many":    {sealing{to: to, copies: DefaultBounds().Packets + 1}.seal(t, hello), want{Refused, TooManyPackets, ""}},
		"a channel's secret":        {sealing{passphrase: channel, s2k: s2k.SaltedS2K}.seal(t, hello), want{kind: Message}},
		"an invite's secret":        {sealing{passphrase: join, s2k: s2k.SaltedS2K}.seal(t, hello), want{kind: Message}},
		"a wrong secret":            {sealing{passphrase: join + "x", s2k: s2k.SaltedS2K}.seal(t, hello), want{Refused, NotForUs, "no secret"}},
		"the bare token":            {sealing{passphrase: authToken, s2k: s2k.SaltedS2K}.seal(t, hello), want{Refused, NotForUs, "no secret"}},
		"an iterated S2K":           {sealing{passphrase: channel, s2k: s2k.IteratedSaltedS2K}.seal(t, hello), want{Refused, NotForUs, "salted"}},
		"Argon2":                    {sealing{passphrase: channel, s2k: s2k.Argon2S2K}.seal(t, hello), want{Refused, NotForUs, "salted"}},
		"SKESK 4":                   {sealing{passphrase: channel, s2k: s2k.SaltedS2K, v1: true}.seal(t, hello), want{Refused, NotForUs, "salted"}},
		"two secrets":               {sealing{passphrase: channel, s2k: s2k.SaltedS2K, copies: 2}.seal(t, hello), want{Refused, NotForUs, ""}},
		"a key and a secret":        {sealing{to: to, passphrase: "x", s2k: s2k.SaltedS2K}.seal(t, hello), want{kind: Message}},
		"something behind":          {append(slices.Clone(sealed), literal(t, "x")...), want{Refused, NotOpenPGP, "follows"}},
		"not encrypted":             {hello, want{Refused, NotOpenPGP, "packet type 4"}},
		"no session key":            {sealing{}.seal(t, hello), want{Refused, NotOpenPGP, "without session key"}},
		"cut off":                   {sealed[:len(sealed)-20], want{Refused, Tampered, ""}},
		"without integrity":         {retag(sealed, 9), want{Refused, NotOpenPGP, "packet type 9"}},
		"a marker in between":       {append([]byte{0xca, 3, 'P', 'G', 'P'}, sealed...), want{Refused, NotOpenPGP, "packet type 10"}},
		"huge session key packet":   {[]byte{0xc1, 0xff, 0xff, 0xff, 0xff, 0xff}, want{Refused, NotOpenPGP, "longer than"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.want.check(t, Check(envelope(t, test.message), c.keys, nil, DefaultBounds()))
		})
	}
}

// retag changes the type of the packet behind the one session key packet (new format, one length octet).
func retag(message []byte, to byte) []byte {
	b := slices.Clone(message)
	b[2+int(b[1])] = 0xc0 | to
	return b
}

// Every byte of the encrypted data packet counts, its header and tags too: whatever is flipped, it is no message. (The session
// key packet before it is not protected; what matters of it is the key.)
func TestTampering(t *testing.T) {
	c := newCast(t)
	for _, v1 := range []bool{false, true} {
		message := sealing{to: c.toBot().to, v1: v1}.seal(t, c.byStranger(t))
		for at := 2 + int(message[1]); at < len(message); at++ {
			flipped := slices.Clone(message)
			flipped[at] ^= 1 << (at % 8)
			if v := Check(envelope(t, flipped), c.keys, nil, DefaultBounds()); v.Kind != Refused {
				t.Fatalf("byte %d of %d flipped (v1 %v): %+v", at, len(message), v1, v)
			}
		}
	}
}

func TestHandshakes(t *testing.T) {
	c := newCast(t)
	secret := sealing{passphrase: "securejoin/" + string(botPrint) + "/" + authToken, s2k: s2k.SaltedS2K}
	step := func(s string) string { return "Secure-Join: " + s }
	auth := func(s string) string { return "Secure-Join-Auth: " + s }
	number := func(s string) string { return "Secure-Join-Invitenumber: " + s }
	tests := map[string]struct {
		message []byte
		want    want
	}{
		"request-pubkey":               {secret.seal(t, literal(t, text(step("vc-request-pubkey"), auth(authToken)))), want{kind: Handshake}},
		"request-pubkey, other auth":   {secret.seal(t, literal(t, text(step("vc-request-pubkey"), auth("guess")))), want{Refused, BadInvite, ""}},
		"request-pubkey, no auth":      {secret.seal(t, literal(t, text(step("vc-request-pubkey")))), want{Refused, BadInvite, ""}},
		"unsigned later step":          {secret.seal(t, literal(t, text(step("vc-request-with-auth"), auth(authToken)))), want{Refused, Unsigned, ""}},
		"unsigned text":                {secret.seal(t, literal(t, text())), want{Refused, Unsigned, ""}},
		"unsigned by a channel secret": {sealing{passphrase: channel, s2k: s2k.SaltedS2K}.seal(t, literal(t, text(step("vc-request-pubkey"), auth(authToken)))), want{Refused, Unsigned, ""}},
		"unsigned to the key":          {c.toBot().seal(t, literal(t, text(step("vc-request-pubkey"), auth(authToken)))), want{Refused, Unsigned, ""}},
		"vc-request-with-auth":         {c.toBot().seal(t, c.byStranger(t, step("vc-request-with-auth"), auth(authToken))), want{kind: Handshake}},
		"vg-request-with-auth":         {c.toBot().seal(t, c.byStranger(t, step("vg-request-with-auth"), auth(authToken))), want{kind: Handshake}},
		"with a wrong auth":            {c.toBot().seal(t, c.byStranger(t, step("vc-request-with-auth"), auth("guess"))), want{Refused, BadInvite, ""}},
		"with no auth":                 {c.toBot().seal(t, c.byStranger(t, step("vc-request-with-auth"))), want{Refused, BadInvite, ""}},
		"encrypted old request":        {c.toBot().seal(t, c.byStranger(t, step("vc-request"), number(invite))), want{kind: Handshake}},
		"with a wrong number":          {c.toBot().seal(t, c.byStranger(t, step("vc-request"), number("guess"))), want{Refused, BadInvite, ""}},
		"vc-contact-confirm":           {c.toBot().seal(t, c.byStranger(t, step("vc-contact-confirm"))), want{kind: Handshake}},
		"vg-member-added":              {c.toBot().seal(t, c.byStranger(t, step("vg-member-added"))), want{kind: Message}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.want.check(t, Check(envelope(t, test.message), c.keys, nil, DefaultBounds()))
		})
	}
	// Only what is encrypted and signed counts: the same header outside changes nothing.
	outside := Check(envelope(t, c.toBot().seal(t, c.byStranger(t)), step("vc-request-with-auth")), c.keys, nil, DefaultBounds())
	want{kind: Message}.check(t, outside)
}

// TestAnswerOfAnInviter: by the token of an invite that the bot has accepted comes one thing, the inviter's signed answer.
func TestAnswerOfAnInviter(t *testing.T) {
	c := newCast(t)
	inviter := bot.Fingerprint(fmt.Sprintf("%X", c.stranger.PrimaryKey.Fingerprint))
	const token = "the author's token"
	secret := sealing{passphrase: "securejoin/" + string(inviter) + "/" + token, s2k: s2k.SaltedS2K}
	answer := secret.seal(t, c.byStranger(t, "Secure-Join: vc-pubkey"))
	want{Refused, NotForUs, "no secret"}.check(t, Check(envelope(t, answer), c.keys, nil, DefaultBounds()))
	keys := keysOf(t, botState(t))
	keys.Expect(inviter, token)
	other := signing{key: c.other.PrivateKey}
	for name, test := range map[string]struct {
		message []byte
		want    want
	}{
		"the answer":        {answer, want{kind: Handshake}},
		"another step":      {secret.seal(t, c.byStranger(t, "Secure-Join: vc-request-with-auth")), want{Refused, BadInvite, ""}},
		"a text":            {secret.seal(t, c.byStranger(t)), want{Refused, BadInvite, ""}},
		"unsigned":          {secret.seal(t, literal(t, text("Secure-Join: vc-pubkey"))), want{Refused, Unsigned, ""}},
		"a request":         {secret.seal(t, literal(t, text("Secure-Join: vc-request-pubkey", "Secure-Join-Auth: "+authToken))), want{Refused, Unsigned, ""}},
		"signed by another": {secret.seal(t, signed(t, other, text("Secure-Join: vc-pubkey", autocrypt(t, c.other, stranger)))), want{Refused, BadInvite, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			test.want.check(t, Check(envelope(t, test.message), keys, nil, DefaultBounds()))
		})
	}
}

const request = "From: <old@chat.test>\r\nSecure-Join: %s\r\nSecure-Join-Invitenumber: %s\r\n" +
	"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: text/plain\r\n\r\n%s\r\n--x--\r\n"

func TestCleartextHandshake(t *testing.T) {
	c := newCast(t)
	plain := "From: <old@chat.test>\r\nSecure-Join: vg-request\r\nSecure-Join-Invitenumber: " + invite + "\r\n\r\nSecure-Join: vg-request\r\n"
	tests := map[string]struct {
		mail      string
		handshake bool
		want      want
	}{
		"as a relay lets it pass": {fmt.Sprintf(request, "vc-request", invite, "Secure-Join: vc-request"), true, want{kind: Handshake}},
		"without a multipart":     {plain, true, want{kind: Handshake}},
		"wrong invite number":     {fmt.Sprintf(request, "vc-request", "guess", "Secure-Join: vc-request"), true, want{Refused, BadInvite, ""}},
		"no invite number":        {fmt.Sprintf(request, "vc-request", "", "Secure-Join: vc-request"), true, want{Refused, BadInvite, ""}},
		"an auth token instead":   {fmt.Sprintf(request, "vc-request", authToken, "Secure-Join: vc-request"), true, want{Refused, BadInvite, ""}},
		"another step":            {fmt.Sprintf(request, "vc-request-with-auth", invite, "Secure-Join: vc-request-with-auth"), false, want{Refused, Cleartext, ""}},
		"more than a request":     {fmt.Sprintf(request, "vc-request", invite, "Secure-Join: vc-request\r\nbuy this"), false, want{Refused, Cleartext, ""}},
		"a second part": {fmt.Sprintf(request, "vc-request", invite,
			"Secure-Join: vc-request\r\n--x\r\n\r\nbuy this"), false, want{Refused, Cleartext, ""}},
		"as HTML": {strings.Replace(fmt.Sprintf(request, "vc-request", invite, "Secure-Join: vc-request"),
			"text/plain", "text/html", 1), false, want{Refused, Cleartext, ""}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := Check([]byte(test.mail), c.keys, nil, DefaultBounds())
			test.want.check(t, v)
			if IsHandshake([]byte(test.mail)) != test.handshake {
				t.Errorf("IsHandshake is not %v", test.handshake)
			}
			if v.From != "old@chat.test" || v.Sender != "" {
				t.Errorf("got %+v", v)
			}
		})
	}
	state := botState(t)
	state.Readable = false
	v := Check([]byte(fmt.Sprintf(request, "vc-request", "guess", "Secure-Join: vc-request")), keysOf(t, state), nil, DefaultBounds())
	if v.Kind != Handshake || !v.Uncertain {
		t.Errorf("unreadable state: %+v", v)
	}
}

// As Postfix reports, with one recipient that failed for good, one that is delayed, one for whom the queue gave up, and
// one that was delivered.
const report = `Return-Path: <>
From: MAILER-DAEMON@chat.test (Mail Delivery System)
To: bot000002@chat.test
Message-Id: <20261122072020.ABC@chat.test>
Content-Type: multipart/report; report-type=delivery-status; boundary="r/chat.test"

This is a MIME-encapsulated message.

--r/chat.test
Content-Type: text/plain

I'm sorry to have to inform you that your message could not be delivered.

--r/chat.test
Content-Type: message/delivery-status

Reporting-MTA: dns; chat.test

Final-Recipient: rfc822; Gone12345@chat.test
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 no such user

Final-Recipient: rfc822; slow12345@chat.test
Action: delayed
Status: 4.2.0

Final-Recipient: rfc822; late12345@chat.test
Action: failed
Status: 4.4.7

Final-Recipient: rfc822; fine12345@chat.test
Action: relayed
Status: 2.0.0

Final-Recipient: rfc822; ../../etc/passwd
Action: failed
Status: 5.1.1

--r/chat.test
Content-Type: text/rfc822-headers

Message-ID: <what-we-sent@localhost>
Subject: [...]

--r/chat.test--
`

func TestBounce(t *testing.T) {
	c := newCast(t)
	v := Check([]byte(report), c.keys, nil, DefaultBounds())
	if v.Kind != Bounce || !slices.Equal(v.FailedRecipients, []bot.Address{"gone12345@chat.test"}) || v.OriginalID != "what-we-sent@localhost" {
		t.Errorf("got %+v", v)
	}
	for name, mail := range map[string]string{
		"from a user":                strings.Replace(report, "MAILER-DAEMON@", "mallory01@", 1),
		"with a sender's path":       strings.Replace(report, "Return-Path: <>", "Return-Path: <mallory01@chat.test>", 1),
		"a read receipt":             strings.Replace(report, "report-type=delivery-status", "report-type=disposition-notification", 1),
		"a text that looks like one": strings.Replace(report, "multipart/report;", "multipart/mixed;", 1),
	} {
		v := Check([]byte(mail), c.keys, nil, DefaultBounds())
		if v.Kind != Refused || v.Reason != Cleartext || v.FailedRecipients != nil {
			t.Errorf("%s: %+v; want refused as cleartext", name, v)
		}
	}
}

// A mail without a protected Message-ID cannot be run again either, under whatever outer one.
func TestReplayWithoutMessageID(t *testing.T) {
	c := newCast(t)
	body := strings.Replace(c.intro(t), "Message-ID: <id@chat.test>\r\n", "", 1)
	packets := signed(t, signing{key: c.stranger.PrivateKey}, body)
	var done []string
	finished := func(_ bot.Fingerprint, id string) bool { return slices.Contains(done, id) }
	first := Check(envelope(t, c.toBot().seal(t, packets)), c.keys, finished, DefaultBounds())
	if first.Kind != Message || !strings.HasPrefix(first.MessageID, "sha256-") {
		t.Fatalf("got %+v", first)
	}
	done = append(done, first.MessageID)
	again := Check(envelope(t, sealing{to: c.toBot().to, v1: true}.seal(t, packets), "X-New: 1"), c.keys, finished, DefaultBounds())
	if again.Kind != Replay {
		t.Errorf("sealed anew: %+v; want a replay", again)
	}
	later := signed(t, signing{key: c.stranger.PrivateKey, created: time.Now().Add(time.Minute)}, body)
	if v := Check(envelope(t, c.toBot().seal(t, later)), c.keys, finished, DefaultBounds()); v.Kind != Message {
		t.Errorf("the same words signed a minute later: %+v; want a message", v)
	}
}

func TestFinishedIsAskedAboutVerifiedSendersOnly(t *testing.T) {
	c := newCast(t)
	asked := 0
	finished := func(sender bot.Fingerprint, id string) bool {
		if asked++; sender == "" || id == "" {
			t.Errorf("asked about %q, %q", sender, id)
		}
		return true
	}
	for _, name := range []string{"eml/1-vc-request-pubkey.user.eml", "abuse/abuse-01.eml", "abuse/abuse-06.eml", "eml/6-reply.bot.eml"} {
		if v := Check(sample(t, name), c.keys, finished, DefaultBounds()); v.Kind == Replay {
			t.Errorf("%s: %+v", name, v)
		}
	}
	if asked != 0 {
		t.Errorf("asked %d times", asked)
	}
}

func TestMailStructure(t *testing.T) {
	c := newCast(t)
	good := string(envelope(t, c.toBot().seal(t, c.byStranger(t))))
	tests := map[string]struct {
		old, new string
		want     want
	}{
		"as it is":                {"", "", want{kind: Message}},
		"LF alone":                {"\r\n", "\n", want{kind: Message}},
		"text before the parts":   {"\r\n\r\n--b\r\n", "\r\n\r\npreamble\r\n--b\r\n", want{kind: Message}},
		"two content types":       {"Message-ID: <outer", "Content-Type: text/plain\r\nMessage-ID: <outer", want{Refused, Malformed, "more than one content-type"}},
		"not the closing line":    {"--b--", "", want{Refused, Malformed, "closing"}},
		"three parts":             {"--b--", "--b\r\n\r\nx\r\n--b--", want{Refused, NotOpenPGP, "parts"}},
		"another version":         {"Version: 1", "Version: 2", want{Refused, NotOpenPGP, "Version"}},
		"no first part":           {"application/pgp-encrypted\r\n", "text/plain\r\n", want{Refused, NotOpenPGP, "parts"}},
		"text around the armor":   {"-----BEGIN", "look:\r\n-----BEGIN", want{Refused, NotOpenPGP, "armored"}},
		"a key in armor":          {"PGP MESSAGE", "PGP PUBLIC KEY BLOCK", want{Refused, NotOpenPGP, "armored"}},
		"no line after armor":     {"MESSAGE-----\n\n", "MESSAGE-----\n", want{Refused, NotOpenPGP, "armor"}},
		"data after the padding":  {"-----END", "=\nAAAA\n-----END", want{Refused, NotOpenPGP, ""}},
		"unknown encoding":        {"octet-stream\r\n", "octet-stream\r\nContent-Transfer-Encoding: x-uu\r\n", want{Refused, Malformed, "x-uu"}},
		"header without a colon":  {"Message-ID: <outer", "what is this\r\nMessage-ID: <outer", want{Refused, Malformed, "field name"}},
		"starts with a tab":       {"From: ", "\tFrom: ", want{Refused, Malformed, "continuation"}},
		"huge header line":        {"Message-ID: <outer", "X: " + strings.Repeat("x", maxLine) + "\r\nMessage-ID: <outer", want{Refused, TooLarge, "header line"}},
		"huge header":             {"Message-ID: <outer", strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 1100) + "Message-ID: <outer", want{Refused, TooLarge, "the header"}},
		"many fields":             {"Message-ID: <outer", strings.Repeat("X: x\r\n", maxFields+1) + "Message-ID: <outer", want{Refused, TooLarge, "fields"}},
		"many parts":              {"--b--", strings.Repeat("--b\r\n\r\n\r\n", 300) + "--b--", want{Refused, TooDeep, "parts"}},
		"another content type":    {"multipart/encrypted", "multipart/mixed", want{Refused, Cleartext, "multipart/mixed"}},
		"unreadable content type": {"multipart/encrypted;", "multipart/encrypted; a=1; a=2;", want{Refused, Malformed, "content-type"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			mail := good
			if test.old != "" {
				if mail = strings.ReplaceAll(good, test.old, test.new); mail == good {
					t.Fatal("the test changes nothing")
				}
			}
			test.want.check(t, Check([]byte(mail), c.keys, nil, DefaultBounds()))
			structure := LooksEncrypted([]byte(mail))
			if (structure == nil) != (test.want.kind == Message) {
				t.Errorf("LooksEncrypted: %v", structure)
			}
		})
	}
}

func TestNothingFollowsThePadding(t *testing.T) {
	for _, before := range []int{0, 1020, 4092} {
		data := strings.Repeat("A", before) + "QQ=="
		if _, err := base64Data([]byte(data + "\n=AAAA\n")); err != nil {
			t.Errorf("padded data with a checksum: %v", err)
		}
		if _, err := base64Data([]byte(data + "QUFB")); err == nil {
			t.Errorf("%d characters, padding, and more data: no error", before)
		}
	}
}

func TestTransferEncodings(t *testing.T) {
	c := newCast(t)
	message := armored(t, c.toBot().seal(t, c.byStranger(t)))
	good := string(envelope(t, c.toBot().seal(t, c.byStranger(t))))
	head, rest, _ := strings.Cut(good, "octet-stream\r\n\r\n")
	tail := rest[strings.LastIndex(rest, "\r\n--b--"):]
	for encoding, body := range map[string]string{
		"base64": base64Lines(message), "Quoted-Printable": strings.ReplaceAll(message, "=", "=3D"),
	} {
		mail := head + "octet-stream\r\nContent-Transfer-Encoding: " + encoding + "\r\n\r\n" + body + tail
		want{kind: Message}.check(t, Check([]byte(mail), c.keys, nil, DefaultBounds()))
	}
}

func TestBoundsOfWhatIsInside(t *testing.T) {
	c := newCast(t)
	nested := "Content-Type: text/plain\r\n\r\nx\r\n"
	for range 40 {
		nested = "Content-Type: multipart/mixed; boundary=\"" + strings.Repeat("n", len(nested)%50+1) + "\"\r\n\r\n--" +
			strings.Repeat("n", len(nested)%50+1) + "\r\n" + nested
	}
	wide := "Content-Type: multipart/mixed; boundary=w\r\n\r\n" + strings.Repeat("--w\r\n\r\nx\r\n", 300) + "--w--\r\n"
	head := strings.TrimSuffix(c.intro(t), "\r\nhello\r\n")
	tests := map[string]struct {
		text string
		want want
	}{
		"nested":      {head + nested, want{Refused, TooDeep, "nested"}},
		"many parts":  {head + wide, want{Refused, TooDeep, "parts"}},
		"huge header": {strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 1100) + head + "\r\n", want{Refused, TooLarge, "header"}},
		"a few parts": {head + strings.ReplaceAll(wide, strings.Repeat("--w\r\n\r\nx\r\n", 280), ""), want{kind: Message}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			packets := signed(t, signing{key: c.stranger.PrivateKey}, test.text)
			test.want.check(t, Check(envelope(t, c.toBot().seal(t, packets)), c.keys, nil, DefaultBounds()))
		})
	}
}

func TestTooLargeAMail(t *testing.T) {
	c := newCast(t)
	bounds := DefaultBounds()
	bounds.Size = 1000
	want{Refused, TooLarge, "more than 1000"}.check(t, Check(make([]byte, 1001), c.keys, nil, bounds))
}

// allocated is how many bytes f allocates in all, freed or not.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// 200 MB of zeros in 200 kB of mail: refused, and never in memory.
func TestBomb(t *testing.T) {
	c := newCast(t)
	var bomb bytes.Buffer
	w, err := packet.SerializeCompressed(nopWriteCloser{&bomb}, packet.CompressionZLIB, nil)
	must(t, err)
	zeros, err := packet.SerializeLiteral(nopWriteCloser{w}, true, "", 0)
	must(t, err)
	_, err = io.WriteString(zeros, text())
	must(t, err)
	block := make([]byte, 1<<20)
	for range 200 {
		_, err := zeros.Write(block)
		must(t, err)
	}
	must(t, zeros.Close())
	must(t, w.Close())
	mail := envelope(t, c.toBot().seal(t, bomb.Bytes()))
	if len(mail) > 1<<20 {
		t.Fatalf("the bomb has %d bytes", len(mail))
	}
	var v Verdict
	if n := allocated(func() { v = Check(mail, c.keys, nil, DefaultBounds()) }); n > 2<<20 {
		t.Errorf("%d bytes allocated for a mail of %d", n, len(mail))
	}
	want{Refused, TooLarge, "plaintext"}.check(t, v)
}

// A 20 MB file is checked in constant memory.
func TestLargeMailStreams(t *testing.T) {
	c := newCast(t)
	large := c.intro(t) + strings.Repeat("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n", 20<<14)
	mail := envelope(t, c.toBot().seal(t, signed(t, signing{key: c.stranger.PrivateKey}, large)))
	var v Verdict
	if n := allocated(func() { v = Check(mail, c.keys, nil, DefaultBounds()) }); n > 2<<20 {
		t.Errorf("%d bytes allocated for a mail of %d", n, len(mail))
	}
	want{kind: Message}.check(t, v)
}

// bzip2 is no compression that core reads.
func TestBzip2IsRefused(t *testing.T) {
	c := newCast(t)
	packets := []byte{0xc0 | tagCompressed, 4, 3, 'B', 'Z', 'h'}
	if _, err := io.ReadAll(bzip2.NewReader(bytes.NewReader(packets[3:]))); err == nil {
		t.Fatal("want a stream that is cut off")
	}
	want{Refused, Malformed, "ZIP or ZLIB"}.check(t, Check(envelope(t, c.toBot().seal(t, packets)), c.keys, nil, DefaultBounds()))
}

// A panic below is a refusal, not the end of the daemon.
func TestContain(t *testing.T) {
	check := func() (v Verdict) {
		defer contain(&v)
		panic("index out of range")
	}
	want{Refused, Malformed, "panicked: index"}.check(t, check())
}

func TestDetailIsFitForLogs(t *testing.T) {
	c := newCast(t)
	v := Check([]byte("Content-Type: "+strings.Repeat("a\x1b[2J\u202e", 200)+"\r\n\r\n"), c.keys, nil, DefaultBounds())
	if v.Kind != Refused || len(v.Detail) > 200 || strings.ContainsFunc(v.Detail, func(r rune) bool { return r < ' ' || r > '~' }) {
		t.Errorf("Detail %q", v.Detail)
	}
}

func FuzzCheck(f *testing.F) {
	c := newCast(f)
	for _, name := range []string{"eml/1-vc-request-pubkey.user.eml", "eml/5-text.user.eml", "gpg-seipdv1.eml", "abuse/abuse-01.eml",
		"abuse/abuse-03.eml", "abuse/abuse-08.eml", "abuse/abuse-10.eml", "abuse/abuse-13.eml"} {
		f.Add(sample(f, name))
	}
	f.Add([]byte(report))
	f.Add(fmt.Appendf(nil, request, "vc-request", invite, "Secure-Join: vc-request"))
	f.Fuzz(func(t *testing.T, mail []byte) {
		v := Check(mail, c.keys, nil, DefaultBounds())
		checkSound(t, v)
		if v.Kind == Message && LooksEncrypted(mail) != nil {
			t.Errorf("a message that does not look encrypted: %v", LooksEncrypted(mail))
		}
	})
}

// FuzzInside fuzzes what only a key holder can send: the packets inside the encryption.
func FuzzInside(f *testing.F) {
	c := newCast(f)
	f.Add(c.byStranger(f))
	f.Add(compressed(f, c.byStranger(f)))
	f.Add(literal(f, text("Secure-Join: vc-request-pubkey")))
	f.Fuzz(func(t *testing.T, packets []byte) {
		checkSound(t, Check(envelope(t, c.toBot().seal(t, packets)), c.keys, nil, DefaultBounds()))
	})
}

// checkSound holds for every verdict, whatever the mail.
func checkSound(t *testing.T, v Verdict) {
	t.Helper()
	if strings.Contains(v.Detail, "panicked") {
		t.Errorf("the parser panicked: %+v", v)
	}
	if (v.Kind == Message || v.Kind == Own) && (v.Sender == "" || v.MessageID == "") {
		t.Errorf("%s without sender or id: %+v", v.Kind, v)
	}
	if (v.Kind == Refused) != (v.Reason != "") {
		t.Errorf("reason and kind disagree: %+v", v)
	}
	if len(v.Detail) > 200 || len(v.MessageID) > 250 || len(v.Step) > 64 {
		t.Errorf("not bounded: %+v", v)
	}
}

func BenchmarkCheck(b *testing.B) {
	keys := keysOf(b, botState(b))
	for _, name := range []string{"eml/5-text.user.eml", "eml/1-vc-request-pubkey.user.eml", "abuse/abuse-01.eml", "abuse/abuse-03.eml",
		"abuse/abuse-04.eml", "abuse/abuse-06.eml", "abuse/abuse-10.eml", "abuse/abuse-13.eml"} {
		mail := sample(b, name)
		b.Run(strings.TrimSuffix(name[strings.IndexByte(name, '/')+1:], ".eml"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Check(mail, keys, nil, DefaultBounds())
			}
		})
	}
}
