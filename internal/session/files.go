package session

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"strings"
	"sync"
	"sync/atomic"

	"mayfly/internal/core"
	"mayfly/internal/sandbox"
)

// files moves attachments between core's sandbox and the bot's. Bytes go through the daemon; no path of one is opened in
// the other.
type files struct {
	core, bot *sandbox.Sandbox

	run    string        // tells its files from those of other runs of the session
	handed *atomic.Int64 // bytes that core got in the session
	taken  int

	mu    sync.Mutex
	shown map[string]string // core's path → the bot's
}

func newFiles(c *coreSide, p *program) *files {
	return &files{core: c.box, bot: p.box, run: fmt.Sprint(len(c.earlier)), handed: &c.handed, shown: map[string]string{}}
}

// Take implements gateway.Files.
func (f *files) Take(ctx context.Context, botPath, filename string, max int64) (string, int64, error) {
	if err := ctx.Err(); err != nil {
		return "", 0, err
	}
	data, err := f.bot.GetFile(botPath, max)
	if err != nil {
		return "", 0, err
	}
	f.taken++
	target, size := fmt.Sprintf("%s/%s-%d", filesDir, f.run, f.taken), int64(len(data))
	f.handed.Add(size)
	return target, size, f.core.PutFile(target, size, bytes.NewReader(data))
}

// Show implements gateway.Files.
func (f *files) Show(corePath string) (string, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.shown[corePath]
	return p, ok
}

// maxAttachment is above what the gate lets through unpacked, in bytes.
const maxAttachment = 48 << 20

// attachment copies the file of the run's message to where the bot can open it, and describes it for the worker.
func (f *files) attachment(msg core.Message) (any, error) {
	if msg.File == "" {
		return nil, nil
	}
	target, data, err := f.show(msg, msg.FileName)
	if err != nil {
		return nil, err
	}
	return map[string]any{"path": target, "name": msg.FileName, "mime": msg.FileMime, "size": len(data)}, nil
}

// show copies the file of a message to where the bot can open it under that name, and returns the path and the content.
func (f *files) show(msg core.Message, name string) (string, []byte, error) {
	data, err := f.core.GetFile(msg.File, maxAttachment)
	if err != nil {
		return "", nil, fmt.Errorf("attachment: %w", err)
	}
	target := attachmentsDir + "/" + safeName(name)
	if err := f.bot.PutFile(target, int64(len(data)), bytes.NewReader(data)); err != nil {
		return "", nil, fmt.Errorf("attachment: %w", err)
	}
	f.mu.Lock()
	f.shown[msg.File] = target
	f.mu.Unlock()
	return target, data, nil
}

// safeName makes a foreign file name one path component.
func safeName(name string) string {
	name = path.Base(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '/' || r == '\\' {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(name, "_")))
	if name == "." || name == ".." || name == "/" || len(name) > 200 {
		return "file"
	}
	return name
}
