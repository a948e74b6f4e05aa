// Package imports holds the table of who may import whom. Data flows one way, mailbox → gate → ledger → dispatch → session →
// ledger → outbox, and the rooms that foreign bytes enter stay apart from the rooms that hold secrets.
package imports

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowed lists for each of our packages which others of ours it may import outside of tests. A package that is not here
// fails the test: decide where it belongs, and say why.
var allowed = map[string]struct {
	imports string
	why     string
}{
	"internal/bot":            {"", "the vocabulary: everybody imports it, so it imports nobody"},
	"internal/gate":           {"bot", "pure: foreign bytes and keys in, a verdict out"},
	"internal/voice":          {"bot", "pure: a text and two keys in, a mail out"},
	"internal/letter":         {"", "pure: a bot's mail in, a text and files out"},
	"internal/bundle":         {"bot schedule", "pure: foreign bytes in, a manifest out"},
	"internal/schedule":       {"", "pure: a line of crontab and a time in, a time out"},
	"internal/keystore":       {"bot", "secret keys: nothing else in the room"},
	"internal/mailbox":        {"bot", "a client of the relay, knows nothing of bots"},
	"internal/storage":        {"bot", "bytes on disk"},
	"internal/ledger":         {"bot", "rows on disk"},
	"internal/core":           {"", "a client of deltachat-rpc-server"},
	"internal/core/coretest":  {"core", "the real core and a loopback relay, for tests"},
	"internal/accountreader":  {"bot", "runs inside core's sandbox; its client reads hostile answers"},
	"internal/minirelay":      {"bot gate", "gate: the embedded relay's filter asks what is OpenPGP"},
	"internal/gateway":        {"", "stands between two parties and trusts neither: it sees only its own interfaces"},
	"internal/sandbox":        {"bot sandbox/wire sandbox/cgroup", "the daemon's side of the broker"},
	"internal/sandbox/wire":   {"", "the protocol, shared by both sides"},
	"internal/sandbox/cgroup": {"stage/takedown", "shared by the daemon, which makes the parent, and the broker"},
	"internal/broker":         {"sandbox/wire sandbox/cgroup stage/takedown stage", "another process under another uid; it starts the stage"},
	"internal/stage":          {"sandbox/wire stage/takedown", "another process in namespaces of its own"},
	"internal/crash":          {"", "make crash kills at its steps, in builds of its own"},
	"internal/stage/takedown": {"", "test/hostile takes a wall down with it, in builds of its own"},
	"internal/worker":         {"bot stage/takedown worker/engine", "runs the author's code: imports nothing of the daemon"},
	"internal/worker/engine":  {"", "the binding of QuickJS"},
	"internal/wasm":           {"", "runs the author's code: imports nothing of the daemon"},
	"internal/wasm/wasmtest":  {"", "the Go compiler, for tests"},
	"internal/pack":           {"bundle", "the author's tool: runs pip, npm and go on the author's machine, never on a host"},
	"internal/outbox":         {"bot crash ledger", "downstream of the ledger"},
	"internal/session":        {"accountreader bot bundle core crash gate gateway keystore ledger letter minirelay sandbox storage voice", "joins the rooms for one wake; above it only dispatch and wiring"},
	"internal/dispatch":       {"bot crash gate ledger mailbox schedule session voice", "decides what happens when; tells contacts of limits"},
	"internal/install":        {"bot bundle ledger mailbox storage", "the author's door; core and sandboxes only by interface"},
	"internal/backup":         {"bot bundle ledger", "the state folder's files, as the ledger names them"},
	"internal/admin":          {"backup bot ledger", "the operator's questions; what is neither ledger nor backup only by interface"},
	"internal/wake":           {"bot", "a socket of the relay's: tells who has news, and opens nothing"},
	"internal/user":           {"core", "a person's app, for the demo and tests: knows nothing of Mayfly"},
	"examples":                {"", "files"},
	"cmd/mayfly":              {"admin backup bot bundle core dispatch gate install keystore ledger mailbox minirelay outbox pack sandbox session storage user wake examples", "wiring"},
	"cmd/mayfly-sandbox":      {"accountreader broker stage wasm worker sandbox/wire sandbox/cgroup", "the other binary: nothing that holds storage, keys or the relay's password"},
}

// foreign lists modules that must not be in a binary, with the reason.
var foreign = []struct{ binary, module, why string }{
	{"cmd/mayfly", "modernc.org/libquickjs", "the daemon never runs or parses an author's code"},
	{"cmd/mayfly", "github.com/tetratelabs/wazero", "the daemon never runs or parses an author's code"},
	{"cmd/mayfly-sandbox", "github.com/emersion", "the broker and what it starts speak no mail"},
	{"cmd/mayfly-sandbox", "github.com/ProtonMail", "the broker and what it starts hold no keys"},
	{"cmd/mayfly-sandbox", "net/http", "nothing in a sandbox speaks HTTP by itself"},
}

func TestOurImports(t *testing.T) {
	for _, line := range goList(t, "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...") {
		name, imports, _ := strings.Cut(line, " ")
		name = strings.TrimPrefix(name, "mayfly/")
		if strings.HasPrefix(name, "test/") {
			continue
		}
		rule, ok := allowed[name]
		if !ok {
			t.Errorf("%s has no row in this table: decide what it may import, and why", name)
			continue
		}
		for _, i := range strings.Fields(imports) {
			ours, ok := strings.CutPrefix(i, "mayfly/")
			if ok && !slices.Contains(strings.Fields(rule.imports), strings.TrimPrefix(ours, "internal/")) {
				t.Errorf("%s imports %s, and may import only [%s]: %s", name, ours, rule.imports, rule.why)
			}
		}
	}
}

func TestForeignModules(t *testing.T) {
	for _, f := range foreign {
		for _, dep := range goList(t, "-deps", "-f", "{{.ImportPath}}", "./"+f.binary) {
			if dep == f.module || strings.HasPrefix(dep, f.module+"/") {
				t.Errorf("%s holds %s: %s", f.binary, dep, f.why)
			}
		}
	}
}

func TestNoCgo(t *testing.T) {
	for _, line := range goList(t, "-deps", "-f", `{{if not .Standard}}{{.ImportPath}} {{len .CgoFiles}}{{end}}`, "./cmd/...") {
		if line != "" && !strings.HasSuffix(line, " 0") {
			t.Errorf("%s: has cgo files", line)
		}
	}
}

func goList(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}
