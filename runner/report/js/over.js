// ---- what is laid over a clip: its difference to the reference, or the reference up to a divider ----

const PAINT = {
  difference(context, film, reference, width, height) {
    const draw = (source, operation) => {
      context.globalCompositeOperation = operation;
      context.drawImage(source, 0, 0, width, height);
    };
    draw(reference.media, "copy");
    draw(film.media, "difference");
    for (let i = 0; i < DIFFERENCE_DOUBLINGS; i++) draw(context.canvas, "lighter");
  },
  wipe(context, film, reference, width, height) {
    const { naturalWidth, naturalHeight, videoWidth = naturalWidth, videoHeight = naturalHeight } = reference.media;
    context.globalCompositeOperation = "copy";
    if (state.wipe > 0) context.drawImage(reference.media, 0, 0, videoWidth * state.wipe, videoHeight, 0, 0, width * state.wipe, height);
    else context.clearRect(0, 0, width, height);
  },
};

function lay(film, reference) {
  const wanted = state.over && film.media && !film.isReference && reference && reference.media;
  film.stage.classList.toggle("wiped", Boolean(wanted) && state.over === "wipe");
  if (!wanted) {
    for (const part of [film.canvas, film.divider]) if (part) part.remove();
    film.canvas = film.divider = null;
    return;
  }
  if (!film.canvas) {
    film.canvas = make("canvas", { width: 1, height: 1 });
    film.divider = make("i", { className: "divider" });
    film.stage.append(film.canvas, film.divider);
  }
  film.divider.hidden = state.over !== "wipe";
  film.divider.style.left = `${100 * state.wipe}%`;
  if (!film.ready || !reference.ready) return;
  const width = film.media.videoWidth || film.media.naturalWidth;
  const height = film.media.videoHeight || film.media.naturalHeight;
  const scale = Math.min(1, LARGEST_DIFFERENCE_PX / Math.max(width, height));
  const size = [Math.round(width * scale), Math.round(height * scale)];
  if (film.canvas.width !== size[0] || film.canvas.height !== size[1]) [film.canvas.width, film.canvas.height] = size;
  PAINT[state.over](film.canvas.getContext("2d"), film, reference, ...size);
}

function refreshAll() {
  for (const row of allRows()) row.refresh();
}

function toggleOver(mode) {
  state.over = state.over === mode ? "" : mode;
  for (const button of document.querySelectorAll("[data-over]")) button.setAttribute("aria-pressed", String(state.over === button.dataset.over));
  for (const range of document.querySelectorAll(".wipe-at")) range.hidden = state.over !== "wipe";
  refreshAll();
}

function wipeTo(fraction) {
  state.wipe = Math.min(1, Math.max(0, fraction));
  for (const range of document.querySelectorAll(".wipe-at")) range.value = String(Math.round(1000 * state.wipe));
  refreshAll();
}

/* A mouse moves the divider as it passes over a clip; a finger drags it. */
function followPointer(event) {
  const stage = state.over === "wipe" && event.target.closest && event.target.closest(".stage.wiped");
  if (!stage) return;
  const { left, width } = stage.getBoundingClientRect();
  wipeTo((event.clientX - left) / width);
}
