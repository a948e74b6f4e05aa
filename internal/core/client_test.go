package core

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

// peer is a client whose core is the test: it reads requests and writes answer lines.
func peer(t *testing.T) (c *Client, requests *bufio.Reader, answers *io.PipeWriter) {
	t.Helper()
	fromClient, toCore := io.Pipe()
	fromCore, toClient := io.Pipe()
	c = New(toCore, fromCore)
	t.Cleanup(func() {
		_ = c.Close()
		_ = toClient.Close()
	})
	return c, bufio.NewReader(fromClient), toClient
}

func TestRequestLine(t *testing.T) {
	c, requests, answers := peer(t)
	go func() {
		_ = c.Call(t.Context(), "get_chat_securejoin_qr_code", nil, AccountID(1), nil)
		_ = c.Call(t.Context(), "get_system_info", nil)
	}()
	for _, want := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"get_chat_securejoin_qr_code","params":[1,null]}`,
		`{"jsonrpc":"2.0","id":2,"method":"get_system_info","params":[]}`,
	} {
		line, err := requests.ReadString('\n')
		if err != nil || line != want+"\n" {
			t.Fatalf("sent %q, %v, want %s", line, err, want)
		}
		fmt.Fprintf(answers, `{"jsonrpc":"2.0","id":%d,"result":null}`+"\n", strings.Count(want, `"id":2`)+1)
	}
}

func TestAnswersMayComeInAnyOrder(t *testing.T) {
	c, requests, answers := peer(t)
	var calls sync.WaitGroup
	for n := range 10 {
		calls.Go(func() {
			var got int
			if err := c.Call(t.Context(), "echo", &got, n); err != nil || got != n {
				t.Errorf("asked with %d, answered with %d, %v", n, got, err)
			}
		})
	}
	var taken []request
	for range 10 {
		line, err := requests.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		var r request
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		taken = append(taken, r)
	}
	fmt.Fprintln(answers, `{"jsonrpc":"2.0","id":4711,"result":"nobody asked"}`)
	for i := range taken {
		r := taken[len(taken)-1-i]
		fmt.Fprintf(answers, `{"jsonrpc":"2.0","id":%d,"result":%s}`+"\n", r.ID, strings.Trim(string(r.Params), "[]"))
	}
	calls.Wait()
	if len(c.waiting) != 0 {
		t.Errorf("%d calls are still kept", len(c.waiting))
	}
}

func TestWhatFailsTheClient(t *testing.T) {
	long := `{"id":1,"result":"` + strings.Repeat("x", MaxLine) + `"}` + "\n"
	for _, test := range []struct {
		name, line string
		want       error
	}{
		{"not JSON", "hello\n", ErrProtocol},
		{"no object", "[]\n", ErrProtocol},
		{"no id", `{"jsonrpc":"2.0","error":{"code":-32700,"message":"Parse error"}}` + "\n", ErrProtocol},
		{"id of another type", `{"id":"1","result":1}` + "\n", ErrProtocol},
		{"line too long", long, ErrProtocol},
		{"end", "", ErrEnded},
		{"end amid a line", `{"id":1,`, ErrProtocol},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, requests, answers := peer(t)
			go func() {
				_, _ = requests.ReadBytes('\n')
				_, _ = io.WriteString(answers, test.line)
				_ = answers.Close()
			}()
			if err := c.Call(t.Context(), "anything", nil); !errors.Is(err, test.want) {
				t.Errorf("the call that waited: %v, want %v", err, test.want)
			}
			if err := c.Call(t.Context(), "anything", nil); !errors.Is(err, test.want) {
				t.Errorf("a later call: %v, want %v", err, test.want)
			}
		})
	}
}

// TestAnAnswerThatIsTooLargeFailsItsCall, and no other: a bot can make core write one.
func TestAnAnswerThatIsTooLargeFailsItsCall(t *testing.T) {
	c, requests, answers := peer(t)
	go func() {
		for _, result := range []string{strings.Repeat("x", MaxLine), strings.Repeat("y", MaxLine-100)} {
			line, err := requests.ReadBytes('\n')
			var r request
			if err != nil || json.Unmarshal(line, &r) != nil {
				return
			}
			fmt.Fprintf(answers, `{"jsonrpc":"2.0","id":%d,"result":"%s"}`+"\n", r.ID, result)
		}
	}()
	var wrong *Error
	if err := c.Call(t.Context(), "large", nil); !errors.As(err, &wrong) || !strings.Contains(wrong.Message, fmt.Sprint("the answer is larger than ", MaxLine, " bytes")) {
		t.Errorf("a large answer: %v", err)
	}
	if raw, err := c.Raw(t.Context(), "smaller", json.RawMessage("[]")); err != nil || len(raw) != MaxLine-98 {
		t.Errorf("the next: %d bytes, %v", len(raw), err)
	}
}

func TestCoreThatDoesNotReadBlocksNoCall(t *testing.T) {
	c, _, _ := peer(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	var calls sync.WaitGroup
	for range 3 { // one is being written, the others wait for their turn
		calls.Go(func() {
			if err := c.Call(ctx, "anything", nil); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
	}
	calls.Wait()
}

func TestResultOfAnotherTypeIsAnError(t *testing.T) {
	c, requests, answers := peer(t)
	go func() {
		_, _ = requests.ReadBytes('\n')
		fmt.Fprintln(answers, `{"id":1,"result":"text"}`)
	}()
	if _, err := c.AddAccount(t.Context()); !errors.Is(err, ErrProtocol) {
		t.Errorf("got %v", err)
	}
}

func TestEventFields(t *testing.T) {
	for _, test := range []struct {
		line string
		want Event
	}{
		{`{"contextId":1,"event":{"kind":"IncomingMsg","chatId":12,"msgId":34}}`, Event{AccountID: 1, Kind: IncomingMsg, ChatID: 12, MsgID: 34}},
		{`{"contextId":1,"event":{"kind":"IncomingReaction","chatId":10,"contactId":11,"msgId":16,"reaction":"👍"}}`,
			Event{AccountID: 1, Kind: IncomingReaction, ChatID: 10, MsgID: 16, ContactID: 11, Reaction: "👍"}},
		{`{"contextId":1,"event":{"kind":"ContactsChanged","contactId":null}}`, Event{AccountID: 1, Kind: "ContactsChanged"}},
		{`{"contextId":1,"event":{"kind":"SecurejoinInviterProgress","chatId":10,"chatType":"Single","contactId":11,"progress":1000}}`,
			Event{AccountID: 1, Kind: InviterProgress, ChatID: 10, ContactID: 11, Progress: 1000}},
		{`{"contextId":1,"event":{"kind":"WebxdcStatusUpdate","msgId":21,"statusUpdateSerial":1}}`, Event{AccountID: 1, Kind: WebxdcStatusUpdate, MsgID: 21, Serial: 1}},
		{`{"contextId":1,"event":{"kind":"CallEnded","msg_id":5,"chat_id":6}}`, Event{AccountID: 1, Kind: "CallEnded", ChatID: 6, MsgID: 5}},
		{`{"contextId":0,"event":{"kind":"EventChannelOverflow","n":7}}`, Event{Kind: EventChannelOverflow, Dropped: 7}},
		{`{"contextId":1,"event":{"kind":"Info","msg":"log"}}`, Event{AccountID: 1, Kind: "Info", Msg: "log"}},
	} {
		var got Event
		if err := json.Unmarshal([]byte(test.line), &got); err != nil {
			t.Errorf("%s: %v", test.line, err)
			continue
		}
		if !strings.Contains(test.line, string(got.Raw)) || len(got.Raw) == 0 {
			t.Errorf("%s: raw is %s", test.line, got.Raw)
		}
		got.Raw = nil
		if fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%s: got %+v, want %+v", test.line, got, test.want)
		}
	}
}

func TestEventsComeInOrderUntilCoreWritesSomethingElse(t *testing.T) {
	for _, last := range []string{`{}`, `[{}]`, `[{"contextId":-1,"event":{}}]`, `["IncomingMsg"]`} {
		c, requests, answers := peer(t)
		go func() {
			for id, batch := range []string{`[{"contextId":1,"event":{"kind":"A"}},{"contextId":1,"event":{"kind":"B"}}]`, `[]`, `[{"contextId":1,"event":{"kind":"C"}}]`, last} {
				_, _ = requests.ReadBytes('\n')
				fmt.Fprintf(answers, `{"id":%d,"result":%s}`+"\n", id+1, batch)
			}
		}()
		var kinds string
		for e := range c.Events(t.Context()) {
			kinds += e.Kind
		}
		if err := c.Call(t.Context(), "anything", nil); kinds != "ABC" || !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: events %s, then %v", last, kinds, err)
		}
	}
}

func TestReactions(t *testing.T) {
	var r Reactions
	err := json.Unmarshal([]byte(`{"reactionsByContact":{"1":["👍"],"11":["👍","🎉"]},"reactions":[{"emoji":"👍","count":2,"isFromSelf":true}]}`), &r)
	if err != nil || len(r.ByContact) != 2 || r.ByContact[11][1] != "🎉" || len(r.Total) != 1 || r.Total[0] != (Reaction{"👍", 2, true}) {
		t.Errorf("got %+v, %v", r, err)
	}
	for _, bad := range []string{`{"reactionsByContact":{"x":[]}}`, `[]`, `{"reactions":[` + strings.Repeat("{},", maxReactions/3) + `{}]}`} {
		if err := json.Unmarshal([]byte(bad), &r); err == nil {
			t.Errorf("%.60s is accepted", bad)
		}
	}
}

// FuzzAnswer feeds what core could write: the feed of events must end, and the client with it.
func FuzzAnswer(f *testing.F) {
	for _, line := range []string{
		`{"jsonrpc":"2.0","id":1,"result":[{"contextId":1,"event":{"kind":"IncomingMsg","chatId":12,"msgId":34}}]}`,
		`{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no such account"}}`,
		`{"id":1,"result":null}`, `{"id":1}`, `{"id":2,"result":[]}`, `{"id":1,"result":[{"event":{}}]}`, `{"id":1,"result":[{"contextId":-1}]}`,
		`[{"id":1}]`, `null`, "{\"id\":1,\"result\":[]}\n\n", "\xff",
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		c, requests, answers := peer(t)
		go func() {
			_, _ = requests.ReadBytes('\n')
			_, _ = answers.Write(append(line, '\n'))
			_ = answers.Close()
		}()
		for e := range c.Events(t.Context()) {
			if len(e.Raw) > len(line) {
				t.Errorf("event %+v is longer than the line", e)
			}
		}
		if err := c.Call(t.Context(), "anything", nil); !errors.Is(err, ErrProtocol) && !errors.Is(err, ErrEnded) {
			t.Errorf("got %v", err)
		}
	})
}
