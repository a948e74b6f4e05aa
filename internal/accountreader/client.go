package accountreader

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

	"mayfly/internal/bot"
)

// MaxLine bounds one answer, in bytes.
const MaxLine = 16 << 20

// The bounds of a state and of counts. The reader stops at them, the client refuses what is over them.
const (
	maxKey        = 64 << 10 // bytes of one key
	maxSelfKeys   = 16
	maxPublicKeys = 10_000
	maxToken      = 256 // bytes of one token or secret
	maxTokens     = 10_000
	maxTotal      = 8 << 20   // bytes of all keys, tokens and secrets
	maxCount      = 1_000_000 // rows counted of one table
	maxSchema     = 1_000_000
	maxError      = 1 << 10 // bytes of an error's text
)

// Errors of a Client. They are wrapped: use errors.Is.
var (
	// ErrReader says that the reader could not read the account. The text is the reader's own.
	ErrReader = errors.New("account reader")
	// ErrProtocol says that the reader wrote something that it must not write.
	ErrProtocol = errors.New("account reader broke the protocol")
	// ErrEnded says that the reader is gone, or was closed.
	ErrEnded = errors.New("account reader has ended")
)

// Client asks a Serve at the other end of two pipes. One request is under way at a time; a context that ends during one closes
// the client, since the answer would be taken for the next one's.
type Client struct {
	stdin io.WriteCloser
	lines chan []byte // answers
	gone  chan struct{}
	once  sync.Once
	asks  sync.Mutex

	readErr error // why lines was closed
}

// NewClient starts to read stdout, until it ends. It owns stdin.
func NewClient(stdin io.WriteCloser, stdout io.Reader) *Client {
	c := &Client{stdin: stdin, lines: make(chan []byte), gone: make(chan struct{})}
	go c.read(stdout)
	return c
}

// Pending counts what core has still to do. Against a schema that the reader does not know the error is ErrSchema.
func (c *Client) Pending(ctx context.Context) (bot.Pending, error) {
	line, err := c.ask(ctx, "pending")
	if err != nil {
		return bot.Pending{}, err
	}
	return parsePending(line)
}

// State reads what the gate must know. SelfKeys are binary transferable secret keys, the one in use first. Where Readable is false,
// the schema is unknown or there is more than the bounds allow.
func (c *Client) State(ctx context.Context) (bot.AccountState, error) {
	line, err := c.ask(ctx, "state")
	if err != nil {
		return bot.AccountState{}, err
	}
	return parseState(line)
}

// Close closes the reader's stdin, at which it ends. It may be called more than once.
func (c *Client) Close() error {
	var err error
	c.once.Do(func() {
		close(c.gone)
		err = c.stdin.Close()
	})
	return err
}

func (c *Client) ask(ctx context.Context, what string) ([]byte, error) {
	c.asks.Lock()
	defer c.asks.Unlock()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() }) // also frees a write that nobody reads
	defer stop()
	line, err := c.exchange(what)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("ask for %s: %w", what, context.Cause(ctx))
	}
	if err != nil {
		return nil, fmt.Errorf("ask for %s: %w", what, err)
	}
	return line, nil
}

func (c *Client) exchange(what string) ([]byte, error) {
	question, err := json.Marshal(request{Ask: what})
	if err != nil {
		return nil, err
	}
	if _, err := c.stdin.Write(append(question, '\n')); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEnded, err)
	}
	select {
	case line, ok := <-c.lines:
		if !ok {
			return nil, c.readErr
		}
		return line, nil
	case <-c.gone:
		return nil, ErrEnded
	}
}

func (c *Client) read(stdout io.Reader) {
	defer close(c.lines)
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, MaxLine)
	for lines.Scan() {
		select {
		case c.lines <- bytes.Clone(lines.Bytes()):
		case <-c.gone:
			return
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		c.readErr = fmt.Errorf("%w: an answer over %d bytes", ErrProtocol, MaxLine)
	case err != nil:
		c.readErr = fmt.Errorf("%w: %w", ErrEnded, err)
	default:
		c.readErr = ErrEnded
	}
}

// wireAnswer is an answer whose lists have not been decoded yet, so that their lengths can be bounded.
type wireAnswer struct {
	Pending *bot.Pending `json:"pending"`
	State   *struct {
		Schema           int             `json:"schema"`
		Readable         bool            `json:"readable"`
		SelfKeys         json.RawMessage `json:"self_keys"`
		PublicKeys       json.RawMessage `json:"public_keys"`
		InviteNumbers    json.RawMessage `json:"invite_numbers"`
		AuthTokens       json.RawMessage `json:"auth_tokens"`
		BroadcastSecrets json.RawMessage `json:"broadcast_secrets"`
	} `json:"state"`
	Error         string `json:"error"`
	UnknownSchema bool   `json:"unknown_schema"`
}

func parseAnswer(line []byte) (wireAnswer, error) {
	var a wireAnswer
	if err := json.Unmarshal(line, &a); err != nil {
		return wireAnswer{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	switch {
	case a.UnknownSchema:
		return wireAnswer{}, fmt.Errorf("%w: %w: %q", ErrReader, ErrSchema, clip(a.Error))
	case a.Error != "":
		return wireAnswer{}, fmt.Errorf("%w: %q", ErrReader, clip(a.Error))
	}
	return a, nil
}

func parsePending(line []byte) (bot.Pending, error) {
	a, err := parseAnswer(line)
	if err != nil {
		return bot.Pending{}, err
	}
	if a.Pending == nil {
		return bot.Pending{}, fmt.Errorf("%w: no pending in the answer", ErrProtocol)
	}
	p := *a.Pending
	for _, n := range []int{p.SMTP, p.Status, p.Download, p.PostMsgs, p.IMAPQueue} {
		if n < 0 || n > 4*maxCount {
			return bot.Pending{}, fmt.Errorf("%w: a count of %d", ErrProtocol, n)
		}
	}
	return p, nil
}

func parseState(line []byte) (bot.AccountState, error) {
	a, err := parseAnswer(line)
	if err != nil {
		return bot.AccountState{}, err
	}
	if a.State == nil || a.State.Schema < 0 || a.State.Schema > maxSchema {
		return bot.AccountState{}, fmt.Errorf("%w: no state, or no schema in it", ErrProtocol)
	}
	in, left := a.State, maxTotal
	s := bot.AccountState{Schema: in.Schema, Readable: in.Readable}
	err = errors.Join(
		parseList(&s.SelfKeys, in.SelfKeys, maxSelfKeys, &left, keySize),
		parseList(&s.PublicKeys, in.PublicKeys, maxPublicKeys, &left, keySize),
		parseList(&s.InviteNumbers, in.InviteNumbers, maxTokens, &left, wordSize),
		parseList(&s.AuthTokens, in.AuthTokens, maxTokens, &left, wordSize),
		parseList(&s.BroadcastSecrets, in.BroadcastSecrets, maxTokens, &left, wordSize),
	)
	if err != nil {
		return bot.AccountState{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return s, nil
}

// parseList decodes at most count elements; size says how many bytes one takes of left, or that it may not be.
func parseList[T any](list *[]T, raw json.RawMessage, count int, left *int, size func(T) (int, bool)) error {
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return errors.New("a list was expected")
	}
	for d.More() {
		var element T
		if err := d.Decode(&element); err != nil {
			return err
		}
		n, ok := size(element)
		if *left -= n; !ok || *left < 0 || len(*list) == count {
			return errors.New("a list has too many elements, or an element is not as it must be")
		}
		*list = append(*list, element)
	}
	return nil
}

func keySize(key []byte) (int, bool) { return len(key), 0 < len(key) && len(key) <= maxKey }

func wordSize(word string) (int, bool) { return len(word), isWord(word) }

// isWord reports whether s may be a token or a secret: visible ASCII, as in an invite link.
func isWord(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return 0 < len(s) && len(s) <= maxToken
}

// clip bounds an error's text.
func clip(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), maxError)], "")
}
