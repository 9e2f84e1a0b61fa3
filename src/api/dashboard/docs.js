// API reference: shows /openapi.json for people.

import { $, h, table } from "./dom.js";
import { theme } from "./theme.js";

theme();

let api = null;
const METHODS = ["get", "post", "put", "patch", "delete"];

/** Resolves a `$ref`; any other value is returned unchanged. */
const resolve = (thing) => (thing?.$ref ? thing.$ref.slice(2).split("/").reduce((at, name) => at?.[name], api) : thing);
const nameOf = (thing) => thing?.$ref?.split("/").pop();
const id = (text) => text.replace(/[^A-Za-z0-9]+/g, "-");

/** Text as paragraphs, with `code` and **strong**. */
const prose = (text) => (text ?? "").split("\n\n").filter(Boolean).map((paragraph) =>
  h("p", { class: "prose" }, paragraph.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((piece) => {
    if (piece.startsWith("`")) return h("code", null, piece.slice(1, -1));
    if (piece.startsWith("**")) return h("strong", null, piece.slice(2, -2));
    return piece;
  })));
const line = (text) => prose(text)[0]?.childNodes ? [...prose(text)[0].childNodes] : "";

/** Short name of a schema's type, with a link if the schema has a name. */
const type = (schema) => {
  if (!schema) return "anything";
  const name = nameOf(schema);
  if (name) return h("a", { href: `#schema-${name}` }, name);
  const some = schema.anyOf ?? schema.oneOf;
  if (some && !schema.properties) return some.flatMap((one, n) => (n ? [" or ", type(one)] : [type(one)]));
  if (schema.const !== undefined) return h("code", null, JSON.stringify(schema.const));
  if (schema.enum) return schema.enum.flatMap((value, n) => [n ? ", " : "", h("code", null, JSON.stringify(value))]);
  const kinds = [schema.type ?? "anything"].flat();
  if (kinds[0] === "array") return ["list of ", type(schema.items)];
  if (kinds[0] === "object" && schema.additionalProperties?.constructor === Object) return ["map of ", type(schema.additionalProperties)];
  const bounds = [];
  if (schema.minimum !== undefined && schema.maximum !== undefined) bounds.push(`${schema.minimum} to ${schema.maximum}`);
  if (schema.maxLength !== undefined) bounds.push(`up to ${schema.maxLength} long`);
  if (schema.default !== undefined) bounds.push(`${schema.default} by default`);
  return kinds.join(" or ") + (bounds.length ? ` (${bounds.join(", ")})` : "");
};

const fields = (schema, caption) => table(caption, ["Field", "Type", "Meaning"],
  Object.entries(schema.properties ?? {}).map(([name, one]) => [
    [h("code", null, name), (schema.required ?? []).includes(name) ? "" : h("span", { class: "faint" }, " optional")],
    type(one), line(one.description ?? resolve(one)?.description)]));

const parameters = (all) => !all.length ? null : [h("h4", null, "Parameters"),
  table("Parameters", ["Name", "Where", "Type", "Meaning"], all.map((one) => [
    [h("code", null, one.name), one.required ? "" : h("span", { class: "faint" }, " optional")], one.in, type(one.schema), line(one.description)]))];

const body = (request) => {
  const schema = resolve(resolve(request)?.content?.["application/json"]?.schema);
  if (!schema) return null;
  const data = schema.properties?.data;
  return [h("h4", null, "Body"), h("p", { class: "prose" }, "JSON: an object with ", h("code", null, "data"), "."),
    data?.properties ? fields(data, "Fields of data") : null];
};

const responses = (all) => {
  const good = Object.entries(all).filter(([status]) => status < "300").flatMap(([status, one]) => {
    const found = resolve(one);
    return Object.entries(found.content ?? {}).map(([kind, { schema }]) => {
      const data = schema?.properties?.data;
      return h("p", { class: "prose" }, h("strong", null, status), ` ${kind}: `, data ? ["envelope, whose ", h("code", null, "data"), " is ", type(data)] : type(schema));
    });
  });
  const bad = Object.entries(all).filter(([status]) => status >= "300");
  return [h("h4", null, "Responses"), good, bad.length ? h("details", null, h("summary", null, `Errors: ${bad.map(([status]) => status).join(", ")}`),
    table("Errors", ["Status", "Meaning"], bad.map(([status, one]) => [h("code", null, status), line(resolve(one).description)]))) : null];
};

const example = (method, path, operation) => {
  const guarded = !(operation.security && operation.security.length === 0);
  const query = method === "get" ? "" : ` -X ${method.toUpperCase()}`;
  const token = guarded ? " \\\n  -H 'X-Auth-Token: T'" : "";
  const data = method === "post" && operation.requestBody ? " \\\n  -H 'Content-Type: application/json' -d '{\"data\": {}}'" : "";
  return h("pre", { tabindex: 0, "aria-label": "As a command" }, `curl${query} '${location.origin}${path}'${token}${data}`);
};

const call = (path, item, method) => {
  const operation = item[method];
  const all = [...(item.parameters ?? []), ...(operation.parameters ?? [])].map(resolve);
  return h("section", { class: "card call", id: id(operation.operationId) },
    h("h3", null, h("span", { class: `method ${method}` }, method.toUpperCase()), h("code", { class: "path" }, path)),
    h("p", { class: "summary" }, operation.summary), prose(operation.description),
    parameters(all), body(operation.requestBody), responses(operation.responses), example(method, path, operation));
};

/** Requests that the server sends: the webhooks. */
const webhook = ([name, { post }]) => h("section", { class: "card call", id: `webhook-${name}` },
  h("h3", null, h("span", { class: "method post" }, "POST"), h("code", { class: "path" }, "the url of [[account.webhook]]")),
  h("p", { class: "summary" }, post.summary), prose(post.description), parameters(post.parameters),
  h("h4", null, "Body"), h("p", { class: "prose" }, "application/json: ", type(post.requestBody.content["application/json"].schema)));

const schema = ([name, one]) => h("section", { class: "card call", id: `schema-${name}` },
  h("h3", null, name), prose(one.description), one.properties ? fields(one, `Fields of ${name}`) : h("p", { class: "prose" }, type(one)));

const show = (read) => {
  api = read;
  const calls = Object.entries(api.paths).flatMap(([path, item]) => METHODS.filter((method) => item[method]).map((method) => ({ path, item, method })));
  const by = (tag) => calls.filter(({ item, method }) => item[method].tags.includes(tag));
  $("contents").replaceChildren(...api.tags.map(({ name }) => [
    h("h2", null, name),
    h("ul", null, by(name).map(({ path, item, method }) => h("li", null,
      h("a", { href: `#${id(item[method].operationId)}`, title: path }, h("span", { class: `method ${method}` }, method.toUpperCase()), h("span", null, item[method].summary)))))]).flat(),
    h("h2", null, "Webhooks"), h("ul", null, Object.entries(api.webhooks).map(([name, { post }]) => h("li", null,
      h("a", { href: `#webhook-${name}` }, h("span", { class: "method post" }, "POST"), h("span", null, post.summary))))),
    h("h2", null, "Shapes"), h("ul", null, Object.keys(api.components.schemas).map((name) => h("li", null, h("a", { href: `#schema-${name}` }, name)))));
  $("main").replaceChildren(
    h("div", { class: "hero" }, h("div", null, h("h1", null, "The HTTP API"), h("p", { class: "soft" }, api.info.summary))),
    h("section", { class: "card call" }, prose(api.info.description)),
    ...api.tags.flatMap(({ name, description }) => [
      h("h2", { class: "part" }, name), h("p", { class: "soft" }, description),
      ...by(name).map(({ path, item, method }) => call(path, item, method))]),
    h("h2", { class: "part" }, "Webhooks"), ...Object.entries(api.webhooks).map(webhook),
    h("h2", { class: "part" }, "Shapes"), ...Object.entries(api.components.schemas).map(schema));
  // The target of the address's fragment exists only now.
  document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
};

try {
  const answer = await fetch("/openapi.json");
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  show(await answer.json());
} catch (error) {
  $("main").replaceChildren(h("p", { role: "alert" }, `The description of the API cannot be loaded: ${error.message}`));
}
