// ---- the gallery: a page of rows, found, filtered and turned ----

const nearWindow = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const row = [...state.rows, ...state.pairs].find((candidate) => candidate.element === entry.target);
    if (!row) continue;
    if (entry.isIntersecting) row.load();
    if (state.playAll && entry.isIntersecting) row.play();
    if (!entry.isIntersecting && row.playing) row.pause();
  }
}, { rootMargin: "300px 0px" });

function matching() {
  const query = state.query.trim().toLowerCase();
  const prompts = data.prompts.map((prompt) => prompt.toLowerCase().includes(query));
  const wanted = (clip) => (!state.solver || data.solvers[clip.k] === state.solver) && (!state.failedOnly || clip.t === "failed");
  return data.rows.filter((row) => prompts[row.p] && row.c.some(wanted));
}

function show() {
  const found = matching();
  const pages = Math.max(1, Math.ceil(found.length / ROWS_PER_PAGE));
  state.page = Math.min(Math.max(0, state.page), pages - 1);
  const first = state.page * ROWS_PER_PAGE;
  for (const row of state.rows) row.release();
  for (const row of state.rows) nearWindow.unobserve(row.element);
  state.rows = found.slice(first, first + ROWS_PER_PAGE).map((row) => new Row(row));
  byId("rows").dataset.players = String(Math.max(0, ...state.rows.map((row) => row.players.length)));
  byId("rows").replaceChildren(...state.rows.map((row) => row.element));
  for (const row of state.rows) nearWindow.observe(row.element);
  byId("empty").hidden = found.length > 0;
  byId("position").textContent = found.length ? `${state.rows.length > 1 ? `${first + 1}–` : ""}${first + state.rows.length} of ${found.length}` : "";
  byId("previous").disabled = state.page === 0;
  byId("next").disabled = state.page === pages - 1;
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
  Object.assign(state, { query: "", solver: "", failedOnly: false });
  byId("filter").value = byId("solver").value = "";
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
