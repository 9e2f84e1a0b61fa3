// Code common to detail pages: load, show, and reload after a change.

import { h, now, put, span } from "./dom.js";
import * as store from "./store.js";

/** Interval of reloading without an event: the live stream does not report acknowledgements. */
const LOOK = 2500;
/** Events within this time cause one reload. */
const TOGETHER = 120;

/** Shows the result of `load` with `draw`, and again after each event for which `concerns` is true; `still` gets every result. */
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
      // Redraws only if the data has changed, so that nothing moves while it is read; elapsed time is no change.
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

/** Redraws a page and keeps opened details, horizontal scroll positions and the focus. */
export const redraw = (body, ...children) => {
  const open = new Set([...body.querySelectorAll("details[open]")].map((details) => details.dataset.key));
  const focused = body.contains(document.activeElement) ? document.activeElement.dataset.key ?? null : null;
  const aside = new Map([...body.querySelectorAll(".scroll")].map((part) => [part.dataset.key, part.scrollLeft]));
  body.replaceChildren(...children);
  for (const part of body.querySelectorAll(".scroll")) part.scrollLeft = aside.get(part.dataset.key) ?? 0;
  for (const details of body.querySelectorAll("details")) details.open = open.has(details.dataset.key);
  if (focused) body.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
};
