package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/core"
	"mayfly/internal/install"
	"mayfly/internal/mailbox"
	"mayfly/internal/minirelay"
	"mayfly/internal/session"
	"mayfly/internal/user"
)

const demoDomain = "relay.test"

// demoRun is one run of `mayfly demo`: a relay, a host, an author, a user.
type demoRun struct {
	std      stdio
	core     string
	dir      string
	bundle   *bundle.Bundle
	from     string // where the bundle comes from
	imap     string // host:port
	smtp     string
	relay    *minirelay.Relay
	host     *host
	outcomes chan session.Outcome
	author   mailbox.Login
	user     *user.User
	chat     core.ChatID
}

// demo shows the main job with nothing but real parts.
func demo(ctx context.Context, args []string, std stdio) (err error) {
	flags := newFlags("demo", std)
	keep := flags.Bool("keep", false, "stay up and talk to the bot in the terminal")
	corePath := flags.String("core", "", "the `path` of deltachat-rpc-server (default: the configuration's)")
	sandboxPath := flags.String("sandbox", "", "the `path` of mayfly-sandbox (default: beside mayfly)")
	path := flags.String("bot", "", "a `folder or zip` with another bot than examples/dice")
	text := flags.String("say", "2d6", "what the user writes to the bot")
	verbose := flags.Bool("v", false, "print the host's log")
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	b, from, err := demoBundle(*path)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mayfly-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d := &demoRun{std: std, core: either(*corePath, defaultConfig().Core), dir: dir, bundle: b, from: from, outcomes: make(chan session.Outcome, 100)}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	closeAll, err := d.start(ctx, either(*sandboxPath, besideSelf("mayfly-sandbox")), *verbose)
	defer func() { cancel(); err = errors.Join(err, closeAll()) }()
	if err != nil {
		return err
	}
	return d.show(ctx, *text, *keep)
}

// demoBundle is the bundle at path, or examples/dice.
func demoBundle(path string) (b *bundle.Bundle, from string, err error) {
	if path == "" {
		b, err = exampleDice()
		return b, "examples/dice", err
	}
	b, err = readBundle(path, bundle.DefaultCeilings())
	return b, path, err
}

func besideSelf(name string) string {
	self, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(self), name)
}

// start brings up the relay and the host. The function that it returns ends what was started; it is never nil.
func (d *demoRun) start(ctx context.Context, sandboxPath string, verbose bool) (func() error, error) {
	cfg, err := d.config(sandboxPath)
	if err != nil {
		return func() error { return nil }, err
	}
	log := slog.New(slog.DiscardHandler)
	if verbose {
		log = newLogger(logConfig{Level: "debug"}, d.std.err)
	}
	if err := d.startRelay(ctx, &cfg, log); err != nil {
		return func() error { return nil }, err
	}
	began := time.Now()
	d.host, err = openHost(ctx, cfg, log, func(o session.Outcome) { d.outcomes <- o })
	if err != nil {
		return d.relay.Close, err
	}
	ended := make(chan error, 1)
	go func() { ended <- d.host.Run(ctx) }()
	d.say("host      every wall of the sandbox tried and in force, in %s", since(began))
	return func() error {
		return errors.Join(d.closeUser(), <-ended, d.host.Close(), d.relay.Close())
	}, nil
}

func (d *demoRun) closeUser() error {
	if d.user == nil {
		return nil
	}
	return d.user.Close()
}

func (d *demoRun) config(sandboxPath string) (config, error) {
	cfg := defaultConfig()
	cfg.State, cfg.Core, cfg.Sandbox = filepath.Join(d.dir, "state"), d.core, sandboxPath
	cfg.Relay.MasterPasswordFile = filepath.Join(d.dir, "master-password")
	return cfg, os.WriteFile(cfg.Relay.MasterPasswordFile, []byte(rand.Text()), 0o600)
}

// startRelay serves the embedded relay on loopback; what it tells of Bot folders goes to the host.
func (d *demoRun) startRelay(ctx context.Context, cfg *config, log *slog.Logger) error {
	password, err := cfg.Relay.masterPassword()
	if err != nil {
		return err
	}
	d.relay = minirelay.NewRelay(minirelay.RelayConfig{
		Domain: demoDomain, MasterUser: cfg.Relay.MasterUser, MasterPassword: password, Log: log,
		OnChange: func(account bot.Address, folder string, _ uint32) {
			if folder == install.Folder {
				d.announce(ctx, account)
			}
		},
	})
	imap, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	smtp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return errors.Join(err, imap.Close())
	}
	go func() { d.logServe(log, d.relay.ServeIMAP(imap)) }()
	go func() { d.logServe(log, d.relay.ServeSMTP(smtp)) }()
	d.imap, d.smtp = imap.Addr().String(), smtp.Addr().String()
	cfg.Relay.IMAP, cfg.Relay.SMTP = d.imap, d.smtp
	d.say("relay     takes IMAP on %s, submission on %s, OpenPGP mail only", d.imap, d.smtp)
	return nil
}

func (d *demoRun) announce(ctx context.Context, account bot.Address) {
	if err := d.host.Announce(ctx, account); err != nil {
		d.host.log.Warn("account not watched", "account", account, "err", err)
	}
}

func (d *demoRun) logServe(log *slog.Logger, err error) {
	if err != nil {
		log.Debug("relay", "err", err)
	}
}

// show goes through the acts of the demo.
func (d *demoRun) show(ctx context.Context, text string, keep bool) error {
	ctx2, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	invite, err := d.install(ctx2)
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	if err := d.join(ctx2, invite); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	if err := d.ask(ctx2, text); err != nil {
		return fmt.Errorf("asking the bot: %w", err)
	}
	if !keep {
		return nil
	}
	return d.talk(ctx)
}

// install does what an author does: log in to a new account and append the bundle to its Bot folder.
func (d *demoRun) install(ctx context.Context) (invite string, err error) {
	address := bot.Address("bot" + strings.ToLower(rand.Text()[:6]) + "@" + demoDomain)
	d.author = mailbox.Login{Username: string(address), Password: rand.Text()}
	mail, err := install.Compose(d.bundle, address)
	if err != nil {
		return "", err
	}
	began := time.Now()
	client, err := mailbox.Dial(ctx, mailbox.Server{Addr: d.imap, TLS: "plain"}, d.author)
	if err != nil {
		return "", err
	}
	defer client.Close()
	if err := client.Append(ctx, install.Folder, mail); err != nil {
		return "", err
	}
	d.say("author    appended %s to the folder %s of %s", d.from, install.Folder, address)
	invite, err = d.awaitInvite(ctx, client)
	if err != nil {
		return "", err
	}
	d.say("bot       installed in %s; the answer in %s has its invite link:\n", since(began), install.StatusFolder)
	fmt.Fprintln(d.std.out, terminalQR(invite))
	d.say("%s\n", invite)
	return invite, nil
}

// awaitInvite reads the host's answer as the author would.
func (d *demoRun) awaitInvite(ctx context.Context, client *mailbox.Client) (string, error) {
	for {
		if _, err := client.Select(ctx, install.StatusFolder); err == nil {
			waiting, err := client.List(ctx, 0, 10)
			if err != nil {
				return "", err
			}
			for _, m := range waiting {
				mail, err := client.Fetch(ctx, m.UID, 1<<20)
				if err != nil {
					return "", err
				}
				return inviteIn(mail)
			}
		} else if !errors.Is(err, mailbox.ErrNoFolder) {
			return "", err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return "", fmt.Errorf("no answer in %s: %w", install.StatusFolder, ctx.Err())
		}
	}
}

func inviteIn(mail []byte) (string, error) {
	status, err := readStatus(mail)
	if err != nil {
		return "", err
	}
	if status.invite == "" {
		return "", fmt.Errorf("the bundle was %s:\n%s", status.state, status.text)
	}
	return status.invite, nil
}

// join starts the user's core and accepts the invite.
func (d *demoRun) join(ctx context.Context, invite string) error {
	host, imapPort, err := hostPort(d.imap)
	if err != nil {
		return err
	}
	_, smtpPort, err := hostPort(d.smtp)
	if err != nil {
		return err
	}
	began := time.Now()
	d.user, err = user.Start(ctx, d.core, filepath.Join(d.dir, "user"), "Ada", core.Transport{
		Addr: "ada" + strings.ToLower(rand.Text()[:6]) + "@" + demoDomain, Password: rand.Text(),
		IMAPServer: host, IMAPPort: imapPort, SMTPServer: host, SMTPPort: smtpPort,
	})
	if err != nil {
		return err
	}
	d.chat, err = d.user.Join(ctx, invite)
	if err != nil {
		return err
	}
	d.say("user      a second core made an account and joined by the invite (securejoin v3), in %s", since(began))
	return nil
}

// ask sends one text and prints the reply and the life of the mail.
func (d *demoRun) ask(ctx context.Context, text string) error {
	for len(d.outcomes) > 0 {
		<-d.outcomes
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if _, err := d.user.Say(ctx, d.chat, text); err != nil {
		return err
	}
	replies := make(chan reply, 1)
	go func() {
		m, err := d.user.Next(ctx)
		replies <- reply{m, time.Now(), err}
	}()
	run, err := d.run(ctx)
	if err != nil {
		return err
	}
	r := <-replies
	if r.err != nil {
		return r.err
	}
	if !r.Authentic() {
		return errors.New("the reply came without valid encryption")
	}
	d.say("user      says %q\nbot       says %q (end-to-end encrypted)\n", text, r.Text)
	d.printLife(run, r.at)
	return nil
}

// reply is what the user's app showed, and when.
type reply struct {
	core.Message
	at  time.Time
	err error
}

// run waits for the end of the bot's run, which is an error if the bot failed.
func (d *demoRun) run(ctx context.Context) (session.Outcome, error) {
	for {
		select {
		case o := <-d.outcomes:
			switch {
			case o.Run == nil:
			case o.Run.Status != bot.RunOK:
				return o, fmt.Errorf("the bot failed: %s\n%s", o.Run.Message, o.Run.Log)
			default:
				return o, nil
			}
		case <-ctx.Done():
			return session.Outcome{}, ctx.Err()
		}
	}
}

// printLife prints the stages of a mail, from the wake to the reply at the user.
func (d *demoRun) printLife(o session.Outcome, reply time.Time) {
	marks := append(o.Timeline.Marks(), session.Mark{Stage: "reply at the user", At: reply})
	wake := marks[0].At
	d.say("The life of that mail, in ms since the wake:")
	for _, m := range marks {
		d.say("  %-18s %7.1f", m.Stage, float64(m.At.Sub(wake).Microseconds())/1000)
	}
	d.say("\n  %-18s %7s %14s", "", "CPU s", "peak memory MB")
	d.say("  %-18s %7.3f %14.1f", "bot", o.Run.CPU.Seconds(), float64(o.Run.Memory)/1e6)
	d.say("  %-18s %7.3f %14.1f", "core", o.Core.CPU.Seconds(), float64(o.Core.Memory)/1e6)
}

// talk lets the person at the terminal write to the bot until the input ends, and then waits for what is under way.
func (d *demoRun) talk(ctx context.Context) error {
	d.say("\nWrite to the bot, a line a message; end with ctrl-D.")
	lines, replies := make(chan string), make(chan string)
	go readLines(d.std.in, lines)
	go d.hear(ctx, replies)
	asked := 0 // messages that no session has answered yet
	var patience <-chan time.Time
	for lines != nil || asked > 0 || patience != nil {
		select {
		case line, ok := <-lines:
			if !ok {
				lines, patience = nil, time.After(time.Duration(min(asked, 1))*15*time.Second)
			} else if strings.TrimSpace(line) != "" {
				if _, err := d.user.Say(ctx, d.chat, line); err != nil {
					return err
				}
				asked++
			}
		case o := <-d.outcomes:
			if o.Run == nil {
				continue
			}
			if o.Run.Status != bot.RunOK {
				d.say("(the bot failed: %s)", o.Run.Message)
			}
			if asked--; lines == nil && asked == 0 { // its reply is on the way
				patience = time.After(time.Second)
			}
		case text := <-replies:
			d.say("bot: %s", text)
		case <-patience:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

func (d *demoRun) hear(ctx context.Context, replies chan<- string) {
	for {
		m, err := d.user.Next(ctx)
		if err != nil {
			return
		}
		select {
		case replies <- m.Text:
		case <-ctx.Done():
			return
		}
	}
}

func readLines(r io.Reader, lines chan<- string) {
	defer close(lines)
	for s := bufio.NewScanner(r); s.Scan(); {
		lines <- s.Text()
	}
}

func (d *demoRun) say(format string, args ...any) { fmt.Fprintf(d.std.out, format+"\n", args...) }

func since(t time.Time) string { return time.Since(t).Round(time.Millisecond).String() }

func hostPort(address string) (string, uint16, error) {
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return "", 0, err
	}
	return a.IP.String(), uint16(a.Port), nil
}
