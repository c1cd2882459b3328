// Requests to this server, with the API key if there is one, and its errors as they are.

const PLACE = "weft-api-key";
let key = stored();

function stored() {
  try {
    return sessionStorage.getItem(PLACE) ?? "";
  } catch {
    return ""; // a browser that keeps nothing: the key lasts as long as the page
  }
}

export const hasKey = () => key !== "";

/** Keep the key until the tab is closed; an empty one forgets it. */
export function keepKey(text) {
  key = text;
  try {
    if (text) sessionStorage.setItem(PLACE, text);
    else sessionStorage.removeItem(PLACE);
  } catch {
    // as above
  }
}

/** An error of the server: what it says, and what it says beside. */
export class Problem extends Error {
  constructor(message, about = {}) {
    super(message);
    Object.assign(this, { status: 0, code: null, param: null, near: [], retryAfter: null, ...about });
  }
}

export const pathOf = (name) => `v1/models/${encodeURIComponent(name)}`;

/** A reply as JSON; with a body it is a POST. */
export async function ask(path, { body, signal } = {}) {
  return (await reply(path, { body, signal })).json();
}

export async function askText(path) {
  return (await reply(path)).text();
}

/** The events of a stream, one by one, until it says that it is done. */
export async function* events(path, { body, signal }) {
  const reader = (await reply(path, { body, signal })).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch(cannotReach);
    if (done) throw new Problem("The stream ended before the answer did.");
    const whole = (rest + value).split("\n\n");
    rest = whole.pop();
    for (const event of whole) {
      const told = event.replace(/^data: /, "");
      if (told === "[DONE]") return;
      const said = JSON.parse(told);
      if (said.error) throw problemOf(said, 0, null);
      yield said;
    }
  }
}

async function reply(path, { body, signal } = {}) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  if (body !== undefined) headers["content-type"] = "application/json";
  const how = { method: body === undefined ? "GET" : "POST", headers, signal, cache: "no-store" };
  if (body !== undefined) how.body = JSON.stringify(body);
  const found = await fetch(path, how).catch(cannotReach);
  if (found.ok) return found;
  const said = await found.json().catch(() => ({}));
  throw problemOf(said, found.status, found.headers.get("retry-after"));
}

function cannotReach(error) {
  if (error.name === "AbortError") throw error;
  throw new Problem("The server cannot be reached. See whether it runs, and what its log says.");
}

function problemOf(said, status, retryAfter) {
  const { message, code, param } = said.error ?? {};
  const text = message ?? said.why ?? `The server answered with status ${status}.`;
  return new Problem(text, { status, code, param, near: said.near ?? [], retryAfter });
}
