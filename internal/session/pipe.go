package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/emersion/go-message/mail"

	"mayfly/internal/bot"
	"mayfly/internal/core"
	"mayfly/internal/sandbox"
)

// pipe runs programs that take a message on stdin, as a MIME message, and print the reply, as procmail and CGI do. Their exit
// codes are those of sysexits.h.
type pipe struct {
	furnisher func(spec *sandbox.Spec, m bot.Manifest) error
	shell     bool // a signal that ends the program shows as exit code 128 and its number, as shells and bubblewrap do
}

// maxOutput bounds what a program may print, and maxReply what can be sent as one text, in bytes.
const (
	maxOutput = 1 << 20
	maxReply  = 100_000
)

// errOutput says that a program printed or logged more than it may.
var errOutput = errors.New("killed: the program wrote more than 1 MB to its output or its log")

// native furnishes a sandbox for a program of the host's or of the bundle.
func native(interpreters map[string]string) func(*sandbox.Spec, bot.Manifest) error {
	return func(spec *sandbox.Spec, m bot.Manifest) error {
		executable, err := executableOf(m, interpreters)
		if err != nil {
			return err
		}
		spec.System = true
		spec.Dirs[0].Exec = true // the bundle: programs, and libraries of the interpreters
		spec.Programs = []sandbox.Program{{
			Name: programName, Path: executable, Profile: sandbox.ProfileNative, Args: m.Command[1:], Dir: bundleDir,
			Env: append(pipeEnv(m), "PATH="+searchPath(m), "PYTHONDONTWRITEBYTECODE=1", "PYTHONPATH="+bundleDir+"/site-packages",
				fmt.Sprintf("NODE_OPTIONS=--max-old-space-size=%d", heap(m.Limits.Memory)>>20)), // so that a script sees that it is out of memory
		}}
		return nil
	}
}

func searchPath(m bot.Manifest) string {
	const host = "/usr/local/bin:/usr/bin:/bin"
	if m.Mode == bot.ModeResident {
		return shimDir + ":" + host
	}
	return host
}

func executableOf(m bot.Manifest, interpreters map[string]string) (string, error) {
	if len(m.Command) == 0 {
		return "", errors.New("the manifest of this native bot has no command: install it anew")
	}
	name := m.Command[0]
	if found, ok := interpreters[name]; ok {
		return found, nil
	}
	if strings.HasPrefix(name, "/") || path.Clean(name) == ".." || strings.HasPrefix(path.Clean(name), "../") {
		return "", fmt.Errorf("the command %q of this bot lies outside of its bundle: install it anew", name)
	}
	return path.Join(bundleDir, name), nil
}

// wasm furnishes a sandbox for a WASI module that was compiled at install.
func wasm(spec *sandbox.Spec, m bot.Manifest) error {
	spec.Dirs = append(spec.Dirs, sandbox.Dir{Path: compiledDir, Size: maxCompiled, Inodes: 100})
	spec.Programs = []sandbox.Program{{
		Name: programName, Builtin: "wasm", Profile: sandbox.ProfileWASM, Dir: tmpDir,
		Args: []string{m.Main, strconv.FormatInt(heap(m.Limits.Memory), 10)}, Env: pipeEnv(m),
	}}
	return nil
}

// pipeEnv is what every run of the bot has in its environment.
func pipeEnv(m bot.Manifest) []string {
	return []string{"HOME=" + storageDir, "TMPDIR=" + tmpDir, "USER=nobody", "LOGNAME=nobody", "LANG=C.UTF-8", "TZ=UTC",
		"MAYFLY_BOT_NAME=" + m.Name, "MAYFLY_BOT_VERSION=" + m.Version}
}

func (pp *pipe) furnish(spec *sandbox.Spec, m bot.Manifest) error { return pp.furnisher(spec, m) }

// ready has nothing to do: the program's environment tells of the message, so it is started with it.
func (pp *pipe) ready(*program) error { return nil }

func (pp *pipe) run(ctx context.Context, p *program, c *coreSide, o occasion, timeline *Timeline) (finish, error) {
	session := ctx
	ctx, cancel := context.WithTimeout(ctx, p.bot.Manifest.Limits.Wall)
	defer cancel()
	m, err := p.receive(ctx, c, o)
	if err != nil {
		return finish{}, err
	}
	if err := p.box.Start(programName, m.env(p.bot.Manifest.Limits.Wall)...); err != nil {
		return finish{}, err
	}
	timeline.Mark("handler")
	stdio := p.box.Program(programName)
	go func() {
		_ = m.write(stdio.Stdin) // a program need not read it all, or any of it
		_ = stdio.Stdin.Close()
	}()
	printed := make(chan output, 1)
	go func() {
		out := readOutput(stdio.Stdout)
		if out.err != nil {
			cancel() // which ends the program
		}
		printed <- out
	}()
	exit, trouble := p.wait(ctx)
	out := <-printed
	if pp.shell {
		exit = signalled(exit)
	}
	end := finish{exit: exit, trouble: cmp.Or(out.err, trouble)}
	if end.trouble != nil {
		return end, nil
	}
	<-p.log.ended // the program's end was that of all its processes
	end.status, end.message = p.pipeStatus(end.exit)
	if end.status != bot.RunOK {
		return end, nil
	}
	if o.schedule != nil {
		return p.post(session, c, o, end, out.text)
	}
	return p.reply(session, c, o, end, out.text)
}

// output is what a program printed, or why it was not read to its end.
type output struct {
	text string
	err  error
}

func readOutput(r io.Reader) output {
	out, err := io.ReadAll(io.LimitReader(r, maxOutput+1))
	switch {
	case len(out) > maxOutput:
		return output{err: errOutput}
	case err != nil:
		return output{err: fmt.Errorf("the program's output: %w", err)}
	}
	return output{text: string(out)}
}

// signalled gives the signal that an exit code stands for.
func signalled(exit sandbox.Exit) sandbox.Exit {
	if exit.Code > 128 && exit.Code <= 128+64 {
		return sandbox.Exit{Signal: syscall.Signal(exit.Code - 128)}
	}
	return exit
}

// pipeStatus judges an exit; a signal is left to explain, which knows whether a limit sent it.
func (p *program) pipeStatus(exit sandbox.Exit) (bot.RunStatus, string) {
	switch {
	case exit == sandbox.Exit{}:
		return bot.RunOK, ""
	case exit.Signal == 0:
		return bot.RunError, bounded(fmt.Sprintf("exit code %d%s\n%s", exit.Code, sysexit(exit.Code), p.log.last()))
	}
	return "", ""
}

// sysexit says what a code of sysexits.h means.
func sysexit(code int) string {
	meanings := map[int]string{
		64: "usage", 65: "bad data", 66: "no input", 67: "no such user", 68: "no such host", 69: "unavailable", 70: "internal error",
		71: "system error", 72: "system file missing", 73: "cannot create output", 74: "input or output failed", 76: "protocol error",
		77: "no permission", 78: "configuration error", sandbox.ExitNotRun: "it could not be run",
	}
	if m, ok := meanings[code]; ok {
		return " (" + m + ")"
	}
	return ""
}

// reply sends what the program printed.
func (p *program) reply(ctx context.Context, c *coreSide, o occasion, f finish, printed string) (finish, error) {
	text := strings.TrimSpace(strings.ToValidUTF8(printed, "\uFFFD"))
	switch {
	case text == "":
		return f, nil
	case len(text) > maxReply:
		f.status, f.message = bot.RunError, fmt.Sprintf("the reply has %d bytes, a message takes at most %d: print less", len(text), maxReply)
		return f, nil
	}
	p.asked = func() string { return "send_msg" }
	_, err := c.client.SendMsg(ctx, c.account, o.msg.ChatID, core.MessageData{Text: text})
	return f, err
}

// mailMessage is a message as a pipe's program gets it. Of a schedule's run it has nothing to read.
type mailMessage struct {
	schedule   *Schedule
	bot        bot.Address
	id         string
	sender     bot.Fingerprint
	msg        core.Message
	contact    core.Contact
	chat       core.Chat
	attachment string // where the program can open it; "" without one
	data       []byte // of the attachment
	chatFields bool   // the mail says of the chat what else only the environment does
}

// receive collects what the program is to know of the message, and lays the attachment before it.
func (p *program) receive(ctx context.Context, c *coreSide, o occasion) (mailMessage, error) {
	m := mailMessage{schedule: o.schedule, bot: p.bot.Address, id: o.id, sender: o.sender, msg: o.msg}
	if o.schedule != nil {
		return m, p.box.Seal(attachmentsDir)
	}
	var err error
	if m.contact, err = c.client.Contact(ctx, c.account, o.msg.FromID); err != nil {
		return m, err
	}
	if m.chat, err = c.client.BasicChat(ctx, c.account, o.msg.ChatID); err != nil {
		return m, err
	}
	if o.msg.File != "" {
		files := newFiles(c, p)
		if m.attachment, m.data, err = files.show(o.msg, o.msg.FileName); err != nil {
			return m, err
		}
	}
	return m, p.box.Seal(attachmentsDir)
}

// env is what procmail gives to its programs, and what there is to know besides.
func (m mailMessage) env(wall time.Duration) []string {
	deadline := "MAYFLY_DEADLINE=" + strconv.FormatInt(time.Now().Add(wall).Unix(), 10)
	if m.schedule != nil {
		return append(m.schedule.env(), "RECIPIENT="+string(m.bot), deadline)
	}
	env := []string{
		"SENDER=" + oneLine(m.contact.Address), "RECIPIENT=" + string(m.bot), "MESSAGE_ID=<" + oneLine(m.id) + ">",
		"MAYFLY_SENDER_NAME=" + oneLine(m.contact.DisplayName), "MAYFLY_SENDER_FINGERPRINT=" + string(m.sender),
		"MAYFLY_CHAT_ID=" + strconv.FormatUint(uint64(m.msg.ChatID), 10), "MAYFLY_CHAT_NAME=" + oneLine(m.chat.Name),
		"MAYFLY_CHAT_TYPE=" + strings.ToLower(oneLine(m.chat.Type)),
		deadline,
	}
	if m.attachment != "" {
		env = append(env, "MAYFLY_ATTACHMENT="+m.attachment)
	}
	return env
}

// oneLine makes foreign text fit for a variable or a header.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	return s[:min(len(s), 1000)]
}

// write is the message in MIME: one part of text, and the attachment if there is one.
func (m mailMessage) write(w io.Writer) error {
	if m.schedule != nil {
		return nil
	}
	var h mail.Header
	h.SetAddressList("From", []*mail.Address{{Name: oneLine(m.contact.DisplayName), Address: oneLine(m.contact.Address)}})
	h.SetAddressList("To", []*mail.Address{{Address: string(m.bot)}})
	h.SetDate(time.Unix(m.msg.Timestamp, 0).UTC())
	h.SetMessageID(oneLine(m.id))
	if m.msg.Subject != "" {
		h.SetSubject(oneLine(m.msg.Subject))
	}
	if m.chat.Type != single {
		h.SetText("Chat-Group-Name", oneLine(m.chat.Name))
	}
	if m.chatFields {
		m.setChatFields(&h)
	}
	if m.attachment == "" {
		h.SetContentType("text/plain", map[string]string{"charset": "utf-8"})
		return writePart(func() (io.WriteCloser, error) { return mail.CreateSingleInlineWriter(w, h) }, []byte(m.msg.Text))
	}
	mw, err := mail.CreateWriter(w, h)
	if err != nil {
		return err
	}
	var text mail.InlineHeader
	text.SetContentType("text/plain", map[string]string{"charset": "utf-8"})
	if err := writePart(func() (io.WriteCloser, error) { return mw.CreateSingleInline(text) }, []byte(m.msg.Text)); err != nil {
		return err
	}
	var attachment mail.AttachmentHeader
	attachment.SetContentType(attachmentType(m.msg.FileMime), nil)
	attachment.SetFilename(path.Base(m.attachment))
	if err := writePart(func() (io.WriteCloser, error) { return mw.CreateAttachment(attachment) }, m.data); err != nil {
		return err
	}
	return mw.Close()
}

// setChatFields adds what a mail client can go by: answers to a group's message belong to the group.
func (m mailMessage) setChatFields(h *mail.Header) {
	h.Set("Chat-Version", "1.0")
	h.Set("Mayfly-Chat-Id", strconv.FormatUint(uint64(m.msg.ChatID), 10))
	h.Set("Mayfly-Sender-Fingerprint", string(m.sender))
	if m.chat.Type != single {
		h.SetAddressList("Reply-To", []*mail.Address{{Name: oneLine(m.chat.Name), Address: addressOf(m.msg.ChatID)}})
	}
}

// attachmentType is that of a file whose content nobody has looked at: one that would hold parts is taken for bytes.
func attachmentType(mime string) string {
	mime = strings.ToLower(oneLine(mime))
	kind, _, ok := strings.Cut(mime, "/")
	if !ok || kind == "multipart" || kind == "message" || kind == "" {
		return "application/octet-stream"
	}
	return mime
}

func writePart(create func() (io.WriteCloser, error), data []byte) error {
	w, err := create()
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return errors.Join(err, w.Close())
}
