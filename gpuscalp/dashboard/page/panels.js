// What a status says, as tables and bars. Text is set as text: nothing of it is ever taken for markup.

import { bytes, clock, duration, exact, known, number, percent, short, signClass, words } from "./format.js";

const find = (id) => document.getElementById(id);
const SIDES = { 1: "buy", "-1": "sell" };

export function element(name, text = "", className = "") {
  const made = document.createElement(name);
  if (text !== "") made.textContent = text;
  if (className) made.className = className;
  return made;
}

// columns: [[title, (row) => text | Node, className | (row) => className]]
function fill(id, columns, rows, { empty = "none", rowClass } = {}) {
  const table = find(id);
  if (!table.tHead) {
    const head = table.createTHead().insertRow();
    for (const [title, , kind] of columns) {
      const cell = element("th", title, kind === "word" ? "word" : "");
      cell.scope = "col";
      head.append(cell);
    }
    table.createTBody();
  }
  const body = document.createElement("tbody");
  for (const row of rows) {
    const line = body.insertRow();
    if (rowClass) line.className = rowClass(row);
    for (const [, make, kind] of columns) {
      const cell = line.insertCell();
      cell.append(make(row) ?? "");
      cell.className = (typeof kind === "function" ? kind(row) : kind) ?? "";
    }
  }
  if (!rows.length) {
    const cell = body.insertRow().insertCell();
    cell.colSpan = columns.length;
    cell.className = "none";
    cell.textContent = empty;
  }
  table.tBodies[0].replaceWith(body);
}

function bar(name, share, text, kind = "") {
  const line = element("div", "", "bar");
  const track = element("b"), inner = element("i", "", kind);
  inner.style.width = `${Math.max(0, Math.min(1, known(share) ? share : 0)) * 100}%`;
  track.append(inner);
  line.append(element("span", name), track, element("span", text));
  return line;
}

// How close a value is to its limit.
const caution = (share) => (share >= 0.8 ? "down" : share >= 0.5 ? "caution" : "");

// The gate counts a gain as a negative loss.
const dayLoss = ({ daily_loss_usdt: loss }) => (known(loss) ? Math.max(0, loss) : loss);

// Which session this is, where its orders go and where its prices come from.
export function which(name, status) {
  if (!status) return { name };
  const orders = status.broker === "paper" ? "paper" : `real orders, ${status.account?.where ?? status.broker}`;
  return { name, orders, market: status.market ? `${status.market} market` : "" };
}

export function showHeadline(status, name) {
  const values = [
    ["Equity, USDT", number(status.equity_usdt), "", "equity_usdt"],
    ["Result", number(status.pnl_usdt, 2, { sign: true }), signClass(status.pnl_usdt), "pnl_usdt"],
    ["Drawdown", `${number(status.drawdown_pct)} %`, "", "drawdown_pct"],
    ["Day's loss", number(dayLoss(status)), "", "daily_loss_usdt"],
    ["Fees", number(status.fees_usdt), "", "fees_usdt"],
    ["Score", status.score ? number(status.score.value, 0) : "–", "", "score"],
  ];
  find("headline").replaceChildren(...values.map(([name, text, kind, key]) => {
    const box = element("div"), figure = element("dd", text, kind);
    figure.dataset.key = key;
    box.append(element("dt", name), figure);
    return box;
  }));
  const gate = find("gate");
  gate.textContent = status.state.toUpperCase();
  gate.className = `badge ${{ active: "good", reducing: "warn", halted: "bad" }[status.state] ?? ""}`;
  const { orders, market } = which(name, status);
  find("name").textContent = name;
  find("broker").textContent = orders;
  find("broker").className = status.broker === "paper" ? "dim" : "badge bad";
  find("market").textContent = market;
  find("written").textContent = `${clock(status.written_ns / 1e6)} UTC`;
  find("gate-why").textContent = status.flattening ? "flattening" : words(status.cause);
}

export function showPositions(status) {
  fill("positions", [
    ["symbol", (row) => row.symbol],
    ["quantity", (row) => exact(row.qty), (row) => signClass(row.qty)],
    ["value, USDT", (row) => number(row.value_usdt)],
    ["unrealised", (row) => number(row.unrealised_usdt, 4, { sign: true }), (row) => signClass(row.unrealised_usdt)],
  ], status.positions, { empty: "no position" });
  fill("open-orders", [
    ["order", (row) => String(row.order_id)],
    ["symbol", (row) => row.symbol, "word"],
    ["side", (row) => row.side, (row) => (row.side === "buy" ? "up" : "down")],
    ["quantity", (row) => exact(row.qty)],
  ], status.open_orders, { empty: "no open order" });
}

export function showPredictions(predictions, status) {
  const silent = new Set(status.feeds.silent);
  const rows = [...predictions].sort((a, b) => Math.abs(b.edge_bps ?? 0) - Math.abs(a.edge_bps ?? 0));
  fill("predictions", [
    ["symbol", (row) => row.symbol],
    ["down", (row) => percent(row.down), () => "down"],
    ["up", (row) => percent(row.up), () => "up"],
    ["agreement", (row) => percent(row.agreement)],
    ["edge, bps", (row) => number(row.edge_bps, 2, { sign: true }), (row) => signClass(row.edge_bps)],
  ], rows.slice(0, 50), { empty: "no prediction yet", rowClass: (row) => (silent.has(row.symbol) ? "silent" : "") });
}

export function showRisk(status, limits, refusals) {
  const gross = status.positions.reduce((sum, each) => sum + Math.abs(each.value_usdt), 0);
  const bars = [
    ["day's loss", dayLoss(status), limits.max_daily_loss_usdt, 2, "USDT"],
    ["drawdown", status.drawdown_pct, limits.max_drawdown_pct, 2, "%"],
    ["gross", gross, limits.max_gross_usdt, 0, "USDT"],
    ["open orders", status.open_orders.length, limits.max_open_orders_total, 0, ""],
  ].map(([name, value, limit, digits, unit]) => {
    const share = Math.max(0, value) / limit;
    return bar(name, share, `${number(value, digits)} / ${number(limit, 0)} ${unit}`.trim(), caution(share));
  });
  const why = element("p", "", "note");
  const state = status.flattening ? "flattening" : words(status.cause);
  why.append("The gate is ", element("strong", status.state.toUpperCase()), state ? `: ${state}.` : ".");
  if (known(status.since_ns)) why.append(` Since ${clock(status.since_ns / 1e6)} UTC.`);
  const doubts = [...(status.health?.device ?? []), ...(status.health?.venue ?? [])];
  if (status.clock?.drifted) doubts.push("clock not trusted");
  // Of orders that go to an exchange.
  if (status.account?.strangers) doubts.push(`nobody here knows: ${status.account.strangers}`);
  if (status.account?.error) doubts.push(`the account cannot be looked at: ${status.account.error}`);
  const notes = doubts.map((text) => element("p", `⚠ ${words(text)}`, "note caution"));
  const day = element("p", "The day's loss counts since 00:00 UTC or the last re-arming at its limit.", "note dim");
  find("limits").replaceChildren(why, ...notes, ...bars, day);
  const rows = Object.entries(refusals).sort((a, b) => b[1] - a[1]).slice(0, 8);
  fill("refusals", [["rule", (row) => words(row[0])], ["times, in the time shown", (row) => number(row[1], 0)]], rows, { empty: "nothing" });
}

export function showScore(status) {
  const score = status.score;
  find("p-score").hidden = !score;
  if (!score) return;
  find("score").textContent = `${number(score.value, 0)} of 100`;
  const parts = Object.entries(score.parts).map(([name, points]) => bar(name, points / 20, `${number(points, 1)} / 20`, points < 10 ? "down" : points < 16 ? "caution" : ""));
  find("parts").replaceChildren(...parts);
  fill("lost", [
    ["why not 100", (row) => words(row.reason)],
    ["part", (row) => row.part, "word"],
    ["points", (row) => number(-row.points, 1)],
  ], [...score.lost].sort((a, b) => b.points - a.points), { empty: "nothing is missing" });
}

export function showLatency(status) {
  fill("latency", [
    ["stage, ms", (row) => words(row[0])],
    ["p50", (row) => number(row[1].p50, 3)],
    ["p99", (row) => number(row[1].p99, 3)],
  ], Object.entries(status.latency_ms));
}

export function showFeeds(status) {
  const { feeds, clock: time } = status;
  const some = (names) => (names.length > 5 ? `${names.slice(0, 5).join(", ")} and ${names.length - 5} more` : names.join(", "));
  const notes = [];
  const note = (text, kind = "") => notes.push(element("p", text, `note ${kind}`));
  if (feeds.silent.length) note(`⚠ silent: ${some(feeds.silent)}`, "caution");
  if (feeds.unsynced.length) note(`⚠ books to come: ${some(feeds.unsynced)}`, "caution");
  if (!feeds.silent.length && !feeds.unsynced.length) note("All streams deliver, all books are whole.", "up");
  note(`Clock ${known(time.offset_ms) ? `${number(time.offset_ms, 1, { sign: true })} ms` : "unknown"}, error ${known(time.error_ms) ? `${number(time.error_ms, 1)} ms` : "unknown"}${time.drifted ? ", not trusted" : ""}.`, time.drifted ? "caution" : "dim");
  note(`${number(status.batches.waiting, 0)} ticks waiting, ${number(status.batches.conflated, 0)} gave way.`, "dim");
  find("feed-notes").replaceChildren(...notes);
  fill("connections", [
    ["connection", (row) => `${row.number} ${row.route}`],
    ["state", (row) => words(row.state), (row) => `word ${row.state === "live" ? "up" : "caution"}`],
    ["streams", (row) => String(row.streams?.length ?? row.streams)],
    ["open for", (row) => duration(row.age_s)],
    ["cuts", (row) => String(row.cuts)],
  ], feeds.connections, { empty: "no connection" });
  const counted = Object.entries(feeds.messages).filter(([, count]) => typeof count === "number");
  fill("messages", [["messages", (row) => words(row[0])], ["so far", (row) => number(row[1], 0)]], counted);
}

export function showDevice(status, nowMs) {
  find("device").textContent = status.engine.device;
  find("device-why").textContent = status.engine.why;
  const { model } = status;
  const changed = model.bundle !== model.begun_with ? `, leads since ${clock(model.since_ns / 1e6)} UTC (${model.reason || model.by})` : "";
  const shadow = model.shadow ? `; in the shadow ${model.shadow.bundle.slice(0, 12)}` : "";
  find("model").textContent = `Model ${model.bundle.slice(0, 12)}, ${duration(model.age_s)} old${model.own_calibration ? "" : ", recalibrated"}${changed}${shadow}.`;
  const cards = (status.gpu?.cards ?? []).map((card) => {
    const box = element("div");
    const age = Math.max(0, nowMs - card.at_ns / 1e6) / 1000;
    if (age > 3) box.className = "stale";
    box.append(element("h3", `GPU ${card.index} ${card.name ?? ""}${age > 3 ? `, ${duration(age)} old` : ""}`));
    if (card.lost) box.append(element("p", `lost: ${card.lost}`, "note down"));
    const memory = known(card.used_bytes) && card.total_bytes ? card.used_bytes / card.total_bytes : null;
    const power = known(card.power_watts) && card.power_limit_watts ? card.power_watts / card.power_limit_watts : null;
    box.append(
      bar("utilisation", known(card.gpu_percent) ? card.gpu_percent / 100 : null, known(card.gpu_percent) ? `${card.gpu_percent} %` : "–"),
      bar("memory", memory, `${bytes(card.used_bytes)} / ${bytes(card.total_bytes)}`, caution(memory ?? 0)),
      bar("temperature", known(card.celsius) ? card.celsius / 100 : null, known(card.celsius) ? `${card.celsius} °C${known(card.margin_celsius) ? `, ${card.margin_celsius} to slowdown` : ""}` : "–", known(card.margin_celsius) && card.margin_celsius < 10 ? "down" : ""),
      bar("power", power, `${number(card.power_watts, 0)} / ${number(card.power_limit_watts, 0)} W`),
    );
    const slowed = card.slowed ?? [];
    box.append(element("p", slowed.length ? `⚠ throttled: ${slowed.map(words).join(", ")}` : "not throttled", slowed.length ? "note caution" : "note dim"));
    for (const reason of [...card.failed, ...card.doubtful]) box.append(element("p", `⚠ ${words(reason)}`, "note down"));
    return box;
  });
  if (status.gpu?.error) cards.push(element("p", `⚠ ${status.gpu.error}`, "note caution"));
  if (!status.gpu) cards.push(element("p", "No GPU is in use: features and predictions are computed on the CPU.", "note"));
  const { resources } = status;
  if (resources) {
    cards.push(element("h3", "This machine"), ...Object.entries(resources).filter(([, value]) => typeof value === "number").map(resource));
  }
  find("cards").replaceChildren(...cards);
}

function resource([name, value]) {
  const line = element("div", "", "pair");
  const text = name.endsWith("_bytes") ? bytes(value) : name.endsWith("_s") ? duration(value) : short(value);
  line.append(element("span", words(name.replace(/_(bytes|s)$/, "")), "dim"), element("span", text));
  return line;
}

// What a group is about is the first word of its columns' names.
export function showFeatures(status, columns, symbol, opened) {
  const features = status.features, drift = status.drift?.groups ?? {};
  const row = features ? Math.max(0, features.symbols.indexOf(symbol)) : 0;
  const values = features?.values[row];
  find("feature-symbol").textContent = values
    ? `${features.symbols[row]}${features.symbols[row] === symbol ? "" : " (of the symbols with the largest edges)"}`
    : "none yet";
  if (!values) return;
  const groups = new Map();
  columns.forEach((column, index) => {
    const name = column.name.split(".")[0];
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push([column.name.slice(name.length + 1), values[index], column.unit]);
  });
  find("groups").replaceChildren(...[...groups].map(([name, rows]) => {
    const box = element("div", "", "group");
    const warm = rows.filter(([, value]) => known(value)).length;
    const head = element("h3", name);
    const psi = drift[name]?.mean;
    const state = known(psi) ? `drift ${number(psi, 2)}` : "";
    head.append(element("span", `${warm} of ${rows.length} warm ${state}`.trim(), psi > 0.25 ? "caution" : ""));
    const list = (part) => {
      const made = element("ul");
      for (const [column, value, unit] of part) {
        const item = element("li");
        item.title = `${name}.${column}${unit ? `, ${unit}` : ""}`;
        item.append(element("span", column), element("span", short(value), signClass(value)));
        made.append(item);
      }
      return made;
    };
    box.append(head, list(rows.slice(0, 8)));
    if (rows.length > 8) {
      const more = element("details");
      more.open = opened.has(name);
      more.addEventListener("toggle", () => (more.open ? opened.add(name) : opened.delete(name)));
      more.append(element("summary", `${rows.length - 8} more`), list(rows.slice(8)));
      box.append(more);
    }
    return box;
  }));
}

export function showOrders({ orders, fills }) {
  const side = ["side", (row) => SIDES[row.side], (row) => (row.side > 0 ? "up" : "down")];
  fill("orders", [
    ["sent, UTC", (row) => clock(row.sent_ms)],
    ["order", (row) => String(row.order_id)],
    ["symbol", (row) => row.symbol, "word"],
    side,
    ["quantity", (row) => exact(row.qty)],
    ["state", (row) => words(row.state), "word"],
    ["why", (row) => words(row.reason), "word"],
  ], orders, { empty: "no order yet" });
  fill("fills", [
    ["filled, UTC", (row) => clock(row.at_ms)],
    ["order", (row) => String(row.order_id)],
    ["symbol", (row) => row.symbol, "word"],
    side,
    ["quantity", (row) => exact(row.qty)],
    ["price", (row) => exact(row.price)],
    ["fee", (row) => number(row.fee, 4)],
    ["realised", (row) => number(row.realised, 4, { sign: true }), (row) => signClass(row.realised)],
  ], fills, { empty: "no fill yet" });
}

export function showLog(events) {
  find("log").replaceChildren(...events.slice(-200).reverse().map((event) => {
    const line = element("li", "", event.level);
    const time = element("time", clock(event.at_ms));
    time.dateTime = new Date(event.at_ms).toISOString();
    line.append(time, element("span", event.text));
    return line;
  }));
}
