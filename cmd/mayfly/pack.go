package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"mayfly/internal/bundle"
	"mayfly/internal/pack"
)

const packUsage = `mayfly pack makes a bundle of a bot's folder: what the bot depends on is fetched with pip (requirements.txt, pyproject.toml, setup.py),
npm (package.json) or go (go.mod), and goes into a zip. The folder needs a bot.toml, and is not changed.

Usage: mayfly pack [-o FILE] [-json] [-python PATH] DIR

Example:
  git clone https://example.org/echobot && cp bot.toml echobot
  mayfly pack echobot && mayfly lint echobot.zip && mayfly demo -core $(which deltachat-rpc-server) -bot echobot.zip -say hello

Exit codes: 0 the zip was written; 1 something could not be fetched or built, or a host would refuse the bundle; 2 the command line is wrong.

`

// packReport is what `mayfly pack -json` prints.
type packReport struct {
	File string `json:"file,omitempty"` // the zip; not there if none was written
	pack.Report
	Problems bundle.Problems `json:"problems"`
}

// packBot makes a bundle of a bot's folder, with all that it depends on.
func packBot(ctx context.Context, args []string, std stdio) error {
	flags := newFlags("pack", std)
	out := flags.String("o", "", "the zip to `write` (default: the folder's name and .zip, in the current folder)")
	asJSON := flags.Bool("json", false, "print JSON")
	python := flags.String("python", "python3", "the `path` of the Python whose pip is used; packages with compiled parts need the host's version")
	flags.Usage = func() { fmt.Fprint(std.err, packUsage); flags.PrintDefaults() }
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("mayfly pack takes the path of one folder: %w", errUsage)
	}
	dir, err := filepath.Abs(flags.Arg(0))
	if err != nil {
		return err
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return fmt.Errorf("%s is no folder: %w", flags.Arg(0), errors.Join(err, errUsage))
	}
	ceilings := bundle.DefaultCeilings()
	b, made, err := pack.Pack(ctx, pack.Options{
		Dir: dir, Python: *python, Ceilings: ceilings, Progress: func(line string) { fmt.Fprintln(std.err, "pack:", line) },
	})
	report := packReport{Report: made, Problems: bundle.Problems{}}
	if err != nil && !errors.As(err, &report.Problems) {
		return err
	}
	if err == nil {
		report.File = either(*out, filepath.Base(dir)+".zip")
		if err := writeZip(report.File, b); err != nil {
			return err
		}
	}
	if err := report.print(std, *asJSON, ceilings); err != nil {
		return err
	}
	return lintReport{Problems: report.Problems}.verdict()
}

// writeZip replaces the file as a whole.
func writeZip(path string, b *bundle.Bundle) error {
	data, err := b.Zip()
	if err != nil {
		return err
	}
	temporary := path + ".new"
	if err := os.WriteFile(temporary, data, 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

func (r packReport) print(std stdio, asJSON bool, c bundle.Ceilings) error {
	if asJSON {
		return json.NewEncoder(std.out).Encode(r)
	}
	if !r.Fetched {
		fmt.Fprintln(std.out, "nothing to fetch: there is no requirements.txt, pyproject.toml, package.json or go.mod")
	}
	for _, s := range r.Steps {
		fmt.Fprintf(std.out, "%6.1f s  %s\n", s.Seconds, s.Command)
	}
	for _, l := range r.LeftOut {
		fmt.Fprintf(std.out, "left out  %s (%s): %s\n", l.Path, pack.About(l.Bytes), l.Why)
	}
	for _, p := range r.Problems {
		fmt.Fprintln(std.out, p)
	}
	if r.File == "" {
		return nil
	}
	_, err := fmt.Fprintf(std.out, "wrote     %s: %d of %d files, %s of %s\n", r.File, r.Files, c.Files, pack.About(r.Bytes), pack.About(c.Total))
	return err
}
