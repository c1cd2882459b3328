// The list of tasks: the server searches, a page at a time; a bank may hold a million.

import { link, read, toggled } from "./address.js";
import { ask } from "./api.js";
import { byId, el, foreign, number } from "./dom.js";
import { problem } from "./problem.js";

const PAGE = 50;
const MOST = 1000; // of one reply of the server
const PAUSE = 150; // ms without a key before it is asked

let shown = { query: "", last: "", count: 0 };
let asking = new AbortController();
let tasks = 0;

export async function startSearch() {
  let later = 0;
  byId("query").addEventListener("input", () => {
    clearTimeout(later);
    later = setTimeout(find, PAUSE);
  });
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(later);
    find();
  });
  byId("query").addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") step(event, -1, 1);
  });
  byId("tasks").addEventListener("keydown", moves);
  byId("more").addEventListener("click", more);
  await find();
}

/** How many tasks the bank has now. */
export function setTasks(count) {
  tasks = count;
  if (!byId("side").hidden) tell();
}

/** Show which tasks are open. */
export function mark() {
  const { names } = read();
  for (const item of byId("tasks").children) {
    const mine = names.indexOf(item.dataset.name);
    const [open, compare] = item.querySelectorAll("a, button");
    if (mine === 0) open.setAttribute("aria-current", "true");
    else open.removeAttribute("aria-current");
    compare?.setAttribute("aria-pressed", mine >= 0);
    compare?.replaceChildren(mine >= 0 ? "✓" : "+");
  }
}

async function find() {
  shown = { query: byId("query").value.trim(), last: "", count: 0 };
  await fetchPage(PAGE, (items) => byId("tasks").replaceChildren(...items));
}

/** The next page; a search has no place to go on from, and is asked for more names in one reply. */
async function more() {
  const before = shown.count;
  const limit = shown.query ? Math.min(before * 2, MOST) : PAGE;
  await fetchPage(limit, (items) => {
    if (shown.query) byId("tasks").replaceChildren(...items);
    else byId("tasks").append(...items);
  });
  byId("tasks").children[before]?.querySelector("a").focus();
}

async function fetchPage(limit, place) {
  asking.abort();
  asking = new AbortController();
  const { query, last } = shown;
  const where = new URLSearchParams({ limit, ...(query ? { q: query } : { after: last }) });
  try {
    const found = await ask(`v1/models?${where}`, { signal: asking.signal });
    place(found.data.map(item));
    shown = { query, last: found.last_id ?? "", count: byId("tasks").children.length };
    byId("more").hidden = !found.has_more || (query !== "" && shown.count >= MOST);
    tell();
    mark();
  } catch (error) {
    if (error.name !== "AbortError") byId("found").replaceChildren(problem(error));
  }
}

function tell() {
  const more = byId("more").hidden ? "" : "the first ";
  const none = "No task has this in its name.";
  const some = shown.query
    ? `${more}${number(shown.count)} found among ${number(tasks)}`
    : `${more}${number(shown.count)} of ${number(tasks)} tasks`;
  byId("found").textContent = shown.query && shown.count === 0 ? none : some;
}

function item(model) {
  const says = model.error ?? (model.labels ? Object.values(model.labels).slice(0, 9).join(" · ") : "writes freely");
  const compare = model.labels && compareButton(model.id);
  const open = el("a", { href: link([model.id]) }, foreign(model.id, "b"), foreign(says, "span", { class: "quiet" }));
  return el("li", { "data-name": model.id }, open, compare);
}

function compareButton(name) {
  const flip = () => (location.hash = toggled(name));
  const told = { type: "button", "aria-label": `Compare ${name}`, title: "Compare", "aria-pressed": "false" };
  return el("button", { ...told, onclick: flip }, "+");
}

/** Arrow keys go through the list; its links can be reached by Tab as well. */
function moves(event) {
  const way = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const at = [...byId("tasks").children].indexOf(event.target.closest("li"));
  if (way) step(event, at, way);
}

function step(event, at, way) {
  event.preventDefault();
  const to = at + way < 0 ? byId("query") : byId("tasks").children[at + way]?.querySelector("a");
  to?.focus();
}
