package worker

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"mayfly/internal/bot"
	"mayfly/internal/worker/engine"
)

// maxFrames bounds the stack that an author is shown.
const maxFrames = 10

// A frame of QuickJS: "    at name (file:line:col)", "    at file:line:col" or "    at name (native)".
var frame = regexp.MustCompile(`^\s*at (?:(.*) \((.+:\d+:\d+)\)|(\S+:\d+:\d+))$`)

// authorFrames returns the positions (file:line:col) and the lines of a stack that are in files of the bundle.
func authorFrames(stack string) (positions, lines []string) {
	for line := range strings.Lines(stack) {
		m := frame.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil || len(lines) == maxFrames {
			continue
		}
		position := m[2] + m[3]
		if strings.HasPrefix(position, internalPrefix) || strings.HasPrefix(position, "<") {
			continue
		}
		positions = append(positions, position)
		lines = append(lines, strings.TrimSpace(line))
	}
	return positions, lines
}

// failed turns whatever ended the run early into what the author is told.
func (w *worker) failed(err error) outcome {
	var e *engine.Exception
	isException := errors.As(err, &e)
	switch {
	case errors.Is(err, errHost):
		return outcome{status: bot.RunInternal, message: err.Error()}
	case w.ctx.Err() != nil:
		return outcome{status: bot.RunInternal, message: "the run was stopped"}
	case w.expired() || errors.Is(err, errStopped):
		return w.timedOut(e)
	case !isException:
		return outcome{status: bot.RunError, message: err.Error()}
	}
	return w.threw(e)
}

// threw reports an exception that nothing caught.
func (w *worker) threw(e *engine.Exception) outcome {
	if e.Name == "" && w.vm.OutOfMemory() {
		e = &engine.Exception{Name: "InternalError", Message: "out of memory"}
	}
	positions, lines := authorFrames(e.Stack)
	at := w.handlerAt
	if len(positions) > 0 {
		at = positions[0]
	}
	if at == "" {
		at = w.job.Main + ":1:1"
	}
	text := e.Error()
	switch {
	case e.Name == "":
		text = fmt.Sprintf("threw %s, which is no Error and so has no line: write throw new Error(…)", e.Message)
	case e.Name == "InternalError" && e.Message == "out of memory":
		text += fmt.Sprintf(": a run may use %d MB", w.heap/1e6)
	}
	return outcome{status: bot.RunError, message: at + ": " + text, stack: strings.Join(lines, "\n")}
}

// timedOut reports the deadline: where the script was running, or what it was waiting for. e may be nil.
func (w *worker) timedOut(e *engine.Exception) outcome {
	if e == nil {
		e = w.interruption()
	}
	what, stack := "running", ""
	if e != nil && w.vm.Interrupted() {
		stack = e.Stack
	} else if name, at := w.pendingWait(); !w.vm.Interrupted() && name != "" {
		what, stack = "waiting for "+name, at
	}
	positions, lines := authorFrames(stack)
	at := w.job.Main
	if w.handlerAt != "" {
		at = w.handlerAt
	}
	if len(positions) > 0 {
		at = positions[0]
	}
	text := fmt.Sprintf("%s: the time limit of %v passed while this was %s", at, w.job.wall, what)
	return outcome{status: bot.RunTimeout, message: text, stack: strings.Join(lines, "\n")}
}

// interruption returns the exception by which the engine ended the script, if a promise took it.
func (w *worker) interruption() *engine.Exception {
	for _, r := range w.vm.Rejections() {
		if e := w.vm.Exception(r.Reason); e.Name == "InternalError" && e.Message == "interrupted" {
			return e
		}
	}
	return nil
}

// neverResolves reports a promise that nothing can settle any more.
func (w *worker) neverResolves(what string) outcome {
	at := w.handlerAt
	if at == "" {
		at = w.job.Main
	}
	return outcome{
		status:  bot.RunError,
		message: fmt.Sprintf("%s: the promise of %s never resolves: nothing is left that could settle it", at, what),
	}
}
