// ---- the gallery: a page of rows, found, ordered and turned ----

const nearWindow = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const row = [...state.rows, ...state.pairs].find((candidate) => candidate.element === entry.target);
    if (!row) continue;
    if (entry.isIntersecting) row.load();
    if (state.playAll && entry.isIntersecting) row.play();
    if (!entry.isIntersecting && row.playing) row.pause();
  }
}, { rootMargin: "300px 0px" });

/* What clips can be ordered and compared by: costs, then metrics; those of which there is a value. What is typed is held against the number that is
 * read, `of`: that of a metric's text. Clips are held against one another by `exact`, as two that read the same need not be equal. */
const measures = [
  ...[["rounds", "r"], ["NFE", "e"]].map(([title, key]) => ({ title, of: (clip) => clip[key], exact: (clip) => clip[key] })),
  { title: "seconds", of: (clip) => (clip.l === undefined ? undefined : numberOf(three(clip.l))), exact: (clip) => clip.l },
  ...data.metrics.map((title, index) => {
    const unit = unitOf(index);
    const of = (clip) => numberOf(clip.v[index]);
    const exact = (clip) => (clip.y && clip.y[index] !== null ? clip.y[index] * (unit === "%" ? 100 : 1) : of(clip));
    return { title, isHigh: data.high[index], unit, of, exact };
  }),
].filter(({ of }) => data.rows.some((row) => row.c.some((clip) => of(clip) !== undefined)));

/* What follows the numbers of a metric: %, dB, or nothing. */
function unitOf(index) {
  const texts = data.rows.flatMap((row) => row.c.map((clip) => clip.v[index]));
  return (texts.find(Boolean) || "").replace(/^[-\d.,e+]+/, "");
}

function numberOf(text) {
  const found = text === null || text === undefined ? NaN : Number.parseFloat(text.replaceAll(",", ""));
  return Number.isNaN(found) ? undefined : found;
}

function isWanted(clip) {
  if (state.failedOnly && clip.t !== "failed") return false;
  if (state.cell && clip.k !== state.cell.k) return false;
  if (!state.by) return true;
  const value = state.by.of(clip);
  return (state.least === "" || value >= Number(state.least)) && (state.most === "" || value <= Number(state.most));
}

/* The number that a row is ordered by: that of its worst clip, or of its best; the reference's only where it is alone. */
function keyOf(row) {
  const others = row.c.filter((clip) => !gallery.isReference(clip));
  const values = (others.length ? others : row.c).filter(isWanted).map(state.by.exact).filter((value) => value !== undefined);
  if (!values.length) return undefined;
  return Boolean(state.by.isHigh) === state.worst ? Math.min(...values) : Math.max(...values);
}

function matching() {
  const query = state.query.trim().toLowerCase();
  const prompts = data.prompts.map((prompt) => prompt.toLowerCase().includes(query));
  const found = rowsToShow().filter((row) => prompts[row.p] && row.c.some(isWanted));
  if (!state.by) return found;
  const up = Boolean(state.by.isHigh) === state.worst ? 1 : -1;
  const keys = new Map(found.map((row) => [row, keyOf(row)]));
  return found.sort((a, b) => (keys.get(a) === undefined) - (keys.get(b) === undefined) || up * (keys.get(a) - keys.get(b)));
}

function show() {
  const found = matching();
  const pages = Math.max(1, Math.ceil(found.length / ROWS_PER_PAGE));
  state.page = Math.min(Math.max(0, state.page), pages - 1);
  const first = state.page * ROWS_PER_PAGE;
  for (const row of state.rows) row.release();
  for (const row of state.rows) nearWindow.unobserve(row.element);
  state.rows = found.slice(first, first + ROWS_PER_PAGE).map((row) => new Row(row, sourceOfRows()));
  byId("rows").dataset.players = String(Math.max(0, ...state.rows.map((row) => row.players.length)));
  byId("rows").classList.toggle("gallery", isGallery && !state.against);
  byId("rows").replaceChildren(...state.rows.map((row) => row.element));
  for (const row of state.rows) nearWindow.observe(row.element);
  byId("empty").hidden = found.length > 0;
  byId("position").textContent = found.length ? `${state.rows.length > 1 ? `${first + 1}–` : ""}${first + state.rows.length} of ${found.length}` : "";
  byId("pager").hidden = pages < 2 && found.length === data.rows.length;
  byId("previous").disabled = state.page === 0;
  byId("next").disabled = state.page === pages - 1;
  showVersus(found);
}

function turnPage(by) {
  const before = state.page;
  state.page += by;
  show();
  if (state.page !== before) byId("clips").scrollIntoView();
}

function playAll(on) {
  state.playAll = on;
  byId("play-all").textContent = on ? "Pause all" : "Play all";
  byId("play-all").setAttribute("aria-pressed", String(on));
  for (const row of [...state.rows, ...state.pairs]) {
    const { top, bottom } = row.element.getBoundingClientRect();
    if (!on) row.pause();
    else if (bottom > 0 && top < innerHeight) row.play();
  }
}

/* Go to an item's clip, whatever is filtered at the moment. */
function reveal(id) {
  Object.assign(state, { query: "", cell: null, against: null, by: null, least: "", most: "", failedOnly: false });
  for (const name of ["filter", "solver", "against", "by", "least", "most"]) byId(name).value = "";
  for (const name of ["against", "least", "most"]) byId(name).disabled = true;
  byId("failed-only").checked = false;
  state.page = Math.floor(Math.max(0, data.rows.findIndex((row) => row.c.some((clip) => clip.i === id))) / ROWS_PER_PAGE);
  show();
  const player = document.querySelector(`#rows [data-item="${CSS.escape(id)}"]`);
  if (!player) return;
  player.classList.add("found");
  player.tabIndex = -1;
  player.focus({ preventScroll: true });
  player.closest(".row").scrollIntoView();
}

const ITEM = "#item-";

/* Go to the item that the page's address names. */
function followAddress() {
  if (location.hash.startsWith(ITEM)) reveal(decodeURIComponent(location.hash.slice(ITEM.length)));
}

/* Leave out what has nothing to act on: no video to play, no second clip to compare with, no failure, one prompt. */
function tailor() {
  const clips = data.rows.flatMap((row) => row.c);
  const hasVideo = clips.some((clip) => /\.(mp4|webm)$/.test(clip.m || ""));
  const hasTwo = cells.length > 1;
  const there = {
    "play-all": hasVideo, "scrub-all": hasVideo, solver: hasTwo, against: hasTwo, filter: data.prompts.length > 1,
    "failed-check": clips.some((clip) => clip.t === "failed"),
    ...Object.fromEntries(["by", "least", "most"].map((id) => [id, measures.length > 0 && data.rows.length > 1])),
  };
  for (const [id, isThere] of Object.entries(there)) byId(id).hidden = !isThere;
  for (const control of document.querySelectorAll("#clips [data-overlay], #clips .wipe-at")) control.hidden = !hasTwo;
  const keys = { play: hasVideo, compare: hasTwo, find: there.filter, pages: data.rows.length > ROWS_PER_PAGE };
  for (const [name, isThere] of Object.entries(keys)) document.querySelector(`#clips [data-key=${name}]`).hidden = !isThere;
}

function wireGallery() {
  const update = (changes) => {
    Object.assign(state, changes, { page: 0 });
    show();
  };
  for (const { label } of cells) for (const id of ["solver", "against"]) byId(id).append(make("option", { value: label, textContent: id === "solver" ? label : `beside ${label}` }));
  const cellOf = (id) => cells.find((cell) => cell.label === byId(id).value) || null;
  measures.forEach(({ title }, index) => {
    for (const end of ["worst", "best"]) byId("by").append(make("option", { value: `${end} ${index}`, textContent: `${end} ${title} first` }));
  });
  byId("filter").addEventListener("input", (event) => update({ query: event.target.value }));
  byId("solver").addEventListener("change", () => {
    byId("against").disabled = !byId("solver").value;
    if (!byId("solver").value) byId("against").value = "";
    update({ cell: cellOf("solver"), against: cellOf("against") });
  });
  byId("against").addEventListener("change", () => update({ against: cellOf("against") }));
  byId("by").addEventListener("change", (event) => {
    const [end, index] = event.target.value.split(" ");
    byId("least").disabled = byId("most").disabled = !end;
    if (!end) byId("least").value = byId("most").value = "";
    update({ by: end ? measures[Number(index)] : null, worst: end === "worst", least: byId("least").value, most: byId("most").value });
  });
  for (const id of ["least", "most"]) byId(id).addEventListener("input", (event) => update({ [id]: event.target.value }));
  byId("failed-only").addEventListener("change", (event) => update({ failedOnly: event.target.checked }));
  byId("previous").addEventListener("click", () => turnPage(-1));
  byId("next").addEventListener("click", () => turnPage(1));
  byId("play-all").addEventListener("click", () => playAll(!state.playAll));
  byId("scrub-all").addEventListener("input", (event) => {
    if (state.playAll) playAll(false);
    for (const row of state.rows) row.seek(event.target.value / 1000);
  });
  addEventListener("hashchange", followAddress);
}
