// The events of one running task. The browser reconnects by itself, and says with Last-Event-ID how far it was.

const AGAIN_AFTER = 3000 // milliseconds, after an answer that the browser does not try again

export class Stream {
  constructor(id, handlers) {
    this.id = id
    this.handlers = handlers
    this.open()
  }

  open() {
    this.source = new EventSource(`/tasks/${this.id}/events`)
    this.isNew = true // a new source begins with the first event, and so does the text
    this.source.onopen = () => {
      if (this.isNew) this.handlers.restart()
      this.isNew = false
      this.handlers.connected(true)
    }
    this.source.onerror = () => {
      this.handlers.connected(false)
      if (this.source.readyState === EventSource.CLOSED) this.timer = setTimeout(() => this.open(), AGAIN_AFTER)
    }
    for (const kind of ["task", "progress", "token", "restart", "end"])
      this.source.addEventListener(kind, event => this.handlers[kind]?.(JSON.parse(event.data)))
  }

  close() {
    clearTimeout(this.timer)
    this.source.close()
  }
}
