package session

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"archive/tar"

	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/gateway"
	"mayfly/internal/ledger"
	"mayfly/internal/sandbox"
)

// Check tries in a sandbox whether the code of a bundle can be loaded, without running it. What the author must mend is returned as
// bundle.Problems; any other error is the host's.
func (r *Runner) Check(ctx context.Context, b *bundle.Bundle) error {
	switch b.Manifest.Runtime {
	case bot.RuntimeNative:
		return r.checkNative(ctx, b)
	case bot.RuntimeWASM:
		return r.checkWASM(ctx, b)
	}
	return r.checkScript(ctx, b)
}

// checkScript loads the modules of a bundle of JavaScript.
func (r *Runner) checkScript(ctx context.Context, b *bundle.Bundle) error {
	ctx, cancel := context.WithTimeout(ctx, b.Manifest.Limits.Wall)
	defer cancel()
	s := &script{}
	p := r.newProgram(ledger.Bot{Manifest: b.Manifest})
	p.runtime, p.cancel = s, cancel
	close(p.opened)
	defer p.close()
	if err := p.open(ctx, func(box *sandbox.Sandbox) error { return box.Put(bundleDir, tarOf(b.Files)) }); err != nil {
		return fmt.Errorf("the sandbox of the check: %w", err)
	}
	job, err := json.Marshal(map[string]any{"job": map[string]any{
		"event": "check", "main": b.Manifest.Main, "deadline_ms": b.Manifest.Limits.Wall.Milliseconds(), "heap": heap(b.Manifest.Limits.Memory),
	}})
	if err != nil {
		return err
	}
	stdin := p.box.Program(programName).Stdin
	if _, err := stdin.Write(append(job, '\n')); err != nil {
		return fmt.Errorf("the worker took no job: %w", err)
	}
	v := &verdict{timeline: NewTimeline(time.Now())}
	served := gateway.New(gateway.Options{Limits: gateway.Limits{Line: 1 << 20, Lines: 1000, Input: 4 << 20, Depth: 16, InFlight: 1}, Notify: v.notify}).Serve(ctx, s.lines, stdin)
	switch status, message := v.result(); {
	case status == bot.RunOK:
		return nil
	case status != "":
		return problems(message)
	case served != nil:
		return fmt.Errorf("check: %w", served)
	default:
		return p.endedCheck()
	}
}

// endedCheck says why a check ended without a result: at a limit, which is the author's matter, or else.
func (p *program) endedCheck() error {
	result, err := p.box.Close()
	if result.OOMKilled || result.Killed != "" {
		message := fmt.Sprintf("loading it was ended by the host: more memory or time than [limits] allows (%d bytes, %s)", result.Memory, result.Wall.Round(time.Millisecond))
		return bundle.Problems{{File: p.bot.Manifest.Main, Line: 1, Column: 1, Message: message, Fix: "make the modules smaller, or raise [limits]"}}
	}
	return errors.Join(fmt.Errorf("the worker ended without a result: %s", p.log), err)
}

// heap leaves room in the cgroup for the engine itself, so that a script sees "out of memory" with its line.
func heap(memory int64) int64 { return memory * 3 / 4 }

func tarOf(files []bundle.File) *bytes.Buffer {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		// Writes to a bytes.Buffer cannot fail, and the headers are made here.
		_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.Path, Size: int64(len(f.Data)), Mode: 0o400})
		_, _ = w.Write(f.Data)
	}
	_ = w.Close()
	return &b
}

// problems reads the worker's lines "main.js:3:9: SyntaxError: …".
func problems(message string) bundle.Problems {
	position := regexp.MustCompile(`^([^:\s]+):(\d+):(\d+): (.*)$`)
	var list bundle.Problems
	for line := range strings.Lines(message) {
		line = strings.TrimSpace(line)
		if m := position.FindStringSubmatch(line); m != nil {
			row, _ := strconv.Atoi(m[2])
			column, _ := strconv.Atoi(m[3])
			list = append(list, bundle.Problem{File: m[1], Line: row, Column: column, Message: m[4]})
		} else if line != "" {
			list = append(list, bundle.Problem{Message: line})
		}
	}
	return list
}
