package session

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"mayfly/internal/bot"
	"mayfly/internal/gateway"
	"mayfly/internal/letter"
	"mayfly/internal/minirelay"
	"mayfly/internal/sandbox"
)

// mailClient runs bots that bring their own client of IMAP and SMTP: a minirelay within their sandbox is their provider. Its INBOX holds
// the run's message, as a mail that is not encrypted, or nothing where they are run for a schedule, and what they submit becomes messages
// of core's. When they have gone quiet they are ended.
type mailClient struct {
	furnisher   func(spec *sandbox.Spec, m bot.Manifest) error
	certificate tls.Certificate
}

// The ports of the bot's provider beside those that core's has, too (25 is where programs look that are told of no other), and the file
// with the authority that signed its certificate.
const (
	imapsPort = 993
	smtpsPort = 465
	localPort = 25
	caPath    = shimDir + "/ca.pem"
)

// The bounds of what a bot submits: maxFiled is room for the largest file that the gateway takes, in base64.
const (
	maxFiled      = 30 << 20
	maxFiledTotal = 90 << 20
	maxTo         = 20 // recipients of one mail
)

func (mc *mailClient) furnish(spec *sandbox.Spec, m bot.Manifest) error {
	if err := mc.furnisher(spec, m); err != nil {
		return err
	}
	spec.Dirs = append(spec.Dirs, sandbox.Dir{Path: shimDir, Size: 16 << 10, Inodes: 10})
	spec.Listen = []uint16{imapPort, smtpPort, imapsPort, smtpsPort, localPort}
	main := &spec.Programs[0]
	main.Env = append(main.Env, "PYTHONUNBUFFERED=1", "SSL_CERT_FILE="+caPath, "NODE_EXTRA_CA_CERTS="+caPath,
		"MAYFLY_IMAP_HOST=localhost", "MAYFLY_IMAP_PORT="+strconv.Itoa(imapPort), "MAYFLY_IMAPS_PORT="+strconv.Itoa(imapsPort),
		"MAYFLY_SMTP_HOST=localhost", "MAYFLY_SMTP_PORT="+strconv.Itoa(smtpPort), "MAYFLY_SMTPS_PORT="+strconv.Itoa(smtpsPort))
	return nil
}

// ready lays down the authority that the bot's TLS has to trust.
func (mc *mailClient) ready(p *program) error {
	certificate, authority, err := minirelay.NewCertificate()
	if err != nil {
		return err
	}
	mc.certificate = certificate
	return p.box.PutFile(caPath, int64(len(authority)), bytes.NewReader(authority))
}

func (mc *mailClient) run(ctx context.Context, p *program, c *coreSide, o occasion, timeline *Timeline) (finish, error) {
	ctx, cancel := context.WithTimeout(ctx, p.bot.Manifest.Limits.Wall)
	defer cancel()
	m, err := p.receive(ctx, c, o)
	if err != nil {
		return finish{}, err
	}
	sender, _ := bot.ParseAddress(m.contact.Address) // "" where no mail could be sent to it
	password := rand.Text()
	files := &filed{core: c.box}
	options := p.gatewayOptions(c, o, files)
	g := gateway.New(options)
	p.asked = g.Asked
	post := &post{
		ctx: ctx, g: g, files: files, limits: letter.DefaultLimits(), occasion: o, chat: m.chat.Type,
		sender: sender, chats: map[bot.Address]uint32{},
	}
	post.limits.File = int(options.Limits.File)
	relay := minirelay.NewPrivate(minirelay.PrivateConfig{
		Address: p.bot.Address, UIDValidity: p.bot.UIDValidity, UIDNext: 2*c.relay.UIDNext() - 1, // one for now, and one for Renew
		MaxMail: maxFiled, MaxTotal: maxFiledTotal, MaxRecipients: maxTo, Log: p.r.Log,
		Bot: &minirelay.BotClient{Password: password, Certificate: mc.certificate, Submission: post},
	})
	env := append(m.env(p.bot.Manifest.Limits.Wall), "MAYFLY_MAIL_USER="+string(p.bot.Address), "MAYFLY_MAIL_PASSWORD="+password)
	v := &visit{p: p, relay: relay, scheduled: o.schedule != nil}
	if !v.scheduled {
		mail, err := m.mime()
		if err != nil {
			return finish{}, err
		}
		v.uid = relay.Present(mail)
	}
	return v.run(ctx, cancel, c, env, timeline)
}

// visit is one run of a bot with its own mail client.
type visit struct {
	p     *program
	relay *minirelay.Private
	uid   uint32 // of the message

	scheduled bool // there is no message
}

// looked reports whether the bot has looked at its message, where it has one.
func (v *visit) looked() bool { return v.scheduled || v.relay.Looked() }

func (v *visit) run(ctx context.Context, cancel func(), c *coreSide, env []string, timeline *Timeline) (finish, error) {
	p := v.p
	var servers errgroup.Group
	servers.Go(func() error { return v.relay.ServeIMAP(p.box.Listener(imapPort)) })
	servers.Go(func() error { return v.relay.ServeSMTP(p.box.Listener(smtpPort)) })
	servers.Go(func() error { return v.relay.ServeSMTP(p.box.Listener(localPort)) })
	servers.Go(func() error { return v.relay.ServeIMAPS(p.box.Listener(imapsPort)) })
	servers.Go(func() error { return v.relay.ServeSMTPS(p.box.Listener(smtpsPort)) })
	var tasks sync.WaitGroup
	hangUp := func() {
		cancel() // what it asks of core ends, and then its connections
		_ = v.relay.Close()
		_ = servers.Wait() // a listener that failed shows in how the bot ends
		tasks.Wait()
	}
	defer hangUp()
	if err := p.box.Start(programName, env...); err != nil {
		return finish{}, err
	}
	timeline.Mark("handler")
	stdio := p.box.Program(programName)
	_ = stdio.Stdin.Close() // a daemon reads nothing
	var printed sync.WaitGroup
	printed.Go(func() { p.log.also(stdio.Stdout, func() { _ = p.box.Kill() }) })
	tasks.Go(func() { c.countLost(ctx) })

	exit, own, trouble := v.attend(ctx, timeline)
	looked := v.looked()
	hangUp()
	printed.Wait()
	if p.log.flooded() {
		trouble = errOutput
	}
	return v.finish(signalled(exit), own, looked, trouble), nil
}

// countLost reads core's events while a bot runs that gets to see none.
func (c *coreSide) countLost(ctx context.Context) {
	for {
		select {
		case e, ok := <-c.events:
			if !ok {
				return
			}
			c.count(e)
		case <-ctx.Done():
			return
		}
	}
}

// attend waits until the bot is quiet and ends it, or until it ends by itself (own), or at ctx's end.
func (v *visit) attend(ctx context.Context, timeline *Timeline) (exit sandbox.Exit, own bool, trouble error) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		exit, trouble = v.p.wait(ctx)
	}()
	since, quiet := v.quiet(ctx, ended)
	if !quiet {
		<-ended
		return exit, true, trouble
	}
	timeline.MarkAt("quiet", since)
	err := v.p.stop(ended)
	return exit, false, cmp.Or(err, trouble)
}

// quiet waits until the bot has looked at its message, is not about to submit anything, and has used no CPU time for its grace, and
// returns since when that is so. Who waits in IDLE again has done what was to do, and has a third of the grace. The message comes anew,
// once, for a bot that is quiet without having looked: it may only care for what comes while it is there.
func (v *visit) quiet(ctx context.Context, ended <-chan struct{}) (since time.Time, quiet bool) {
	grace := v.p.bot.Manifest.Resident.Grace
	look := grace / looksInGrace
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	var used time.Duration
	renewed := false
	since = time.Now()
	for {
		select {
		case <-ended:
			return since, false
		case <-ctx.Done():
			return since, false
		case <-ticker.C:
		}
		now, before := time.Now(), used
		var err error
		if used, err = v.p.box.Usage(); err != nil {
			return since, false // it is dead, and its end tells why
		}
		if v.relay.Submitting() || used-before > look/idleShare {
			since = now
		}
		calm := now.Sub(since)
		switch {
		case v.looked() && (calm >= grace || v.relay.Settled() && calm >= grace/3):
			return since, true
		case !v.looked() && calm >= grace && !renewed:
			renewed = v.relay.Renew(v.uid)
		}
	}
}

// finish judges how the bot ended. One that was quiet, and so was ended by us, is well.
func (v *visit) finish(exit sandbox.Exit, own, looked bool, trouble error) finish {
	end := finish{exit: exit, trouble: trouble}
	switch {
	case trouble == nil && !own:
		return finish{status: bot.RunOK}
	case trouble == nil && !looked && exit == sandbox.Exit{}:
		end.status, end.message = bot.RunError, bounded("the bot ended before it looked at its message, which is in the INBOX\n"+v.p.log.last())
	case trouble == nil:
		end.status, end.message = v.p.pipeStatus(exit)
	case errors.Is(trouble, context.DeadlineExceeded) && !looked:
		end.status = bot.RunTimeout
		end.message = bounded("the bot did not look at its message, by IMAP at $MAYFLY_IMAP_HOST, within [limits] wall\n" + v.p.log.last())
	}
	return end
}

// mime is the message as a mail that is not encrypted.
func (m mailMessage) mime() ([]byte, error) {
	var mail bytes.Buffer
	mail.Grow(len(m.data)*7/5 + len(m.msg.Text) + 4096)
	m.chatFields = true
	if err := m.write(&mail); err != nil {
		return nil, fmt.Errorf("the message as a mail: %w", err)
	}
	return mail.Bytes(), nil
}
