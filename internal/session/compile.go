package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/ledger"
	"mayfly/internal/sandbox"
	"mayfly/internal/storage"
)

// A WASM module is compiled when its bundle is installed, in a sandbox of its own, and what comes of it is laid read-only before each
// run. After an update of the engine it is compiled anew at the first run.
const (
	compiledDir   = "/compiled"
	maxCompiled   = 128 << 20 // bytes; machine code is several times its module
	compileMemory = 512 << 20
	compileWall   = 60 * time.Second
)

// CompileSpec is the sandbox in which the module of a bundle is compiled.
func (r *Runner) CompileSpec(m bot.Manifest) sandbox.Spec {
	return sandbox.Spec{
		Name: "compile", Memory: compileMemory, Pids: r.Limits.Pids, Wall: compileWall, CPU: compileWall, Landlock: r.Landlock,
		Dirs: []sandbox.Dir{
			{Path: bundleDir, Size: r.Limits.Tmpfs, Inodes: 5000},
			{Path: compiledDir, Size: maxCompiled, Inodes: 100, Writable: true},
			{Path: tmpDir, Size: 1 << 20, Inodes: 100, Writable: true},
		},
		Programs: []sandbox.Program{{Name: programName, Builtin: "wasm-compile", Profile: sandbox.ProfileWASM, Dir: tmpDir,
			Args: []string{m.Main, strconv.FormatInt(heap(m.Limits.Memory), 10)}}},
	}
}

// compile compiles the module of a bundle that fill puts into the sandbox, and hands the sandbox to keep. What the author must mend is
// returned as bundle.Problems.
func (r *Runner) compile(ctx context.Context, m bot.Manifest, fill, keep func(*sandbox.Sandbox) error) error {
	box, err := r.Sandboxes.Open(ctx, r.CompileSpec(m))
	if err != nil {
		return fmt.Errorf("the sandbox of the compiler: %w", err)
	}
	defer box.Close() // what ended it is read below
	if err := fill(box); err != nil {
		return err
	}
	log := newTail(r.Limits.Log)
	stdio := box.Program(programName)
	go log.read(stdio.Stderr, func() { _ = box.Kill() }) // its failure is the sandbox's end
	if err := box.Start(programName); err != nil {
		return err
	}
	out := readOutput(stdio.Stdout)
	exit, err := box.Wait(ctx, programName)
	if errors.Is(err, sandbox.ErrDead) || exit.Signal != 0 {
		return endedCompile(box, m.Main, log)
	}
	if err = errors.Join(err, out.err); err != nil {
		return fmt.Errorf("the compiler: %w", err)
	}
	var report struct{ Status, Message string }
	if err := json.Unmarshal([]byte(out.text), &report); err != nil {
		return fmt.Errorf("the compiler said nothing (exit code %d): %s", exit.Code, log)
	}
	switch bot.RunStatus(report.Status) {
	case bot.RunOK:
		return keep(box)
	case bot.RunError:
		return problems(report.Message)
	}
	return fmt.Errorf("the compiler: %.200s: %.1000s", report.Status, report.Message)
}

// endedCompile says why the compiler was killed: at a limit, which is the author's matter, or else.
func endedCompile(box *sandbox.Sandbox, main string, log *tail) error {
	result, err := box.Close()
	if result.OOMKilled || result.Killed != "" {
		return bundle.Problems{{File: main, Message: fmt.Sprintf("compiling it took more memory or time than this host gives (%s, %s)",
			bundle.FormatSize(compileMemory), compileWall), Fix: "make the module smaller: strip debug information, optimize for size"}}
	}
	return errors.Join(fmt.Errorf("the compiler ended without a result: %s", log), err)
}

// checkWASM compiles the module of a bundle that is not installed yet.
func (r *Runner) checkWASM(ctx context.Context, b *bundle.Bundle) error {
	fill := func(box *sandbox.Sandbox) error { return box.Put(bundleDir, tarOf(b.Files)) }
	return r.compile(ctx, b.Manifest, fill, func(*sandbox.Sandbox) error { return nil })
}

// ensureCompiled compiles the module of an installed bot where that has not been done with this engine.
func (r *Runner) ensureCompiled(ctx context.Context, b ledger.Bot) error {
	if b.Manifest.Runtime != bot.RuntimeWASM {
		return nil
	}
	if there, err := r.Storage.HasCompiled(b.Address, b.Digest, r.Engine); there || err != nil {
		return err
	}
	return r.compile(ctx, b.Manifest, func(box *sandbox.Sandbox) error {
		return putGeneration(box, bundleDir, func(w io.Writer) error { return r.Storage.ExportBundle(b.Address, b.Digest, w) })
	}, func(box *sandbox.Sandbox) error {
		stream, err := box.Collect(compiledDir)
		if err != nil {
			return err
		}
		defer stream.Close()
		return r.Storage.ImportCompiled(ctx, b.Address, b.Digest, r.Engine, stream, compiledRules())
	})
}

func compiledRules() storage.Rules {
	return storage.Rules{Files: 100, Depth: 4, Name: 255, Bytes: maxCompiled, File: maxCompiled, Change: maxCompiled}
}
