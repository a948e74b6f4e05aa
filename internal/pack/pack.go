// Package pack makes a bundle of a bot as its author has it: the folder with its sources, and bot.toml. What the bot depends on is
// fetched with the tools that its author uses, and goes into the bundle. The folder itself is not changed: everything happens in a copy.
//
//	requirements.txt            pip installs what it lists into site-packages
//	pyproject.toml, setup.py    where there is no requirements.txt, pip installs the project and what it depends on into site-packages
//	package.json                npm installs its dependencies into node_modules, as package-lock.json says if there is one; a script
//	                            named build is run before, with the development dependencies there
//	go.mod                      go builds the program that bot.toml's command names, static; the sources are left out
//
// A host puts site-packages on PYTHONPATH, and node finds node_modules by itself.
//
// Left out of what was fetched is what the host has (core's server, in its packages of PyPI and npm) and what only development needs
// (types and sources for TypeScript, programs that pip would put on the PATH). Hidden files, node_modules, site-packages and virtual
// environments of the author's folder are not copied. Python's modules come compiled, so that a run need not do it.
//
// The bundle is checked as a host with the given ceilings does. Foreign code runs: pip, npm and go build run what the packages bring,
// with the rights of whoever calls this, as they do without it.
package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"mayfly/internal/bundle"
)

// Options say what to pack, and with what.
type Options struct {
	Dir      string // the bot's folder
	Python   string // "": python3
	Ceilings bundle.Ceilings
	Progress func(line string) // is told what is under way
}

// Report says what was done.
type Report struct {
	Steps   []Step    `json:"steps"`
	Fetched bool      `json:"fetched"` // pip, npm or go had something to do
	LeftOut []LeftOut `json:"left_out"`
	Files   int       `json:"files"`
	Bytes   int64     `json:"bytes"`
}

// Step is one program that was run.
type Step struct {
	Command string  `json:"command"`
	Seconds float64 `json:"seconds"`
}

// LeftOut is something that is not in the bundle, and why.
type LeftOut struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
	Why   string `json:"why"`
}

// The reasons for leaving something out.
const (
	whyCore   = "the host has core"
	whyTypes  = "only development needs it"
	whyScript = "programs on the PATH: write command = [\"python3\", \"-m\", …]"
	whySource = "built into the program"
	whyAgain  = "fetched anew"
	whyLarge  = "the bundle would be too large; the bot starts more slowly without"
	whyLink   = "a link"
)

// packer is one call of Pack.
type packer struct {
	Options
	stage    string // the copy
	manifest manifest
	report   Report
}

// manifest is what must be known before there is a bundle to check.
type manifest struct {
	Version string   `toml:"version"`
	Runtime string   `toml:"runtime"`
	Command []string `toml:"command"`
}

// Pack makes the bundle. An error that is bundle.Problems says why a host would refuse it.
func Pack(ctx context.Context, o Options) (b *bundle.Bundle, r Report, err error) {
	p := &packer{Options: o, report: Report{Steps: []Step{}, LeftOut: []LeftOut{}}}
	if p.Python == "" {
		p.Python = "python3"
	}
	if p.stage, err = os.MkdirTemp("", "mayfly-pack-"); err != nil {
		return nil, r, err
	}
	defer func() { err = errors.Join(err, remove(p.stage)) }()
	if err := p.pack(ctx); err != nil {
		return nil, p.report, err
	}
	b, err = bundle.FromDir(p.stage, o.Ceilings)
	p.measure()
	return b, p.report, p.explain(err)
}

func (p *packer) pack(ctx context.Context) error {
	text, err := os.ReadFile(filepath.Join(p.Dir, bundle.ManifestName))
	if err != nil {
		return fmt.Errorf("%w: write one into the bot's folder, docs/AUTHORS.md has an example", err)
	}
	if err := toml.Unmarshal(text, &p.manifest); err != nil {
		return fmt.Errorf("%s: %w", bundle.ManifestName, err)
	}
	if err := p.copy(); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{p.python, p.node, p.golang, p.compile} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) has(name string) bool {
	info, err := os.Stat(filepath.Join(p.stage, name))
	return err == nil && info.Mode().IsRegular()
}

// interpreter is the host's program that runs the bot, or "".
func (p *packer) interpreter() string {
	if len(p.manifest.Command) > 0 && slices.Contains(p.Ceilings.Interpreters, p.manifest.Command[0]) {
		return p.manifest.Command[0]
	}
	return ""
}

// copy takes the author's folder into the stage.
func (p *packer) copy() error {
	root, err := os.OpenRoot(p.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == ".":
			return nil
		case d.Name()[0] == '.' || d.Name() == "__pycache__":
			return skip(d)
		case d.IsDir() && p.fetchedAnew(root, name, d.Name()):
			p.report.LeftOut = append(p.report.LeftOut, LeftOut{Path: name, Why: whyAgain})
			return fs.SkipDir
		case d.IsDir():
			return os.Mkdir(filepath.Join(p.stage, name), 0o755)
		case !d.Type().IsRegular():
			p.report.LeftOut = append(p.report.LeftOut, LeftOut{Path: name, Why: whyLink})
			return nil
		}
		return p.copyFile(root, name, d)
	})
}

func skip(d fs.DirEntry) error {
	if d.IsDir() {
		return fs.SkipDir
	}
	return nil
}

// fetchedAnew reports whether a folder holds what pip and npm have put there.
func (p *packer) fetchedAnew(root *os.Root, name, base string) bool {
	beside := func(file string) bool {
		_, err := root.Stat(path.Join(path.Dir(name), file))
		return err == nil
	}
	_, err := root.Stat(path.Join(name, "pyvenv.cfg"))
	return err == nil || base == "node_modules" && beside("package.json") || base == "site-packages" && beside("requirements.txt")
}

// copyFile refuses what no bundle may hold before it is copied.
func (p *packer) copyFile(root *os.Root, name string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	if info.Size() > p.Ceilings.File {
		return bundle.Problems{{File: name, Message: "larger than " + bundle.FormatSize(p.Ceilings.File) + ", the operator's ceiling for one file",
			Fix: "make it smaller or move it out of the folder"}}
	}
	in, err := root.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(filepath.Join(p.stage, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600|info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// leaveOut deletes from the stage what patterns of filepath.Glob name.
func (p *packer) leaveOut(why string, patterns ...string) error {
	for _, pattern := range patterns {
		found, err := filepath.Glob(filepath.Join(p.stage, pattern))
		if err != nil {
			return err
		}
		for _, name := range found {
			if err := p.drop(name, why); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *packer) drop(name, why string) error {
	inside, err := filepath.Rel(p.stage, name)
	if err != nil {
		return err
	}
	p.report.LeftOut = append(p.report.LeftOut, LeftOut{inside, size(name), why})
	return remove(name)
}

// dropFiles leaves out the files below dir for which match is true, and tells of them as one.
func (p *packer) dropFiles(dir, what, why string, match func(name string) bool) error {
	var bytes int64
	err := filepath.WalkDir(filepath.Join(p.stage, dir), func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !match(d.Name()) {
			return err
		}
		bytes += size(name)
		return os.Remove(name)
	})
	if bytes > 0 {
		p.report.LeftOut = append(p.report.LeftOut, LeftOut{path.Join(dir, what), bytes, why})
	}
	return err
}

// size is that of a file, or of all files in a folder, in bytes.
func size(name string) int64 {
	var n int64
	_ = filepath.WalkDir(name, func(_ string, d fs.DirEntry, err error) error { // what cannot be read is nothing
		if info, infoErr := d.Info(); err == nil && infoErr == nil && !d.IsDir() {
			n += info.Size()
		}
		return nil
	})
	return n
}

// remove deletes a tree that may have read-only folders, as the module cache of go does.
func remove(name string) error {
	_ = filepath.WalkDir(name, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(name, 0o700)
		}
		return nil
	})
	return os.RemoveAll(name)
}

func (p *packer) measure() {
	p.report.Files, p.report.Bytes = 0, 0
	_ = filepath.WalkDir(p.stage, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil
		case name != p.stage && d.Name()[0] == '.':
			return skip(d)
		case !d.IsDir():
			p.report.Files++
			p.report.Bytes += size(name)
		}
		return nil
	})
}

// maxLargest is how many of the largest folders are named when a bundle is too large.
const maxLargest = 5

// explain adds the largest folders to an error about the size of the whole.
func (p *packer) explain(err error) error {
	var problems bundle.Problems
	if !errors.As(err, &problems) || !slices.ContainsFunc(problems, func(q bundle.Problem) bool { return q.File == "bundle" }) {
		return err
	}
	return append(problems, bundle.Problem{File: "bundle", Message: fmt.Sprintf("it would have %d files and %s; the largest: %s",
		p.report.Files, About(p.report.Bytes), strings.Join(p.largest(), ", "))})
}

func (p *packer) largest() []string {
	type part struct {
		name  string
		bytes int64
	}
	var parts []part
	for _, pattern := range []string{"*", "site-packages/*", "node_modules/*"} {
		found, _ := filepath.Glob(filepath.Join(p.stage, pattern))
		for _, name := range found {
			base := filepath.Base(name)
			if base != "site-packages" && base != "node_modules" {
				parts = append(parts, part{strings.TrimPrefix(name, p.stage+"/"), size(name)})
			}
		}
	}
	slices.SortFunc(parts, func(a, b part) int { return int(b.bytes - a.bytes) })
	var names []string
	for _, q := range parts[:min(maxLargest, len(parts))] {
		names = append(names, q.name+" "+About(q.bytes))
	}
	return names
}

// About writes a number of bytes for people.
func About(n int64) string {
	switch {
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.0f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d B", n)
}

// seconds rounds for a report.
func seconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Millisecond)) / float64(time.Second)
}
