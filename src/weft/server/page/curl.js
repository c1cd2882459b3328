// The request that was just asked, as a command for a shell.

import { hasKey } from "./api.js";
import { el } from "./dom.js";

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** The command; the key is not written out, but named as a variable. */
export function command(path, body) {
  const lines = [
    `curl ${body.stream ? "-N " : ""}${quoted(new URL(path, document.baseURI).href)}`,
    "-H 'Content-Type: application/json'",
    hasKey() ? '-H "Authorization: Bearer $WEFT_API_KEY"' : null,
    `-d ${quoted(JSON.stringify(body))}`,
  ];
  return lines.filter(Boolean).join(" \\\n  ");
}

export function curl(path, body) {
  const code = el("pre", { tabindex: "0", "aria-label": "Command" }, command(path, body));
  const done = el("span", { role: "status", class: "quiet" });
  const copy = el("button", { type: "button", onclick: () => copied(code, done) }, "Copy");
  return el("details", { class: "curl" }, el("summary", {}, "The same with curl"), code, el("p", {}, copy, " ", done));
}

/** Browsers let pages copy at this machine's own address or over HTTPS; elsewhere the text is selected. */
async function copied(code, done) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    done.textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren(code);
    done.textContent = "Selected: copy it with Ctrl+C.";
  }
}
