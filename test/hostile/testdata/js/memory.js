// wall: memory
// tries: to take all memory: as an array, a string, buffers, a map, strings of strings, closures
// runs: array string buffer map rope closures
// ends: done RE or killed memory
// ends array: done RE
// ends map: done RE
// says array: out of memory
// says map: out of memory
export default {
	message(msg) {
		console.log("trying:", msg.text)
		const held = []
		let s = "xxxxxxxxxxxxxxxx", f = () => 0
		const m = new Map()
		for (let n = 0; ; n++) {
			switch (msg.text) {
			case "array": held.push(n, n, n, n); break
			case "string": s += s; break
			case "buffer": held.push(new Uint8Array(1 << 20).fill(1)); break
			case "map": m.set("key " + n, { n }); break
			case "rope": held.push((s + n).repeat(1000)); break
			case "closures": { const g = f; f = () => g() + n; held.push(f); break }
			}
			if (n > 1e9) return console.log("BROKE: a thousand million of them")
		}
	},
}
