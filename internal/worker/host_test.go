package worker

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// host is the other end of the protocol: it starts a worker on a bundle, gives it a job and answers its calls.
type host struct {
	t       *testing.T
	opts    Options
	job     map[string]any
	answers func(method string, params []any) (result any, err error)
	reverse bool // hold answers back and give them in reverse order, two at a time

	in    *io.PipeWriter
	calls []call
	log   bytes.Buffer
	lines []string // methods of notifications and calls, in order
	done  doneParams
	code  int
	took  time.Duration
}

type call struct {
	ID     int64
	Method string
	Params []any
}

func (c call) String() string {
	params, _ := json.Marshal(c.Params)
	return c.Method + string(params)
}

type doneParams struct{ Status, Message, Stack string }

var fileHeader = regexp.MustCompile(`(?m)^-- (\S+) --\n`)

// newHost writes files ("-- name --" lines separate them; what comes before the first is main.js) as the bundle and makes a
// message job of text.
func newHost(t *testing.T, files string, text string) *host {
	t.Helper()
	h := &host{t: t}
	h.opts = Options{Bundle: t.TempDir(), Storage: t.TempDir(), Attachments: t.TempDir(), Tmp: t.TempDir(), Log: &h.log, HeapLimit: 32e6}
	names := fileHeader.FindAllStringSubmatch(files, -1)
	parts := fileHeader.Split(files, -1)
	h.write("main.js", parts[0])
	for i, m := range names {
		h.write(m[1], parts[i+1])
	}
	h.job = map[string]any{
		"event": "message", "main": "main.js", "account": 1, "deadline_ms": 5000,
		"bot":     map[string]any{"name": "Dice", "address": "dice@example.org", "version": "1.0.0"},
		"message": map[string]any{"id": 12, "chatId": 10, "text": text, "timestamp": 1700000000, "quote": nil},
		"chat":    map[string]any{"id": 10, "name": "Alice", "chatType": "Single"},
		"contact": map[string]any{"id": 11, "displayName": "Alice", "address": "alice@example.org", "isBot": false},
	}
	h.answers = func(string, []any) (any, error) { return 100 + len(h.calls), nil }
	return h
}

func (h *host) write(name, content string) {
	h.t.Helper()
	path := filepath.Join(h.opts.Bundle, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// run starts the worker and speaks the protocol with it to the end.
func (h *host) run() *host {
	h.t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	h.in, h.opts.In, h.opts.Out = inW, inR, outW
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.code = Run(h.t.Context(), h.opts)
		outW.Close()
	}()
	defer inW.Close()
	lines := bufio.NewScanner(outR)
	lines.Buffer(nil, maxLine)
	start := time.Now()
	for lines.Scan() {
		h.serve(lines.Bytes())
	}
	<-ended
	h.took = time.Since(start)
	return h
}

func (h *host) serve(line []byte) {
	h.t.Helper()
	var m struct {
		JSONRPC string
		ID      *int64
		Method  string
		Params  json.RawMessage
	}
	if err := json.Unmarshal(line, &m); err != nil {
		h.t.Errorf("not a line of the protocol: %q: %v", line, err)
		return
	}
	h.lines = append(h.lines, m.Method)
	switch {
	case m.Method == "ready":
		h.send(map[string]any{"job": h.job})
	case m.Method == "entered":
	case m.Method == "done":
		if err := json.Unmarshal(m.Params, &h.done); err != nil {
			h.t.Error(err)
		}
	case m.ID == nil || m.JSONRPC != "2.0":
		h.t.Errorf("not a JSON-RPC 2.0 request: %s", line)
	default:
		h.call(*m.ID, m.Method, m.Params)
	}
}

func (h *host) call(id int64, method string, params json.RawMessage) {
	c := call{ID: id, Method: method}
	if err := json.Unmarshal(params, &c.Params); err != nil {
		h.t.Errorf("%s: params are no list: %s", method, params)
	}
	h.calls = append(h.calls, c)
	if !h.reverse {
		h.answer(c)
	} else if len(h.calls)%2 == 0 {
		h.answer(h.calls[len(h.calls)-1])
		h.answer(h.calls[len(h.calls)-2])
	}
}

func (h *host) answer(c call) {
	result, err := h.answers(c.Method, c.Params)
	switch {
	case err == errSilent:
	case err != nil:
		h.send(map[string]any{"jsonrpc": "2.0", "id": c.ID, "error": map[string]any{"code": -32000, "message": err.Error()}})
	default:
		h.send(map[string]any{"jsonrpc": "2.0", "id": c.ID, "result": result})
	}
}

// errSilent makes answers give none.
var errSilent = fmt.Errorf("no answer")

func (h *host) send(v any) {
	line, err := json.Marshal(v)
	if err != nil {
		h.t.Error(err)
	}
	_, _ = h.in.Write(append(line, '\n')) // a worker that has ended reads no more
}

func (h *host) wantOK() *host {
	h.t.Helper()
	if h.done.Status != "OK" || h.code != exitOK {
		h.t.Fatalf("status %q (exit code %d): %s\n%s\nlog: %s", h.done.Status, h.code, h.done.Message, h.done.Stack, h.log.String())
	}
	return h
}

func (h *host) wantCalls(want ...string) *host {
	h.t.Helper()
	var got []string
	for _, c := range h.calls {
		got = append(got, c.String())
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		h.t.Errorf("calls:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	return h
}

func (h *host) wantLog(want string) *host {
	h.t.Helper()
	if got := h.log.String(); got != want {
		h.t.Errorf("log:\n%s\nwant:\n%s", got, want)
	}
	return h
}

// handler wraps the body of a message handler; the body starts at line 2, column 1.
func handler(body string) string {
	return "export default { async message(msg, env, ctx) {\n" + body + "\n} }\n"
}
