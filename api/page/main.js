// The page: a form, the list of the user's tasks, and a stream of events for those that run.

import * as api from "./api.js"
import { Card, isOver, title, word } from "./card.js"
import { Stream } from "./stream.js"

const LOOK_AGAIN = 2000 // milliseconds, for tasks without a stream, and those of other windows
const LARGEST_RECORDING = 200_000_000 // bytes; the server would cut the connection
const MOST_STREAMS = 3 // a browser opens six connections to one server, for all its windows

const cards = new Map() // by id, newest first in the list
const streams = new Map()
const cut = new Set() // ids of streams that are being reconnected
const at = id => document.getElementById(id)

// --- the list ---

function put(task, first) {
  const known = cards.get(task.id)
  if (known) return update(known, task)
  const card = new Card(task, { onCancel: () => act(api.cancel, task.id), onReplay: () => act(api.replay, task.id) })
  cards.set(task.id, card)
  at("tasks")[first ? "prepend" : "append"](card.element)
}

function update(card, task) {
  const before = word(card.task)
  card.show(task)
  if (word(task) !== before) announce(`${title(task)}: ${word(task)}`)
}

function announce(text) {
  at("announcement").textContent = text
}

async function refresh() {
  const tasks = await api.list()
  for (const task of [...tasks].reverse()) put(task, true)
  at("empty").hidden = cards.size > 0
  at("older").hidden ||= cards.size === 0
  follow()
  return tasks
}

async function act(call, id) {
  const card = cards.get(id)
  try {
    put(await call(id))
    if (call === api.replay) card.setText("")
    follow()
  } catch (error) {
    card.fail(error.message)
  }
  card.element.querySelector("button:not([hidden])")?.focus() // the one that was pressed may be gone
}

// A line over the list, for as long as something is wrong with the connection.
function say(text) {
  if (at("connection").textContent !== text) at("connection").textContent = text
}

// --- the streams ---

function follow() {
  const running = document.hidden ? [] : [...cards.values()].map(card => card.task).filter(task => !isOver(task))
  const wanted = new Set(running.sort((a, b) => (a.created_at < b.created_at ? 1 : -1)).slice(0, MOST_STREAMS).map(task => task.id))
  for (const id of streams.keys()) if (!wanted.has(id)) stop(id)
  for (const id of wanted) if (!streams.has(id)) streams.set(id, new Stream(id, handlers(id)))
}

function stop(id) {
  streams.get(id)?.close()
  streams.delete(id)
  connected(id, true)
}

function handlers(id) {
  const card = cards.get(id)
  return {
    task: task => update(card, task),
    progress: ({ percent, step }) => card.progress(percent, step),
    token: ({ text }) => card.addText(text),
    restart: () => card.setText(""),
    end: () => {
      stop(id)
      follow()
    },
    connected: is => connected(id, is),
  }
}

function connected(id, is = true) {
  cut[is ? "delete" : "add"](id)
  say(cut.size ? "The connection is cut. Trying again …" : "")
}

// --- the forms ---

function onSubmit(form, send) {
  let key = crypto.randomUUID() // the same until the server has answered: what is sent again is kept once
  form.addEventListener("submit", async event => {
    event.preventDefault()
    const button = form.querySelector("button")
    at("form-error").textContent = ""
    button.disabled = true
    try {
      put(await send(key), true)
      key = crypto.randomUUID()
      form.querySelector("textarea, input").value = ""
      at("empty").hidden = true
      announce("Submitted.")
      follow()
    } catch (error) {
      at("form-error").textContent = error.message
      form.querySelector("textarea, input").focus()
    } finally {
      button.disabled = false
    }
  })
  form.addEventListener("input", () => { key = crypto.randomUUID() }) // another request
}

onSubmit(at("text-form"), key => {
  const prompt = at("prompt").value.trim()
  if (!prompt) throw new Error("Write a prompt first.")
  return api.submit({ prompt, model: at("model").value }, key)
})

onSubmit(at("audio-form"), key => {
  const [file] = at("recording").files
  if (!file) throw new Error("Choose a recording first.")
  if (file.size > LARGEST_RECORDING) throw new Error("The recording is longer than 200 MB: choose a shorter one.")
  return api.upload(file, key)
})

at("prompt").addEventListener("keydown", event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("text-form").requestSubmit()
})

at("older").addEventListener("click", async () => {
  const last = [...cards.values()].map(card => card.task).sort((a, b) => (a.created_at < b.created_at ? -1 : 1))[0]
  const tasks = await api.list(last.id)
  for (const task of tasks) put(task, false)
  at("older").hidden = tasks.length < 20
})

// --- begin, and look again ---

async function lookAgain() {
  if (!document.hidden) {
    try {
      await refresh()
      connected()
    } catch (error) {
      say(error.message)
    }
  }
  setTimeout(lookAgain, LOOK_AGAIN)
}

document.addEventListener("visibilitychange", follow)
try {
  at("older").hidden = (await refresh()).length < 20
  for (const name of await api.models()) at("model").add(new Option(name))
} catch (error) {
  say(error.message)
}
setTimeout(lookAgain, LOOK_AGAIN)
