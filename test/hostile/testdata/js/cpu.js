// wall: cpu
// tries: to compute for ever: in a loop, a regular expression, a getter, a comparison, a big number
// runs: loop regex getter sort bigint proxy
// limits: wall=1s
// ends: done TO or done late
// within: 6s
export default {
	message(msg) {
		console.log("trying:", msg.text)
		switch (msg.text) {
		case "loop": for (;;);
		case "regex": return /^(a+)+$/.test("a".repeat(40) + "b") + " BROKE: it came to an end"
		case "getter": { const o = { get x() { return this.x2 }, get x2() { for (;;); } }; return o.x }
		case "sort": { const a = Array.from({ length: 1e6 }, (_, n) => n); for (;;) a.sort(() => Math.random() - 0.5); }
		case "bigint": { let n = 3n; for (;;) n = n * n % (2n ** 100000n - 1n); }
		case "proxy": { const p = new Proxy({}, { get: (t, k, r) => { for (;;); } }); return p.x }
		}
	},
}
