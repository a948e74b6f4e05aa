package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"mayfly/internal/sandbox"
)

// testedCore is the version of deltachat-rpc-server that the tests run.
const testedCore = "2.62.0"

// check prints what this machine has and lacks. It fails when something is missing that bots need.
func check(ctx context.Context, args []string, std stdio) error {
	flags := newFlags("check", std)
	path := flags.String("config", "", "the configuration `file`; without it, the defaults are checked")
	asJSON := flags.Bool("json", false, "print JSON")
	sandboxPath := flags.String("sandbox", "", "the broker's `path` (default: the configuration's, without one that beside mayfly)")
	corePath := flags.String("core", "", "the core's `path`, instead of the configuration's")
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	cfg := defaultConfig()
	if *path != "" {
		var err error
		if cfg, err = readConfig(*path); err != nil {
			return err
		}
	}
	if beside := besideSelf("mayfly-sandbox"); *path == "" && exists(beside) {
		cfg.Sandbox = beside
	}
	cfg.Sandbox, cfg.Core = either(*sandboxPath, cfg.Sandbox), either(*corePath, cfg.Core)
	core, _ := checkCore(ctx, cfg.Core)
	walls := append([]sandbox.Wall{core}, checkSandbox(ctx, cfg)...)
	if *asJSON {
		if err := json.NewEncoder(std.out).Encode(walls); err != nil {
			return err
		}
	} else if err := printWalls(std, walls); err != nil {
		return err
	}
	for _, w := range walls {
		if w.Required && !w.InForce {
			return errors.New("something is missing that bots need: see above")
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func printWalls(std stdio, walls []sandbox.Wall) error {
	t := tabwriter.NewWriter(std.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "WHAT\tIN FORCE\tNEEDED\tWHY")
	for _, w := range walls {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", w.Name, yesNo(w.InForce), yesNo(w.Required), w.Why)
		if !w.InForce && w.Mend != "" {
			fmt.Fprintf(t, "\t\t\tto mend it: %s\n", w.Mend)
		}
	}
	return t.Flush()
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// checkCore asks the core for its version.
func checkCore(ctx context.Context, path string) (w sandbox.Wall, version string) {
	w = sandbox.Wall{Name: "core", Required: true, Mend: "install deltachat-rpc-server " + testedCore + " (PyPI deltachat-rpc-server, npm @deltachat/stdio-rpc-server) and set core in the configuration"}
	if _, err := os.Stat(path); err != nil {
		w.Why = err.Error()
		return w, ""
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").CombinedOutput()
	version = strings.TrimSpace(string(out))
	if err != nil {
		w.Why = fmt.Sprintf("%s --version: %v: %.100s", path, err, version)
		return w, ""
	}
	if !regexp.MustCompile(`^[0-9A-Za-z.+-]{1,40}$`).MatchString(version) {
		w.Why = fmt.Sprintf("%s --version says %.40q, which is no version", path, version)
		return w, ""
	}
	w.InForce, w.Why = true, fmt.Sprintf("%s is %s, tested with %s", path, version, testedCore)
	return w, version
}

// checkSandbox starts a broker and tries every wall.
func checkSandbox(ctx context.Context, cfg config) []sandbox.Wall {
	broker, err := startBroker(ctx, cfg)
	var missing *sandbox.MissingError
	if errors.As(err, &missing) {
		return []sandbox.Wall{missing.Wall}
	}
	if err != nil {
		return []sandbox.Wall{{Name: "broker", Required: true, Why: err.Error(), Mend: "set sandbox in the configuration to the path of mayfly-sandbox; see docs/SECURITY.md for what it needs of the kernel"}}
	}
	walls := sandbox.Check(ctx, broker.Client(), cfg.Bots.walls())
	if err := broker.Close(); err != nil {
		walls = append(walls, sandbox.Wall{Name: "clean end", Required: true, Why: err.Error(), Mend: "look for processes and cgroups named mayfly and remove them"})
	}
	return walls
}
