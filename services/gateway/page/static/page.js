// The page: the form asks, the picture forms, the session remembers.

import { painted, pictureOf, Refusal } from "./calls.js";
import { Easel } from "./easel.js";
import { Form } from "./form.js";
import * as programs from "./programs.js";
import { showTimes } from "./times.js";

/** @typedef {{text: string, url: string}} Frame A picture so far, and what it shows. */
/** @typedef {{index: number, frames: Frame[], end: any, blob: Blob | null}} Painting */

const MOST_KEPT = 48; // pictures of the session
const STAGES = { text_encoder: "Reading the prompt", base: "Base", superres: "Super-resolution",
  tokenizer: "Decoding" };

/** @param {string} id @returns {any} */
const element = (id) => document.getElementById(id);
const form = new Form(element("request"));
const easel = new Easel(element("canvas"), form);
/** @type {AbortController | null} */
let underWay = null;
/** @type {import("./calls.js").Request | null} */
let sent = null;
/** @type {Painting[]} */
let paintings = [];
/** @type {Painting | null} */
let shown = null;

/** Shows a frame of the painting that is looked at. @param {number} place */
function showFrame(place) {
  const frame = shown?.frames[place];
  if (!shown || !frame) return;
  element("empty").hidden = true;
  Object.assign(element("picture"), { hidden: false, src: frame.url,
    alt: `${sent?.fields.prompt || "A variation"}: ${frame.text}` });
  Object.assign(element("scrubber"), { max: shown.frames.length - 1, value: place });
  element("scrub").hidden = shown.frames.length < 2;
  element("scrub").querySelector("output").textContent = frame.text;
}

/** Looks at a painting. @param {Painting} painting */
function look(painting) {
  shown = painting;
  showFrame(painting.frames.length - 1);
  for (const [place, item] of [...element("pictures").children].entries()) {
    item.firstChild.setAttribute("aria-pressed", String(paintings[place] === painting));
  }
  const { end } = painting;
  for (const id of ["actions", "times"]) element(id).hidden = !end;
  if (!end) return;
  Object.assign(element("save"), { href: painting.frames.at(-1)?.url, download: `muse-${end.seed}.png` });
  showTimes(element("times").querySelector("tbody"), end);
}

/** Returns the painting of an index; each iteration of an edit is one of its own at its end. */
function paintingOf(/** @type {number} */ index) {
  let painting = paintings.find((each) => each.index === index && !each.end);
  if (!painting) {
    painting = { index, frames: [], end: null, blob: null };
    paintings.push(painting);
  }
  return painting;
}

/** @param {Painting} painting @param {Blob} blob @param {string} text */
function addFrame(painting, blob, text) {
  const follows = shown === painting && Number(element("scrubber").value) >= painting.frames.length - 1;
  painting.frames.push({ text, url: URL.createObjectURL(blob) });
  if (!shown) look(painting);
  else if (follows) showFrame(painting.frames.length - 1);
  else if (shown === painting) element("scrubber").max = painting.frames.length - 1;
}

/** @param {{name: string, data: any}} event */
function take({ name, data }) {
  if (name === "progress") {
    const stage = STAGES[/** @type {keyof typeof STAGES} */ (data.stage)] ?? data.stage;
    const text = `${stage}, step ${data.step} of ${data.total}`;
    const part = data.parts > 1 ? `, part ${data.part + 1} of ${data.parts}` : "";
    Object.assign(element("progress"), { hidden: false, max: data.total, value: data.step });
    // Read aloud once a stage, not at each of its steps.
    if (data.step === data.total || data.step === 1) element("status").textContent = text + part;
    if (data.preview) addFrame(paintingOf(data.index), pictureOf(data.preview), text + part);
  } else if (name === "warning") {
    element("status").textContent = data.message;
  } else if (name === "image") {
    const painting = paintingOf(data.index);
    painting.blob = pictureOf(data.image);
    const after = data.iteration === undefined ? "" : `, after ${data.iteration} iterations`;
    addFrame(painting, painting.blob, `finished${after}`);
    const { image, ...end } = data;
    painting.end = end;
    keep(painting);
    addThumbnail(element("pictures"), painting, () => look(painting));
    look(shown && !shown.end ? shown : painting);
  }
}

/** @param {HTMLElement} list @param {Painting} painting @param {() => void} chosen */
function addThumbnail(list, painting, chosen) {
  const item = document.createElement("li"), button = document.createElement("button");
  const image = Object.assign(document.createElement("img"),
    { src: painting.frames.at(-1)?.url, alt: `Seed ${painting.end.seed}`, width: 80, height: 80 });
  button.type = "button";
  button.append(image);
  button.addEventListener("click", chosen);
  item.append(button);
  list.append(item);
}

/** Keeps a finished picture for the session. @param {Painting} painting */
function keep(painting) {
  const list = /** @type {HTMLElement} */ (element("history").querySelector("ol"));
  const request = sent;
  addThumbnail(list, painting, () => {
    paintings = [painting];
    sent = request;
    element("pictures").replaceChildren();
    showProgram();
    look(painting);
    element("picture").scrollIntoView({ block: "nearest" });
  });
  if (list.children.length > MOST_KEPT) list.firstElementChild?.remove();
}

function showProgram() {
  element("code").hidden = !sent;
  if (!sent) return;
  const language = /** @type {"curl" | "python" | "grpc"} */ (element("language").value);
  element("code").querySelector("code").textContent = programs[language](sent, location.origin);
}

/** Forgets the pictures so far of the last request; finished ones stay in the session. */
function begin() {
  for (const painting of paintings) {
    for (const frame of painting.end ? painting.frames.slice(0, -1) : painting.frames) {
      URL.revokeObjectURL(frame.url);
    }
    painting.frames.splice(0, painting.frames.length - (painting.end ? 1 : 0));
  }
  [paintings, shown] = [[], null];
  element("pictures").replaceChildren();
  for (const id of ["actions", "times", "scrub"]) element(id).hidden = true;
  element("status").textContent = "Waiting for the servers";
}

async function paint() {
  underWay?.abort();
  const own = (underWay = new AbortController());
  form.complain(null);
  try {
    sent = form.request(await easel.files());
    begin();
    showProgram();
    element("stop").hidden = false;
    for await (const event of painted(sent, form.value("key"), own.signal)) take(event);
    element("status").textContent = "Finished";
  } catch (error) {
    if (own.signal.aborted) {
      if (underWay === own) element("status").textContent = "Stopped";
    } else {
      element("status").textContent = "";
      const away = error instanceof TypeError; // of fetch: no connection
      form.complain(away ? new Refusal("The gateway cannot be reached. Try again.") : /** @type {Error} */ (error));
    }
  }
  if (underWay !== own) return;
  underWay = null;
  for (const id of ["stop", "progress"]) element(id).hidden = true;
}

element("request").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  void paint();
});
element("prompt").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) element("request").requestSubmit();
});
element("stop").addEventListener("click", () => underWay?.abort());
element("tasks").addEventListener("change", () => {
  form.chooseTask(form.task);
  easel.draw();
});
form.field("image").addEventListener("change", async (/** @type {any} */ event) => {
  const [file] = event.target.files;
  if (!file) return;
  form.complain(null);
  await easel.take(file).catch(() =>
    form.complain(new Refusal(`${file.name} is no picture that this browser can show.`, "image")));
});
element("clear").addEventListener("click", () => easel.clear());
element("scrubber").addEventListener("input", (/** @type {any} */ event) => showFrame(Number(event.target.value)));
element("language").addEventListener("change", showProgram);
element("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(element("code").querySelector("code").textContent);
  element("copy").textContent = "Copied";
});
element("reuse").addEventListener("click", async () => {
  if (!shown?.blob) return;
  if (form.task === "generate") form.chooseTask("mask-free-edit");
  await easel.take(shown.blob);
  element("canvas").focus();
});
element("again").addEventListener("click", () => {
  form.field("seed").value = String(shown?.end.seed);
  form.field("lock").checked = true;
});

const answer = await fetch("/page/form.json");
const served = await answer.json();
form.addSampling(served);
easel.draw();
element("served").textContent = served.away
  ? `The servers are not ready: ${served.away}`
  : `${served.preset}, ${served.side_px} x ${served.side_px} pixels`;
