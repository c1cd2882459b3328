// Elements from names, attributes and texts. A text only ever becomes a text node, never markup.

/** An element. `onclick` and the like are listeners; false, null and undefined leave an attribute out. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child != null && child !== false));
  return made;
}

/** A text of somebody else's, kept apart from the direction of what stands around it. */
export const foreign = (text, tag = "bdi", attributes = {}) =>
  el(tag, { dir: "auto", ...attributes }, String(text));

export const byId = (id) => document.getElementById(id);

export const number = (value, digits = 0) =>
  Number(value).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

export const percent = (share) => `${number(100 * share, 1)} %`;

/** A number with its noun: "1 token", "2 tokens". */
export const counted = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
