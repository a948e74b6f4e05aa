package worker

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// Each script fails; the author is told exactly this, and the exit code follows the status.
func TestErrors(t *testing.T) {
	tests := []struct{ name, script, status, message string }{
		{"throw in a handler", handler("  const x = undefined\n  x.y.z()"), "RE",
			"main.js:3:4: TypeError: cannot read property 'y' of undefined"},
		{"throw after an await", handler("await null\nthrow new RangeError('too big')"), "RE",
			"main.js:3:21: RangeError: too big"},
		{"throw in a module", "import { f } from './lib/f.js'\nexport default { message: f }\n-- lib/f.js --\nexport function f() {\n  nope()\n}\n", "RE",
			"lib/f.js:2:3: ReferenceError: 'nope' is not defined"},
		{"throw a string", handler("throw 'x'"), "RE",
			`main.js:1:18: threw "x", which is no Error and so has no line: write throw new Error(…)`},
		{"syntax error", "export default {\n  message() { return 1 +* 2 }\n}", "RE",
			"main.js:2:25: SyntaxError: unexpected token in expression: '*'"},
		{"syntax error in a module", "import './a.js'\n-- a.js --\n\nlet let = 1\n", "RE",
			"a.js:2:5: SyntaxError: variable name expected"},
		{"syntax error in JSON", "import './a.json'\n-- a.json --\n{\"a\": 1,\n b}\n", "RE",
			"a.json:2:2: SyntaxError: invalid character 'b' looking for beginning of object key string"},
		{"error at top level", "const a = 1\na.b.c = 2\n", "RE",
			"main.js:2:4: TypeError: cannot set property 'c' of undefined"},
		{"rejection at top level", "await Promise.reject(new Error('x'))\n", "RE",
			"main.js:1:31: Error: x"},
		{"unhandled rejection", handler("Promise.reject(new Error('lost'))\nawait new Promise((r) => setTimeout(r, 1))"), "RE",
			"main.js:2:25: Error: lost"},
		{"unhandled rejection of a call", handler("env.rpc('forbidden')"), "RE",
			"main.js:2:8: Error: forbidden: no"},
		{"rejection of waitUntil", handler("ctx.waitUntil((async () => { await null; throw new Error('late') })())"), "RE",
			"main.js:2:57: Error: late"},
		{"error in a timer", handler("await new Promise(() => setTimeout(() => {\n  nope()\n}, 1))"), "RE",
			"main.js:3:3: ReferenceError: 'nope' is not defined"},
		{"error in a microtask", handler("queueMicrotask(() => { throw new Error('x') })\nawait new Promise(() => {})"), "RE",
			"main.js:2:39: Error: x"},
		{"error of a call", handler("await env.rpc('forbidden', 1)"), "RE", "main.js:2:14: Error: forbidden: no"},
		{"error of a reply", handler("await msg.reply('forbidden')"), "RE", "main.js:2:16: Error: send_msg: no"},
		{"error of a look-up", handler("await null\nawait msg.chat.members()"), "RE", "main.js:3:23: Error: get_chat_contacts: no"},
		{"message of the wrong shape", handler("await msg.reply(7)"), "RE",
			"main.js:2:16: TypeError: a message must be a string or {text, file}"},
		{"file name that is a path", handler("await msg.reply({file: {name: '../x', data: ''}})"), "RE",
			`main.js:2:16: TypeError: file.name must be a plain file name such as "dice.png", not "../x"`},
		{"storage key", handler("await env.storage.put('x'.repeat(201), '')"), "RE",
			"main.js:2:22: Error: storage: a key is 1 to 200 bytes of text"},
		{"storage key that is no string", handler("await env.storage.get(7)"), "RE",
			"main.js:2:22: TypeError: storage: the key must be a string"},
		{"error in JSON.parse", handler("JSON.parse('{')"), "RE", "main.js:2:11: SyntaxError: expecting property name"},
		{"fetch", handler("await fetch('https://example.org/x')"), "RE",
			"main.js:2:12: TypeError: this bot has no network: fetch of https://example.org/x was refused"},
		{"no default export", "export const a = 1\n", "RE", "main.js:1:1: Error: " + noHandlers},
		{"handler that is no function", "export default { message: 1 }\n", "RE", "main.js:1:1: TypeError: message must be a function"},
		{"missing import", "import a from './a'\n-- a.js --\n", "RE",
			`main.js:1:15: SyntaxError: import "./a": there is no such file in the bundle: did you mean "a.js"?`},
		{"import of a package", "\n  import a from 'lodash'\n", "RE",
			`main.js:2:17: SyntaxError: import "lodash": there are no packages here: copy the file into the bundle and import it as "./lodash.js"`},
		{"import from the network", "import 'https://example.org/a.js'\n", "RE",
			`main.js:1:8: SyntaxError: import "https://example.org/a.js": modules are not loaded from the network: copy the file into the bundle and import it as "./a.js"`},
		{"import out of the bundle", "import '../a.js'\n", "RE", `main.js:1:8: SyntaxError: import "../a.js": it leads out of the bundle`},
		{"absolute import", "import '/bundle/a.js'\n", "RE",
			`main.js:1:8: SyntaxError: import "/bundle/a.js": paths are relative to the importing file: write "./…" or "../…"`},
		{"dynamic import", handler("await import('./nope.js')"), "RE",
			`main.js:2:14: SyntaxError: import "./nope.js": there is no such file in the bundle`},
		{"import of what is not exported", "import { a,\n  b } from './a.js'\n-- a.js --\nexport const a = 1\n", "RE",
			`main.js:2:3: SyntaxError: "a.js" exports no b`},
		{"never resolves", handler("await new Promise(() => {})"), "RE",
			"main.js:1:18: the promise of the handler never resolves: nothing is left that could settle it"},
		{"never resolves at top level", "\nawait new Promise(() => {})\n", "RE",
			"main.js: the promise of the top level of main.js never resolves: nothing is left that could settle it"},
		{"stack overflow", handler("const f = () => f() + 1\nf()"), "RE", "main.js:2:18: InternalError: stack overflow"},
		{"out of memory by many small objects", handler("const all = []\nfor (;;) all.push({n: all.length})"), "RE",
			"main.js:3:13: InternalError: out of memory: a run may use 32 MB"},
		{"out of memory at once", handler("new Uint8Array(100e6)"), "RE", "main.js:2:15: InternalError: out of memory: a run may use 32 MB"},
		{"too many timers", handler("for (;;) setTimeout(() => {}, 1e6)"), "RE", "main.js:2:20: Error: more than 10000 timers are set"},
		{"loop in a handler", handler("let i = 0\nfor (;;)\n  i++"), "TO", "main.js:2:7: the time limit of 300ms passed while this was running"},
		{"loop in an awaited function", "async function f() {\n  await null\n  for (let i = 0; ; ) i += 1\n}\n" + handler("await f()"), "TO",
			"main.js:3:14: the time limit of 300ms passed while this was running"},
		{"loop at top level", "let i = 0\nwhile (true) i += 2\n", "TO", "main.js:1:7: the time limit of 300ms passed while this was running"},
		{"loop of microtasks", handler("for (;;) await null"), "TO", "main.js:1:18: the time limit of 300ms passed while this was running"},
		{"loop in a timer", handler("await new Promise(() => setTimeout(() => { let i = 0; for (;;) i++ }, 1))"), "TO",
			"main.js:2:50: the time limit of 300ms passed while this was running"},
		{"waiting for a timer", handler("await new Promise((r) => setTimeout(r, 60000))"), "TO",
			"main.js:2:36: the time limit of 300ms passed while this was waiting for setTimeout"},
		{"waiting for the host", handler("await env.rpc('silent')"), "TO",
			"main.js:2:14: the time limit of 300ms passed while this was waiting for silent"},
		{"a loop cannot catch the end", handler("for (;;) { try { for (let i = 0; ; ) i++ } catch { } finally { } }"), "TO",
			"main.js:2:29: the time limit of 300ms passed while this was running"},
	}
	codes := map[string]int{"RE": exitError, "TO": exitTimeout}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t, tt.script, "")
			if tt.status == "TO" {
				h.job["deadline_ms"] = 300
			}
			h.answers = answerForbidden
			h.run()
			if h.done.Status != tt.status || h.done.Message != tt.message || h.code != codes[tt.status] {
				t.Errorf("status %s, exit code %d\n got %s\nwant %s\n%s", h.done.Status, h.code, h.done.Message, tt.message, h.done.Stack)
			}
			if h.took > 3*time.Second {
				t.Errorf("took %v", h.took)
			}
		})
	}
}

func answerForbidden(method string, _ []any) (any, error) {
	if method == "silent" {
		return nil, errSilent
	}
	return nil, errors.New("no")
}

func TestStackIsTheAuthors(t *testing.T) {
	h := newHost(t, "import { g } from './g.js'\nexport default { async message(msg) {\n  [1].map(() => g(msg))\n} }\n-- g.js --\nexport function g(msg) {\n  msg.reply(5)\n  msg.x.y\n}\n", "").run()
	want := "at g (g.js:3:8)\nat <anonymous> (main.js:3:18)\nat message (main.js:3:10)"
	if h.done.Stack != want {
		t.Errorf("got\n%s\nwant\n%s", h.done.Stack, want)
	}
}

func TestStackIsBounded(t *testing.T) {
	h := newHost(t, handler("const f = () => f() + 1\nf()"), "").run()
	if n := strings.Count(h.done.Stack, "\n") + 1; n != maxFrames {
		t.Errorf("%d frames", n)
	}
}

func TestCheck(t *testing.T) {
	ran := "console.log('ran'); globalThis.ran = true; await new Promise(() => {});\n"
	tests := []struct{ name, script, want string }{
		{"good", ran + "import { a } from './a.js'\nexport default {}\n-- a.js --\n" + ran + "export const a = 1\n", ""},
		{"good by re-export", ran + "export { default } from './a.js'\n-- a.js --\n" + ran + "export default {}\n", ""},
		{"all problems at once", ran + "import './b.js'\nimport './a.js'\nimport './nope.js'\nimport 'x'\nexport default {}\n-- a.js --\nlet = \n-- b.js --\nif (\n",
			"a.js:1:5: SyntaxError: variable name expected\nb.js:2:1: SyntaxError: unexpected token in expression: ''\n" +
				"main.js:4:8: SyntaxError: import \"./nope.js\": there is no such file in the bundle\n" +
				"main.js:5:8: SyntaxError: import \"x\": there are no packages here: copy the file into the bundle and import it as \"./x.js\""},
		{"main", ran + "let 1\n", "main.js:2:5: SyntaxError: variable name expected"},
		{"no handlers", ran + "export const a = 1\n", "main.js:1:1: SyntaxError: " + noHandlers},
		{"missing export", ran + "import { b } from './a.js'\nexport default {}\n-- a.js --\n" + ran + "export const a = 1\n",
			`main.js:2:10: SyntaxError: "a.js" exports no b`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t, tt.script, "")
			h.job = map[string]any{"event": "check", "main": "main.js"}
			h.run().wantLog("")
			got := strings.Split(h.done.Message, "\n")
			want := strings.Split(tt.want, "\n")
			for _, line := range want {
				if !strings.Contains(h.done.Message, line) {
					t.Errorf("lacks %q:\n%s", line, h.done.Message)
				}
			}
			if len(got) != len(want) || (h.done.Status == "OK") != (tt.want == "") {
				t.Errorf("%s: %s", h.done.Status, h.done.Message)
			}
		})
	}
}
