// Changing and deleting keys, where the server allows it (--http-writable).

import { ask, button, element, size } from "./elements.js";

// Asks whether something is really meant; returns a promise of the answer.
export function confirmed(text, names) {
  const dialog = element("dialog", undefined, { "aria-labelledby": "confirm-title" });
  const list = element("ul");
  list.append(...names.slice(0, 10).map(name => element("li", name)));
  if (names.length > 10) list.append(element("li", `and ${names.length - 10} more`));
  const bar = element("div", undefined, { class: "bar" });
  const no = button("Cancel", () => dialog.close());
  bar.append(no, button("Delete", () => dialog.close("yes"), { class: "danger" }));
  dialog.append(element("h2", text, { id: "confirm-title" }), list, bar);
  document.body.append(dialog);
  dialog.showModal();
  no.focus();
  return new Promise(resolve => dialog.addEventListener("close", () => {
    dialog.remove();
    resolve(dialog.returnValue === "yes");
  }));
}

export const remove = (link, version) =>
  ask(link, { method: "DELETE", headers: version ? { "If-Match": version } : {} });

// Returns buttons that change a value, set its TTL and delete it; `shown` calls for the new state.
export function editor({ panel, value, link, name, shown, gone }) {
  const bar = element("div", undefined, { class: "bar edit" });
  const said = element("small", "", { role: "status" });
  const act = async (method, query, body, done) => {
    said.textContent = "";
    try {
      await ask(`${link}${query}`, { method, body, headers: { "If-Match": value.version } });
      await shown(done);
    } catch (error) {
      said.textContent = error.status === 412
        ? "Somebody else has changed it: toggle it to see how it is now" : `Not changed: ${error.message}`;
    }
  };
  // A text field would turn every CRLF into LF.
  if (value.may.set && !value.is_cut && value.text !== undefined && !value.text.includes("\r")) {
    bar.append(button("Edit", () => edit(panel, value, text => act("PUT", "&keepttl=1", text, "Saved"), said)));
  }
  if (value.may.expire) {
    const field = element("input", undefined, { type: "number", min: "1", max: "999999999999", step: "1", placeholder: "seconds", "aria-label": `Seconds to live of ${name}` });
    const set = () => {
      if (field.value > 0 && field.value < 1e12) act("PATCH", `&ttl=${field.value}`, undefined, "It has a TTL now");
      else said.textContent = "A TTL is a number of seconds from 1 to 999,999,999,999";
    };
    field.addEventListener("keydown", event => event.key === "Enter" && set());
    bar.append(field, button("Set TTL", set));
    if (value.ttl !== undefined) bar.append(button("Keep for ever", () => act("PATCH", "&ttl=none", undefined, "It has no TTL any more")));
  }
  if (value.may.delete) {
    bar.append(button("Delete", async () => {
      if (!await confirmed("Delete this key?", [name])) return;
      try {
        await remove(link, value.version);
        gone();
      } catch (error) {
        said.textContent = error.status === 412
          ? "Somebody else has changed it: toggle it to see how it is now" : `Not deleted: ${error.message}`;
      }
    }, { class: "danger" }));
  }
  bar.append(said);
  return bar;
}

function edit(panel, value, save, said) {
  const field = element("textarea", undefined, { rows: "10", spellcheck: "false", "aria-label": "Value" });
  field.value = value.text;
  const before = [...panel.children];
  const bar = element("div", undefined, { class: "bar" });
  const count = element("small");
  const tell = () => { count.textContent = size(new TextEncoder().encode(field.value).length); };
  field.addEventListener("input", tell);
  tell();
  bar.append(
    button("Save", () => save(field.value)),
    button("Cancel", () => {
      panel.replaceChildren(...before);
      [...panel.querySelectorAll("button")].find(each => each.textContent === "Edit")?.focus();
    }),
    count, said,
  );
  panel.replaceChildren(field, bar);
  field.focus();
}
