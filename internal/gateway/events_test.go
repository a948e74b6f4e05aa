package gateway

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// daemon is a bot that speaks to a gateway as to deltachat-rpc-server.
type daemon struct {
	t     *testing.T
	g     *Gateway
	w     io.WriteCloser
	lines *bufio.Scanner
	ids   int
}

func newDaemon(t *testing.T, core Core) *daemon {
	return newDaemonFor(t, core, Occasion{Message: 5, New: true, Event: json.RawMessage(`{"kind":"IncomingMsg","chatId":12,"msgId":5}`)})
}

func newDaemonFor(t *testing.T, core Core, o Occasion) *daemon {
	r, w := io.Pipe()
	answers, out := io.Pipe()
	d := &daemon{t: t, w: w, lines: bufio.NewScanner(answers)}
	d.g = New(Options{Core: core, Files: fileTable{}, Account: 7, Chats: []uint32{12}, CorePaths: "/account/x/", Limits: DefaultLimits(),
		Occasion: &o})
	go func() { out.CloseWithError(d.g.Serve(t.Context(), r, out)) }()
	t.Cleanup(func() { w.Close() })
	return d
}

func (d *daemon) send(method, params string) {
	d.t.Helper()
	d.ids++
	if _, err := fmt.Fprintf(d.w, `{"id":%d,"method":%q,"params":[%s]}`+"\n", d.ids, method, params); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) read() string {
	d.t.Helper()
	if !d.lines.Scan() {
		d.t.Fatalf("no answer: %v", d.lines.Err())
	}
	return d.lines.Text()
}

func (d *daemon) call(method, params, want string) {
	d.t.Helper()
	d.send(method, params)
	if got := d.read(); !strings.Contains(got, want) {
		d.t.Errorf("%s: %s, want %s", method, got, want)
	}
}

func (d *daemon) done() bool {
	select {
	case <-d.g.Done():
		return true
	default:
		return false
	}
}

// until waits for what another goroutine does.
func (d *daemon) until(what string, holds func() bool) {
	d.t.Helper()
	for start := time.Now(); !holds(); time.Sleep(time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			d.t.Fatal(what)
		}
	}
}

// TestOneEventAfterTheOther is a bot that waits, handles, marks and waits again: it says itself that it is done.
func TestOneEventAfterTheOther(t *testing.T) {
	d := newDaemon(t, &recorder{})
	d.call("get_next_event", "", `{"contextId":7,"event":{"kind":"Info"`)
	d.call("get_next_msgs", "7", `"result":[]`) // the message comes with start_io, as from a provider
	d.call("get_fresh_msg_cnt", "7,12", `"result":0`)
	d.call("start_io_for_all_accounts", "", `"result":null`)
	d.call("start_io", "7", `"result":null`)
	d.call("get_next_event", "", "ConnectivityChanged")
	d.call("get_next_event", "", "ImapInboxIdle")
	if d.g.Activity().Taken {
		t.Error("the message counts as taken before its event was")
	}
	d.call("get_next_event", "", `"event":{"kind":"IncomingMsg","chatId":12,"msgId":5}`)
	d.call("get_fresh_msgs", "7", `"result":[5]`)
	d.call("markseen_msgs", "7,[5]", `"result":null`)
	if d.done() {
		t.Error("done before it waits again")
	}
	d.send("get_next_event", "")
	d.until("the bot said that it is done, and nobody noticed", d.done)
	if a := d.g.Activity(); !a.Taken || a.Busy != 0 || a.Waiting != 1 {
		t.Errorf("activity %+v", a)
	}
	d.g.Event("Warning", json.RawMessage(`{"kind":"Warning","msg":"smtp of relay.example"}`))
	d.g.Event("MsgDelivered", json.RawMessage(`{"kind":"MsgDelivered","chatId":12,"msgId":6}`))
	if got := d.read(); !strings.Contains(got, "MsgDelivered") {
		t.Errorf("%s, want the event that has no text", got)
	}
}

// TestTwoAtOnce is a bot that waits for events all the time and handles messages beside that.
func TestTwoAtOnce(t *testing.T) {
	d := newDaemon(t, &recorder{})
	d.call("start_io", "7", "null")
	d.call("get_next_event_batch", "", `{"kind":"IncomingMsg","chatId":12,"msgId":5}}]`)
	d.send("get_next_event_batch", "")
	d.until("the call does not wait", func() bool { return d.g.Activity().Waiting == 1 })
	d.call("wait_next_msgs", "7", `"result":[5]`)
	d.call("set_config", `7,"last_msg_id","5"`, "null")
	d.g.Event("MsgsChanged", json.RawMessage(`{"kind":"MsgsChanged","chatId":12,"msgId":0}`))
	if got := d.read(); !strings.Contains(got, "MsgsChanged") {
		t.Errorf("%s, want the event", got)
	}
	d.send("get_next_event_batch", "")
	d.until("the call does not wait", func() bool { return d.g.Activity().Waiting == 1 })
	if d.done() {
		t.Error("a bot that waits all the time is not done because it waits")
	}
	d.call("get_next_msgs", "7", `"result":[]`)
	d.until("the bot asked for more, and nobody noticed", d.done)
}

// TestSleepIsWork: a bot that sleeps means to go on.
func TestSleepIsWork(t *testing.T) {
	d := newDaemon(t, &recorder{})
	d.send("sleep", "60")
	d.until("the call is not in flight", func() bool { return d.g.Activity().Busy == 1 })
}

// TestEventsThatNobodyReads does not make a heap of them.
func TestEventsThatNobodyReads(t *testing.T) {
	d := newDaemon(t, &recorder{})
	for range 5000 {
		d.g.Event("MsgDelivered", json.RawMessage(`{}`))
	}
	d.call("get_next_event_batch", "", "Info")
	if n := len(d.g.feed.queue); n > 0 {
		t.Errorf("%d events are left after all were asked for", n)
	}
}

// TestNoMessage is a bot that is run for a schedule: whether it waits for events or for messages, it has been told of all that there is.
// Only that it is quiet says that it is done.
func TestNoMessage(t *testing.T) {
	for _, waits := range []string{"get_next_event", "wait_next_msgs"} {
		d := newDaemonFor(t, &recorder{}, Occasion{})
		d.call("start_io", "7", "null")
		if waits == "get_next_event" {
			d.call("get_next_event_batch", "", `{"kind":"ImapInboxIdle"}}]`)
		}
		d.call("get_next_msgs", "7", `"result":[]`)
		d.call("set_config", `7,"last_msg_id","5"`, "null")
		d.call("markseen_msgs", "7,[0]", "")
		d.send(waits, map[string]string{"wait_next_msgs": "7"}[waits])
		d.until("the bot waits, and nobody noticed", func() bool { a := d.g.Activity(); return a.Taken && a.Waiting == 1 })
		if d.done() {
			t.Errorf("a bot that calls %s is done, and has had no message", waits)
		}
	}
}
