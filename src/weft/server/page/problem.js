// An error on the page: what the server said, where, and tasks of near names as links.

import { link } from "./address.js";
import { el, foreign } from "./dom.js";

export function problem(error) {
  if (error.status === undefined) throw error; // a fault of this page: the browser's console shows it
  const about = [
    error.status ? `status ${error.status}` : null,
    error.code ? `code ${error.code}` : null,
    error.param ? `field ${error.param}` : null,
    error.retryAfter ? `try again in ${error.retryAfter} s` : null,
  ].filter(Boolean);
  return el(
    "div",
    { class: "problem", role: "alert" },
    foreign(error.message, "p"),
    error.near.length > 0 && el("p", {}, "Open instead: ", nearLinks(error.near)),
    about.length > 0 && el("p", { class: "quiet" }, about.join(" · ")),
  );
}

function nearLinks(names) {
  return names.flatMap((name, at) => [at > 0 ? ", " : null, el("a", { href: link([name]) }, foreign(name))]);
}
