// wall: descriptors
// tries: to have the worker hold more files than it may: values read at a time, files sent at a time
// ends: done OK or done RE
export default {
	async message(msg, env) {
		await env.storage.put("value", "x")
		console.log("trying: 1,000 reads and 60 files at a time")
		const reads = []
		for (let n = 0; n < 1000; n++) reads.push(env.storage.getBytes("value"))
		await Promise.all(reads)
		const sent = []
		for (let n = 0; n < 60; n++) sent.push(msg.reply({ file: { name: "../../" + n, data: "x" } }))
		for (const r of await Promise.allSettled(sent)) if (r.status === "fulfilled") console.log("BROKE: a file was sent that the host could not take")
		console.log("held")
	},
}
