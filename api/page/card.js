// One task on the page. Text from outside is only ever set as textContent.

const WORDS = {
  pending: ["…", "waits"],
  processing: ["▶", "runs"],
  completed: ["✓", "completed"],
  failed: ["✕", "failed"],
  cancelled: ["■", "cancelled"],
}
const LONGEST_TITLE = 160

export const isOver = task => ["completed", "failed", "cancelled"].includes(task.status)
export const word = task => (task.cancel_requested && !isOver(task) ? "is being cancelled" : WORDS[task.status][1])

export function title(task) {
  const text = String(task.arguments.prompt ?? (task.arguments.path ? "A recording" : task.task))
  return text.length > LONGEST_TITLE ? `${text.slice(0, LONGEST_TITLE)}…` : text
}

export class Card {
  constructor(task, { onCancel, onReplay }) {
    this.element = document.getElementById("task-template").content.cloneNode(true).firstElementChild
    this.element.id = `task-${task.id}`
    const find = selector => this.element.querySelector(selector)
    this.parts = Object.fromEntries(
      ["h3", "progress", ".sign", ".word", ".percent", ".step", ".text", ".error", ".about", ".cancel", ".replay"]
        .map(selector => [selector.replace(".", ""), find(selector)]),
    )
    this.parts.bar = find("progress")
    this.parts.progress = find(".progress")
    this.parts.cancel.addEventListener("click", onCancel)
    this.parts.replay.addEventListener("click", onReplay)
    this.parts.h3.id = `title-${task.id}`
    for (const part of ["text", "bar"]) this.parts[part].setAttribute("aria-labelledby", this.parts.h3.id)
    for (const part of ["cancel", "replay"]) this.parts[part].setAttribute("aria-describedby", this.parts.h3.id)
    this.show(task)
  }

  show(task) {
    this.task = task
    const parts = this.parts
    const running = task.status === "processing"
    this.element.dataset.status = task.status
    parts.h3.textContent = title(task)
    parts.sign.textContent = WORDS[task.status][0]
    parts.word.textContent = word(task)
    parts.progress.hidden = !running
    this.progress(task.percent, task.note || (isOver(task) ? "" : task.step))
    parts.step.classList.toggle("note", Boolean(task.note))
    parts.error.hidden = !task.error
    parts.error.textContent = task.error ?? ""
    parts.cancel.hidden = isOver(task)
    parts.cancel.disabled = task.cancel_requested
    parts.replay.hidden = !["failed", "cancelled"].includes(task.status)
    const runs = task.runs > 1 ? `, run ${task.runs} times` : ""
    parts.about.textContent = `${new Date(task.created_at).toLocaleString()}${runs}`
    if (task.status === "completed") this.setText(textOf(task.result))
  }

  fail(text) {
    this.parts.error.hidden = false
    this.parts.error.textContent = text
  }

  progress(percent, step) {
    this.parts.bar.value = percent
    this.parts.percent.textContent = `${percent} %`
    this.parts.step.textContent = step
  }

  setText(text) {
    this.parts.text.hidden = !text
    if (this.parts.text.textContent !== text) this.parts.text.textContent = text
  }

  addText(text) {
    const box = this.parts.text
    const atEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 4
    box.hidden = false
    box.append(text) // a string becomes a text node
    if (atEnd) box.scrollTop = box.scrollHeight
  }
}

function textOf(result) {
  if (typeof result === "string") return result
  if (typeof result?.text === "string") return result.text
  return result === null ? "" : JSON.stringify(result, null, 2)
}
