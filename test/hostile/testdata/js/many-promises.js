// wall: pids
// tries: a million things at a time: whatever each is for the worker, a thread or not
// limits: wall=25s
// ends: done OK or done RE or done TO or killed memory
// within: 40s
export default {
	async message(msg, env) {
		console.log("trying: 100,000 timers, and as many reads")
		const all = []
		for (let n = 0; n < 100000; n++) all.push(new Promise((done) => setTimeout(done, 1)))
		for (let n = 0; n < 2000; n++) all.push(env.storage.get("none" + n).catch(() => {}))
		await Promise.all(all)
		console.log("held: all came")
	},
}
