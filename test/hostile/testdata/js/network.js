// wall: network
// tries: to reach the host, the relay's port that signs, the cloud's metadata
// ends: done OK
export default {
	async message() {
		for (const url of ["http://127.0.0.1:10025/", "http://169.254.169.254/latest/meta-data", "http://10.0.0.1/", "https://example.org/",
			"http://[::1]:25/", "file:///etc/passwd", "ftp://127.0.0.1/", "http://localhost/", "http://0x7f000001/", "http://2130706433:10025/"]) {
			console.log("trying:", url)
			try {
				const r = await fetch(url)
				console.log("BROKE:", url, r.status)
			} catch (e) { console.log("held:", String(e)) }
		}
		for (const url of ["https://example.org/x.js", "http://127.0.0.1:10025/x.js"]) {
			try {
				await import(url)
				console.log("BROKE: import of", url)
			} catch (e) { console.log("held:", String(e)) }
		}
		for (const name of ["WebSocket", "XMLHttpRequest", "EventSource", "navigator", "WebTransport", "RTCPeerConnection"])
			if (globalThis[name]) console.log("BROKE: there is", name)
	},
}
