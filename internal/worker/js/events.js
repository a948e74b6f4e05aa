(function ({ host }) {
  class DOMException extends Error {
    #name
    constructor(message = '', name = 'Error') {
      super(message)
      this.#name = String(name)
    }
    get name() {
      return this.#name
    }
  }

  class Event {
    constructor(type, { bubbles = false, cancelable = false } = {}) {
      Object.assign(this, { type: String(type), bubbles, cancelable, defaultPrevented: false, target: null, currentTarget: null, timeStamp: host.now() })
    }
    preventDefault() {
      if (this.cancelable) this.defaultPrevented = true
    }
    stopImmediatePropagation() {
      this.stopped = true
    }
    stopPropagation() {}
  }

  class CustomEvent extends Event {
    constructor(type, options = {}) {
      super(type, options)
      this.detail = options.detail ?? null
    }
  }

  class EventTarget {
    #listeners = []
    addEventListener(type, listener, options = {}) {
      if (!listener || this.#listeners.some((l) => l.type === type && l.listener === listener)) return
      const once = typeof options === 'object' && Boolean(options.once)
      this.#listeners.push({ type, listener, once })
      options.signal?.addEventListener('abort', () => this.removeEventListener(type, listener))
    }
    removeEventListener(type, listener) {
      this.#listeners = this.#listeners.filter((l) => l.type !== type || l.listener !== listener)
    }
    dispatchEvent(event) {
      event.target = event.currentTarget = this
      this[`on${event.type}`]?.call?.(this, event)
      for (const { type, listener, once } of [...this.#listeners]) {
        if (type !== event.type || event.stopped) continue
        if (once) this.removeEventListener(type, listener)
        typeof listener === 'function' ? listener.call(this, event) : listener.handleEvent(event)
      }
      return !event.defaultPrevented
    }
  }

  class AbortSignal extends EventTarget {
    aborted = false
    reason = undefined
    onabort = null
    throwIfAborted() {
      if (this.aborted) throw this.reason
    }
    static abort(reason) {
      const controller = new AbortController()
      controller.abort(reason)
      return controller.signal
    }
    static timeout(ms) {
      const controller = new AbortController()
      setTimeout(() => controller.abort(new DOMException('The operation timed out', 'TimeoutError')), ms)
      return controller.signal
    }
    static any(signals) {
      const controller = new AbortController()
      for (const signal of signals) {
        if (signal.aborted) controller.abort(signal.reason)
        else signal.addEventListener('abort', () => controller.abort(signal.reason), { once: true })
      }
      return controller.signal
    }
  }

  class AbortController {
    signal = new AbortSignal()
    abort(reason = new DOMException('The operation was aborted', 'AbortError')) {
      if (this.signal.aborted) return
      Object.assign(this.signal, { aborted: true, reason })
      this.signal.dispatchEvent(new Event('abort'))
    }
  }

  return { DOMException, Event, CustomEvent, EventTarget, AbortController, AbortSignal }
})
