// wall: processes
// tries: to start a worker, a process, a signal
// ends: done OK
export default {
	async message() {
		for (const name of ["Worker", "SharedWorker", "ServiceWorker", "MessageChannel", "BroadcastChannel", "WebAssembly", "child_process"]) {
			console.log("trying:", name)
			if (globalThis[name] !== undefined) console.log("BROKE: there is", name)
			else console.log("held:", name)
		}
	},
}
