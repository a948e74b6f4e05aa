// Package install turns messages in the folder Bot of an account into an installed bot, and answers into Bot/Status.
//
// # The folder Bot
//
// A message there is a request of the account's owner, since nobody else can put one there. Any IMAP client will do.
//
//   - A bundle (package bundle) as attachments: one zip, or bot.toml and the other files singly. The file name of a single
//     attachment is its path in the bundle and may contain slashes. Text without a file name is ignored, and so are
//     OpenPGP and S/MIME signatures. Text that was attached without base64 has its line ends put back from CRLF to LF.
//   - The subject "uninstall", in any case, uninstalls.
//   - The subject "rollback", in any case, puts back the bundle that ran before the one that is installed. It is checked as if
//     it came anew. A second rollback puts back the other one.
//   - Anything else is refused.
//
// When several messages wait, the outcome is that of handling them one by one, without the work: from the newest back,
// requests are refused until one can be done, and those before it are passed over. Only where one of them is a rollback, whose
// outcome depends on those before it, or has an account.toml, they are handled one by one. At most the newest 20 are looked at.
// The same bundle again changes nothing, and is answered again. A refused update leaves the running version. A message that
// vanished or expired, and a folder that is empty, uninstall nothing.
//
// # Secrets
//
// With a bundle may come account.toml, as an attachment of its own and not in the zip:
//
//	password = "…"            of the account; Mayfly logs in with it from then on
//	secret_key = "key.asc"    the name of another attachment: the bot's OpenPGP secret key, armored, without a passphrase
//
// One of the two may be missing. Both go to the key store when the bundle is installed, the password after the relay has taken
// it for a login; neither attachment becomes part of the bundle, or of an answer or a log. A key is refused if the bot has an
// account with another one. A message with an account.toml is erased from the mailbox once it was answered, whether it was
// installed or refused. An uninstall deletes the key and keeps the password, without which the account could not be watched.
//
// # The operator's rules
//
// Rules say who may install, and how much. A refusal names each rule that is broken, and what the author can do. New bots and
// new versions are counted in the ledger, so that a restart changes nothing.
//
// # The folder is missing
//
// Removing the folder uninstalls, too, if it was really removed: the account's list of folders has an INBOX and no Bot, and the
// INBOX has the UIDVALIDITY that it had when Bot was last seen. If it has another, the mailbox was lost or made anew; the
// folder is made again, and the bot stays. A list that fails or contradicts itself is an error, and changes nothing.
//
// Nothing is answered to a removal: the answer would make the folder again. After an uninstall it is for the account's owner to
// make the folder, which appending to it does in most clients. For an account that never had a bot the folder is made.
//
// # Bot/Status
//
// One plain mail for each request that was looked at, from and to the account, in reply to the request, with the header
//
//	Mayfly-State: installed | updated | refused | uninstalled | failed | undelivered | over-limit | removed
//
// Installed and updated have the invite link in the text and its QR code as invite.png; refused has all reasons, a line each.
// All answers to one request have the same Message-ID.
//
// Failed and undelivered answer no request. They sum up what has failed of the bot since the last such mail, of which there is one an
// hour at most: the runs, with the first lines of each error; the mails that were set aside, since the host failed on them; and the mails
// that the relay has refused for good, with the relay's words. A mail that has more than the last of these is failed. After a crash it
// may come twice, with the same Message-ID. The same text goes to the author by chat, where the bot can write there (Author).
//
// OverLimit answers no request either. It says that the bot has used up what it may on this host, and that its mail waits, once a day at
// most; or how many messages were not sent, by the limit that kept the bot from it, once an hour at most.
//
// Removed answers no request either. It says that the operator has uninstalled the bot, and why.
//
// # After a crash
//
// A request is marked as handled (its UIDVALIDITY and UID, in the ledger) after it was done and answered. So a request is never
// lost; after a crash it is done again, which changes nothing, and may be answered twice. The ledger names with each bundle the
// request that brought it, so that a rollback is not done twice.
package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/ledger"
	"mayfly/internal/mailbox"
	"mayfly/internal/storage"
)

// The folders of an account that belong to Mayfly.
const (
	Folder       = "Bot"
	StatusFolder = "Bot/Status"
)

// The states that answers tell.
const (
	Installed   = "installed"
	Updated     = "updated"
	Refused     = "refused"
	Uninstalled = "uninstalled"
	Failed      = "failed"
	Undelivered = "undelivered"
	OverLimit   = "over-limit"
	Removed     = "removed"
)

// Ledger remembers the installed bots and how far the folder has been read.
type Ledger interface {
	Bot(ctx context.Context, addr bot.Address) (ledger.Bot, error)
	Install(ctx context.Context, b ledger.Bot) error
	Remove(ctx context.Context, addr bot.Address) error
	Folder(ctx context.Context, addr bot.Address) (ledger.Folder, error)
	SetHandled(ctx context.Context, addr bot.Address, c ledger.Cursor) error
	SetSeen(ctx context.Context, addr bot.Address, inbox uint32) error
	Installs(ctx context.Context, since time.Time) ([]time.Time, error)
	CountBots(ctx context.Context) (int, error)
	Failures(ctx context.Context, addr bot.Address) (failures []ledger.Failure, told time.Time, err error)
	FailuresTold(ctx context.Context, addr bot.Address, at time.Time, mails ...ledger.Outgoing) error
	Overrun(ctx context.Context, addr bot.Address) (o ledger.Overrun, there bool, err error)
	OverrunTold(ctx context.Context, addr bot.Address, at time.Time, mails ...ledger.Outgoing) error
	Outbox(ctx context.Context, addr bot.Address, limit int) ([]ledger.Outgoing, error)
}

// Mails are the files of the outbox.
type Mails interface {
	Discard(path string) error
}

// Bundles keeps the files of bundles by digest, and everything else that a bot has on disk.
type Bundles interface {
	PutBundle(addr bot.Address, digest string, files []storage.File) error
	ExportBundle(addr bot.Address, digest string, w io.Writer) error
	SweepBundles(addr bot.Address, keep ...string) (removed int, err error)
	Remove(addr bot.Address) error
	Usage() (bytes int64, err error)
}

// Accounts makes core's account for a bot that the ledger holds, or brings its profile up to date with the manifest. It
// returns the bot with its invite link, and may be called again at any time. An error that is bundle.Problems says that core
// refuses the key that the key store holds for a bot without an account; any other is the host's.
type Accounts interface {
	Setup(ctx context.Context, b ledger.Bot) (ledger.Bot, error)
}

// Checker tries whether the code can be loaded, in a sandbox. An error that is bundle.Problems is the author's, any other
// the host's.
type Checker interface {
	Check(ctx context.Context, b *bundle.Bundle) error
}

// Keys holds the bots' secret keys and the passwords of accounts. DeleteKeys leaves the password: the account stays watched.
type Keys interface {
	PutKeys(addr bot.Address, keys [][]byte) error
	PutPassword(addr bot.Address, password string) error
	DeleteKeys(addr bot.Address) error
}

// Mailbox is a connection to the account; *mailbox.Client is one.
type Mailbox interface {
	Select(ctx context.Context, folder string) (mailbox.Status, error)
	List(ctx context.Context, after uint32, limit int) ([]mailbox.Message, error)
	Fetch(ctx context.Context, uid uint32, max int64) ([]byte, error)
	Append(ctx context.Context, folder string, mail []byte) error
	Create(ctx context.Context, folder string) error
	Delete(ctx context.Context, uids ...uint32) error
	Folders(ctx context.Context) ([]string, error)
	UIDValidity(ctx context.Context, folder string) (uint32, error)
}

// Options wire an Installer. All but Now must be set.
type Options struct {
	Ledger   Ledger
	Bundles  Bundles
	Accounts Accounts
	Checker  Checker
	Author   Author
	Keys     Keys
	Mails    Mails
	Login    func(ctx context.Context, addr bot.Address, password string) error // tries a password; wraps mailbox.ErrLogin
	Ceilings bundle.Ceilings
	Rules    Rules
	Log      *slog.Logger
	Now      func() time.Time // nil: time.Now
}

// Installer handles the Bot folders of all accounts. Calls for different accounts may overlap, those for one may not.
type Installer struct {
	Options
	admission sync.Mutex // from looking at the rules to what counts for them
}

// New makes an Installer.
func New(o Options) *Installer {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Installer{Options: o}
}

// Result says what Process has done.
type Result struct {
	Changed bool   // a bot was installed, updated or uninstalled
	State   string // of the last answer, or Uninstalled where the folder was removed; "" if there was nothing to do
}

const (
	pageSize = 100
	lookedAt = 20 // of the messages that wait, the newest
)

// Process reads the account's Bot folder, does what is new in it and answers. It selects the folder on c. An error is the
// host's or the relay's, and the next call goes on where this one failed; faults of bundles are answered, not returned.
func (in *Installer) Process(ctx context.Context, addr bot.Address, c Mailbox) (Result, error) {
	folder, err := in.Ledger.Folder(ctx, addr)
	if err != nil {
		return Result{}, err
	}
	status, err := c.Select(ctx, Folder)
	if errors.Is(err, mailbox.ErrNoFolder) {
		return in.missing(ctx, addr, c, folder)
	}
	if err != nil {
		return Result{}, err
	}
	inbox, err := c.UIDValidity(ctx, "INBOX")
	if err != nil {
		return Result{}, err
	}
	if inbox != folder.Inbox {
		if err := in.Ledger.SetSeen(ctx, addr, inbox); err != nil {
			return Result{}, err
		}
	}
	if folder.Handled.UIDValidity != status.UIDValidity {
		folder.Handled = ledger.Cursor{UIDValidity: status.UIDValidity}
	}
	newest, err := waiting(ctx, c, folder.Handled.UID)
	if err != nil || len(newest) == 0 {
		return Result{}, err
	}
	return in.handleAll(ctx, addr, c, status.UIDValidity, newest)
}

// handleAll handles the messages together if it can, else one by one.
func (in *Installer) handleAll(ctx context.Context, addr bot.Address, c Mailbox, validity uint32, newest []mailbox.Message) (Result, error) {
	var result Result
	together, err := in.independent(ctx, c, newest)
	if err != nil {
		return result, err
	}
	steps := slices.Chunk(newest, 1)
	if together {
		steps = slices.Chunk(newest, len(newest))
	}
	for step := range steps {
		r, err := in.handle(ctx, addr, c, validity, step)
		if err != nil {
			return result, err
		}
		if r.State != "" {
			result.State = r.State
		}
		result.Changed = result.Changed || r.Changed
		handled := ledger.Cursor{UIDValidity: validity, UID: step[len(step)-1].UID}
		if err := in.Ledger.SetHandled(ctx, addr, handled); err != nil {
			return result, err
		}
	}
	return result, nil
}

// independent reports whether each request's outcome is the same whatever came before it.
func (in *Installer) independent(ctx context.Context, c Mailbox, messages []mailbox.Message) (bool, error) {
	if len(messages) == 1 {
		return true, nil
	}
	for _, m := range messages {
		req, err := in.fetch(ctx, c, m)
		if errors.Is(err, mailbox.ErrVanished) {
			continue
		}
		if err != nil || req.rollback || req.secrets.there {
			return false, err
		}
	}
	return true, nil
}

// waiting returns the newest messages above a UID, ascending.
func waiting(ctx context.Context, c Mailbox, after uint32) ([]mailbox.Message, error) {
	var newest []mailbox.Message
	for {
		page, err := c.List(ctx, after, pageSize)
		if err != nil || len(page) == 0 {
			return newest, err
		}
		newest = append(newest, page...)
		newest = slices.Clone(newest[max(0, len(newest)-lookedAt):])
		after = page[len(page)-1].UID
	}
}

// handle goes back from the newest message until a request was done.
func (in *Installer) handle(ctx context.Context, addr bot.Address, c Mailbox, validity uint32, newest []mailbox.Message) (Result, error) {
	var result Result
	for _, m := range slices.Backward(newest) {
		req, err := in.fetch(ctx, c, m)
		if errors.Is(err, mailbox.ErrVanished) {
			continue
		}
		if err != nil {
			return result, err
		}
		at := ledger.Cursor{UIDValidity: validity, UID: m.UID}
		out, err := in.perform(ctx, addr, req, at)
		if err != nil {
			return result, fmt.Errorf("the request in message %d of folder %s: %w", m.UID, Folder, err)
		}
		out.erased = req.secrets.there
		out.withheld = in.Ceilings.Withheld(out.bot.Manifest)
		mail, err := out.compose(addr, req, at, in.Now())
		if err != nil {
			return result, err
		}
		if err := c.Append(ctx, StatusFolder, mail); err != nil {
			return result, err
		}
		if req.secrets.there {
			if err := c.Delete(ctx, m.UID); err != nil {
				return result, fmt.Errorf("erase message %d of folder %s, which has secrets in it: %w", m.UID, Folder, err)
			}
		}
		in.Log.Info("Bot folder: answered", "bot", addr, "uid", m.UID, "state", out.state, "faults", len(out.problems))
		result.State = out.state
		if out.state != Refused {
			result.Changed = out.changed
			return result, nil
		}
	}
	return result, nil
}

// maxMessage is how large a message with a bundle may be: base64 and line ends make 4 bytes of 3 and a little more.
func (in *Installer) maxMessage() int64 { return in.Ceilings.Total*3/2 + 1<<20 }

func (in *Installer) fetch(ctx context.Context, c Mailbox, m mailbox.Message) (request, error) {
	tooLarge := request{problems: bundle.Problems{{
		File: "message", Message: "larger than a bundle of " + bundle.FormatSize(in.Ceilings.Total) + ", the operator's ceiling, can be",
		Fix: "leave out what the bot does not need at run time",
	}}}
	if m.Size > in.maxMessage() {
		return tooLarge, nil
	}
	mail, err := c.Fetch(ctx, m.UID, in.maxMessage())
	if errors.Is(err, mailbox.ErrTooLarge) {
		return tooLarge, nil
	}
	if err != nil {
		return request{}, err
	}
	return readRequest(mail, in.Ceilings), nil
}

// outcome is what came of a request.
type outcome struct {
	state    string
	changed  bool
	bot      ledger.Bot      // as it is now; on uninstall, as it was; zero if there is none
	problems bundle.Problems // why it was refused
	withheld []string        // what its manifest asks for and this host does not grant
	erased   bool            // the request's message will be erased
}

// perform does a request, which is known by its place in the folder.
func (in *Installer) perform(ctx context.Context, addr bot.Address, req request, at ledger.Cursor) (outcome, error) {
	before, err := in.Ledger.Bot(ctx, addr)
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return outcome{}, err
	}
	there := err == nil
	switch {
	case req.uninstall:
		return outcome{state: Uninstalled, changed: there, bot: before}, in.uninstall(ctx, addr)
	case there && before.Request == at: // it was done before a crash, and not answered
		out := outcome{state: Updated, changed: true}
		if before.Previous == "" {
			out.state = Installed
		}
		return in.setup(ctx, addr, out)
	case req.rollback:
		req.bundle, err = in.previous(addr, before)
		if err != nil && !errors.As(err, &req.problems) {
			return outcome{}, err
		}
	}
	return in.replace(ctx, addr, before, req, at)
}

// replace puts the request's bundle in the place of what is installed, if anything is.
func (in *Installer) replace(ctx context.Context, addr bot.Address, before ledger.Bot, req request, at ledger.Cursor) (outcome, error) {
	same := len(req.problems) == 0 && req.bundle.Digest == before.Digest
	problems := req.problems
	if !same {
		broken, err := in.broken(ctx, addr, before, req.size())
		if err != nil {
			return outcome{}, err
		}
		problems = slices.Concat(problems, broken)
	}
	if len(problems) == 0 {
		if err := in.Checker.Check(ctx, req.bundle); err != nil && !errors.As(err, &problems) {
			return outcome{}, fmt.Errorf("check the code: %w", err)
		}
	}
	if len(problems) == 0 {
		var err error
		if problems, err = in.check(ctx, addr, before, req.secrets); err != nil {
			return outcome{}, fmt.Errorf("try the password: %w", err)
		}
	}
	if len(problems) == 0 {
		var err error
		if problems, err = in.install(ctx, addr, before, req, at); err != nil {
			return outcome{}, err
		}
	}
	if len(problems) > 0 {
		return outcome{state: Refused, bot: before, problems: problems}, nil
	}
	out := outcome{state: Updated, changed: !same}
	if before.Digest == "" || same {
		out.state = Installed
	}
	// Also for the same bundle again: the time before may have ended before this.
	return in.setup(ctx, addr, out)
}

// install keeps the bundle before the ledger names it, and the one before it, for a rollback. It looks at the rules once more,
// since another account may have been faster.
func (in *Installer) install(ctx context.Context, addr bot.Address, before ledger.Bot, req request, at ledger.Cursor) (bundle.Problems, error) {
	b := req.bundle
	if b.Digest == before.Digest {
		return nil, in.keep(addr, before, req.secrets)
	}
	in.admission.Lock()
	defer in.admission.Unlock()
	broken, err := in.broken(ctx, addr, before, req.size())
	if err != nil || len(broken) > 0 {
		return broken, err
	}
	if err := in.keep(addr, before, req.secrets); err != nil {
		return nil, err
	}
	files := make([]storage.File, len(b.Files))
	for i, f := range b.Files {
		files[i] = storage.File(f)
	}
	if err := in.Bundles.PutBundle(addr, b.Digest, files); err != nil {
		return nil, err
	}
	now := ledger.Bot{Address: addr, Manifest: b.Manifest, Digest: b.Digest, Request: at, Updated: in.Now()}
	if err := in.Ledger.Install(ctx, now); err != nil {
		return nil, err
	}
	_, err = in.Bundles.SweepBundles(addr, b.Digest, before.Digest)
	return nil, err
}

// setup completes an outcome. A key that core refuses leaves nothing of the bot, which can have had no account yet.
func (in *Installer) setup(ctx context.Context, addr bot.Address, out outcome) (outcome, error) {
	now, err := in.Ledger.Bot(ctx, addr)
	if err != nil {
		return outcome{}, err
	}
	var problems bundle.Problems
	now, err = in.Accounts.Setup(ctx, now)
	switch {
	case errors.As(err, &problems) && now.Account == 0:
		return outcome{state: Refused, problems: problems}, in.uninstall(ctx, addr)
	case err != nil:
		return outcome{}, fmt.Errorf("set up the account: %w", err)
	}
	out.bot = now
	return out, nil
}

// uninstall forgets the bot first: what is left on disk by a crash after that is removed by the repetition, or at the next start.
func (in *Installer) uninstall(ctx context.Context, addr bot.Address) error {
	unsent, err := in.Ledger.Outbox(ctx, addr, -1)
	if err != nil {
		return err
	}
	if err := in.Ledger.Remove(ctx, addr); err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return err
	}
	errs := []error{in.Bundles.Remove(addr), in.Keys.DeleteKeys(addr)}
	for _, m := range unsent {
		errs = append(errs, in.Mails.Discard(m.Path))
	}
	return errors.Join(errs...)
}
