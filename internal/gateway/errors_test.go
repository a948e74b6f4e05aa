package gateway

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// section is a part of docs/AUTHORS.md.
func section(t *testing.T, title string) string {
	t.Helper()
	doc, err := os.ReadFile("../../docs/AUTHORS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, there := strings.Cut(string(doc), "## "+title+"\n")
	if !there {
		t.Fatalf("docs/AUTHORS.md has no section %q", title)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

// TestDocsTellWhyAMethodIsRefused holds the table in docs/AUTHORS.md against the policy: each refused method, with its reason in the words
// of the error.
func TestDocsTellWhyAMethodIsRefused(t *testing.T) {
	methods := map[string][]string{} // by reason
	for name, row := range policy() {
		if row.action == refuse {
			methods[row.reason] = append(methods[row.reason], "`"+name+"`")
		}
	}
	text := section(t, "When a call is refused")
	for reason, names := range methods {
		slices.Sort(names)
		why, instead, _ := strings.Cut(reason, ": ")
		if want := "| " + strings.Join(names, ", ") + " | " + why + " | " + instead + " |\n"; !strings.Contains(text, want) {
			t.Errorf("docs/AUTHORS.md lacks\n%s", want)
		}
	}
	for _, name := range regexp.MustCompile("(?m)^\\| `([a-z_]+)`").FindAllStringSubmatch(text, -1) {
		if row, there := policy()[name[1]]; !there || row.action != refuse {
			t.Errorf("docs/AUTHORS.md has %s among the refused methods", name[1])
		}
	}
}

// TestDocsTellEveryError holds the other table in docs/AUTHORS.md against the source: each error that the gateway makes has a row, with its
// code, what stands for parts that differ being "…", and no row is of another.
func TestDocsTellEveryError(t *testing.T) {
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| (-32[0-9]+) \\| `` ?(.+?) ?`` \\| [^|]+ \\| [^|]+ \\|$").FindAllStringSubmatch(section(t, "When a call is refused"), -1) {
		documented[m[1]+" "+m[2]] = true
	}
	made := errorsInSource(t)
	if len(made) < 20 {
		t.Fatalf("found %d errors in the source", len(made))
	}
	for _, e := range slices.Sorted(maps.Keys(made)) {
		if !documented[e] {
			t.Errorf("docs/AUTHORS.md has no row for %q, as: | %s | `` %s `` | why | instead |", e, e[:6], e[7:])
		}
		delete(documented, e)
	}
	for e := range documented {
		t.Errorf("docs/AUTHORS.md tells of %q, which the gateway does not say", e)
	}
}

// errorsInSource are the errors that a bot may see, without the method that they begin with: those with a code, and those of check.go, which
// are of a parameter.
func errorsInSource(t *testing.T) map[string]bool {
	t.Helper()
	codes := map[string]int{"CodeRequest": CodeRequest, "CodeUnknown": CodeUnknown, "CodeParams": CodeParams, "CodeRefused": CodeRefused, "CodeLimit": CodeLimit}
	found := map[string]bool{}
	note := func(code int, text string) {
		text = strings.TrimPrefix(text, "…: ")
		switch text {
		case "…", "refused: …": // made of another error; refused by the policy, which has a table of its own
		default:
			found[strconv.Itoa(code)+" "+text] = true
		}
	}
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range sources {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				if id, ok := n.Type.(*ast.Ident); ok && id.Name == "Error" && len(n.Elts) == 2 {
					if code, ok := n.Elts[0].(*ast.Ident); ok && codes[code.Name] != 0 {
						note(codes[code.Name], pattern(n.Elts[1]))
					}
				}
			case *ast.CallExpr:
				text := pattern(n)
				if name == "quota.go" && strings.HasPrefix(text, "the limit") {
					note(CodeLimit, text)
				}
				if fun, ok := n.Fun.(*ast.SelectorExpr); ok && name == "check.go" && (fun.Sel.Name == "Errorf" || fun.Sel.Name == "New") &&
					!strings.Contains(text, "core's answer") && !strings.Contains(text, "the policy") {
					note(CodeParams, text)
				}
			}
			return true
		})
	}
	return found
}

// pattern is the text that an expression makes, with "…" for what differs.
func pattern(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, _ := strconv.Unquote(e.Value)
		return text
	case *ast.BinaryExpr:
		return pattern(e.X) + pattern(e.Y)
	case *ast.CallExpr:
		if fun, ok := e.Fun.(*ast.SelectorExpr); ok && len(e.Args) > 0 && slices.Contains([]string{"Sprintf", "Errorf", "New"}, fun.Sel.Name) {
			return regexp.MustCompile(`%[.0-9]*[a-zA-Z]`).ReplaceAllString(pattern(e.Args[0]), "…")
		}
	}
	return "…"
}
