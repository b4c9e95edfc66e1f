// The page: keeps up with the server, decides what can be believed, and has it drawn.

import { Chart, at } from "./charts.js";
import { duration, known, number, percent, priceDigits } from "./format.js";
import * as panels from "./panels.js";
import { prepareStops } from "./stops.js";

const SPAN_MS = 15 * 60_000;
const SHORTEST_MS = 60_000;
// The server says something twice a second.
const DEAF_MS = 2_000;
const RETRY_MS = 3_000;
const MARKERS_MAX = 4_000;
const EVENTS_MAX = 500;
const find = (id) => document.getElementById(id);

let about = null;
let newest = null; // the last update
let heardMs = performance.now();
let stream = null;
let digits = 2;
const series = { prices: [], signals: [], frames: [] };
let markers = [], events = [];
const opened = new Set();

const charts = {
  price: new Chart(find("c-price"), { format: (v) => number(v, digits), labels: 6 }),
  signal: new Chart(find("c-signal"), { format: (v) => percent(Math.abs(v)), labels: 3 }),
  equity: new Chart(find("c-equity"), { format: (v) => number(v, 2) }),
  drop: new Chart(find("c-drop"), { format: (v) => `${number(v, 2)}`, labels: 2 }),
  latency: new Chart(find("c-latency"), { format: (v) => number(v, 1), labels: 2 }),
};

function listen(symbol) {
  stream?.close();
  stream = new EventSource(`/events${symbol ? `?symbol=${encodeURIComponent(symbol)}` : ""}`);
  stream.onmessage = (message) => take(JSON.parse(message.data));
  // A broken line is mended by the browser; a refusal (too many pages) is not.
  stream.onerror = () => { if (stream.readyState === EventSource.CLOSED) setTimeout(listen, RETRY_MS, symbol); };
}

function take(update) {
  if (about && update.about && update.about.session_id !== about.session_id) {
    // Another session was begun in its place: nothing that stands here is true of that one, no question either.
    stream.close();
    location.reload();
    return;
  }
  heardMs = performance.now();
  newest = update;
  if (update.about) begin(update.about);
  for (const [name, points] of Object.entries(update.series)) extend(series[name], points);
  markers = [...markers, ...update.markers].slice(-MARKERS_MAX);
  events = [...events, ...update.events].slice(-EVENTS_MAX);
  if (!document.hidden) draw();
}

function begin(told) {
  about = told;
  for (const points of Object.values(series)) points.length = 0;
  markers = [];
  events = [];
  const select = find("symbol");
  if (select.options.length !== told.symbols.length) {
    select.replaceChildren(...told.symbols.map((name) => new Option(name)));
  }
  select.value = told.symbol;
  find("session").textContent = `Session ${told.session}`;
}

// The last point of before may come again, changed.
function extend(points, further) {
  if (further.length) {
    while (points.length && points.at(-1)[0] >= further[0][0]) points.pop();
    points.push(...further);
  }
  const oldest = (points.at(-1)?.[0] ?? 0) - SPAN_MS;
  let count = 0;
  while (count < points.length && points[count][0] < oldest) count += 1;
  points.splice(0, count);
}

function draw() {
  if (!about) return;
  drawLife();
  const { status } = newest;
  const work = [drawCharts, () => panels.showLog(events), () => panels.showOrders(newest)];
  if (status) {
    work.push(
      () => panels.showHeadline(status, about.name),
      () => panels.showPositions(status),
      () => panels.showPredictions(newest.predictions, status),
      () => panels.showRisk(status, about.limits, newest.refusals),
      () => panels.showScore(status),
      () => panels.showLatency(status),
      () => panels.showFeeds(status),
      () => panels.showDevice(status, newest.now_ms),
      () => panels.showFeatures(status, about.columns, about.symbol, opened),
    );
  }
  // A panel that cannot be drawn must not keep the others from it.
  for (const each of work) try { each(); } catch (error) { console.error(error); }
  if (status) document.title = `${status.state === "active" ? "" : `${status.state.toUpperCase()} `}${number(status.pnl_usdt, 2, { sign: true })} – ${about.name} – gpuscalp`;
}

// Whether what stands here can be believed, and how old it is.
function drawLife() {
  const deafMs = performance.now() - heardMs;
  const deaf = deafMs > DEAF_MS;
  const life = newest?.life ?? { state: "waiting", age_s: null, reason: "" };
  const state = deaf ? "deaf" : life.state;
  const age = known(life.age_s) ? life.age_s + deafMs / 1000 : null;
  document.body.dataset.life = state;
  const badge = find("age"), banner = find("banner");
  badge.textContent = state === "running" ? "live" : `${state === "deaf" ? "no contact" : state}${known(age) ? `, ${duration(age)} old` : ""}`;
  badge.className = `badge ${state === "running" ? "good" : "bad"}`;
  const since = known(age) ? ` What is grey is ${duration(age)} old.` : "";
  const texts = {
    running: newest?.damage ? `The journal cannot be read: ${newest.damage}` : "",
    waiting: "",
    dead: `The engine is dead: ${life.reason}.${since}`,
    silent: `The engine is silent: ${life.reason}.${since}`,
    ended: `The engine has ended: ${life.reason}.${since}`,
    unborn: `The engine has not run: ${life.reason}.`,
    deaf: `No contact with the dashboard's server.${since}`,
  };
  banner.textContent = texts[state];
  banner.hidden = texts[state] === "";
  for (const old of document.querySelectorAll("h2 .old")) old.remove();
  if (state === "running" || !known(age)) return;
  for (const head of document.querySelectorAll("main h2")) head.append(panels.element("span", `${duration(age)} old`, "old"));
}

function span() {
  const ends = Object.values(series).map((points) => points.at(-1)?.[0] ?? 0);
  const starts = Object.values(series).map((points) => points[0]?.[0] ?? Infinity);
  const to = Math.max(...ends) + 500;
  return { from: Math.max(to - SPAN_MS, Math.min(to - SHORTEST_MS, ...starts)), to };
}

function drawCharts() {
  const { prices, signals, frames } = series;
  if (!prices.length && !frames.length) return;
  const { from, to } = span();
  const symbol = about.symbol;
  digits = Math.max(digits, priceDigits(prices.at(-1)?.slice(1) ?? []));
  const [, bid, ask] = prices.at(-1) ?? [0, null, null];
  find("quote").textContent = known(bid) && known(ask) ? `${number(bid, digits)} / ${number(ask, digits)}` : "no quote";
  charts.price.show({
    from, to,
    lines: [
      { points: prices.map(([t, b]) => [t, b]), color: "line", width: 1.2 },
      { points: prices.map(([t, , a]) => [t, a]), color: "second", width: 1.2 },
    ],
    markers: markers.filter((each) => each.at_ms >= from).map(placed).filter((each) => each !== null),
    at: (t) => { const found = at(prices, t); return found ? `${number(found[1], digits)} / ${number(found[2], digits)}` : ""; },
    words: `${symbol}: bid ${number(bid, digits)}, ask ${number(ask, digits)}; ${markers.filter((each) => each.kind === "fill").length} fills shown`,
  });
  const [, down, up, agreement, edge] = signals.at(-1) ?? [];
  find("signal").textContent = known(up) ? `down ${percent(down)}, up ${percent(up)}, agreement ${percent(agreement)}, edge ${number(edge, 2, { sign: true })} bps` : "none now";
  charts.signal.show({
    from, to, least: 0,
    lines: [
      { points: signals.map(([t, d]) => [t, known(d) ? -d : null]), color: "down", width: 1, fill: true },
      { points: signals.map(([t, , u]) => [t, u]), color: "up", width: 1, fill: true },
    ],
    at: (t) => { const found = at(signals, t); return found ? `down ${percent(found[1])}, up ${percent(found[2])}, agreement ${percent(found[3])}` : ""; },
    words: `${symbol}: ${find("signal").textContent}`,
  });
  drawMoney(from, to, frames);
  charts.latency.show({
    from, to, least: 0,
    lines: [
      { points: frames.map(([t, , features]) => [t, features]), color: "line", width: 1 },
      { points: frames.map(([t, , , predict]) => [t, predict]), color: "second", width: 1 },
      { points: frames.map(([t, , , , gate]) => [t, gate]), color: "third", width: 1 },
    ],
    at: (t) => { const found = at(frames, t); return found ? found.slice(2).map((each) => number(each, 2)).join(" / ") : ""; },
    words: "features, prediction and gate of each frame, in ms",
  });
}

function drawMoney(from, to, frames) {
  const equity = frames.map(([t, value]) => [t, value]);
  let high = -Infinity;
  const drop = equity.map(([t, value]) => { high = Math.max(high, value); return [t, value - high]; });
  const last = newest.status?.equity_usdt ?? equity.at(-1)?.[1];
  find("equity").textContent = `${number(last, 2)} USDT`;
  find("drop").textContent = `${number(drop.at(-1)?.[1], 2)} USDT`;
  charts.equity.show({
    from, to, lines: [{ points: equity, color: "line" }],
    at: (t) => { const found = at(equity, t); return found ? `${number(found[1], 2)} USDT` : ""; },
    words: `Equity ${number(last, 2)} USDT`,
  });
  charts.drop.show({
    from, to, least: 0, most: 0, lines: [{ points: drop, color: "down", fill: true }],
    at: (t) => { const found = at(drop, t); return found ? `${number(found[1], 2)} USDT` : ""; },
    words: `${find("drop").textContent} below the highest equity shown`,
  });
}

// Where a marker stands: at its own price, an intent at the price of its time.
function placed({ kind, at_ms: t, side, price, accepted }) {
  const found = known(price) ? null : at(series.prices, t);
  const v = price ?? (found ? (found[1] + found[2]) / 2 : null);
  if (!known(v)) return null;
  const color = side > 0 ? "up" : "down";
  if (kind === "fill") return { t, v, shape: "dot", color };
  if (kind === "order") return { t, v, shape: "tick", color: "order" };
  const way = side > 0 ? "up" : "down";
  return { t, v, shape: accepted ? way : `${way}-hollow`, color: accepted ? color : "dim" };
}

function prepareTheme() {
  const kinds = { auto: ["◐ auto", "as the system has them"], light: ["☀ light", "light"], dark: ["☾ dark", "dark"] };
  const button = find("theme"), order = Object.keys(kinds);
  const set = (kind) => {
    document.documentElement.dataset.theme = kind;
    button.textContent = kinds[kind][0];
    button.setAttribute("aria-label", `Colours: ${kinds[kind][1]}`);
    localStorage.setItem("gpuscalp-theme", kind);
    for (const chart of Object.values(charts)) chart.paint();
  };
  button.addEventListener("click", () => set(order[(order.indexOf(document.documentElement.dataset.theme) + 1) % order.length]));
  const before = localStorage.getItem("gpuscalp-theme");
  set(order.includes(before) ? before : "auto");
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => set(document.documentElement.dataset.theme));
}

prepareTheme();
prepareStops(() => panels.which(about?.name, newest?.status));
find("symbol").addEventListener("change", (event) => listen(event.target.value));
document.addEventListener("visibilitychange", () => { if (!document.hidden) draw(); });
setInterval(drawLife, 250);
listen();
