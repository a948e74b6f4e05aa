// wall: others
// tries: what belongs to others: the account's password and keys, other chats, the daemon's surroundings
// ends: done OK
export default {
	async message(msg, env, ctx) {
		for (const call of [["get_config", 1, "mail_pw"], ["get_config", 1, "configured_mail_pw"], ["export_self_keys", 1, "/tmp", null], ["list_transports", 1],
			["add_account"], ["get_backup", 2], ["misc_send_text_message", 1, 11, "to another chat"], ["send_msg", 2, 11, { text: "x" }],
			["get_http_response", 1, "http://127.0.0.1:10025/"], ["send_msg", 1, 10, { file: "/account/core/dc.db" }],
			["send_msg", 1, 10, { file: "/tmp/out/../../storage/../etc/passwd" }], ["set_config", 1, "mail_pw", "x"], ["secure_join", 1, "OPENPGP4FPR:0"],
			["create_contact", 1, "x@example.org", null], ["__proto__"], ["constructor"], ["get_next_event"]]) {
			console.log("trying:", call[0])
			try {
				const r = await env.rpc(...call)
				console.log("BROKE:", call[0], "gave", JSON.stringify(r))
			} catch (e) { console.log("held:", String(e)) }
		}
		for (const o of [globalThis, env, ctx, msg])
			for (const k of Object.getOwnPropertyNames(o)) if (/passw|secret|token|MAYFLY/i.test(k)) console.log("BROKE: there is", k)
		try {
			await env.send(11, "to another chat")
			console.log("BROKE: sent to another chat")
		} catch (e) { console.log("held:", String(e)) }
	},
}
