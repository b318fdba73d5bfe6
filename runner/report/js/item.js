// ---- one item: the one that the page's address names, from the items that the page carries ----

const TINY_PX = 160;
const byId = (id) => document.getElementById(id);
const three = (value) => (Math.abs(value) >= 999.5 ? Math.round(value).toLocaleString("en-US") : value.toPrecision(3)); // as numbers.py writes

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

async function carried() {
  const bytes = Uint8Array.from(atob(byId("data").textContent.trim()), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
}

function section(title, ...children) {
  const found = children.filter(Boolean);
  return found.length ? make("section", {}, make("h2", { textContent: title }), ...found) : "";
}

function listing(pairs) {
  if (!pairs.length) return "";
  const shown = (value) => (value instanceof Node ? value : make("bdi", { textContent: String(value) }));
  return make("dl", { className: "environment" }, ...pairs.map(([name, value]) => make("div", {}, make("dt", { textContent: name }), make("dd", {}, shown(value)))));
}

/* Nested settings as [a.b, value] pairs, without those that are not set. */
function flat(value, prefix = "") {
  return Object.entries(value).flatMap(([name, inner]) => {
    if (inner === null || inner === "") return [];
    return typeof inner === "object" && !Array.isArray(inner) ? flat(inner, `${prefix}${name}.`) : [[`${prefix}${name}`, Array.isArray(inner) ? inner.join(", ") : inner]];
  });
}

function media(item) {
  if (!item.media) return "";
  const isVideo = /\.(mp4|webm)$/.test(item.media);
  const element = isVideo ? make("video", { controls: true, loop: true, muted: true, playsInline: true, className: "media" }) : make("img", { alt: item.prompt, className: "media" });
  element.addEventListener(isVideo ? "loadedmetadata" : "load", () => {
    const size = isVideo ? [element.videoWidth, element.videoHeight] : [element.naturalWidth, element.naturalHeight];
    element.classList.toggle("tiny", Math.max(...size) <= TINY_PX);
  });
  element.src = item.media;
  return element;
}

function svg(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function path(points, className) {
  return svg("path", { class: className, d: `M${points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join(" L")}` });
}

/* Final states after each round, beside the diagonal of the sequential sampler. */
function fronts({ fronts: values = [], num_steps: steps, rounds }) {
  if (values.length < 2) return "";
  const drawing = svg("svg", { class: "front", viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img", "aria-label": `Final states after each of ${rounds} rounds, of ${steps}` });
  const place = (round, front) => [(100 * round) / steps, 100 - (100 * front) / steps];
  drawing.append(path([place(0, 0), place(steps, steps)], "grid"), path([place(0, 0), ...values.map((front, index) => place(index + 1, front))], ""));
  return make("figure", {}, drawing, make("figcaption", { className: "meta", textContent: "Final states over rounds; dashed, the sequential sampler." }));
}

function timings(record) {
  const seconds = record.elapsed_s;
  const sampler = record.sampler;
  const found = seconds ? [["seconds in all", three(seconds)]] : [];
  if (sampler) {
    found.push(["steps, N", sampler.num_steps], ["rounds", `${sampler.rounds} (${(sampler.num_steps / sampler.rounds).toFixed(2)}×)`], ["evaluations, NFE", sampler.nfe]);
    if (seconds && sampler.nfe) found.push(["seconds a round", three(seconds / sampler.rounds)], ["seconds an evaluation", three(seconds / sampler.nfe)]);
  }
  for (const [name, title] of [["device", "device"], ["host", "host"], ["finished_at", "finished"], ["attempt", "attempt"]]) if (record[name]) found.push([title, record[name]]);
  return found;
}

/* A metric over the nights in which this very item was made: a small line, from its first value to its last. */
function overNights(nights, metrics) {
  return Object.entries(metrics).flatMap(([name, [title]]) => {
    const values = nights.filter(([, scores]) => name in scores).map(([night, scores]) => [night, scores[name]]);
    if (values.length < 2) return [];
    const numbers = values.map(([, value]) => value);
    const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
    const text = `${three(values[0][1])} on ${values[0][0]}, ${three(values.at(-1)[1])} on ${values.at(-1)[0]}`;
    const line = make("div", { textContent: text });
    if (high > low) {
      const drawing = svg("svg", { class: "spark over", viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" });
      drawing.append(path(numbers.map((value, index) => [(100 * index) / (numbers.length - 1), 92 - (84 * (value - low)) / (high - low)]), ""));
      line.append(drawing);
    }
    return [[title, line]];
  });
}

/* JSON with a line for each key, and lists of numbers on one. */
function written(record) {
  return JSON.stringify(record, null, 1).replace(/\[[\s\d.,-]+\]/g, (list) => list.replace(/\s+/g, " "));
}

function logs(item) {
  return (item.logs || []).map((address) => make("p", {}, make("a", { href: address, textContent: decodeURIComponent(address.replace(/^(\.\.\/)+/, "")) })));
}

function show(carriedItems) {
  const id = decodeURIComponent(location.hash.slice(1));
  const item = Object.hasOwn(carriedItems.items, id) ? carriedItems.items[id] : null;
  byId("back").href = item ? `../index.html#item-${encodeURIComponent(id)}` : "../index.html";
  byId("prompt").textContent = item ? item.prompt : "No item of this name";
  byId("where").textContent = item ? [item.cell, `seed ${item.seed}`, item.record ? item.record.status : "not run yet", id].join(" · ") : id;
  document.title = `${item ? item.prompt.slice(0, 60) : id} · ${carriedItems.title} · genrun item`;
  byId("item").replaceChildren();
  if (!item) return;
  const record = item.record || {};
  const error = record.error ? make("p", { className: "failure", tabIndex: 0, textContent: [record.error.kind, record.error.message, record.error.remedy].filter(Boolean).join("\n") }) : "";
  const input = [["prompt", item.prompt], ...(item.negative ? [["negative prompt", item.negative]] : []), ["seed", item.seed], ...flat(item.input), ["attention", item.attention]];
  const command = `genrun rerun ${id} --run ${carriedItems.run}`;
  byId("item").append(...[
    section("Result", media(item), error),
    section("Scores", listing(item.scores)),
    section("Over the nights", listing(overNights(item.nights || [], carriedItems.metrics))),
    section("Timings", listing(timings(record)), record.sampler ? fronts(record.sampler) : ""),
    section("Input", listing(input)),
    section("Log", ...logs(item)),
    section("Again", make("pre", { textContent: command, tabIndex: 0 })),
    item.record ? section("Record", make("pre", { textContent: written(record), tabIndex: 0 })) : "",
  ].filter(Boolean));
}

carried().then((found) => {
  show(found);
  addEventListener("hashchange", () => show(found));
}, () => {
  byId("item").append(make("p", { textContent: "This browser cannot read the item's data: any browser of 2023 or later does." }));
});
