package worker

import (
	"context"
	"io"
	"os"
	"time"
)

// Options say where a worker finds its files and its host. The zero value of a limit means its default.
type Options struct {
	Bundle      string // the author's files, read only
	Storage     string // the bot's durable folder
	Attachments string // the files of the message, read only
	Tmp         string // scratch; files to send are written to Tmp/out

	In  io.Reader // the job, then the answers
	Out io.Writer // the protocol
	Log io.Writer // what the script logs

	HeapLimit int64         // bytes of JavaScript heap if the job names none; default 96 MB
	Wall      time.Duration // wall clock if the job names no deadline; default 29 s
}

// Main runs one job with the directories of the sandbox and returns the exit code.
func Main(stdin, stdout, stderr *os.File, args []string) int {
	return Run(context.Background(), Options{
		Bundle: "/bundle", Storage: "/storage", Attachments: "/attachments", Tmp: "/tmp",
		In: stdin, Out: stdout, Log: stderr,
	})
}

// Run does one job as Main does, in the directories of opts, and returns the exit code. When ctx ends, so does the script.
func Run(ctx context.Context, opts Options) int { return 70 }
