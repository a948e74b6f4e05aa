// URL and URLSearchParams after the WHATWG URL Standard. Names with other than ASCII letters go through host.domain (IDNA).
(function ({ host, load }) {
  const ports = new Map(Object.entries({ 'http:': '80', 'https:': '443', 'ws:': '80', 'wss:': '443', 'ftp:': '21', 'file:': '' }))
  const encoder = new (load('text').TextEncoder)()

  const percent = (c) => Array.from(encoder.encode(c), (b) => `%${b.toString(16).toUpperCase().padStart(2, '0')}`).join('')
  const escape = (text, set) => text.toWellFormed().replace(set, percent)
  const inFragment = /[\0-\x20"<>`\x7f-\u{10ffff}]/gu
  const inQuery = /[\0-\x20"#<>\x7f-\u{10ffff}]/gu
  const inSpecialQuery = /[\0-\x20"#<>'\x7f-\u{10ffff}]/gu
  const inPath = /[\0-\x20"#<>?^`{}\x7f-\u{10ffff}]/gu
  const inUserinfo = /[\0-\x20"#<>?^`{}/:;=@[\\\]|\x7f-\u{10ffff}]/gu
  const inOpaque = /[\0-\x1f\x7f-\u{10ffff}]/gu
  const inForm = /[^A-Za-z0-9*\-._ ]/gu

  function unescape(text) {
    if (!text.includes('%')) return text
    const bytes = []
    const source = encoder.encode(text)
    for (let i = 0; i < source.length; i++) {
      const hex = String.fromCharCode(source[i + 1], source[i + 2])
      const escaped = source[i] === 0x25 && /^[0-9A-Fa-f]{2}$/.test(hex)
      bytes.push(escaped ? parseInt(hex, 16) : source[i])
      if (escaped) i += 2
    }
    return host.decode(new Uint8Array(bytes).buffer, false, true)
  }

  function number(part) {
    if (/^0[xX][0-9A-Fa-f]*$/.test(part)) return parseInt(part.slice(2) || '0', 16)
    if (/^0[0-7]+$/.test(part)) return parseInt(part, 8)
    return /^[0-9]+$/.test(part) ? parseInt(part, 10) : NaN
  }

  // The dotted form of a host whose last label is a number; other hosts are returned as they are.
  function ipv4(name) {
    const parts = name.replace(/\.$/, '').split('.')
    if (!/^([0-9]+|0[xX][0-9A-Fa-f]*)$/.test(parts.at(-1))) return name
    const numbers = parts.map(number)
    const last = numbers.pop()
    if (parts.length > 4 || numbers.some((n) => !(n <= 255)) || !(last < 256 ** (4 - numbers.length))) throw new TypeError('not an IPv4 address')
    const value = numbers.reduce((sum, n, i) => sum + n * 256 ** (3 - i), last)
    return [24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256).join('.')
  }

  function parseHost(text, special) {
    if (text.startsWith('[')) {
      if (!text.endsWith(']')) throw new TypeError('the [ of the host is not closed')
      return `[${host.ipv6(text.slice(1, -1))}]`
    }
    if (!special) {
      if (/[\0\t\n\r #/<>?@[\\\]^|]/.test(text)) throw new TypeError('a character that a host may not hold')
      return escape(text, inOpaque)
    }
    const name = host.domain(unescape(text))
    if (name === '' || /[\0-\x20"#%/:<>?@[\\\]^`{|}\x7f]/.test(name)) throw new TypeError('not a host')
    return ipv4(name)
  }

  function parsePort(text, protocol) {
    if (text === '') return ''
    if (!/^[0-9]+$/.test(text) || Number(text) > 65535) throw new TypeError('not a port')
    const port = String(Number(text))
    return port === ports.get(protocol) ? '' : port
  }

  function parseAuthority(url, text) {
    const at = text.lastIndexOf('@')
    if (at >= 0) {
      const [, user, , password = ''] = /^([^:]*)(:(.*))?$/s.exec(text.slice(0, at))
      url.username = escape(user, inUserinfo)
      url.password = escape(password, inUserinfo)
    }
    const [, name, , port = ''] = /^(\[[^\]]*\]|[^:]*)(:(.*))?$/s.exec(text.slice(at + 1)) ?? []
    if (name === undefined) throw new TypeError('not a host')
    if (name === '' && ((url.special && url.protocol !== 'file:') || at >= 0 || port !== '')) throw new TypeError('the host is missing')
    url.hostname = name === '' ? '' : parseHost(name, url.special)
    if (url.protocol === 'file:' && url.hostname === 'localhost') url.hostname = ''
    url.port = parsePort(port, url.protocol)
  }

  // path is split at slashes, dot segments are resolved.
  function normalize(path, special) {
    const segments = (special ? path.replaceAll('\\', '/') : path).split('/')
    const out = []
    segments.forEach((segment, i) => {
      const last = i === segments.length - 1
      const dots = segment.replace(/%2e/gi, '.')
      if (dots === '..') {
        if (out.length > 1) out.pop()
        if (last) out.push('')
      } else if (dots === '.') {
        if (last) out.push('')
      } else {
        out.push(escape(segment, inPath))
      }
    })
    return out.join('/')
  }

  const blank = (protocol) => ({ protocol, special: ports.has(protocol), username: '', password: '', hostname: null, port: '', pathname: '', search: '', hash: '', opaque: false })
  const query = (text, special) => (text ? `?${escape(text, special ? inSpecialQuery : inQuery)}` : '')

  function splitTail(url, text) {
    const [, path, , search, , hash] = /^([^?#]*)(\?([^#]*))?(#(.*))?$/s.exec(text)
    url.search = query(search, url.special)
    url.hash = hash ? `#${escape(hash, inFragment)}` : ''
    return { path, hasSearch: search !== undefined }
  }

  // What follows the scheme: authority and path, path, or an opaque path.
  function parseRest(url, text) {
    const { path } = splitTail(url, text)
    const slashes = url.special ? (url.protocol === 'file:' ? /^[/\\]{2}/ : /^[/\\]*/) : /^\/\//
    if (slashes.test(path)) {
      const [, authority, rest] = (url.special ? /^([^/\\]*)(.*)$/s : /^([^/]*)(.*)$/s).exec(path.replace(slashes, ''))
      parseAuthority(url, authority)
      url.pathname = normalize(rest || (url.special ? '/' : ''), url.special)
    } else if (url.special || path.startsWith('/')) {
      url.hostname = url.special ? '' : null
      url.pathname = normalize(/^[/\\]/.test(path) ? path : `/${path}`, url.special)
    } else {
      url.opaque = true
      url.pathname = escape(path, inOpaque)
    }
    return url
  }

  function parseRelative(text, base) {
    if (base.opaque && !text.startsWith('#')) throw new TypeError('the base cannot be resolved against')
    const url = { ...base }
    const { path, hasSearch } = splitTail(url, text)
    const slash = base.special ? /^[/\\]/ : /^\//
    if (slash.test(path) && slash.test(path.slice(1))) return parseRest(blank(base.protocol), text)
    if (path === '') url.search = hasSearch ? url.search : base.search
    else if (slash.test(path)) url.pathname = normalize(path, base.special)
    else url.pathname = normalize(base.pathname.replace(/[^/]*$/, '') + path, base.special)
    return url
  }

  function parse(input, base) {
    const text = input.replace(/^[\0-\x20]+|[\0-\x20]+$/g, '').replace(/[\t\n\r]/g, '')
    const scheme = /^([A-Za-z][A-Za-z0-9+.-]*):/.exec(text)
    if (!scheme) {
      if (!base) throw new TypeError('it is relative and there is no base')
      return parseRelative(text, base)
    }
    const url = blank(scheme[0].toLowerCase())
    const rest = text.slice(scheme[0].length)
    if (url.special && base?.protocol === url.protocol && !/^[/\\]/.test(rest)) return parseRelative(rest, base)
    return parseRest(url, rest)
  }

  class URLSearchParams {
    #pairs = []
    #changed
    constructor(init = '', changed = () => {}) {
      this.#changed = changed
      if (typeof init === 'string') this.#read(init.replace(/^\?/, ''))
      else for (const [k, v] of init[Symbol.iterator] ? init : Object.entries(init)) this.#pairs.push([String(k), String(v)])
    }
    #read(text) {
      const plain = (s) => unescape(s.replaceAll('+', ' '))
      for (const pair of text.split('&')) {
        if (pair === '') continue
        const at = (pair + '=').indexOf('=')
        this.#pairs.push([plain(pair.slice(0, at)), plain(pair.slice(at + 1))])
      }
    }
    static isSearchParams(value) {
      return typeof value === 'object' && value !== null && #pairs in value
    }
    get size() {
      return this.#pairs.length
    }
    append(name, value) {
      this.#pairs.push([String(name), String(value)])
      this.#changed(this)
    }
    delete(name, value) {
      this.#pairs = this.#pairs.filter(([k, v]) => k !== String(name) || (value !== undefined && v !== String(value)))
      this.#changed(this)
    }
    get(name) {
      return this.#pairs.find(([k]) => k === String(name))?.[1] ?? null
    }
    getAll(name) {
      return this.#pairs.filter(([k]) => k === String(name)).map(([, v]) => v)
    }
    has(name, value) {
      return this.#pairs.some(([k, v]) => k === String(name) && (value === undefined || v === String(value)))
    }
    set(name, value) {
      const pair = this.#pairs.find(([k]) => k === String(name))
      if (!pair) return this.append(name, value)
      pair[1] = String(value)
      this.#pairs = this.#pairs.filter((p) => p === pair || p[0] !== pair[0])
      this.#changed(this)
    }
    sort() {
      this.#pairs.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
      this.#changed(this)
    }
    forEach(callback, self) {
      for (const [k, v] of this) callback.call(self, v, k, this)
    }
    entries() {
      return this.#pairs.map((p) => [...p]).values()
    }
    keys() {
      return this.#pairs.map(([k]) => k).values()
    }
    values() {
      return this.#pairs.map(([, v]) => v).values()
    }
    [Symbol.iterator]() {
      return this.entries()
    }
    toString() {
      const form = (s) => escape(s, inForm).replaceAll(' ', '+')
      return this.#pairs.map(([k, v]) => `${form(k)}=${form(v)}`).join('&')
    }
  }

  class URL {
    #url
    #params
    constructor(input, base) {
      try {
        this.#url = parse(String(input), base === undefined ? undefined : parse(String(base)))
      } catch (e) {
        throw Object.assign(new TypeError(`Invalid URL: ${input}: ${e.message}`), { code: 'ERR_INVALID_URL' })
      }
    }
    static canParse(input, base) {
      return URL.parse(input, base) !== null
    }
    static parse(input, base) {
      try {
        return new URL(input, base)
      } catch {
        return null
      }
    }
    get protocol() {
      return this.#url.protocol
    }
    get username() {
      return this.#url.username
    }
    get password() {
      return this.#url.password
    }
    get hostname() {
      return this.#url.hostname ?? ''
    }
    get port() {
      return this.#url.port
    }
    get host() {
      return this.hostname + (this.port && `:${this.port}`)
    }
    get origin() {
      return this.#url.special && this.protocol !== 'file:' ? `${this.protocol}//${this.host}` : 'null'
    }
    get pathname() {
      return this.#url.pathname
    }
    get search() {
      return this.#url.search
    }
    get hash() {
      return this.#url.hash
    }
    get href() {
      const { protocol, username, password, hostname, pathname, search, hash } = this.#url
      const user = username || password ? `${username}${password && `:${password}`}@` : ''
      const authority = hostname === null ? (pathname.startsWith('//') ? '/.' : '') : `//${user}${this.host}`
      return `${protocol}${authority}${pathname}${search}${hash}`
    }
    get searchParams() {
      this.#params ??= new URLSearchParams(this.search, (params) => (this.#url.search = params.size > 0 ? `?${params}` : ''))
      return this.#params
    }
    set href(value) {
      this.#url = new URL(value).#url
      this.#params = undefined
    }
    set protocol(value) {
      const protocol = `${String(value).replace(/:.*$/s, '').toLowerCase()}:`
      if (!/^[a-z][a-z0-9+.-]*:$/.test(protocol) || ports.has(protocol) !== this.#url.special) return
      Object.assign(this.#url, { protocol, port: this.port === ports.get(protocol) ? '' : this.port })
    }
    set username(value) {
      if (this.hostname) this.#url.username = escape(String(value), inUserinfo)
    }
    set password(value) {
      if (this.hostname) this.#url.password = escape(String(value), inUserinfo)
    }
    #setAuthority(text) {
      if (this.#url.opaque) return
      const { username, password } = this.#url
      const next = { ...this.#url }
      try {
        parseAuthority(next, text)
      } catch {
        return
      }
      this.#url = { ...next, username, password }
    }
    set host(value) {
      const name = String(value).replace(/[/?#\\@].*$/s, '')
      this.#setAuthority(/:[0-9]*$/.test(name) || !this.port ? name : `${name}:${this.port}`)
    }
    set hostname(value) {
      const name = String(value).replace(/[/?#\\@].*$/s, '')
      if (name.startsWith('[') || !name.includes(':')) this.#setAuthority(this.port ? `${name}:${this.port}` : name)
    }
    set port(value) {
      const [digits] = /^[0-9]*/.exec(String(value))
      if ((digits === '' && value !== '') || !this.hostname || Number(digits) > 65535) return
      this.#url.port = parsePort(digits, this.protocol)
    }
    set pathname(value) {
      if (this.#url.opaque) return
      const path = String(value)
      this.#url.pathname = normalize(/^[/\\]/.test(path) ? path : `/${path}`, this.#url.special)
    }
    set search(value) {
      this.#url.search = query(String(value).replace(/^\?/, ''), this.#url.special)
      this.#params = undefined
    }
    set hash(value) {
      const text = String(value).replace(/^#/, '')
      this.#url.hash = text && `#${escape(text, inFragment)}`
    }
    toString() {
      return this.href
    }
    toJSON() {
      return this.href
    }
  }

  return { URL, URLSearchParams, isSearchParams: URLSearchParams.isSearchParams }
})
