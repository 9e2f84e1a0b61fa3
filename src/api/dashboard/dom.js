// Helpers for building pages. All text is set through textContent or an attribute, never as markup, so that it cannot inject any.

const SVG = "http://www.w3.org/2000/svg";

const fill = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
};

/** Creates an element with attributes (`onclick` and similar are listeners) and children; strings become text nodes. */
export const h = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);

/** Creates an SVG element in the same way. */
export const s = (name, attributes, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

export const $ = (id) => document.getElementById(id);

/** Sets text only if it differs, to avoid needless layout work. */
export const put = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};

/** Lamp states: their words, in order of importance. */
export const STATES = {
  ringing: "ringing", talking: "talking", held: "on hold", calling: "calling", idle: "idle", unknown: "unknown",
};

const shapes = {
  // Each state has its own outline, so that it can be recognised without colour.
  idle: () => [s("circle", { cx: 17, cy: 17, r: 11.5, fill: "none", stroke: "currentColor", "stroke-width": 3 })],
  ringing: () => [
    s("circle", { cx: 17, cy: 17, r: 16, fill: "currentColor", opacity: 0.2 }),
    s("path", { d: "M17 6.5c-4.200 0-6.800 3-6.800 7v4.300L8 22h18l-2.200-4.200v-4.300c0-4-2.600-7-6.800-7zM14 24a3 3 0 0 0 6 0z", fill: "currentColor" }),
  ],
  talking: () => [
    s("circle", { cx: 17, cy: 17, r: 15, fill: "currentColor" }),
    s("path", { d: "M9.500 19.500v-5M14.500 22.500v-11M19.500 21v-8M24.500 19v-4", stroke: "var(--card)", "stroke-width": 2.600, "stroke-linecap": "round" }),
  ],
  calling: () => [
    s("circle", { cx: 17, cy: 17, r: 14, fill: "none", stroke: "currentColor", "stroke-width": 2.4 }),
    s("path", { d: "M12 22 22 12M14 12h8v8", fill: "none", stroke: "currentColor", "stroke-width": 3, "stroke-linecap": "round", "stroke-linejoin": "round" }),
  ],
  held: () => [
    s("rect", { x: 2.5, y: 2.5, width: 29, height: 29, rx: 8, fill: "currentColor" }),
    s("path", { d: "M13 11v12M21 11v12", stroke: "var(--card)", "stroke-width": 3.6, "stroke-linecap": "round" }),
  ],
  unknown: () => [
    s("circle", { cx: 17, cy: 17, r: 12, fill: "none", stroke: "currentColor", "stroke-width": 2, "stroke-dasharray": "3 4" }),
    s("path", { d: "M13.800 14.200a3.200 3.200 0 1 1 4.600 2.900c-1 .5-1.400 1-1.400 2.100M17 22.700v.1", fill: "none", stroke: "currentColor", "stroke-width": 2.200, "stroke-linecap": "round" }),
  ],
};

/** Icon of a state. */
export const icon = (state) => s("svg", { viewBox: "0 0 34 34", "aria-hidden": "true", focusable: "false" }, (shapes[state] ?? shapes.unknown)());

const marks = {
  good: "M3 8.500l3.300 3.300L13 4.800",
  bad: "M8 2 15 14H1zM8 6.500v3.500M8 12v.1",
  busy: "M8 2a6 6 0 1 0 6 6M8 5v3l2 2",
};
const KIND = { current: "good", sending: "busy", waiting: "busy", resolving: "busy", failing: "bad", silent: "bad", behind: "bad", ended: "busy" };
const WORD = {
  current: "up to date", sending: "NOTIFY in flight", waiting: "waits for its turn", resolving: "DNS lookup",
  failing: "refuses NOTIFYs", silent: "does not answer", behind: "behind", ended: "ending",
};

/** Delivery status of a subscription: mark and word. */
export const badge = (standing) =>
  h("span", { class: `badge ${KIND[standing] ?? "busy"}` },
    s("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" },
      s("path", { d: marks[KIND[standing] ?? "busy"], fill: "none", stroke: "currentColor", "stroke-width": 2, "stroke-linecap": "round", "stroke-linejoin": "round" })),
    WORD[standing] ?? standing);

let skew = 0;
/** Clock offset to the server, from the Date header; up to 3 s is ignored, as the header has whole seconds. */
export const clock = (date) => {
  const difference = Date.parse(date) - Date.now();
  if (Number.isFinite(difference)) skew = Math.abs(difference) > 3000 ? difference : 0;
};
/** Current time of the server. */
export const now = () => Date.now() + skew;

/** Duration as text. */
export const span = (ms) => {
  const total = Math.max(0, Math.floor(ms / 1000));
  const [hours, minutes, seconds] = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60];
  const two = (n) => String(n).padStart(2, "0");
  if (hours >= 48) return `${Math.floor(hours / 24)} d`;
  return hours ? `${hours}:${two(minutes)}:${two(seconds)}` : `${minutes}:${two(seconds)}`;
};

/** Time of day; with `exact`, to the millisecond. */
export const time = (ms, exact) => {
  const date = new Date(ms);
  const text = date.toLocaleTimeString([], { hour12: false });
  return exact ? `${text}.${String(date.getMilliseconds()).padStart(3, "0")}` : text;
};

/** Short name of the remote party of a call. */
export const other = (side) => {
  if (!side) return "";
  return side.name || (side.number ?? "").split("@")[0];
};

/** Table that scrolls sideways on small screens. */
export const table = (caption, heads, rows) =>
  h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption, "data-key": `scroll ${caption}` },
    h("table", null, h("caption", { class: "unseen" }, caption),
      h("thead", null, h("tr", null, heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", null, rows.map((row) => h("tr", null, row.map((cell) => h("td", null, cell)))))));
