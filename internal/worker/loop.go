package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/worker/engine"
)

// maxCalls and maxTimers bound what a script may leave open at a time.
const (
	maxCalls  = 1000
	maxTimers = 10000
)

// graceJobs are run after the deadline so that the exception of the interrupt reaches the handler's promise, and its position
// the author. Each of them is interrupted as soon as it runs for long, and none can call the host.
const graceJobs = 1000

var (
	errTooManyCalls  = fmt.Errorf("more than %d calls are waiting for an answer: await some of them", maxCalls)
	errTooManyTimers = fmt.Errorf("more than %d timers are set", maxTimers)
)

// callTable holds the calls to the host that have not been answered.
type callTable struct {
	open map[int64]bool
	last int64
}

func (t *callTable) add() (int64, error) {
	if len(t.open) >= maxCalls {
		return 0, errTooManyCalls
	}
	if t.open == nil {
		t.open = map[int64]bool{}
	}
	t.last++
	t.open[t.last] = true
	return t.last, nil
}

type timer struct {
	id  int64
	due time.Time
	gap time.Duration // of an interval, else 0
}

// timerTable holds the timers that are set, in the order in which they were set.
type timerTable struct {
	timers []timer
	last   int64
}

func (t *timerTable) add(now time.Time, delay time.Duration, repeat bool) (int64, error) {
	if len(t.timers) >= maxTimers {
		return 0, errTooManyTimers
	}
	t.last++
	set := timer{id: t.last, due: now.Add(delay)}
	if repeat {
		set.gap = delay
	}
	t.timers = append(t.timers, set)
	return t.last, nil
}

func (t *timerTable) remove(id int64) {
	for i := range t.timers {
		if t.timers[i].id == id {
			t.timers = append(t.timers[:i], t.timers[i+1:]...)
			return
		}
	}
}

// next returns the timer that is due first, and of those due at the same time the one set first.
func (t *timerTable) next() (timer, bool) {
	if len(t.timers) == 0 {
		return timer{}, false
	}
	first := t.timers[0]
	for _, other := range t.timers[1:] {
		if other.due.Before(first.due) {
			first = other
		}
	}
	return first, true
}

// take removes a timer that is about to fire, or sets it anew if it is an interval.
func (t *timerTable) take(fired timer, now time.Time) {
	t.remove(fired.id)
	if fired.gap > 0 {
		fired.due = now.Add(fired.gap)
		t.timers = append(t.timers, fired)
	}
}

// drive runs jobs, timers and answers until promise is settled and every call is answered, or the run has failed.
// what names the promise for the author.
func (w *worker) drive(promise engine.Value, what string) outcome {
	for {
		if err := w.drain(); err != nil {
			return w.failed(err)
		}
		if o, ended := w.state(promise, what); ended {
			return o
		}
		if err := w.step(); err != nil {
			return w.failed(err)
		}
	}
}

// drain runs every job that is ready.
func (w *worker) drain() error {
	for !w.expired() {
		if more, err := w.vm.RunJob(); err != nil || !more {
			return err
		}
	}
	for range graceJobs {
		if more, err := w.vm.RunJob(); err != nil || !more {
			return errStopped
		}
	}
	return errStopped
}

// state says how the run stands when no job is ready.
func (w *worker) state(promise engine.Value, what string) (outcome, bool) {
	state := w.vm.PromiseState(promise)
	if state == engine.Rejected {
		reason := w.vm.PromiseResult(promise)
		defer w.vm.Free(reason)
		return w.failed(w.vm.Exception(reason)), true
	}
	if rejections := w.vm.Rejections(); len(rejections) > 0 {
		return w.failed(w.vm.Exception(rejections[0].Reason)), true
	}
	if len(w.calls.open) > 0 {
		return outcome{}, false
	}
	if state == engine.Fulfilled {
		return outcome{status: bot.RunOK}, true
	}
	if _, set := w.timers.next(); set {
		return outcome{}, false
	}
	return w.neverResolves(what), true
}

// step waits for the next answer, timer or the deadline, and acts on it.
func (w *worker) step() error {
	until := w.deadline
	next, set := w.timers.next()
	if set && next.due.Before(until) {
		until = next.due
	}
	clock := time.NewTimer(time.Until(until))
	defer clock.Stop()
	select {
	case a, open := <-w.answers:
		if !open {
			return w.hostGone()
		}
		return w.settleCall(a)
	case <-w.ctx.Done():
		return errStopped
	case <-clock.C:
	}
	if w.expired() {
		return errStopped
	}
	w.timers.take(next, time.Now())
	_, err := w.vm.Call(w.fire, engine.Number(float64(next.id)))
	return err
}

// errHost marks what is the host's fault, not the author's.
var errHost = errors.New("the host")

func (w *worker) hostGone() error {
	if errors.Is(w.readErr, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w ended before it had answered", errHost)
	}
	return fmt.Errorf("%w: %w", errHost, w.readErr)
}

func (w *worker) settleCall(a answer) error {
	if !w.calls.open[a.id] {
		return fmt.Errorf("%w answered %d, which was not asked", errHost, a.id)
	}
	delete(w.calls.open, a.id)
	text := w.vm.String(string(a.result))
	defer w.vm.Free(text)
	_, err := w.vm.Call(w.settle, engine.Number(float64(a.id)), engine.Bool(a.ok), text)
	return err
}

// pendingWait asks the script's side what it is waiting for: a name and the stack where that began.
func (w *worker) pendingWait() (what, stack string) {
	w.vm.SetInterrupt(nil)
	v, err := w.vm.Call(w.waiting)
	if err != nil {
		return "", ""
	}
	defer w.vm.Free(v)
	text, err := w.vm.GoString(v)
	var pair [2]string
	if err != nil || json.Unmarshal([]byte(text), &pair) != nil {
		return "", ""
	}
	return pair[0], pair[1]
}
