// A headless Chromium by remote control: commands as lines of JSON come in, an answer as a line of JSON goes out for each.
// Usage: node remote.js CHROMIUM PROFILE-FOLDER
//
// {"go": URL} · {"eval": EXPRESSION} · {"wait": EXPRESSION, "ms": LIMIT} · {"shot": FILE, "full": BOOL}
// {"size": [WIDTH, HEIGHT], "phone": BOOL} · {"scheme": "dark"} · {"key": NAME}
// {"metrics": true}: CPU seconds of the page so far · {"complaints": true}: faults since the last call
//
// The browser is spoken to over a pipe (its DevTools protocol, messages that end in NUL), so no library is needed.
"use strict";
const { spawn } = require("child_process");
const fs = require("fs");
const readline = require("readline");

const [chromium, profile] = process.argv.slice(2);
// The sandbox is for pages that one does not know, and cannot be had as root.
const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
  "--disable-background-networking", "--no-proxy-server", "--remote-debugging-pipe", `--user-data-dir=${profile}`, "about:blank"];
const browser = spawn(chromium, flags, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
const [, , , to, from] = browser.stdio;

let number = 0;
const waiting = new Map();
const complaints = [];
let text = "";
from.setEncoding("utf8");
from.on("data", (piece) => {
  const whole = (text + piece).split("\0");
  text = whole.pop();
  for (const message of whole.map((one) => JSON.parse(one))) {
    if (message.id) {
      const { done, fail } = waiting.get(message.id);
      waiting.delete(message.id);
      if (message.error) fail(new Error(message.error.message));
      else done(message.result);
    } else if (message.method === "Runtime.exceptionThrown") {
      complaints.push(message.params.exceptionDetails.exception?.description ?? message.params.exceptionDetails.text);
    } else if (message.method === "Log.entryAdded" && message.params.entry.level === "error") {
      complaints.push(`${message.params.entry.text} ${message.params.entry.url ?? ""}`);
    }
  }
});

const call = (method, params = {}, sessionId = undefined) => new Promise((done, fail) => {
  number += 1;
  waiting.set(number, { done, fail });
  to.write(`${JSON.stringify({ id: number, method, params, sessionId })}\0`);
});

const start = async () => {
  const { targetInfos } = await call("Target.getTargets");
  const page = targetInfos.find((target) => target.type === "page");
  const { sessionId } = await call("Target.attachToTarget", { targetId: page.targetId, flatten: true });
  const send = (method, params) => call(method, params, sessionId);
  await Promise.all([send("Page.enable"), send("Runtime.enable"), send("Log.enable"),
    send("Performance.enable", { timeDomain: "threadTicks" })]);
  return send;
};

const evaluate = async (send, expression) => {
  const { result, exceptionDetails } = await send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
  return result.value ?? null;
};

const obey = async (send, command) => {
  if (command.go) {
    await send("Page.navigate", { url: command.go });
  } else if (command.eval) {
    return evaluate(send, command.eval);
  } else if (command.wait) {
    // The page itself looks whenever it changes and every frame; nobody sleeps.
    const { wait, ms } = command;
    const outcome = await evaluate(send, `new Promise((done) => {
      const from = performance.now();
      const look = () => {
        let value = null;
        try { value = (() => (${wait}))(); } catch { /* not there yet */ }
        if (value) done({ value, ms: performance.now() - from });
        else if (performance.now() - from > ${Number(ms)}) done(null);
        else setTimeout(look, 5);
      };
      look();
    })`);
    if (outcome === null) throw new Error(`not within ${ms} ms: ${wait}\n${await evaluate(send, "document.body.innerText")}`);
    return outcome;
  } else if (command.shot) {
    const metrics = command.full ? (await send("Page.getLayoutMetrics")).cssContentSize : null;
    const clip = metrics ? { x: 0, y: 0, width: metrics.width, height: metrics.height, scale: 1 } : undefined;
    const { data } = await send("Page.captureScreenshot", { format: "png", clip, captureBeyondViewport: Boolean(command.full) });
    fs.writeFileSync(command.shot, Buffer.from(data, "base64"));
  } else if (command.size) {
    const [width, height] = command.size;
    await send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: command.scale ?? 1, mobile: Boolean(command.phone) });
  } else if (command.scheme) {
    await send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: command.scheme }] });
  } else if (command.key) {
    const key = { key: command.key, code: command.key, windowsVirtualKeyCode: { Tab: 9, Enter: 13, ArrowRight: 39, ArrowDown: 40 }[command.key] };
    await send("Input.dispatchKeyEvent", { type: "rawKeyDown", ...key });
    await send("Input.dispatchKeyEvent", { type: "keyUp", ...key });
  } else if (command.metrics) {
    const { metrics } = await send("Performance.getMetrics");
    return Object.fromEntries(metrics.map(({ name, value }) => [name, value]));
  } else if (command.complaints) {
    return complaints.splice(0);
  } else {
    throw new Error(`no such command: ${JSON.stringify(command)}`);
  }
  return true;
};

const end = () => browser.kill();
process.on("SIGTERM", end);
process.on("SIGINT", end);
browser.on("exit", () => process.exit(0));
(async () => {
  const send = await start();
  for await (const line of readline.createInterface({ input: process.stdin })) {
    try {
      console.log(JSON.stringify({ ok: await obey(send, JSON.parse(line)) }));
    } catch (error) {
      console.log(JSON.stringify({ error: String(error.message ?? error) }));
    }
  }
  end();
})();
