// ---- overlays of a clip: its difference to the reference, or the reference up to a divider ----

const OVERLAYS = {
  difference(context, player, reference, width, height) {
    const draw = (source, operation) => {
      context.globalCompositeOperation = operation;
      context.drawImage(source, 0, 0, width, height);
    };
    draw(reference.media, "copy");
    draw(player.media, "difference");
    for (let i = 0; i < DIFFERENCE_DOUBLINGS; i++) draw(context.canvas, "lighter");
  },
  wipe(context, player, reference, width, height) {
    const { naturalWidth, naturalHeight, videoWidth = naturalWidth, videoHeight = naturalHeight } = reference.media;
    context.globalCompositeOperation = "copy";
    if (state.wipe > 0) context.drawImage(reference.media, 0, 0, videoWidth * state.wipe, videoHeight, 0, 0, width * state.wipe, height);
    else context.clearRect(0, 0, width, height);
  },
};

function drawOverlay(player, reference) {
  const wanted = state.overlay && player.media && !player.isReference && reference && reference.media;
  player.stage.classList.toggle("wiped", Boolean(wanted) && state.overlay === "wipe");
  if (!wanted) {
    for (const part of [player.canvas, player.divider]) if (part) part.remove();
    player.canvas = player.divider = null;
    return;
  }
  if (!player.canvas) {
    player.canvas = make("canvas", { width: 1, height: 1 });
    player.divider = make("i", { className: "divider" });
    player.stage.append(player.canvas, player.divider);
  }
  player.divider.hidden = state.overlay !== "wipe";
  player.divider.style.left = `${100 * state.wipe}%`;
  if (!player.ready || !reference.ready) return;
  const width = player.media.videoWidth || player.media.naturalWidth;
  const height = player.media.videoHeight || player.media.naturalHeight;
  const scale = Math.min(1, LARGEST_DIFFERENCE_PX / Math.max(width, height));
  const size = [Math.round(width * scale), Math.round(height * scale)];
  if (player.canvas.width !== size[0] || player.canvas.height !== size[1]) [player.canvas.width, player.canvas.height] = size;
  OVERLAYS[state.overlay](player.canvas.getContext("2d"), player, reference, ...size);
}

function refreshAll() {
  for (const row of allRows()) row.refresh();
}

function toggleOverlay(mode) {
  state.overlay = state.overlay === mode ? "" : mode;
  for (const button of document.querySelectorAll("[data-overlay]")) button.setAttribute("aria-pressed", String(state.overlay === button.dataset.overlay));
  for (const range of document.querySelectorAll(".wipe-at")) range.disabled = state.overlay !== "wipe";
  refreshAll();
}

function wipeTo(fraction) {
  state.wipe = Math.min(1, Math.max(0, fraction));
  for (const range of document.querySelectorAll(".wipe-at")) range.value = String(Math.round(1000 * state.wipe));
  refreshAll();
}

/* A mouse moves the divider as it passes over a clip; a finger drags it. */
function followPointer(event) {
  const stage = state.overlay === "wipe" && event.target.closest && event.target.closest(".stage.wiped");
  if (!stage) return;
  const { left, width } = stage.getBoundingClientRect();
  wipeTo((event.clientX - left) / width);
}
