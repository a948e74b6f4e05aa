// Headers, Request and Response are thin: whole bodies, no streams. fetch itself waits for the egress proxy.
(function ({ host, load, bytesOf }) {
  const forbidden = /[^!#$%&'*+\-.^_`|~0-9A-Za-z]/

  class Headers {
    #values = new Map()
    constructor(init = []) {
      const pairs = init instanceof Headers || Array.isArray(init) ? init : Object.entries(init)
      for (const [name, value] of pairs) this.append(name, value)
    }
    #key(name) {
      const key = String(name).toLowerCase()
      if (key === '' || forbidden.test(key)) throw new TypeError(`Headers: not a header name: ${key}`)
      return key
    }
    append(name, value) {
      const key = this.#key(name)
      this.set(key, this.has(key) ? `${this.get(key)}, ${value}` : value)
    }
    set(name, value) {
      const text = String(value).trim()
      if (/[\0\r\n]/.test(text)) throw new TypeError('Headers: a value may not hold NUL, CR or LF')
      this.#values.set(this.#key(name), text)
    }
    get(name) {
      return this.#values.get(this.#key(name)) ?? null
    }
    has(name) {
      return this.#values.has(this.#key(name))
    }
    delete(name) {
      this.#values.delete(this.#key(name))
    }
    forEach(callback, self) {
      for (const [name, value] of this) callback.call(self, value, name, this)
    }
    entries() {
      return [...this.#values].sort(([a], [b]) => (a < b ? -1 : 1)).values()
    }
    keys() {
      return [...this.#values.keys()].sort().values()
    }
    values() {
      return Array.from(this, ([, value]) => value).values()
    }
    [Symbol.iterator]() {
      return this.entries()
    }
  }

  class Body {
    #bytes
    bodyUsed = false
    setBody(body, headers) {
      if (body === undefined || body === null) return
      const type = typeof body === 'string' ? 'text/plain;charset=UTF-8' : load('url').isSearchParams(body) ? 'application/x-www-form-urlencoded;charset=UTF-8' : body.type
      this.#bytes = bytesOf(load('url').isSearchParams(body) ? String(body) : body, 'the body').slice(0)
      if (type && !headers.has('content-type')) headers.set('content-type', type)
    }
    async arrayBuffer() {
      if (this.bodyUsed) throw new TypeError('the body has already been read')
      this.bodyUsed = this.#bytes !== undefined
      return this.#bytes ?? new ArrayBuffer(0)
    }
    async bytes() {
      return new Uint8Array(await this.arrayBuffer())
    }
    async text() {
      return host.decode(await this.arrayBuffer(), false, false)
    }
    async json() {
      return JSON.parse(await this.text())
    }
    async blob() {
      return new Blob([await this.arrayBuffer()], { type: this.headers.get('content-type') ?? '' })
    }
  }

  class Request extends Body {
    constructor(input, init = {}) {
      super()
      this.url = new URL(input instanceof Request ? input.url : input).href
      this.method = String(init.method ?? input.method ?? 'GET').toUpperCase()
      this.headers = new Headers(init.headers ?? input.headers)
      this.signal = init.signal ?? input.signal ?? null
      if (init.body != null && /^(GET|HEAD)$/.test(this.method)) throw new TypeError(`a ${this.method} request has no body`)
      this.setBody(init.body, this.headers)
    }
  }

  class Response extends Body {
    constructor(body = null, { status = 200, statusText = '', headers } = {}) {
      super()
      if (status < 200 || status > 599) throw new RangeError('Response: the status must be 200 to 599')
      Object.assign(this, { status, statusText, headers: new Headers(headers), url: '', redirected: false, type: 'default' })
      this.setBody(body, this.headers)
    }
    get ok() {
      return this.status >= 200 && this.status <= 299
    }
    static json(data, init = {}) {
      const response = new Response(JSON.stringify(data), init)
      if (!new Headers(init.headers).has('content-type')) response.headers.set('content-type', 'application/json')
      return response
    }
    static error() {
      return Object.assign(new Response(), { type: 'error', status: 0 })
    }
  }

  async function fetch(input, init) {
    const { url } = new Request(input, init)
    throw new TypeError(`this bot has no network: fetch of ${url} was refused`)
  }

  return { fetch, Headers, Request, Response }
})
