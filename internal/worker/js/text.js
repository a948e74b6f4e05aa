(function ({ host, bytesOf }) {
  class TextEncoder {
    get encoding() {
      return 'utf-8'
    }
    encode(text = '') {
      return new Uint8Array(host.encode(String(text)))
    }
    encodeInto(text, target) {
      let read = 0
      let written = 0
      for (const character of String(text)) {
        const bytes = this.encode(character)
        if (written + bytes.length > target.length) break
        target.set(bytes, written)
        written += bytes.length
        read += character.length
      }
      return { read, written }
    }
  }

  // The number of bytes at the end of bytes that begin a character and do not finish it.
  function unfinished(bytes) {
    for (let back = 1; back <= Math.min(3, bytes.length); back++) {
      const b = bytes[bytes.length - back]
      if (b < 0x80) return 0
      if (b >= 0xc0) return back < (b >= 0xf0 ? 4 : b >= 0xe0 ? 3 : 2) ? back : 0
    }
    return 0
  }

  class TextDecoder {
    #rest = new Uint8Array(0)
    #started = false
    constructor(label = 'utf-8', { fatal = false, ignoreBOM = false } = {}) {
      if (!/^\s*(utf-?8|unicode-1-1-utf-8)\s*$/i.test(label)) throw new RangeError(`TextDecoder: only utf-8 is supported, not ${label}`)
      Object.assign(this, { encoding: 'utf-8', fatal: Boolean(fatal), ignoreBOM: Boolean(ignoreBOM) })
    }
    decode(input = new Uint8Array(0), { stream = false } = {}) {
      const given = new Uint8Array(bytesOf(input, 'TextDecoder.decode: the input'))
      const bytes = new Uint8Array(this.#rest.length + given.length)
      bytes.set(this.#rest)
      bytes.set(given, this.#rest.length)
      const whole = stream ? bytes.length - unfinished(bytes) : bytes.length
      this.#rest = bytes.slice(whole)
      const text = host.decode(bytes.slice(0, whole).buffer, this.fatal, this.ignoreBOM || this.#started)
      this.#started = stream && (this.#started || whole > 0)
      return text
    }
  }

  function btoa(data) {
    const text = String(data)
    if (/[^\0-\xff]/.test(text)) throw new TypeError('btoa: the string has characters above U+00FF')
    return host.btoa(text)
  }

  return { TextEncoder, TextDecoder, btoa, atob: (data) => host.atob(String(data)) }
})
