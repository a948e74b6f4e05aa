// wall: inodes
// tries: to store a hundred thousand values
// ends: done OK
// folder: kept
// within: 30s
export default {
	async message(msg, env) {
		console.log("trying: 100,000 values")
		let n = 0
		try {
			for (; n < 100000; n++) await env.storage.put("v" + n, "")
			console.log("BROKE: 100,000 values")
		} catch (e) { console.log("held: after", n, String(e)) }
		for (let i = 0; i < n; i++) await env.storage.delete("v" + i)
	},
}
