// Page of one extension: the state of its lamp, the reason, the watchers, and which state each has acknowledged.

import * as api from "./api.js";
import { STATES, badge, h, icon, other, put, table, time } from "./dom.js";
import { living, redraw } from "./page.js";
import { confirm } from "./talk.js";

const actions = (extension) => {
  const reset = () => confirm(`Reset ${extension}?`,
    "Removes its calls and the state set by hand, and sends every watcher one fresh NOTIFY. The next event of a call counts again.",
    "Reset", () => api.reset(extension));
  const set = () => confirm(`Set the lamp of ${extension}`,
    "The state set by hand is shown beside the published state, until it is set or reset again.", "Set",
    (state) => api.set(extension, state), { choices: { early: "ringing (early)", confirmed: "talking (confirmed)", terminated: "none (terminated)" } });
  return h("div", { class: "push" },
    h("button", { type: "button", "data-key": "set", onclick: set }, "Set state"),
    h("button", { type: "button", "data-key": "reset", id: "reset", onclick: reset }, "Reset lamp"));
};

const hero = (extension, lamp) => {
  const side = other(lamp.with);
  return h("div", { class: "hero", "data-state": lamp.state }, h("span", { class: "disc" }, icon(lamp.state)),
    h("div", null, h("h1", null, extension, lamp.name ? h("span", { class: "soft" }, `  ${lamp.name}`) : null),
      h("p", { id: "state" }, h("span", { class: "word" }, STATES[lamp.state]), side ? ` with ${side}` : "",
        lamp.changed_at ? h("span", { class: "faint" }, `  since ${time(lamp.changed_at)}`) : null)),
    actions(extension));
};

const calls = (story) => story.live_calls.length === 0 ? h("p", { class: "soft" }, "No call is live.")
  : table("Live calls", ["State", "Other side", "Call-ID", "Last update", "Lease"], story.live_calls.map((call) => [
    `${call.state}${call.held ? ", on hold" : ""}${call.direction ? ` (${call.direction})` : ""}`,
    other(call.with) || "unknown", h("span", { class: "mono" }, call.call_id ?? call.id), time(call.said_at),
    call.lapses_at ? `expires at ${time(call.lapses_at)}` : "with its publication",
  ]));

const publications = (story) => story.publications.length === 0 ? h("p", { class: "soft" }, "Nothing is published.")
  : table("Publications", ["Event", "Source", "By", "Ends at", "Changes", "Entity-tag"], story.publications.map((one) => [
    one.event, one.source ? h("span", { class: "mono" }, one.source.from.replace(/^sips?:/, "")) : h("span", { class: "soft" }, "from before the restart"),
    one.source ? [one.source.user_agent ?? "", h("div", { class: "faint" }, `${one.source.transport} ${one.source.address}`)] : "",
    time(one.expires_at), String(one.changes), h("span", { class: "mono" }, one.etag),
  ]));

const behind = (row) => row.behind === 0 ? `revision ${row.acknowledged}`
  : [`revision ${row.acknowledged}, `, h("strong", null, `${row.behind} behind`), row.stale_since
    ? h("div", { class: "faint" }, `${row.stale_since_is_lower_bound ? "at least " : ""}since ${time(row.stale_since)}`) : null];

/** Table of watchers, for this page and for the search. */
export const watchers = (rows, withExtension = false) => table("Watchers",
  [withExtension ? "Extension" : null, "Watcher", "Phone", "Delivery", "Acknowledged", "Last response", "Event", "Expires at"].filter(Boolean),
  rows.map((row) => [
    withExtension ? h("a", { href: `#/lamps/${encodeURIComponent(row.extension)}` }, row.extension) : null,
    h("a", { href: `#/subscriptions/${encodeURIComponent(row.id)}`, "data-key": row.id }, row.watcher),
    [row.vendor ?? "unknown make", h("div", { class: "faint" }, `${row.transport} ${row.peer}`)],
    [badge(row.delivery_status), row.next_try_at ? h("div", { class: "faint" }, `next try ${time(row.next_try_at)}`) : null],
    behind(row), row.last ? `${row.last.reply === 408 ? "none" : row.last.reply} to CSeq ${row.last.cseq}` : "none yet", row.event, time(row.expires_at),
  ].filter((cell) => cell !== null)));

const changes = (story) => story.changes.length === 0 ? h("p", { class: "soft" }, "None in the history.")
  : h("ol", { class: "why" }, [...story.changes].reverse().slice(0, 12).map((change) =>
    h("li", null, `${time(change.at)} `, h("span", { class: "soft" }, `${change.cause}, revision ${change.revision}`),
      change.request ? h("div", { class: "faint mono" }, `request ${change.request}`) : null)));

const exchanges = (story) => {
  const names = new Map(story.watching.map((row) => [row.id, row.watcher]));
  const rows = [...story.exchanges].reverse().slice(0, 40);
  return rows.length === 0 ? h("p", { class: "soft" }, "None in the history.")
    : table("Last exchanges", ["Time", "Watcher", "Request", "Response", "Delay", "Size"], rows.map((one) => [
      time(one.at, true), h("a", { href: `#/subscriptions/${encodeURIComponent(one.subscription)}` }, names.get(one.subscription) ?? "gone"),
      `${one.method} ${one.cseq}${one.version === null ? "" : `, version ${one.version}`}`, answer(one.reply),
      one.delay_ms === null ? "" : `${one.delay_ms} ms`, one.bytes === null ? "" : `${one.bytes} B`,
    ]));
};

/** Reply of a phone as text. */
export const answer = (reply) => (reply === 0 ? "superseded" : reply === 408 ? "none in time" : String(reply));

export const lampPage = (main, extension) => {
  document.title = `${extension} · Lamplighter`;
  main.append(h("nav", { class: "crumbs", "aria-label": "Way back" }, h("a", { href: "#/wall" }, "Wall"), "›", h("span", null, extension)));
  const draw = (body, story) => {
    const head = hero(extension, story);
    if (!story.why) {
      redraw(body, head, h("section", { class: "card" }, h("h2", null, "Why"),
        h("p", null, "This extension is configured, but it has had no watcher and no publication.")));
      return;
    }
    const small = (n, word) => h("small", null, `${n} ${word}${n === 1 ? "" : "s"}`);
    redraw(body, head, h("div", { class: "cols", "data-state": story.state },
      h("section", { class: "card half" }, h("h2", null, "Why it shows this"), h("ul", { class: "why", id: "why" }, story.why.map((line) => h("li", null, line)))),
      h("section", { class: "card half" }, h("h2", null, "Latest changes"), changes(story)),
      h("section", { class: "card" }, h("h2", null, "Calls ", small(story.live_calls.length, "call")), calls(story),
        story.calls_not_shown > 0 && h("p", { class: "soft" }, `${story.calls_not_shown} more are live and not shown.`)),
      h("section", { class: "card" }, h("h2", null, "Publications ", small(story.publications.length, "publication")), publications(story)),
      h("section", { class: "card", id: "watchers" }, h("h2", null, "Watchers ", small(story.watchers, "subscription"),
        story.behind ? h("small", null, `${story.behind} behind`) : null),
      story.watching.length ? watchers(story.watching) : h("p", { class: "soft" }, "No watchers.")),
      h("section", { class: "card" }, h("h2", null, "Last exchanges"), exchanges(story))));
  };
  const still = (body, story) => {
    const list = body.querySelector("#why");
    story.why?.forEach((line, i) => list?.children[i] && put(list.children[i], line));
  };
  return living(main, () => api.get(api.lamp(extension)), draw,
    (news) => news.lamps.has(extension) || news.subscriptions.has(extension), still);
};
