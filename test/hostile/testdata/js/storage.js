// wall: storage
// tries: keys that are no file names; and a run that fails shall leave nothing
// ends: done OK
// folder: kept
export default {
	async message(msg, env) {
		for (const key of ["", "a".repeat(201), "ü".repeat(150), "\n", "\u202e", "con", "a/b/c/d/e", ".hidden", ".mayfly-partial", "*".repeat(100), "\ud800"]) {
			console.log("trying: a key of", key.length)
			try {
				await env.storage.put(key, "x")
				if (await env.storage.get(key) !== "x") console.log("BROKE: another value at", JSON.stringify(key))
			} catch (e) { console.log("held:", String(e)) }
		}
	},
}
