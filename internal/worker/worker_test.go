package worker

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestReplyByReturn(t *testing.T) {
	newHost(t, handler("return `you said ${msg.text}`"), "hi").run().wantOK().
		wantCalls(`send_msg[1,10,{"text":"you said hi"}]`)
}

// Each body is a message handler's; calls are what the host is asked for, log what console wrote.
func TestMessageHandler(t *testing.T) {
	tests := []struct {
		name, body string
		calls      []string
		log        string
	}{
		{"nothing to say", "", nil, ""},
		{"empty reply", "return ''", nil, ""},
		{"no string", "return {a: 1}", nil, "warn: the message handler returned a value of type object: only a string is sent as the reply\n"},
		{"reply", "const s = await msg.reply('a'); return `${s.id}`",
			[]string{`send_msg[1,10,{"text":"a"}]`, `send_msg[1,10,{"text":"101"}]`}, ""},
		{"reply with object", "await msg.reply({text: 'a'})", []string{`send_msg[1,10,{"text":"a"}]`}, ""},
		{"react", "await msg.react('👍'); await msg.react()",
			[]string{`send_reaction[1,12,["👍"]]`, `send_reaction[1,12,[]]`}, ""},
		{"sent", "const s = await msg.reply('a'); await s.edit('b'); await s.react('x'); await s.delete()",
			[]string{`send_msg[1,10,{"text":"a"}]`, `send_edit_request[1,101,"b"]`, `send_reaction[1,101,["x"]]`, `delete_messages_for_all[1,[101]]`}, ""},
		{"env.send", "await env.send(77, 'a')", []string{`send_msg[1,77,{"text":"a"}]`}, ""},
		{"env.rpc", "console.log(await env.rpc('get_message', 1, 5))", []string{`get_message[1,5]`}, "101\n"},
		{"a call that is not awaited is waited for", "msg.reply('a').then(() => console.log('sent'))", []string{`send_msg[1,10,{"text":"a"}]`}, "sent\n"},
		{"waitUntil", "ctx.waitUntil((async () => { await msg.reply('later'); ctx.waitUntil(msg.reply('and later')) })()); return 'now'",
			[]string{`send_msg[1,10,{"text":"later"}]`, `send_msg[1,10,{"text":"now"}]`, `send_msg[1,10,{"text":"and later"}]`}, ""},
		{"message", "const {id, text, timestamp, file, quote} = msg; console.log(JSON.stringify({id, text, timestamp, file, quote, chat: msg.chat, contact: msg.contact, state: msg.core.chatId}))", nil,
			`{"id":12,"text":"hi","timestamp":1700000000,"file":null,"quote":null,"chat":{"id":10,"name":"Alice","isGroup":false},` +
				`"contact":{"id":11,"name":"Alice","address":"alice@example.org","fingerprint":null,"isBot":false,"isSelf":false},"state":10}` + "\n"},
		{"bot", "return `${env.bot.name} ${env.bot.address} ${env.bot.version}`", []string{`send_msg[1,10,{"text":"Dice dice@example.org 1.0.0"}]`}, ""},
		{"deadline", "const left = ctx.deadline - Date.now(); console.log(left > 3000 && left <= 5000)", nil, "true\n"},
		{"microtasks come before timers, timers in the order of their time",
			"await new Promise((done) => { setTimeout(() => { console.log(3); done() }, 20); setTimeout(console.log, 0, 2); queueMicrotask(() => console.log(1)) })",
			nil, "1\n2\n3\n"},
		{"an interval fires until it is cleared",
			"await new Promise((done) => { let n = 0; const id = setInterval(() => { console.log(++n); if (n === 3) { clearInterval(id); done() } }, 1) })",
			nil, "1\n2\n3\n"},
		{"a timer that is left does not hold the run", "setTimeout(() => console.log('no'), 100000)", nil, ""},
		{"a cleared timer does not fire", "clearTimeout(setTimeout(() => console.log('no'), 1)); await new Promise((r) => setTimeout(r, 5))", nil, ""},
		{"a rejection that is handled later in the same turn is fine", "const p = Promise.reject(new Error('x')); await null; await p.catch(() => console.log('caught'))", nil, "caught\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			newHost(t, handler(tt.body), "hi").run().wantOK().wantCalls(tt.calls...).wantLog(tt.log)
		})
	}
}

func TestOrderOfTheProtocol(t *testing.T) {
	h := newHost(t, handler("await msg.reply('a')"), "hi").run().wantOK()
	if got := strings.Join(h.lines, " "); got != "ready entered send_msg done" {
		t.Errorf("lines: %s", got)
	}
}

func TestAnswersOutOfOrder(t *testing.T) {
	h := newHost(t, handler("console.log(...await Promise.all([env.rpc('first'), env.rpc('second')]))"), "hi")
	h.reverse = true
	h.answers = func(method string, _ []any) (any, error) { return method, nil }
	h.run().wantOK().wantLog("first second\n")
}

func TestGroup(t *testing.T) {
	h := newHost(t, handler("console.log(msg.chat.isGroup, (await msg.chat.members()).map((c) => `${c.name} ${c.isSelf}`).join(', ')); console.log((await env.chat(5)).name, (await env.contact(6)).address)"), "hi")
	h.job["chat"] = map[string]any{"id": 10, "name": "Friends", "chatType": "Group"}
	h.answers = func(method string, params []any) (any, error) {
		switch method {
		case "get_chat_contacts":
			return []int{1, 11}, nil
		case "get_basic_chat_info":
			return map[string]any{"id": 5, "name": "Five", "chatType": "Single"}, nil
		}
		return map[string]any{"id": params[1], "displayName": fmt.Sprintf("c%v", params[1]), "address": "c@example.org"}, nil
	}
	h.run().wantOK().wantLog("true c1 true, c11 false\nFive c@example.org\n").
		wantCalls(`get_chat_contacts[1,10]`, `get_contact[1,1]`, `get_contact[1,11]`, `get_basic_chat_info[1,5]`, `get_contact[1,6]`)
}

func TestIncomingFile(t *testing.T) {
	h := newHost(t, handler("console.log(msg.file.name, msg.file.mime, msg.file.size, (await msg.file.bytes())[0], await msg.file.text(), (await msg.file.json()).a)"), "hi")
	if err := os.WriteFile(filepath.Join(h.opts.Attachments, "x.json"), []byte(`{"a":7}`), 0o600); err != nil {
		t.Fatal(err)
	}
	h.job["attachment"] = map[string]any{"path": "/attachments/x.json", "name": "x.json", "mime": "application/json", "size": 7}
	h.run().wantOK().wantLog("x.json application/json 7 123 {\"a\":7} 7\n")
}

func TestIncomingFileStaysBelowAttachments(t *testing.T) {
	for _, path := range []string{"/attachments/../secret", "/etc/passwd", "/attachments/link"} {
		h := newHost(t, handler("await msg.file.bytes()"), "hi")
		if err := os.Symlink("/etc/passwd", filepath.Join(h.opts.Attachments, "link")); err != nil {
			t.Fatal(err)
		}
		h.job["attachment"] = map[string]any{"path": path, "name": "x", "mime": "", "size": 1}
		if h.run(); h.done.Status != "RE" || !strings.HasPrefix(h.done.Message, "main.js:2:21: Error: the file of the message is not") {
			t.Errorf("%s: %+v", path, h.done)
		}
	}
}

func TestSendFiles(t *testing.T) {
	tests := []struct{ name, content, viewtype, want string }{
		{"string", "{name: 'a.txt', data: 'grüß'}", "", "grüß"},
		{"bytes", "{name: 'a.txt', data: new Uint8Array([1, 2, 3]).subarray(1)}", "", "\x02\x03"},
		{"buffer", "{name: 'a.txt', data: new ArrayBuffer(2)}", "", "\x00\x00"},
		{"blob", "{name: 'a.txt', data: new Blob(['a', new Uint8Array([98])], {type: 'image/png'})}", "Image", "ab"},
		{"file", "new File(['x'], 'a.txt', {type: 'image/gif'})", "Gif", "x"},
		{"type", "{name: 'a.txt', data: '', type: 'video/mp4'}", "Video", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t, handler("await msg.reply({text: 'here', file: "+tt.content+"})"), "hi").run().wantOK()
			data := h.calls[0].Params[2].(map[string]any)
			path := filepath.Join(h.opts.Tmp, "out/1/a.txt")
			if data["file"] != path || data["filename"] != "a.txt" || data["text"] != "here" {
				t.Errorf("%v", data)
			}
			if got, _ := data["viewtype"].(string); got != tt.viewtype {
				t.Errorf("viewtype %q, want %q", got, tt.viewtype)
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != tt.want {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestOtherEvents(t *testing.T) {
	script := `export default {
  async webxdc(update, env) { console.log(update.payload.a, update.instanceId, update.chat.name); await update.send({payload: {b: 2}}, 'b'); return 'seen' },
  async scheduled(event, env) { console.log(event.cron, event.scheduledTime, event.lastRun)
    await env.send(3, 'tick'); await env.send(await env.chat(4), 'tack'); await env.send(await env.contact(5), 'tock') },
}`
	h := newHost(t, script, "")
	h.job["event"], h.job["update"] = "webxdc", map[string]any{"payload": map[string]any{"a": 1}, "msgId": 12}
	h.run().wantOK().wantLog("1 12 Alice\n").
		wantCalls(`send_webxdc_status_update[1,12,"{\"payload\":{\"b\":2}}","b"]`, `send_msg[1,10,{"text":"seen"}]`)

	h = newHost(t, script, "")
	h.job["event"], h.job["schedule"] = "scheduled", map[string]any{"cron": "0 * * * *", "scheduledTime": 18, "lastRun": 17}
	known := h.answers
	h.answers = func(method string, params []any) (any, error) {
		if strings.HasPrefix(method, "get_") {
			return map[string]any{"id": params[1]}, nil
		}
		return known(method, params)
	}
	h.run().wantOK().wantLog("0 * * * * 18 17\n").wantCalls(`send_msg[1,3,{"text":"tick"}]`,
		`get_basic_chat_info[1,4]`, `send_msg[1,4,{"text":"tack"}]`,
		`get_contact[1,5]`, `create_chat_by_contact_id[1,5]`, `send_msg[1,105,{"text":"tock"}]`)

	h = newHost(t, "export default {}", "")
	h.job["event"], h.job["schedule"] = "scheduled", map[string]any{}
	if h.run(); h.done.Status != "RE" || h.done.Message != "main.js:1:1: Error: main.js has no scheduled handler, and bot.toml has a [[schedule]]: export the one, or remove the other" {
		t.Errorf("%+v", h.done)
	}

	newHost(t, script, "").run().wantOK().wantLog("main.js has no message handler: nothing was run\n")

	h = newHost(t, "export default { scheduled() {\n return 'x' } }", "")
	h.job["event"], h.job["schedule"] = "scheduled", map[string]any{}
	if h.run(); h.done.Message != "main.js:1:18: Error: the scheduled handler returned a string, but there is no chat to send it to: use env.send(chatId, text)" {
		t.Errorf("%+v", h.done)
	}
}

func TestModules(t *testing.T) {
	newHost(t, `import { a } from "./lib/a.js"
import data from './data.json' with { type: 'json' }
const late = await import('./lib/late.js')
export default { message: () => console.log(a, data.list[1], late.default) }
-- lib/a.js --
export * from '../b.js'
-- b.js --
import './lib/a.js'
export const a = await Promise.resolve('from b')
-- data.json --
{"list": [1, "zwei"]}
-- lib/late.js --
export default 'late'
`, "").run().wantOK().wantLog("from b zwei late\n")
}

func TestModulesStayInTheBundle(t *testing.T) {
	h := newHost(t, "import './link.js'\nexport default {}\n", "")
	outside := filepath.Join(t.TempDir(), "outside.js")
	if err := os.WriteFile(outside, []byte("console.log('outside')"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(h.opts.Bundle, "link.js")); err != nil {
		t.Fatal(err)
	}
	if h.run(); h.done.Status != "RE" || !strings.HasPrefix(h.done.Message, `main.js:1:8: SyntaxError: import "./link.js": it cannot be read`) {
		t.Errorf("%+v", h.done)
	}
}

func TestStorage(t *testing.T) {
	h := newHost(t, handler(`const s = env.storage
console.log(await s.get('a'), await s.getBytes('a'), await s.delete('a'), JSON.stringify(await s.list()))
await s.put('a', 'grüß'); await s.put('a/b', new Uint8Array([0, 255])); await s.put('a', 'neu'); await s.put('.ключ %+\\', 'x')
console.log(await s.get('a'), (await s.getBytes('a/b'))[1], await s.get('.ключ %+\\'))
console.log(JSON.stringify(await s.list()), JSON.stringify(await s.list('a/')))
console.log(await s.delete('a'), JSON.stringify(await s.list('a')))`), "")
	h.run().wantOK().wantLog(`null null false []
neu 255 x
[".ключ %+\\","a","a/b"] ["a/b"]
true ["a/b"]
`)
	var names []string
	entries, err := os.ReadDir(h.opts.Storage)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != "%2Eключ%20%25%2B%5C a+b" {
		t.Errorf("files: %s", got)
	}
}

func TestLogIsBounded(t *testing.T) {
	h := newHost(t, handler("const line = 'x'.repeat(1000); for (let i = 0; i < 3000; i++) console.log(line)"), "").run().wantOK()
	if h.log.Len() > logLimit+100 || !strings.HasSuffix(h.log.String(), "\nthe log is cut here: a run may write 1 MB\n") {
		t.Errorf("%d bytes, ends with %q", h.log.Len(), h.log.String()[h.log.Len()-60:])
	}
}

func TestHostFailures(t *testing.T) {
	h := newHost(t, handler("await msg.reply('a')"), "")
	h.answers = func(string, []any) (any, error) { h.in.Close(); return nil, errSilent }
	if h.run(); h.done.Status != "XX" || h.code != exitInternal || h.done.Message != "the host ended before it had answered" {
		t.Errorf("%+v %d", h.done, h.code)
	}
	h = newHost(t, handler("await msg.reply('a')"), "")
	h.answers = func(string, []any) (any, error) { h.send(map[string]any{"id": 99, "result": 1}); return nil, errSilent }
	if h.run(); h.done.Status != "XX" || h.done.Message != "the host answered 99, which was not asked" {
		t.Errorf("%+v", h.done)
	}
	h = newHost(t, "", "")
	h.job["event"] = "unknown"
	if h.run(); h.done.Status != "XX" || !strings.Contains(h.done.Message, `event "unknown" is unknown`) {
		t.Errorf("%+v", h.done)
	}
}

func TestACallMayBeLargeButNotLargerThanALine(t *testing.T) {
	h := newHost(t, handler("await msg.reply('x'.repeat(1 << 20)); await msg.reply('x'.repeat(17 << 20))"), "")
	h.opts.HeapLimit = 0
	h.run()
	if len(h.calls) != 1 || h.done.Message != "main.js:2:54: Error: send_msg: a line of the protocol is longer than 16777216 bytes" {
		t.Errorf("%d calls, %+v", len(h.calls), h.done)
	}
}

func TestNeverResolvesEndsAtOnce(t *testing.T) {
	h := newHost(t, handler("await new Promise(() => {})"), "").run()
	if h.took > 2*time.Second {
		t.Errorf("took %v", h.took)
	}
}
