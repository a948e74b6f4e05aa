package worker

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"mayfly/internal/bot"
)

// maxLine bounds a line of the protocol, in bytes, in both directions.
const maxLine = 16 << 20

// Exit codes of a worker.
const (
	exitOK       = 0
	exitError    = 1   // the author's error
	exitInternal = 70  // EX_SOFTWARE of sysexits.h: the host or the worker itself
	exitTimeout  = 124 // as timeout(1)
)

var (
	errLineTooLong = fmt.Errorf("a line of the protocol is longer than %d bytes", maxLine)
	errJob         = errors.New("the job is malformed")
	errAnswer      = errors.New("the host's answer is malformed")
)

// job is what the host asks for. raw is the same as text, for the JavaScript side, which reads the rest of it.
type job struct {
	Event      string `json:"event"`
	Main       string `json:"main"`
	DeadlineMS int64  `json:"deadline_ms"`
	Heap       int64  `json:"heap"`
	Attachment *struct {
		Path string `json:"path"`
	} `json:"attachment"`
	Message  json.RawMessage `json:"message"`
	Chat     json.RawMessage `json:"chat"`
	Update   json.RawMessage `json:"update"`
	Schedule json.RawMessage `json:"schedule"`

	raw  json.RawMessage
	wall time.Duration
}

func parseJob(line []byte) (*job, error) {
	var envelope struct {
		Job json.RawMessage `json:"job"`
	}
	if err := json.Unmarshal(line, &envelope); err != nil {
		return nil, fmt.Errorf("%w: %v", errJob, err)
	}
	if len(envelope.Job) == 0 || envelope.Job[0] != '{' {
		return nil, fmt.Errorf("%w: want {\"job\": {...}}", errJob)
	}
	j := &job{raw: envelope.Job}
	if err := json.Unmarshal(envelope.Job, j); err != nil {
		return nil, fmt.Errorf("%w: %v", errJob, err)
	}
	if err := j.validate(); err != nil {
		return nil, fmt.Errorf("%w: %v", errJob, err)
	}
	return j, nil
}

func (j *job) validate() error {
	if j.Main == "" || path.IsAbs(j.Main) || path.Clean(j.Main) != j.Main || strings.HasPrefix(j.Main, "../") || strings.ContainsRune(j.Main, 0) {
		return fmt.Errorf("main %q is not a path in the bundle", j.Main)
	}
	if j.DeadlineMS < 0 || j.DeadlineMS > 24*3600*1000 || j.Heap < 0 {
		return errors.New("deadline_ms or heap is out of range")
	}
	isObject := func(raw json.RawMessage) bool { return len(raw) > 0 && raw[0] == '{' }
	switch {
	case j.Event == "check":
		return nil
	case j.Event == "message" && isObject(j.Message) && isObject(j.Chat):
		return nil
	case j.Event == "webxdc" && isObject(j.Update):
		return nil
	case j.Event == "scheduled" && isObject(j.Schedule):
		return nil
	}
	return fmt.Errorf("event %q is unknown or lacks its object", j.Event)
}

// answer is the host's response to one call.
type answer struct {
	id     int64
	ok     bool
	result json.RawMessage // the result, or the error object
}

func parseAnswer(line []byte) (answer, error) {
	var m struct {
		ID     *int64          `json:"id"`
		Result json.RawMessage `json:"result"`
		Error  *struct {
			Code    int64  `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return answer{}, fmt.Errorf("%w: %v", errAnswer, err)
	}
	switch {
	case m.ID == nil:
		return answer{}, fmt.Errorf("%w: it has no id", errAnswer)
	case m.Error != nil && m.Result == nil:
		text, err := json.Marshal(m.Error)
		return answer{id: *m.ID, result: text}, err
	case m.Error == nil && m.Result != nil:
		return answer{id: *m.ID, ok: true, result: m.Result}, nil
	}
	return answer{}, fmt.Errorf("%w: it wants either a result or an error", errAnswer)
}

// readLine reads up to and without the next newline. A line over limit is an error, and nothing more can be read then.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return nil, errLineTooLong
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return bytes.TrimSuffix(line, []byte("\n")), nil
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// writer writes the worker's lines.
type writer struct{ w io.Writer }

func (w *writer) line(v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	if b.Len() > maxLine {
		return errLineTooLong
	}
	_, err := w.w.Write(b.Bytes())
	return err
}

func (w *writer) notify(method string, params any) error {
	return w.line(struct {
		Method string `json:"method"`
		Params any    `json:"params,omitempty"`
	}{method, params})
}

func (w *writer) call(id int64, method string, params json.RawMessage) error {
	return w.line(struct {
		Version string          `json:"jsonrpc"`
		ID      int64           `json:"id"`
		Method  string          `json:"method"`
		Params  json.RawMessage `json:"params"`
	}{"2.0", id, method, params})
}

// outcome is how the job ended.
type outcome struct {
	status  bot.RunStatus
	message string // for the author: main.js:3:9: TypeError: …
	stack   string // the author's frames, innermost first, a line each
}

// done writes the last line and returns the exit code.
func (w *writer) done(o outcome) int {
	err := w.notify("done", struct {
		Status  bot.RunStatus `json:"status"`
		Message string        `json:"message,omitempty"`
		Stack   string        `json:"stack,omitempty"`
	}{o.status, cut(o.message, 8<<10), cut(o.stack, 8<<10)})
	switch {
	case err != nil:
		return exitInternal
	case o.status == bot.RunOK:
		return exitOK
	case o.status == bot.RunError:
		return exitError
	case o.status == bot.RunTimeout:
		return exitTimeout
	}
	return exitInternal
}

// cut shortens s to n bytes, at a character's border, and says so.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "… (cut)"
}
