// wall: calls
// tries: to have the engine run bytes that no compiler of its own has made
// ends: done OK or done RE
export default {
	async message(msg, env) {
		const bytes = new Uint8Array([0x14, 1, 0xd6, 0x03, 0x22, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0c, 0, 0x06, 0, 0xa2])
		console.log("trying: bytecode as a module")
		await env.storage.put("code.js", bytes)
		for (const name of ["../storage/code.js", "./code.bin"]) {
			try {
				await import(name)
				console.log("BROKE: import of", name)
			} catch (e) { console.log("held:", String(e)) }
		}
		console.log("trying: bytecode as text")
		try {
			const r = eval(String.fromCharCode(...bytes))
			console.log("BROKE: eval gave", r)
		} catch (e) { console.log("held:", String(e)) }
		try {
			structuredClone(() => {})
			console.log("BROKE: a function was cloned")
		} catch (e) { console.log("held:", String(e)) }
	},
}
