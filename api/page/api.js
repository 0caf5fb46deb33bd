// Calls of the API. An error is an Error whose message the user can act on.

async function call(path, options) {
  let answer
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options })
  } catch {
    throw new Error("The server does not answer. Is ./learn web running? Then try again.")
  }
  const body = await answer.json().catch(() => ({}))
  if (!answer.ok) throw new Error(body.detail ?? `The server answered ${answer.status}. Try again.`)
  return body
}

export const list = before =>
  call(before ? `/tasks?before=${encodeURIComponent(before)}` : "/tasks")

export const submit = (request, key) =>
  call("/tasks", {
    method: "POST",
    headers: { "Content-Type": "application/json", "Idempotency-Key": key },
    body: JSON.stringify(request),
  })

export const models = () => call("/models")
export const cancel = id => call(`/tasks/${id}/cancel`, { method: "POST" })
export const replay = id => call(`/tasks/${id}/replay`, { method: "POST" })
