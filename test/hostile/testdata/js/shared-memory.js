// wall: ipc
// tries: to block the engine's thread on shared memory, where nothing ever wakes it
// limits: wall=2s
// ends: done RE or done TO or done OK or done late
// within: 6s
export default {
	async message() {
		console.log("trying: Atomics.wait")
		if (typeof SharedArrayBuffer === "undefined") return console.log("held: there is no SharedArrayBuffer")
		const memory = new Int32Array(new SharedArrayBuffer(4))
		Atomics.wait(memory, 0, 0)
		console.log("BROKE: it has come back")
	},
}
