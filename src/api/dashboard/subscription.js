// Page of one subscription: its dialog, its route and its last exchanges.

import * as api from "./api.js";
import { badge, h, now, span, table, time } from "./dom.js";
import { ladder } from "./ladder.js";
import { answer } from "./lamp.js";
import { living, redraw } from "./page.js";
import { confirm } from "./talk.js";

const facts = (pairs) => h("dl", null, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
  .map(([name, value]) => [h("dt", null, name), h("dd", null, value)]));

const mono = (text) => h("span", { class: "mono" }, text);

const actions = (story) => {
  const resend = () => confirm("Send a fresh NOTIFY?", `${story.watcher} is sent the current state once more.`, "Resend", () => api.resend(story.id));
  const trace = () => confirm("Trace this subscription?",
    "For five minutes its messages are recorded and shown here, complete except for credentials.", "Trace it", () => api.trace(story.id, 300));
  const end = () => confirm("End this subscription?",
    `${story.watcher} gets a last NOTIFY, as if it had expired. Most phones subscribe anew at once; until then their lamp is dark.`,
    "End it", () => api.end(story.id), { bad: true });
  return h("div", { class: "push" },
    h("button", { type: "button", "data-key": "resend", id: "resend", onclick: resend }, "Resend NOTIFY"),
    h("button", { type: "button", "data-key": "trace", id: "trace", onclick: trace }, "Trace"),
    h("button", { type: "button", class: "bad", "data-key": "end", onclick: end }, "End subscription"));
};

const draw = (body, story) => {
  document.title = `${story.watcher} on ${story.extension} · Lamplighter`;
  const { dialog, flow } = story;
  const latest = story.exchanges.slice(-12);
  const missing = story.earlier + story.exchanges.length - latest.length;
  redraw(body,
    h("nav", { class: "crumbs", "aria-label": "Way back" }, h("a", { href: "#/wall" }, "Wall"), "›",
      h("a", { href: `#/lamps/${encodeURIComponent(story.extension)}` }, story.extension), "›", h("span", null, story.watcher)),
    h("div", { class: "hero" },
      h("div", null, h("h1", null, story.watcher, h("span", { class: "soft" }, ` watches ${story.extension}`)),
        h("p", null, badge(story.delivery_status), h("span", { class: "soft" }, `  ${story.event}`),
          story.behind ? h("strong", null, `  ${story.behind} behind${story.stale_since ? ` since ${time(story.stale_since)}` : ""}`) : null)),
      actions(story)),
    h("div", { class: "cols" },
      h("div", { class: "two cols" },
        h("section", { class: "card" }, h("h2", null, "Last exchanges"),
          h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Ladder", "data-key": "scroll ladder" }, ladder(story, latest, missing)),
          h("details", { "data-key": "table" }, h("summary", null, "As a table"), exchanges(story))),
        story.trace ? traced(story.trace) : null,
        story.last_body ? h("section", { class: "card" }, h("h2", null, story.last.reply === 408 ? "Body of the last NOTIFY, which got no response" : `Body of the last NOTIFY, answered ${story.last.reply}`), h("pre", { tabindex: 0 }, story.last_body)) : null),
      h("div", { class: "third cols" },
        story.trace ? h("section", { class: "card" }, h("h2", null, "Trace"), facts([
          ["Since", time(story.trace.since_at)], [story.trace.running ? "Until" : "Ended", time(story.trace.until_at)],
          ["Evicted", story.trace.evicted || null]]),
          h("button", { type: "button", "data-key": "forget", onclick: () => confirm("Delete the trace?", "The recorded messages are lost.", "Delete it", () => api.forgetTrace(story.id), { bad: true }) }, "Delete it")) : null,
        h("section", { class: "card" }, h("h2", null, "State"), facts([
          ["Acknowledged", `revision ${story.acknowledged} of ${story.revision}`],
          ["In flight", story.under_way && `NOTIFY ${story.under_way.cseq}, sent ${time(story.under_way.sent_at)}, ${story.under_way.copies} retransmissions since`],
          ["Last response", story.last ? `${answer(story.last.reply)} to CSeq ${story.last.cseq}` : "none yet"],
          ["Failures", story.failures ? `${story.failures} in a row` : null],
          ["Next try", story.next_try_at && time(story.next_try_at)],
          ["Subscribed", time(story.subscribed_at)],
          ["Expires", [`${time(story.expires_at)}, in `, h("span", { "data-until": story.expires_at }, span(story.expires_at - now())), `, of ${story.granted} s`]],
        ])),
        h("section", { class: "card" }, h("h2", null, "Phone and flow"), facts([
          ["Make", story.vendor ?? "unknown"], ["User-Agent", story.user_agent], ["Transport", flow.transport], ["Peer", mono(flow.peer)],
          ["Server", mono(flow.local)], ["Connection", flow.connection === null ? null : `number ${flow.connection}`], ["Certificate", flow.certified ? "trusted" : null],
        ])),
        h("section", { class: "card" }, h("h2", null, "Dialog"), facts([
          ["Call-ID", mono(dialog.call_id)], ["Our side", mono(dialog.local)], ["Our tag", mono(dialog.local_tag)], ["Phone's side", mono(dialog.remote)],
          ["Contact", mono(dialog.target)], ["Route set", dialog.route_set.length ? dialog.route_set.map((route) => h("div", null, mono(route))) : "none"],
          ["CSeq", `${dialog.local_cseq} ours, ${dialog.remote_cseq} theirs`], ["Event id", story.event_id],
        ])))));
};

/** Traced messages, newest first. */
const traced = (trace) => h("section", { class: "card", id: "traced" }, h("h2", null, "Traced messages", h("small", null, `${trace.messages.length} recorded`)),
  trace.messages.length ? [...trace.messages].reverse().map((one) => h("details", { "data-key": `${one.at}${one.direction}${one.text.length}` },
    h("summary", null, `${time(one.at, true)} ${one.direction === "sent" ? "→" : "←"} ${one.text.split("\r\n")[0]}`,
      h("span", { class: "faint" }, ` ${one.bytes} B${one.transport ? `, ${one.transport}` : ""}${one.peer ? `, ${one.peer}` : ""}`)),
    h("pre", { tabindex: 0 }, one.text))) : h("p", { class: "soft" }, "Nothing was said yet. Resend a NOTIFY to see one."));

const exchanges = (story) => table("Exchanges", ["Time", "Request", "Version", "Response", "Delay", "Size", "Transport", "Retransmissions", "API request"],
  [...story.exchanges].reverse().map((one) => [
    time(one.at, true), `${one.method} ${one.cseq}`, one.version === null ? "" : String(one.version), answer(one.reply),
    one.delay_ms === null ? "" : `${one.delay_ms} ms`, one.bytes === null ? "" : `${one.bytes} B`, one.transport ?? "", one.copies ? `+${one.copies}` : "",
    one.request ? h("span", { class: "mono" }, one.request) : "",
  ]));

export const subscriptionPage = (main, id) => {
  document.title = "Subscription · Lamplighter";
  let extension = null;
  const load = async () => {
    const story = await api.get(`subscriptions/${encodeURIComponent(id)}`);
    extension = story.extension;
    return { ...story, trace: story.traced_until === null ? null : await api.traced(id) };
  };
  return living(main, load, draw, (news) => news.lamps.has(extension) || news.subscriptions.has(extension));
};
