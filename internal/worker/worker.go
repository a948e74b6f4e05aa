package worker

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"runtime/debug"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/worker/engine"
)

const (
	defaultHeap = 96 << 20
	defaultWall = 29 * time.Second
)

// Options say where a worker finds its files and its host. The zero value of a limit means its default.
type Options struct {
	Bundle      string // the author's files, read only
	Storage     string // the bot's durable folder
	Attachments string // the files of the message, read only; the job names them below /attachments
	Tmp         string // scratch; files to send are written to Tmp/out

	In  io.Reader // the job, then the answers
	Out io.Writer // the protocol
	Log io.Writer // what the script logs

	HeapLimit int64         // bytes of JavaScript heap if the job names none; default 96 MB
	Wall      time.Duration // wall clock from the job's arrival if the job names no deadline; default 29 s
}

// worker is one job from the start of the process to its end. One goroutine, that of Run, owns it.
type worker struct {
	opts   Options
	vm     *engine.VM
	bundle *bundle
	log    *boundedLog
	out    *writer
	in     *bufio.Reader

	job       *job
	ctx       context.Context
	deadline  time.Time
	started   time.Time
	heap      int64
	handlerAt string // file:line:col of the handler that was entered

	calls   callTable
	timers  timerTable
	answers chan answer
	readErr error // why answers was closed
	files   int   // files written for sending

	settle, fire, waiting, start engine.Value
}

// Main brings the engine up and returns what runs one job with the directories of the sandbox and gives the exit code. args are not
// used.
func Main(stdin, stdout, stderr *os.File, args []string) (run func() int) {
	// The JavaScript heap is not Go's: Go's own is small and short-lived, so collecting it seldom costs little memory and
	// saves most of the work.
	debug.SetGCPercent(400)
	return prepare(context.Background(), Options{
		Bundle: "/bundle", Storage: "/storage", Attachments: "/attachments", Tmp: "/tmp",
		In: stdin, Out: stdout, Log: stderr,
	})
}

// Run does one job as Main does, in the directories of opts, and returns the exit code. When ctx ends, so does the script.
// It keeps the memory of the script's heap until the process ends. The goroutine that reads opts.In ends when In does.
func Run(ctx context.Context, opts Options) int { return prepare(ctx, opts)() }

func prepare(ctx context.Context, opts Options) (run func() int) {
	w, err := newWorker(ctx, opts)
	return func() int {
		if err != nil {
			return (&writer{w: opts.Out}).done(outcome{status: bot.RunInternal, message: err.Error()})
		}
		if err := w.out.notify("ready", nil); err != nil {
			return exitInternal
		}
		return w.out.done(w.run())
	}
}

func newWorker(ctx context.Context, opts Options) (*worker, error) {
	w := &worker{
		opts: opts, ctx: ctx, started: time.Now(), heap: opts.HeapLimit,
		bundle:  newBundle(opts.Bundle),
		log:     &boundedLog{w: opts.Log, left: logLimit},
		out:     &writer{w: opts.Out},
		in:      bufio.NewReaderSize(opts.In, 64<<10),
		calls:   callTable{},
		answers: make(chan answer, 16),
	}
	if w.heap == 0 {
		w.heap = defaultHeap
	}
	vm, err := engine.New(w.heap, w.bundle)
	if err != nil {
		return nil, err
	}
	w.vm = vm
	return w, w.prepare()
}

// run waits for the job and does it.
func (w *worker) run() outcome {
	line, err := readLine(w.in, maxLine)
	if err != nil {
		return outcome{status: bot.RunInternal, message: "no job: " + err.Error()}
	}
	if w.job, err = parseJob(line); err != nil {
		return outcome{status: bot.RunInternal, message: err.Error()}
	}
	w.limit()
	go w.readAnswers()
	if w.job.Event == "check" {
		return w.check()
	}
	return w.runHandler()
}

// limit sets the job's deadline and heap.
func (w *worker) limit() {
	wall := w.opts.Wall
	if wall == 0 {
		wall = defaultWall
	}
	if w.job.DeadlineMS > 0 {
		wall = time.Duration(w.job.DeadlineMS) * time.Millisecond
	}
	w.job.wall = wall
	w.deadline = time.Now().Add(wall)
	w.vm.SetInterrupt(w.expired)
	if w.job.Heap > 0 {
		w.heap = w.job.Heap
		w.vm.SetHeapLimit(w.heap)
	}
}

func (w *worker) expired() bool { return w.ctx.Err() != nil || !time.Now().Before(w.deadline) }

// readAnswers hands the host's answers to the loop until there are no more.
func (w *worker) readAnswers() {
	defer close(w.answers)
	for {
		line, err := readLine(w.in, maxLine)
		if err != nil {
			w.readErr = err
			return
		}
		a, err := parseAnswer(line)
		if err != nil {
			w.readErr = err
			return
		}
		select {
		case w.answers <- a:
		case <-w.ctx.Done():
			w.readErr = w.ctx.Err()
			return
		}
	}
}

// runHandler evaluates the author's module, calls the handler of the event and drives both to their end.
func (w *worker) runHandler() outcome {
	source, err := w.bundle.Load(w.job.Main)
	if err != nil {
		return outcome{status: bot.RunError, message: err.Error()}
	}
	module, err := w.vm.Compile(w.job.Main, source)
	if err != nil {
		return w.failed(err)
	}
	evaluated, err := w.vm.Run(module)
	if err != nil {
		return w.failed(w.bundle.placeLinkError(err))
	}
	defer w.vm.Free(evaluated)
	if o := w.drive(evaluated, "the top level of "+w.job.Main); o.status != bot.RunOK {
		return o
	}
	namespace, err := w.vm.Namespace(module)
	if err != nil {
		return w.failed(err)
	}
	defer w.vm.Free(namespace)
	jobText := w.vm.String(string(w.job.raw))
	defer w.vm.Free(jobText)
	handled, err := w.vm.Call(w.start, jobText, namespace)
	if err != nil {
		return w.failed(err)
	}
	defer w.vm.Free(handled)
	return w.drive(handled, "the handler")
}

var errStopped = errors.New("stopped")
