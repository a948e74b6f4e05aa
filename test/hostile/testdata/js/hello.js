// benign
export default {
	async message(msg, env) {
		console.log("trying: nothing")
		await env.storage.put("note", "hello")
		return "hello"
	},
}
