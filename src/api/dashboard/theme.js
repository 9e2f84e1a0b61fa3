// Light or dark theme: the system's setting until the user chooses another.

import { $ } from "./dom.js";

const KEY = "lamplighter-theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

const chosen = () => {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
};

const show = () => {
  const theme = chosen() ?? (dark.matches ? "dark" : "light");
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = theme === "dark" ? "Light" : "Dark";
};

/** Applies the theme and connects the button. */
export const theme = () => {
  dark.addEventListener("change", show);
  $("theme").addEventListener("click", () => {
    try {
      localStorage.setItem(KEY, document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    } catch { /* Without storage, the theme stays as the system has it. */ }
    show();
  });
  show();
};
