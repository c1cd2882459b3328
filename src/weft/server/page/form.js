// The form of a question: one field for each of the template's, or a finished text.

import { byId, el, foreign } from "./dom.js";

const FINISHED = Symbol("finished text");
const kept = new Map(); // field or FINISHED -> what was typed, which stays when another task is opened
let finished = false;

/**
 * Make the form.
 *
 * @param {string[]} fields of the templates of the tasks that are asked.
 * @param {object|null} open the task, if it writes freely.
 * @param {(question: object) => void} run takes {row, text, most, temperature}.
 */
export function questionForm(fields, open, run) {
  const inputs = el("div");
  const hint = el("span", { class: "quiet" });
  const show = () => {
    inputs.replaceChildren(...(finished ? [finishedText()] : fields.map(field)));
    hint.textContent = finished ? "Ctrl+Enter runs." : "Enter runs, Shift+Enter begins a line.";
  };
  const onsubmit = (event) => submitted(event, fields, run);
  const form = el(
    "form",
    { id: "question", "aria-label": "Question", onsubmit, onkeydown: keys },
    choice(show),
    inputs,
    open && writing(open),
    el("p", {}, el("button", { id: "run", class: "main" }, "Run"), " ", hint),
  );
  show();
  return form;
}

/** Whether an answer is awaited: then the button ends it. */
export function setBusy(busy) {
  byId("run").textContent = busy ? "Stop" : "Run";
}

function choice(show) {
  const one = (label, value) => {
    const change = () => {
      finished = value;
      show();
    };
    const box = el("input", { type: "radio", name: "form", checked: finished === value, onchange: change });
    return el("label", {}, box, " ", label);
  };
  const both = [one("Fields of the template", false), one("Finished text", true)];
  return el("fieldset", { class: "choice" }, el("legend", {}, "Text"), both);
}

function field(name) {
  return textBox(`field-${name}`, foreign(name), name, 3);
}

function finishedText() {
  return textBox("finished", "Finished text, as the model reads it", FINISHED, 6);
}

function textBox(id, label, name, rows) {
  const box = el("textarea", { id, rows, dir: "auto", oninput: () => kept.set(name, box.value) });
  box.value = kept.get(name) ?? "";
  return el("div", { class: "field" }, el("label", { for: id }, label), box);
}

function writing(open) {
  const small = (id, label, more) => {
    const input = el("input", { id, type: "number", ...more });
    return el("div", { class: "field" }, el("label", { for: id }, label), input);
  };
  return el(
    "div",
    { class: "row" },
    small("most", "Most tokens", { min: 1, step: 1, value: open.max_tokens }),
    small("temperature", "Temperature", { min: 0, max: 2, step: "any", value: 0 }),
  );
}

/** Enter asks, but not while signs are composed, nor in a finished text, whose lines matter. */
function keys(event) {
  if (event.key !== "Enter" || event.isComposing || event.target.tagName !== "TEXTAREA") return;
  const asked = event.ctrlKey || event.metaKey || (!event.shiftKey && event.target.id !== "finished");
  if (!asked) return;
  event.preventDefault();
  event.currentTarget.requestSubmit();
}

function submitted(event, fields, run) {
  event.preventDefault();
  const value = (id) => (byId(id) ? Number(byId(id).value) : null);
  const row = Object.fromEntries(fields.map((name) => [name, kept.get(name) ?? ""]));
  const said = finished ? { row: null, text: kept.get(FINISHED) ?? "" } : { row, text: null };
  run({ ...said, most: value("most"), temperature: value("temperature") });
}
