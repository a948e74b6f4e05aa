package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"mayfly/internal/bundle"
	"mayfly/internal/sandbox"
	"mayfly/internal/session"
)

// lintReport is what `mayfly lint -json` prints.
type lintReport struct {
	Problems bundle.Problems `json:"problems"`
	Withheld []string        `json:"withheld,omitempty"`   // what it asks for and the host does not grant
	Parsed   bool            `json:"parsed"`               // the scripts were compiled and linked, as on a host
	Why      string          `json:"not_parsed,omitempty"` // why they were not
}

// lint says of a bundle what a host would say of it: one with the defaults, or with the operator's configuration. What is above the
// ceilings of a host whose configuration is not at hand only that host knows.
func lint(ctx context.Context, args []string, std stdio) error {
	flags := newFlags("lint", std)
	asJSON := flags.Bool("json", false, "print JSON")
	sandboxPath := flags.String("sandbox", besideSelf("mayfly-sandbox"), "the `path` of mayfly-sandbox, which parses the scripts")
	configPath := flags.String("config", "", "the `path` of a host's configuration, whose ceilings hold; without it, the defaults")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	ceilings, err := ceilingsOf(*configPath)
	if err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("mayfly lint takes the path of one folder or zip: %w", errUsage)
	}
	b, err := readBundle(flags.Arg(0), ceilings)
	report := lintReport{Problems: bundle.Problems{}, Why: "the bundle has to be in order first"}
	if err == nil {
		report.Why, report.Withheld = "", ceilings.Withheld(b.Manifest)
		err = parseScripts(ctx, *sandboxPath, b)
		report.Parsed = err == nil || errors.As(err, new(bundle.Problems))
	}
	if err != nil && !errors.As(err, &report.Problems) {
		if b == nil {
			return err
		}
		report.Why = err.Error()
	}
	if err := report.print(std, *asJSON); err != nil {
		return err
	}
	return report.verdict()
}

func ceilingsOf(configPath string) (bundle.Ceilings, error) {
	if configPath == "" {
		return bundle.DefaultCeilings(), nil
	}
	cfg, err := readConfig(configPath)
	if err != nil {
		return bundle.Ceilings{}, err
	}
	return cfg.ceilings()
}

// readBundle reads a folder or a zip. An error that is not bundle.Problems is about the path.
func readBundle(path string, c bundle.Ceilings) (*bundle.Bundle, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errUsage)
	}
	if info.IsDir() {
		return bundle.FromDir(path, c)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 2*c.Total)) // more than FromZip takes, so that it says so
	if err != nil {
		return nil, err
	}
	return bundle.FromZip(data, c)
}

// parseScripts has the scripts compiled and linked in a sandbox: not even an author's own machine runs what a bundle holds
// outside of one. An error that is not bundle.Problems says why that cannot be done here.
func parseScripts(ctx context.Context, sandboxPath string, b *bundle.Bundle) (err error) {
	cfg := defaultConfig()
	cfg.Sandbox = sandboxPath
	broker, err := startBroker(ctx, cfg)
	var missing *sandbox.MissingError
	if errors.As(err, &missing) {
		return fmt.Errorf("%s: %s; to mend it: %s", missing.Wall.Name, missing.Wall.Why, missing.Wall.Mend)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, broker.Close()) }()
	runner := session.New(session.Options{
		Sandboxes: broker.Client(), Limits: session.DefaultLimits(), Log: slog.New(slog.DiscardHandler), Interpreters: cfg.Bots.interpreters(),
	})
	return runner.Check(ctx, b)
}

func (r lintReport) print(std stdio, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(std.out).Encode(r)
	}
	for _, p := range r.Problems {
		if _, err := fmt.Fprintln(std.out, p); err != nil {
			return err
		}
	}
	for _, line := range r.Withheld {
		fmt.Fprintf(std.err, "mayfly: %s\n", line)
	}
	if !r.Parsed {
		fmt.Fprintf(std.err, "mayfly: the scripts were not parsed: %s\n", r.Why)
	}
	return nil
}

func (r lintReport) verdict() error {
	switch n := len(r.Problems); n {
	case 0:
		return nil
	case 1:
		return errors.New("1 problem: a host would refuse this bundle")
	default:
		return fmt.Errorf("%d problems: a host would refuse this bundle", n)
	}
}
