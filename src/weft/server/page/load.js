// How busy the server is, from its /metrics, as long as the page is looked at.

import { askText } from "./api.js";
import { byId, el, number } from "./dom.js";

const EVERY = 2000; // ms

/** Show the load again and again; `changed` is called when the bank has another generation. */
export function startLoad(changed) {
  let before = null;
  const look = async () => {
    if (document.hidden) return;
    try {
      const now = { at: performance.now(), ...figures(await askText("metrics")) };
      show(now, rate(before, now));
      if (before !== null && before.generation !== now.generation) await changed();
      before = now;
    } catch (error) {
      if (error.status === undefined) throw error;
      byId("load").replaceChildren(...pair("Server", error.status ? `status ${error.status}` : "cannot be reached"));
      before = null;
    }
  };
  const again = () => look().finally(() => setTimeout(again, EVERY));
  again();
}

/** What the page shows of Prometheus' text. Tokens of prompts are no text, and are left out. */
export function figures(text) {
  const sum = (name, label = "") =>
    text
      .split("\n")
      .filter((line) => line.startsWith(`${name} `) || (line.startsWith(`${name}{`) && line.includes(label)))
      .reduce((total, line) => total + Number(line.slice(line.lastIndexOf(" "))), 0);
  return {
    ready: sum("weft_ready") === 1,
    generation: sum("weft_bank_generation"),
    running: sum("weft_running_answers"),
    waiting: sum("weft_waiting_answers"),
    refused: sum("weft_refused_total"),
    failed: sum("weft_failed_total"),
    tokens: sum("weft_tokens_total", 'kind="prompt"') + sum("weft_tokens_total", 'kind="completion"'),
  };
}

/** Tokens a second since the last look; a server that began anew counts from 0. */
export function rate(before, now) {
  if (before === null || now.tokens < before.tokens) return 0;
  return (1000 * (now.tokens - before.tokens)) / (now.at - before.at);
}

function show(now, tokens) {
  byId("load").replaceChildren(
    ...pair("Server", now.ready ? "ready" : "not ready", now.ready ? "good" : "bad"),
    ...pair("Running", number(now.running)),
    ...pair("Waiting", number(now.waiting)),
    ...pair("Refused", number(now.refused)),
    ...pair("Failed", number(now.failed)),
    ...pair("Tokens/s", number(tokens)),
  );
}

const pair = (name, value, kind = null) => [el("div", {}, el("dt", {}, name), el("dd", { class: kind }, value))];
