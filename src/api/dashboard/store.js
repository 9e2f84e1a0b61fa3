// All lamps of the account as received from the server, and the callbacks for their changes.

import * as api from "./api.js";

const lamps = new Map();
/** Number of lamps, number in each state, and number with a failing watcher. */
export const counts = {};
let order = [];
let sorted = true;
const watchers = new Set();
let stream = null;
let loading = null;
let changedWhileLoading = new Map();
let frame = 0;
let touched = new Set();
export let connection = "connecting";

/** Adds a callback for changes, called once a frame at most: `{ lamps: Set of extensions, all, subscriptions, connection }`. */
export const watch = (f) => {
  watchers.add(f);
  return () => watchers.delete(f);
};

let news = { all: false, subscriptions: new Set(), connection: false };
const tellSoon = () => {
  // A timer, because requestAnimationFrame does not run in a background page, which must be current when it is shown again.
  if (frame) return;
  frame = setTimeout(() => {
    frame = 0;
    const told = { ...news, lamps: touched };
    touched = new Set();
    news = { all: false, subscriptions: new Set(), connection: false };
    for (const f of watchers) f(told);
  }, 16);
};

const setConnection = (now) => {
  if (connection === now) return;
  connection = now;
  news.connection = true;
  tellSoon();
};

const count = (lamp, by) => {
  if (!lamp) return;
  for (const key of ["all", lamp.state, lamp.failing ? "failing" : null]) if (key) counts[key] = (counts[key] ?? 0) + by;
};

const clear = () => {
  lamps.clear();
  for (const key of Object.keys(counts)) counts[key] = 0;
};

const take = (lamp) => {
  count(lamps.get(lamp.extension), -1);
  if (!lamp.gone) count(lamp, 1);
  if (lamp.gone) {
    if (lamps.delete(lamp.extension)) (sorted = false), (news.all = true);
  } else {
    if (!lamps.has(lamp.extension)) (sorted = false), (news.all = true);
    lamps.set(lamp.extension, lamp);
  }
  touched.add(lamp.extension);
  tellSoon();
};

/** Extensions in the order of the wall. */
export const extensions = () => {
  if (!sorted) {
    const compare = new Intl.Collator(undefined, { numeric: true }).compare;
    order = [...lamps.keys()].sort(compare);
    sorted = true;
  }
  return order;
};

export const get = (extension) => lamps.get(extension);
export const isLoaded = () => loading === false;

const load = async () => {
  const mine = Symbol("load");
  loading = mine;
  changedWhileLoading = new Map();
  const fresh = new Map();
  try {
    for await (const page of api.lamps()) {
      if (loading !== mine) return;
      for (const lamp of page) fresh.set(lamp.extension, lamp);
    }
  } catch {
    // The stream also fails and loads everything again when it reconnects.
    if (loading === mine) setTimeout(() => stream && load(), 2000);
    return;
  }
  if (loading !== mine) return;
  loading = false;
  clear();
  for (const [extension, lamp] of fresh) lamps.set(extension, lamp), count(lamp, 1);
  sorted = false;
  news.all = true;
  // Changes received during the load are newer than the list.
  for (const lamp of changedWhileLoading.values()) take(lamp);
  tellSoon();
};

const hear = (name, data) => {
  switch (name) {
    case "hello":
    case "reset":
      setConnection("live");
      load();
      break;
    case "resumed":
      setConnection("live");
      break;
    case "lamp":
      if (loading) changedWhileLoading.set(data.extension, data);
      else take(data);
      break;
    case "subscription":
      news.subscriptions.add(data.extension);
      tellSoon();
      break;
    case "refused":
      setConnection("refused");
      break;
    case "lost":
      setConnection("lost");
      break;
  }
};

/** Starts the live stream. */
export const start = () => {
  stop();
  stream = new AbortController();
  connection = "connecting";
  api.listen(hear, stream.signal);
};

/** Stops the live stream and removes all lamps. */
export const stop = () => {
  stream?.abort();
  stream = null;
  loading = null;
  clear();
  order = [];
  sorted = true;
};
