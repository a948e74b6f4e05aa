// Package gateway stands between a bot and core: JSON-RPC 2.0 over JSON Lines, positional parameters, core's own method
// names. Core's API is fully privileged, and the bot means harm until shown otherwise, so a method passes only if the policy
// names it, with every parameter checked against the kind that the policy gives it.
//
// Promises:
//   - A method without a row is refused; a refusal is a JSON-RPC error that names the method, the reason and what to do.
//   - The account id in a call is replaced by the bot's own. Messages go only to the chats of the run, and to those with
//     contacts that have consented (Options.Consent): a chat with one such contact, a group with one in it, the bot's own channel.
//   - A path that the bot names is fetched from the bot's own sandbox and handed to core as a private copy; a path of core's
//     in an answer is replaced by the one under which the bot can open the file, or by null.
//   - No answer has a password, a secret key, a server's name or a path of core's.
//   - Lines, depth, calls, calls in flight, messages, texts, files, and answers that the bot does not read are bounded; over a
//     bound the call is refused, over the length, number or bytes of lines the bot's stream ends with ErrLine.
//   - After Serve has returned nothing reaches core any more.
//
// Lines without an id are notifications of the worker (see package worker) and are handed to Options.Notify.
//
// A bot that was written as a daemon is served as by deltachat-rpc-server itself, where Options.Occasion is set: the account is
// there and configured, the message comes when the bot calls start_io, and what core reports goes to whoever waits for events
// (Event). Activity tells whether the bot is done with it.
package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
)

// Core is the part of core's client that the gateway needs.
type Core interface {
	Raw(ctx context.Context, method string, params json.RawMessage) (json.RawMessage, error)
	Done() <-chan struct{} // closed when core has ended: no call reaches it any more
}

// Files moves files between the bot's sandbox and core's.
type Files interface {
	// Take fetches a file of at most max bytes that the bot named and returns the path of core's private copy, and its size. It is not
	// called twice at once.
	Take(ctx context.Context, botPath, filename string, max int64) (corePath string, size int64, err error)
	// Show returns the path under which the bot can open one of core's files, and whether there is one.
	Show(corePath string) (botPath string, ok bool)
}

// Limits bound one run.
type Limits struct {
	Line     int   // bytes of one line of the bot
	Lines    int   // lines, whatever is in them
	Input    int64 // bytes of all lines
	Depth    int   // nesting of a call's JSON
	InFlight int   // calls that core is working on
	Calls    int   // calls
	Sends    int   // messages, reactions, edits, new groups, and changes of the profile
	Text     int   // bytes of one text
	State    int   // bytes of all values that are kept for the bot: ui.* keys and the texts of drafts
	Keys     int   // ui.* keys that the account may have
	File     int64 // bytes of one attachment
	Files    int64 // bytes of all files that core is handed
	Answer   int   // bytes of one answer of core's
	Answers  int64 // bytes of all of them: each is taken apart
	Unread   int64 // bytes of answers that the bot has not read yet
}

// DefaultLimits are generous for a chat bot and small for a flood.
func DefaultLimits() Limits {
	return Limits{
		Line: 1 << 20, Lines: 10_000, Input: 32 << 20, Depth: 16, InFlight: 16, Calls: 1000, Sends: 50, Text: 100_000, State: 1 << 20, Keys: 100,
		File: 20 << 20, Files: 60 << 20, Answer: 4 << 20, Answers: 128 << 20, Unread: 8 << 20,
	}
}

// Options say on whose behalf a gateway speaks.
type Options struct {
	Core      Core
	Files     Files
	Account   uint32   // core's id of the bot's account
	Chats     []uint32 // the chats that the bot may write to in this run
	CorePaths string   // the folder under which all of core's paths lie, with a slash at its end
	Limits    Limits
	Notify    func(method string, params json.RawMessage)

	Invite      string    // the bot's invite link
	Fingerprint string    // of the bot's own key, in hexadecimal
	Consent     Consent   // nil: only Chats may be written to
	Quota       Quota     // nil: what is sent is bounded by Limits alone
	Home        string    // the folder of the bot's that its relative paths start from
	Temporary   string    // a folder of the bot's for files that it is about to send
	Occasion    *Occasion // for a bot that asks for its events; nil: it does not get to see any
}

// ErrLine is returned by Serve when the bot's line is longer than Limits.Line, or is not JSON.
var ErrLine = errors.New("the bot broke the JSON Lines protocol")

// Gateway serves one run of one bot.
type Gateway struct {
	opts   Options
	policy map[string]row

	slots     chan struct{}    // one for each call in flight
	feed      *feed            // nil without an Occasion
	unread    atomic.Int64     // bytes of answers on their way to the bot
	asked     atomic.Value     // the method that Asked returns
	answered  atomic.Int64     // bytes of all answers
	rewriting sync.Mutex       // held while an answer is taken apart: one at a time bounds the memory
	taking    sync.Mutex       // held while a file is fetched: likewise; guards files
	files     int64            // bytes of files that core was handed
	sizes     map[string]int64 // of each, by core's path; guarded by taking

	mu      sync.Mutex // guards the counts and what is known
	lines   int
	input   int64
	calls   int
	sends   int
	state   int
	own     map[uint32]bool     // messages that the bot sent in this run
	chats   map[uint32]bool     // whether they may be written to
	consent map[uint32]bool     // whether the contacts have consented
	to      map[uint32][]string // the addresses in a chat

	inviting sync.Mutex
	invites  map[uint32]string // that core made in this run, by chat

	keying sync.Mutex      // guards keys
	keys   map[string]bool // ui.* keys that are there; nil: core has not been asked yet
}

// New makes a gateway for one run.
func New(opts Options) *Gateway {
	g := &Gateway{
		opts: opts, policy: policy(), slots: make(chan struct{}, opts.Limits.InFlight),
		own: map[uint32]bool{}, chats: map[uint32]bool{}, consent: map[uint32]bool{}, invites: map[uint32]string{},
		to: map[uint32][]string{}, sizes: map[string]int64{},
	}
	for _, id := range opts.Chats {
		g.chats[id] = true
	}
	if opts.Occasion != nil {
		g.feed = newFeed(*opts.Occasion)
	}
	return g
}

// Sent is the number of messages, reactions and edits that were handed to core.
func (g *Gateway) Sent() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sends
}

type request struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

type response struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *Error          `json:"error,omitempty"`
}

// Error is a JSON-RPC error object.
type Error struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// Error codes: JSON-RPC's own, and two of the range that it leaves to servers.
const (
	CodeRequest  = -32600 // a line that is JSON and no call
	CodeInternal = -32603 // core could not do it
	CodeUnknown  = -32601 // the method is not in the policy
	CodeParams   = -32602 // a parameter is not what the policy wants
	CodeRefused  = -32001 // the method is known and refused
	CodeLimit    = -32002 // a limit of the run is reached
)

func (e *Error) Error() string { return e.Message }

// Serve reads the bot's lines from r and writes answers to w until r ends, ctx is done or the bot breaks the protocol. It
// returns when no call of them is in flight any more. A bot may be served on several connections at once.
func (g *Gateway) Serve(ctx context.Context, r io.Reader, w io.Writer) error {
	out := &answers{w: w}
	ctx, cancel := context.WithCancel(ctx)
	var calls sync.WaitGroup
	defer calls.Wait()
	defer cancel()
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), g.opts.Limits.Line)
	cut := false // whether the stream ended within the line
	lines.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		cut = atEOF && bytes.IndexByte(data, '\n') < 0
		return bufio.ScanLines(data, atEOF)
	})
	for lines.Scan() && ctx.Err() == nil {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			if err := g.countLine(1); err != nil {
				return err
			}
			continue
		}
		req, err := g.read(lines.Bytes())
		var wrong *Error
		if errors.As(err, &wrong) {
			out.write(g.line(json.RawMessage("null"), outcome{err: wrong}))
			continue
		}
		if cut && err != nil {
			return nil // who has ended within a line is judged by how, as core's server leaves it out
		}
		if err != nil {
			return err
		}
		if len(req.ID) == 0 {
			g.opts.Notify(req.Method, req.Params)
			continue
		}
		select {
		case g.slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		row := g.policy[req.Method]
		done := g.feed.begin(row)
		calls.Go(func() {
			o := g.call(ctx, req)
			if row.waits { // before the answer, which a quick bot acts upon at once
				done()
				done = func() {}
			}
			if !row.waits || !errors.Is(o.err, context.Canceled) { // who waits when the run ends sees the end of the stream
				g.reply(out, req.ID, o)
			}
			done()
			<-g.slots
		})
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("%w: a line is longer than %d bytes", ErrLine, g.opts.Limits.Line)
	}
	return lines.Err()
}

// read counts a line and parses it.
func (g *Gateway) read(line []byte) (request, error) {
	if err := g.countLine(len(line)); err != nil {
		return request{}, err
	}
	return parse(line, g.opts.Limits.Depth)
}

func (g *Gateway) countLine(bytes int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lines, g.input = g.lines+1, g.input+int64(bytes)
	switch {
	case g.lines > g.opts.Limits.Lines:
		return fmt.Errorf("%w: more than %d lines in one run", ErrLine, g.opts.Limits.Lines)
	case g.input > g.opts.Limits.Input:
		return fmt.Errorf("%w: more than %d bytes of calls in one run", ErrLine, g.opts.Limits.Input)
	}
	return nil
}

// parse copies what it keeps: the scanner reuses its buffer. An *Error is to be told to the bot, any other ends its stream.
func parse(line []byte, depth int) (request, error) {
	var req request
	if err := checkDepth(line, depth); err != nil {
		return req, fmt.Errorf("%w: %w", ErrLine, err)
	}
	switch line = bytes.TrimSpace(line); {
	case !json.Valid(line):
	case line[0] == '[':
		return req, &Error{CodeRequest, "a batch of calls is refused: write each call in a line of its own"}
	case line[0] != '{':
		return req, &Error{CodeRequest, "a call is an object with id, method and params"}
	}
	if err := json.Unmarshal(line, &req); err != nil {
		return req, fmt.Errorf("%w: %w", ErrLine, err)
	}
	if len(req.ID) > 64 || len(req.Method) > 100 {
		return req, fmt.Errorf("%w: id or method too long", ErrLine)
	}
	if string(req.ID) == "null" {
		req.ID = nil
	}
	if len(req.ID) > 0 && strings.IndexByte("{[tf", req.ID[0]) >= 0 {
		return req, &Error{CodeRequest, "the id of a call is a number or a string"}
	}
	return req, nil
}

// checkDepth bounds nesting before anything is built from the line.
func checkDepth(line []byte, max int) error {
	depth, inString, escaped := 0, false, false
	for _, c := range line {
		switch {
		case escaped:
			escaped = false
		case inString && c == '\\':
			escaped = true
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > max {
				return fmt.Errorf("nested deeper than %d", max)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

type outcome struct {
	result json.RawMessage
	err    error
}

func (g *Gateway) call(ctx context.Context, req request) outcome {
	row, known := g.policy[req.Method]
	switch {
	case !known:
		return outcome{err: &Error{CodeUnknown, fmt.Sprintf("%.100s: this host does not offer the method: see the list in docs/ARCHITECTURE.md", req.Method)}}
	case row.action == refuse:
		return outcome{err: &Error{CodeRefused, req.Method + ": refused: " + row.reason}}
	case row.action == ignore:
		return outcome{result: json.RawMessage("null"), err: g.countCall(row)}
	}
	result, err := g.carryOut(ctx, row, req.Params)
	if err != nil {
		return outcome{err: err}
	}
	g.answered.Add(int64(len(result)))
	if len(result) > g.opts.Limits.Answer {
		return outcome{err: &Error{CodeLimit, fmt.Sprintf("%s: the answer is larger than %d bytes: ask for less at once", req.Method, g.opts.Limits.Answer)}}
	}
	if row.message {
		g.remember(result)
	}
	g.rewriting.Lock()
	defer g.rewriting.Unlock()
	result, err = g.rewrite(result)
	return outcome{result, err}
}

// carryOut checks and counts a call, and gets its result from core or from the gateway's own answer.
func (g *Gateway) carryOut(ctx context.Context, r row, raw json.RawMessage) (json.RawMessage, error) {
	if err := g.countCall(r); err != nil {
		return nil, err
	}
	params, err := g.check(ctx, r, raw)
	if err != nil {
		return nil, err
	}
	if err := g.countSends(ctx, r, params); err != nil {
		return nil, err
	}
	if r.action == forward {
		defer g.changed(r, params)
		return g.ask(ctx, r.method, params)
	}
	result, err := r.answer(g, ctx, params)
	if errors.Is(err, context.Canceled) {
		return nil, err
	}
	if err != nil {
		return nil, named(r.method, err)
	}
	return json.Marshal(result)
}

// named puts the method in front of an error that does not begin with one of core's.
func named(method string, err error) *Error {
	e := &Error{CodeParams, err.Error()}
	errors.As(err, &e)
	if e.Code == CodeInternal || strings.HasPrefix(e.Message, method) {
		return e
	}
	return &Error{e.Code, method + ": " + e.Message}
}

// ask calls core with parameters that have been checked.
func (g *Gateway) ask(ctx context.Context, method string, params any) (json.RawMessage, error) {
	raw, err := json.Marshal(params)
	if err != nil {
		return nil, err
	}
	select {
	case <-g.opts.Core.Done(): // by another's doing
	default:
		g.asked.Store(method)
	}
	result, err := g.opts.Core.Raw(ctx, method, raw)
	if err != nil {
		return nil, g.coreError(method, err)
	}
	return result, nil
}

// Asked is the method that core, while it lived, was asked last because of the bot, or "". Where it is not empty, a failure of core's may be the bot's doing.
func (g *Gateway) Asked() string {
	method, _ := g.asked.Load().(string)
	return method
}

// remember notes the id of a message that the bot has just sent, so that it may edit it.
func (g *Gateway) remember(result json.RawMessage) {
	var id uint32
	if json.Unmarshal(result, &id) == nil {
		g.mu.Lock()
		g.own[id] = true
		g.mu.Unlock()
	}
}

func (g *Gateway) countCall(r row) error {
	if r.waits {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.calls++; g.calls > g.opts.Limits.Calls {
		return &Error{CodeLimit, fmt.Sprintf("%s: more than %d calls in one run", r.method, g.opts.Limits.Calls)}
	}
	if g.answered.Load() > g.opts.Limits.Answers {
		return &Error{CodeLimit, fmt.Sprintf("%s: more than %d bytes of answers in one run", r.method, g.opts.Limits.Answers)}
	}
	return nil
}

// countSends counts a list of messages as so many, and takes them from the quota.
func (g *Gateway) countSends(ctx context.Context, r row, params []json.RawMessage) error {
	if !r.sends {
		return nil
	}
	n := 1
	for i, k := range r.params {
		var ids []uint32
		if (k == kindOwnMsgs || k == kindForward) && json.Unmarshal(params[i], &ids) == nil {
			n = max(n, len(ids))
		}
	}
	if err := g.send(r.method, n); err != nil {
		return err
	}
	err := g.spend(ctx, r, params, n)
	if err != nil {
		g.mu.Lock()
		g.sends -= n
		g.mu.Unlock()
	}
	return err
}

func (g *Gateway) send(method string, n int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sends+n > g.opts.Limits.Sends {
		if g.opts.Quota != nil {
			g.opts.Quota.Missed(fmt.Sprintf("%d messages in one run", g.opts.Limits.Sends), n)
		}
		return &Error{CodeLimit, fmt.Sprintf("%s: more than %d messages in one run", method, g.opts.Limits.Sends)}
	}
	g.sends += n
	return nil
}

// reply writes an answer, or an error in its stead when the bot has too many unread.
func (g *Gateway) reply(out *answers, id json.RawMessage, o outcome) {
	line := g.line(id, o)
	if g.unread.Add(int64(len(line))) > g.opts.Limits.Unread && o.err == nil {
		g.unread.Add(int64(-len(line)))
		line = g.line(id, outcome{err: &Error{CodeLimit, fmt.Sprintf("more than %d bytes of answers wait for the bot: read them before the next call", g.opts.Limits.Unread)}})
		g.unread.Add(int64(len(line)))
	}
	out.write(line)
	g.unread.Add(int64(-len(line)))
}

func (g *Gateway) line(id json.RawMessage, o outcome) []byte {
	resp := response{Version: "2.0", ID: id, Result: o.result}
	if o.err != nil {
		resp.Result, resp.Error = nil, asError(o.err)
	} else if resp.Result == nil {
		resp.Result = json.RawMessage("null")
	}
	line, err := json.Marshal(resp)
	if err != nil {
		line = []byte(`{"jsonrpc":"2.0","id":null,"error":{"code":-32603,"message":"core's answer is not JSON"}}`)
	}
	return append(line, '\n')
}

// answers writes lines whole.
type answers struct {
	mu sync.Mutex
	w  io.Writer
}

func (a *answers) write(line []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	// A bot that no longer reads is about to end; its run is judged by how it ends, not by this write.
	_, _ = a.w.Write(line)
}

func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{CodeInternal, err.Error()}
}

// Account is core's id of the bot's account.
func (g *Gateway) Account() uint32 { return g.opts.Account }

// Call makes a call in the bot's name, checked, counted and bounded as one that it has written: for bots that speak another protocol
// than JSON-RPC. What it fails of is an *Error.
func (g *Gateway) Call(ctx context.Context, method string, params ...any) (json.RawMessage, error) {
	raw, err := json.Marshal(params)
	if err != nil {
		return nil, err
	}
	o := g.call(ctx, request{Method: method, Params: raw})
	if o.err != nil {
		return nil, asError(o.err)
	}
	return o.result, nil
}

// MaySend says why the bot may not write to a chat, by an *Error; nil if it may.
func (g *Gateway) MaySend(ctx context.Context, chat uint32) error {
	if err := g.maySend(ctx, chat); err != nil {
		return asError(err)
	}
	return nil
}

// Read asks core on the host's behalf for something that the bot is to see: the account id is put in front of params, core's
// paths are replaced in the answer, and it is not counted.
func (g *Gateway) Read(ctx context.Context, method string, params ...any) (json.RawMessage, error) {
	raw, err := json.Marshal(append([]any{g.opts.Account}, params...))
	if err != nil {
		return nil, err
	}
	result, err := g.opts.Core.Raw(ctx, method, raw)
	if err != nil {
		return nil, err
	}
	return g.rewrite(result)
}
