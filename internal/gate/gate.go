// Package gate decides, from the bytes of a mail and the keys that a bot's account knows, what may be done with it: before
// any process is started for it. It is pure: no I/O, no clock, no state; the same bytes and keys give the same verdict.
//
// What it promises:
//
//   - A Message was encrypted to this bot, decrypted whole, its integrity protection and its one signature verified, and
//     it was meant for this bot. Sender is the fingerprint of the primary key that signed; no header is ever an identity.
//   - A Handshake is a Secure-Join request that proves an invite of this bot (core alone may see it), or a later,
//     signed step.
//   - Everything else names why not. A Bounce is cleartext that anyone can forge: it is a hint, to be compared with what
//     was sent (OriginalID), never run.
//
// The rules follow the core that runs behind the gate (chatmail/core, decrypt.rs, mimeparser.rs and securejoin.rs), so
// that what passes here is a message there. Where the two could read the same bytes in different ways, the gate refuses:
//
//   - PGP/MIME (RFC 3156) only, as a chatmail relay accepts it: multipart/encrypted of exactly two parts, in the second one
//     armored message. The mangled forms that core can repair never pass a relay's filter.
//   - The message (RFC 9580) is PKESK and SKESK packets, then one SEIPD packet (version 1 or 2), then nothing. Key packets
//     of another version than the data's are not tried. A lone SKESK is tried with the broadcast secrets and with
//     "securejoin/<fingerprint of the bot>/<auth token>", and only with salted S2K and AEAD (version 6), which is what
//     core makes: a trial costs one hash. With any other mix, SKESKs are ignored.
//   - Inside: at most one layer of compression (ZIP, ZLIB), then one signed literal. No message with two signatures, and
//     none that is encrypted twice. A detached signature (multipart/signed inside) is not looked for.
//   - Signatures: by the primary key, version 4 or 6, SHA-2 (224 bits and up) or SHA-3; never MD5, SHA-1 or RIPEMD; no DSA and no
//     RSA below 2047 bits. As in core, neither the expiry nor the flags of the key count, nor the signature's date: keys of
//     chat users are made once and pinned by fingerprint.
//   - The signer's key is that of the last well-formed Autocrypt header whose addr is the outer From (the protected
//     headers' if they have one, else the outer), or one that the account knows, by the signature's issuer fingerprint.
//   - Inner headers override outer ones; of a header that occurs twice the last counts, but a doubled Content-Type or
//     Content-Transfer-Encoding of the outer structure is refused.
//
// Memory: the plaintext is hashed as it streams by; only its header block and the first MaxText bytes of its text are kept. Besides the mail there is at most one copy of it,
// if its transfer encoding is base64 or quoted-printable. Work is bounded by Bounds.
package gate

import (
	"errors"
	"fmt"
	"strings"

	"mayfly/internal/bot"
)

// Kind is what may be done with a mail.
type Kind string

// The kinds of verdicts.
const (
	Message   Kind = "message"   // one session, perhaps one run
	Handshake Kind = "handshake" // core alone
	Own       Kind = "own"       // signed by the bot itself: core alone
	Bounce    Kind = "bounce"    // a delivery report: note FailedRecipients, nothing runs
	Replay    Kind = "replay"    // a job of that sender and Message-ID is finished: drop
	Refused   Kind = "refused"   // drop and count the Reason
)

// Reason is a stable code for counting why a mail was refused.
type Reason string

// The reasons for Refused.
const (
	Cleartext       Reason = "cleartext"        // neither encrypted nor a handshake nor a report
	NotOpenPGP      Reason = "not-openpgp"      // says multipart/encrypted, but holds no armored OpenPGP message
	NotForUs        Reason = "not-for-us"       // no key and no secret of the bot opens it
	Tampered        Reason = "tampered"         // the integrity protection does not hold
	Unsigned        Reason = "unsigned"         // decrypted, but nobody signed
	UnknownSigner   Reason = "unknown-signer"   // signed by a key that did not come along and is not known
	BadSignature    Reason = "bad-signature"    // the signature does not verify, or is too weak to count
	OtherRecipients Reason = "other-recipients" // the signer meant others than this bot
	BadInvite       Reason = "bad-invite"       // a handshake without a valid invite number or auth token
	TooLarge        Reason = "too-large"        // the mail, a header block, or the plaintext
	TooDeep         Reason = "too-deep"         // too many MIME parts or levels
	TooManyPackets  Reason = "too-many-packets" // too many session key packets
	Malformed       Reason = "malformed"        // breaks the format, or could be read in two ways
)

// Verdict is the gate's answer. Everything but Sender and SenderKey comes from headers and is a claim.
type Verdict struct {
	Kind      Kind
	Reason    Reason          // for Refused
	Detail    string          // for logs: printable, at most 200 bytes, no secrets
	Sender    bot.Fingerprint // of the verified signer; empty for symmetric and cleartext handshakes and for Uncertain ones
	From      bot.Address     // claimed by the inner From, else by the outer; may be empty; never an identity
	MessageID string          // the protected Message-ID without brackets, or "sha256-…" of the signed content if there is none
	Step      string          // the Secure-Join step, bounded
	SenderKey []byte          // binary public key of the signer, when it came with the mail
	Uncertain bool            // the account's state was not readable: core must decide, under a small budget
	Announces string          // Message-ID of the mail with the file that belongs to this one, which is a large message's first part
	Announced bool            // this is such a mail, the second part: core has to see the first one before it

	// Of signed messages. What stands here was signed by Sender.
	Text      string // the start of the first text/plain part, decoded, with LF line ends; at most MaxText bytes
	Cut       bool   // there may be more text
	Plain     bool   // a text and nothing else: core learns nothing from it but that text
	Group     bool   // belongs to a group
	ByBot     bool   // no person wrote it, it says (Auto-Submitted)
	NewSender bool   // the account does not know the sender's key: core has to see the mail, to learn it
	Misplaced bool   // the protected From is another than the outer one, for which the relay answers: core takes it for forged

	FailedRecipients []bot.Address // Bounce: the recipients that failed for good
	OriginalID       string        // Bounce: the Message-ID of the mail that came back, if the report has it
}

// Bounds limit the work that one mail may cause.
type Bounds struct {
	Size    int64 // bytes of the mail
	Header  int   // bytes of one header block
	Parts   int   // MIME parts, of the mail and again of what it decrypts to
	Depth   int   // levels of multiparts
	Packets int   // PKESK and SKESK packets; each may cost one key agreement for each key of the bot
	Plain   int64 // bytes of decrypted and decompressed plaintext
	Ratio   int   // plaintext to mail, beyond the first MiB of plaintext: text compresses to a tenth, a bomb to a thousandth
}

// DefaultBounds fit a chatmail relay: mails up to 30 MB, and groups of up to 500 members (each member is a PKESK packet and
// a gossiped key in the header).
func DefaultBounds() Bounds {
	return Bounds{Size: 30 << 20, Header: 1 << 20, Parts: 200, Depth: 16, Packets: 500, Plain: 40 << 20, Ratio: 20}
}

// Unpacked is the most plaintext that a mail of a size may hold, in bytes.
func (b Bounds) Unpacked(size int64) int64 { return min(b.Plain, 1<<20+int64(b.Ratio)*size) }

// refusal is the error by which the steps of Check say why; what is no refusal is Malformed.
type refusal struct {
	reason Reason
	detail string
}

func (r *refusal) Error() string { return string(r.reason) + ": " + r.detail }

func refuse(reason Reason, format string, args ...any) error {
	return &refusal{reason, fmt.Sprintf(format, args...)}
}

func asRefusal(err error) (r *refusal, ok bool) { return r, errors.As(err, &r) }

func refused(err error) Verdict {
	if r, ok := asRefusal(err); ok {
		return Verdict{Kind: Refused, Reason: r.reason, Detail: printable(r.detail, 200)}
	}
	return Verdict{Kind: Refused, Reason: Malformed, Detail: printable(err.Error(), 200)}
}

// Check gives the verdict on one mail. finished answers whether a job of that sender key and MessageID is finished; it is
// asked at most once, and only about verified senders; nil means that none is.
func Check(mail []byte, keys *Keys, finished func(bot.Fingerprint, string) bool, bounds Bounds) (v Verdict) {
	defer contain(&v)
	if int64(len(mail)) > bounds.Size {
		return refused(refuse(TooLarge, "the mail has %d bytes, more than %d", len(mail), bounds.Size))
	}
	bounds.Plain = bounds.Unpacked(int64(len(mail)))
	outer, err := parseEntity(mail, bounds)
	if err != nil {
		return refused(err)
	}
	if outer.mediaType != "multipart/encrypted" {
		return checkCleartext(outer, keys, bounds)
	}
	v, err = checkEncrypted(outer, keys, bounds)
	if err != nil {
		v = refused(err)
	}
	v.From = claimedFrom(v.From, outer.header)
	if (v.Kind == Message || v.Kind == Handshake) && v.Sender != "" && finished != nil && finished(v.Sender, v.MessageID) {
		v.Kind = Replay
	}
	return v
}

// contain turns a panic of the OpenPGP library into a refusal: a mail that ends the daemon would do so at every start.
func contain(v *Verdict) {
	if p := recover(); p != nil {
		*v = refused(refuse(Malformed, "the parser panicked: %v", p))
	}
}

func checkEncrypted(outer *entity, keys *Keys, bounds Bounds) (Verdict, error) {
	payload, err := encryptedPart(outer, bounds)
	if err != nil {
		return Verdict{}, err
	}
	o, err := open(payload, keys, bounds)
	if errors.Is(err, errNoSecret) && !keys.readable {
		return Verdict{Kind: Handshake, Uncertain: true, Detail: "symmetric, and the account's secrets are not readable"}, nil
	}
	if err != nil {
		return Verdict{}, err
	}
	v := Verdict{
		Kind: Message, From: claimedFrom("", o.header), Step: printable(o.header.get("secure-join"), 64),
		Announces: bareID(o.header.get("chat-post-message-id")), Announced: outer.header.get("chat-is-post-message") != "",
	}
	if o.signature == nil {
		v.MessageID = o.messageID()
		return checkUnsigned(v, o, keys)
	}
	signer, err := o.verify(outer.header, keys)
	switch {
	case errors.Is(err, errUnknownSigner) && !keys.readable:
		v.Uncertain = true
	case err != nil:
		return v, err
	}
	v.MessageID = o.messageID() // after verify, which completes the digest
	v.Sender, v.SenderKey = signer.fingerprint, signer.transferable
	if keys.self[signer.fingerprint] {
		v.Kind, v.SenderKey = Own, nil
		return v, nil
	}
	v.Text, v.Cut, v.Plain, v.ByBot = o.content.text, o.content.cut, o.plain(), o.byBot()
	v.Group = o.header.get("chat-group-id") != ""
	v.NewSender = keys.known[signer.fingerprint] == nil
	v.Misplaced = v.From != claimedFrom("", outer.header) && v.From != ""
	if o.by.inviter != "" {
		return checkInviter(v, o.by.inviter)
	}
	return checkStep(v, o.header, keys)
}

// checkUnsigned lets one unsigned mail pass: the first of Secure-Join v3, which proves an invite by the secret that opened it.
func checkUnsigned(v Verdict, o *opened, keys *Keys) (Verdict, error) {
	if !o.by.byInvite || v.Step != "vc-request-pubkey" {
		return v, refuse(Unsigned, "decrypted, but nobody signed it")
	}
	if !keys.auth[o.header.get("secure-join-auth")] {
		return v, refuse(BadInvite, "%s without a valid auth token", v.Step)
	}
	v.Kind = Handshake
	return v, nil
}

// checkInviter lets the one answer pass that the token of a foreign invite is for.
func checkInviter(v Verdict, inviter bot.Fingerprint) (Verdict, error) {
	if v.Sender != inviter || v.Step != "vc-pubkey" {
		return v, refuse(BadInvite, "%s by the token of an invite that the bot has accepted, signed by another than the inviter or for another step", v.Step)
	}
	v.Kind = Handshake
	return v, nil
}

// checkStep tells handshakes from messages. vg-member-added and what is no step at all are messages.
func checkStep(v Verdict, h header, keys *Keys) (Verdict, error) {
	invite := h.get("secure-join-invitenumber")
	proven := true
	switch {
	case invite != "":
		proven = keys.invites[invite]
	case strings.HasSuffix(v.Step, "-request-with-auth"), v.Step == "vc-request-pubkey":
		proven = keys.auth[h.get("secure-join-auth")]
	case v.Step == "" || v.Step == "vg-member-added":
		return v, nil
	}
	v.Kind = Handshake
	if !proven && keys.readable {
		return v, refuse(BadInvite, "%s without a valid invite", v.Step)
	}
	v.Uncertain = v.Uncertain || !proven
	return v, nil
}

// Claim is what the outer header of a mail says, which anybody may have written. It is for budgets that come before decryption.
type Claim struct {
	From      bot.Address // empty where there is none that can be read
	Encrypted bool        // Check may have to decrypt; without it, Check takes microseconds
}

// ReadClaim reads the outer header alone.
func ReadClaim(mail []byte) Claim {
	outer, err := parseEntity(mail, DefaultBounds())
	if err != nil {
		return Claim{}
	}
	return Claim{claimedFrom("", outer.header), outer.mediaType == "multipart/encrypted"}
}

func claimedFrom(inner bot.Address, h header) bot.Address {
	if inner != "" {
		return inner
	}
	from, err := bot.ParseAddress(addressOf(h.get("from")))
	if err != nil {
		return ""
	}
	return from
}

// bareID is a Message-ID without its brackets, empty where it is not fit for a ledger.
func bareID(value string) string {
	id := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(value), "<"), ">")
	if printable(id, 250) != id {
		return ""
	}
	return id
}

// printable is s cut to n bytes, with everything but printable ASCII replaced.
func printable(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
