// Charts as SVG: up to four lines over the last five minutes or the last hour.

const STYLES = ["first", "second", "third", "fourth"];
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 360, HEIGHT = 130, LEFT = 44, RIGHT = 6, TOP = 8, BOTTOM = 20;
const RANGES = {
  seconds: { label: "5 minutes", length: 300, gap: 4, ticks: ["5 min ago", "2½ min", "now"] },
  spans: { label: "1 hour", length: 3600, gap: 40, ticks: ["1 h ago", "30 min", "now"] },
};
const CHARTS = [
  { title: "Requests per second", lines: { main: "Redis, JSON, telnet", memcached: "memcached", http: "HTTP", haus: "Haus" }, text: rate, sparse: true },
  { title: "Time of a request", lines: { p50_microseconds: "median", p99_microseconds: "99 % within" }, text: time },
  { title: "Hits and misses per second", lines: { hits: "hits", misses: "misses" }, text: rate },
  { title: "Memory", lines: { used_bytes: "of the budget", resident_bytes: "resident" }, text: bytes },
  { title: "Keys", lines: { keys: "keys" }, text: rate },
  { title: "Clients", lines: { clients: "clients" }, text: rate },
  { title: "Network per second", lines: { received_bytes: "received", sent_bytes: "sent" }, text: bytes },
  { title: "Writes at risk", lines: { unsaved_seconds: "old is the oldest" }, text: seconds },
  { title: "Evicted and expired per second", lines: { evicted: "evicted", expired: "expired" }, text: rate },
];

function rate(number) {
  if (number >= 1e6) return `${+(number / 1e6).toPrecision(3)} M`;
  if (number >= 1e4) return `${+(number / 1e3).toPrecision(3)} k`;
  return String(number < 10 ? Math.round(number * 10) / 10 : Math.round(number));
}

function time(microseconds) {
  for (const unit of ["µs", "ms"]) {
    if (microseconds < 999.5) return `${+microseconds.toPrecision(3)} ${unit}`;
    microseconds /= 1000;
  }
  return `${+microseconds.toPrecision(3)} s`;
}

function seconds(number) {
  return `${+number.toPrecision(3)} s`;
}

function bytes(number) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (number < 1000) return `${+number.toPrecision(3)} ${unit}`;
    number /= 1024;
  }
  return `${+number.toPrecision(3)} TB`;
}

// Returns a number at or above `most` that divides well, so that the scale does not wobble.
function ceiling(most, text) {
  const base = text === bytes ? 1024 ** Math.floor(Math.log2(Math.max(most, 1)) / 10) : 1;
  const scaled = Math.max(most / base, text === bytes ? 1 : 2);
  const power = 10 ** Math.floor(Math.log10(scaled));
  const step = [1, 2, 4, 6, 8, 10].find(each => scaled <= each * power);
  return step * power * base;
}

function shape(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

class KvChart extends HTMLElement {
  start(chart) {
    this.chart = chart;
    this.range = "seconds";
    const title = document.createElement("h3");
    title.textContent = chart.title;
    this.legend = document.createElement("p");
    this.svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
    this.append(title, this.legend, this.svg);
    this.svg.addEventListener("pointermove", event => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.point(null));
  }

  draw(history, now) {
    this.history = history;
    this.now = now;
    const { text } = this.chart;
    const { length, gap, ticks } = RANGES[this.range];
    const rows = history[this.range].filter(row => row[0] > now - length);
    const place = name => history.columns.indexOf(name);
    // In a sparse chart, what has always been 0 has no line, unless it is the first.
    this.lines = Object.entries(this.chart.lines)
      .filter(([name], number) => !number || !this.chart.sparse || rows.some(row => row[place(name)]));
    const columns = this.lines.map(([name]) => place(name));
    const most = rows.reduce((top, row) => Math.max(top, ...columns.map(c => row[c] ?? 0)), 0);
    const top = ceiling(most, text);
    const x = at => LEFT + (WIDTH - LEFT - RIGHT) * (1 - (now - at) / length);
    const y = value => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
    const parts = [];
    for (const share of [0, 0.5, 1]) {
      const height = y(top * share);
      parts.push(shape("line", { class: "rule", x1: LEFT, x2: WIDTH - RIGHT, y1: height, y2: height }));
      parts.push(shape("text", { x: LEFT - 5, y: height + 4, "text-anchor": "end" }, text(top * share)));
    }
    ticks.forEach((tick, number) => parts.push(shape("text", {
      x: LEFT + (WIDTH - LEFT - RIGHT) * number / 2, y: HEIGHT - 4,
      "text-anchor": ["start", "middle", "end"][number],
    }, tick)));
    columns.forEach((column, number) => {
      for (const run of runs(rows, column, gap)) {
        const points = run.map(row => `${x(row[0]).toFixed(1)},${y(row[column]).toFixed(1)}`);
        const base = y(0).toFixed(1);
        if (!number) {
          const [start, end] = [points[0], points.at(-1)].map(point => point.split(",")[0]);
          parts.push(shape("polygon", { class: "area", points: `${start},${base} ${points.join(" ")} ${end},${base}` }));
        }
        parts.push(shape("polyline", { class: `line ${STYLES[number]}`, points: points.join(" ") }));
      }
    });
    this.cross = shape("line", { class: "cross", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
    this.svg.replaceChildren(...parts, this.cross);
    this.rows = rows;
    this.columns = columns;
    this.x = x;
    this.svg.setAttribute("aria-label", this.describe(rows.at(-1), most));
    this.tell();
  }

  describe(last, most) {
    if (!last) return `${this.chart.title}: no samples so far`;
    const now = this.lines.map(([, label], n) => `${this.number(last, n)} ${label}`);
    return `${this.chart.title}, last ${RANGES[this.range].label}: now ${now.join(", ")}; ` +
      `at most ${this.chart.text(most)}`;
  }

  number(row, n) {
    const value = row[this.columns[n]];
    return value === null ? "–" : this.chart.text(value);
  }

  // Shows what the lines mean, with the numbers of the moment that is pointed at, or the last.
  tell() {
    const row = this.pointed === undefined ? this.rows.at(-1) : this.nearest(this.pointed);
    const parts = this.lines.map(([, label], n) => {
      const part = document.createElement("span");
      part.className = STYLES[n];
      part.textContent = !row ? label : label === "99 % within" ? `${label} ${this.number(row, n)}` : `${this.number(row, n)} ${label}`;
      return part;
    });
    if (row && this.pointed !== undefined) {
      const time = document.createElement("span");
      time.textContent = new Date(row[0] * 1000).toLocaleTimeString();
      parts.push(time);
      const place = this.x(row[0]).toFixed(1);
      for (const [name, value] of Object.entries({ x1: place, x2: place, visibility: "visible" })) {
        this.cross.setAttribute(name, value);
      }
    }
    this.legend.replaceChildren(...parts);
  }

  nearest(place) {
    const distance = row => Math.abs(this.x(row[0]) - place);
    return this.rows.reduce((best, row) => best && distance(best) <= distance(row) ? best : row, undefined);
  }

  point(event) {
    if (!this.rows) return;
    const box = this.svg.getBoundingClientRect();
    this.pointed = event ? (event.clientX - box.left) * WIDTH / box.width : undefined;
    if (!event) this.cross.setAttribute("visibility", "hidden");
    this.tell();
  }
}

// Yields stretches without a gap: no line is drawn over a time of which nothing is known.
function* runs(rows, column, gap) {
  let run = [];
  for (const row of rows) {
    if (run.length && row[0] - run.at(-1)[0] > gap) {
      yield run;
      run = [];
    }
    if (row[column] !== null) run.push(row);
  }
  if (run.length) yield run;
}

customElements.define("kv-chart", KvChart);

// Adds all charts, with a choice of their range, to a section; returns them.
export function addCharts(section) {
  const bar = document.createElement("div");
  bar.className = "bar";
  const choice = document.createElement("div");
  choice.className = "choice";
  choice.setAttribute("role", "group");
  choice.setAttribute("aria-label", "Range of the charts");
  const grid = document.createElement("div");
  grid.className = "grid";
  const charts = CHARTS.map(chart => {
    const element = document.createElement("kv-chart");
    element.start(chart);
    grid.append(element);
    return element;
  });
  const buttons = Object.entries(RANGES).map(([range, { label }]) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.setAttribute("aria-pressed", range === "seconds");
    button.addEventListener("click", () => {
      for (const each of buttons) each.setAttribute("aria-pressed", each === button);
      for (const chart of charts) {
        chart.range = range;
        if (chart.history) chart.draw(chart.history, chart.now);
      }
    });
    return button;
  });
  choice.append(...buttons);
  bar.append(section.firstElementChild, choice);
  section.append(bar, grid);
  section.hidden = false;
  return charts;
}
