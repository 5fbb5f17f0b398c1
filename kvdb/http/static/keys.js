// The list of keys: a page at a time, searched as one types, with values fetched when toggled open.

import { duration, showValue, size } from "./value.js";

const COUNT = 50; // keys on a page
const TYPING = 250; // milliseconds without a key press before a search starts
const WHOLE = 1000000; // bytes of a value that the server sends at most

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

class KvKeys extends HTMLElement {
  connectedCallback() {
    this.db = this.dataset.db;
    this.form = document.getElementById("search-form");
    this.field = document.getElementById("search");
    this.literal = this.dataset.prefix; // from an address; taken as it is until somebody types
    this.databases = "";
    this.list = element("ul");
    this.status = element("span", "", { role: "status" });
    this.back = element("button", "Previous", { type: "button" });
    this.next = element("button", "Next", { type: "button" });
    this.back.addEventListener("click", () => this.turn(-1));
    this.next.addEventListener("click", () => this.turn(1));
    this.pages = element("div", undefined, { class: "pages" });
    this.pages.append(this.status, this.back, this.next);
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
    const query = new URLSearchParams({ db: this.db, count: COUNT, cursor: this.cursors[number] });
    if (this.literal) query.set("prefix", this.literal);
    else if (this.field.value) query.set("search", this.field.value);
    try {
      const answer = await fetch(`${location.origin}/api/keys?${query}`, { signal: fetching.signal });
      if (!answer.ok) throw new Error((await answer.text()).trim() || `error ${answer.status}`);
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
    this.list.replaceChildren(...keys.map((key, n) => this.row(key, n)));
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
    const toggle = element("button", key.key, { type: "button", "aria-expanded": "false", "aria-controls": `value-${number}` });
    const remarks = element("small");
    const panel = element("div", undefined, { class: "value", id: `value-${number}` });
    panel.hidden = true;
    if (!key.key) toggle.setAttribute("aria-label", "the empty key");
    const state = { key, remarks, since: performance.now() };
    this.remark(state);
    if (key.ttl !== undefined) this.timed.push(state);
    if (key.size === undefined) toggle.disabled = true;
    toggle.addEventListener("click", () => {
      const open = toggle.getAttribute("aria-expanded") === "false";
      toggle.setAttribute("aria-expanded", open);
      panel.hidden = !open;
      if (open) this.open(state, panel, false);
      else panel.replaceChildren();
    });
    head.append(toggle, remarks);
    row.append(head, panel);
    return row;
  }

  remark({ key, remarks, since }) {
    if (key.size === undefined) {
      remarks.textContent = "no permission to read it";
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
      const answer = await fetch(`${location.origin}/api/value?db=${this.db}&key=${key.quoted}${whole ? "&whole=1" : ""}`);
      if (answer.status === 404) throw new Error("the key is not there any more");
      if (!answer.ok) throw new Error((await answer.text()).trim() || `error ${answer.status}`);
      const value = await answer.json();
      Object.assign(key, { size: value.size, ttl: value.ttl });
      state.since = performance.now();
      if (key.ttl !== undefined && !this.timed.includes(state)) this.timed.push(state);
      this.remark(state);
      const more = whole || value.size > WHOLE ? undefined : () => this.open(state, panel, true);
      showValue(panel, value, more, link);
    } catch (error) {
      panel.replaceChildren(element("p", `Not shown: ${error.message}`, { role: "alert" }));
    }
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
