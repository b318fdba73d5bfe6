// ---- one clip beside its reference, as large as the window allows ----

function enlarge(row, clip, book) {
  const reference = row.c.find((other) => other !== clip && book.isReference(other));
  const clips = reference && !book.isReference(clip) ? [reference, clip] : [clip];
  const dialog = byId("loupe");
  state.loupe = new Row({ ...row, c: clips }, { ...book, isLarge: true });
  dialog.style.setProperty("--ratio", String(row.w / row.h));
  dialog.style.setProperty("--clips", String(clips.length));
  byId("loupe-row").replaceChildren(state.loupe.element);
  dialog.showModal();
  dialog.focus(); // so that the keys of the page go on working
  state.loupe.load();
  state.loupe.play();
}

function shrink() {
  if (state.loupe) state.loupe.release();
  state.loupe = null;
  byId("loupe-row").replaceChildren();
}

/* Every row that may play: those of the page, the worst pairs, and the large one. */
function allRows() {
  return [...state.rows, ...state.pairs, ...(state.loupe ? [state.loupe] : [])];
}

function wireLoupe() {
  byId("loupe").addEventListener("close", shrink);
  byId("loupe").addEventListener("click", (event) => {
    if ([byId("loupe"), byId("shrink")].includes(event.target)) byId("loupe").close();
  });
}
