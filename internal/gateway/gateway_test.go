package gateway

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

// recorder stands where core is and keeps what reached it.
type recorder struct {
	mu      sync.Mutex
	calls   []string
	answers map[string]string
	block   chan struct{} // when set, calls wait for it
	dead    chan struct{} // what Done returns
}

func (r *recorder) Raw(ctx context.Context, method string, params json.RawMessage) (json.RawMessage, error) {
	r.mu.Lock()
	r.calls = append(r.calls, method+string(params))
	block := r.block
	r.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if a, ok := r.answers[method]; ok {
		if strings.HasPrefix(a, "error:") {
			return nil, errors.New(a)
		}
		return json.RawMessage(a), nil
	}
	return json.RawMessage("null"), nil
}

func (r *recorder) Done() <-chan struct{} { return r.dead }

func (r *recorder) reached() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.calls...)
}

type fileTable struct{}

func (fileTable) Take(_ context.Context, path, name string, max int64) (string, int64, error) {
	const size = 1000
	switch {
	case path != "/tmp/out/a.png":
		return "", 0, errors.New("no such file in the sandbox")
	case max < size:
		return "", 0, errors.New("too large")
	}
	return "/files/1", size, nil
}

func (fileTable) Show(path string) (string, bool) {
	return "/attachments/in.png", path == "/account/x/dc.db-blobs/in.png"
}

// exchange sends lines and returns the answers, one for each line with an id.
func exchange(t *testing.T, core *recorder, change func(*Options), lines ...string) ([]string, error) {
	t.Helper()
	opts := Options{
		Core: core, Files: fileTable{}, Account: 7, Chats: []uint32{12}, CorePaths: "/account/x/",
		Limits: DefaultLimits(), Notify: func(string, json.RawMessage) {},
	}
	if change != nil {
		change(&opts)
	}
	var out strings.Builder
	err := New(opts).Serve(t.Context(), strings.NewReader(strings.Join(lines, "\n")+"\n"), &out)
	return strings.Split(strings.TrimSpace(out.String()), "\n"), err
}

func TestCalls(t *testing.T) {
	for _, test := range []struct {
		name, line string
		core       string // what reaches core; empty: nothing
		answer     string // what the answer holds
	}{
		{"a look-up gets the bot's own account", `{"id":1,"method":"get_message","params":[99,5]}`, `get_message[7,5]`, `"result":{"chatId":12}`},
		{"a message to the chat of the run", `{"id":1,"method":"send_msg","params":[7,12,{"text":"hi"}]}`, `send_msg[7,12,`, `"result"`},
		{"a message to another chat", `{"id":1,"method":"send_msg","params":[7,13,{"text":"hi"}]}`, "", "chat 13 is not the one that woke the bot"},
		{"a file becomes core's private copy", `{"id":1,"method":"send_msg","params":[7,12,{"file":"/tmp/out/a.png"}]}`, `"file":"/files/1","filename":"a.png"`, `"result"`},
		{"a file that is not the bot's", `{"id":1,"method":"send_msg","params":[7,12,{"file":"/etc/passwd"}]}`, "", "no such file in the sandbox"},
		{"a file name that is a path", `{"id":1,"method":"send_msg","params":[7,12,{"file":"/tmp/out/a.png","filename":"../x"}]}`, "", "no slash"},
		{"a field that only core's owner may set", `{"id":1,"method":"send_msg","params":[7,12,{"text":"a","location":[1,2]}]}`, "", "location"},
		{"too long a text", `{"id":1,"method":"misc_send_text_message","params":[7,12,"` + strings.Repeat("x", 100_001) + `"]}`, "", "at most 100000"},
		{"the password", `{"id":1,"method":"get_config","params":[7,"mail_pw"]}`, "", `get_config: the key \"mail_pw\" is refused: it would show`},
		{"a method that nobody decided on", `{"id":1,"method":"brand_new","params":[]}`, "", "brand_new: this host does not offer"},
		{"too few parameters", `{"id":1,"method":"get_message","params":[7]}`, "", "want an array of 2 parameters"},
		{"parameters by name", `{"id":1,"method":"get_message","params":{"accountId":7}}`, "", "want an array of 2 parameters"},
		{"a string for an id", `{"id":1,"method":"get_message","params":[7,"5"]}`, "", "parameter 2: want a uint32"},
		{"a negative id", `{"id":1,"method":"get_message","params":[7,-5]}`, "", "parameter 2: want a uint32"},
		{"null for an id", `{"id":1,"method":"get_message","params":[7,null]}`, "", "parameter 2: want a uint32"},
		{"an edit in another chat", `{"id":1,"method":"send_edit_request","params":[7,5,"x"]}`, "get_message[7,5]", "chat 99 is not the one"},
		{"a deletion in another chat", `{"id":1,"method":"delete_messages_for_all","params":[7,[5,6]]}`, "get_message[7,5]", "chat 99 is not the one"},
		{"too many deletions", `{"id":1,"method":"delete_messages_for_all","params":[7,[` + strings.Repeat("5,", 20) + `5]]}`, "", "21 messages, at most 20"},
		{"an app's update in another chat", `{"id":1,"method":"send_webxdc_status_update","params":[7,5,"{}",""]}`, "get_message[7,5]", "chat 99 is not the one"},
		{"too many ids", `{"id":1,"method":"get_messages","params":[7,[` + strings.Repeat("5,", 100) + `5]]}`, "", "101 ids, at most 100"},
		{"ids that are none", `{"id":1,"method":"get_messages","params":[7,[5,"6"]]}`, "", "parameter 2: want a []uint32"},
		{"too long a quote", `{"id":1,"method":"send_msg","params":[7,12,{"quotedText":"` + strings.Repeat("x", 100_001) + `"}]}`, "", "bytes of text, at most 100000"},
		{"too long HTML", `{"id":1,"method":"send_msg","params":[7,12,{"html":"` + strings.Repeat("x", 100_001) + `"}]}`, "", "bytes of text, at most 100000"},
		{"too long a file name", `{"id":1,"method":"send_msg","params":[7,12,{"file":"/tmp/out/a.png","filename":"` + strings.Repeat("x", 201) + `"}]}`, "", "at most 200 bytes"},
		{"a file name without a file", `{"id":1,"method":"send_msg","params":[7,12,{"text":"a","filename":"/etc/passwd"}]}`, `"file":null,"filename":null`, `"result"`},
		{"a reaction that is no list", `{"id":1,"method":"send_reaction","params":[7,5,"x"]}`, "get_message[7,5]", "want a []string"},
		{"an emoji that is a novel", `{"id":1,"method":"send_reaction","params":[7,5,["` + strings.Repeat("x", 65) + `"]]}`, "get_message[7,5]", "65 bytes, at most 64"},
		{"eleven emojis", `{"id":1,"method":"send_reaction","params":[7,5,[` + strings.Repeat(`"x",`, 10) + `"x"]]}`, "get_message[7,5]", "11 strings, at most 10"},
		{"too many emojis", `{"id":1,"method":"send_reaction","params":[7,5,["` + strings.Repeat("x", 65) + `"]]}`, "get_message[7,5]", "chat 99"},
	} {
		t.Run(test.name, func(t *testing.T) {
			core := &recorder{}
			core.answers = map[string]string{"get_message": `{"chatId":12}`}
			if strings.Contains(test.answer, "chat 99") {
				core.answers = map[string]string{"get_message": `{"chatId":99}`}
			}
			answers, err := exchange(t, core, nil, test.line)
			if err != nil {
				t.Fatal(err)
			}
			reached := strings.Join(core.reached(), "\n")
			if test.core == "" && reached != "" || !strings.Contains(reached, test.core) {
				t.Errorf("core got %s, want %q", reached, test.core)
			}
			if !strings.Contains(answers[0], test.answer) {
				t.Errorf("answer %s, want %q in it", answers[0], test.answer)
			}
		})
	}
}

func TestCorePathsAreReplaced(t *testing.T) {
	core := &recorder{answers: map[string]string{
		"get_message": `{"id":18446744073709551615,"file":"/account/x/dc.db-blobs/in.png","text":"/account/x is a path"}`,
		"get_contact": `{"profileImage":"/account/x/dc.db-blobs/face.png"}`,
		"can_send":    `error: cannot open /account/x/dc.db`,
	}}
	for line, want := range map[string]string{
		`{"id":1,"method":"get_message","params":[7,5]}`: `"result":{"file":"/attachments/in.png","id":18446744073709551615,"text":"/account/x is a path"}`,
		`{"id":1,"method":"get_contact","params":[7,5]}`: `"result":{"profileImage":null}`,
		`{"id":1,"method":"can_send","params":[7,5]}`:    `cannot open …/dc.db`,
	} {
		answers, err := exchange(t, core, nil, line)
		if err != nil || !strings.Contains(answers[0], want) {
			t.Errorf("%s: %s, %v, want %s", line, answers[0], err, want)
		}
	}
}

func TestOwnMessagesMayBeEdited(t *testing.T) {
	core := &recorder{answers: map[string]string{"send_msg": "41"}}
	r, w := io.Pipe()
	answers, out := io.Pipe()
	g := New(Options{Core: core, Files: fileTable{}, Account: 7, Chats: []uint32{12}, CorePaths: "/account/x/", Limits: DefaultLimits()})
	go func() { out.CloseWithError(g.Serve(t.Context(), r, out)) }()
	lines := bufio.NewScanner(answers)
	fmt.Fprintln(w, `{"id":1,"method":"send_msg","params":[7,12,{"text":"hi"}]}`)
	lines.Scan()
	fmt.Fprintln(w, `{"id":2,"method":"send_edit_request","params":[7,41,"ho"]}`)
	lines.Scan()
	w.Close()
	if got := strings.Join(core.reached(), " "); !strings.Contains(got, `send_edit_request[7,41,"ho"]`) || strings.Contains(got, "get_message") {
		t.Errorf("core got %s", got)
	}
	if g.Sent() != 2 {
		t.Errorf("Sent is %d, want 2", g.Sent())
	}
}

// TestWhatWasReadIsNotTheBots asks for a message first: that does not make it one that the bot may edit.
func TestWhatWasReadIsNotTheBots(t *testing.T) {
	core := &recorder{answers: map[string]string{"get_message": `{"chatId":99}`, "can_send": "5"}}
	answers, err := exchange(t, core, func(o *Options) { o.Limits.InFlight = 1 },
		`{"id":1,"method":"can_send","params":[7,12]}`, `{"id":2,"method":"send_edit_request","params":[7,5,"x"]}`)
	if err != nil || !strings.Contains(strings.Join(answers, "\n"), "chat 99 is not the one") {
		t.Errorf("%v, %v, want a refusal", answers, err)
	}
}

func TestReactionsCountAsMessages(t *testing.T) {
	react := `{"id":1,"method":"send_reaction","params":[7,5,["x"]]}`
	core := &recorder{answers: map[string]string{"get_message": `{"chatId":12}`}}
	answers, err := exchange(t, core, func(o *Options) { o.Limits.Sends = 1 }, react, react)
	if err != nil || !strings.Contains(strings.Join(answers, "\n"), "more than 1 messages in one run") {
		t.Errorf("%v, %v, want the limit", answers, err)
	}
}

func TestLimits(t *testing.T) {
	send := `{"id":1,"method":"send_msg","params":[7,12,{"text":"hi"}]}`
	for _, test := range []struct {
		name   string
		change func(*Options)
		lines  []string
		want   string
	}{
		{"calls", func(o *Options) { o.Limits.Calls = 2 }, []string{send, send, send}, "more than 2 calls in one run"},
		{"messages", func(o *Options) { o.Limits.Sends = 1 }, []string{send, send}, "more than 1 messages in one run"},
		{"answers", func(o *Options) { o.Limits.Answer = 3 }, []string{send}, "larger than 3 bytes"},
		{"all answers", func(o *Options) { o.Limits.Answers, o.Limits.InFlight = 5, 1 }, []string{send, send, send}, "more than 5 bytes of answers in one run"},
	} {
		t.Run(test.name, func(t *testing.T) {
			answers, err := exchange(t, &recorder{}, test.change, test.lines...)
			if err != nil || !strings.Contains(strings.Join(answers, "\n"), test.want) {
				t.Errorf("%v, %v, want %q", answers, err, test.want)
			}
		})
	}
}

func TestBrokenProtocolEndsTheRun(t *testing.T) {
	for name, line := range map[string]string{
		"a line without an end": strings.Repeat("x", 2<<20),
		"not JSON":              "hello",
		"deep nesting":          strings.Repeat("[", 100) + strings.Repeat("]", 100),
		"a long id":             `{"id":"` + strings.Repeat("x", 100) + `","method":"a"}`,
	} {
		core := &recorder{}
		if _, err := exchange(t, core, nil, line); !errors.Is(err, ErrLine) {
			t.Errorf("%s: %v, want ErrLine", name, err)
		}
		if len(core.reached()) > 0 {
			t.Errorf("%s: reached core", name)
		}
	}
}

// TestAsked: a core that had ended before it was called has not died of the call.
func TestAsked(t *testing.T) {
	dead := make(chan struct{})
	close(dead)
	for _, test := range []struct {
		line string
		core *recorder
		want string
	}{
		{`{"id":1,"method":"can_send","params":[7,12]}`, &recorder{}, "can_send"},
		{`{"id":1,"method":"can_send","params":[7,12]}`, &recorder{dead: dead}, ""},
		{`{"id":1,"method":"configure","params":[7]}`, &recorder{}, ""},
		{`{"id":1,"method":"is_configured","params":[7]}`, &recorder{}, ""},
	} {
		g := New(Options{Core: test.core, Account: 7, Limits: DefaultLimits()})
		if err := g.Serve(t.Context(), strings.NewReader(test.line+"\n"), io.Discard); err != nil || g.Asked() != test.want {
			t.Errorf("%s: asked %q, want %q, %v", test.line, g.Asked(), test.want, err)
		}
	}
}

// TestAStreamThatEndsWithinALine is a bot's that died: the line is left out, unless it is whole.
func TestAStreamThatEndsWithinALine(t *testing.T) {
	whole := `{"id":1,"method":"is_configured","params":[7]}`
	for stream, want := range map[string]int{whole: 1, whole + "\n" + whole[:20]: 1, whole[:20]: 0, whole[:20] + "\n": -1} {
		var out strings.Builder
		g := New(Options{Core: &recorder{}, Account: 7, Limits: DefaultLimits()})
		err := g.Serve(t.Context(), strings.NewReader(stream), &out)
		if got := strings.Count(out.String(), `"result":true`); errors.Is(err, ErrLine) != (want < 0) || got != max(want, 0) {
			t.Errorf("%q: %v, %s", stream, err, out.String())
		}
	}
}

func TestCallsInFlightAreBounded(t *testing.T) {
	core := &recorder{block: make(chan struct{})}
	r, w := io.Pipe()
	limits := DefaultLimits()
	limits.InFlight = 3
	g := New(Options{Core: core, Account: 7, CorePaths: "/account/x/", Limits: limits})
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx, r, io.Discard) }()
	go func() {
		for i := range 100 {
			if _, err := fmt.Fprintf(w, `{"id":%d,"method":"get_message","params":[7,5]}`+"\n", i); err != nil {
				return
			}
		}
	}()
	for start := time.Now(); len(core.reached()) < 3 && time.Since(start) < 5*time.Second; {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	if n := len(core.reached()); n != 3 {
		t.Errorf("%d calls reached core at once, want 3", n)
	}
	cancel()
	r.Close()
	<-served
	after := len(core.reached())
	time.Sleep(20 * time.Millisecond)
	if len(core.reached()) != after {
		t.Error("a call reached core after Serve had returned")
	}
}

func TestNotifications(t *testing.T) {
	var got []string
	_, err := exchange(t, &recorder{}, func(o *Options) {
		o.Notify = func(method string, params json.RawMessage) { got = append(got, method+string(params)) }
	}, `{"method":"entered"}`, `{"id":null,"method":"done","params":{"status":"OK"}}`)
	if want := `entered done{"status":"OK"}`; err != nil || strings.Join(got, " ") != want {
		t.Errorf("%v, %v, want %s", got, err, want)
	}
}

// withoutAccount reports whether a call is of a method that takes no account.
func withoutAccount(call string) bool {
	for _, method := range []string{"check_email_validity", "create_qr_svg", "parse_vcard", "get_system_info"} {
		if strings.HasPrefix(call, method) {
			return true
		}
	}
	return false
}

func FuzzServe(f *testing.F) {
	f.Add(`{"id":1,"method":"send_msg","params":[7,12,{"text":"hi","file":"/tmp/out/a.png"}]}`)
	f.Add(`{"id":{"a":[1]},"method":"get_message","params":[[],{}]}`)
	f.Add(`{"method":"done","params":null}`)
	f.Add("[[[[[[[[[[[[[[[[[[[[")
	f.Add(`[{"id":1,"method":"get_message","params":[7,5]}]`)
	f.Add(`{"id":1,"id":2,"method":"configure","METHOD":"set_config","params":[7,"ui.a","x"]}`)
	f.Add(`{"id":1.5,"method":"misc_set_draft","params":[7,4294967295,"x","/tmp/out/a.png",null,0,"Call"]}`)
	f.Add(`{"id":"1","method":"forward_messages","params":[0,[1,2,3],12]}`)
	f.Fuzz(func(t *testing.T, line string) {
		core := &recorder{answers: map[string]string{"get_message": `{"chatId":12}`}}
		var out strings.Builder
		g := New(Options{Core: core, Files: fileTable{}, Account: 7, Chats: []uint32{12}, CorePaths: "/account/x/",
			Limits: DefaultLimits(), Notify: func(string, json.RawMessage) {}})
		_ = g.Serve(t.Context(), strings.NewReader(line), &out)
		for _, call := range core.reached() {
			if !strings.Contains(call, "[7") && !withoutAccount(call) {
				t.Errorf("core got %s, not for account 7", call)
			}
		}
		for answer := range strings.Lines(out.String()) {
			if !json.Valid([]byte(answer)) {
				t.Errorf("answer %q is not JSON", answer)
			}
		}
	})
}
