// ---- the lightbox: one clip beside its reference, as large as the window allows ----

function openLightbox(row, clip, source) {
  const reference = row.c.find((other) => other !== clip && source.isReference(other));
  const clips = reference && !source.isReference(clip) ? [reference, clip] : [clip];
  const dialog = byId("lightbox");
  state.lightbox = new Row({ ...row, c: clips }, { ...source, isLarge: true });
  byId("lightbox-row").replaceChildren(state.lightbox.element);
  dialog.showModal();
  fitLightbox();
  dialog.focus(); // so that the keys of the page go on working
  state.lightbox.load();
  state.lightbox.play();
}

/* Make the clips as large as the window allows with all that stands around them: beside each other or one below the other. */
function fitLightbox() {
  if (!state.lightbox) return;
  const dialog = byId("lightbox");
  const players = state.lightbox.players;
  const stage = players[0].stage;
  const ratio = state.lightbox.ratio;
  const style = getComputedStyle(dialog);
  const width = 0.96 * innerWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight) - 2;
  const choices = [players.length, 1].map((columns) => {
    dialog.style.setProperty("--columns", String(columns));
    dialog.style.setProperty("--wide", `${Math.min(width, 22 * parseFloat(style.fontSize))}px`);
    const rows = players.length / columns;
    const around = dialog.scrollHeight - rows * stage.offsetHeight;
    const gap = 16 * (columns - 1);
    const tall = Math.max(120, (0.96 * innerHeight - around) / rows);
    return { columns, each: Math.min((width - gap) / columns, tall * ratio), gap };
  });
  const { columns, each, gap } = choices[1].each > choices[0].each ? choices[1] : choices[0];
  dialog.style.setProperty("--columns", String(columns));
  dialog.style.setProperty("--wide", `${columns * each + gap}px`);
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
  addEventListener("resize", fitLightbox);
  byId("lightbox").addEventListener("close", clearLightbox);
  byId("lightbox").addEventListener("click", (event) => {
    if ([byId("lightbox"), byId("lightbox-close")].includes(event.target)) byId("lightbox").close();
  });
}
