(function ({ host, bytesOf }) {
  const integers = [Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array, BigInt64Array, BigUint64Array]

  function getRandomValues(array) {
    if (!integers.some((type) => array instanceof type)) throw new TypeError('getRandomValues: the argument must be an integer typed array')
    if (array.byteLength > 65536) throw new RangeError('getRandomValues: at most 65536 bytes at a time')
    new Uint8Array(array.buffer, array.byteOffset, array.byteLength).set(new Uint8Array(host.random(array.byteLength)))
    return array
  }

  function randomUUID() {
    const b = new Uint8Array(host.random(16))
    b[6] = (b[6] & 0x0f) | 0x40
    b[8] = (b[8] & 0x3f) | 0x80
    const hex = Array.from(b, (x) => x.toString(16).padStart(2, '0')).join('')
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')
  }

  const subtle = {
    async digest(algorithm, data) {
      return host.digest(String(algorithm?.name ?? algorithm).toUpperCase(), bytesOf(data, 'digest: the data'))
    },
  }

  return { crypto: { getRandomValues, randomUUID, subtle } }
})
