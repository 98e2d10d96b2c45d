// The form: which fields a task has, its sampling sliders, and the request that it means.

import { Refusal } from "./calls.js";

const LARGEST_SEED = 2 ** 53 - 1; // a number of JavaScript is exact up to here
const NUMBERS = { outpaint: ["left_px", "top_px", "right_px", "bottom_px"],
  "mask-free-edit": ["iterations"], vary: ["strength"] };

export class Form {
  /** @param {HTMLFormElement} form */
  constructor(form) {
    this.form = form;
    /** @type {NodeListOf<HTMLElement>} */
    this.of_tasks = form.querySelectorAll("[data-tasks]");
    form.addEventListener("input", (event) => this.show(event.target));
    for (const each of form.querySelectorAll("input[type=range]")) this.show(each);
    this.chooseTask(this.task);
  }

  /** @returns {string} */
  get task() {
    return this.value("task");
  }

  /** @param {string} name */
  value(name) {
    return String(new FormData(this.form).get(name) ?? "").trim();
  }

  /** @param {string} name @returns {any} */
  field(name) {
    return this.form.elements.namedItem(name);
  }

  /** Shows the parts of a task alone. @param {string} task */
  chooseTask(task) {
    for (const each of this.of_tasks) each.hidden = !each.dataset.tasks?.split(" ").includes(task);
    this.field("task").value = task;
  }

  /** Shows a slider's value beside it. @param {any} input */
  show(input) {
    const output = input?.id && this.form.querySelector(`output[for="${input.id}"]`);
    if (output) output.textContent = input.value;
  }

  /**
   * Adds a slider for each sampling parameter of each stage that is there.
   * @param {any} served What form.json says.
   */
  addSampling(served) {
    for (const stage of /** @type {NodeListOf<HTMLElement>} */ (
      this.form.querySelectorAll("[data-stage]"))) {
      stage.hidden = Boolean(served.defaults && !served.defaults[stage.dataset.stage ?? ""]);
      if (stage.hidden) continue;
      for (const { name, help, range, slider: [min, max, step] } of served.parameters) {
        const id = `${stage.dataset.stage}.${name}`;
        const known = served.defaults?.[stage.dataset.stage ?? ""]?.[name];
        const label = document.createElement("label");
        const input = Object.assign(document.createElement("input"),
          { type: "range", id, name: id, min, max, step, value: String(known ?? min) });
        const output = document.createElement("output");
        output.htmlFor.add(id);
        output.textContent = known === undefined ? "default" : `${input.value} (default)`;
        label.title = `${help}, ${range}`;
        label.append(`${help} `, output, input);
        stage.append(label);
        input.addEventListener("input", () => { input.dataset.moved = "yes"; });
      }
    }
    this.field("count").max = served.max_count;
  }

  /**
   * Returns the request that the form means.
   * @param {Record<string, Blob>} files
   * @returns {import("./calls.js").Request}
   */
  request(files) {
    const task = this.task;
    /** @type {Record<string, any>} */
    const fields = { prompt: this.value("prompt"), seed: this.seed(), count: this.count() };
    if (!fields.prompt && task !== "vary") throw new Refusal("Say what to paint.", "prompt");
    const negative = this.value("negative_prompt");
    if (negative) fields.negative_prompt = negative;
    for (const name of NUMBERS[/** @type {keyof typeof NUMBERS} */ (task)] ?? []) {
      fields[name] = Number(this.value(name));
    }
    for (const input of /** @type {NodeListOf<HTMLInputElement>} */ (
      this.form.querySelectorAll("[data-moved]"))) {
      const [stage, name] = input.name.split(".");
      (fields[stage] ??= {})[name] = Number(input.value);
    }
    if (task !== "generate" && !files.image) {
      throw new Refusal("Choose a picture to start from.", "image");
    }
    return { task, fields: { ...fields, stream: true, preview_every: 1 }, files };
  }

  /** Returns the seed: what stands there if it is kept, else a new one, which is shown. */
  seed() {
    const written = this.value("seed");
    if (written && (!/^[0-9]+$/.test(written) || Number(written) > LARGEST_SEED)) {
      throw new Refusal(`A seed is a whole number of 0 to ${LARGEST_SEED}.`, "seed");
    }
    if (written && this.field("lock").checked) return Number(written);
    const [high, low] = crypto.getRandomValues(new Uint32Array(2));
    const drawn = (high % 2 ** 21) * 2 ** 32 + low;
    this.field("seed").value = String(drawn);
    return drawn;
  }

  /** @returns {number} */
  count() {
    const count = Number(this.value("count"));
    const most = Number(this.field("count").max);
    if (!Number.isInteger(count) || count < 1 || count > most) {
      throw new Refusal(`Ask for 1 to ${most} pictures.`, "count");
    }
    return count;
  }

  /**
   * Says what is wrong beside the buttons, and marks the field that it is about.
   * @param {Error | null} error None takes it back.
   */
  complain(error) {
    for (const each of this.form.querySelectorAll("[aria-invalid]")) {
      each.removeAttribute("aria-invalid");
      each.removeAttribute("aria-errormessage");
    }
    const problem = /** @type {HTMLElement} */ (this.form.querySelector("#problem"));
    problem.hidden = !error;
    problem.textContent = error?.message ?? "";
    const name = error instanceof Refusal && error.field ? error.field : "";
    const field = this.field(name) ?? this.field(name.split(".").at(-1) ?? ""); // or within an edit
    if (!(field instanceof HTMLElement)) return;
    field.setAttribute("aria-invalid", "true");
    field.setAttribute("aria-errormessage", problem.id);
    field.closest("details")?.setAttribute("open", "");
    field.before(problem); // where the mistake is
    field.focus();
  }
}
