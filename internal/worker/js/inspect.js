// How console writes values: close to Node's, bounded in depth and width.
(function () {
  const deepest = 4
  const widest = 100

  const quote = (s) => (s.includes("'") ? JSON.stringify(s) : `'${JSON.stringify(s).slice(1, -1).replace(/\\"/g, '"')}'`)
  const key = (k) => (typeof k === 'symbol' ? `[${String(k)}]` : /^[A-Za-z_$][\w$]*$/.test(k) ? k : quote(k))

  function primitive(v) {
    if (typeof v === 'string') return quote(v)
    if (typeof v === 'bigint') return `${v}n`
    if (typeof v === 'function') return `[${/^class\b/.test(Function.prototype.toString.call(v)) ? 'class' : 'Function'} ${v.name || '(anonymous)'}]`
    return Object.is(v, -0) ? '-0' : String(v)
  }

  function list(values, more) {
    const shown = values.slice(0, widest)
    if (more > widest) shown.push(`... ${more - widest} more`)
    return shown
  }

  function wrap(prefix, open, items, close) {
    const line = items.join(', ')
    if (items.length === 0) return `${prefix}${open}${close}`
    if (line.length <= 72 && !line.includes('\n')) return `${prefix}${open} ${line} ${close}`
    return `${prefix}${open}\n${items.map((i) => `  ${i.replaceAll('\n', '\n  ')}`).join(',\n')}\n${close}`
  }

  function property(object, k, show) {
    const d = Object.getOwnPropertyDescriptor(object, k)
    return `${key(k)}: ${d && 'value' in d ? show(d.value) : '[Getter]'}`
  }

  function compound(v, show) {
    const name = v.constructor?.name ?? '[Object: null prototype]'
    const named = name === 'Object' || name === 'Array' ? '' : `${name} `
    if (ArrayBuffer.isView(v) && !(v instanceof DataView)) return wrap(`${name}(${v.length}) `, '[', list(Array.from(v.subarray(0, widest), String), v.length), ']')
    if (v instanceof ArrayBuffer) return `ArrayBuffer { byteLength: ${v.byteLength} }`
    if (Array.isArray(v)) return wrap(named, '[', list(v.slice(0, widest).map(show), v.length), ']')
    if (v instanceof Map) return wrap(`Map(${v.size}) `, '{', list([...v].map(([k, x]) => `${show(k)} => ${show(x)}`), v.size), '}')
    if (v instanceof Set) return wrap(`Set(${v.size}) `, '{', list([...v].map(show), v.size), '}')
    if (v instanceof Promise) return 'Promise {}'
    const keys = Object.keys(v)
    return wrap(named, '{', list(keys.slice(0, widest).map((k) => property(v, k, show)), keys.length), '}')
  }

  // The stack without the worker's own frames, and without what called them.
  const authorStack = (error) =>
    String(error.stack ?? '')
      .replace(/^.*\(mayfly:.*\n?/gm, '')
      .replace(/( *at .*\(native\)\n)*$/, '')

  function inspect(value, depth = 0, above = []) {
    if (typeof value !== 'object' || value === null) return primitive(value)
    if (value instanceof Error) return `${value.name}: ${value.message}\n${authorStack(value)}`.trimEnd()
    if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'Invalid Date' : value.toISOString()
    if (value instanceof RegExp) return String(value)
    if (above.includes(value)) return '[Circular]'
    if (depth > deepest) return Array.isArray(value) ? '[Array]' : '[Object]'
    return compound(value, (v) => inspect(v, depth + 1, [...above, value]))
  }

  const directives = {
    s: (v) => (typeof v === 'object' && v !== null ? inspect(v) : String(v)),
    d: (v) => (typeof v === 'object' ? 'NaN' : String(Number(v))),
    i: (v) => (typeof v === 'object' ? 'NaN' : String(parseInt(v, 10))),
    f: (v) => String(parseFloat(v)),
    j: (v) => JSON.stringify(v),
    o: (v) => inspect(v),
    O: (v) => inspect(v),
  }

  function format(args) {
    const rest = [...args]
    let start = []
    if (typeof rest[0] === 'string' && rest.length > 1) {
      start = [rest.shift().replace(/%[sdifjoO%]/g, (d) => (d === '%%' ? '%' : rest.length > 0 ? directives[d[1]](rest.shift()) : d))]
    }
    return [...start, ...rest.map((v) => (typeof v === 'string' ? v : inspect(v)))].join(' ')
  }

  return { format }
})
