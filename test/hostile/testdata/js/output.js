// wall: output
// tries: to drown whoever reads its log, its calls or its messages
// runs: log calls line messages error
// limits: wall=10s
// ends: done OK or done RE or done TO or done broken
// ends log: done OK
// within: 20s
export default {
	async message(msg, env) {
		console.log("trying:", msg.text)
		switch (msg.text) {
		case "log": for (let n = 0; n < 20000; n++) console.log("x".repeat(1000)); break
		case "calls": for (let n = 0; n < 5000; n++) { try { await env.rpc("get_contact", 1, n) } catch (e) { if (n > 1100) break } } break
		case "line": try { await env.rpc("send_msg", 1, 10, { text: "x".repeat(15 << 20) }) ; console.log("BROKE: 15 MB were sent") } catch (e) { console.log("held:", String(e)) } break
		case "messages": {
			let n = 0
			try { for (; n < 1000; n++) await msg.reply("spam") } catch (e) { console.log("held: after", n, String(e)) }
			if (n > 60) console.log("BROKE:", n, "messages")
			break
		}
		case "error": throw new Error("x".repeat(8 << 20))
		}
	},
}
