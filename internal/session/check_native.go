package session

import (
	"context"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"mayfly/internal/bundle"
	"mayfly/internal/ledger"
	"mayfly/internal/sandbox"
)

// pythonCheck compiles a script without running it, and says what is wrong with it as `mayfly lint` does.
const pythonCheck = `import sys
name = sys.argv[1]
try:
    compile(open(name, "rb").read(), name, "exec")
except SyntaxError as e:
    sys.exit(f"{name}:{e.lineno or 1}:{e.offset or 1}: SyntaxError: {e.msg}")
except ValueError as e:
    sys.exit(f"{name}:1:1: {e}")`

// syntaxCheck is the command by which an interpreter parses a script, without running it, and how it says what is wrong. The
// pattern's groups are named line, column and message.
type syntaxCheck struct {
	args    []string // before the script
	pattern string
	keep    string // how those of the bot's own arguments begin without which its script is not understood; "": none
}

func syntaxChecks() map[string]syntaxCheck {
	return map[string]syntaxCheck{
		"python3": {[]string{"-c", pythonCheck}, `(?m)^[^:\n]*:(?P<line>\d+):(?P<column>\d+): (?P<message>.*)$`, ""},
		"node":    {[]string{"--check"}, `(?ms)^[^\n]*:(?P<line>\d+)$.*?^(?P<message>\w*Error: [^\n]*)$`, ""},
		"sh":      {[]string{"-n"}, `(?m)^[^:\n]*: (?P<line>\d+): (?P<message>.*)$`, ""},
		"perl":    {[]string{"-c"}, `(?m)^(?P<message>.*) at .* line (?P<line>\d+)`, "-I"}, // where modules are
	}
}

// checkNative lets the interpreter parse the script of a native bot, in a sandbox as of a run. Interpreters that cannot, and programs
// of the bundle, are taken as they are.
func (r *Runner) checkNative(ctx context.Context, b *bundle.Bundle) error {
	m := b.Manifest
	check, known := syntaxChecks()[m.Command[0]]
	script := scriptOf(b)
	if !known || script == "" {
		return nil
	}
	m.Command = slices.Concat(m.Command[:1], check.kept(m.Command), check.args, []string{script})
	p := r.newProgram(ledger.Bot{Manifest: m})
	ctx, p.cancel = context.WithCancel(ctx)
	close(p.opened)
	defer p.close()
	if err := p.open(ctx, func(box *sandbox.Sandbox) error { return box.Put(bundleDir, tarOf(b.Files)) }); err != nil {
		return fmt.Errorf("the sandbox of the check: %w", err)
	}
	if err := p.box.Start(programName); err != nil {
		return err
	}
	stdio := p.box.Program(programName)
	if err := stdio.Stdin.Close(); err != nil {
		return err
	}
	go io.Copy(io.Discard, io.LimitReader(stdio.Stdout, maxOutput)) // nothing of what it prints is asked for
	exit, trouble := p.wait(ctx)
	if trouble != nil {
		return fmt.Errorf("the check of %s: %w", script, trouble)
	}
	if exit == (sandbox.Exit{}) {
		return nil
	}
	<-p.log.ended
	return bundle.Problems{syntaxProblem(script, check.pattern, p.log.String())}
}

// kept are the arguments of a command that its check needs.
func (s syntaxCheck) kept(command []string) []string {
	return slices.DeleteFunc(slices.Clone(command[1:]), func(arg string) bool { return s.keep == "" || !strings.HasPrefix(arg, s.keep) })
}

// scriptOf is the first argument of a command that is a file of the bundle.
func scriptOf(b *bundle.Bundle) string {
	for _, arg := range b.Manifest.Command[1:] {
		if slices.ContainsFunc(b.Files, func(f bundle.File) bool { return f.Path == path.Clean(arg) }) {
			return path.Clean(arg)
		}
	}
	return ""
}

func syntaxProblem(script, pattern, printed string) bundle.Problem {
	p := bundle.Problem{File: script, Message: bounded(printed)}
	re := regexp.MustCompile(pattern)
	m := re.FindStringSubmatch(printed)
	if m == nil {
		return p
	}
	group := func(name string) string {
		if i := re.SubexpIndex(name); i >= 0 {
			return m[i]
		}
		return ""
	}
	p.Line, _ = strconv.Atoi(group("line"))
	p.Column, _ = strconv.Atoi(group("column"))
	p.Column = max(p.Column, 1)
	p.Message = bounded(group("message"))
	return p
}
