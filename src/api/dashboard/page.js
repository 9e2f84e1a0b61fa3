// What the pages of one thing have in common: they load it, show it, and load it anew when something has changed.

import { h, now, put, span } from "./dom.js";
import * as store from "./store.js";

/** How often a page is loaded anew although nothing was heard: acknowledgements are not in the live stream. */
const LOOK = 2500;
/** Changes that come together are one. */
const TOGETHER = 120;

/** Shows what `load` brings by `draw`, and again whenever `concerns` finds its news; `still` sees it every time. */
export const living = (main, load, draw, concerns, still = null) => {
  let timer = 0;
  let stopped = false;
  let busy = false;
  let again = false;
  let text = null;
  const body = h("div");
  main.append(body);
  const look = async () => {
    clearTimeout(timer);
    if (busy) return void (again = true);
    busy = true;
    try {
      const data = await load();
      // Nothing moves under the hand of a reader unless something is new; that time goes by is not.
      const fresh = JSON.stringify({ ...data, why: null });
      const selected = getSelection();
      const reading = text && !selected.isCollapsed && body.contains(selected.anchorNode);
      if (!stopped && !reading && fresh !== text) {
        text = fresh;
        draw(body, data);
      }
      if (!stopped) still?.(body, data);
    } catch (error) {
      if (!stopped && (text === null || error.status === 404)) {
        const gone = error.status === 404 ? ["Not found", "It has ended, or it never existed."] : ["This cannot be shown", error.message];
        body.replaceChildren(h("div", { class: "none", role: "status" }, h("h2", null, gone[0]), h("p", null, gone[1])));
        text = "";
      }
    }
    busy = false;
    if (stopped) return;
    timer = setTimeout(look, again ? TOGETHER : LOOK);
    again = false;
  };
  const quiet = store.watch((news) => {
    if (concerns(news)) {
      clearTimeout(timer);
      timer = setTimeout(look, TOGETHER);
    }
  });
  const tick = setInterval(() => {
    for (const node of body.querySelectorAll("[data-until]")) put(node, span(Number(node.dataset.until) - now()));
  }, 1000);
  look();
  return () => {
    stopped = true;
    clearInterval(tick);
    clearTimeout(timer);
    quiet();
  };
};

/** Keeps what can be opened open, what was pushed aside there, and the focus where it was, when a page is drawn anew. */
export const redraw = (body, ...children) => {
  const open = new Set([...body.querySelectorAll("details[open]")].map((details) => details.dataset.key));
  const focused = body.contains(document.activeElement) ? document.activeElement.dataset.key ?? null : null;
  const aside = new Map([...body.querySelectorAll(".scroll")].map((part) => [part.dataset.key, part.scrollLeft]));
  body.replaceChildren(...children);
  for (const part of body.querySelectorAll(".scroll")) part.scrollLeft = aside.get(part.dataset.key) ?? 0;
  for (const details of body.querySelectorAll("details")) details.open = open.has(details.dataset.key);
  if (focused) body.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
};
