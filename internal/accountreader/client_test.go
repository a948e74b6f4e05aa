package accountreader

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// answering is a Client whose reader is the test.
func answering(t *testing.T, answer string) *Client {
	t.Helper()
	fromClient, toReader := io.Pipe()
	fromReader, toClient := io.Pipe()
	c := NewClient(toReader, fromReader)
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		_, _ = bufio.NewReader(fromClient).ReadBytes('\n')
		_, _ = io.WriteString(toClient, answer)
		_ = toClient.Close()
	}()
	return c
}

func state(fields string) string {
	return `{"state":{"schema":167,"readable":true` + fields + `}}` + "\n"
}

// The reader has read what foreign mail has shaped: nothing that it writes is taken on trust.
func TestHostileAnswers(t *testing.T) {
	bigKey := `"` + strings.Repeat("AAAA", maxKey/3+1) + `"`
	keys := func(n int, key string) string { return "[" + strings.Repeat(key+",", n-1) + key + "]" }
	fullKey := `"` + strings.Repeat("AAAA", maxKey/3) + `"`
	for _, test := range []struct {
		name, answer string
		want         error
	}{
		{"error", `{"error":"database disk image is malformed"}` + "\n", ErrReader},
		{"unknown schema", `{"error":"schema 170","unknown_schema":true}` + "\n", ErrSchema},
		{"not JSON", "hello\n", ErrProtocol},
		{"another answer", `{"pending":{}}` + "\n", ErrProtocol},
		{"negative schema", `{"state":{"schema":-1}}` + "\n", ErrProtocol},
		{"schema out of range", `{"state":{"schema":99999999}}` + "\n", ErrProtocol},
		{"no list", state(`,"public_keys":"AAAA"`), ErrProtocol},
		{"no base64", state(`,"public_keys":["?"]`), ErrProtocol},
		{"empty key", state(`,"public_keys":[""]`), ErrProtocol},
		{"key too big", state(`,"public_keys":[` + bigKey + `]`), ErrProtocol},
		{"too many keys", state(`,"public_keys":` + keys(maxPublicKeys+1, `"AA=="`)), ErrProtocol},
		{"too many own keys", state(`,"self_keys":` + keys(maxSelfKeys+1, `"AA=="`)), ErrProtocol},
		{"too many bytes", state(`,"public_keys":` + keys(maxTotal/maxKey+1, fullKey)), ErrProtocol},
		{"token with a line end", state(`,"auth_tokens":["a\nb"]`), ErrProtocol},
		{"token too long", state(`,"auth_tokens":["` + strings.Repeat("x", maxToken+1) + `"]`), ErrProtocol},
		{"too many tokens", state(`,"invite_numbers":` + keys(maxTokens+1, `"x"`)), ErrProtocol},
		{"line too long", `{"error":"` + strings.Repeat("x", MaxLine) + `"}` + "\n", ErrProtocol},
		{"no answer", "", ErrEnded},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := answering(t, test.answer).State(t.Context())
			if !errors.Is(err, test.want) || s.Readable || len(err.Error()) > 3*maxError {
				t.Errorf("got %+v, %.200v; want %v", s, err, test.want)
			}
		})
	}
	for _, answer := range []string{`{"pending":{"smtp":-1}}`, `{"pending":{"imap":999999999999}}`, `{"state":{}}`, `{}`, `null`} {
		if p, err := answering(t, answer+"\n").Pending(t.Context()); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: got %+v, %v", answer, p, err)
		}
	}
}

// An endless error text must reach neither a log nor a terminal as it is.
func TestErrorTextIsQuotedAndBounded(t *testing.T) {
	_, err := answering(t, `{"error":"a\u001b[2J`+strings.Repeat("ä", 100_000)+`"}`+"\n").State(t.Context())
	if err == nil || len(err.Error()) > 3*maxError || strings.ContainsRune(err.Error(), '\x1b') {
		t.Errorf("got %.100q, %d bytes", err, len(fmt.Sprint(err)))
	}
}

func TestContextEndsAnAsk(t *testing.T) {
	fromClient, toReader := io.Pipe()
	fromReader, _ := io.Pipe()
	go func() { _, _ = io.ReadAll(fromClient) }()
	for name, stdin := range map[string]io.WriteCloser{"the reader is silent": toReader, "the reader does not read": blocked(t)} {
		c := NewClient(stdin, fromReader)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, err := c.Pending(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
		if _, err := c.Pending(t.Context()); !errors.Is(err, ErrEnded) {
			t.Errorf("%s, asked again: %v", name, err)
		}
	}
}

func blocked(t *testing.T) io.WriteCloser {
	r, w := io.Pipe()
	t.Cleanup(func() { _ = r.Close() })
	return w
}

// checkParsed holds what an answer that was taken must be.
func checkParsed(t *testing.T, line []byte) {
	t.Helper()
	p, err := parsePending(line)
	if err == nil && (p.SMTP < 0 || p.IMAPQueue < 0 || p.SMTP > 4*maxCount) {
		t.Errorf("pending %+v", p)
	}
	s, err := parseState(line)
	if err != nil {
		return
	}
	total := 0
	for _, key := range append(s.SelfKeys, s.PublicKeys...) {
		total += len(key)
	}
	for _, word := range append(append(s.InviteNumbers, s.AuthTokens...), s.BroadcastSecrets...) {
		total += len(word)
		if strings.ContainsAny(word, " \r\n\x00") || word == "" {
			t.Errorf("token %q", word)
		}
	}
	if total > maxTotal || len(s.PublicKeys) > maxPublicKeys || len(s.AuthTokens) > maxTokens {
		t.Errorf("%d bytes, %d keys, %d tokens", total, len(s.PublicKeys), len(s.AuthTokens))
	}
}

func FuzzAnswer(f *testing.F) {
	for _, line := range []string{
		`{"pending":{"smtp":1,"smtp_status_updates":0,"download":0,"available_post_msgs":0,"imap":0}}`,
		`{"state":{"schema":167,"readable":true,"self_keys":["xVg="],"public_keys":["xjM=","AA=="],"invite_numbers":["i"],"auth_tokens":["a"],"broadcast_secrets":null}}`,
		`{"error":"x"}`, `{"error":"x","unknown_schema":true}`, `{"state":{"public_keys":[`, `{"state":{"public_keys":{}}}`, `{"pending":{"smtp":1e9}}`, `[]`, `{"state":{"auth_tokens":[1,null]}}`,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) { checkParsed(t, line) })
}
