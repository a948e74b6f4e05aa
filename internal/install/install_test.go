package install

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"image/png"
	"io"
	"log"
	"log/slog"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"

	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/keystore"
	"mayfly/internal/ledger"
	"mayfly/internal/mailbox"
	"mayfly/internal/storage"
)

// Written with: go test ./internal/install -update
var update = flag.Bool("update", false, "write the golden files")

const (
	addr   = bot.Address("dice@example.org")
	invite = "https://i.delta.chat/#0123456789ABCDEF0123456789ABCDEF01234567&v=3&i=aaaaaaaaaaaaaaaaaaaaaaaa&s=bbbbbbbbbbbbbbbbbbbbbbbb&a=dice%40example.org&n=Dice"
)

func manifest(version string) string {
	return fmt.Sprintf("name = \"Dice\"\nversion = %q\ncontact = \"author@example.org\"\nruntime = \"js\"\nmain = \"main.js\"\n", version)
}

// host is an installer with a real IMAP server, ledger, bundle store and key store. Core and sandbox, which need a broker,
// are played: Setup names the invite link, Check refuses code that says so.
type host struct {
	t         *testing.T
	dir       string
	installer *Installer
	ledger    *ledger.Ledger
	store     *storage.Store
	keys      *keystore.Store
	server    mailbox.Server
	user      *imapmemserver.User
	mailbox   *mailbox.Client
	setups    int
	checks    int
	refuseKey bool // at Setup
	known     bool // the author's key is
	letters   []string
}

func newHost(t *testing.T) *host {
	t.Helper()
	dir := t.TempDir()
	h := &host{t: t, dir: dir}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.ledger, err = ledger.Open(t.Context(), filepath.Join(dir, "ledger.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.ledger.Close() })
	if h.store, err = storage.Open(filepath.Join(dir, "bots")); err != nil {
		t.Fatal(err)
	}
	if h.keys, err = keystore.Open(filepath.Join(dir, "keys")); err != nil {
		t.Fatal(err)
	}
	h.installer = New(Options{
		Ledger: h.ledger, Bundles: h.store, Accounts: h, Checker: h, Author: h, Keys: h.keys, Mails: h, Login: h.login, Ceilings: bundle.DefaultCeilings(),
		Rules: Rules{Who: Everyone, PerHour: 1000, Bots: 1000, Disk: 1e9},
		Log:   slog.New(slog.DiscardHandler), Now: func() time.Time { return time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC) },
	})
	h.startRelay()
	return h
}

func (h *host) startRelay() {
	h.user = imapmemserver.NewUser(string(addr), "password")
	h.createFolder("INBOX")
	memory := imapmemserver.New()
	memory.AddUser(h.user)
	server := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return memory.NewSession(), nil, nil
		},
		Caps: imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapUIDPlus: {}}, InsecureAuth: true, Logger: log.New(io.Discard, "", 0),
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	go server.Serve(l)
	h.t.Cleanup(func() { server.Close() })
	h.server = mailbox.Server{Addr: l.Addr().String(), TLS: mailbox.Plain}
	h.mailbox, err = mailbox.Dial(h.t.Context(), h.server, mailbox.Login{Username: string(addr), Password: "password"})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { h.mailbox.Close() })
}

// Discard deletes a file of the outbox.
func (h *host) Discard(path string) error { return os.Remove(filepath.Join(h.dir, path)) }

// login is a login with the account's password, as the daemon tries it.
func (h *host) login(ctx context.Context, a bot.Address, password string) error {
	c, err := mailbox.Dial(ctx, h.server, mailbox.Login{Username: string(a), Password: password})
	if err != nil {
		return err
	}
	return c.Close()
}

// Letter is that of an author whose key is known, or not.
func (h *host) Letter(_ context.Context, _ ledger.Bot, text string) (*ledger.Outgoing, error) {
	if !h.known {
		return nil, nil
	}
	h.letters = append(h.letters, text)
	return &ledger.Outgoing{To: []bot.Address{"author@example.org"}, Path: fmt.Sprint("letter ", len(h.letters))}, nil
}

func (h *host) Setup(_ context.Context, b ledger.Bot) (ledger.Bot, error) {
	h.setups++
	if h.refuseKey {
		return b, fmt.Errorf("core: %w", bundle.Problems{{File: "credentials", Message: "core refuses the secret key: no"}})
	}
	b.Invite = invite
	return b, nil
}

func (h *host) Check(_ context.Context, b *bundle.Bundle) error {
	h.checks++
	for _, f := range b.Files {
		if bytes.HasPrefix(f.Data, []byte("syntax error")) {
			return bundle.Problems{{File: f.Path, Line: 1, Column: 8, Message: "expecting ';'"}}
		}
	}
	return nil
}

func (h *host) append(messages ...[]byte) {
	h.t.Helper()
	for _, m := range messages {
		if err := h.mailbox.Append(h.t.Context(), Folder, m); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *host) process() Result {
	h.t.Helper()
	result, err := h.installer.Process(h.t.Context(), addr, h.mailbox)
	if err != nil {
		h.t.Fatal(err)
	}
	return result
}

// want runs Process and compares what it says and what is installed after it.
func (h *host) want(result Result, version string) {
	h.t.Helper()
	if got := h.process(); got != result {
		h.t.Errorf("got %+v, want %+v", got, result)
	}
	if got := h.version(); got != version {
		h.t.Errorf("version %q is installed, want %q", got, version)
	}
}

// version is that of the installed bot, whose files must be there; "" if there is none.
func (h *host) version() string {
	h.t.Helper()
	b, err := h.ledger.Bot(h.t.Context(), addr)
	if errors.Is(err, ledger.ErrNotFound) {
		return ""
	}
	if err != nil {
		h.t.Fatal(err)
	}
	if err := h.store.ExportBundle(addr, b.Digest, io.Discard); err != nil {
		h.t.Errorf("the installed bundle is not in the store: %v", err)
	}
	return b.Manifest.Version
}

// answers returns the raw mails of Bot/Status.
func (h *host) answers() [][]byte {
	h.t.Helper()
	if _, err := h.mailbox.Select(h.t.Context(), StatusFolder); errors.Is(err, mailbox.ErrNoFolder) {
		return nil
	} else if err != nil {
		h.t.Fatal(err)
	}
	list, err := h.mailbox.List(h.t.Context(), 0, 1000)
	if err != nil {
		h.t.Fatal(err)
	}
	var mails [][]byte
	for _, m := range list {
		raw, err := h.mailbox.Fetch(h.t.Context(), m.UID, 1<<20)
		if err != nil {
			h.t.Fatal(err)
		}
		mails = append(mails, raw)
	}
	return mails
}

func (h *host) createFolder(name string) {
	h.t.Helper()
	if err := h.user.Create(name, nil); err != nil {
		h.t.Fatal(err)
	}
}

// removeFolder is what the account's owner does in a mail client.
func (h *host) removeFolder() {
	h.t.Helper()
	if err := h.user.Delete(Folder); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) folders() []string {
	h.t.Helper()
	names, err := h.mailbox.Folders(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return names
}

func (h *host) states() []string {
	h.t.Helper()
	var states []string
	for _, raw := range h.answers() {
		states = append(states, parse(h.t, raw).Header.Get("Mayfly-State"))
	}
	return states
}

func parse(t *testing.T, raw []byte) *mail.Message {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// pack is a bundle as `mayfly deploy` would append it.
func pack(t *testing.T, version string, more ...bundle.File) []byte {
	t.Helper()
	files := append([]bundle.File{{Path: "bot.toml", Data: []byte(manifest(version))}, {Path: "main.js", Data: []byte("export default {}\n")}}, more...)
	b, err := bundle.FromFiles(files, bundle.DefaultCeilings())
	if err != nil {
		t.Fatal(err)
	}
	m, err := Compose(b, addr)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func uninstall(t *testing.T) []byte {
	t.Helper()
	m, err := ComposeUninstall(addr)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func rollback(t *testing.T) []byte {
	t.Helper()
	m, err := ComposeRollback(addr)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// draft is a message as a mail client writes it: header lines of parts and their bodies, as they are.
func draft(subject string, parts ...string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "Subject: %s\nMessage-ID: <draft-1@example.org>\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=xyz\n\nPreamble.\n", subject)
	for _, p := range parts {
		b.WriteString("--xyz\n" + p + "\n")
	}
	b.WriteString("--xyz--\n")
	return []byte(strings.ReplaceAll(b.String(), "\n", "\r\n"))
}

const script = "export default {}\n"

func singles(version string) []string {
	return []string{
		"Content-Type: text/plain\n\nHere is my bot.",
		"Content-Type: application/octet-stream\nContent-Disposition: attachment; filename=bot.toml\nContent-Transfer-Encoding: base64\n\n" +
			base64.StdEncoding.EncodeToString([]byte(manifest(version))),
		"Content-Type: text/javascript; charset=iso-8859-1\nContent-Disposition: attachment; filename=main.js\n\n" + script,
		"Content-Type: application/pgp-signature; name=signature.asc\n\nnot part of the bundle",
	}
}

func TestInstallUpdateUninstall(t *testing.T) {
	h := newHost(t)
	h.want(Result{}, "") // makes the folder
	h.append(pack(t, "1.0.0"))
	h.want(Result{Changed: true, State: Installed}, "1.0.0")
	h.want(Result{}, "1.0.0") // handled once
	h.append(pack(t, "2.0.0"))
	h.want(Result{Changed: true, State: Updated}, "2.0.0")
	h.append(uninstall(t))
	h.want(Result{Changed: true, State: Uninstalled}, "")
	h.append(uninstall(t))
	h.want(Result{State: Uninstalled}, "")
	h.append(pack(t, "2.0.0"))
	h.want(Result{Changed: true, State: Installed}, "2.0.0")
	if got, want := h.states(), []string{Installed, Updated, Uninstalled, Uninstalled, Installed}; !slices.Equal(got, want) {
		t.Errorf("answered %v, want %v", got, want)
	}
}

// Zip and single attachments of the same files are the same bundle, although a mail's text has other line ends.
func TestSingleAttachmentsAreTheSameBundle(t *testing.T) {
	h := newHost(t)
	h.append(pack(t, "1.0.0"))
	h.want(Result{Changed: true, State: Installed}, "1.0.0")
	h.append(draft("my bot", singles("1.0.0")...))
	h.want(Result{State: Installed}, "1.0.0")
}

func TestAttachmentNames(t *testing.T) {
	for disposition, want := range map[string]string{
		`attachment; filename="src/roll.js"`:                  "src/roll.js",
		`attachment; filename*=UTF-8''w%C3%BCrfel.js`:         "würfel.js",
		`attachment; filename*0="a-long-"; filename*1="n.js"`: "a-long-n.js",
		`attachment; filename="=?utf-8?q?w=C3=BCrfel.js?="`:   "würfel.js",
		`inline; filename=in.js`:                              "in.js",
	} {
		m := draft("x", append(singles("1.0.0"), "Content-Disposition: "+disposition+"\n\nx")...)
		req := readRequest(m, bundle.DefaultCeilings())
		if req.bundle == nil {
			t.Errorf("%s: %v", disposition, req.problems)
			continue
		}
		if !slices.ContainsFunc(req.bundle.Files, func(f bundle.File) bool { return f.Path == want }) {
			t.Errorf("%s: no %q in %d files", disposition, want, len(req.bundle.Files))
		}
	}
}

func TestSameAgain(t *testing.T) {
	h := newHost(t)
	h.append(pack(t, "1.0.0"))
	h.process()
	before, err := h.ledger.Bot(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	h.append(pack(t, "1.0.0"))
	h.want(Result{State: Installed}, "1.0.0")
	after, err := h.ledger.Bot(t.Context(), addr)
	if err != nil || !after.Updated.Equal(before.Updated) {
		t.Errorf("installed again at %v, %v", after.Updated, err)
	}
}

func TestRefusals(t *testing.T) {
	zip := "Content-Type: application/zip\n\nPK"
	for name, test := range map[string]struct {
		message []byte
		want    string // in the answer
	}{
		"nothing attached":   {[]byte("Subject: hello\r\n\r\nhello"), "no bundle is attached"},
		"empty":              {[]byte("\r\n"), "no bundle is attached"},
		"two zips":           {draft("x", zip, zip), "2 zips are attached"},
		"broken zip":         {draft("x", zip), "not a readable zip"},
		"zip and files":      {draft("x", zip, "Content-Disposition: attachment; filename=a.js\n\n1"), "a zip and other files are attached"},
		"no manifest":        {draft("x", "Content-Disposition: attachment; filename=main.js\n\n1"), "bot.toml: is missing"},
		"up and out":         {draft("x", append(singles("1"), "Content-Disposition: attachment; filename=\"../x\"\n\n1")...), `../x: ".." in the path`},
		"broken base64":      {draft("x", "Content-Disposition: attachment; filename=a\nContent-Transfer-Encoding: base64\n\n!!"), "cannot be decoded"},
		"odd encoding":       {draft("x", "Content-Disposition: attachment; filename=a\nContent-Transfer-Encoding: uuencode\n\nx"), "unknown transfer encoding"},
		"no boundary":        {[]byte("Content-Type: multipart/mixed\r\n\r\nx"), "without a boundary"},
		"too deep":           {nested(maxNested + 1), "parts inside each other"},
		"too many parts":     {draft("x", slices.Repeat([]string{"\nx"}, maxParts)...), "more than 2000 parts"},
		"code does not load": {pack(t, "1.0.0", bundle.File{Path: "lib.js", Data: []byte("syntax error")}), "lib.js:1:8: expecting ';'"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.append(test.message)
			h.want(Result{State: Refused}, "")
			answers := h.answers()
			if len(answers) != 1 || !strings.Contains(text(t, answers[0]), test.want) {
				t.Errorf("got %s", answers)
			}
		})
	}
}

func nested(depth int) []byte {
	body := "Content-Disposition: attachment; filename=a\n\nx"
	for i := range depth {
		body = fmt.Sprintf("Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n%s\n--b%d--\n", i, i, body, i)
	}
	return []byte(strings.ReplaceAll(body, "\n", "\r\n"))
}

// text decodes the text of an answer, with another reader than the one that wrote it.
func text(t *testing.T, raw []byte) string {
	t.Helper()
	m := parse(t, raw)
	mediaType, _, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || mediaType != "text/plain" || m.Header.Get("Content-Transfer-Encoding") != "quoted-printable" {
		t.Fatalf("%s, %s: %v", mediaType, m.Header.Get("Content-Transfer-Encoding"), err)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestTooLargeMessage(t *testing.T) {
	h := newHost(t)
	h.installer.Ceilings.Total = 1000
	h.append(append([]byte("Subject: x\r\n\r\n"), bytes.Repeat([]byte("x"), 2<<20)...))
	h.want(Result{State: Refused}, "")
	if body := text(t, h.answers()[0]); !strings.Contains(body, "larger than a bundle of 1kB") {
		t.Error(body)
	}
}

// The whole answer to an update with several faults.
func TestRefusedUpdateLeavesTheRunningVersion(t *testing.T) {
	h := newHost(t)
	h.append(pack(t, "1.0.0"))
	h.process()
	parts := singles("2.0.0")
	parts[1] = "Content-Disposition: attachment; filename=bot.toml\n\n" + `name = "Würfel"
version = "2.0.0"
contact = "me"
runtime = "js"
mainn = "main.js"

[limits]
memory = "1GB"`
	h.append(draft("my bot", append(parts, "Content-Disposition: attachment; filename=\"a\\\\b\"\n\nx")...))
	h.want(Result{State: Refused}, "1.0.0")
	got := h.answers()[1]
	const golden = "testdata/refused.eml"
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// The answer to an install shows in an ordinary mail client: text with the link, and a picture.
func TestInstalledAnswer(t *testing.T) {
	h := newHost(t)
	h.append(draft("my bot", singles("1.0.0")...))
	h.process()
	m := parse(t, h.answers()[0])
	for key, want := range map[string]string{
		"From": `"Mayfly" <dice@example.org>`, "To": `"Mayfly" <dice@example.org>`, "Subject": "installed: Dice 1.0.0",
		"Date": "Fri, 01 May 2026 12:00:00 +0000", "In-Reply-To": "<draft-1@example.org>", "References": "<draft-1@example.org>",
		"Auto-Submitted": "auto-replied", "Mayfly-State": "installed",
	} {
		if got := m.Header.Get(key); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	if id := m.Header.Get("Message-Id"); !messageIDPattern.MatchString(id) {
		t.Errorf("Message-ID: %q", id)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	part, err := parts.NextPart()
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(part) // multipart decodes quoted-printable
	if err != nil || !strings.Contains(string(body), invite) || !strings.Contains(string(body), "Do not use this account in a chat or mail app") {
		t.Errorf("%v: %s", err, body)
	}
	part, err = parts.NextPart()
	if err != nil {
		t.Fatal(err)
	}
	if part.FileName() != "invite.png" || !strings.HasPrefix(part.Header.Get("Content-Type"), "image/png") {
		t.Errorf("second part: %v", part.Header)
	}
	picture, err := png.Decode(base64.NewDecoder(base64.StdEncoding, part))
	if err != nil || picture.Bounds().Dx() < 200 {
		t.Errorf("picture: %v", err)
	}
	if _, err := parts.NextPart(); err != io.EOF {
		t.Errorf("a third part: %v", err)
	}
}

func TestNewestWins(t *testing.T) {
	bad := draft("x", "Content-Disposition: attachment; filename=bot.toml\n\nx")
	for name, test := range map[string]struct {
		messages [][]byte
		result   Result
		version  string
		states   []string
		setups   int
	}{
		"two at once":           {[][]byte{pack(t, "1"), pack(t, "2")}, Result{true, Installed}, "2", []string{Installed}, 1},
		"bad after good":        {[][]byte{pack(t, "1"), bad}, Result{true, Installed}, "1", []string{Refused, Installed}, 1},
		"good after bad":        {[][]byte{bad, pack(t, "1")}, Result{true, Installed}, "1", []string{Installed}, 1},
		"uninstall after good":  {[][]byte{pack(t, "1"), uninstall(t)}, Result{false, Uninstalled}, "", []string{Uninstalled}, 0},
		"good after uninstall":  {[][]byte{uninstall(t), pack(t, "1")}, Result{true, Installed}, "1", []string{Installed}, 1},
		"more than a page":      {append(slices.Repeat([][]byte{bad}, pageSize+5), pack(t, "1")), Result{true, Installed}, "1", []string{Installed}, 1},
		"rollback after good":   {[][]byte{pack(t, "1"), pack(t, "2"), rollback(t)}, Result{true, Updated}, "1", []string{Installed, Updated, Updated}, 3},
		"good after rollback":   {[][]byte{rollback(t), pack(t, "1")}, Result{true, Installed}, "1", []string{Refused, Installed}, 1},
		"older than the newest": {append([][]byte{pack(t, "1")}, slices.Repeat([][]byte{bad}, lookedAt)...), Result{false, Refused}, "", slices.Repeat([]string{Refused}, lookedAt), 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.append(test.messages...)
			h.want(test.result, test.version)
			if got := h.states(); !slices.Equal(got, test.states) || h.setups != test.setups {
				t.Errorf("answered %v with %d set-ups, want %v with %d", got, h.setups, test.states, test.setups)
			}
			h.want(Result{}, test.version)
		})
	}
}

func TestVanishedMessagesUninstallNothing(t *testing.T) {
	h := newHost(t)
	h.append(pack(t, "1.0.0"))
	h.process()
	if err := h.mailbox.Delete(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	h.want(Result{}, "1.0.0")
	h.removeFolder()
	h.createFolder(Folder) // before anybody looked: its UIDVALIDITY is another, its UIDs begin at 1 again
	h.want(Result{}, "1.0.0")
	h.append(pack(t, "2.0.0"))
	h.want(Result{Changed: true, State: Updated}, "2.0.0")
}

// vanishing is a mailbox whose newest message disappears between the look and the fetch.
type vanishing struct{ Mailbox }

func (v vanishing) Fetch(ctx context.Context, uid uint32, max int64) ([]byte, error) {
	if uid == 2 {
		return nil, fmt.Errorf("fetch: %w", mailbox.ErrVanished)
	}
	return v.Mailbox.Fetch(ctx, uid, max)
}

func TestVanishedBeforeFetch(t *testing.T) {
	h := newHost(t)
	h.append(pack(t, "1.0.0"), pack(t, "2.0.0"))
	result, err := h.installer.Process(t.Context(), addr, vanishing{h.mailbox})
	if err != nil || result != (Result{true, Installed}) || h.version() != "1.0.0" {
		t.Errorf("%+v, %v, version %s", result, err, h.version())
	}
}

// The bundle before the installed one is kept, older ones are not.
func TestOldBundlesAreSwept(t *testing.T) {
	h := newHost(t)
	var digests []string
	for _, version := range []string{"1", "2", "3"} {
		h.append(pack(t, version))
		h.want(Result{true, map[bool]string{true: Installed, false: Updated}[version == "1"]}, version)
		b, err := h.ledger.Bot(t.Context(), addr)
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, b.Digest)
	}
	for i, there := range []bool{false, true, true} {
		if err := h.store.ExportBundle(addr, digests[i], io.Discard); (err == nil) != there {
			t.Errorf("bundle of version %d: %v", i+1, err)
		}
	}
}

// Foreign Message-IDs do not get into the answer's header when they could end a line of it.
func TestHostileMessageID(t *testing.T) {
	h := newHost(t)
	h.append([]byte("Message-ID: <a@b>\r\n Mayfly-State: installed\r\nSubject: uninstall\r\n\r\n"))
	h.process()
	if m := parse(t, h.answers()[0]); m.Header.Get("In-Reply-To") != "" || len(m.Header["Mayfly-State"]) != 1 {
		t.Errorf("got %v", m.Header)
	}
}

func TestSubjectUninstall(t *testing.T) {
	for subject, want := range map[string]bool{
		"uninstall": true, "Uninstall": true, "  UNINSTALL ": true, "=?utf-8?q?uninstall?=": true,
		"": false, "Re: uninstall": false, "uninstall it": false,
	} {
		if got := readRequest([]byte("Subject: "+subject+"\r\n\r\n"), bundle.DefaultCeilings()).uninstall; got != want {
			t.Errorf("%q: %v", subject, got)
		}
	}
}

func TestSubjectRollback(t *testing.T) {
	for subject, want := range map[string]bool{"rollback": true, " RollBack": true, "Re: rollback": false, "roll back": false} {
		if got := readRequest([]byte("Subject: "+subject+"\r\n\r\n"), bundle.DefaultCeilings()).rollback; got != want {
			t.Errorf("%q: %v", subject, got)
		}
	}
}

func TestBrokenHeader(t *testing.T) {
	for message, want := range map[string]string{
		"not a header\r\n\r\n":        "the header cannot be read",
		" Subject: uninstall\r\n\r\n": "the header cannot be read",
		"Subject: x":                  "no bundle is attached", // a mail may end with its header
	} {
		req := readRequest([]byte(message), bundle.DefaultCeilings())
		if len(req.problems) != 1 || !strings.Contains(req.problems.Error(), want) {
			t.Errorf("%q: %v", message, req.problems)
		}
	}
}

func FuzzReadRequest(f *testing.F) {
	f.Add(draft("my bot", singles("1.0.0")...))
	f.Add([]byte("Subject: uninstall\r\n\r\n"))
	f.Add(nested(3))
	f.Add(draft("x", "Content-Type: application/zip\n\nPK"))
	f.Add(withSecrets("1", "password = \"x\"\nsecret_key = \"key.asc\"", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nxA==\n-----END PGP PRIVATE KEY BLOCK-----\n"))
	f.Add(draft("x", "Content-Disposition: attachment; filename*0*=utf-8''a%; filename*2=b\nContent-Transfer-Encoding: quoted-printable\n\n=x"))
	c := bundle.DefaultCeilings()
	c.File, c.Total = 10_000, 20_000
	f.Fuzz(func(t *testing.T, data []byte) {
		req := readRequest(data, c)
		kinds := 0
		for _, is := range []bool{req.uninstall, req.rollback, req.bundle != nil, len(req.problems) > 0} {
			if is {
				kinds++
			}
		}
		if kinds != 1 {
			t.Fatalf("the request is %d things: %+v", kinds, req)
		}
		if req.bundle != nil && slices.ContainsFunc(req.bundle.Files, func(f bundle.File) bool { return f.Path == bundle.AccountName }) {
			t.Fatal("a password became part of the bundle")
		}
		out := outcome{state: Refused, problems: req.problems}
		raw, err := out.compose(addr, req, ledger.Cursor{}, time.Unix(0, 0))
		if err != nil {
			t.Fatal(err)
		}
		m, err := mail.ReadMessage(bytes.NewReader(raw))
		if err != nil || len(m.Header["Mayfly-State"]) != 1 {
			t.Fatalf("the answer cannot be read: %v\n%s", err, raw)
		}
	})
}
