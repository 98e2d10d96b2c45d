// Where the time of a picture went: a row for each stage, one after the other.

const KINDS = ["queue", "compute", "transfer"];

/**
 * @param {HTMLTableSectionElement} body Of the table.
 * @param {any} image The event of the picture.
 */
export function showTimes(body, image) {
  const total = image.wall_s || 1;
  const rows = image.timings.map((/** @type {any} */ each) => ({ name: each.stage,
    parts: KINDS.map((kind) => each[`${kind}_s`]) }));
  rows.push({ name: "orchestrator", parts: [0, image.overhead_s, 0] });
  let before = 0;
  body.replaceChildren(...rows.map((/** @type {{name: string, parts: number[]}} */ { name, parts }) => {
    const row = document.createElement("tr");
    const head = Object.assign(document.createElement("th"),
      { scope: "row", textContent: name.replace("_", " ") });
    const seconds = parts.reduce((sum, part) => sum + part, 0);
    const number = Object.assign(document.createElement("td"), { textContent: seconds.toFixed(3) });
    const cell = document.createElement("td"), bar = document.createElement("div");
    bar.className = "bar";
    parts.forEach((part, index) => {
      const piece = document.createElement("i");
      piece.className = KINDS[index];
      piece.style.width = `${(100 * part) / total}%`;
      if (index === 0) piece.style.marginLeft = `${Math.min(100, (100 * before) / total)}%`;
      bar.append(piece);
    });
    before += seconds;
    cell.append(bar);
    row.append(head, number, cell);
    return row;
  }));
}
