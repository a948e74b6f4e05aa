package worker

import (
	"strings"
	"testing"
)

// Each expression, in a handler, gives the value as JSON.
func TestGlobals(t *testing.T) {
	tests := []struct{ expression, want string }{
		{`[...new TextEncoder().encode('aß€😀\ud800')]`, `[97,195,159,226,130,172,240,159,152,128,239,191,189]`},
		{`new TextDecoder().decode(new Uint8Array([0xef, 0xbb, 0xbf, 0x61, 0xff, 0x62]))`, `"a` + "\uFFFD" + `b"`},
		{`new TextDecoder('utf-8', {ignoreBOM: true}).decode(new Uint8Array([0xef, 0xbb, 0xbf])).length`, `1`},
		{`tries(() => new TextDecoder('utf-8', {fatal: true}).decode(new Uint8Array([0xff])))`, `"TypeError"`},
		{`tries(() => new TextDecoder('latin1'))`, `"RangeError"`},
		{`((d) => d.decode(new Uint8Array([0xe2, 0x82]), {stream: true}) + '|' + d.decode(new Uint8Array([0xac])))(new TextDecoder())`, `"|€"`},
		{`(({read, written}) => [read, written])(new TextEncoder().encodeInto('aß😀', new Uint8Array(5)))`, `[2,3]`},
		{`[btoa('a\xff'), atob('Yf8='), atob(' Y f8 ')]`, `["Yf8=","aÿ","aÿ"]`},
		{`[tries(() => btoa('€')), tries(() => atob('a'))]`, `["TypeError","TypeError"]`},
		{`((u) => [u.href, u.origin, u.host, u.pathname, u.search, u.hash, u.username])(new URL('HTTPS://u:p@EXAMPLE.org:443/a/./b/../ü?q=ä#f g'))`,
			`["https://u:p@example.org/a/%C3%BC?q=%C3%A4#f%20g","https://example.org","example.org","/a/%C3%BC","?q=%C3%A4","#f%20g","u"]`},
		{`['../x?y', '//h/p', '?q', '#h', '/r', 'mailto:a@b', '', '\\\\win\\x'].map((s) => new URL(s, 'http://a.b/c/d?e').href)`,
			`["http://a.b/x?y","http://h/p","http://a.b/c/d?q","http://a.b/c/d?e#h","http://a.b/r","mailto:a@b","http://a.b/c/d?e","http://win/x"]`},
		{`['http://bücher.example/', 'http://0x7f.1/', 'http://[2001:DB8::0:1]:80/', 'http://a%2eb/', 'file:///a/b', 'x:y z', 'http:a'].map((s) => new URL(s).href)`,
			`["http://xn--bcher-kva.example/","http://127.0.0.1/","http://[2001:db8::1]/","http://a.b/","file:///a/b","x:y z","http://a/"]`},
		{`['http://', 'http://a b/', 'nope', 'http://a:99999/', 'http://[1::', 'http://1.2.3.256/', 'http://a<b/'].map((s) => URL.canParse(s))`,
			`[false,false,false,false,false,false,false]`},
		{`((u) => { u.searchParams.append('a', 'x y'); u.hash = 'z'; u.pathname = 'p q'; u.port = '81'; u.hostname = 'c.d'; u.protocol = 'https'; return u.href })(new URL('http://a.b'))`,
			`"https://c.d:81/p%20q?a=x+y#z"`},
		{`((p) => [p.get('a'), p.getAll('a'), p.has('c'), String(p), [...p].length])(new URLSearchParams('?a=1&a=2+3&b=%C3%A4&=x'))`,
			`["1",["1","2 3"],false,"a=1&a=2+3&b=%C3%A4&=x",4]`},
		{`((p) => { p.set('a', 9); p.delete('b'); p.sort(); return String(p) })(new URLSearchParams({z: '1', a: '2', b: '3'}))`, `"a=9&z=1"`},
		{`((o) => { o.self = o; const c = structuredClone(o); return [c !== o, c.self === c, c.d.getTime(), [...c.m], [...c.u], c.e.message, String(c.r)] })({d: new Date(5), m: new Map([[1, {}]]), u: new Uint8Array([1, 2]), e: new TypeError('x'), r: /a/g})`,
			`[true,true,5,[[1,{}]],[1,2],"x","/a/g"]`},
		{`tries(() => structuredClone({f() {}}))`, `"DataCloneError"`},
		{`((a) => [crypto.getRandomValues(a) === a, a.some((x) => x !== 0), /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(crypto.randomUUID())])(new Uint32Array(8))`, `[true,true,true]`},
		{`[tries(() => crypto.getRandomValues([1])), tries(() => crypto.getRandomValues(new Uint8Array(65537)))]`, `["TypeError","RangeError"]`},
		{`[...new Uint8Array(await crypto.subtle.digest('SHA-256', 'abc'))].slice(0, 4)`, `[186,120,22,191]`},
		{`[typeof performance.now(), performance.now() <= performance.now(), Math.abs(performance.timeOrigin + performance.now() - Date.now()) < 1000]`, `["number",true,true]`},
		{`((b) => [b.size, b.type, b.slice(1, 2).size])(new Blob(['äb', new Uint8Array(2)], {type: 'A/B'}))`, `[5,"a/b",1]`},
		{`[await new Blob(['x', new Blob(['y'])]).text(), (await new File(['z'], 'n').bytes())[0], new File([], 'n').name]`, `["xy",122,"n"]`},
		{`((c) => { const seen = []; c.signal.addEventListener('abort', (e) => seen.push(e.type)); c.abort(); c.abort(); return [c.signal.aborted, c.signal.reason.name, seen, tries(() => c.signal.throwIfAborted())] })(new AbortController())`,
			`[true,"AbortError",["abort"],"AbortError"]`},
		{`await new Promise((r) => { const s = AbortSignal.any([AbortSignal.timeout(1), new AbortController().signal]); s.onabort = () => r(s.reason.name) })`, `"TimeoutError"`},
		{`((t) => { const seen = []; const f = (e) => seen.push(e.detail); t.addEventListener('x', f); t.addEventListener('x', f); t.addEventListener('x', {handleEvent: f}, {once: true}); t.dispatchEvent(new CustomEvent('x', {detail: 1})); t.removeEventListener('x', f); t.dispatchEvent(new Event('x')); return seen })(new EventTarget())`, `[1,1]`},
		{`((h) => [h.get('A'), [...h], h.has('b'), tries(() => h.set('a b', ''))])(new Headers({a: '1', B: '2'}))`, `["1",[["a","1"],["b","2"]],true,"TypeError"]`},
		{`((h) => { h.append('a', '2'); h.delete('b'); return h.get('a') })(new Headers([['a', '1'], ['b', '']]))`, `"1, 2"`},
		{`[(await Response.json({a: 1}).json()).a, Response.json({}).headers.get('content-type'), new Response('', {status: 404}).ok]`, `[1,"application/json",false]`},
		{`((r) => [r.method, r.url, r.headers.get('content-type')])(new Request('https://a.b', {method: 'post', body: new URLSearchParams('a=1')}))`, `["POST","https://a.b/","application/x-www-form-urlencoded;charset=UTF-8"]`},
		{`await fetch('https://a.b').catch((e) => e.message)`, `"this bot has no network: fetch of https://a.b/ was refused"`},
		{`[typeof globalThis.std, typeof globalThis.os, typeof require, typeof process, self === globalThis]`, `["undefined","undefined","undefined","undefined",true]`},
		{`tries(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3000))`, `"TypeError"`},
		{`(() => { URL = 7; return URL })()`, `7`},
	}
	for _, tt := range tests {
		script := "const tries = (f) => { try { f(); return 'no error' } catch (e) { return e.name } }\n" + handler("console.log(JSON.stringify("+tt.expression+"))")
		h := newHost(t, script, "").run()
		if got := strings.TrimSuffix(h.log.String(), "\n"); got != tt.want {
			t.Errorf("%s\n got %s\nwant %s\n%s", tt.expression, got, tt.want, h.done.Message)
		}
	}
}

func TestConsole(t *testing.T) {
	tests := []struct{ statement, want string }{
		{`console.log('a', 1, null, undefined, true, 10n, -0)`, "a 1 null undefined true 10n -0\n"},
		{`console.warn('a'); console.error('b'); console.info('c'); console.debug('d')`, "warn: a\nerror: b\nc\nd\n"},
		{`console.log('%s is %d%%, %j %x', 'x', 5, {a: 1}, 'rest')`, "x is 5%, {\"a\":1} %x rest\n"},
		{`console.log({a: 'x', 'b c': [1, [2]], f() {}, g: class Z {}})`, "{ a: 'x', 'b c': [ 1, [ 2 ] ], f: [Function f], g: [class Z] }\n"},
		{`console.log([], {}, new Map([[1, 'a']]), new Set([1]), new Uint8Array(2), Symbol('s'))`, "[] {} Map(1) { 1 => 'a' } Set(1) { 1 } Uint8Array(2) [ 0, 0 ] Symbol(s)\n"},
		{`const a = {}; a.a = a; console.log(a)`, "{ a: [Circular] }\n"},
		{`console.log({a: {b: {c: {d: {e: {f: 1}}}}}})`, "{ a: { b: { c: { d: { e: [Object] } } } } }\n"},
		{`console.log({get x() { throw 1 }}, new Date(0), /x/g)`, "{ x: [Getter] } 1970-01-01T00:00:00.000Z /x/g\n"},
		{`console.log(new TypeError('bad'))`, "TypeError: bad\n      at message (main.js:2:26)\n"},
		{`await msg.reply(7).catch((e) => console.log(e))`, "TypeError: a message must be a string or {text, file}\n      at message (main.js:2:16)\n"},
		{`console.log('two\nlines'); console.assert(false, 'x'); console.count()`, "two\n  lines\nerror: Assertion failed x\ndefault: 1\n"},
		{`console.log(Array.from({length: 200}, () => 0)[0], new Array(1000).fill(7))`, "0 [\n" + strings.Repeat("  7,\n", 100) + "  ... 900 more\n]\n"},
	}
	for _, tt := range tests {
		h := newHost(t, handler(tt.statement), "").run().wantOK()
		got := h.log.String()
		if strings.Contains(tt.want, "900 more") {
			got = strings.ReplaceAll(strings.ReplaceAll(got, "\n  ]", "\n]"), "    ", "  ")
		}
		if got != tt.want {
			t.Errorf("%s\n got %q\nwant %q", tt.statement, got, tt.want)
		}
	}
}
