// Package minirelay is a mail provider inside our own process, in two sizes.
//
// # Private
//
// Private is core's provider for one session. Core (deltachat-rpc-server) runs in a sandbox without network and believes
// that this is its IMAP and SMTP server. It holds the mails that the gate has passed and takes what core sends. It promises:
//
//   - One mailbox, INBOX, with a constant UIDVALIDITY. UIDs are dense, start at PrivateConfig.UIDNext, and are minted by
//     Present and by nothing else. Core never fetches a UID below the UIDNEXT it has seen before, and loses mail when
//     UIDVALIDITY changes; so the caller keeps UIDNext in the ledger.
//   - Any other folder that core asks for exists, is empty, and swallows what is appended to it.
//   - Any user name and any password are right: nobody but core can reach the listeners.
//   - Every recipient gets a 250. A 550 for one recipient would fail the message for all of them: whom not to write to, and who has had enough, is
//     decided elsewhere. (An address that bot.ParseAddress refuses is left out of Outgoing.To; when no other
//     recipient is left, the mail is refused with 553.)
//   - What core sends is kept in memory, bounded, in the order of acceptance, and goes nowhere else but to Take.
//
// With PrivateConfig.Bot it is, in a bot's sandbox, the provider of a bot that brings its own mail client, with these differences:
//
//   - The user is the bot's address, with a password; who submits without a login is taken for it. Clients may begin with TLS, or ask for it (STARTTLS).
//   - The mails are of the host's own making: a list of parts at most, none of which holds others. So ENVELOPE, BODYSTRUCTURE and parts
//     are answered, out of what the mail was cut into once.
//   - What the client submits is offered to a Submission, recipient by recipient, and nothing is kept.
//   - Looked, Submitting and Settled tell whether the client is done with the mail. Renew has it come once more.
//   - Each port serves 200 connections in all.
//
// What arrives on these listeners is hostile: core parses foreign mail, and bots are anybody's. Connections, their silence, the bytes read from
// each, literals, the items of a FETCH, and all mail held are bounded. FETCH gives whole mails and their headers; whatever
// would parse MIME structure (BODYSTRUCTURE, ENVELOPE, parts) is refused with NO [CANNOT] to core, which does not need it.
//
// # Relay
//
// Relay is a chatmail relay in memory, for `mayfly demo` and tests: many accounts, made at their first login,
// that can write to each other and to nobody else. Submission takes what a chatmail relay's filtermail takes: mail whose
// structure is OpenPGP's, and the handshakes of securejoin; all else is answered with
// "523 Encryption Needed: Invalid Unencrypted Mail". A master user may log in to every account that exists, as
// "address*mayfly". Mail is lost when the process ends.
//
// # What both speak
//
// IMAP4rev1 (RFC 3501) with IDLE (RFC 2177), UIDPLUS (RFC 4315), LITERAL- (RFC 7888), SASL-IR (RFC 4959); Relay also
// MOVE (RFC 6851), NAMESPACE (RFC 2342), LIST-EXTENDED (RFC 5258), LIST-STATUS (RFC 5819), STATUS=SIZE (RFC 8438).
// Flags are the five system flags (\Answered \Flagged \Deleted \Seen \Draft); keywords are not kept, and PERMANENTFLAGS
// says so. A flag that another session changes is not announced, only EXISTS and EXPUNGE are.
// SMTP (RFC 5321) with AUTH PLAIN (and LOGIN on Private), SIZE, PIPELINING, CHUNKING and ENHANCEDSTATUSCODES.
// Neither speaks TLS, but for a bot: they listen on loopback or inside a sandbox.
package minirelay
