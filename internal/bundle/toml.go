package bundle

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxManifest bounds bot.toml, in bytes.
const maxManifest = 64 << 10

// position is a place in a document; both count from 1, column in bytes.
type position struct{ line, column int }

// document is a parsed TOML document with the place of each key, and the faults found in it. go-toml's own decoding into a
// struct stops at the first wrong type; this reads key by key, so that all are reported.
type document struct {
	places   map[string]position // "limits.per_user.mails_per_hour", "commands[0].name"
	problems Problems
}

// table is one table of a document. Keys that are never asked for are unknown, and close reports them.
type table struct {
	doc    *document
	path   string // as in document.places; "" for the root
	values map[string]any
	asked  []string
}

// parseTOML returns the root table. When the document is not TOML at all, its problems say so and the root is nil.
func parseTOML(data []byte) (*document, *table) {
	doc := &document{places: map[string]position{}}
	if len(data) > maxManifest {
		doc.fault(position{}, "is larger than "+FormatSize(maxManifest), "shorten it")
		return doc, nil
	}
	var values map[string]any
	err := toml.Unmarshal(data, &values)
	var syntax *toml.DecodeError
	switch {
	case errors.As(err, &syntax):
		line, column := syntax.Position()
		doc.fault(position{line, column}, "not valid TOML", strings.TrimPrefix(syntax.Error(), "toml: "))
		return doc, nil
	case err != nil:
		doc.fault(position{}, "not valid TOML", strings.TrimPrefix(err.Error(), "toml: "))
		return doc, nil
	}
	doc.places = locate(data)
	return doc, &table{doc: doc, values: values}
}

func (d *document) fault(at position, message, fix string) {
	d.problems = append(d.problems, Problem{File: ManifestName, Line: at.line, Column: at.column, Message: message, Fix: fix})
}

// locator walks the syntax tree of a document and notes the place of each key.
type locator struct {
	starts   []int // offsets of the lines
	places   map[string]position
	elements map[string]int // path of an array of tables → elements so far
}

// locate returns the places of all keys of a document that has been parsed successfully before.
func locate(data []byte) map[string]position {
	l := &locator{starts: []int{0}, places: map[string]position{}, elements: map[string]int{}}
	for i, b := range data {
		if b == '\n' {
			l.starts = append(l.starts, i+1)
		}
	}
	var p unstable.Parser
	p.Reset(data)
	current := ""
	for p.NextExpression() {
		switch n := p.Expression(); n.Kind {
		case unstable.Table:
			current = l.key("", n.Key())
		case unstable.ArrayTable:
			current = l.key("", n.Key())
			l.elements[current]++
			l.note(l.inside(current), n.Child())
		case unstable.KeyValue:
			l.keyValue(l.inside(current), n)
		}
	}
	return l.places
}

// key notes each part of a dotted key and returns the path of the last.
func (l *locator) key(prefix string, parts unstable.Iterator) string {
	for parts.Next() {
		prefix = join(l.inside(prefix), string(parts.Node().Data))
		l.note(prefix, parts.Node())
	}
	return prefix
}

func (l *locator) keyValue(prefix string, n *unstable.Node) {
	path := l.key(prefix, n.Key())
	value := n.Value()
	switch value.Kind {
	case unstable.InlineTable:
		l.inline(path, value)
	case unstable.Array:
		elements := value.Children()
		for i := 0; elements.Next(); i++ {
			element := fmt.Sprintf("%s[%d]", path, i)
			l.places[element] = l.places[path]
			if elements.Node().Kind == unstable.InlineTable {
				l.inline(element, elements.Node())
			}
		}
	}
}

func (l *locator) inline(path string, n *unstable.Node) {
	for entries := n.Children(); entries.Next(); {
		l.keyValue(path, entries.Node())
	}
}

// inside is the path of the newest element if path is an array of tables, else path.
func (l *locator) inside(path string) string {
	if n := l.elements[path]; n > 0 {
		return fmt.Sprintf("%s[%d]", path, n-1)
	}
	return path
}

func (l *locator) note(path string, n *unstable.Node) {
	if _, noted := l.places[path]; noted {
		return
	}
	offset := int(n.Raw.Offset)
	line, exact := slices.BinarySearch(l.starts, offset)
	if exact {
		line++
	}
	l.places[path] = position{line, offset - l.starts[line-1] + 1}
}

func join(prefix, key string) string {
	if prefix == "" {
		return key
	}
	return prefix + "." + key
}

// place is that of a key, or of the table itself for a key that is not there.
func (t *table) place(key string) position {
	if at, ok := t.doc.places[join(t.path, key)]; ok {
		return at
	}
	if at, ok := t.doc.places[t.path]; ok {
		return at
	}
	return position{1, 1}
}

func (t *table) fault(key, message, fix string) { t.doc.fault(t.place(key), message, fix) }

// has reports whether the key is there, and makes it a known one.
func (t *table) has(key string) bool {
	t.asked = append(t.asked, key)
	_, ok := t.values[key]
	return ok
}

// get reads a key of type T. want names the type and fix is a line that would be right. A key that is missing gives false
// without a fault, one of another type false with a fault.
func get[T any](t *table, key, want, fix string) (T, bool) {
	var zero T
	if !t.has(key) {
		return zero, false
	}
	v, ok := t.values[key].(T)
	if !ok {
		t.fault(key, fmt.Sprintf("%q must be %s, not %s", key, want, kind(t.values[key])), "write "+fix)
	}
	return v, ok
}

func (t *table) str(key, fix string) (string, bool) { return get[string](t, key, "a string", fix) }

// required is str for keys that must be there and not be empty.
func (t *table) required(key, fix string) (string, bool) {
	v, ok := t.str(key, fix)
	if _, there := t.values[key]; !there {
		t.fault(key, fmt.Sprintf("%q is missing", key), "write "+fix)
	} else if ok && strings.TrimSpace(v) == "" {
		t.fault(key, fmt.Sprintf("%q is empty", key), "write "+fix)
		return "", false
	}
	return v, ok
}

// count reads a whole number from 1 to max, which is what the operator allows. It returns max if there is none.
func (t *table) count(key string, max int) int {
	fix := fmt.Sprintf("%s = %d", key, max)
	v, ok := get[int64](t, key, "a whole number", fix)
	return int(t.within(key, v, int64(max), ok, fix, fmt.Sprint(max)))
}

// size reads a string such as "128MB", with the same bounds.
func (t *table) size(key string, max int64) int64 {
	fix := fmt.Sprintf("%s = %q", key, FormatSize(max))
	s, ok := t.str(key, fix)
	if !ok {
		return max
	}
	v, err := ParseSize(s)
	if err != nil {
		t.fault(key, fmt.Sprintf("%q is %q, %v", key, s, err), "write "+fix)
		return max
	}
	return t.within(key, v, max, true, fix, FormatSize(max))
}

// duration reads a string such as "30s", with the same bounds.
func (t *table) duration(key string, max time.Duration) time.Duration {
	fix := fmt.Sprintf("%s = %q", key, max)
	s, ok := t.str(key, fix)
	if !ok {
		return max
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		t.fault(key, fmt.Sprintf("%q is %q, not a number with a unit, ms, s or m", key, s), "write "+fix)
		return max
	}
	return time.Duration(t.within(key, int64(v), int64(max), true, fix, max.String()))
}

func (t *table) within(key string, v, max int64, ok bool, fix, ceiling string) int64 {
	switch {
	case !ok:
		return max
	case v <= 0:
		t.fault(key, fmt.Sprintf("%q must be more than nothing", key), "write "+fix)
	case v > max:
		t.fault(key, fmt.Sprintf("%q is above the operator's ceiling of %s", key, ceiling), "write "+fix+" or less, or leave it out")
	default:
		return v
	}
	return max
}

// sub opens a table inside this one, or returns nil.
func (t *table) sub(key string) *table {
	v, ok := get[map[string]any](t, key, "a table", "a line ["+join(t.path, key)+"] with its keys below it")
	if !ok {
		return nil
	}
	return &table{doc: t.doc, path: join(t.path, key), values: v}
}

// subs opens the elements of an array of tables.
func (t *table) subs(key string) []*table {
	fix := "a line [[" + join(t.path, key) + "]] with its keys below it, once for each"
	list, ok := get[[]any](t, key, "a list of tables", fix)
	if !ok {
		return nil
	}
	var tables []*table
	for i, element := range list {
		v, ok := element.(map[string]any)
		if !ok {
			t.fault(key, fmt.Sprintf("%q must be a list of tables, not of %s", key, kind(element)), "write "+fix)
			return tables
		}
		tables = append(tables, &table{doc: t.doc, path: fmt.Sprintf("%s[%d]", join(t.path, key), i), values: v})
	}
	return tables
}

// strs reads a list of strings.
func (t *table) strs(key, fix string) []string {
	list, ok := get[[]any](t, key, "a list of strings", fix)
	if !ok {
		return nil
	}
	strs := make([]string, 0, len(list))
	for _, element := range list {
		s, ok := element.(string)
		if !ok {
			t.fault(key, fmt.Sprintf("%q must be a list of strings, and has %s", key, kind(element)), "write "+fix)
			return nil
		}
		strs = append(strs, s)
	}
	return strs
}

// close reports the keys that nobody has asked for.
func (t *table) close() {
	for key := range t.values {
		if !slices.Contains(t.asked, key) {
			t.fault(key, fmt.Sprintf("unknown key %q", printable(key)), suggestion(key, t.path, t.asked))
		}
	}
}

// suggestion is the known key that was probably meant: one spelled alike, or the same in another table.
func suggestion(key, path string, known []string) string {
	if near := nearest(key, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	switch home := homeOf(key); {
	case home == path:
	case home != "":
		return fmt.Sprintf("it belongs below [%s]", home)
	case isRootKey(key):
		return "it belongs above the first [table]"
	}
	sorted := slices.Sorted(slices.Values(known))
	return "remove it; known here are " + strings.Join(sorted, ", ")
}

// nearest returns the known word within a third of the key's letters of it, at least 1, or "".
func nearest(key string, known []string) string {
	if len(key) > 64 {
		return ""
	}
	best, distance := "", max(1, len(key)/3)+1
	for _, k := range known {
		if d := editDistance(strings.ToLower(key), strings.ToLower(k)); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// editDistance is Levenshtein's, in bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func kind(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case int64:
		return "a whole number"
	case float64:
		return "a decimal number"
	case bool:
		return "true or false"
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	default:
		return "a date or time"
	}
}
