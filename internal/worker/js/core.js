// The worker's own half in JavaScript: calls to the host, timers, console, and the globals that are loaded when first used.
// It is called with the functions of host.go and returns what loop.go calls.
(function (host) {
  const { stringify, parse } = JSON
  const calls = new Map() // id → {method, resolve, reject, error}, error made where the author's code called
  const timers = new Map() // id → {callback, args, repeat, error}
  const loaded = new Map()

  function load(file) {
    if (!loaded.has(file)) loaded.set(file, host.load(file)(internals))
    return loaded.get(file)
  }

  function call(method, params, error = new Error()) {
    return new Promise((resolve, reject) => {
      if (typeof method !== 'string') throw new TypeError('rpc: the method must be a string')
      calls.set(host.send(method, stringify(params)), { method, resolve, reject, error })
    })
  }

  function settle(id, ok, text) {
    const { method, resolve, reject, error } = calls.get(id)
    calls.delete(id)
    const value = parse(text)
    if (ok) return resolve(value)
    error.message = `${method}: ${value.message}`
    error.code = value.code
    reject(error)
  }

  function setTimer(name, callback, delay, args, repeat) {
    if (typeof callback !== 'function') throw new TypeError(`${name}: the first argument must be a function`)
    const ms = Math.min(Math.max(Number(delay) || 0, repeat ? 1 : 0), 2 ** 31 - 1)
    const id = host.setTimer(ms, repeat)
    timers.set(id, { callback, args, repeat, error: new Error(name) })
    return id
  }

  function clearTimer(id) {
    if (timers.delete(id)) host.clearTimer(id)
  }

  function fire(id) {
    const { callback, args, repeat } = timers.get(id)
    if (!repeat) timers.delete(id)
    callback(...args)
  }

  // What the run waits for: the stacks of the first call and of the first timer, with their names.
  function waiting() {
    for (const { method, error } of calls.values()) return stringify([method, error.stack])
    for (const { error } of timers.values()) return stringify([error.message, error.stack])
    return '["",""]'
  }

  const text = (args) => (args.length === 1 && typeof args[0] === 'string' ? args[0] : load('inspect').format(args))
  const printer = (level) => (...args) => host.log(level, text(args))
  const counts = new Map()
  const clocks = new Map()
  const console = {
    log: printer(''),
    info: printer(''),
    debug: printer(''),
    warn: printer('warn: '),
    error: printer('error: '),
    trace: (...args) => host.log('', `${text(['Trace:', ...args])}\n${new Error().stack.replace(/^.*\n/, '').trimEnd()}`),
    dir: (value) => host.log('', text([value])),
    assert: (ok, ...args) => ok || host.log('error: ', text(['Assertion failed', ...args])),
    count(label = 'default') {
      counts.set(label, (counts.get(label) ?? 0) + 1)
      host.log('', `${label}: ${counts.get(label)}`)
    },
    time: (label = 'default') => void clocks.set(label, host.now()),
    timeEnd(label = 'default') {
      host.log('', `${label}: ${(host.now() - (clocks.get(label) ?? NaN)).toFixed(3)} ms`)
      clocks.delete(label)
    },
  }

  function define(name, value) {
    Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false })
  }

  function defineLazily(file, ...names) {
    for (const name of names) {
      Object.defineProperty(globalThis, name, {
        configurable: true,
        enumerable: false,
        get() {
          define(name, load(file)[name])
          return globalThis[name]
        },
        set: (value) => define(name, value),
      })
    }
  }

  // The bytes of a string, an ArrayBuffer, a view or a Blob, as an ArrayBuffer of their own.
  function bytesOf(data, what) {
    if (typeof data === 'string') return host.encode(data)
    if (data instanceof ArrayBuffer) return data
    if (ArrayBuffer.isView(data)) return data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength)
    const blob = loaded.get('blob')?.buffer(data)
    if (blob) return blob
    throw new TypeError(`${what} must be a string, an ArrayBuffer, a typed array or a Blob`)
  }

  const internals = { host, load, call, bytesOf }

  define('console', console)
  define('setTimeout', (callback, delay, ...args) => setTimer('setTimeout', callback, delay, args, false))
  define('setInterval', (callback, delay, ...args) => setTimer('setInterval', callback, delay, args, true))
  define('clearTimeout', clearTimer)
  define('clearInterval', clearTimer)
  define('queueMicrotask', (callback) => {
    if (typeof callback !== 'function') throw new TypeError('queueMicrotask: the argument must be a function')
    Promise.resolve().then(() => callback())
  })
  define('performance', { now: host.now, timeOrigin: Date.now() - host.now() })
  define('self', globalThis)
  defineLazily('text', 'TextEncoder', 'TextDecoder', 'atob', 'btoa')
  defineLazily('url', 'URL', 'URLSearchParams')
  defineLazily('clone', 'structuredClone')
  defineLazily('crypto', 'crypto')
  defineLazily('blob', 'Blob', 'File')
  defineLazily('events', 'DOMException', 'Event', 'CustomEvent', 'EventTarget', 'AbortController', 'AbortSignal')
  defineLazily('fetch', 'fetch', 'Headers', 'Request', 'Response')

  const { run } = load('handlers')
  return { settle, fire, waiting, start: (job, namespace) => run(parse(job), namespace) }
})
