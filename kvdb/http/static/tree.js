// The keys of a page as a tree: what stands before a colon is a branch.

import { button, element } from "./elements.js";

// Returns branches and leaves of rows whose keys begin alike up to `depth` colons.
function split(rows, depth) {
  const branches = new Map();
  const leaves = [];
  for (const row of rows) {
    const parts = row.key.key.split(":");
    if (parts.length <= depth + 1) {
      leaves.push(row);
      continue;
    }
    const name = parts[depth];
    if (!branches.has(name)) branches.set(name, []);
    branches.get(name).push(row);
  }
  return { branches, leaves };
}

// Returns list items: a branch of one key is the key itself. Each row is { key, item }.
export function tree(rows, depth = 0) {
  const { branches, leaves } = split(rows, depth);
  const items = [];
  for (const [name, below] of [...branches].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (below.length === 1) leaves.push(below[0]);
    else items.push(branch(below[0].key.key.split(":").slice(0, depth + 1).join(":"), name, below, depth));
  }
  leaves.sort((a, b) => (a.key.key < b.key.key ? -1 : 1));
  return [...items, ...leaves.map(row => row.item)];
}

function branch(path, name, rows, depth) {
  const item = element("li", undefined, { class: "branch" });
  const head = element("div", undefined, { class: "row" });
  const list = element("ul");
  list.hidden = true;
  const toggle = button(`${name}:`, () => {
    const open = toggle.getAttribute("aria-expanded") === "false";
    toggle.setAttribute("aria-expanded", open);
    list.hidden = !open;
    if (open && !list.children.length) list.append(...tree(rows, depth + 1));
  }, { "aria-expanded": "false", "aria-label": `${path}:, ${rows.length} keys on this page` });
  head.append(toggle, element("small", `${rows.length} keys on this page`));
  item.append(head, list);
  return item;
}
