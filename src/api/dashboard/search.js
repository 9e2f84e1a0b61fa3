// Search: extensions by number, name and remote party; watchers by address, phone and Call-ID.

import * as api from "./api.js";
import { STATES, h, other, table } from "./dom.js";
import { watchers } from "./lamp.js";
import { living, redraw } from "./page.js";
import * as store from "./store.js";

const MOST = 100;
/** Page size of watchers. */
const PAGE = 200;

export const searchPage = (main, text) => {
  document.title = `${text} · Lamplighter`;
  const wanted = text.toLowerCase();
  main.append(h("div", { class: "head" }, h("h1", null, `Search for “${text}”`)));
  const load = async () => {
    const found = [];
    for (const extension of store.extensions()) {
      const lamp = store.get(extension);
      const words = [extension, lamp.name, other(lamp.with), lamp.with?.number, STATES[lamp.state]];
      if (words.some((word) => word?.toLowerCase().includes(wanted))) found.push(lamp);
      if (found.length === MOST) break;
    }
    return { found, watching: await api.get(`subscriptions?filter=${encodeURIComponent(text)}`) };
  };
  const draw = (body, { found, watching }) => redraw(body, h("div", { class: "cols" },
    h("section", { class: "card" }, h("h2", null, "Extensions ", h("small", null, `${found.length}${found.length === MOST ? " or more" : ""}`)),
      found.length ? table("Extensions", ["Extension", "Name", "Lamp", "With", "Watchers"], found.map((lamp) => [
        h("a", { href: `#/lamps/${encodeURIComponent(lamp.extension)}`, "data-key": lamp.extension }, lamp.extension), lamp.name ?? "", STATES[lamp.state], other(lamp.with), String(lamp.watchers)]))
        : h("p", { class: "soft" }, "No extension has this text in its number, name or call.")),
    h("section", { class: "card" }, h("h2", null, "Watchers ", h("small", null, `${watching.length}${watching.length === PAGE ? " or more" : ""}`)),
      watching.length ? watchers(watching, true) : h("p", { class: "soft" }, "No watcher has this text in its address, phone or Call-ID."))));
  return living(main, load, draw, (news) => news.all || news.lamps.size > 0);
};
