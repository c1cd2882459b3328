// What is known of a task.

import { link } from "./address.js";
import { counted, el, foreign, number } from "./dom.js";

const KINDS = {
  factors: "factors of a prompt that its group shares",
  prompt: "a prompt of its own",
  readers: "readers of the model's states",
};
const SHOWN = 24; // answers; more are folded
const HASH = 12; // signs of a hash that tell it apart

export function facts(model) {
  const prompt = model.prompt_length ? `, ${counted(model.prompt_length, "virtual token")}` : "";
  const of = [
    ["Method", `${KINDS[model.kind] ?? model.kind}${prompt}`],
    ["Text format", el("code", {}, foreign(model.template, "span"))],
    ["Answers", model.labels ? answers(Object.values(model.labels)) : `written freely, ${upTo(model.max_tokens)}`],
    ["Text limit", upTo(model.source_tokens)],
    ["Metrics", metrics(model.metrics)],
    ["Group", model.group ? group(model) : "shares nothing with other tasks"],
    ["Run", foreign(model.run)],
    ["Numbers", el("span", { title: `SHA-256 ${model.sha256}` }, `SHA-256 ${model.sha256.slice(0, HASH)}…`)],
  ];
  return el("dl", { class: "facts" }, of.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

const upTo = (tokens) => `up to ${counted(tokens, "token")}`;

function answers(words) {
  const some = words.slice(0, SHOWN).map(chip);
  const rest = words.slice(SHOWN).map(chip);
  if (rest.length === 0) return el("ul", { class: "chips" }, some);
  const summary = el("summary", {}, `and ${number(rest.length)} more`);
  return [
    el("ul", { class: "chips" }, some),
    el("details", {}, summary, el("ul", { class: "chips" }, rest)),
  ];
}

const chip = (word) => foreign(word, "li");

function metrics(found) {
  const named = Object.entries(found);
  if (named.length === 0) return "none: no evaluation was added";
  return named.map(([name, value]) => `${name} ${value === null ? "no number" : number(value, 2)}`).join(" · ");
}

function group(model) {
  const name = el("span", { title: model.group }, model.group.slice(0, HASH), model.group.length > HASH && "…");
  if (!model.labels) return name;
  return [name, " · ", el("a", { href: link([model.id], model.group) }, "ask all tasks of the group")];
}
