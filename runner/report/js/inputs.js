// ---- what a row was made from: the name of its prompt, and pictures and clips beside it ----

function inputsOf(row) {
  const found = [];
  if (row.nm) found.push(make("p", { className: "meta" }, make("bdi", { textContent: row.nm })));
  if (row.in) found.push(make("div", { className: "inputs" }, ...row.in.map(inputOf)));
  return found;
}

function inputOf(input) {
  const about = `${input.n.replaceAll("_", " ")}: ${input.t}`;
  const media = input.v
    ? make("video", { src: input.m, muted: true, loop: true, controls: true, preload: "metadata", playsInline: true })
    : make("img", { src: input.m, loading: "lazy", decoding: "async", alt: about });
  if (input.v) media.setAttribute("aria-label", about);
  const caption = make("figcaption", {}, `${input.n.replaceAll("_", " ")} `, make("bdi", { textContent: input.t }));
  return make("figure", { className: "input", title: about }, media, caption);
}
