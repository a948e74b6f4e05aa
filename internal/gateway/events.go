package gateway

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Occasion is what a bot is run for.
type Occasion struct {
	Message uint32          // the message; 0: none, the bot is run for a schedule
	New     bool            // it came with this run, so that it is one of the next messages
	Event   json.RawMessage // as core reported it; nil: none
}

// Activity is what the host must know to end a bot that would run for ever.
type Activity struct {
	Taken   bool      // the bot has been told of the occasion
	Busy    int       // calls in flight but those that wait for events
	Waiting int       // calls that wait for events
	Last    time.Time // when the last call but those began or ended
}

// feed is the stream of events of one run, and what the bot made of it. The methods of a nil feed do nothing.
type feed struct {
	occasion Occasion

	mu      sync.Mutex
	changed chan struct{} // closed, and replaced, when there are news
	queue   []json.RawMessage
	arrived bool // the occasion, which comes when the bot starts its I/O
	taken   bool
	seen    bool // the bot has marked the message
	idle    bool // when it did so, nothing of it was waiting for events: it works through them one by one
	more    bool // since then it asked for more messages
	busy    int
	waiting int
	last    time.Time
	done    chan struct{} // closed when the bot has said that it is done
	over    bool
}

func newFeed(o Occasion) *feed {
	return &feed{occasion: o, changed: make(chan struct{}), done: make(chan struct{}), last: time.Now(),
		queue: []json.RawMessage{json.RawMessage(`{"kind":"Info","msg":"run by mayfly for one message"}`)}}
}

// maxQueue bounds the events that nobody asks for.
const maxQueue = 1000

// Event passes on an event of core's, where it is of a kind that a bot may see: those that have ids and no texts.
func (g *Gateway) Event(kind string, event json.RawMessage) {
	if g.feed != nil && visible(kind) {
		g.feed.push(event)
	}
}

func visible(kind string) bool {
	return slices.Contains([]string{"MsgDelivered", "MsgFailed", "MsgRead", "MsgDeleted", "MsgsChanged", "MsgsNoticed", "ReactionsChanged",
		"IncomingReaction", "ChatModified", "ChatDeleted", "ChatEphemeralTimerModified", "ContactsChanged", "WebxdcStatusUpdate",
		"SecurejoinInviterProgress"}, kind)
}

// Done is closed when the bot has said that it is done with the occasion: it marked the message as seen, or set last_msg_id, and
// came back to wait for events, or asked for more messages when there were none.
func (g *Gateway) Done() <-chan struct{} { return g.feed.done }

// Activity is that of this moment.
func (g *Gateway) Activity() Activity {
	f := g.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	return Activity{f.taken, f.busy, f.waiting, f.last}
}

// begin notes that a call came, and returns what notes its end.
func (f *feed) begin(r row) (done func()) {
	if f == nil {
		return func() {}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.waits {
		f.waiting++
		f.judge()
		return func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.waiting--
		}
	}
	f.busy++
	f.last = time.Now()
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.busy--
		f.last = time.Now()
		if f.waiting > 0 { // a quick bot waits again before its last answer counts as written
			f.judge()
		}
	}
}

// judge closes done when a bot that takes one event after the other waits again, or one that waits all the time asked for more messages, and
// either does nothing else. f.mu is held.
func (f *feed) judge() {
	if f.seen && (f.idle || f.more) && f.busy == 0 && len(f.queue) == 0 && !f.over {
		f.over = true
		close(f.done)
	}
}

func (f *feed) push(events ...json.RawMessage) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.queue)+len(events) > maxQueue {
		return
	}
	f.queue = append(f.queue, events...)
	f.notify()
}

func (f *feed) notify() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// start has the occasion arrive, once.
func (f *feed) start() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.arrived {
		return
	}
	f.arrived = true
	f.queue = append(f.queue, json.RawMessage(`{"kind":"ConnectivityChanged"}`), json.RawMessage(`{"kind":"ImapInboxIdle"}`))
	if f.occasion.Event != nil {
		f.queue = append(f.queue, f.occasion.Event)
	}
	f.notify()
}

// take waits for events and takes at most so many.
func (f *feed) take(ctx context.Context, most int) ([]json.RawMessage, error) {
	for {
		f.mu.Lock()
		n := min(most, len(f.queue))
		events := slices.Clone(f.queue[:n])
		f.queue = slices.Delete(f.queue, 0, n)
		if f.arrived && len(f.queue) == 0 && n > 0 {
			f.taken = true
		}
		changed := f.changed
		f.mu.Unlock()
		if n > 0 {
			return events, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// next are the messages that the bot has not marked yet, and whether there will be one.
func (f *feed) next() (ids []uint32, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.arrived && !f.seen && f.occasion.New {
		f.taken = true
		return []uint32{f.occasion.Message}, f.changed
	}
	f.taken = f.taken || f.arrived && f.occasion.Message == 0 // it waits for what will not come
	return []uint32{}, f.changed
}

// mark notes that the bot has dealt with messages.
func (f *feed) mark(ids ...uint32) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.arrived && !f.seen && f.occasion.Message != 0 && slices.Contains(ids, f.occasion.Message) {
		f.seen, f.idle = true, f.waiting == 0
	}
}

func (f *feed) seenUpTo(id string) {
	if f == nil {
		return
	}
	if n, err := strconv.ParseUint(id, 10, 32); err == nil && uint32(n) >= f.occasion.Message {
		f.mark(f.occasion.Message)
	}
}

// errNoFeed is the answer to a script's calls.
func errNoFeed(method string) error {
	return &Error{CodeRefused, method + ": refused: events are handed to the handlers of the script: export message or webxdc"}
}

// event is how core tells of an event.
type event struct {
	ContextID uint32          `json:"contextId"`
	Event     json.RawMessage `json:"event"`
}

func (g *Gateway) nextEvent(ctx context.Context, _ []json.RawMessage) (any, error) {
	events, err := g.events(ctx, "get_next_event", 1)
	if err != nil {
		return nil, err
	}
	return events[0], nil
}

func (g *Gateway) nextEvents(ctx context.Context, _ []json.RawMessage) (any, error) {
	return g.events(ctx, "get_next_event_batch", maxQueue)
}

func (g *Gateway) events(ctx context.Context, method string, most int) ([]event, error) {
	if g.feed == nil {
		return nil, errNoFeed(method)
	}
	raw, err := g.feed.take(ctx, most)
	if err != nil {
		return nil, err
	}
	var list []event
	for _, e := range raw {
		list = append(list, event{g.opts.Account, e})
	}
	return list, nil
}

func (g *Gateway) waitMessages(ctx context.Context, _ []json.RawMessage) (any, error) {
	if g.feed == nil {
		return nil, errNoFeed("wait_next_msgs")
	}
	for {
		ids, changed := g.feed.next()
		if len(ids) > 0 {
			return ids, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (g *Gateway) nextMessages(context.Context, []json.RawMessage) (any, error) {
	if g.feed == nil {
		return nil, errNoFeed("get_next_msgs")
	}
	ids, _ := g.feed.next()
	g.feed.asked()
	return ids, nil
}

// asked notes that the bot wants more than the message that it has marked.
func (f *feed) asked() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.more = f.seen
}

func (g *Gateway) countFresh(context.Context, []json.RawMessage) (any, error) {
	if g.feed == nil {
		return 0, nil
	}
	ids, _ := g.feed.next()
	return len(ids), nil
}

func (g *Gateway) markSeen(ctx context.Context, params []json.RawMessage) (any, error) {
	var ids []uint32
	if err := json.Unmarshal(params[1], &ids); err != nil {
		return nil, err
	}
	result, err := g.ask(ctx, "markseen_msgs", params)
	if err == nil {
		g.feed.mark(ids...)
	}
	return result, err
}

func (g *Gateway) startIO(context.Context, []json.RawMessage) (any, error) {
	if g.feed != nil {
		g.feed.start()
	}
	return nil, nil
}
