// A JsSIP watcher in Node: prints `lamp STATE` for every NOTIFY.
// Usage: node jssip.js WEBSOCKET-URL WATCHER WATCHED
"use strict";
globalThis.WebSocket = require("ws");
const JsSIP = require("jssip");

const [url, watcher, watched] = process.argv.slice(2);
const ua = new JsSIP.UA({ sockets: [new JsSIP.WebSocketInterface(url)], uri: watcher, register: false });
ua.on("connected", () => {
  console.log("connected");
  const lamp = ua.subscribe(watched, "dialog", "application/dialog-info+xml", { expires: 300 });
  lamp.on("notify", (_final, _request, body) => {
    const states = [...body.matchAll(/<state>(.*?)<\/state>/g)].map((found) => found[1]);
    console.log(`lamp ${states.join(" ") || "idle"}`);
  });
  lamp.on("terminated", (code, reason) => console.log(`terminated ${code} ${reason}`));
  lamp.subscribe();
});
ua.on("disconnected", (event) => console.log(`disconnected ${event.code} ${event.reason}`));
ua.start();
