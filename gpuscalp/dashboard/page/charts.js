// Lines over time on a canvas. Never: keeps data, or knows what they mean.

import { clock } from "./format.js";

const RIGHT = 62; // for the labels of the values
const BOTTOM = 18;
const TOP = 6;
const FONT = "11px system-ui, 'DejaVu Sans', sans-serif";
// The longest time between two points of one line: more is a gap, and shown as one.
const GAP_MS = 5000;

export class Chart {
  // `describe(chart)` gives the words for those who do not see it.
  constructor(canvas, { format, labels = 4 }) {
    this.canvas = canvas;
    this.format = format;
    this.labels = labels;
    this.scene = null;
    this.pointer = null;
    canvas.addEventListener("pointermove", (event) => { this.pointer = event.offsetX; this.paint(); });
    canvas.addEventListener("pointerleave", () => { this.pointer = null; this.paint(); });
    new ResizeObserver(() => this.paint()).observe(canvas);
  }

  // scene: {from, to, lines: [{points: [[t, v]], color, width, fill}], markers: [{t, v, shape, color}],
  //         least, range: [low, high], at: (t) => text, words}
  show(scene) {
    this.scene = scene;
    this.canvas.setAttribute("aria-label", scene.words);
    this.paint();
  }

  paint() {
    const { canvas, scene } = this;
    if (!scene) return;
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width || !height) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = FONT;
    const style = getComputedStyle(canvas);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    const right = width - RIGHT, bottom = height - BOTTOM;
    const [low, high] = scene.range ?? limits(scene);
    const x = (t) => ((t - scene.from) / (scene.to - scene.from)) * right;
    const y = (v) => bottom - ((v - low) / (high - low)) * (bottom - TOP);
    this.#grid(pen, color, { low, high, right, bottom, x, y, scene });
    pen.save();
    pen.beginPath();
    pen.rect(0, 0, right + 1, height);
    pen.clip();
    for (const line of scene.lines) stroke(pen, line, color, x, y, y(Math.max(low, Math.min(high, 0))));
    for (const marker of scene.markers ?? []) mark(pen, marker, color, x, y);
    pen.restore();
    if (this.pointer !== null && this.pointer <= right) this.#cross(pen, color, { right, bottom, x, scene });
  }

  #grid(pen, color, { low, high, right, bottom, x, y, scene }) {
    pen.strokeStyle = color("grid");
    pen.fillStyle = color("dim");
    pen.lineWidth = 1;
    pen.textBaseline = "middle";
    pen.textAlign = "left";
    for (const value of ticks(low, high, this.labels)) {
      const at = Math.round(y(value)) + 0.5;
      if (at < TOP - 1 || at > bottom + 1) continue;
      pen.beginPath();
      pen.moveTo(0, at);
      pen.lineTo(right, at);
      pen.stroke();
      pen.fillText(this.format(value), right + 6, at);
    }
    const span = scene.to - scene.from;
    const step = [10, 30, 60, 120, 300, 600].map((s) => s * 1000).find((s) => (span / s) * 74 < right) ?? 900_000;
    pen.textBaseline = "alphabetic";
    pen.textAlign = "center";
    for (let t = Math.ceil(scene.from / step) * step; t <= scene.to; t += step) {
      const at = x(t);
      if (at < 24 || at > right - 20) continue;
      pen.fillText(clock(t, { seconds: step < 60_000, date: false }), at, bottom + 14);
    }
  }

  #cross(pen, color, { right, bottom, x, scene }) {
    const t = scene.from + (this.pointer / right) * (scene.to - scene.from);
    pen.strokeStyle = color("dim");
    pen.setLineDash([3, 3]);
    pen.beginPath();
    pen.moveTo(this.pointer + 0.5, TOP);
    pen.lineTo(this.pointer + 0.5, bottom);
    pen.stroke();
    pen.setLineDash([]);
    const text = `${clock(t)} UTC  ${scene.at ? scene.at(t) : ""}`;
    const wide = pen.measureText(text).width + 12;
    const left = Math.max(0, Math.min(right - wide, this.pointer - wide / 2));
    pen.fillStyle = color("panel");
    pen.strokeStyle = color("edge");
    pen.beginPath();
    pen.roundRect(left, TOP, wide, 20, 4);
    pen.fill();
    pen.stroke();
    pen.fillStyle = color("text");
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    pen.fillText(text, left + 6, TOP + 10);
  }
}

// The newest point at or before a time.
export function at(points, t) {
  let low = 0, high = points.length - 1;
  if (high < 0 || points[0][0] > t) return null;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (points[middle][0] <= t) low = middle; else high = middle - 1;
  }
  return points[low];
}

function limits(scene) {
  let low = Infinity, high = -Infinity;
  const take = (v) => {
    if (v === null || Number.isNaN(v)) return;
    low = Math.min(low, v);
    high = Math.max(high, v);
  };
  for (const line of scene.lines) for (const [t, v] of line.points) if (t >= scene.from) take(v);
  for (const marker of scene.markers ?? []) take(marker.v);
  if (scene.least !== undefined) take(scene.least);
  if (low > high) return [0, 1];
  const pad = (high - low) * 0.07 || Math.abs(high) * 1e-5 || 1;
  return [low === scene.least ? low : low - pad, high === scene.most ? high : high + pad];
}

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) {
    found.push(Math.abs(value) < step / 1e6 ? 0 : value);
  }
  return found;
}

function stroke(pen, line, color, x, y, base) {
  const runs = [];
  let run = [], last = null;
  for (const [t, v] of line.points) {
    if (v === null || (last !== null && t - last > GAP_MS)) { if (run.length) runs.push(run); run = []; }
    if (v !== null) run.push([x(t), y(v)]);
    last = t;
  }
  if (run.length) runs.push(run);
  pen.strokeStyle = pen.fillStyle = color(line.color);
  pen.lineWidth = line.width ?? 1.5;
  pen.lineJoin = "round";
  for (const points of runs) {
    pen.beginPath();
    points.forEach(([px, py], index) => (index ? pen.lineTo(px, py) : pen.moveTo(px, py)));
    if (points.length === 1) pen.lineTo(points[0][0] + 1, points[0][1]);
    pen.stroke();
    if (line.fill) {
      pen.lineTo(points.at(-1)[0], base);
      pen.lineTo(points[0][0], base);
      pen.globalAlpha = 0.16;
      pen.fill();
      pen.globalAlpha = 1;
    }
  }
}

function mark(pen, { t, v, shape, color: name }, color, x, y) {
  const px = x(t), py = y(v);
  pen.fillStyle = pen.strokeStyle = color(name);
  pen.lineWidth = 1.3;
  pen.beginPath();
  if (shape === "dot") {
    pen.arc(px, py, 3.6, 0, 7);
    pen.fill();
    pen.strokeStyle = color("panel");
    pen.stroke();
  } else if (shape === "tick") {
    pen.moveTo(px, py - 7);
    pen.lineTo(px, py + 7);
    pen.stroke();
  } else {
    const way = shape.startsWith("up") ? 1 : -1; // a triangle that points the way, beside the line
    pen.moveTo(px, py + way * 9);
    pen.lineTo(px - 4, py + way * 16);
    pen.lineTo(px + 4, py + way * 16);
    pen.closePath();
    if (shape.endsWith("hollow")) pen.stroke(); else pen.fill();
  }
}
