// Keeps the figures and charts of the page up to date: by events of the server, while it is visible.

import { addCharts } from "./chart.js";
import "./keys.js";
import { addPanels } from "./panels.js";

const EVERY = 500; // milliseconds before the first attempt to reach a server that does not answer
const LONGEST_WAIT = 10000; // between two attempts
const SHORTLY = 1500; // for a connection that the browser makes anew
const PATIENCE = 5000; // for one event, of which there is one a second
const KEPT = { seconds: 300, spans: 300 };

const history = { seconds: [], spans: [], columns: [] };
const verdict = document.getElementById("verdict");
const keys = document.querySelector("kv-keys");
let charts = [];
let panels = [];
let source = null; // of events
let timer = 0;
let failures = 0;

const automatic = document.createElement("input");
const note = document.createElement("span");
note.setAttribute("role", "status");

function say(level, text) {
  const line = verdict.firstElementChild;
  verdict.className = level;
  line.setAttribute("role", level === "trouble" ? "alert" : "status");
  if (line.textContent !== text) line.textContent = text;
}

function show(figures) {
  say(figures.verdict.level, figures.verdict.text);
  for (const tile of figures.tiles) {
    const [value, remark] = document.getElementById(`tile-${tile.name}`).lastElementChild.children;
    if (value.textContent !== tile.value) value.textContent = tile.value;
    if (remark.textContent !== tile.remark) remark.textContent = tile.remark;
  }
  document.querySelector("header p").hidden = true; // it does not move, and the tiles tell it
  remember(figures.history, figures.time);
  for (const chart of charts) chart.draw(history, figures.time);
  for (const panel of panels) panel.refresh(figures);
  keys.showDatabases(figures.databases);
}

function remember(added, now) {
  if (now < history.seconds.at(-1)?.[0]) [history.seconds, history.spans] = [[], []]; // the clock was set
  history.columns = added.columns;
  for (const kind of ["seconds", "spans"]) {
    const known = history[kind].at(-1)?.[0] ?? 0;
    history[kind].push(...added[kind].filter(row => row[0] > known));
    history[kind].splice(0, Math.max(0, history[kind].length - KEPT[kind]));
  }
}

// Listens to the server's events. The browser connects anew by itself; where it gives up, or hears
// nothing for a while, we do.
function listen() {
  stop();
  const since = history.seconds.at(-1)?.[0];
  // With the origin, because an address that holds a password is refused.
  source = new EventSource(`${location.origin}/api/events${since ? `?since=${since}` : ""}`);
  source.addEventListener("message", event => {
    if (failures) keys.reload();
    failures = 0;
    show(JSON.parse(event.data));
    note.textContent = "";
    watch(PATIENCE);
  });
  source.addEventListener("error", () => {
    if (source?.readyState === EventSource.CLOSED) fail();
    else watch(SHORTLY); // it connects anew, as each minute
  });
  watch(PATIENCE);
}

function watch(milliseconds) {
  clearTimeout(timer);
  timer = setTimeout(fail, milliseconds);
}

function fail() {
  stop();
  failures += 1;
  say("trouble", "No answer from the server; trying again");
  timer = setTimeout(listen, Math.min(EVERY * 2 ** failures, LONGEST_WAIT));
}

function stop() {
  clearTimeout(timer);
  source?.close();
  source = null;
}

function addRefresh() {
  const place = document.getElementById("refresh");
  const label = document.createElement("label");
  automatic.type = "checkbox";
  automatic.id = "automatic";
  automatic.checked = true;
  label.append(automatic, "Refresh each second");
  place.append(note, label);
  place.hidden = false;
  automatic.addEventListener("change", () => {
    note.textContent = automatic.checked ? "" : "Paused";
    if (automatic.checked) listen();
    else stop();
  });
}

if (verdict) {
  addRefresh();
  charts = addCharts(document.getElementById("charts"));
  panels = addPanels(document.getElementById("panels"));
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) stop();
    else if (automatic.checked) listen();
  });
  listen();
}

document.addEventListener("keydown", event => {
  const typing = event.target.closest?.("input, textarea, select");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    document.getElementById("search").focus();
  }
});
