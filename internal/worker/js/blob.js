(function ({ host, bytesOf }) {
  const contents = new WeakMap() // Blob → ArrayBuffer that nobody else holds
  const buffer = (value) => (typeof value === 'object' && value !== null ? contents.get(value) : undefined)

  function concatenate(parts) {
    const pieces = Array.from(parts, (p) => new Uint8Array(buffer(p) ?? bytesOf(typeof p === 'object' ? p : String(p), 'Blob: a part')))
    const all = new Uint8Array(pieces.reduce((n, p) => n + p.length, 0))
    let at = 0
    for (const piece of pieces) {
      all.set(piece, at)
      at += piece.length
    }
    return all.buffer
  }

  class Blob {
    constructor(parts = [], { type = '' } = {}) {
      contents.set(this, concatenate(parts))
      Object.defineProperty(this, 'type', { value: String(type).toLowerCase(), enumerable: true })
    }
    get size() {
      return contents.get(this).byteLength
    }
    slice(start, end, type = '') {
      return new Blob([contents.get(this).slice(start, end)], { type })
    }
    async arrayBuffer() {
      return contents.get(this).slice(0)
    }
    async bytes() {
      return new Uint8Array(contents.get(this).slice(0))
    }
    async text() {
      return host.decode(contents.get(this), false, false)
    }
  }

  class File extends Blob {
    constructor(parts, name, options = {}) {
      super(parts, options)
      this.name = String(name)
      this.lastModified = options.lastModified ?? Date.now()
    }
  }

  return { Blob, File, buffer }
})
