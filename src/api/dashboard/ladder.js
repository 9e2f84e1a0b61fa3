// Ladder diagram of the last exchanges of a subscription: the phone on the left, the server on the right, proxies between.

import { h, s, time } from "./dom.js";
import { answer } from "./lamp.js";

const WIDTH = 760;
const LEFT = 190;
const RIGHT = 640;
const TOP = 54;
const STEP = 62;

const arrow = (id, name) => s("marker", { id, viewBox: "0 0 8 8", refX: 7.2, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse" },
  s("path", { class: name, d: "M0 .5 8 4 0 7.500z" }));

const word = (x, y, anchor, text, name) => s("text", { x, y, "text-anchor": anchor, class: name ?? "" }, text);

/** One request with its response. */
const rung = (exchange, y) => {
  const middle = (LEFT + RIGHT) / 2;
  const ours = exchange.method === "NOTIFY";
  const [from, to] = ours ? [RIGHT, LEFT] : [LEFT, RIGHT];
  const inward = ours ? 1 : -1;
  const good = exchange.reply >= 200 && exchange.reply < 300;
  const gone = exchange.reply === 0;
  const silent = exchange.reply === 408;
  const detail = ours
    ? `version ${exchange.version} · ${exchange.bytes} B · ${exchange.transport}${exchange.copies ? ` · ${exchange.copies} retransmission${exchange.copies === 1 ? "" : "s"}` : ""}`
    : exchange.granted ? `granted ${exchange.granted} s` : "ends it";
  const parts = [
    word(14, y + 4, "start", time(exchange.at - (exchange.delay_ms ?? 0), true), "t"),
    s("line", { x1: from - inward * 4, y1: y, x2: to + inward * 6, y2: y, class: gone ? "gone" : "out", "marker-end": "url(#tip)" }),
    word(middle, y - 7, "middle", `${exchange.method} ${exchange.cseq}`, ""),
    word(middle, y + 15, "middle", detail, "s"),
  ];
  if (gone || silent) {
    const x = to + inward * 46;
    parts.push(s("path", { d: `M${x - 6} ${y + 20}l12 12m0-12l-12 12`, class: gone ? "gone x" : "fail" }));
    parts.push(word(x + inward * 14, y + 31, ours ? "start" : "end", gone ? "superseded by the next" : "no response", gone ? "tgone" : "tfail"));
  } else {
    parts.push(s("line", { x1: to + inward * 4, y1: y + 27, x2: from - inward * 6, y2: y + 27, class: good ? "ok" : "fail", "marker-end": `url(#${good ? "tip-ok" : "tip-fail"})` }));
    const delay = exchange.delay_ms === null ? "" : ` · ${exchange.delay_ms} ms`;
    parts.push(word(ours ? RIGHT + 14 : LEFT - 14, y + 31, ours ? "start" : "end", `${exchange.reply}${delay}`, good ? "tok" : "tfail"));
  }
  return s("g", null, parts);
};

/** Ladder of some exchanges; `missing` older ones are not shown. */
export const ladder = (story, exchanges, missing) => {
  const rungs = exchanges.slice();
  const waits = story.under_way;
  const height = TOP + (rungs.length + (waits ? 1 : 0)) * STEP + (missing ? 26 : 0) + 14;
  const first = TOP + (missing ? 38 : 14) + 6;
  const hops = story.dialog.route_set.length;
  const middle = (LEFT + RIGHT) / 2;
  const label = rungs.map((one) => `${one.method} ${one.cseq}: ${answer(one.reply)}`).join("; ");
  if (!rungs.length && !waits) {
    return h("p", { class: "soft" }, missing ? `All ${missing} NOTIFYs of this subscription have left the history.` : "No exchanges yet.");
  }
  return s("svg", { class: "ladder", viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": `The last exchanges. ${label}` },
    s("defs", null, arrow("tip", "m-ink"), arrow("tip-ok", "m-ok"), arrow("tip-fail", "m-fail")),
    word(LEFT, 20, "middle", story.vendor ? `${story.vendor} phone` : "Phone", "who"), word(LEFT, 36, "middle", story.flow.peer, "t"),
    word(RIGHT, 20, "middle", "Lamplighter", "who"), word(RIGHT, 36, "middle", story.flow.local, "t"),
    hops ? word(middle, 20, "middle", `${hops} prox${hops === 1 ? "y" : "ies"}`, "s") : null,
    s("line", { x1: LEFT, y1: 44, x2: LEFT, y2: height - 4, class: "life" }), s("line", { x1: RIGHT, y1: 44, x2: RIGHT, y2: height - 4, class: "life" }),
    missing ? word(middle, TOP + 10, "middle", `… up to ${missing} earlier, not shown or no longer in the history …`, "t") : null,
    rungs.map((one, i) => rung(one, first + i * STEP)),
    waits ? s("g", null, word(14, first + rungs.length * STEP + 4, "start", time(waits.sent_at, true), "t"),
      s("line", { x1: RIGHT - 4, y1: first + rungs.length * STEP, x2: LEFT + 6, y2: first + rungs.length * STEP, class: "out", "marker-end": "url(#tip)" }),
      word(middle, first + rungs.length * STEP - 7, "middle", `NOTIFY ${waits.cseq}`, ""),
      word(middle, first + rungs.length * STEP + 15, "middle", `version ${waits.version} · ${waits.bytes} B · waits for its response`, "s")) : null);
};
