// wall: dumps
// tries: to crash the engine: by deep recursion of every kind
// runs: function json text regex getter proxy source toprimitive
// ends: done RE or done OK or exit 2 or signal SEGV
export default {
	message(msg) {
		console.log("trying:", msg.text)
		const f = (n) => f(n + 1) + 1
		let deep
		try {
			switch (msg.text) {
			case "function": return f(0)
			case "json": return JSON.parse("[".repeat(5e6) + "]".repeat(5e6))
			case "text": deep = []; for (let n = 0; n < 1e6; n++) deep = [deep]; return JSON.stringify(deep)
			case "regex": return new RegExp("(".repeat(1e6) + ")".repeat(1e6))
			case "getter": { const o = { get x() { return this.x } }; return o.x }
			case "proxy": { let p = {}; for (let n = 0; n < 1e5; n++) p = new Proxy(p, {}); return p.x }
			case "source": return eval("(".repeat(1e6) + "1" + ")".repeat(1e6))
			case "toprimitive": { const o = { toString: () => o + "" }; return o + "" }
			}
		} catch (e) { console.log("held:", String(e).slice(0, 100)) }
	},
}
