// wall: disk
// tries: to store more than its folder has room for
// ends: done OK
// folder: kept
export default {
	async message(msg, env) {
		const block = new Uint8Array(1 << 20).fill(120)
		console.log("trying: 100 MB")
		let n = 0
		try {
			for (; n < 100; n++) await env.storage.put("block" + n, block)
			console.log("BROKE: 100 MB")
		} catch (e) { console.log("held: after", n, "MB:", String(e)) }
		for (let i = 0; i < n; i++) await env.storage.delete("block" + i)
	},
}
