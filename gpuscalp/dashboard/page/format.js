// Numbers and times as a person reads them. Never: touches the page.

const GAP = "–";
const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);
const formats = new Map();

export function number(value, digits = 2, { sign = false } = {}) {
  if (!known(value)) return GAP;
  const key = `${digits}${sign}`;
  if (!formats.has(key)) {
    formats.set(key, new Intl.NumberFormat("en-US", {
      minimumFractionDigits: digits,
      maximumFractionDigits: digits,
      signDisplay: sign ? "exceptZero" : "negative",
    }));
  }
  return formats.get(key).format(value).replace("-", "−");
}

// Four significant digits, for values of any size.
export function short(value) {
  if (!known(value)) return GAP;
  const size = Math.abs(value);
  const text = size !== 0 && (size >= 1e5 || size < 1e-3) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
  return text.replace("-", "−");
}

export const percent = (value, digits = 0) => (known(value) ? `${number(100 * value, digits)} %` : GAP);

// As many digits as there are.
export function exact(value) {
  return known(value) ? value.toLocaleString("en-US", { maximumFractionDigits: 8 }).replace("-", "−") : GAP;
}

// Digits that prices need, as their ticks show.
export function priceDigits(values) {
  let digits = 0;
  for (const value of values) {
    if (!known(value)) continue;
    const text = String(Number(value.toFixed(8)));
    digits = Math.max(digits, text.includes(".") ? text.length - text.indexOf(".") - 1 : 0);
  }
  return Math.min(digits, 8);
}

// UTC, as the command line, the logs and the exchange have it; with the date where that is not today.
export function clock(ms, { seconds = true, date = true, nowMs = Date.now() } = {}) {
  const [day, time] = new Date(ms).toISOString().split("T");
  const text = time.slice(0, seconds ? 8 : 5);
  return date && day !== new Date(nowMs).toISOString().slice(0, 10) ? `${day} ${text}` : text;
}

export function duration(seconds) {
  if (!known(seconds)) return GAP;
  if (seconds < 10) return `${number(seconds, 1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d`;
}

export function bytes(value) {
  if (!known(value)) return GAP;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${number(value, unit > 1 ? 1 : 0)} ${units[unit]}`;
}

export const signClass = (value) => (!known(value) || value === 0 ? "" : value > 0 ? "up" : "down");
export const words = (text) => String(text ?? "").replaceAll("_", " ");
export { known, GAP };
