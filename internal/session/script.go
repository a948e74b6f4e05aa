package session

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/core"
	"mayfly/internal/crash"
	"mayfly/internal/gateway"
	"mayfly/internal/sandbox"
)

// script runs JavaScript: our worker, which waits for its job as a line of JSON and calls core through the gateway (package worker).
type script struct{ lines *bufio.Reader }

func (s *script) furnish(spec *sandbox.Spec, _ bot.Manifest) error {
	spec.Programs = []sandbox.Program{{Name: programName, Builtin: "worker", Profile: sandbox.ProfileWorker, Dir: tmpDir}}
	return nil
}

// ready starts the worker and reads its first line.
func (s *script) ready(p *program) error {
	if err := p.box.Start(programName); err != nil {
		return err
	}
	s.lines = bufio.NewReader(p.box.Program(programName).Stdout)
	line, err := s.lines.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("the worker did not start: %w %s", err, p.log)
	}
	var ready struct{ Method string }
	if err := json.Unmarshal(line, &ready); err != nil || ready.Method != "ready" {
		return fmt.Errorf("the worker's first line is not ready: %.100q", line)
	}
	return nil
}

// run gives the script a second more than its wall clock: it knows that itself, and says at which line it was.
func (s *script) run(ctx context.Context, p *program, c *coreSide, o occasion, timeline *Timeline) (finish, error) {
	ctx, cancel := context.WithTimeout(ctx, p.bot.Manifest.Limits.Wall+time.Second)
	defer cancel()
	verdict := &verdict{timeline: timeline}
	files := newFiles(c, p)
	options := p.gatewayOptions(c, o, files)
	options.Notify = verdict.notify
	g := gateway.New(options)
	job, err := p.job(ctx, g, files, o)
	if err != nil {
		return finish{}, err
	}
	p.asked = g.Asked
	stdin := p.box.Program(programName).Stdin
	if _, err := stdin.Write(append(job, '\n')); err != nil {
		return finish{}, fmt.Errorf("the worker took no job: %w", err)
	}
	serveErr := make(chan error, 1)
	go func() {
		err := g.Serve(ctx, s.lines, stdin)
		if err != nil { // the bot broke the protocol: there is nothing more to wait for
			cancel()
		}
		serveErr <- err
	}()
	exit, trouble := p.wait(ctx)
	if err := <-serveErr; errors.Is(err, gateway.ErrLine) {
		trouble = err
	} else {
		trouble = errors.Join(trouble, err)
	}
	status, message := verdict.result()
	return finish{status, message, exit, trouble}, nil
}

// job is the line that the worker waits for; package worker describes it.
func (p *program) job(ctx context.Context, g *gateway.Gateway, f *files, o occasion) ([]byte, error) {
	m := p.bot.Manifest
	job := map[string]any{
		"event": "message", "main": m.Main, "account": g.Account(),
		"bot":         map[string]string{"name": m.Name, "address": string(p.bot.Address), "version": m.Version},
		"deadline_ms": m.Limits.Wall.Milliseconds(), "heap": heap(m.Limits.Memory),
	}
	if o.schedule != nil {
		job["event"], job["schedule"] = "scheduled", o.schedule.event()
		return p.sealed(job)
	}
	var err error
	if job["message"], err = g.Read(ctx, "get_message", o.msg.ID); err != nil {
		return nil, err
	}
	if job["chat"], err = g.Read(ctx, "get_basic_chat_info", o.msg.ChatID); err != nil {
		return nil, err
	}
	if o.event.Kind == core.WebxdcStatusUpdate {
		job["event"] = "webxdc"
		job["update"], err = update(ctx, g, o)
	} else {
		err = p.addMessage(ctx, g, f, o, job)
	}
	if err != nil {
		return nil, err
	}
	return p.sealed(job)
}

// sealed is the job's line, when the attachment that it names is there.
func (p *program) sealed(job map[string]any) ([]byte, error) {
	if err := p.box.Seal(attachmentsDir); err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"job": job})
}

// addMessage adds what only a message has: its sender and its attachment.
func (p *program) addMessage(ctx context.Context, g *gateway.Gateway, f *files, o occasion, job map[string]any) error {
	attachment, err := f.attachment(o.msg)
	if err != nil {
		return err
	}
	raw, err := g.Read(ctx, "get_contact", o.msg.FromID)
	if err != nil {
		return err
	}
	contact := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &contact); err != nil {
		return fmt.Errorf("core's contact: %w", err)
	}
	if o.sender != "" {
		if contact["fingerprint"], err = json.Marshal(o.sender); err != nil {
			return err
		}
	}
	job["attachment"], job["contact"] = attachment, contact
	return nil
}

// update reads the webxdc update that the event tells of, with the id of the message that it belongs to.
func update(ctx context.Context, g *gateway.Gateway, o occasion) (any, error) {
	raw, err := g.Read(ctx, "get_webxdc_status_updates", o.msg.ID, o.event.Serial-1)
	if err != nil {
		return nil, err
	}
	var text string // core answers with JSON in a string
	var updates []map[string]json.RawMessage
	if err := json.Unmarshal(raw, &text); err != nil {
		return nil, fmt.Errorf("core's webxdc updates: %w", err)
	}
	if err := json.Unmarshal([]byte(text), &updates); err != nil {
		return nil, fmt.Errorf("core's webxdc updates: %w", err)
	}
	if len(updates) == 0 {
		return nil, fmt.Errorf("core has no webxdc update %d", o.event.Serial)
	}
	if updates[0]["msgId"], err = json.Marshal(o.msg.ID); err != nil {
		return nil, err
	}
	return updates[0], nil
}

// verdict takes the worker's notifications.
type verdict struct {
	timeline *Timeline
	mu       sync.Mutex
	status   bot.RunStatus
	message  string
}

func (v *verdict) notify(method string, params json.RawMessage) {
	switch method {
	case "entered":
		v.timeline.Mark("handler")
		crash.At(crash.Entered)
	case "done":
		var done struct{ Status, Message, Stack string }
		if err := json.Unmarshal(params, &done); err != nil {
			return
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		v.status, v.message = bot.RunError, bounded(done.Message+"\n"+done.Stack)
		if s := bot.RunStatus(done.Status); s == bot.RunOK || s == bot.RunTimeout {
			v.status = s
		}
	}
}

func bounded(s string) string {
	s = strings.TrimSpace(strings.ToValidUTF8(s, "?"))
	return s[:min(len(s), 4000)]
}

func (v *verdict) result() (bot.RunStatus, string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.status, v.message
}
