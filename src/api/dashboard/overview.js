// Overview of an account: counts, rates and failures of the last minutes.

import * as api from "./api.js";
import { STATES, h, s, table, time } from "./dom.js";
import { living, redraw } from "./page.js";

const WIDTH = 720;
const HEIGHT = 190;
const [LEFT, RIGHT, TOP, BOTTOM] = [44, 710, 12, 162];

/** Smallest round number that is not below `n`. */
const round = (n) => {
  const unit = 10 ** Math.floor(Math.log10(Math.max(n, 1)));
  return [1, 2, 5, 10].map((m) => m * unit).find((m) => m >= n) ?? 1;
};

const frame = (data, top, unit, title, parts) => {
  const y = (share) => BOTTOM - (BOTTOM - TOP) * share;
  const steps = [0, 0.5, 1];
  const minutes = [0, 1, 2, 3, 4, 5];
  const x = (minute) => RIGHT - (RIGHT - LEFT) * (minute / 5);
  return s("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title },
    steps.map((share) => [s("line", { class: "axis", x1: LEFT, x2: RIGHT, y1: y(share), y2: y(share) }),
      s("text", { x: LEFT - 7, y: y(share) + 4, "text-anchor": "end" }, `${Number((top * share).toPrecision(3))}${unit}`)]),
    minutes.map((minute) => s("text", { x: x(minute), y: HEIGHT - 10, "text-anchor": minute === 0 ? "end" : "middle" }, minute ? `-${minute} min` : "now")),
    parts(y));
};

/** Stacked bars per second. */
const bars = (data, series, title) => {
  const seconds = data.bucket_ms / 1000;
  const sums = data.buckets.map((bucket) => series.reduce((sum, [key]) => sum + bucket[key], 0) / seconds);
  const top = round(Math.max(...sums, 1 / seconds));
  const wide = (RIGHT - LEFT) / data.buckets.length;
  return frame(data, top, "", `${title}, at most ${Math.max(...sums).toFixed(1)} a second`, () => data.buckets.map((bucket, i) => {
    let base = BOTTOM;
    return series.map(([key, name]) => {
      const tall = ((bucket[key] / seconds) / top) * (BOTTOM - TOP);
      base -= tall;
      return tall ? s("rect", { class: name, x: LEFT + i * wide + 1, y: base, width: Math.max(1, wide - 2), height: tall, rx: 1.5 }) : null;
    });
  }));
};

const lines = (data) => {
  const top = round(Math.max(...data.buckets.map((bucket) => bucket.delay_95_ms ?? 0), 10));
  const wide = (RIGHT - LEFT) / data.buckets.length;
  const path = (key, y) => {
    let pen = "M";
    return data.buckets.map((bucket, i) => {
      if (bucket[key] === null) return (pen = "M"), "";
      const step = `${pen}${(LEFT + (i + 0.5) * wide).toFixed(1)} ${y(bucket[key] / top).toFixed(1)}`;
      pen = "L";
      return step;
    }).join("");
  };
  return frame(data, top, "", "Delay from NOTIFY to response, median and slowest 5 %", (y) => [
    s("path", { class: "l95", d: path("delay_95_ms", y) || "M0 0" }), s("path", { class: "l50", d: path("delay_ms", y) || "M0 0" })]);
};

const key = (items) => h("div", { class: "key" }, items.map(([name, word, line]) => h("span", null,
  s("svg", { viewBox: "0 0 18 10", class: "plot", "aria-hidden": "true" }, line ? s("path", { class: name, d: "M0 5H18" }) : s("rect", { class: name, width: 18, height: 10, rx: 2 })), word)));

const tile = (n, word, bad) => h("div", { class: bad && n ? "tile bad" : "tile" }, h("b", null, String(n)), h("span", { class: "soft" }, word));

const draw = (body, data) => {
  const states = Object.entries(data.states).filter(([, n]) => n).map(([state, n]) => `${n} ${STATES[state]}`).join(", ");
  const filled = data.buckets.map((bucket, i) => [data.from_at + i * data.bucket_ms, bucket]).filter(([, bucket]) => bucket.acknowledged || bucket.failed || bucket.changes);
  const notifies = [["acknowledged", "p-good"], ["superseded", "p-gone"], ["failed", "p-bad"]];
  redraw(body,
    h("div", { class: "tiles" }, tile(data.extensions, "extensions"), tile(data.calls, "live calls"), tile(data.subscriptions, "subscriptions"),
      tile(data.publications, "publications"), tile(data.behind, "behind", true), tile(data.failing, "not reached", true)),
    h("p", { class: "soft" }, states ? `Lamps: ${states}.` : "", data.complete_from ? ` The history reaches back to ${time(data.complete_from)} only; raise history.exchanges for a longer one.` : ""),
    h("div", { class: "cols", id: "plots" },
      h("section", { class: "card half" }, h("h2", null, "NOTIFYs ", h("small", null, "a second")), bars(data, notifies, "NOTIFYs"),
        key([["p-good", "acknowledged"], ["p-gone", "superseded"], ["p-bad", "failed"]])),
      h("section", { class: "card half" }, h("h2", null, "Response time ", h("small", null, "milliseconds")), lines(data),
        key([["l50", "median", true], ["l95", "95th percentile", true]])),
      h("section", { class: "card half" }, h("h2", null, "Changes of lamps ", h("small", null, "a second")), bars(data, [["changes", "p-accent"]], "Changes")),
      h("section", { class: "card half" }, h("h2", null, "SUBSCRIBEs granted ", h("small", null, "a second")), bars(data, [["subscribed", "p-good"]], "SUBSCRIBEs")),
      h("section", { class: "card" }, h("details", { "data-key": "table" }, h("summary", null, "As a table"),
        table("The last minutes", ["From", "Changes", "Acknowledged", "Superseded", "Failed", "Median", "95 %", "SUBSCRIBEs"],
          filled.reverse().map(([at, bucket]) => [time(at), ...[bucket.changes, bucket.acknowledged, bucket.superseded, bucket.failed].map(String),
            bucket.delay_ms === null ? "" : `${bucket.delay_ms} ms`, bucket.delay_95_ms === null ? "" : `${bucket.delay_95_ms} ms`, String(bucket.subscribed)]))))));
};

export const overviewPage = (main) => {
  document.title = "Overview · Lamplighter";
  main.append(h("div", { class: "head" }, h("h1", null, "Overview"), h("span", { class: "faint" }, "the last five minutes")));
  return living(main, () => api.get("lamp_overview"), draw, () => false);
};
