// The live wall. Only visible lamps have elements, and these are reused for other lamps when the page is scrolled: 10,000
// lamps cost no more than a screenful.

import { STATES, h, icon, now, other, put, span } from "./dom.js";
import * as store from "./store.js";
import { whisper } from "./talk.js";

/** Up to this number of lamps, each is shown large. */
const FEW = 40;
const SIZES = { roomy: { width: 272, height: 88, gap: 12 }, large: { width: 236, height: 66, gap: 10 }, small: { width: 104, height: 44, gap: 6 } };
/** Rows kept above and below the visible part. */
const SPARE = 2;
const still = matchMedia("(prefers-reduced-motion: reduce)");
const kept = { state: null, size: "large", names: true };

/** Creates an element; it shows one lamp at a time. */
const makeTile = () => {
  const parts = {
    disc: h("span", { class: "disc" }), ext: h("span", { class: "ext" }), name: h("span", { class: "name" }),
    mail: h("span", { class: "mail", hidden: true }, "mail"), word: h("span", { class: "word" }), with: h("span", { class: "with" }),
    since: h("span", { class: "since", "aria-hidden": "true" }), flag: h("span", { class: "flag", hidden: true }),
  };
  const link = h("a", { class: "lamp", tabindex: -1 }, parts.disc,
    h("span", { class: "body" }, h("span", { class: "top" }, parts.ext, " ", parts.name, " ", parts.mail, " ", parts.flag, " "),
      h("span", { class: "what" }, parts.word, " ", parts.with, parts.since)));
  return { node: h("div", { class: "place", role: "listitem" }, link), link, parts, extension: null, lamp: null, state: null, index: -1 };
};

const timeOf = (lamp) => (lamp.changed_at && lamp.state !== "idle" && lamp.state !== "unknown" ? span(now() - lamp.changed_at) : "");

const paint = (tile, lamp) => {
  const { link, parts } = tile;
  if (tile.state !== lamp.state) {
    tile.state = lamp.state;
    link.dataset.state = lamp.state;
    parts.disc.replaceChildren(icon(lamp.state));
  }
  if (tile.extension !== lamp.extension) {
    tile.extension = lamp.extension;
    link.setAttribute("href", `#/lamps/${encodeURIComponent(lamp.extension)}`);
    link.dataset.extension = lamp.extension;
  }
  const side = kept.names ? other(lamp.with) : "";
  const word = STATES[lamp.state] ?? lamp.state;
  put(parts.ext, lamp.extension);
  put(parts.name, kept.names ? lamp.name ?? "" : "");
  put(parts.word, word);
  put(parts.with, side);
  put(parts.since, timeOf(lamp));
  parts.mail.hidden = !lamp.messages_waiting;
  parts.flag.hidden = !lamp.failing;
  if (lamp.failing) put(parts.flag, `! ${lamp.failing} not reached`);
  // Accessible label: the visible words in their order, so that a user of voice control can say them.
  const label = [lamp.extension, kept.names ? lamp.name : null, lamp.messages_waiting && "mail", lamp.failing && `${lamp.failing} not reached`, word, side]
    .filter(Boolean).join(", ");
  if (tile.label !== label) {
    // The state is announced if the lamp has the focus.
    if (tile.label && tile.lamp?.extension === lamp.extension && document.activeElement === link) whisper(label);
    tile.label = label;
    link.setAttribute("aria-label", label);
  }
  tile.lamp = lamp;
};

export const wallPage = (main) => {
  document.title = "Wall · Lamplighter";
  const chips = h("div", { class: "chips", role: "group", "aria-label": "Show only" });
  const size = h("button", { type: "button", onclick: () => resize(kept.size === "large" ? "small" : "large") });
  const names = h("button", { type: "button", onclick: () => (kept.names = !kept.names, labels(), render(true)) });
  const grid = h("div", { class: "grid", role: "list", "aria-label": "Lamps" });
  const none = h("div", { class: "none", hidden: true });
  main.append(h("div", { class: "head" }, h("h1", null, "Wall"), h("div", { class: "push" }, names, size)), chips, grid, none);

  const tiles = new Map();
  const spare = [];
  let shown = [];
  let columns = 1;
  let focus = 0;
  let timer = 0;
  let frame = 0;

  const sizeNow = () => (kept.size === "large" && store.extensions().length <= FEW ? "roomy" : kept.size);

  const labels = () => {
    put(size, kept.size === "large" ? "Smaller lamps" : "Larger lamps");
    put(names, kept.names ? "Hide names" : "Show names");
  };

  const matches = (lamp) => kept.state === null || (kept.state === "failing" ? lamp.failing > 0 : lamp.state === kept.state);

  const choose = () => {
    const all = store.extensions();
    shown = kept.state === null ? all : all.filter((extension) => matches(store.get(extension)));
    focus = Math.min(focus, Math.max(0, shown.length - 1));
    none.hidden = shown.length > 0;
    grid.hidden = shown.length === 0;
    if (!shown.length) {
      none.replaceChildren(...(!store.isLoaded() ? [h("h2", null, "Loading")]
        : kept.state !== null ? [h("h2", null, "None at the moment"), h("p", null, "No lamp of this account is in this state.")]
          : [h("h2", null, "No lamps yet"), h("p", null, "An extension of this account appears here with its first watcher or publication.")]));
    }
  };

  const count = () => {
    const { counts } = store;
    const wanted = [[null, "all", counts.all ?? 0], ...Object.entries(STATES).map(([state, word]) => [state, word, counts[state] ?? 0]),
      ["failing", "not reached", counts.failing ?? 0]];
    if (!chips.childElementCount) {
      for (const [state, word] of wanted) {
        const pick = () => (kept.state = kept.state === state ? null : state, scrollTo(0, 0), choose(), count(), render());
        chips.append(h("button", { type: "button", class: "chip", "data-state": state ?? "", onclick: pick }, state && STATES[state] ? icon(state) : null, h("b"), " ", h("span", null, word)));
      }
    }
    wanted.forEach(([state, , n], i) => {
      const chip = chips.children[i];
      // The common states are always shown; the others only if there are such lamps.
      chip.hidden = n === 0 && (state === "unknown" || state === "failing") && state !== kept.state;
      chip.setAttribute("aria-pressed", String(kept.state === state));
      put(chip.querySelector("b"), String(n));
    });
  };

  const render = (anew = false) => {
    const look = sizeNow();
    const { width, height, gap } = SIZES[look];
    const room = grid.clientWidth || main.clientWidth;
    columns = Math.max(1, Math.floor((room + gap) / (width + gap)));
    const wide = (room - gap * (columns - 1)) / columns;
    const tall = height + gap;
    grid.style.height = `${Math.ceil(shown.length / columns) * tall}px`;
    const top = -grid.getBoundingClientRect().top;
    const from = Math.max(0, Math.floor(top / tall) - SPARE) * columns;
    const to = Math.min(shown.length, (Math.ceil((top + innerHeight) / tall) + SPARE) * columns);
    const wanted = new Set(shown.slice(from, to));
    const focused = document.activeElement?.closest?.(".lamp")?.dataset.extension;
    for (const [extension, tile] of tiles) {
      // The lamp with the focus is kept, however far the page is scrolled.
      if (wanted.has(extension) || (extension === focused && store.get(extension) && shown.includes(extension))) continue;
      tiles.delete(extension);
      tile.node.remove();
      spare.push(tile);
    }
    for (let i = from; i < to; i += 1) {
      const extension = shown[i];
      let tile = tiles.get(extension);
      if (!tile) {
        tile = spare.pop() ?? makeTile();
        tile.label = null;
        tiles.set(extension, tile);
        grid.append(tile.node);
      }
      const lamp = store.get(extension);
      if (anew || tile.lamp !== lamp) paint(tile, lamp);
      const place = `${i}/${columns}/${wide}/${look}`;
      if (tile.place !== place) {
        tile.place = place;
        tile.index = i;
        const { style } = tile.node;
        const { classList } = tile.link;
        style.width = `${wide}px`;
        style.height = `${height}px`;
        style.transform = `translate(${(i % columns) * (wide + gap)}px, ${Math.floor(i / columns) * tall}px)`;
        classList.toggle("small", look === "small");
        classList.toggle("roomy", look === "roomy");
        tile.node.setAttribute("aria-posinset", String(i + 1));
      }
      tile.node.setAttribute("aria-setsize", String(shown.length));
      tile.link.tabIndex = i === focus ? 0 : -1;
    }
  };

  const soon = () => {
    frame ||= requestAnimationFrame(() => (frame = 0, render()));
  };

  const resize = (to) => {
    kept.size = to;
    labels();
    render(true);
  };

  const go = (index) => {
    if (!shown.length) return;
    focus = Math.max(0, Math.min(shown.length - 1, index));
    const { height, gap } = SIZES[sizeNow()];
    const y = scrollY + grid.getBoundingClientRect().top + Math.floor(focus / columns) * (height + gap);
    if (y < scrollY + 90) scrollTo(0, y - 90);
    else if (y + height > scrollY + innerHeight - 20) scrollTo(0, y + height - innerHeight + 20);
    render();
    tiles.get(shown[focus])?.link.focus({ preventScroll: true });
  };

  grid.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    go(focus + step);
  });
  grid.addEventListener("focusin", (event) => {
    const index = shown.indexOf(event.target.dataset?.extension);
    if (index >= 0) focus = index;
  });

  const update = (news) => {
    if (news.all || kept.state !== null) choose();
    if (news.all || news.lamps.size) count(), soon();
  };
  // Updates the elapsed times.
  const tick = () => {
    for (const tile of tiles.values()) put(tile.parts.since, timeOf(tile.lamp));
    if (!still.matches) grid.classList.add("dim"), setTimeout(() => grid.classList.remove("dim"), 400);
  };

  labels();
  choose();
  count();
  render();
  const quiet = store.watch(update);
  addEventListener("scroll", soon, { passive: true });
  const observer = new ResizeObserver(soon);
  observer.observe(main);
  timer = setInterval(tick, 1000);
  return () => {
    quiet();
    removeEventListener("scroll", soon);
    observer.disconnect();
    clearInterval(timer);
    cancelAnimationFrame(frame);
  };
};
