package worker

import (
	"errors"
	"strings"

	"mayfly/internal/bot"
	"mayfly/internal/worker/engine"
)

// noHandlers is what an author is told whose main module has no handlers.
const noHandlers = "there is no default export: write export default { async message(msg, env, ctx) { … } }"

// check compiles main and all that it imports, and links them, without running any of it. Every problem found is a line of
// the outcome's message.
func (w *worker) check() outcome {
	w.bundle.collect = true
	source, err := w.bundle.Load(w.job.Main)
	if err == nil {
		_, err = w.vm.Compile(w.job.Main, source)
	}
	problems := w.bundle.problems
	var e *engine.Exception
	if errors.As(err, &e) {
		problems = append([]*engine.Exception{e}, problems...)
	} else if err != nil {
		return w.failed(err)
	}
	if len(problems) == 0 {
		problems = w.link()
	}
	if len(problems) == 0 {
		return outcome{status: bot.RunOK}
	}
	var lines []string
	for _, p := range problems {
		lines = append(lines, w.threw(p).message)
	}
	return outcome{status: bot.RunError, message: strings.Join(lines, "\n")}
}

// link finds imports of names that are not exported. The engine links only what it is about to run, so the module linked is
// one of ours that imports first a module that throws: modules run in the order of their imports, and so none of the author's is
// reached.
func (w *worker) link() []*engine.Exception {
	module, err := w.vm.Compile(checkModule, `import "`+stopModule+`"; import { default as handlers } from "`+w.job.Main+`"`)
	if err == nil {
		var promise engine.Value
		promise, err = w.vm.Run(module)
		defer w.vm.Free(promise)
	}
	var e *engine.Exception
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &e):
		return []*engine.Exception{{Name: "Error", Message: err.Error()}}
	case strings.Contains(e.Message, "'default'") && strings.Contains(e.Message, "'"+w.job.Main+"'"):
		return []*engine.Exception{{Name: "SyntaxError", Message: noHandlers, Stack: "    at " + w.job.Main + ":1:1\n"}}
	}
	errors.As(w.bundle.placeLinkError(err), &e)
	return []*engine.Exception{e}
}
