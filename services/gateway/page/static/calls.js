// Calls of the gateway: a request out, the events of its answer in.

/** @typedef {{task: string, fields: Record<string, any>, files: Record<string, Blob>}} Request */

/** A request that was refused, or failed. */
export class Refusal extends Error {
  /**
   * @param {string} message What was expected, what came, and what to do.
   * @param {string | null} field The field that it is about.
   */
  constructor(message, field = null) {
    super(message);
    this.field = field;
  }
}

/**
 * Sends a request and yields the events of its answer, the last of them `done`.
 * @param {Request} request
 * @param {string} key Credential; none if empty.
 * @param {AbortSignal} signal Cancels it.
 * @returns {AsyncGenerator<{name: string, data: any}>}
 */
export async function* painted(request, key, signal) {
  const answer = await fetch(`/v1/muse/${request.task}`, {
    method: "POST",
    signal,
    headers: {
      ...(key && { Authorization: `Bearer ${key}` }),
      ...(request.task === "generate" && { "Content-Type": "application/json" }),
    },
    body: request.task === "generate" ? JSON.stringify(request.fields) : formOf(request),
  });
  if (!answer.ok || !answer.body) throw await refusalOf(answer);
  for await (const event of events(answer.body)) {
    if (event.name === "error") {
      throw new Refusal(event.data.error.message, event.data.error.param);
    }
    yield event;
    if (event.name === "done") return;
  }
  throw new Refusal("The answer was cut off before its end. Try again.");
}

/** @param {Request} request */
function formOf({ fields, files }) {
  const form = new FormData();
  for (const [name, file] of Object.entries(files)) form.append(name, file, `${name}.png`);
  for (const [name, value] of Object.entries(fields)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      form.append(name, typeof each === "object" ? JSON.stringify(each) : String(each));
    }
  }
  return form;
}

/** @param {Response} answer */
async function refusalOf(answer) {
  const said = await answer.json().catch(() => null);
  if (!said?.error) return new Refusal(`The gateway answered ${answer.status} without a reason.`);
  const after = answer.headers.get("retry-after");
  const hint = after ? ` Try again in ${after} s.` : "";
  return new Refusal(said.error.message + hint, said.error.param);
}

/**
 * Yields server-sent events; comments are left out.
 * @param {ReadableStream<Uint8Array>} body
 */
export async function* events(body) {
  const reader = body.getReader(), decoder = new TextDecoder();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (text + decoder.decode(value, { stream: true })).split("\n\n");
      text = parts.pop() ?? "";
      for (const part of parts) {
        const field = (/** @type {string} */ name) =>
          part.split("\n").filter((line) => line.startsWith(`${name}:`))
            .map((line) => line.slice(name.length + 1).trim()).join("\n");
        if (field("data")) yield { name: field("event"), data: JSON.parse(field("data")) };
      }
    }
  } finally {
    await reader.cancel();
  }
}

/**
 * @param {string} base64
 * @returns {Blob}
 */
export function pictureOf(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: "image/png" });
}
