// A question from its form to its answer on the page.

import { ask, events } from "./api.js";
import { curl } from "./curl.js";
import { byId, el, foreign } from "./dom.js";
import { setBusy } from "./form.js";
import { problem } from "./problem.js";
import { classified, cutNote, spent, summary } from "./result.js";

let working = null;

/** End what is asked, if anything is; the server lets it go at once. */
export function stop() {
  working?.abort();
  working = null;
}

/**
 * Ask; a second time while it is asked: stop.
 *
 * @param {object} said what the form holds.
 * @param {object} asked {names, group, models} of the address.
 */
export async function run(said, asked) {
  if (working !== null) return stop();
  const mine = (working = new AbortController());
  const place = byId("result");
  place.setAttribute("aria-busy", "true");
  setBusy(true);
  const model = asked.models.get(asked.names[0]);
  try {
    await (model.labels ? classify : write)(place, said, asked, mine.signal);
  } catch (error) {
    place.prepend(error.name === "AbortError" ? el("p", { class: "note" }, "Stopped.") : problem(error));
  } finally {
    place.setAttribute("aria-busy", "false");
    if (working === mine) working = null;
    if (place.isConnected) setBusy(false);
    place.scrollIntoView({ block: "nearest" });
  }
}

async function classify(place, said, { names, group, models }, signal) {
  const model = group !== null ? { model: "*", group } : { model: names.length === 1 ? names[0] : names };
  const body = { ...model, inputs: said.row ?? said.text };
  const command = curl("v1/classify", body);
  const began = performance.now();
  const reply = await ask("v1/classify", { body, signal }).catch((error) => {
    place.replaceChildren(command);
    throw error;
  });
  place.replaceChildren(classified(reply, models, performance.now() - began), command);
  byId("told").textContent = summary(reply);
}

/** What is written comes piece by piece. */
async function write(place, said, { names, models }, signal) {
  const model = models.get(names[0]);
  const prompt = said.text ?? filled(model.template, said.row);
  const how = { max_tokens: said.most || model.max_tokens, temperature: said.temperature || 0 };
  const body = { model: names[0], prompt, ...how, stream: true, stream_options: { include_usage: true } };
  const text = foreign("", "p", { class: "written" });
  const end = el("div");
  place.replaceChildren(text, end, curl("v1/completions", body));
  const began = performance.now();
  const about = { first: null, finish: null, cut: false, usage: null };
  for await (const event of events("v1/completions", { body, signal })) {
    about.first ??= performance.now() - began;
    about.finish = event.choices[0]?.finish_reason ?? about.finish;
    about.cut ||= event.choices[0]?.cut ?? false;
    about.usage = event.usage ?? about.usage;
    text.append(event.choices[0]?.text ?? "");
  }
  end.replaceChildren(...ending(about, performance.now() - began, model));
  byId("told").textContent = text.textContent;
}

function ending({ first, finish, cut, usage }, took, model) {
  const speed = `first piece after ${Math.round(first)} ms`;
  return [
    ...(finish === "length" ? [el("p", { class: "note" }, "It ends where the most tokens were written.")] : []),
    ...(cut ? [cutNote(model.source_tokens)] : []),
    el("p", { class: "quiet" }, `${spent(usage, took)} · ${speed}`),
  ];
}

/** A template with its values: as weft fills it in where values are texts. */
const filled = (template, row) => template.replace(/\{([^{}]*)\}/g, (whole, name) => row[name]);
