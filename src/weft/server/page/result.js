// Labels with their probabilities: as cards side by side, or as a table where they are many.

import { link } from "./address.js";
import { counted, el, foreign, number, percent } from "./dom.js";

const SHOWN = 8; // answers of a card; more are folded
const CARDS = 4; // tasks that stand side by side

/**
 * The answers to one text.
 *
 * @param {object} reply of /v1/classify.
 * @param {Map<string, object>} models what is known of the tasks.
 * @param {number} took ms.
 */
export function classified(reply, models, took) {
  const found = reply.data;
  const shown = found.length > CARDS ? table(found) : cards(found, models);
  return el(
    "div",
    {},
    found.length > 1 && found.every((one) => sameAnswers(one, found[0])) && together(found),
    shown,
    el("p", { class: "quiet" }, spent(reply.usage, took), ` · generation ${reply.generation}`),
  );
}

/** What was read and written, and how long it took; the tokens of prompts are no text. */
export function spent(usage, took) {
  const written = usage.completion_tokens === undefined ? "" : `, ${number(usage.completion_tokens)} written`;
  const virtual = usage.virtual_tokens ?? usage.prompt_tokens_details.virtual_tokens;
  const read = `${counted(usage.prompt_tokens, "token")} read${written}`;
  return `${number(took)} ms · ${read} · ${counted(virtual, "virtual token")}`;
}

export function cutNote(limit) {
  const most = limit ? ` (${counted(limit, "token")})` : "";
  return el("p", { class: "note" }, `The text is longer than the task reads${most}: its end was cut.`);
}

/** One line for those who listen. */
export function summary(reply) {
  const one = ({ model, answer, probabilities, error }) =>
    error === null ? `${model}: ${answer}, ${percent(probabilities[answer])}` : `${model}: ${error}`;
  return reply.data.slice(0, CARDS).map(one).join("; ");
}

const words = (one) => Object.keys(one.probabilities ?? {}).sort().join("\n");
const sameAnswers = (one, other) => words(one) === words(other) && words(one) !== "";

function together(found) {
  const said = new Set(found.map((one) => one.answer));
  if (said.size > 1) return el("p", {}, `The ${found.length} tasks differ.`);
  return el("p", {}, `All ${found.length} tasks answer `, foreign(found[0].answer, "b"), ".");
}

function cards(found, models) {
  const several = found.length > 1;
  return el("div", { class: "cards" }, found.map((one) => card(one, models.get(one.model), several)));
}

function card(one, model, several) {
  const head = several && el("h3", {}, foreign(one.model));
  const wrong = one.error !== null && foreign(one.error, "p", { class: "problem" });
  if (wrong) return el("section", { class: "card" }, head, wrong);
  const best = el("p", { class: "best" }, foreign(one.answer, "b"), " ", percent(one.probabilities[one.answer]));
  const label = one.label !== one.answer && el("p", { class: "quiet" }, "label ", foreign(one.label));
  const bars = barsOf(one, several);
  return el("section", { class: "card" }, head, best, label, bars, one.cut && cutNote(model?.source_tokens));
}

/** Few answers of several tasks keep their order, so that bars can be compared by eye. */
function barsOf(one, keepOrder) {
  const odds = Object.entries(one.probabilities);
  if (!keepOrder || odds.length > SHOWN) odds.sort(([, a], [, b]) => b - a);
  const bars = (some) =>
    el("ul", { class: "bars" }, some.map(([word, share]) => barOf(word, share, word === one.answer)));
  const rest = odds.slice(SHOWN);
  const summary = el("summary", {}, `${number(rest.length)} more answers`);
  return [bars(odds.slice(0, SHOWN)), rest.length > 0 && el("details", {}, summary, bars(rest))];
}

function barOf(word, share, best) {
  const said = foreign(word, "span", { class: "word" });
  return el("li", { class: best && "is-best" }, said, fill(share), el("span", { class: "share" }, percent(share)));
}

function fill(share) {
  const inner = el("span");
  inner.style.width = `${100 * share}%`;
  return el("span", { class: "bar", "aria-hidden": "true" }, inner);
}

function table(found) {
  const head = el("tr", {}, ["Task", "Answer", "Probability"].map((name) => el("th", { scope: "col" }, name)));
  const all = el("table", {}, el("thead", {}, head), el("tbody", {}, found.map(line)));
  return el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Answers" }, all);
}

function line(one) {
  const name = el("th", { scope: "row" }, el("a", { href: link([one.model]) }, foreign(one.model)));
  if (one.error !== null) return el("tr", {}, name, el("td", { colspan: 2, class: "bad" }, foreign(one.error)));
  const share = one.probabilities[one.answer];
  const answer = el("td", {}, foreign(one.answer), one.cut && " (text cut)");
  return el("tr", {}, name, answer, el("td", { class: "odds" }, fill(share), percent(share)));
}
