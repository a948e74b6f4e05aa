(function ({ load }) {
  const errors = { Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError }

  function refuse(value) {
    const { DOMException } = load('events')
    throw new DOMException(`structuredClone: a ${typeof value} cannot be cloned`, 'DataCloneError')
  }

  function cloneView(value, copy) {
    const buffer = copy(value.buffer)
    const length = value instanceof DataView ? value.byteLength : value.length
    return new value.constructor(buffer, value.byteOffset, length)
  }

  function cloneError(value, copy) {
    const error = new (errors[value.name] ?? Error)(value.message)
    error.stack = value.stack
    if ('cause' in value) error.cause = copy(value.cause)
    return error
  }

  function fill(target, value, copy) {
    if (value instanceof Map) for (const [k, v] of value) target.set(copy(k), copy(v))
    else if (value instanceof Set) for (const v of value) target.add(copy(v))
    else for (const key of Object.keys(value)) target[key] = copy(value[key])
    return target
  }

  function empty(value) {
    if (Array.isArray(value)) return new Array(value.length)
    if (value instanceof Map) return new Map()
    return value instanceof Set ? new Set() : {}
  }

  function whole(value, copy) {
    if (value instanceof Date) return new Date(value.getTime())
    if (value instanceof RegExp) return new RegExp(value.source, value.flags)
    if (value instanceof ArrayBuffer) return value.slice(0)
    if (ArrayBuffer.isView(value)) return cloneView(value, copy)
    if (value instanceof Error) return cloneError(value, copy)
    if (value instanceof Boolean || value instanceof Number || value instanceof String) return Object(value.valueOf())
    if (value instanceof Promise || value instanceof WeakMap || value instanceof WeakSet) refuse(value)
  }

  function structuredClone(value) {
    const seen = new Map()
    const copy = (v) => {
      if (typeof v === 'function' || typeof v === 'symbol') refuse(v)
      if (typeof v !== 'object' || v === null) return v
      if (seen.has(v)) return seen.get(v)
      const done = whole(v, copy)
      const target = done ?? empty(v)
      seen.set(v, target)
      return done ?? fill(target, v, copy)
    }
    return copy(value)
  }

  return { structuredClone }
})
