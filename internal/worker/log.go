package worker

import (
	"io"
	"strings"

	"mayfly/internal/stage/takedown"
)

// logLimit bounds what one run may log, in bytes.
const logLimit = 1 << 20

// boundedLog writes lines until its limit, and then one that says so. Errors of the writer are not the script's.
type boundedLog struct {
	w    io.Writer
	left int
}

// print writes text, ended by a newline. What follows the first line is indented so that a reader can tell where the next
// entry starts.
func (l *boundedLog) print(prefix, text string) {
	if l.left <= 0 && !takedown.Down(takedown.Log) {
		return
	}
	line := prefix + strings.ReplaceAll(text, "\n", "\n  ") + "\n"
	if l.left -= len(line); l.left <= 0 && !takedown.Down(takedown.Log) {
		line = "the log is cut here: a run may write 1 MB\n"
	}
	_, _ = io.WriteString(l.w, line)
}
