// The picture to start from: a mask is painted on it, or its border is dragged outward.

const SIDES = ["left_px", "top_px", "right_px", "bottom_px"];
const HELP = {
  inpaint: "Paint over what is to change: with the mouse, a finger, or arrow keys and Space.",
  outpaint: "Drag a border outward, or write the pixels to add.",
  "mask-free-edit": "The whole picture changes towards the prompt.",
  vary: "A share of the picture is painted anew.",
};

export class Easel {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {import("./form.js").Form} form
   */
  constructor(canvas, form) {
    this.canvas = canvas;
    this.form = form;
    /** @type {ImageBitmap | null} */
    this.picture = null;
    /** @type {Blob | null} */
    this.file = null;
    this.mask = document.createElement("canvas");
    this.masked = false;
    this.cursor = { x: 0.5, y: 0.5 };
    /** @type {{side: string, x: number, y: number, from: number, scale: number} | null} */
    this.drag = null; // of a border: where it began, and with how many pixels
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", () => { this.drag = null; });
    canvas.addEventListener("keydown", (event) => this.key(event));
    form.form.addEventListener("input", () => this.draw());
  }

  /** Takes another picture. @param {Blob} file */
  async take(file) {
    this.picture = await createImageBitmap(file);
    this.file = file;
    this.mask.width = this.picture.width;
    this.mask.height = this.picture.height;
    this.masked = false;
    for (const side of SIDES) this.form.field(side).value = "0";
    this.draw();
  }

  clear() {
    this.pen().clearRect(0, 0, this.mask.width, this.mask.height);
    this.masked = false;
    this.draw();
  }

  /** Returns the files of a request. @returns {Promise<Record<string, Blob>>} */
  async files() {
    if (!this.file) return {};
    if (this.form.task !== "inpaint" || !this.masked) return { image: this.file };
    const flat = document.createElement("canvas");
    [flat.width, flat.height] = [this.mask.width, this.mask.height];
    const pen = /** @type {CanvasRenderingContext2D} */ (flat.getContext("2d"));
    pen.fillRect(0, 0, flat.width, flat.height); // black is kept, white is repainted
    pen.drawImage(this.mask, 0, 0);
    const mask = await new Promise((done) => flat.toBlob(done, "image/png"));
    return { image: this.file, mask: /** @type {Blob} */ (mask) };
  }

  pen() {
    return /** @type {CanvasRenderingContext2D} */ (this.mask.getContext("2d"));
  }

  /** Pixels that each side grows by. @returns {number[]} */
  border() {
    if (this.form.task !== "outpaint") return [0, 0, 0, 0];
    return SIDES.map((side) => Math.max(0, Number(this.form.value(side)) || 0));
  }

  draw() {
    const task = /** @type {keyof typeof HELP} */ (this.form.task);
    const help = document.getElementById("easel-help");
    if (help) help.textContent = HELP[task] ?? "";
    this.canvas.hidden = !this.picture;
    if (!this.picture) return;
    const [left, top, right, bottom] = this.border();
    const { width, height } = this.picture;
    this.canvas.width = left + width + right;
    this.canvas.height = top + height + bottom;
    const pen = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    pen.fillStyle = "#8888";
    pen.fillRect(0, 0, this.canvas.width, this.canvas.height);
    pen.clearRect(left, top, width, height);
    pen.drawImage(this.picture, left, top);
    if (task !== "inpaint") return;
    pen.globalAlpha = 0.6;
    pen.drawImage(this.mask, 0, 0);
    pen.globalAlpha = 1;
    pen.lineWidth = Math.max(1, width / 200);
    for (const colour of ["#000", "#fff"]) {
      pen.strokeStyle = colour;
      pen.beginPath();
      const radius = this.radius() + (colour === "#fff" ? pen.lineWidth : 0);
      pen.arc(this.cursor.x * width, this.cursor.y * height, radius, 0, 7);
      pen.stroke();
    }
  }

  radius() {
    return (Number(this.form.value("brush")) / 200) * this.mask.width;
  }

  /** Where a pointer is, in pixels of the canvas. @param {PointerEvent} event */
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = this.canvas.width / box.width;
    return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
  }

  /** @param {PointerEvent} event */
  press(event) {
    this.canvas.setPointerCapture(event.pointerId);
    if (this.form.task === "outpaint") {
      const side = this.nearest(this.at(event)), { clientX: x, clientY: y } = event;
      const scale = this.canvas.width / this.canvas.getBoundingClientRect().width;
      this.drag = { side, x, y, from: Number(this.form.value(side)), scale };
    }
    this.move(event);
  }

  /** The border that is nearest to a place. @param {{x: number, y: number}} at */
  nearest({ x, y }) {
    const distances = [x, y, this.canvas.width - x, this.canvas.height - y];
    return SIDES[distances.indexOf(Math.min(...distances))];
  }

  /** @param {PointerEvent} event */
  move(event) {
    if (!this.picture) return;
    const { x, y } = this.at(event);
    if (this.form.task === "inpaint") {
      this.cursor = { x: x / this.mask.width, y: y / this.mask.height };
      if (event.buttons) this.paint();
      this.draw();
    } else if (this.drag && event.buttons) {
      const { side, from, scale } = this.drag;
      const right = event.clientX - this.drag.x, down = event.clientY - this.drag.y;
      const outward = { left_px: -right, right_px: right, top_px: -down, bottom_px: down };
      this.grow(side, from + outward[/** @type {keyof typeof outward} */ (side)] * scale);
    }
  }

  /** Makes a side grow by so many pixels in all. @param {string} side @param {number} pixels */
  grow(side, pixels) {
    this.form.field(side).value = String(Math.max(0, Math.round(pixels)));
    this.draw();
  }

  paint() {
    const pen = this.pen();
    pen.fillStyle = "#fff";
    pen.beginPath();
    pen.arc(this.cursor.x * this.mask.width, this.cursor.y * this.mask.height, this.radius(), 0, 7);
    pen.fill();
    this.masked = true;
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    /** @type {Record<string, [number, number, string]>} */
    const arrows = { ArrowLeft: [-1, 0, "left_px"], ArrowRight: [1, 0, "right_px"],
      ArrowUp: [0, -1, "top_px"], ArrowDown: [0, 1, "bottom_px"] };
    const arrow = arrows[event.key];
    if (!this.picture || !(arrow || event.key === " ")) return;
    event.preventDefault();
    if (this.form.task === "outpaint") {
      if (arrow) this.grow(arrow[2], Number(this.form.value(arrow[2])) + (event.shiftKey ? -16 : 16));
    } else if (this.form.task === "inpaint") {
      if (arrow) {
        this.cursor.x = Math.min(1, Math.max(0, this.cursor.x + arrow[0] * 0.03));
        this.cursor.y = Math.min(1, Math.max(0, this.cursor.y + arrow[1] * 0.03));
      }
      if (event.key === " " || event.shiftKey) this.paint();
      this.draw();
    }
  }
}
