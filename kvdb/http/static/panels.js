// Panels about the server: what is on disk, who is connected, what took long. Fetched while open.

import { ask, duration, element, size } from "./elements.js";

const EVERY = 2000; // milliseconds between two fetches of an open panel

const moment = seconds => new Date(seconds * 1000).toLocaleString();
const milliseconds = microseconds => `${(microseconds / 1000).toLocaleString("en", { maximumFractionDigits: 1 })} ms`;

class Panel {
  constructor(title) {
    this.box = element("details", undefined, { class: "panel" });
    this.body = element("div", undefined, { class: "panel-body" });
    this.box.append(element("summary", title), this.body);
    this.box.addEventListener("toggle", () => this.box.open && this.figures && this.refresh(this.figures, true));
  }

  // Shows the present state if the panel is open; called with the figures of each event.
  async refresh(figures, atOnce = false) {
    this.figures = figures;
    if (!this.box.open || this.busy || (!atOnce && performance.now() < this.next)) return;
    this.busy = true;
    this.next = performance.now() + EVERY;
    try {
      await this.fill(figures);
    } catch (error) {
      this.body.replaceChildren(element("p", `Not shown: ${error.message}`));
    }
    this.busy = false;
  }

  table(caption, heads, rows, empty) {
    if (!rows.length) return this.body.replaceChildren(element("p", empty));
    const table = element("table");
    const head = element("tr");
    head.append(...heads.map(text => element("th", text, { scope: "col" })));
    const thead = element("thead");
    thead.append(head);
    const tbody = element("tbody");
    for (const row of rows) {
      const line = element("tr");
      line.append(...row.map(text => element("td", text)));
      tbody.append(line);
    }
    table.append(element("caption", caption), thead, tbody);
    const place = element("div", undefined, { class: "wide", tabindex: "0", role: "region", "aria-label": caption });
    place.append(table);
    const { scrollLeft = 0, scrollTop = 0 } = this.body.firstElementChild ?? {};
    const focused = this.body.firstElementChild === document.activeElement;
    this.body.replaceChildren(place);
    [place.scrollLeft, place.scrollTop] = [scrollLeft, scrollTop];
    if (focused) place.focus();
  }
}

class Saving extends Panel {
  constructor() {
    super("On disk");
  }

  fill(figures) {
    const saving = figures.persistence;
    if (!saving) return this.body.replaceChildren(element("p", "Nothing is kept on disk: all is lost when the server ends."));
    const rows = [
      ["File", saving.file],
      ["How", figures.durability],
      ["Now", saving.error ? "failing" : saving.in_progress ? "saving" : "all is well"],
      ["Last saved", figures.last_save ? `${moment(figures.last_save)}, ${duration(figures.time - figures.last_save)} ago` : "not yet"],
      ["It took", saving.last_duration_seconds == null ? "–" : milliseconds(saving.last_duration_seconds * 1e6)],
      ["Not saved yet", `${figures.changes_since_save.toLocaleString("en")} changes, the oldest ${duration(figures.unsaved_age_seconds)} old`],
    ];
    if (saving.error) rows.push(["Failing", saving.error], ["Since", moment(saving.failing_since)]);
    const list = element("dl", undefined, { class: "facts" });
    for (const [name, text] of rows) list.append(element("dt", name), element("dd", text));
    this.body.replaceChildren(list);
  }
}

class Clients extends Panel {
  constructor() {
    super("Clients");
  }

  async fill() {
    const { clients, total } = await (await ask("/api/clients")).json();
    const left = total > clients.length ? `; the ${clients.length} that were active last` : "";
    this.table(
      `${total.toLocaleString("en")} connected${left}`,
      ["Address", "Name", "Protocol", "User", "Connected for", "Idle for", "Requests", "Last command", "Holds"],
      clients.map(client => [
        client.address, client.name || client.library || "–", client.protocol, client.user,
        duration(client.age_seconds), duration(client.idle_seconds), client.requests.toLocaleString("en"),
        client.last_command, size(client.held_bytes),
      ]),
      "Nobody is connected.",
    );
  }
}

class SlowRequests extends Panel {
  constructor() {
    super("Slow requests");
  }

  async fill() {
    const { requests, threshold_microseconds: threshold } = await (await ask("/api/slowlog")).json();
    const limit = threshold < 0 ? "none are noted" : `${milliseconds(threshold)} or more`;
    this.table(
      `The latest that took ${limit}`,
      ["When", "Took", "Request", "Client"],
      requests.map(each => [
        moment(each.at), milliseconds(each.microseconds), each.request,
        each.name ? `${each.address} (${each.name})` : each.address,
      ]),
      threshold < 0 ? "The slow log is off." : `No request took ${limit}.`,
    );
  }
}

// Adds the panels to a section; returns them.
export function addPanels(section) {
  const panels = [new Saving(), new Clients(), new SlowRequests()];
  section.append(...panels.map(panel => panel.box));
  section.hidden = false;
  return panels;
}
