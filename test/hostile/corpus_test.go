package hostile

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// walls are the rows of the matrix. docs/SECURITY.md says how each is built.
func walls() []string {
	return []string{"privileges", "processes", "files", "network", "ipc", "calls", "memory", "pids", "cpu", "time", "disk", "inodes",
		"descriptors", "dumps", "output", "storage", "others", "end"}
}

// kinds are the folders of testdata, and the paths on which each kind of program can run.
func kinds() map[string][]string {
	return map[string][]string{"js": {"script"}, "engine": {"script", "wasm"}, "wasm": {"wasm"}, "py": {"native"}, "sh": {"native"}, "c": {"core", "native"}}
}

// program is one of the corpus.
type program struct {
	kind, name string
	file       string
	wall       string
	paths      []string
	manifest   map[string]string
	benign     bool
}

// id is what the program is called in results, with its kind: "js/fetch".
func (p program) id() string { return p.kind + "/" + p.name }

// on reports whether the program runs on the path.
func (p program) on(path string) bool { return slices.Contains(p.paths, path) }

// get is the value of a manifest's key for a path and a variant, the most special one.
func (p program) get(key, path, variant string) string {
	for _, k := range []string{key + " " + path + " " + variant, key + " " + variant, key + " " + path, key} {
		if v, ok := p.manifest[k]; ok {
			return v
		}
	}
	return ""
}

// variants are the runs of the program on a path, at least one.
func (p program) variants(path string) []string {
	if runs := strings.Fields(p.get("runs", path, "")); len(runs) > 0 {
		return runs
	}
	return []string{""}
}

// readCorpus reads the manifests of all programs. Those of WASM lie in one source file each, too.
func readCorpus(dir string) ([]program, error) {
	var corpus []program
	for kind := range kinds() {
		files, err := filepath.Glob(filepath.Join(dir, kind, "*"))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if filepath.Ext(file) == ".h" || filepath.Base(file) == "main.go" {
				continue
			}
			p, err := readProgram(kind, file)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			corpus = append(corpus, p)
		}
	}
	slices.SortFunc(corpus, func(a, b program) int { return strings.Compare(a.id(), b.id()) })
	return corpus, nil
}

// readProgram reads the manifest: the comment that the file begins with.
func readProgram(kind, file string) (program, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return program{}, err
	}
	base := filepath.Base(file)
	p := program{kind: kind, name: strings.TrimSuffix(base, filepath.Ext(base)), file: file, paths: kinds()[kind], manifest: make(map[string]string)}
	last := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#!") {
			continue
		}
		rest, isComment := strings.CutPrefix(line, "//")
		if !isComment {
			rest, isComment = strings.CutPrefix(line, "#")
		}
		if !isComment || strings.HasPrefix(rest, "include") {
			break
		}
		rest = strings.TrimSpace(rest)
		key, value, ok := strings.Cut(rest, ": ")
		if name, _, _ := strings.Cut(key, " "); ok && slices.Contains(keys(), name) {
			p.manifest[key] = value
			last = key
		} else if rest == "benign" || rest == "quiet" {
			p.manifest[rest] = "yes"
		} else if last != "" {
			p.manifest[last] += " " + rest
		}
	}
	return p, p.check()
}

func keys() []string {
	return []string{"wall", "tries", "paths", "runs", "limits", "ends", "says", "folder", "within"}
}

// check completes the manifest, and finds mistakes in it.
func (p *program) check() error {
	if p.benign = p.manifest["benign"] != ""; p.benign {
		return nil
	}
	p.wall = p.manifest["wall"]
	if paths := strings.Fields(p.manifest["paths"]); len(paths) > 0 {
		p.paths = paths
	}
	if !slices.Contains(walls(), p.wall) || p.manifest["tries"] == "" {
		return fmt.Errorf("the manifest has wall %q, tries %q: want a wall of %v, and what is tried", p.wall, p.manifest["tries"], walls())
	}
	for _, path := range p.paths {
		for _, v := range p.variants(path) {
			if p.get("ends", path, v) == "" {
				return fmt.Errorf("the manifest does not say how %s ends on path %s", v, path)
			}
			if _, err := regexp.Compile(p.get("says", path, v)); err != nil {
				return err
			}
			if _, err := p.limits(path, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// limits of a run that a manifest lowers. Zero is as in production.
type limits struct {
	wall, cpu, within time.Duration
	memory            int64
}

func (p program) limits(path, variant string) (limits, error) {
	l := limits{within: 10 * time.Second}
	var err error
	if within := p.get("within", path, variant); within != "" {
		if l.within, err = time.ParseDuration(within); err != nil {
			return l, err
		}
	}
	for _, f := range strings.Fields(p.get("limits", path, variant)) {
		key, value, _ := strings.Cut(f, "=")
		switch key {
		case "wall":
			l.wall, err = time.ParseDuration(value)
		case "cpu":
			l.cpu, err = time.ParseDuration(value)
		case "memory":
			_, err = fmt.Sscan(value, &l.memory)
			l.memory <<= 20
		default:
			err = fmt.Errorf("unknown limit %q", key)
		}
		if err != nil {
			return l, err
		}
	}
	return l, nil
}

// buildNative makes one static binary of all C programs. It is told which to be by its arguments, or by the first line of its stdin.
func buildNative(to string, corpus []program) error {
	dir := to + ".o"
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(runtime.NumCPU())
	var declarations, table bytes.Buffer
	args := []string{"-static", "-o", to, filepath.Join(dir, "dispatch.c")}
	for _, p := range corpus {
		if p.kind != "c" {
			continue
		}
		symbol, object := "main_"+strings.ReplaceAll(p.name, "-", "_"), filepath.Join(dir, p.name+".o")
		fmt.Fprintf(&declarations, "int %s(int, char **);\n", symbol)
		fmt.Fprintf(&table, "\t{%q, %s},\n", p.name, symbol)
		args = append(args, object)
		g.Go(func() error {
			if err := command("gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-infinite-recursion", "-c", "-o", object, p.file); err != nil {
				return err
			}
			return command("objcopy", "--redefine-sym", "main="+symbol, object)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	source := fmt.Sprintf(dispatch, declarations.String(), table.String())
	if err := os.WriteFile(filepath.Join(dir, "dispatch.c"), []byte(source), 0o644); err != nil {
		return err
	}
	return command("gcc", args...)
}

const dispatch = `#include <stdio.h>
#include <string.h>
#include <unistd.h>
%s
static const struct { const char *name; int (*main)(int, char **); } programs[] = {
%s};

int main(int argc, char **argv) {
	static char line[200];
	char *from_stdin[4] = {argv[0]};
	if (argc < 2) {
		for (unsigned n = 0; n < sizeof line - 1 && read(0, line + n, 1) == 1 && line[n] != '\n'; n++) {}
		argc = 1;
		for (char *w = strtok(line, " \n"); w && argc < 3; w = strtok(0, " \n")) from_stdin[argc++] = w;
		argv = from_stdin;
	}
	for (unsigned i = 0; argc > 1 && i < sizeof programs / sizeof *programs; i++)
		if (strcmp(programs[i].name, argv[1]) == 0) return programs[i].main(argc - 1, argv + 1);
	dprintf(2, "BROKE: no such program\n");
	return 99;
}
`

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s (make setup installs it): %w\n%s", name, err, out)
	}
	return nil
}
