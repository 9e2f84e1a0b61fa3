// Requests that were refused recently, with the reasons.

import * as api from "./api.js";
import { h, table, time } from "./dom.js";
import { living, redraw } from "./page.js";

const KIND = { phone: "Phone", publisher: "Publisher", client: "API client", peer: "SIP peer" };
/** Page size. */
const PAGE = 200;

/** Time of day; with the date if it is not today. */
const moment = (at) => {
  const day = new Date(at).toLocaleDateString();
  return day === new Date().toLocaleDateString() ? time(at) : `${day} ${time(at)}`;
};

const row = (one) => [
  KIND[one.kind] ?? one.kind,
  one.who ?? "unknown",
  one.address,
  one.method,
  h("span", null, h("b", null, `${one.status ?? ""} ${one.reason}`.trim()), one.detail ? h("span", { class: "soft" }, ` ${one.detail}`) : null),
  String(one.count),
  moment(one.first_at),
  moment(one.last_at),
  one.agent ?? "",
];

const draw = (body, { rows, more }) => redraw(body, h("section", { class: "card", id: "refusals" },
  h("h2", null, "Refused lately ", h("small", null, `${rows.length}${more ? " or more" : ""}`)),
  rows.length
    ? table("Refusals", ["Kind", "Who", "From", "Method", "Refused", "Times", "First", "Last", "Agent"], rows.map(row))
    : h("p", { class: "soft" }, "No refusals lately."),
  h("p", { class: "faint" }, "The latest first; one row for each sender, method and reason. A first challenge is not a refusal. Kept in memory until the server stops.")));

/** Refusals of the account, or, with the argument `none`, those without an account, for superusers. */
export const refusalsPage = (main, argument) => {
  document.title = "Refusals · Lamplighter";
  const [ask, other, where] = argument === "none"
    ? [api.askServer, "Those of this account", "#/refusals"]
    : [api.ask, "Those of no account", "#/refusals/none"];
  main.append(h("div", { class: "head" }, h("h1", null, "Refusals"), h("div", { class: "push" }, h("a", { href: where }, other))));
  const load = async () => {
    const page = await ask(`refusals?page_size=${PAGE}`);
    return { rows: page.data, more: page.next_start_key !== undefined };
  };
  return living(main, load, draw, () => false);
};
