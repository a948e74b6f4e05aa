package pack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"mayfly/internal/bundle"
)

// sitePackages is where a host has Python look for packages.
const sitePackages = "site-packages"

// python installs what a Python bot depends on.
func (p *packer) python(ctx context.Context) error {
	var what []string
	switch {
	case p.has("requirements.txt"):
		what = []string{"-r", "requirements.txt"}
	case p.isProject():
		what = []string{"."}
	default:
		return nil
	}
	p.report.Fetched = true
	// The copy has no history, from which some projects take their version.
	version := "SETUPTOOLS_SCM_PRETEND_VERSION=" + p.manifest.Version
	args := append([]string{"-m", "pip", "install", "--quiet", "--no-compile", "--target", sitePackages}, what...)
	if err := p.run(ctx, p.stage, p.Python, args, "PIP_DISABLE_PIP_VERSION_CHECK=1", "PIP_ROOT_USER_ACTION=ignore", version); err != nil {
		return err
	}
	return errors.Join(
		p.leaveOut(whyCore, sitePackages+"/deltachat_rpc_server*"),
		p.leaveOut(whyScript, sitePackages+"/bin"),
		p.leaveOut(whyAgain, "build", "*.egg-info"))
}

// isProject reports whether pip can install the folder. A pyproject.toml may be there for the settings of other tools alone.
func (p *packer) isProject() bool {
	text, err := os.ReadFile(filepath.Join(p.stage, "pyproject.toml"))
	return p.has("setup.py") || err == nil && regexp.MustCompile(`(?m)^\[(project|build-system)\]`).Match(text)
}

// compile has Python's modules compiled under the names that they have on a host. A module that cannot be compiled is one for another
// Python, or a template: it does not matter until it is imported.
func (p *packer) compile(ctx context.Context) error {
	if p.interpreter() != "python3" {
		return nil
	}
	args := []string{"-m", "compileall", "-qq", "--invalidation-mode", "unchecked-hash", "-s", p.stage, "-p", "/bundle", p.stage}
	var failed *exec.ExitError
	if err := p.run(ctx, p.stage, p.Python, args); err != nil && !errors.As(err, &failed) {
		return err
	}
	return p.withoutCompiled()
}

// withoutCompiled leaves the compiled modules out where only they make the bundle too large: the bot then starts more slowly.
func (p *packer) withoutCompiled() error {
	p.measure()
	if p.report.Bytes <= p.Ceilings.Total && p.report.Files <= p.Ceilings.Files {
		return nil
	}
	return p.dropFiles(".", "*.pyc", whyLarge, func(name string) bool { return strings.HasSuffix(name, ".pyc") })
}

// packageJSON is the part of package.json that says what to do.
type packageJSON struct {
	Dependencies map[string]string `json:"dependencies"`
	Scripts      map[string]string `json:"scripts"`
}

// node installs what a Node bot depends on, after it was built.
func (p *packer) node(ctx context.Context) error {
	text, err := os.ReadFile(filepath.Join(p.stage, "package.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var pkg packageJSON
	if err := json.Unmarshal(text, &pkg); err != nil {
		return fmt.Errorf("package.json: %w", err)
	}
	install := "install"
	if p.has("package-lock.json") {
		install = "ci"
	}
	commands := [][]string{{install, "--omit=dev"}}
	if pkg.Scripts["build"] != "" {
		commands = [][]string{{install}, {"run", "build"}, {"prune", "--omit=dev"}}
	}
	p.report.Fetched = true
	for _, args := range commands {
		if err := p.run(ctx, p.stage, "npm", append(args, "--loglevel=error", "--no-audit", "--no-fund")); err != nil {
			return err
		}
	}
	return p.trimModules(pkg)
}

// trimModules leaves typescript in only where the bot itself asks for it.
func (p *packer) trimModules(pkg packageJSON) error {
	const modules = "node_modules"
	if _, err := os.Stat(filepath.Join(p.stage, modules)); err != nil {
		return nil // it depends on nothing
	}
	development := []string{modules + "/@types"}
	if pkg.Dependencies["typescript"] == "" {
		development = append(development, modules+"/typescript")
	}
	return errors.Join(
		p.leaveOut(whyCore, modules+"/@deltachat/stdio-rpc-server-*"),
		p.leaveOut(whyTypes, development...),
		p.dropFiles(modules, "*.d.ts, *.map", whyTypes, func(name string) bool {
			return strings.HasSuffix(name, ".map") || strings.HasSuffix(name, ".d.ts") || strings.HasSuffix(name, ".d.mts") || strings.HasSuffix(name, ".d.cts")
		}))
}

// golang builds the program that bot.toml's command names.
func (p *packer) golang(ctx context.Context) error {
	if !p.has("go.mod") || p.interpreter() != "" {
		return nil
	}
	if len(p.manifest.Command) == 0 || !filepath.IsLocal(p.manifest.Command[0]) {
		return fmt.Errorf("%s: the command must begin with the name that the program is to have in the bundle: write command = [\"./bot\"]", bundle.ManifestName)
	}
	p.report.Fetched = true
	program := path.Clean(p.manifest.Command[0])
	source, err := p.mainPackage(ctx, path.Base(program))
	if err != nil {
		return err
	}
	output := filepath.Join(p.stage, program)
	if info, err := os.Stat(output); err == nil && info.IsDir() {
		return fmt.Errorf("%s: %s is a folder: give the program another name in command", bundle.ManifestName, program)
	}
	args := append([]string{"build", "-trimpath", "-ldflags=-s -w", "-o", output}, p.modules()...)
	if err := p.run(ctx, p.stage, "go", append(args, source), "CGO_ENABLED=0", "GOOS=linux"); err != nil {
		return err
	}
	return errors.Join(
		p.dropFiles(".", "*.go, go.mod, go.sum", whySource, isGoSource),
		p.leaveOut(whySource, "vendor"))
}

func isGoSource(name string) bool {
	return strings.HasSuffix(name, ".go") || slices.Contains([]string{"go.mod", "go.sum", "go.work", "go.work.sum"}, name)
}

// modules lets go add to go.sum what it lacks, in the copy.
func (p *packer) modules() []string {
	if _, err := os.Stat(filepath.Join(p.stage, "vendor")); err == nil {
		return nil
	}
	return []string{"-mod=mod"}
}

// mainPackage is the program of the module: at its root, or else the only one, or the one in the folder of that name.
func (p *packer) mainPackage(ctx context.Context, name string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"list"}, p.modules()...), "-f", `{{if eq .Name "main"}}{{.Dir}}{{end}}`, "./...")...)
	cmd.Dir, cmd.Env = p.stage, append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	out, err := cmd.Output()
	if err != nil {
		return "", toolError("go", cmd.Args[1:], err, nil)
	}
	real, err := filepath.EvalSymlinks(p.stage)
	if err != nil {
		return "", err
	}
	var found []string
	for dir := range strings.FieldsSeq(string(out)) {
		inside, err := filepath.Rel(real, dir)
		if err != nil {
			return "", err
		}
		if inside == "." {
			return ".", nil
		}
		found = append(found, "./"+inside)
	}
	for _, dir := range found {
		if len(found) == 1 || path.Base(dir) == name {
			return dir, nil
		}
	}
	return "", fmt.Errorf("go.mod: of the programs %q none is called %s: name one of them in command of %s", found, name, bundle.ManifestName)
}

// heartbeat is how often a step that goes on tells so.
const heartbeat = 5 * time.Second

// run runs a tool of the author's, in a group of its own that ends with ctx.
func (p *packer) run(ctx context.Context, dir, program string, args []string, env ...string) error {
	line := path.Base(program) + " " + strings.NewReplacer(p.stage+"/", "", p.stage, ".").Replace(strings.Join(args, " "))
	p.Progress(line)
	began := time.Now()
	printed := &tail{}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append(os.Environ(), env...), printed, printed
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = heartbeat
	stop := p.beat(program, began)
	err := cmd.Run()
	stop()
	p.report.Steps = append(p.report.Steps, Step{line, seconds(time.Since(began))})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return toolError(program, args, err, printed.text)
	}
	return nil
}

// beat tells every now and then that a program is still running.
func (p *packer) beat(program string, began time.Time) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(heartbeat)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				p.Progress(fmt.Sprintf("… %s has been running for %s", path.Base(program), time.Since(began).Round(time.Second)))
			case <-done:
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}

// toolError says which tool failed, what it printed, and where to get it.
func toolError(program string, args []string, err error, printed []byte) error {
	var failed *exec.ExitError
	if errors.As(err, &failed) && printed == nil {
		printed = failed.Stderr
	}
	hint := ""
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		hint = ": install it (Debian: apt install python3-pip, npm or golang) or put it on the PATH"
	case strings.Contains(string(printed), "No module named pip"):
		hint = ": install it (Debian: apt install python3-pip)"
	}
	text := strings.TrimSpace(string(printed))
	if text != "" {
		text = "\n" + text
	}
	return fmt.Errorf("%s %s: %w%s%s", path.Base(program), strings.Join(args, " "), err, hint, text)
}

// tail keeps the end of what a tool prints.
type tail struct{ text []byte }

const maxTail = 4000

func (t *tail) Write(b []byte) (int, error) {
	t.text = append(t.text, b...)
	if over := len(t.text) - maxTail; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(b), nil
}
