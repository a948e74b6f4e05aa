package gateway

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mayfly/internal/core/coretest"
)

// specified is a parameter in the specification of core.
type specified struct {
	Name   string
	Schema json.RawMessage
}

// kind is core's type of the parameter, in short, and whether it may be null.
func (p specified) kind(t *testing.T) (name string, null bool) {
	t.Helper()
	type schema struct {
		Type                 json.RawMessage
		Format               string
		Ref                  string `json:"$ref"`
		AnyOf                []json.RawMessage
		Items                json.RawMessage
		AdditionalProperties json.RawMessage
	}
	var s schema
	if err := json.Unmarshal(p.Schema, &s); err != nil {
		t.Fatalf("%s: %v", p.Name, err)
	}
	if len(s.AnyOf) > 0 {
		name, _ = specified{p.Name, s.AnyOf[0]}.kind(t)
		return name, true
	}
	if s.Ref != "" {
		return s.Ref[strings.LastIndexByte(s.Ref, '/')+1:], false
	}
	var types []string
	if json.Unmarshal(s.Type, &types) != nil {
		types = []string{strings.Trim(string(s.Type), `"`)}
	}
	null = slices.Contains(types, "null")
	name = types[0] + s.Format
	var item schema
	if name == "array" && json.Unmarshal(s.Items, &item) == nil {
		name += strings.Trim(string(item.Type), `"`) + item.Format
	}
	return name, null
}

// typeOf is what core must take where the policy has a kind.
func typeOf(k kind) string {
	switch k &^ nullable {
	case kindAccount, kindID, kindSendChat, kindSendMsg, kindConsenting:
		return "integeruint32"
	case kindIDs, kindOwnMsgs, kindForward:
		return "arrayintegeruint32"
	case kindFlag:
		return "boolean"
	case kindNumber:
		return "integerint64"
	case kindSeconds:
		return "numberdouble"
	case kindText, kindState, kindName, kindQR, kindOwnQR, kindFile, kindUnpacked, kindFileName:
		return "string"
	case kindTexts, kindKeys:
		return "arraystring"
	case kindConfig:
		return "object"
	case kindMessage:
		return "MessageData"
	case kindViewtype, kindSendType:
		return "Viewtype"
	case kindVisibility:
		return "ChatVisibility"
	case kindMute:
		return "MuteDuration"
	case kindNothing:
		return "array" // a location
	}
	return "no type"
}

// TestPolicyIsWhole holds the table against the specification of the real core: each of core's methods has a row, no row is of
// another, and each parameter that reaches core is of core's type, in its place.
func TestPolicyIsWhole(t *testing.T) {
	table := policy()
	for name, params := range specification(t) {
		row, ok := table[name]
		if !ok {
			t.Errorf("%s: nobody has decided on it", name)
			continue
		}
		delete(table, name)
		switch {
		case row.action == refuse && (row.reason == "" || !strings.Contains(row.reason, ":")):
			t.Errorf("%s: refused with %q: want a reason, a colon, and what to do instead", name, row.reason)
		case row.action == refuse, row.action == ignore:
		case len(params) != len(row.params):
			t.Errorf("%s: the policy has %d parameters, core %d", name, len(row.params), len(params))
		default:
			for i, p := range params {
				comparePlace(t, row, i, p)
			}
		}
	}
	for name := range table {
		t.Errorf("%s: core has no such method", name)
	}
}

func comparePlace(t *testing.T, r row, i int, p specified) {
	t.Helper()
	k := r.params[i]
	if (p.Name == "accountId") != (k == kindAccount) {
		t.Errorf("%s: parameter %d is %s, the policy has kind %d", r.method, i+1, p.Name, k)
	}
	name, null := p.kind(t)
	mayBeNull := k&nullable != 0 || k == kindNothing
	if !strings.HasPrefix(name, typeOf(k)) || mayBeNull && !null {
		t.Errorf("%s: parameter %d, %s, is %s (null: %v) for core, the policy has %s (null: %v)", r.method, i+1, p.Name, name, null, typeOf(k), mayBeNull)
	}
	// get_webxdc_blob's path is in the app's archive, copy_to_blob_dir's goes to nobody.
	if file := regexp.MustCompile(`(?i)path|^file$`).MatchString(p.Name); file && r.method != "get_webxdc_blob" && r.method != "copy_to_blob_dir" &&
		k&^nullable != kindFile && k&^nullable != kindUnpacked {
		t.Errorf("%s: parameter %d, %s, looks like a path, and the policy does not fetch it", r.method, i+1, p.Name)
	}
	if r.sends && p.Name == "chatId" && k&^nullable != kindSendChat {
		t.Errorf("%s: sends to a chat that nobody checks", r.method)
	}
}

// specification is core's own, the parameters by method.
func specification(t *testing.T) map[string][]specified {
	t.Helper()
	out, err := exec.Command(coretest.Binary(t), "--openrpc").Output()
	if err != nil {
		t.Fatal(err)
	}
	var spec struct {
		Methods []struct {
			Name   string
			Params []specified
		}
	}
	if err := json.Unmarshal(out, &spec); err != nil {
		t.Fatal(err)
	}
	methods := map[string][]specified{}
	for _, m := range spec.Methods {
		methods[m.Name] = m.Params
	}
	if len(methods) < 150 {
		t.Fatalf("core specifies %d methods", len(methods))
	}
	return methods
}

// TestDocsNameEveryMethod holds docs/ARCHITECTURE.md, "What a bot may call", against the table.
func TestDocsNameEveryMethod(t *testing.T) {
	doc, err := os.ReadFile("../../docs/ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(doc), "## What a bot may call\n")
	section, _, _ = strings.Cut(section, "\n## ")
	documented := map[string]string{} // what the first column of a method's line says
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(cells[2], -1) {
			documented[m[1]] = strings.TrimSpace(cells[1])
		}
	}
	groups := map[action]string{forward: "checked", answer: "answered", ignore: "nothing", refuse: "refused"}
	for name, row := range policy() {
		if documented[name] != groups[row.action] {
			t.Errorf("docs/ARCHITECTURE.md has %s as %q, the policy as %q", name, documented[name], groups[row.action])
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("docs/ARCHITECTURE.md tells of %s, which the policy does not have", name)
	}
}
