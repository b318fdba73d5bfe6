// ---- the lightbox: one clip beside its reference, as large as the window allows ----

function openLightbox(row, clip, source) {
  const reference = row.c.find((other) => other !== clip && source.isReference(other));
  const clips = reference && !source.isReference(clip) ? [reference, clip] : [clip];
  const dialog = byId("lightbox");
  state.lightbox = new Row({ ...row, c: clips }, { ...source, isLarge: true });
  dialog.style.setProperty("--ratio", String(row.w / row.h));
  dialog.style.setProperty("--clips", String(clips.length));
  byId("lightbox-row").replaceChildren(state.lightbox.element);
  dialog.showModal();
  dialog.focus(); // so that the keys of the page go on working
  state.lightbox.load();
  state.lightbox.play();
}

function clearLightbox() {
  if (state.lightbox) state.lightbox.release();
  state.lightbox = null;
  byId("lightbox-row").replaceChildren();
}

/* Every row that may play: those of the page, the worst pairs, and the large one. */
function allRows() {
  return [...state.rows, ...state.pairs, ...(state.lightbox ? [state.lightbox] : [])];
}

function wireLightbox() {
  byId("lightbox").addEventListener("close", clearLightbox);
  byId("lightbox").addEventListener("click", (event) => {
    if ([byId("lightbox"), byId("lightbox-close")].includes(event.target)) byId("lightbox").close();
  });
}
