// The request that was sent, as a program that sends it again.

/** @typedef {import("./calls.js").Request} Request */

const METHODS = { generate: "generate", inpaint: "inpaint", outpaint: "outpaint",
  "mask-free-edit": "mask_free_edit", vary: "vary" };
const EDITS = { inpaint: "inpaint", outpaint: "outpaint", "mask-free-edit": "mask_free_edit",
  vary: "vary" };
const OF_EDITS = ["left_px", "top_px", "right_px", "bottom_px", "iterations", "strength"];

/** What matters of the fields: not how the page follows them. @param {Request} request */
function asked({ fields }) {
  const { stream, preview_every, ...rest } = fields;
  return rest;
}

/** @param {string} text */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** @param {Request} request @param {string} origin Of the gateway. */
export function curl(request, origin) {
  const fields = asked(request), url = `${origin}/v1/muse/${request.task}`;
  if (request.task === "generate") {
    return `curl -s ${url} -H 'Content-Type: application/json' \\\n  -d ${quoted(JSON.stringify(fields))}`;
  }
  const parts = Object.keys(request.files).map((name) => `-F ${name}=@${name}.png`);
  for (const [name, value] of Object.entries(fields)) {
    const text = typeof value === "object" ? JSON.stringify(value) : String(value);
    parts.push(`--form-string ${quoted(`${name}=${text}`)}`);
  }
  return `curl -s ${url} \\\n  ${parts.join(" \\\n  ")}`;
}

/** @param {Request} request */
export function python(request) {
  const { prompt, ...rest } = asked(request);
  const literal = (/** @type {any} */ value) => JSON.stringify(value);
  const named = Object.entries(rest).map(([name, value]) =>
    typeof value === "object"
      ? `${name}=sampling(${Object.entries(value).map(([key, each]) => `${key}=${each}`).join(", ")})`
      : `${name}=${literal(value)}`);
  /** @type {Record<string, string[]>} */
  const files = { generate: [], inpaint: request.files.mask ? ["image", "mask"] : ["image", "None"] };
  const first = (files[request.task] ?? ["image"])
    .map((name) => (name === "None" ? name : literal(`${name}.png`)));
  const words = [...first, `prompt=${literal(prompt)}`, ...named];
  const method = METHODS[/** @type {keyof typeof METHODS} */ (request.task)];
  return `from muse_client import MuseClient, sampling

with MuseClient("127.0.0.1:50050") as muse:
    pictures = muse.${method}(
        ${words.join(",\n        ")},
    )
for picture in pictures:
    picture.image.save(f"{picture.seed}.png")`;
}

/** @param {Request} request */
export function grpc(request) {
  const fields = asked(request);
  const message = Object.fromEntries(
    Object.entries(fields).filter(([name]) => !OF_EDITS.includes(name)));
  const edit = EDITS[/** @type {keyof typeof EDITS} */ (request.task)];
  let text = JSON.stringify(message);
  if (edit) {
    const own = Object.entries(fields).filter(([name]) => OF_EDITS.includes(name))
      .map(([name, value]) => `, "${name}": ${value}`).join("");
    const files = Object.keys(request.files)
      .map((name) => `"${name}": "'$(base64 < ${name}.png | tr -d '\\n')'"`).join(", ");
    text = `${quoted(text).slice(1, -2)}, "${edit}": {${files}${own}}}`;
    return `grpcurl -plaintext -d @ \\
  127.0.0.1:50050 muse.orchestrator.v1.OrchestratorService/Generate \\
  <<< '${text}'`;
  }
  return `grpcurl -plaintext -d ${quoted(text)} \\
  127.0.0.1:50050 muse.orchestrator.v1.OrchestratorService/Generate`;
}
