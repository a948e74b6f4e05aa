// wall: privileges
// tries: the engine's own modules, which open files and start processes, by every name that they have had
// ends: done OK
export default {
	async message() {
		for (const name of ["std", "os", "qjs:std", "qjs:os", "bjson", "node:fs", "node:child_process", "fs", "mayfly:check", "mayfly:stop",
			"/proc/self/exe", "data:text/javascript,export default 1", "blob:x", "wasi"]) {
			console.log("trying:", name)
			try {
				const m = await import(name)
				console.log("BROKE: import of", name, Object.keys(m).join())
			} catch (e) { console.log("held:", String(e)) }
		}
		for (const name of ["std", "os", "scriptArgs", "process", "require", "Deno", "Bun", "load", "loadScript", "__loadScript", "bjson"]) {
			if (globalThis[name] !== undefined) console.log("BROKE: there is", name)
		}
		const F = (async () => {}).constructor, G = (function* () {}).constructor
		for (const f of [Function("return this"), F("return this"), G("yield this")]) {
			console.log("trying: the global object of", String(f))
			const g = await f()
			if (g && g.std) console.log("BROKE: std")
		}
	},
}
