// Opens lamp.html in a headless Chromium and prints what the page tells.
// Usage: node browser.js CHROMIUM PROFILE-FOLDER WEBSOCKET-URL WATCHER WATCHED
"use strict";
const { spawn } = require("child_process");
const fs = require("fs");
const http = require("http");
const path = require("path");

const [chromium, profile, server, watcher, watched] = process.argv.slice(2);
const types = { ".html": "text/html", ".js": "text/javascript" };

const pages = http.createServer((request, answer) => {
  const { pathname } = new URL(request.url, "http://page");
  if (request.method === "POST" && pathname === "/told") {
    let line = "";
    request.on("data", (piece) => (line += piece));
    request.on("end", () => {
      console.log(line);
      answer.writeHead(204).end();
    });
    return;
  }
  const file = path.join(__dirname, path.normalize(pathname));
  const type = types[path.extname(file)];
  if (!type || !fs.existsSync(file)) {
    answer.writeHead(404).end();
    return;
  }
  answer.writeHead(200, { "Content-Type": type });
  fs.createReadStream(file).pipe(answer);
});

pages.listen(0, "127.0.0.1", () => {
  const query = new URLSearchParams({ server, watcher, watched });
  const page = `http://127.0.0.1:${pages.address().port}/lamp.html?${query}`;
  // The sandbox is for pages that one does not know, and cannot be had as root.
  const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--no-proxy-server", `--user-data-dir=${profile}`];
  const browser = spawn(chromium, [...flags, page], { stdio: ["ignore", "ignore", "inherit"] });
  const end = () => browser.kill();
  process.on("SIGTERM", end);
  process.on("SIGINT", end);
  browser.on("exit", (code) => {
    console.log(`the browser has ended: ${code}`);
    process.exit(0);
  });
});
