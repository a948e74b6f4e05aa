// Package core is the typed client of deltachat-rpc-server, the official Delta Chat core (2.57 to 2.65).
//
// The transport is JSON-RPC 2.0, one object a line, on a pair of pipes that the caller hands in; who starts the process
// is not this package's matter. A request is
//
//	{"jsonrpc":"2.0","id":7,"method":"get_message","params":[1,12]}
//
// with positional parameters, and its answer carries the same id and either "result" or "error":{"code","message"}.
// Answers come in any order.
//
// Core reads foreign mail, so its answers are foreign bytes: a line that is not an answer, or the end of the pipe fails the
// client, that is every call that waits and every later one. An answer over MaxLine is read to its end and dropped, and is an
// *Error of its call. One line is in memory at a time, besides the answers that calls wait for. Core that does not read its pipe blocks no call beyond its context.
package core

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"sync"
)

// MaxLine bounds one line of core's answers, in bytes.
const MaxLine = 8 << 20

// Errors that fail a client. They are wrapped: use errors.Is.
var (
	// ErrEnded says that core closed its end of the pipe: it has exited or was killed.
	ErrEnded = errors.New("core has ended")
	// ErrProtocol says that core wrote something that is not an answer. The client is of no use any more; end core.
	ErrProtocol = errors.New("core broke the protocol")
	// ErrClosed says that Close was called.
	ErrClosed = errors.New("core client is closed")
)

// Error is core's own answer to a call that it could not serve. The message is written by core and may quote foreign mail.
type Error struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return fmt.Sprintf("core: %s (%d)", e.Message, e.Code) }

// Client calls one core process. Its methods may be used by many goroutines at once.
type Client struct {
	stdin io.WriteCloser
	lines chan []byte   // requests, to the one goroutine that writes
	done  chan struct{} // closed when the client has failed; err says why

	mu      sync.Mutex
	err     error
	lastID  uint64
	waiting map[uint64]chan<- answer
}

type request struct {
	Version string          `json:"jsonrpc"`
	ID      uint64          `json:"id"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params"`
}

type answer struct {
	ID     *uint64         `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  *Error          `json:"error"`
}

// New starts to read core's answers from stdout. It owns stdin, and stops reading when stdout ends.
func New(stdin io.WriteCloser, stdout io.Reader) *Client {
	c := &Client{
		stdin:   stdin,
		lines:   make(chan []byte),
		done:    make(chan struct{}),
		waiting: make(map[uint64]chan<- answer),
	}
	go c.read(stdout)
	go c.write()
	return c
}

// Call calls a method with positional parameters and stores its result, unless result is nil. The error is an *Error where
// core answered with one, the context's where that ended first, or what failed the client. A call given up by its context
// may still take effect in core.
func (c *Client) Call(ctx context.Context, method string, result any, params ...any) error {
	if params == nil {
		params = []any{}
	}
	list, err := json.Marshal(params)
	if err != nil {
		return fmt.Errorf("%s: encode parameters: %w", method, err)
	}
	raw, err := c.Raw(ctx, method, list)
	if err != nil || result == nil {
		return err
	}
	if err := json.Unmarshal(raw, result); err != nil {
		return fmt.Errorf("%s: %w: result: %w", method, ErrProtocol, err)
	}
	return nil
}

// Raw is Call with parameters and result as JSON. The parameters are an array.
func (c *Client) Raw(ctx context.Context, method string, params json.RawMessage) (json.RawMessage, error) {
	id, answered, err := c.expect()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	defer c.forget(id)
	line, err := json.Marshal(request{"2.0", id, method, params})
	if err != nil {
		return nil, fmt.Errorf("%s: encode request: %w", method, err)
	}
	select {
	case c.lines <- append(line, '\n'):
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", method, ctx.Err())
	case <-c.done:
		return nil, fmt.Errorf("%s: %w", method, c.failure())
	}
	select {
	case a := <-answered:
		if a.Error != nil {
			return nil, fmt.Errorf("%s: %w", method, a.Error)
		}
		return a.Result, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", method, ctx.Err())
	case <-c.done:
		return nil, fmt.Errorf("%s: %w", method, c.failure())
	}
}

// Close closes core's stdin. Core ends at its end of file, and stdout with it; nothing is waited for here.
func (c *Client) Close() error {
	c.fail(ErrClosed)
	return c.stdin.Close()
}

// Done is closed when the client has failed or has been closed.
func (c *Client) Done() <-chan struct{} { return c.done }

// expect makes an id and the place where its answer will be put.
func (c *Client) expect() (uint64, <-chan answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, nil, c.err
	}
	c.lastID++
	answered := make(chan answer, 1)
	c.waiting[c.lastID] = answered
	return c.lastID, answered, nil
}

func (c *Client) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

func (c *Client) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// fail ends every call, the first time it is called.
func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		close(c.done)
	}
}

func (c *Client) write() {
	for {
		select {
		case line := <-c.lines:
			if _, err := c.stdin.Write(line); err != nil {
				c.fail(fmt.Errorf("%w: write: %w", ErrEnded, err))
				return
			}
		case <-c.done:
			return
		}
	}
}

func (c *Client) read(stdout io.Reader) {
	r := bufio.NewReaderSize(stdout, 64<<10)
	for {
		a, err := readAnswer(r)
		if err != nil {
			c.fail(err)
			return
		}
		c.deliver(a)
	}
}

// readAnswer reads one line. One that grows over MaxLine and is no answer fails at once: it might never end.
func readAnswer(r *bufio.Reader) (answer, error) {
	line := []byte(nil)
	for len(line) <= MaxLine {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil && len(line) <= MaxLine, err == io.EOF && len(line) > 0:
			return parseAnswer(line)
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return answer{}, ended(err)
		}
	}
	ends := line[len(line)-1] == '\n'
	a, err := overlong(line[:maxHead])
	for line = nil; err == nil && !ends; { // the line is let go
		switch _, more := r.ReadSlice('\n'); {
		case more == nil:
			ends = true
		case !errors.Is(more, bufio.ErrBufferFull):
			err = ended(more)
		}
	}
	return a, err
}

// ended says how core's pipe ended.
func ended(err error) error {
	if err == io.EOF {
		return ErrEnded
	}
	return fmt.Errorf("%w: read: %w", ErrEnded, err)
}

// maxHead has the id of an answer, which core writes in front of the result.
const maxHead = 100

// overlong is the answer in the place of one whose line is over MaxLine and begins with head.
func overlong(head []byte) (answer, error) {
	m := regexp.MustCompile(`^\{"jsonrpc":"2\.0","id":([0-9]{1,19}),`).FindSubmatch(head)
	if m == nil {
		return answer{}, fmt.Errorf("%w: a line over %d bytes that begins with %.80q", ErrProtocol, MaxLine, head)
	}
	id, err := strconv.ParseUint(string(m[1]), 10, 64)
	return answer{ID: &id, Error: &Error{Code: codeOverlong, Message: fmt.Sprintf("the answer is larger than %d bytes", MaxLine)}}, err
}

// codeOverlong is JSON-RPC's for an internal error.
const codeOverlong = -32603

// deliver hands an answer to its call. An answer that nobody waits for any more is dropped.
func (c *Client) deliver(a answer) {
	c.mu.Lock()
	answered := c.waiting[*a.ID]
	delete(c.waiting, *a.ID)
	c.mu.Unlock()
	if answered != nil {
		answered <- a
	}
}

// parseAnswer takes one line of core's. The result is a copy of its part of the line.
func parseAnswer(line []byte) (answer, error) {
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		return answer{}, fmt.Errorf("%w: %w in %.80q", ErrProtocol, err, line)
	}
	if a.ID == nil {
		return answer{}, fmt.Errorf("%w: no id in %.80q", ErrProtocol, bytes.TrimSpace(line))
	}
	return a, nil
}
