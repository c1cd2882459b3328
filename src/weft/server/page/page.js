// The page of a bank: from its start, or the question for an API key, to the tasks that its address names.

import { read } from "./address.js";
import { ask, hasKey, keepKey } from "./api.js";
import { byId, counted, el, foreign } from "./dom.js";
import { startLoad } from "./load.js";
import { problem } from "./problem.js";
import { mark, setTasks, startSearch } from "./search.js";
import { openTasks } from "./task.js";

const AGAIN = 2000; // ms between looks for a model that is being loaded

async function start() {
  try {
    const about = await ask("version");
    byId("forget").hidden = !hasKey();
    if (about.generation === null) return await waiting();
    await showBank(about);
  } catch (error) {
    if (error.status === 401) return askForKey(error);
    return byId("main").replaceChildren(problem(error), el("button", { type: "button", onclick: start }, "Try again"));
  }
  byId("side").hidden = false;
  await startSearch();
  await show();
  addEventListener("hashchange", changed);
  startLoad(async () => showBank(await ask("version")));
}

async function waiting() {
  const why = await ask("ready").then(() => "", (error) => error.message);
  byId("main").replaceChildren(el("p", { role: "status" }, `Not ready: ${why || "a moment"}.`));
  setTimeout(start, AGAIN);
}

async function showBank(about) {
  const counts = ` · ${counted(about.tasks, "task")} · generation ${about.generation} · base `;
  byId("bank").replaceChildren(foreign(about.bank, "b"), counts, foreign(about.base));
  setTasks(about.tasks);
}

async function show() {
  mark();
  await openTasks(read());
}

/** Another task was chosen: the reader is led to it, but stays in the list while tasks are gathered there. */
async function changed() {
  const inList = document.activeElement?.matches("#tasks button");
  await show();
  if (!inList) byId("main").querySelector("h2")?.focus();
}

function askForKey(error) {
  const signs = { pattern: "[!-~]+", title: "letters, digits and signs of ASCII, without blanks" };
  const input = el("input", { id: "key", type: "password", autocomplete: "off", required: true, ...signs });
  const field = el("div", { class: "field" }, el("label", { for: "key" }, "Key"), input);
  const given = (event) => {
    event.preventDefault();
    keepKey(input.value.trim());
    start();
  };
  const told = hasKey() ? "This key is not one of the server's." : error.message;
  keepKey("");
  byId("main").replaceChildren(
    el("h2", {}, "API key"),
    foreign(told, "p", { role: "alert" }),
    el("form", { onsubmit: given, class: "row" }, field, el("button", { class: "main" }, "Use")),
    el("p", { class: "quiet" }, "It is kept until this tab is closed, and sent to this server alone."),
  );
  input.focus();
}

byId("skip").addEventListener("click", () => byId("main").focus());
byId("forget").addEventListener("click", () => {
  keepKey("");
  location.reload();
});
start();
