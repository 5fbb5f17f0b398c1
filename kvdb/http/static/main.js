// Keeps the figures and charts of the page up to date: asks each second while it is visible.

import { addCharts } from "./chart.js";
import "./keys.js";

const EVERY = 1000; // milliseconds
const LONGEST_WAIT = 10000; // between attempts to reach a server that does not answer
const PATIENCE = 5000; // for one answer
const KEPT = { seconds: 300, spans: 300 };

const history = { seconds: [], spans: [], columns: [] };
const verdict = document.getElementById("verdict");
const keys = document.querySelector("kv-keys");
let charts = [];
let timer = 0;
let failures = 0;
let asking = false;

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

async function ask() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  try {
    // A span is as young as its last second, so this asks for new spans, too.
    const since = history.seconds.at(-1)?.[0] ?? 0;
    // With the origin, because an address that holds a password is refused.
    const answer = await fetch(`${location.origin}/api/stats${since ? `?since=${since}` : ""}`, {
      signal: AbortSignal.timeout(PATIENCE),
    });
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    show(await answer.json());
    failures = 0;
    note.textContent = automatic.checked ? "" : "Paused";
  } catch (error) {
    failures += 1;
    say("trouble", "No answer from the server; trying again");
  } finally {
    asking = false;
    plan();
  }
}

function plan() {
  clearTimeout(timer);
  if (document.hidden || (!automatic.checked && !failures)) return;
  timer = setTimeout(ask, Math.min(EVERY * 2 ** failures, LONGEST_WAIT));
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
    if (automatic.checked) ask();
    else plan();
  });
}

if (verdict) {
  addRefresh();
  charts = addCharts(document.getElementById("charts"));
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else if (automatic.checked || failures) ask();
  });
  ask();
}

document.addEventListener("keydown", event => {
  const typing = event.target.closest?.("input, textarea, select");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    document.getElementById("search").focus();
  }
});
