// wall: files
// tries: files of the host as modules and as stored values
// ends: done OK
export default {
	async message(msg, env) {
		for (const name of ["/etc/passwd", "../../etc/passwd", "../../../proc/self/environ", "./../../storage/note", "file:///etc/passwd", "./.",
			"../attachments/x", "./\0", "./main.js/../../etc/passwd"]) {
			console.log("trying:", name)
			try {
				await import(name)
				console.log("BROKE: import of", name)
			} catch (e) { console.log("held:", String(e)) }
		}
		for (const key of ["/etc/passwd", "../../etc/passwd", "..", ".", "../bundle/main.js", "a/../../../etc/shadow", "%2e%2e/x", "\0", "+etc+passwd"]) {
			console.log("trying: the key", key)
			try {
				const v = await env.storage.get(key)
				console.log(v === null ? "held: nothing" : "BROKE: " + v.slice(0, 20))
			} catch (e) { console.log("held:", String(e)) }
		}
	},
}
