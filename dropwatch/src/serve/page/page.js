// The live page: reads events, and shows them. Whatever comes from outside is text, never markup.
"use strict";

const CLASSES = ["lost", "refused", "harmless"];
/** How many intervals a sparkline shows, and the chart. */
const SPARK = 60, CHART = 300;
/** How many rows are shown of a class, and kept in all. What is not shown is summed. */
const SHOWN = 100, KEPT = 1000;
/** What a row has besides its names. */
const FIGURES = new Set(["count", "rate", "total", "peak", "class", "meaning", "evidence"]);

const state = { run: null, number: null, report: null, moments: [], rows: new Map(), arrived: null, interval: 1, open: new Set(), isUnfolded: false };
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

/** Text without what changes how other text is read: controls, and marks of direction. */
function plain(value) {
  return String(value).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (mark) => `\\u{${mark.codePointAt(0).toString(16)}}`);
}

/** An element with text, or with elements in it. */
function element(name, content = "", className = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (Array.isArray(content)) made.append(...content); else made.textContent = plain(content);
  return made;
}

function show(id, text) {
  const shown = plain(text), place = byId(id);
  if (place.textContent !== shown) place.textContent = shown;
}

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const number = (value) => (value < 1e7 ? grouped.format(value) : short.format(value));
const rate = (value) => (value > 0 && value < 10 ? value.toFixed(1) : number(value));
const clock = (time) => new Date(time).toLocaleTimeString([], { hour12: false });

// What a row is called.

const inModule = (name, module) => (module && module !== "kernel" ? `${name} [${module}]` : name);
const NAMES = {
  location: (it) => (it.symbol === null ? it.address : inModule(`${it.symbol}+0x${(it.offset ?? 0).toString(16)}`, it.module)),
  function: (it) => inModule(it.symbol, it.module),
  reason: (it) => it.name ?? `${it.subsystem ?? "reason"} ${it.code}`,
  iface: (it) => (it.name ?? `#${it.index}`) + (it.netns ? ` in ${NAMES.netns(it.netns)}` : ""),
  netns: (it) => it.name ?? `netns ${it.inum}`,
  process: (it) => (it.pid === null ? it.comm : `${it.comm}[${it.pid}]`),
  container: (it) => it.name,
  socket: (it) => [it.protocol, it.local, it.remote, it.state].filter((word) => word).join(" "),
};

function nameOf(key, value) {
  if (value === null || value === undefined) return "-";
  if (typeof value !== "object") return String(value);
  return NAMES[key] ? NAMES[key](value) : JSON.stringify(value);
}

/** The names of a row, in the order of its labels. */
function namesOf(row) {
  return Object.entries(row).filter(([key]) => !FIGURES.has(key)).map(([key, value]) => [key, nameOf(key, value)]);
}

// What comes in.

const momentOf = ([ended, elapsed, drops]) => ({ ended, elapsed, drops });

function receive(event) {
  if (event.history) state.moments = event.history.map(momentOf);
  show("host", event.host);
  if (event.run !== state.run) forget(event.run);
  if (event.report === null) return;
  state.arrived = performance.now();
  if (event.history || event.number !== state.number) state.moments.push(momentOf(event.last));
  state.moments.splice(0, state.moments.length - CHART);
  // A repeated report comes with a new connection.
  if (event.number === state.number) return;
  const missed = state.number === null ? 0 : event.number - state.number - 1;
  state.number = event.number;
  state.report = event.report;
  state.interval = Math.max(0.1, Math.round(event.report.elapsed_s * 10) / 10);
  count(event.report.rows, Math.min(missed, SPARK));
  if (!byId("pause").checked) draw();
}

/** A new run counts from zero. */
function forget(run) {
  state.run = run;
  state.rows.clear();
  state.open.clear();
  state.number = null;
}

/** Adds a report's rows to those that are known. */
function count(rows, missed) {
  for (const known of state.rows.values()) {
    for (let step = 0; step <= missed; step += 1) known.ticks.push(0);
    known.ticks.splice(0, known.ticks.length - SPARK);
    known.rate = 0;
  }
  for (const row of rows) {
    const names = namesOf(row), id = JSON.stringify([row.class, names]);
    const known = state.rows.get(id) ?? { id, class: row.class ?? "lost", names, ticks: new Array(SPARK).fill(0) };
    known.ticks[SPARK - 1] = row.count;
    Object.assign(known, { row, rate: row.rate, total: row.total ?? known.total });
    state.rows.set(id, known);
  }
  for (const known of state.rows.values()) known.recent = known.ticks.reduce((sum, tick) => sum + tick, 0);
  if (state.rows.size > KEPT) {
    for (const known of sorted([...state.rows.values()]).slice(KEPT)) state.rows.delete(known.id);
  }
}

const sorted = (rows) => rows.sort((a, b) => b.recent - a.recent || (b.total ?? 0) - (a.total ?? 0) || (a.id < b.id ? -1 : 1));

// What is shown.

function draw() {
  if (state.report === null) return;
  const last = state.moments.at(-1);
  const covered = state.moments.reduce((sum, moment) => sum + moment.elapsed, 0);
  CLASSES.forEach((name, index) => {
    show(`rate-${name}`, `${rate(last.drops[index] / last.elapsed)}/s`);
    const sum = state.moments.reduce((total, moment) => total + moment.drops[index], 0);
    show(`sum-${name}`, `${number(sum)} in ${seconds(covered)}`);
  });
  show("total", number(state.report.total));
  show("span", `last ${seconds(SPARK * state.interval)}`);
  drawLedger();
  drawRows();
  drawCounters();
  drawChart();
}

const seconds = (time) => (time < 90 ? `${Math.round(time)} s` : `${Math.round(time / 60)} min`);

function drawLedger() {
  const losses = Object.entries(state.report.ledger).filter(([, drops]) => drops > 0);
  byId("ledger").hidden = losses.length === 0;
  show("ledger", `Not counted in full in the last report: ${losses.map(([cause, drops]) => `${cause} ${number(drops)}`).join(", ")}`);
}

function drawRows() {
  const search = byId("search").value.trim().toLowerCase();
  const fits = (known) => !search || [known.class, known.row.meaning ?? "", ...known.names.flat()].some((text) => text.toLowerCase().includes(search));
  const rows = sorted([...state.rows.values()].filter(fits));
  byId("nothing").hidden = rows.length > 0;
  if (rows.length === 0) show("nothing", state.rows.size > 0 ? "No row has these words." : "No drops since this page was opened.");
  for (const name of CLASSES) place(byId(name), rows.filter((known) => known.class === name));
  const harmless = rows.filter((known) => known.class === "harmless");
  byId("fold").hidden = harmless.length === 0;
  byId("harmless").hidden = !state.isUnfolded;
  byId("unfold").setAttribute("aria-expanded", String(state.isUnfolded));
  const sum = harmless.reduce((total, known) => total + known.recent, 0);
  show("unfold", `${number(sum)} harmless in the ${byId("span").textContent}, in ${harmless.length} ${harmless.length === 1 ? "row" : "rows"}`);
}

/** Puts rows into a part of the table; elements that are there are used again, so that focus and selections stay. */
function place(body, rows) {
  const shown = rows.slice(0, SHOWN), rest = rows.slice(SHOWN);
  const wanted = [];
  for (const known of shown) {
    known.element ??= makeRow(known);
    fillRow(known);
    wanted.push(known.element);
    if (state.open.has(known.id)) wanted.push(known.detail);
  }
  if (rest.length > 0) {
    const sum = rest.reduce((total, known) => total + known.recent, 0);
    wanted.push(element("tr", [element("td", `${number(sum)} in ${rest.length} other rows`)]));
  }
  wanted.forEach((row, index) => { if (body.children[index] !== row) body.insertBefore(row, body.children[index] ?? null); });
  while (body.children.length > wanted.length) body.lastChild.remove();
}

function makeRow(known) {
  const title = element("span"), names = known.names.map(([key, name]) => { const made = element("bdi", name); made.title = key; return made; });
  const button = element("button", [title, element("span", names, "names")]);
  button.type = "button";
  button.addEventListener("click", () => toggle(known));
  const line = document.createElementNS(SVG, "svg"), path = document.createElementNS(line.namespaceURI, "path");
  line.setAttribute("class", "line");
  line.setAttribute("viewBox", `0 0 ${SPARK - 1} 20`);
  line.setAttribute("preserveAspectRatio", "none");
  line.setAttribute("aria-hidden", "true");
  line.append(path);
  const figures = { rate: element("span", "", "count"), total: element("span") };
  known.parts = { title, button, path, figures };
  return element("tr", [element("td", [button]), element("td", [figures.rate], "number"), element("td", [line], "spark"), element("td", [figures.total], "number")]);
}

function fillRow(known) {
  const { title, button, path, figures } = known.parts;
  title.textContent = plain(known.row.meaning ?? "unknown to this version");
  button.setAttribute("aria-expanded", String(state.open.has(known.id)));
  figures.rate.textContent = rate(known.rate);
  figures.total.textContent = known.total === null || known.total === undefined ? "-" : number(known.total);
  const most = Math.max(...known.ticks, 1);
  path.setAttribute("d", known.ticks.map((tick, step) => `${step ? "L" : "M"}${step} ${(19 - (18 * tick) / most).toFixed(1)}`).join(""));
  known.element.classList.toggle("quiet", known.recent === 0);
}

// What a row means.

function toggle(known) {
  if (state.open.delete(known.id)) { drawRows(); return; }
  state.open.add(known.id);
  if (!known.detail) {
    const cell = element("td", "reading what it means");
    cell.colSpan = 4;
    known.detail = element("tr", [cell], "detail");
    explain(known, cell);
  }
  drawRows();
}

async function explain(known, cell) {
  const { reason, function: place, location } = known.row, words = new URLSearchParams();
  const symbol = place?.symbol ?? location?.symbol, module = place?.module ?? location?.module;
  if (reason?.name) words.set("reason", reason.name);
  if (symbol) words.set("function", symbol);
  if (module) words.set("module", module);
  try {
    const answer = await fetch(`explain?${words}`);
    if (!answer.ok && answer.status !== 404) throw new Error(`${answer.status} ${answer.statusText}`);
    cell.replaceChildren(...(answer.ok ? meaning(await answer.json(), known.row) : [element("p", "Nothing is known of this reason in this function.")]));
  } catch (error) {
    cell.replaceChildren(element("p", `What it means could not be read: ${error.message}`));
    known.detail = null;
  }
}

function meaning(entry, row) {
  const filled = (text) => text.replace(/\{(\w+)\}/g, (word, key) => (row[key] === undefined || row[key] === null ? word : nameOf(key, row[key])));
  const list = (items) => element("ul", items);
  const parts = [element("p", entry.meaning)];
  for (const when of entry.when ?? []) parts.push(element("p", `${when.class} ${when.destination === "unknown" ? "otherwise" : `for ${when.destination}`}: ${when.because}`));
  if (entry.causes.length) parts.push(element("p", "Usual causes:"), list(entry.causes.map((cause) => element("li", cause))));
  if (entry.check.length) {
    parts.push(element("p", "What to check:"));
    parts.push(list(entry.check.map((check) => element("li", [element("code", filled(check.run)), `: ${plain(check.shows)}`]))));
  }
  const words = [...entry.counters, ...entry.sysctls];
  if (words.length) parts.push(element("p", [`Counters and settings: `, element("code", words.join(", "))]));
  return parts;
}

function drawCounters() {
  const counters = (state.report.counters ?? []).filter((counter) => counter.loss !== false);
  byId("counters").hidden = counters.length === 0;
  const items = counters.map((counter) => {
    const where = [counter.netns && NAMES.netns(counter.netns), counter.iface && NAMES.iface(counter.iface)].filter((word) => word).join(", ");
    return element("li", `${number(counter.count)} ${counter.name}${where ? ` (${where})` : ""}: ${counter.meaning}`);
  });
  byId("counters").querySelector("ul").replaceChildren(...items);
}

// The chart.

function drawChart(pointed = null) {
  const canvas = byId("chart"), pen = canvas.getContext("2d"), scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  const colours = getComputedStyle(document.documentElement), colour = (name) => colours.getPropertyValue(`--${name}`);
  const rates = (moment) => moment.drops.map((drops) => drops / moment.elapsed);
  const most = nice(Math.max(...state.moments.map((moment) => rates(moment).reduce((sum, value) => sum + value, 0)), 1));
  const step = width / CHART, left = CHART - state.moments.length;
  state.moments.forEach((moment, index) => {
    let bottom = height;
    rates(moment).forEach((value, kind) => {
      const size = (value / most) * (height - 14);
      // What is there is seen, however little it is.
      const tall = value > 0 ? Math.max(size, 1.5) : 0;
      pen.fillStyle = colour(CLASSES[kind]);
      pen.fillRect((left + index) * step, bottom - tall, Math.max(step - 0.5, 0.8), tall);
      bottom -= tall;
    });
  });
  pen.fillStyle = colour("faint");
  pen.font = "11px system-ui, sans-serif";
  pen.fillText(`${rate(most)}/s`, 2, 10);
  const moment = pointed === null ? null : state.moments[Math.floor(pointed / step) - left];
  const first = state.moments[0];
  const text = moment
    ? `${clock(moment.ended)}: ${rates(moment).map((value, kind) => `${rate(value)}/s ${CLASSES[kind]}`).join(", ")}`
    : first ? `${clock(first.ended)} to ${clock(state.moments.at(-1).ended)}` : "";
  show("caption", text);
}

/** The next larger of 1, 2, 5, 10, 20, 50, ... */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((digit) => value <= digit * power);
}

// The connection: a browser connects anew by itself, but gives up where it was refused.

const RETRY = { first: 1000, longest: 15000 };
let events = null, wait = RETRY.first;

function connect() {
  events = new EventSource("events");
  events.addEventListener("open", () => { wait = RETRY.first; });
  events.addEventListener("report", (event) => receive(JSON.parse(event.data)));
  events.addEventListener("error", () => {
    if (events.readyState === EventSource.CLOSED) {
      setTimeout(connect, wait);
      wait = Math.min(wait * 2, RETRY.longest);
    }
    tell();
  });
}

/** Says whether what is shown is of now. */
function tell() {
  const place = byId("state"), age = state.arrived === null ? null : (performance.now() - state.arrived) / 1000;
  const isOpen = events !== null && events.readyState === EventSource.OPEN;
  const isStale = age !== null && age > 2 * state.interval + 2;
  let [kind, text] = ["waiting", "waiting for the first report"];
  if (age === null && !isOpen) text = "connecting";
  if (age !== null && !isStale) [kind, text] = ["live", byId("pause").checked ? "paused" : `live, every ${state.interval} s`];
  if (isStale) [kind, text] = ["stale", `stale: the last report came ${Math.round(age)} s ago${isOpen ? "" : ", connecting again"}`];
  place.dataset.state = kind;
  document.body.classList.toggle("stale", isStale);
  show("state", text);
}

byId("unfold").addEventListener("click", () => { state.isUnfolded = !state.isUnfolded; drawRows(); });
byId("search").addEventListener("input", () => { if (state.report) drawRows(); });
byId("pause").addEventListener("change", () => { if (!byId("pause").checked) draw(); tell(); });
byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("chart").addEventListener("pointermove", (event) => drawChart(event.offsetX));
byId("chart").addEventListener("pointerleave", () => drawChart());
window.addEventListener("resize", () => drawChart());
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawChart());
setInterval(tell, 500);
connect();
