// Client of the server's HTTP API and its live stream. The token stays in sessionStorage and is sent as a header, never in a URL.

import { clock } from "./dom.js";

const KEY = "lamplighter";
let session = null;
try {
  session = JSON.parse(sessionStorage.getItem(KEY));
} catch { /* Without storage, the user signs in again on each page load. */ }

export const account = () => session?.account ?? null;

export const signIn = (account, token) => {
  session = { account, token };
  try {
    sessionStorage.setItem(KEY, JSON.stringify(session));
  } catch { /* Without storage, the sign-in lasts as long as the page. */ }
};

export const signOut = () => {
  session = null;
  try {
    sessionStorage.removeItem(KEY);
  } catch { /* Without storage there is nothing to remove. */ }
};

/** Error response of the server, with its message. */
export class Refused extends Error {
  constructor(status, envelope) {
    const data = envelope?.data ?? {};
    const field = Object.entries(data).find(([, rules]) => rules && typeof rules === "object");
    const rule = field ? Object.values(field[1])[0]?.message : null;
    super(rule ? `${field[0]}: ${rule}` : data.cause ?? data.message ?? envelope?.message ?? `status ${status}`);
    this.status = status;
  }
}

const address = (path) => `/v2/accounts/${encodeURIComponent(session.account)}/${path}`;
const headers = () => ({ "X-Auth-Token": session.token, Accept: "application/json" });

/** Sends a request about the account; returns the whole envelope. */
export const ask = (path, method = "GET", data = null) => exchange(address(path), method, data);

/** Sends a request about the whole server, for superuser tokens. */
export const askServer = (path) => exchange(`/v2/${path}`, "GET", null);

const exchange = async (where, method, data) => {
  const body = data ? JSON.stringify({ data }) : undefined;
  const also = data ? { "Content-Type": "application/json" } : {};
  const answer = await fetch(where, { method, body, headers: { ...headers(), ...also }, cache: "no-store" });
  clock(answer.headers.get("date"));
  const envelope = await answer.json().catch(() => null);
  if (!answer.ok) throw new Refused(answer.status, envelope);
  return envelope;
};

/** Accounts that the token may see: id, name, realm. */
export const accounts = async (token) => {
  const answer = await fetch("/v2/accounts", { headers: { "X-Auth-Token": token, Accept: "application/json" }, cache: "no-store" });
  const envelope = await answer.json().catch(() => null);
  if (!answer.ok) throw new Refused(answer.status, envelope);
  return envelope.data;
};

export const get = async (path) => (await ask(path)).data;

export const lamp = (extension) => `lamps/${encodeURIComponent(extension)}`;
export const reset = (extension) => ask(`presence/${encodeURIComponent(extension)}`, "POST", { action: "reset" });
export const set = (extension, state) => ask(`presence/${encodeURIComponent(extension)}`, "POST", { action: "set", state });
export const resend = (id) => ask(`subscriptions/${encodeURIComponent(id)}`, "POST", { action: "resend" });
export const trace = (id, seconds) => ask(`subscriptions/${encodeURIComponent(id)}`, "POST", { action: "trace", seconds });
export const forgetTrace = (id) => ask(`subscriptions/${encodeURIComponent(id)}/trace`, "DELETE");
/** Messages traced in a subscription; null if it was not traced. */
export const traced = async (id) => {
  try {
    return await get(`subscriptions/${encodeURIComponent(id)}/trace`);
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
};
export const end = (id) => ask(`subscriptions/${encodeURIComponent(id)}`, "DELETE");

/** All lamps of the account, fetched page by page. */
export async function* lamps() {
  let start = "";
  do {
    const page = await ask(`lamps?page_size=2000&start_key=${encodeURIComponent(start)}`);
    yield page.data;
    start = page.next_start_key;
  } while (start !== undefined);
}

const wait = (ms, signal) => new Promise((done) => {
  const timer = setTimeout(done, ms);
  signal.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
});

/**
 * Reads the live stream until it is aborted, and reconnects: `tell(name, data)` for every event, and `tell("lost")` when the
 * connection is lost. It uses fetch, because EventSource would put the token into the URL.
 */
export const listen = async (tell, signal) => {
  let last = null;
  let pause = 500;
  while (!signal.aborted) {
    try {
      const also = last ? { "Last-Event-ID": last } : {};
      const answer = await fetch(address("lamp_events"), { headers: { ...headers(), ...also, Accept: "text/event-stream" }, signal, cache: "no-store" });
      if (answer.status === 401 || answer.status === 403 || answer.status === 404) return tell("refused", answer.status);
      if (!answer.ok) throw new Refused(answer.status, null);
      clock(answer.headers.get("date"));
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        pause = 500;
        text += value;
        const whole = text.split("\n\n");
        text = whole.pop();
        for (const block of whole) {
          const event = { name: null, data: "" };
          for (const line of block.split("\n")) {
            if (line.startsWith("id: ")) last = line.slice(4);
            else if (line.startsWith("event: ")) event.name = line.slice(7);
            else if (line.startsWith("data: ")) event.data += line.slice(6);
          }
          if (event.name) tell(event.name, JSON.parse(event.data || "{}"));
        }
      }
    } catch (error) {
      if (signal.aborted) return;
    }
    if (signal.aborted) return;
    tell("lost");
    await wait(pause, signal);
    pause = Math.min(pause * 2, 10000);
  }
};
