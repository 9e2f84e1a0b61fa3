// Sign-in, navigation bar and choice of the page.

import * as api from "./api.js";
import { $, h } from "./dom.js";
import * as store from "./store.js";
import { lampPage } from "./lamp.js";
import { overviewPage } from "./overview.js";
import { refusalsPage } from "./refusals.js";
import { searchPage } from "./search.js";
import { subscriptionPage } from "./subscription.js";
import { say } from "./talk.js";
import { theme } from "./theme.js";
import { wallPage } from "./wall.js";

const PAGES = { wall: wallPage, lamps: lampPage, subscriptions: subscriptionPage, overview: overviewPage, refusals: refusalsPage, search: searchPage };
let leavePage = null;

theme();

const LIVE = { live: "live", connecting: "connecting", lost: "reconnecting", refused: "not allowed" };
const showConnection = () => {
  $("live").dataset.is = store.connection === "refused" ? "lost" : store.connection;
  $("live").querySelector("b").textContent = LIVE[store.connection];
  document.body.dataset.connection = store.connection;
};
store.watch((news) => {
  if (!news.connection) return;
  showConnection();
  if (store.connection === "refused") leave("The server does not accept this token any more.");
});

const signInPage = (main, wrong) => {
  document.title = "Sign in · Lamplighter";
  const token = h("input", { id: "token", name: "token", type: "password", required: true, autocomplete: "current-password" });
  const choice = h("select", { id: "account", name: "account" });
  const which = h("div", { hidden: true }, h("label", { for: "account" }, "Account"), choice);
  const trouble = h("p", { class: "wrong", role: "alert", hidden: !wrong }, wrong ?? "");
  let asked = null;
  const enter = async (event) => {
    event.preventDefault();
    const shown = token.value.trim();
    trouble.hidden = true;
    try {
      if (asked !== shown) {
        const all = await api.accounts(shown);
        asked = shown;
        if (!all.length) throw new Error("this token opens no account.");
        choice.replaceChildren(...all.map(({ id, name, realm }) => h("option", { value: id }, name && name !== realm ? `${name} (${realm})` : realm)));
        which.hidden = all.length === 1;
        // With several accounts, the user has to choose one first.
        if (all.length > 1) return void choice.focus();
      }
      api.signIn(choice.value, shown);
      begin();
    } catch (error) {
      asked = null;
      trouble.hidden = false;
      trouble.textContent = error.status === 401 ? "This token is not known here." : `That did not work: ${error.message}`;
    }
  };
  main.replaceChildren(h("form", { class: "sign", onsubmit: enter },
    h("img", { src: "/assets/icon.svg", alt: "" }),
    h("h1", null, "Lamplighter"), h("p", null, "Sign in with a token of the API to see the lamps of an account."),
    h("label", { for: "token" }, "Token"), token, which, trouble, h("button", { class: "main", type: "submit" }, "Sign in")));
  token.focus();
};

const leave = (why) => {
  leavePage?.();
  leavePage = null;
  store.stop();
  api.signOut();
  $("bar").hidden = true;
  delete document.body.dataset.connection;
  history.replaceState(null, "", "/");
  signInPage($("main"), typeof why === "string" ? why : null);
};

const show = () => {
  const said = new URLSearchParams(location.hash.slice(1));
  if (said.has("token") && said.has("account")) {
    // The token must not stay in the address bar or in the history.
    api.signIn(said.get("account"), said.get("token"));
    history.replaceState(null, "", "#/wall");
    return begin();
  }
  if (!api.account()) return leave();
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  const page = PAGES[name] ?? wallPage;
  leavePage?.();
  // A dialog opened on the previous page must not be confirmed on this one.
  $("ask").close();
  const main = $("main");
  main.replaceChildren();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === (PAGES[name] ? name : "wall")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  let argument = rest.join("/");
  try {
    argument = decodeURIComponent(argument);
  } catch { /* Invalid percent-encoding: use the text as it is. */ }
  leavePage = page(main, argument);
  scrollTo(0, 0);
};

const begin = () => {
  $("bar").hidden = false;
  store.start();
  showConnection();
  show();
};

addEventListener("hashchange", () => {
  show();
  $("main").focus({ preventScroll: true });
});
$("leave").addEventListener("click", leave);
$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = event.target.elements.text.value.trim();
  if (text) location.hash = `#/search/${encodeURIComponent(text)}`;
});
addEventListener("keydown", (event) => {
  const typing = event.target.matches?.("input, textarea, select");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !$("bar").hidden) {
    event.preventDefault();
    $("search").elements.text.focus();
  }
});
addEventListener("unhandledrejection", (event) => say(event.reason?.message ?? "Something went wrong.", true));

if (location.hash.includes("token=")) show();
else if (api.account()) begin();
else leave();
