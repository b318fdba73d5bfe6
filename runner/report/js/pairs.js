// ---- the worst pairs: the baseline's clip beside this run's, in step ----

function pairSource(listing) {
  return {
    solvers: [listing.against, listing.cell],
    colours: [0, listing.k],
    metrics: [listing.metric],
    prompts: listing.rows.map((row) => row.p),
    tag: "",
    name: (clip) => (clip.k ? listing.cell : listing.against),
    isReference: (clip) => clip.k === 0,
  };
}

function pairRow(row, index, listing) {
  const clips = row.c.map((clip, side) => ({ ...clip, k: side, t: clip.m ? "done" : "pending", v: [clip.v] }));
  return new Row({ ...row, p: index, x: row.d ? `${listing.metric} ${row.d}` : "", c: clips }, pairSource(listing));
}

function showPairs(index) {
  const listing = data.pairs[index];
  for (const row of state.pairs) {
    nearWindow.unobserve(row.element);
    row.release();
  }
  state.pairs = listing.rows.map((row, number) => pairRow(row, number, listing));
  byId("pairs").replaceChildren(...state.pairs.map((row) => row.element));
  for (const row of state.pairs) nearWindow.observe(row.element);
}

function wirePairs() {
  if (!byId("listing")) return;
  data.pairs.forEach((listing, index) => {
    byId("listing").append(make("option", { value: String(index), textContent: `${listing.cell}: ${listing.metric}` }));
  });
  byId("listing").addEventListener("change", (event) => showPairs(Number(event.target.value)));
  showPairs(0);
}
