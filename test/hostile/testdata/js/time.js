// wall: time
// tries: to outstay its time: with a promise that nothing settles, timers, microtasks without end, native code that cannot be interrupted
// runs: never timers microtasks join indexof fill waituntil
// limits: wall=1s
// ends: done TO or done late
// ends never: done RE
// ends indexof: done OK or done late or done TO
// ends fill: done RE or done late or done TO or killed memory
// within: 6s
// says never: settle
export default {
	async message(msg, env, ctx) {
		console.log("trying:", msg.text)
		switch (msg.text) {
		case "never": await new Promise(() => {}); break
		case "timers": for (;;) await new Promise((done) => setTimeout(done, 1)); break
		case "microtasks": { const again = () => queueMicrotask(() => { again(); again() }); again(); for (;;) await null; break }
		case "join": Array(1e9).join("x"); break
		case "indexof": for (let n = 0; n < 3; n++) Array(1e9).indexOf(1); break
		case "fill": Array(4e8).fill(0).map((x) => [x]); break
		case "waituntil": ctx.waitUntil((async () => { for (;;) await new Promise((done) => setTimeout(done, 10)) })()); break
		}
	},
}
