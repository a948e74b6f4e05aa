// msg, env and ctx: what the author's handlers are given.
(function ({ host, call, bytesOf }) {
  let account = 0

  const viewtypes = { image: 'Image', audio: 'Audio', video: 'Video' }

  function fileData(file) {
    if (typeof file !== 'object' || file === null) throw new TypeError('file must be {name, data, type}')
    const blob = file.data === undefined && bytesOf(file, 'file.data')
    const name = file.name ?? ''
    const type = file.type ?? file.data?.type ?? ''
    const path = host.writeFile(String(name), blob || bytesOf(file.data, 'file.data'))
    const viewtype = type === 'image/gif' ? 'Gif' : viewtypes[String(type).split('/')[0]]
    return { file: path, filename: String(name), ...(viewtype && { viewtype }) }
  }

  // core's MessageData
  function messageData(content) {
    if (typeof content === 'string') return { text: content }
    if (typeof content !== 'object' || content === null || (content.text === undefined && content.file == null)) {
      throw new TypeError('a message must be a string or {text, file}')
    }
    const data = content.text === undefined ? {} : { text: String(content.text) }
    return content.file == null ? data : { ...data, ...fileData(content.file) }
  }

  // to is the id of a chat, a chat, or a contact
  async function send(to, content) {
    const error = new Error()
    const chatId = to instanceof Contact ? await call('create_chat_by_contact_id', [account, to.id], error) : (to?.id ?? to)
    return new Sent(await call('send_msg', [account, chatId, messageData(content)], error))
  }

  const reactions = (emoji) => (emoji === undefined || emoji === '' ? [] : [].concat(emoji).map(String))
  const react = (id, emoji, error = new Error()) => call('send_reaction', [account, id, reactions(emoji)], error).then(() => {})

  class Sent {
    constructor(id) {
      this.id = id
    }
    edit(text) {
      return call('send_edit_request', [account, this.id, String(text)]).then(() => {})
    }
    delete() {
      return call('delete_messages_for_all', [account, [this.id]]).then(() => {})
    }
    react(emoji) {
      return react(this.id, emoji)
    }
  }

  class Contact {
    constructor(core) {
      this.id = core.id
      this.name = core.displayName ?? core.name ?? ''
      this.address = core.address ?? ''
      this.fingerprint = core.fingerprint ?? null
      this.isBot = core.isBot ?? false
      this.isSelf = core.id === 1
      Object.defineProperty(this, 'core', { value: core })
    }
  }

  class Chat {
    constructor(core) {
      this.id = core.id
      this.name = core.name ?? ''
      this.isGroup = core.chatType === 'Group'
      Object.defineProperty(this, 'core', { value: core })
    }
    async members() {
      const error = new Error()
      const ids = await call('get_chat_contacts', [account, this.id], error)
      const contacts = await Promise.all(ids.map((id) => call('get_contact', [account, id], error)))
      return contacts.map((c) => new Contact(c))
    }
    send(content) {
      return send(this.id, content)
    }
  }

  class IncomingFile {
    constructor({ name, mime, size }) {
      this.name = name
      this.mime = mime
      this.size = size
    }
    async bytes() {
      return new Uint8Array(host.readAttachment())
    }
    async text() {
      return host.decode(host.readAttachment(), false, false)
    }
    async json() {
      return JSON.parse(await this.text())
    }
  }

  class Message {
    constructor({ message, chat, contact, attachment }) {
      this.id = message.id
      this.text = message.text ?? ''
      this.timestamp = message.timestamp
      this.chat = chat && new Chat(chat)
      this.contact = contact && new Contact(contact)
      this.file = attachment ? new IncomingFile(attachment) : null
      this.quote = message.quote ? { id: message.quote.messageId ?? null, text: message.quote.text } : null
      Object.defineProperty(this, 'core', { value: message })
    }
    reply(content) {
      return send(this.chat.id, content)
    }
    react(emoji) {
      return react(this.id, emoji)
    }
  }

  class Update {
    constructor({ update, message, chat, contact }) {
      Object.assign(this, update)
      this.instanceId = update.instanceId ?? update.msgId ?? message?.id
      this.chat = chat ? new Chat(chat) : null
      this.contact = contact ? new Contact(contact) : null
    }
    async reply(content) {
      if (!this.chat) throw new Error('reply: this update has no chat')
      return send(this.chat.id, content)
    }
    send(update, description = '') {
      const data = typeof update === 'string' ? update : JSON.stringify(update)
      return call('send_webxdc_status_update', [account, this.instanceId, data, description]).then(() => {})
    }
  }

  const storage = {
    async get(key) {
      const bytes = host.storageGet(key)
      return bytes === null ? null : host.decode(bytes, false, false)
    },
    async getBytes(key) {
      const bytes = host.storageGet(key)
      return bytes === null ? null : new Uint8Array(bytes)
    },
    async put(key, value) {
      host.storagePut(key, bytesOf(value, 'storage.put: the value'))
    },
    async delete(key) {
      return host.storageDelete(key)
    },
    async list(prefix = '') {
      return JSON.parse(host.storageList(String(prefix)))
    },
  }

  function environment(job) {
    return {
      bot: Object.freeze({ ...job.bot }),
      storage,
      send,
      async chat(id) {
        return new Chat(await call('get_basic_chat_info', [account, id]))
      },
      async contact(id) {
        return new Contact(await call('get_contact', [account, id]))
      },
      rpc: (method, ...params) => call(method, params),
    }
  }

  function subjectOf(job) {
    switch (job.event) {
      case 'message':
        return new Message(job)
      case 'webxdc':
        return new Update(job)
      default:
        return { ...job.schedule }
    }
  }

  async function answer(event, subject, result) {
    if (result === undefined || result === null || result === '') return
    if (typeof result !== 'string') {
      host.log('warn: ', `the ${event} handler returned a value of type ${typeof result}: only a string is sent as the reply`)
    } else if (subject.chat) {
      await send(subject.chat.id, result)
    } else {
      throw new Error(`the ${event} handler returned a string, but there is no chat to send it to: use env.send(chatId, text)`)
    }
  }

  async function run(job, namespace) {
    account = job.account
    const handlers = namespace.default
    if (typeof handlers !== 'object' || handlers === null) throw new Error(host.noHandlers())
    const handler = handlers[job.event]
    if (handler === undefined && job.event === 'scheduled') {
      throw new Error(`${job.main} has no scheduled handler, and bot.toml has a [[schedule]]: export the one, or remove the other`)
    }
    if (handler === undefined) return host.log('', `${job.main} has no ${job.event} handler: nothing was run`)
    if (typeof handler !== 'function') throw new TypeError(`${job.event} must be a function`)
    const waits = []
    const ctx = { deadline: host.deadline(), waitUntil: (promise) => void waits.push(Promise.resolve(promise)) }
    const subject = subjectOf(job)
    host.entered(`${handler.fileName}:${handler.lineNumber}:${handler.columnNumber}`)
    await answer(job.event, subject, await handler.call(handlers, subject, environment(job), ctx))
    while (waits.length > 0) await waits.shift()
  }

  return { run }
})
