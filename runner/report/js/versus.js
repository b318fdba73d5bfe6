// ---- any two cells: the same prompts and seeds by both, side by side, and what differs ----

const hasOtherAxes = new Set(data.rows.map((row) => row.x)).size > 1;

/* The cells of the matrix, in the order of the job: a solver, and the labels of the other axes. */
const cells = [...new Map(data.rows.flatMap((row) => row.c.map((clip) => [`${clip.k} ${row.x}`, {
  k: clip.k, x: row.x, label: hasOtherAxes ? [data.solvers[clip.k], row.x].filter(Boolean).join(", ") : data.solvers[clip.k],
}]))).values()];

/* The rows of the page: those of the job, those of one cell, or pairs of two cells. */
function rowsToShow() {
  if (!state.cell) return [...data.rows];
  const mine = data.rows.filter((row) => row.x === state.cell.x);
  if (!state.against) return mine;
  const place = (row) => `${row.p} ${row.s} ${row.f || ""}`;
  const clipsOf = (cell) => new Map(data.rows.filter((row) => row.x === cell.x).flatMap((row) => row.c.filter((clip) => clip.k === cell.k).map((clip) => [place(row), clip])));
  const theirs = clipsOf(state.against);
  const ours = clipsOf(state.cell);
  return mine.filter((row) => ours.has(place(row)) && theirs.has(place(row))).map((row) => ({ ...row, x: "", c: [{ ...theirs.get(place(row)), isAgainst: true }, ours.get(place(row))] }));
}

function sourceOfRows() {
  if (!state.against) return gallery;
  const cellOf = (clip) => (clip.isAgainst ? state.against : state.cell);
  return { ...gallery, tag: "", isReference: (clip) => Boolean(clip.isAgainst), name: (clip) => cellOf(clip).label };
}

/* A line for each measure: both means over the rows that have both, and in how many of them the chosen cell is better. */
function showVersus(rows) {
  const table = byId("versus");
  table.replaceChildren();
  if (!state.against || state.against === state.cell || !rows.length) return;
  const heading = ["", state.against.label, state.cell.label, "better / equal / worse", "n"].map((textContent) => make("th", { scope: "col", textContent }));
  const lines = measures.flatMap(({ title, isHigh, unit = "", exact }) => {
    const pairs = rows.map((row) => row.c.map(exact)).filter((pair) => !pair.includes(undefined));
    if (!pairs.length) return [];
    const mean = (side) => pairs.reduce((sum, pair) => sum + pair[side], 0) / pairs.length;
    const better = pairs.filter(([theirs, ours]) => (isHigh ? ours > theirs : ours < theirs)).length;
    const equal = pairs.filter(([theirs, ours]) => ours === theirs).length;
    const texts = [three(mean(0)) + unit, three(mean(1)) + unit, `${better} / ${equal} / ${pairs.length - better - equal}`, String(pairs.length)];
    return [make("tr", {}, make("th", { scope: "row", textContent: title }), ...texts.map((textContent) => make("td", { textContent })))];
  });
  table.append(make("table", { className: "slim compact" }, make("thead", {}, make("tr", {}, ...heading)), make("tbody", {}, ...lines)));
}
