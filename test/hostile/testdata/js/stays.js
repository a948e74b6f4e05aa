// wall: end
// tries: to go on after its end
// ends: done OK
// within: 5s
export default {
	async message(msg) {
		console.log("trying: timers that are never cleared")
		setInterval(() => msg.reply("still here").catch(() => {}), 1)
		for (let n = 0; n < 100; n++) setTimeout(() => console.log("BROKE: after the end"), 60000)
	},
}
