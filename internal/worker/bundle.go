package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"mayfly/internal/worker/engine"
)

// maxModule bounds one file that is imported, in bytes.
const maxModule = 8 << 20

// internalPrefix begins the names of the worker's own scripts, which authors neither import nor see.
const internalPrefix = "mayfly:"

// Names of the two modules of a check: see check.go.
const (
	checkModule = internalPrefix + "check"
	stopModule  = internalPrefix + "stop"
	emptyModule = internalPrefix + "empty"
)

// bundle finds the author's modules. A module's name is its path in the bundle, with slashes.
type bundle struct {
	dir      string
	sources  map[string]string // of the modules loaded
	collect  bool              // note problems and go on, instead of failing at the first
	problems []*engine.Exception
}

func newBundle(dir string) *bundle { return &bundle{dir: dir, sources: map[string]string{}} }

// Resolve implements engine.Loader.
func (b *bundle) Resolve(base, specifier string) (string, error) {
	if base == checkModule {
		return specifier, nil
	}
	name, err := b.resolve(base, specifier)
	if err == nil {
		return name, nil
	}
	e := &engine.Exception{
		Name:    "SyntaxError",
		Message: fmt.Sprintf("import %q: %v", specifier, err),
		Stack:   "    at " + b.place(base, importOf(specifier)) + "\n",
	}
	if b.collect {
		b.problems = append(b.problems, e)
		return emptyModule, nil
	}
	return "", e
}

func (b *bundle) resolve(base, specifier string) (string, error) {
	switch {
	case strings.Contains(specifier, "://"):
		return "", fmt.Errorf("modules are not loaded from the network: copy the file into the bundle and import it as \"./%s\"", path.Base(specifier))
	case strings.HasPrefix(specifier, "/"):
		return "", fmt.Errorf("paths are relative to the importing file: write \"./…\" or \"../…\"")
	case !strings.HasPrefix(specifier, "./") && !strings.HasPrefix(specifier, "../"):
		return "", fmt.Errorf("there are no packages here: copy the file into the bundle and import it as \"./%s.js\"", strings.TrimSuffix(path.Base(specifier), ".js"))
	}
	name := path.Join(path.Dir(base), specifier)
	if name == ".." || strings.HasPrefix(name, "../") {
		return "", errors.New("it leads out of the bundle")
	}
	if _, loaded := b.sources[name]; loaded {
		return name, nil
	}
	source, err := b.read(name)
	if err != nil {
		return "", err
	}
	b.sources[name] = source
	return name, nil
}

// read returns a file of the bundle as text. Links are followed only inside the bundle.
func (b *bundle) read(name string) (string, error) {
	root, err := os.OpenRoot(b.dir)
	if err != nil {
		return "", fmt.Errorf("the bundle cannot be opened: %w", err)
	}
	defer root.Close()
	f, err := root.Open(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", errors.New("there is no such file in the bundle" + b.hint(root, name))
	case err != nil:
		return "", fmt.Errorf("it cannot be read: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxModule+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("it cannot be read: %w", err)
	case len(text) > maxModule:
		return "", fmt.Errorf("it is larger than %d MB", maxModule>>20)
	case !utf8.Valid(text):
		return "", errors.New("it is not UTF-8 text")
	}
	return strings.TrimPrefix(string(text), "\uFEFF"), nil
}

func (b *bundle) hint(root *os.Root, name string) string {
	for _, end := range []string{".js", ".mjs", "/index.js"} {
		if _, err := root.Stat(name + end); err == nil {
			return fmt.Sprintf(": did you mean %q?", path.Base(name)+end)
		}
	}
	return ""
}

// Load implements engine.Loader.
func (b *bundle) Load(name string) (string, error) {
	switch name {
	case stopModule:
		return "throw undefined", nil
	case emptyModule:
		return "", nil
	}
	source, known := b.sources[name]
	if !known {
		var err error
		if source, err = b.read(name); err != nil {
			return "", &engine.Exception{Name: "SyntaxError", Message: err.Error(), Stack: "    at " + name + ":1:1\n"}
		}
		b.sources[name] = source
	}
	if path.Ext(name) == ".json" {
		return jsonModule(name, source)
	}
	return source, nil
}

// jsonModule makes a module whose default export is the parsed text.
func jsonModule(name, text string) (string, error) {
	var syntax *json.SyntaxError
	var any json.RawMessage
	if err := json.Unmarshal([]byte(text), &any); errors.As(err, &syntax) {
		at := position(text, int(syntax.Offset)-1)
		return "", &engine.Exception{Name: "SyntaxError", Message: syntax.Error(), Stack: fmt.Sprintf("    at %s:%s\n", name, at)}
	}
	quoted, err := json.Marshal(text)
	if err != nil {
		return "", err
	}
	return "export default JSON.parse(" + string(quoted) + ")", nil
}

// CompileFailed implements engine.Loader.
func (b *bundle) CompileFailed(e *engine.Exception) bool {
	if b.collect {
		b.problems = append(b.problems, e)
	}
	return b.collect
}

// place returns file:line:col of the last group of pattern's first match in the source of the module name, or of its start.
func (b *bundle) place(name string, pattern *regexp.Regexp) string {
	if m := pattern.FindStringSubmatchIndex(b.sources[name]); m != nil {
		return name + ":" + position(b.sources[name], m[len(m)-2])
	}
	return name + ":1:1"
}

// position returns line:col, both from 1, columns in characters, of the byte at offset.
func position(text string, offset int) string {
	before := text[:min(max(offset, 0), len(text))]
	start := strings.LastIndexByte(before, '\n') + 1
	return fmt.Sprintf("%d:%d", strings.Count(before, "\n")+1, utf8.RuneCountInString(before[start:])+1)
}

// importOf matches an import of specifier; its group is the string.
func importOf(specifier string) *regexp.Regexp {
	quoted := regexp.QuoteMeta(specifier)
	return regexp.MustCompile(`\b(?:from|import)\s*\(?\s*("` + quoted + `"|'` + quoted + `')`)
}

// The engine's words for an import that its module does not export.
var missingExport = regexp.MustCompile(`^(?:Could not find|could not find|exported variable) (?:export )?'(.+)' (?:in module|does not exist in module) '(.+)'`)

// placeLinkError gives an error of linking, which the engine reports without a place, that of the import.
func (b *bundle) placeLinkError(err error) error {
	var e *engine.Exception
	if !errors.As(err, &e) || e.Stack != "" {
		return err
	}
	m := missingExport.FindStringSubmatch(e.Message)
	if m == nil {
		return err
	}
	pattern := regexp.MustCompile(`\b(?:import|export)\b[^;'"]*?\b(` + regexp.QuoteMeta(m[1]) + `)\b[^;'"]*?\bfrom\s*["']`)
	names := make([]string, 0, len(b.sources))
	for name := range b.sources {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if at := b.place(name, pattern); at != name+":1:1" {
			return &engine.Exception{Name: e.Name, Message: fmt.Sprintf("%q exports no %s", m[2], m[1]), Stack: "    at " + at + "\n"}
		}
	}
	return err
}
