// What the page shows, as its address says: #task=NAME, #task=NAME&task=OTHER, #task=NAME&group=GROUP.

export function read() {
  const said = new URLSearchParams(location.hash.slice(1));
  return { names: [...new Set(said.getAll("task"))], group: said.get("group") };
}

export function link(names, group = null) {
  const parts = names.map((name) => `task=${encodeURIComponent(name)}`);
  if (group !== null) parts.push(`group=${encodeURIComponent(group)}`);
  return `#${parts.join("&")}`;
}

/** The address with a task more to compare, or one less; the first task that is chosen is opened. */
export function toggled(name) {
  const { names } = read();
  return link(names.includes(name) ? names.filter((one) => one !== name) : [...names, name]);
}
