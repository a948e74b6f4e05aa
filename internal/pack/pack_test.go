package pack

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mayfly/internal/bundle"
)

const (
	pythonBot = "name = \"P\"\nversion = \"1\"\ncontact = \"mailto:a@example.org\"\nruntime = \"native\"\ncommand = [\"python3\", \"bot.py\"]\n"
	goBot     = "name = \"G\"\nversion = \"1\"\ncontact = \"mailto:a@example.org\"\nruntime = \"native\"\ncommand = [\"./bin/greeter\", \"serve\"]\n"
	nodeBot   = "name = \"N\"\nversion = \"1\"\ncontact = \"mailto:a@example.org\"\nruntime = \"native\"\ncommand = [\"node\", \"bot.mjs\"]\n"
)

// write makes a folder of files.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func packed(t *testing.T, dir string, change func(*Options)) (*bundle.Bundle, Report, error) {
	t.Helper()
	before := listing(t, dir)
	o := Options{Dir: dir, Ceilings: bundle.DefaultCeilings(), Progress: func(line string) { t.Log(line) }}
	if change != nil {
		change(&o)
	}
	b, r, err := Pack(t.Context(), o)
	if after := listing(t, dir); !slices.Equal(before, after) {
		t.Errorf("the author's folder was changed: %q, before %q", after, before)
	}
	return b, r, err
}

func listing(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(name string, _ os.DirEntry, err error) error {
		names = append(names, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func paths(b *bundle.Bundle) []string {
	var names []string
	for _, f := range b.Files {
		names = append(names, f.Path)
	}
	return names
}

func needPip(t *testing.T) {
	t.Helper()
	switch {
	case exec.Command("python3", "-m", "pip", "--version").Run() == nil:
	case os.Getenv("CI") == "true":
		t.Fatal("python3 has no pip: scripts/setup-test installs it")
	default:
		t.Skip("python3 has no pip: scripts/setup-test installs it")
	}
}

// A package that lies beside the requirements needs no network. What the host has, and what only a shell wants, is left out; the modules
// come compiled under the names of the host, where tracebacks find them.
func TestPython(t *testing.T) {
	needPip(t)
	dir := write(t, map[string]string{
		"bot.toml": pythonBot, "bot.py": "import greet\n", "helper.py": "x = 1\n", "requirements.txt": "./greet-1.0-py3-none-any.whl\n",
		".git/config": "secret", "venv/pyvenv.cfg": "", "venv/lib/huge.py": "", "__pycache__/old.pyc": "old", "site-packages/old.py": "old",
	})
	wheel(t, filepath.Join(dir, "greet-1.0-py3-none-any.whl"))
	b, r, err := packed(t, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	names := paths(b)
	for _, want := range []string{"bot.py", "site-packages/greet.py"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is missing of %q", want, names)
		}
	}
	compiled := slices.IndexFunc(b.Files, func(f bundle.File) bool { return strings.HasPrefix(f.Path, "site-packages/__pycache__/greet.cpython-") })
	if compiled < 0 || !strings.Contains(string(b.Files[compiled].Data), "/bundle/site-packages/greet.py") {
		t.Errorf("greet is not compiled for where it will lie: %q", names)
	}
	for _, name := range names {
		if strings.Contains(name, "deltachat_rpc_server") || strings.HasPrefix(name, "venv") || strings.Contains(name, "old") || strings.Contains(name, "/bin/") {
			t.Errorf("%s is in the bundle", name)
		}
	}
	if !r.Fetched || len(r.Steps) != 2 || !slices.ContainsFunc(r.LeftOut, func(l LeftOut) bool { return l.Path == "site-packages/deltachat_rpc_server" && l.Bytes > 0 }) {
		t.Errorf("the report is %+v", r)
	}
}

// A project takes its version from its history, which a copy does not have: bot.toml has one.
func TestProjectWithoutHistory(t *testing.T) {
	needPip(t)
	dir := write(t, map[string]string{
		"bot.toml": strings.Replace(pythonBot, "version = \"1\"", "version = \"1.2\"", 1), "bot.py": "",
		"pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n",
		"backend.py":     "import os\ndef build_wheel(*a, **k):\n    raise Exception(\"the version is \" + os.environ[\"SETUPTOOLS_SCM_PRETEND_VERSION\"])\n",
	})
	_, _, err := packed(t, dir, nil)
	if err == nil || !strings.Contains(err.Error(), "the version is 1.2") {
		t.Errorf("the error is %v", err)
	}
}

// wheel is a package with a module, a program, and core's server.
func wheel(t *testing.T, path string) {
	t.Helper()
	script := `import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as z:
    z.writestr("greet.py", "word = 'hello'\n\ndef greet():\n    return word\n")
    z.writestr("deltachat_rpc_server/__init__.py", "x = 1\n")
    z.writestr("greet-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: greet\nVersion: 1.0\n")
    z.writestr("greet-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    z.writestr("greet-1.0.dist-info/entry_points.txt", "[console_scripts]\ngreet = greet:greet\n")
    z.writestr("greet-1.0.dist-info/RECORD", "")
`
	if out, err := exec.Command("python3", "-c", script, path).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// A module without dependencies needs no network. The program at the root is built, or the one of the command's name.
func TestGo(t *testing.T) {
	const program = "package main\n\nfunc main() { println(\"hello\") }\n"
	for _, test := range []struct {
		name  string
		files map[string]string
		fault string
	}{
		{"at the root", map[string]string{"main.go": program, "tool/main.go": program}, ""},
		{"of its name", map[string]string{"cmd/greeter/main.go": program, "cmd/tool/main.go": program}, ""},
		{"the only one", map[string]string{"cmd/other/main.go": program}, ""},
		{"none of its name", map[string]string{"cmd/a/main.go": program, "cmd/b/main.go": program}, `of the programs ["./cmd/a" "./cmd/b"] none is called greeter`},
		{"in the way of a folder", map[string]string{"main.go": program, "bin/greeter/x.txt": ""}, "bin/greeter is a folder"},
		{"does not compile", map[string]string{"main.go": "package main\n\nfunc main() { nonsense() }\n"}, "undefined: nonsense"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.files["bot.toml"], test.files["go.mod"], test.files["words.txt"] = goBot, "module greeter\n\ngo 1.22\n", "hello"
			b, r, err := packed(t, write(t, test.files), nil)
			if test.fault != "" {
				if err == nil || !strings.Contains(err.Error(), test.fault) {
					t.Errorf("the error is %v, want %q", err, test.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if names := paths(b); !slices.Equal(names, []string{"bin/greeter", "bot.toml", "words.txt"}) || !r.Fetched {
				t.Errorf("the bundle has %q", names)
			}
		})
	}
}

// npm is not called without a need, and not with a package.json that is none.
func TestNode(t *testing.T) {
	_, _, err := packed(t, write(t, map[string]string{"bot.toml": nodeBot, "bot.mjs": "", "package.json": "{"}), nil)
	if err == nil || !strings.Contains(err.Error(), "package.json") {
		t.Errorf("the error is %v", err)
	}
}

// What a host would refuse is refused here, with what is large.
func TestTooLarge(t *testing.T) {
	dir := write(t, map[string]string{"bot.toml": nodeBot, "bot.mjs": "", "data/big": strings.Repeat("x", 3000), "small": "x"})
	_, _, err := packed(t, dir, func(o *Options) { o.Ceilings.Total = 2000 })
	var problems bundle.Problems
	if !errors.As(err, &problems) || !strings.Contains(err.Error(), "the largest: data 3 kB") {
		t.Errorf("the error is %v", err)
	}
	_, _, err = packed(t, dir, func(o *Options) { o.Ceilings.File = 2000 })
	if !errors.As(err, &problems) || !strings.Contains(err.Error(), "data/big: larger than") {
		t.Errorf("the error is %v", err)
	}
}

// Compiled modules are left out where only they are too much.
func TestTooLargeCompiled(t *testing.T) {
	dir := write(t, map[string]string{"bot.toml": pythonBot, "bot.py": "x = 1\n", "other.py": "y = 2\n"})
	b, r, err := packed(t, dir, func(o *Options) { o.Ceilings.Files = 3 })
	if err != nil || len(b.Files) != 3 || r.Files != 3 || len(r.LeftOut) != 1 || r.LeftOut[0].Why != whyLarge {
		t.Errorf("%+v, %v", r, err)
	}
}

// A tool that fails or is missing is named, with what it printed.
func TestToolFails(t *testing.T) {
	needPip(t)
	dir := write(t, map[string]string{"bot.toml": pythonBot, "bot.py": "", "requirements.txt": "./nowhere.whl\n"})
	_, _, err := packed(t, dir, nil)
	if err == nil || !strings.Contains(err.Error(), "python3 -m pip install") || !strings.Contains(err.Error(), "nowhere.whl") {
		t.Errorf("the error is %v", err)
	}
	_, _, err = packed(t, dir, func(o *Options) { o.Python = "/nowhere/python3" })
	if err == nil || !strings.Contains(err.Error(), "apt install") {
		t.Errorf("the error is %v", err)
	}
	_, _, err = packed(t, t.TempDir(), nil)
	if err == nil || !strings.Contains(err.Error(), "bot.toml") {
		t.Errorf("the error is %v", err)
	}
}
