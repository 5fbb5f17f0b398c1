// The list of keys: a page at a time, searched as one types, with values fetched when toggled open.

import { confirmed, editor, remove } from "./editing.js";
import { ask, button, duration, element, size } from "./elements.js";
import { tree } from "./tree.js";
import { showValue } from "./value.js";

const COUNT = { list: 50, tree: 500 }; // keys on a page
const TYPING = 250; // milliseconds without a key press before a search starts
const WHOLE = 1000000; // bytes of a value that the server sends at most

class KvKeys extends HTMLElement {
  connectedCallback() {
    this.db = this.dataset.db;
    this.form = document.getElementById("search-form");
    this.field = document.getElementById("search");
    this.literal = this.dataset.prefix; // from an address; taken as it is until somebody types
    this.databases = "";
    this.list = element("ul");
    this.status = element("span", "", { role: "status" });
    this.back = button("Previous", () => this.turn(-1));
    this.next = button("Next", () => this.turn(1));
    this.pages = element("div", undefined, { class: "pages" });
    this.selected = new Map();
    this.deleting = button("", () => this.deleteSelected(), { class: "danger" });
    this.deleting.hidden = true;
    this.pages.append(this.status, this.back, this.next);
    this.addForms();
    this.form.addEventListener("submit", event => {
      event.preventDefault();
      this.search();
    });
    this.field.addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.search(), TYPING);
    });
    setInterval(() => document.hidden || this.tick(), 1000);
    for (const link of document.querySelectorAll("nav a[href*='cursor=']")) link.remove();
    this.cursors = [new URLSearchParams(location.search).get("cursor") ?? "0"];
    this.load(0);
  }

  // Adds the choice between a list and a tree, and what can be done with selected keys.
  addForms() {
    this.as = "list";
    const choice = element("div", undefined, { class: "choice", role: "group", "aria-label": "Show keys as" });
    for (const [form, label] of [["list", "List"], ["tree", "Tree"]]) {
      choice.append(button(label, pressed => {
        this.as = form;
        for (const each of choice.children) each.setAttribute("aria-pressed", each === pressed);
        this.cursors = ["0"];
        this.load(0);
      }, { "aria-pressed": form === "list" }));
    }
    const bar = element("div", undefined, { class: "bar" });
    bar.append(choice, this.deleting);
    this.form.after(bar);
  }

  search() {
    clearTimeout(this.typing);
    this.literal = "";
    const query = new URLSearchParams();
    if (this.field.value) query.set("search", this.field.value);
    if (this.db !== "0") query.set("db", this.db);
    history.replaceState(null, "", `/${String(query) && `?${query}`}`);
    this.cursors = ["0"];
    this.load(0);
  }

  turn(step) {
    this.load(this.number + step);
  }

  // Shows a page; `cursors` leads to all up to the one after it.
  async load(number) {
    this.fetching?.abort();
    const fetching = this.fetching = new AbortController();
    this.setAttribute("aria-busy", "true");
    const query = new URLSearchParams({ db: this.db, count: COUNT[this.as], cursor: this.cursors[number] });
    if (this.literal) query.set("prefix", this.literal);
    else if (this.field.value) query.set("search", this.field.value);
    try {
      const answer = await ask(`/api/keys?${query}`, { signal: fetching.signal });
      this.show(number, await answer.json());
    } catch (error) {
      if (fetching.signal.aborted) return;
      this.status.textContent = `The keys could not be fetched: ${error.message}`;
      if (!this.pages.isConnected) this.append(this.pages);
    }
    if (fetching === this.fetching) this.removeAttribute("aria-busy");
  }

  show(number, { keys, cursor, total }) {
    this.number = number;
    this.cursors.length = number + 1;
    if (cursor !== "0") this.cursors.push(cursor);
    const focused = [this.back, this.next].includes(document.activeElement);
    this.timed = [];
    this.select();
    const rows = keys.map((key, n) => ({ key, item: this.row(key, n) }));
    this.list.replaceChildren(...(this.as === "tree" ? tree(rows) : rows.map(row => row.item)));
    const parts = keys.length ? [this.list] : [element("p", "No keys.")];
    this.replaceChildren(...parts, this.pages);
    this.back.disabled = !number;
    this.next.disabled = cursor === "0";
    const all = `${total.toLocaleString("en")} in database ${this.db}`;
    this.status.textContent = `${keys.length} ${keys.length === 1 ? "key" : "keys"} on page ${number + 1}; ${all}`;
    if (focused) (this.next.disabled ? this.back : this.next).focus();
  }

  row(key, number) {
    const row = element("li");
    const head = element("div", undefined, { class: "row" });
    const toggle = button(key.key, () => {
      const open = toggle.getAttribute("aria-expanded") === "false";
      toggle.setAttribute("aria-expanded", open);
      panel.hidden = !open;
      if (open) this.open(state, panel, false);
      else panel.replaceChildren();
    }, { "aria-expanded": "false", "aria-controls": `value-${number}` });
    const remarks = element("small");
    const panel = element("div", undefined, { class: "value", id: `value-${number}` });
    panel.hidden = true;
    if (!key.key) toggle.setAttribute("aria-label", "the empty key");
    const state = { key, remarks, since: performance.now() };
    this.remark(state);
    if (key.ttl !== undefined) this.timed.push(state);
    if (key.size === undefined) toggle.disabled = true;
    Object.assign(state, { row, toggle });
    if (key.deletable) {
      const box = element("input", undefined, { type: "checkbox", "aria-label": `Select ${key.key}` });
      box.addEventListener("change", () => this.select(state, box.checked));
      head.append(box);
    }
    head.append(toggle, remarks);
    row.append(head, panel);
    return row;
  }

  // Where a key is changed: not by its path, which browsers shorten if it is `.` or `..`.
  link(key) {
    return `/api/value?db=${this.db}&key=${key.quoted}`;
  }

  // Keeps what is selected; without a row, nothing is any more.
  select(state, chosen) {
    if (!state) this.selected.clear();
    else if (chosen) this.selected.set(state, this.link(state.key));
    else this.selected.delete(state);
    this.deleting.hidden = !this.selected.size;
    this.deleting.textContent = `Delete ${this.selected.size} selected…`;
  }

  async deleteSelected() {
    const chosen = [...this.selected];
    const question = chosen.length === 1 ? "Delete this key?" : `Delete these ${chosen.length} keys?`;
    if (!await confirmed(question, chosen.map(([{ key }]) => key.key))) return;
    let deleted = 0;
    try {
      for (const [state, link] of chosen) {
        await remove(link, state.key.version).catch(error => { if (error.status !== 404) throw error; });
        state.row.remove();
        this.select(state, false);
        deleted += 1;
      }
      this.status.textContent = `${deleted} ${deleted === 1 ? "key" : "keys"} deleted`;
    } catch (error) {
      const text = error.status === 412 ? "somebody else has changed the next one" : error.message;
      this.status.textContent = `${deleted} of ${chosen.length} deleted; then: ${text}`;
    }
  }

  remark({ key, remarks, since }) {
    if (key.size === undefined) {
      remarks.textContent = key.quoted ? "no permission to read it" : "the name is too long for this page";
      return;
    }
    const parts = [size(key.size)];
    if (key.ttl !== undefined) {
      const left = key.ttl - (performance.now() - since) / 1000;
      parts.push(left > 0 ? `expires in ${duration(left)}` : "has expired");
    }
    const text = parts.join(", ");
    if (remarks.textContent !== text) remarks.textContent = text;
  }

  tick() {
    for (const state of this.timed ?? []) this.remark(state);
  }

  async open(state, panel, whole) {
    const { key } = state;
    const link = `/keys/${key.quoted}?db=${this.db}`;
    if (!whole) panel.replaceChildren(element("p", "Fetching the value…"));
    try {
      const answer = await ask(`/api/value?db=${this.db}&key=${key.quoted}${whole ? "&whole=1" : ""}`);
      const value = await answer.json();
      Object.assign(key, { size: value.size, ttl: value.ttl });
      state.since = performance.now();
      if (key.ttl !== undefined && !this.timed.includes(state)) this.timed.push(state);
      this.remark(state);
      const more = whole || value.size > WHOLE ? undefined : () => this.open(state, panel, true);
      showValue(panel, value, more, link);
      if (!value.may) return;
      panel.append(editor({
        panel, value, link: this.link(key), name: key.key,
        shown: async done => {
          await this.open(state, panel, whole);
          panel.querySelector(".edit small").textContent = done;
          state.toggle.focus();
        },
        gone: () => {
          (state.row.nextElementSibling ?? state.row.previousElementSibling)?.querySelector("button")?.focus();
          state.row.remove();
          this.select(state, false);
          this.status.textContent = `${key.key} was deleted`;
        },
      }));
    } catch (error) {
      const text = error.status === 404 ? "the key is not there any more" : error.message;
      panel.replaceChildren(element("p", `Not shown: ${text}`, { role: "alert" }));
    }
  }

  // Shows the present page anew: the server was away.
  reload() {
    this.load(this.number ?? 0);
  }

  // Keeps the links to the databases up to date: those that have keys, and the one that is shown.
  showDatabases(found) {
    const numbers = [...new Set(["0", this.db, ...Object.keys(found)])].sort((a, b) => a - b);
    if (String(numbers) === this.databases) return;
    this.databases = String(numbers);
    const line = element("p");
    for (const db of numbers.length > 1 ? numbers : []) {
      line.append(db === this.db
        ? element("strong", `Database ${db}`)
        : element("a", `Database ${db}`, { href: `/?db=${db}` }), " ");
    }
    document.getElementById("databases").replaceChildren(...(line.children.length ? [line] : []));
  }
}

customElements.define("kv-keys", KvKeys);
