// The task that is open, or several to compare on one text.

import { link, toggled } from "./address.js";
import { ask, pathOf } from "./api.js";
import { byId, el, foreign } from "./dom.js";
import { facts } from "./facts.js";
import { questionForm } from "./form.js";
import { problem } from "./problem.js";
import { run, stop } from "./run.js";

let opening = 0;

/** Show what the address says: nothing, a task, several, or a task and its whole group. */
export async function openTasks({ names, group }) {
  stop();
  const mine = ++opening;
  const found = await Promise.allSettled(names.map((name) => ask(pathOf(name))));
  if (mine !== opening) return; // another address by now
  stop(); // what was asked of the tasks before, while these were looked up
  document.title = names.length > 0 ? `${names.join(", ")} · weft` : "weft";
  const models = new Map(names.map((name, at) => [name, found[at].value]));
  const faults = found.filter((one) => one.status === "rejected").map((one) => one.reason);
  byId("main").replaceChildren(...(names.length > 0 ? shown({ names, group, models }, faults) : welcome()));
}

function welcome() {
  const told = "Open a task of the list to ask it. With + several are compared: one text, their answers side by side.";
  return [el("h2", {}, "Choose a task"), el("p", {}, told)];
}

function shown(asked, faults) {
  const models = asked.names.map((name) => asked.models.get(name)).filter(Boolean);
  const head = [heading(asked), ...faults.map(problem)];
  if (faults.length > 0) return head;
  const fields = [...new Set(models.flatMap((model) => model.fields))];
  const open = models.find((model) => !model.labels);
  return [
    ...head,
    models.length === 1 && asked.group === null ? facts(models[0]) : folded(models),
    questionForm(fields, open, (said) => run(said, asked)),
    el("section", { id: "result", "aria-label": "Result" }),
    el("p", { id: "told", role: "status", class: "unseen" }),
  ];
}

function heading({ names, group }) {
  if (group !== null) {
    const name = el("a", { href: link([names[0]]) }, foreign(names[0]));
    return el("h2", { tabindex: "-1" }, "All tasks of the group of ", name);
  }
  if (names.length === 1) return el("h2", { tabindex: "-1" }, foreign(names[0]));
  return el("div", {}, el("h2", { tabindex: "-1" }, "Compare"), el("ul", { class: "chips" }, names.map(chosen)));
}

function chosen(name) {
  const drop = () => (location.hash = toggled(name));
  const button = el("button", { type: "button", "aria-label": `Leave ${name} out`, onclick: drop }, "×");
  return el("li", {}, el("a", { href: link([name]) }, foreign(name)), button);
}

function folded(models) {
  const all = models.map((model) => [el("h3", {}, foreign(model.id)), facts(model)]);
  const told = models.length === 1 ? "About this task" : "About these tasks";
  return el("details", { class: "several" }, el("summary", {}, told), all.flat());
}
