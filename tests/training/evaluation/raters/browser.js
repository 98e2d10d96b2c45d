// Runs the script of a page without a browser: node browser.js DATA.json PAGE.js
// It types a name, presses keys, answers all pairs, and prints what the page saves.
const fs = require("fs");
const elements = {}, stored = {}, saved = [];
const made = () => ({ firstElementChild: {}, setAttribute() {}, click() {} });
global.document = {
  getElementById: (id) => (elements[id] ??= made()),
  createElement: made,
};
global.localStorage = {
  getItem: (key) => stored[key] ?? null,
  setItem: (key, value) => { stored[key] = value; },
};
global.alert = (text) => { throw new Error(text); };
global.Blob = class { constructor(parts) { saved.push(JSON.parse(parts[0])); } };
URL.createObjectURL = () => "blob:";
elements.data = { textContent: fs.readFileSync(process.argv[2], "utf8") };
eval(fs.readFileSync(process.argv[3], "utf8"));

const press = (key, more) => document.onkeydown({ key, target: {}, ...more });
for (const typed of ["Ann", "Ann ", "Ann L"]) {
  elements.rater.oninput({ target: { value: typed } });
  const shown = elements.rater.value;
  if (shown !== typed) throw new Error(`typed ${typed}, got ${shown}`);
}
for (const more of [{ ctrlKey: true }, { repeat: true }, { target: { id: "rater" } }]) press("1", more);
if (!elements.progress.textContent.endsWith("0 answered")) throw new Error("answered by chance");
for (const pair of JSON.parse(elements.data.textContent).pairs) press("0");
elements.rater.oninput({ target: { value: " Ann L " } });
elements.export.onclick();
console.log(JSON.stringify(saved));
