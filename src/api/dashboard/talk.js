// Messages to the user: notices, and confirmation before an action.

import { $, h } from "./dom.js";

let timer = 0;
/** Notice on the screen and for screen readers. */
export const say = (text, wrong = false) => {
  const toast = $("toast");
  toast.textContent = text;
  toast.classList.toggle("wrong", wrong);
  toast.classList.add("on");
  clearTimeout(timer);
  timer = setTimeout(() => toast.classList.remove("on"), wrong ? 7000 : 3500);
};

/** Text for screen readers only. */
export const whisper = (text) => ($("said").textContent = text);

/**
 * Asks for confirmation, runs `act` and shows its result. With `choices`, a map of value to word, the user chooses a value,
 * which `act` receives.
 */
export const confirm = (title, text, verb, act, { choices = null, bad = false } = {}) => {
  const dialog = $("ask");
  const select = choices && h("select", { id: "ask-choice" }, Object.entries(choices).map(([value, word]) => h("option", { value }, word)));
  const form = h("form", { method: "dialog" },
    h("h2", { id: "ask-title" }, title), h("p", { class: "soft" }, text),
    select && [h("label", { for: "ask-choice" }, "State"), select],
    h("div", { class: "row" },
      h("button", { value: "no", type: "submit", autofocus: !select, formnovalidate: true }, "Cancel"),
      h("button", { value: "yes", type: "submit", class: bad ? "bad main" : "main", id: "ask-yes" }, verb)));
  dialog.replaceChildren(form);
  dialog.returnValue = "";
  dialog.onclose = async () => {
    if (dialog.returnValue !== "yes") return;
    try {
      const { data } = await act(select?.value);
      say(typeof data === "string" ? `Done: ${data}.` : "Done.");
    } catch (error) {
      say(`That did not work: ${error.message}.`, true);
    }
  };
  dialog.showModal();
};
