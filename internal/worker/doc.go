// Package worker is the JavaScript worker: a process that runs one handler of a bot's script for one event and ends. It runs
// inside the sandbox, which is the boundary; the engine is not.
//
// # What the process needs
//
// Four directories: /bundle (the author's files), /storage (the bot's durable folder), /attachments (files of the message) and
// /tmp. Standard input and output carry the protocol, standard error what the script logs. It needs no /proc, /dev or /etc, opens
// no socket, starts no process, and follows no link out of those directories.
//
// # Protocol
//
// JSON Lines in UTF-8, each line an object, at most 16 MB long, in this order:
//
//	worker: {"method":"ready"}                     the engine is up: a worker can be started before there is a job
//	host:   {"job":{…}}                            see below
//	worker: {"method":"entered"}                   the handler is called now (not for check, nor without a handler)
//	worker: {"jsonrpc":"2.0","id":1,"method":"send_msg","params":[1,10,{"text":"hi"}]}
//	host:   {"jsonrpc":"2.0","id":1,"result":101}  or "error":{"code":-32000,"message":"…"}
//	worker: {"method":"done","params":{"status":"RE","message":"main.js:3:9: TypeError: …","stack":"at f (main.js:3:9)"}}
//
// Calls are JSON-RPC 2.0 requests with the method names and positional parameters of Delta Chat core; up to 1000 may be open, and
// the host may answer them in any order. A file to send is written to /tmp/out/<n>/<name> and named by that path in send_msg's
// MessageData {text, file, filename, viewtype}. After done the process ends.
//
// The job's keys:
//
//	event        "message", "webxdc", "scheduled" or "check"
//	main         path of the main module in the bundle
//	account      core's account id
//	deadline_ms  milliseconds, from the job's arrival, that the script may take; absent: 29000
//	heap         bytes of JavaScript heap; absent: 96 MB
//	bot          {name, address, version}
//	message      core's Message (event message; webxdc: optional)
//	chat         core's BasicChat (event message; webxdc: optional)
//	contact      core's Contact, the sender (optional)
//	attachment   {path: "/attachments/…", name, mime, size} or null
//	update       the webxdc update, with msgId, the id of the webxdc's message (event webxdc)
//	schedule     {cron, scheduledTime, lastRun} (event scheduled)
//
// The status in done, and the exit code:
//
//	OK  0    the handler resolved, every promise given to waitUntil too, and every call is answered
//	RE  1    the author's error; for check: the script has errors, a line each in message
//	TO  124  the deadline passed
//	XX  70   the host's fault or the worker's: no job, a malformed line, input that ended too early
//
// A process that ends without done has crashed or was killed. That is the only end of native code that never polls, such as
// Array(1e9).join(): the host kills a worker that outlives its deadline.
//
// check compiles main and everything that it imports statically and links it, without running any of it. It reports every syntax
// error, missing file and missing export, and a main module without a default export.
//
// # What authors write
//
// A main module whose default export has a function for each event that the bot handles:
//
//	export default {
//	  async message(msg, env, ctx) { return `You said: ${msg.text}` },
//	  async webxdc(update, env, ctx) {},
//	  async scheduled(event, env, ctx) {},
//	}
//
// A string that a handler returns is sent to the chat as the reply. An event without a handler is fine, and does nothing; but
// a schedule without one is an error.
// Each run starts afresh: what must last goes into env.storage.
//
// msg, a message to the bot:
//
//	id, text, timestamp         timestamp in seconds since 1970
//	chat                        {id, name, isGroup, members(), send(content)}; members() resolves to contacts
//	contact                     the sender: {id, name, address, fingerprint, isBot, isSelf}; fingerprint is null if the host gives none
//	file                        null or {name, mime, size, bytes(), text(), json()}; the functions return promises
//	quote                       null or {id, text} of the message quoted; id is null if it is not here any more
//	reply(content)              sends to the chat; resolves to what was sent
//	react("👍")                 reacts to the message; without an argument takes the reaction back
//	core                        the message as core gives it; contacts and chats have the same
//
// content is a string or {text, file}, file is {name, data, type} or a File; data is a string, an ArrayBuffer, a typed array or a
// Blob. An image/, audio/ or video/ type makes it a picture, a sound or a video in the chat. What was sent is {id, edit(text),
// delete(), react(emoji)}.
//
// update, what a webxdc app sent: the fields of the update (payload, info, summary, document, …), and instanceId, chat, contact,
// reply(content), send(update, description).
//
// event, of a schedule, with times in milliseconds since 1970:
//
//	cron                        the line in the manifest
//	scheduledTime               the instant that it named; the run is a little later, or much where the host was down
//	lastRun                     when the last run of the schedule that did not fail began; null: never
//
// env, the bot's surroundings:
//
//	bot                         {name, address, version}
//	storage.get(key)            resolves to a string, or null
//	storage.getBytes(key)       resolves to a Uint8Array, or null
//	storage.put(key, value)     value as data above
//	storage.delete(key)         resolves to whether there was one
//	storage.list(prefix)        resolves to the keys that begin with prefix, sorted
//	send(to, content)           as msg.reply, to a chat, to the chat of that id, or to a contact; what the host does not allow is rejected
//	chat(id), contact(id)       resolve to those of that id
//	rpc(method, ...params)      calls core's JSON-RPC; what the host does not allow is rejected with the reason
//
// A key is 1 to 200 bytes of text; "/" orders keys as in "chat/12/notes". Each value is a file in the bot's folder. Its name is the
// key with "/" written as "+" and everything but letters, digits, "-", "_", "." (not first) and what is beyond ASCII written as %XX.
// So a key of many special characters can be too long for a file name (255 bytes), which is an error.
// What a run stored counts only if the run succeeds.
//
// ctx:
//
//	waitUntil(promise)          the run goes on until promise is settled; its rejection fails the run
//	deadline                    when the run must be over, in milliseconds since 1970
//
// A run also waits for calls that were not awaited, but not for timers.
//
// Modules: import "./x.js" and "../x.js" inside the bundle, JSON modules, import() and await at the top level. There are no
// packages and no node: modules: copy what is needed into the bundle.
//
// Globals beyond ECMAScript: console, TextEncoder and TextDecoder (UTF-8), URL and URLSearchParams, structuredClone, setTimeout,
// setInterval, clearTimeout, clearInterval, queueMicrotask, atob, btoa, crypto (getRandomValues, randomUUID, subtle.digest),
// performance, Blob, File, Event, CustomEvent, EventTarget, AbortController, AbortSignal, DOMException, Headers, Request, Response,
// and fetch, which rejects as long as the bot has no network. There is no Intl.
//
// console writes to the run's log, a line for each call, further lines indented; warn and error are marked. A run may log 1 MB.
//
// Errors name the file, line and column of the author's script. A run fails on an error at the top level, in a handler or in a timer, on
// a rejected promise that nothing handles, on a promise that nothing is left to settle (at once, not at the deadline), and on reaching
// the heap limit if the script does not catch that. A thrown value that is no Error has no line: the handler's is given.
package worker
