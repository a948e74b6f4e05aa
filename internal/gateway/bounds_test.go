package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestLinesThatAreNoCalls: JSON-RPC permits batches, ids of any kind and calls without one; core's clients write neither.
func TestLinesThatAreNoCalls(t *testing.T) {
	get := `{"id":1,"method":"get_message","params":[7,5]}`
	for line, want := range map[string]string{
		`[` + get + `,` + get + `]`: `"id":null,"error":{"code":-32600,"message":"a batch of calls is refused: write each call in a line of its own"}`,
		` []`:                       `"id":null,"error":{"code":-32600`,
		`"x"`:                       `"id":null,"error":{"code":-32600,"message":"a call is an object`,
		` null`:                     `"id":null,"error":{"code":-32600`,
		"\n \t\r\n" + `{"id":1,"method":"is_configured","params":[7]}`:              `"id":1,"result":true`,
		`{"id":{"a":1},"method":"get_message","params":[7,5]}`:                      `"id":null,"error":{"code":-32600,"message":"the id of a call is`,
		`{"id":[1],"method":"get_message","params":[7,5]}`:                          `"id":null,"error":{"code":-32600`,
		`{"id":true,"method":"get_message","params":[7,5]}`:                         `"id":null,"error":{"code":-32600`,
		`{"id":1.5,"method":"is_configured","params":[7]}`:                          `"id":1.5,"result":true`,
		`{"id":"a","method":"is_configured","params":[7]}`:                          `"id":"a","result":true`,
		`{"id":1,"id":2,"method":"send_msg","method":"is_configured","params":[7]}`: `"id":2,"result":true`,
		`{"id":1,"result":7}`: `"code":-32601`,
		`{"id":1,"method":"get_message","params":{"accountId":7,"msgId":5}}`: `want an array of 2 parameters`,
		`{"id":1,"method":"get_message","params":"7"}`:                       `want an array of 2 parameters`,
		`{"id":1,"method":"get_message","params":[7,5.0]}`:                   `want a uint32`,
		`{"id":1,"method":"get_message","params":[7,4294967296]}`:            `want a uint32`,
		`{"id":1,"method":"get_message","params":[7,1e400]}`:                 `want a uint32`,
		`{"id":1,"method":"is_configured","params":[7],"more":[[[]]]}`:       `"result":true`,
	} {
		core := &recorder{}
		answers, err := exchange(t, core, nil, line)
		if err != nil || len(answers) != 1 || !strings.Contains(answers[0], want) || len(core.reached()) > 0 {
			t.Errorf("%s: %v, %v, core got %v; want %s", line, answers, err, core.reached(), want)
		}
	}
}

// TestWhatCoreGetsIsWrittenAnew: of a key that is there twice, or in another case, core and the gateway cannot think differently.
func TestWhatCoreGetsIsWrittenAnew(t *testing.T) {
	core := &recorder{}
	_, err := exchange(t, core, nil, `{"id":1,"method":"send_msg","params":[ 7, 12, {"FILE":"/etc/passwd","file":"","text":"a","Text":"b"} ]}`)
	want := `send_msg[7,12,{"text":"b","html":null,"viewtype":null,"file":null,"filename":null,"quotedMessageId":null,"quotedText":null}]`
	if got := core.reached(); err != nil || len(got) != 1 || got[0] != want {
		t.Errorf("core got %v, want %s (%v)", got, want, err)
	}
}

// TestFloodsOfLinesEnd: lines that make no call cost the host time too.
func TestFloodsOfLinesEnd(t *testing.T) {
	for name, line := range map[string]string{
		"unknown methods": `{"id":1,"method":"x"}`, "refused ones": `{"id":1,"method":"configure"}`, "notifications": `{"method":"x"}`,
		"batches": `[]`, "waiting": `{"id":1,"method":"get_next_event"}`,
	} {
		lines := strings.Split(strings.Repeat(line+"\n", 101), "\n")
		_, err := exchange(t, &recorder{}, func(o *Options) { o.Limits.Lines = 100 }, lines[:101]...)
		if !errors.Is(err, ErrLine) || !strings.Contains(err.Error(), "more than 100 lines") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := exchange(t, &recorder{}, func(o *Options) { o.Limits.Lines = 100 }, lines[:100]...); err != nil {
			t.Errorf("%s, as many as may be: %v", name, err)
		}
	}
	long := `{"method":"` + strings.Repeat("x", 90) + `"}`
	if _, err := exchange(t, &recorder{}, func(o *Options) { o.Limits.Input = 1000 }, strings.Split(strings.Repeat(long+"\n", 11), "\n")[:11]...); !errors.Is(err, ErrLine) {
		t.Errorf("bytes: %v", err)
	}
}

// TestWhatIsKeptIsBounded: drafts and ui.* keys stay in core's account, run after run.
func TestWhatIsKeptIsBounded(t *testing.T) {
	set := func(key, value string) string {
		return fmt.Sprintf(`{"id":1,"method":"set_config","params":[7,%q,%q]}`, key, value)
	}
	draft := `{"id":1,"method":"misc_set_draft","params":[7,13,"0123456789",null,null,null,null]}`
	core := func() *recorder {
		return &recorder{answers: map[string]string{"get_all_ui_config_keys": `["ui.a","ui.b"]`}}
	}
	for _, test := range []struct {
		name, want string
		change     func(*Limits)
		lines      []string
		written    int
	}{
		{"bytes of keys", "more than 15 bytes of drafts", func(l *Limits) { l.State = 15 }, []string{set("ui.a", "0123456789"), set("ui.a", "012345")}, 1},
		{"bytes of drafts", "more than 15 bytes of drafts", func(l *Limits) { l.State = 15 }, []string{draft, draft}, 1},
		{"keys", "the account has 3 ui.* keys", func(l *Limits) { l.Keys = 3 }, []string{set("ui.a", "1"), set("ui.c", "1"), set("ui.d", "1")}, 2},
		{"keys, in a batch", "the account has 3 ui.* keys", func(l *Limits) { l.Keys = 3 },
			[]string{`{"id":1,"method":"batch_set_config","params":[7,{"ui.c":"1","ui.d":"1"}]}`}, 1},
		{"a key that goes", `"result":null`, func(l *Limits) { l.Keys = 0 }, []string{set("ui.d", "")}, 1},
		{"names", "more than 1 messages", func(l *Limits) { l.Sends = 1 }, []string{set("displayname", "a"), set("displayname", "b")}, 1},
		{"groups", "more than 1 messages", func(l *Limits) { l.Sends = 1 },
			[]string{`{"id":1,"method":"create_group_chat","params":[7,"a",false]}`, `{"id":1,"method":"create_broadcast","params":[7,"a"]}`}, 1},
		{"files", "more than 60 bytes of files", func(l *Limits) { l.Files = 60 }, []string{set("selfavatar", "/tmp/out/a.png")}, 0},
	} {
		c := core()
		answers, err := exchange(t, c, func(o *Options) { o.Limits.InFlight = 1; test.change(&o.Limits) }, test.lines...)
		written := 0
		for _, call := range c.reached() {
			if strings.HasPrefix(call, "set_config") || strings.HasPrefix(call, "misc_set") || strings.HasPrefix(call, "create") {
				written++
			}
		}
		all := strings.Join(answers, "\n")
		if name := test.name; err != nil || written != test.written || !strings.Contains(all, test.want) && name != "files" || name == "files" && !strings.Contains(all, "too large") {
			t.Errorf("%s: %v, %v, core got %v; want %q and %d", name, answers, err, c.reached(), test.want, test.written)
		}
	}
}

// TestFilesOfOneRunAreBounded: each of them may be sent many times.
func TestFilesOfOneRunAreBounded(t *testing.T) {
	send := `{"id":1,"method":"send_msg","params":[7,12,{"file":"/tmp/out/a.png"}]}`
	core := &recorder{}
	answers, err := exchange(t, core, func(o *Options) { o.Limits.Files = 2 * minFile }, send, send, send)
	if err != nil || len(core.reached()) != 2 || !strings.Contains(strings.Join(answers, "\n"), "bytes of files in one run") {
		t.Errorf("%v, %v, core got %v", answers, err, core.reached())
	}
}

// TestOneInviteForEachChat: core would make new tokens each time, and keep them for ever.
func TestOneInviteForEachChat(t *testing.T) {
	core := &recorder{answers: map[string]string{"get_chat_securejoin_qr_code": `"https://i.delta.chat/#y"`, "create_qr_svg": `"<svg/>"`}}
	code := `{"id":1,"method":"get_chat_securejoin_qr_code","params":[7,12]}`
	answers, err := exchange(t, core, nil, code, code, strings.Replace(code, "_code", "_code_svg", 1))
	asked := strings.Count(strings.Join(core.reached(), "\n"), "get_chat_securejoin_qr_code")
	if all := strings.Join(answers, "\n"); err != nil || asked != 1 || strings.Count(all, "#y") != 3 || !strings.Contains(all, `["https://i.delta.chat/#y","`) {
		t.Errorf("%v, %v, core was asked %d times", answers, err, asked)
	}
}

// TestAGroupIsNoMessage: the id of a new group is not that of a message that the bot sent, and may touch.
func TestAGroupIsNoMessage(t *testing.T) {
	core := &recorder{answers: map[string]string{"create_group_chat": "41", "get_message": `{"chatId":99}`}}
	answers, err := exchange(t, core, func(o *Options) { o.Limits.InFlight = 1 }, `{"id":1,"method":"create_group_chat","params":[7,"a",false]}`,
		`{"id":2,"method":"send_reaction","params":[7,41,["x"]]}`)
	if err != nil || !strings.Contains(strings.Join(answers, "\n"), "chat 99 is not the one") {
		t.Errorf("%v, %v", answers, err)
	}
}

// stuck is the stream of a bot that does not read.
type stuck struct{ release chan struct{} }

func (s stuck) Write(b []byte) (int, error) {
	<-s.release
	return len(b), nil
}

func heap() uint64 {
	runtime.GC()
	runtime.GC() // the first leaves what lies in pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestABotThatDoesNotReadHoldsLittle has as many calls in flight as may be, each with the largest answer, and reads none.
func TestABotThatDoesNotReadHoldsLittle(t *testing.T) {
	core := &recorder{answers: map[string]string{"get_message_html": `"` + strings.Repeat("x", 3<<20) + `"`}}
	out := stuck{make(chan struct{})}
	limits := DefaultLimits()
	g := New(Options{Core: core, Account: 7, CorePaths: "/account/x/", Limits: limits, Notify: func(string, json.RawMessage) {}})
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx, r, out) }()
	go func() {
		for i := range 1000 {
			if _, err := fmt.Fprintf(w, `{"id":%d,"method":"get_message_html","params":[7,5]}`+"\n", i); err != nil {
				return
			}
		}
	}()
	for start := time.Now(); len(core.reached()) < limits.InFlight && time.Since(start) < 30*time.Second; {
		time.Sleep(time.Millisecond)
	}
	for start := time.Now(); g.unread.Load() < 6<<20 && time.Since(start) < 30*time.Second; {
		time.Sleep(time.Millisecond)
	}
	held := heap()
	for start := time.Now(); held > 32<<20 && time.Since(start) < 30*time.Second; held = heap() {
		time.Sleep(10 * time.Millisecond)
	}
	if n := len(core.reached()); n != limits.InFlight {
		t.Errorf("%d calls reached core, want %d", n, limits.InFlight)
	}
	if g.unread.Load() > limits.Unread+1<<20 || held > 32<<20 {
		t.Errorf("%d bytes wait for the bot, and the heap has %d", g.unread.Load(), held)
	}
	cancel()
	close(out.release)
	r.Close()
	<-served
	if g.unread.Load() != 0 {
		t.Errorf("%d bytes are unread after the end", g.unread.Load())
	}
}
