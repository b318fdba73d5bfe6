// ---- copying ----

async function copy(button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
  } catch {
    const area = make("textarea", { value: button.dataset.copy });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.textContent = "copied";
  setTimeout(() => { button.textContent = before; }, 1200);
}

function showMore(button) {
  for (const entry of document.querySelectorAll(`.${button.dataset.more}`)) entry.hidden = false;
  button.hidden = true;
}

// ---- wiring ----

function wire() {
  for (const range of document.querySelectorAll(".wipe-at")) range.addEventListener("input", () => wipeTo(range.value / 1000));
  for (const event of ["pointermove", "pointerdown"]) document.addEventListener(event, followPointer);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button && button.dataset.copy) copy(button);
    if (button && button.dataset.sort) sortTable(button);
    if (button && button.dataset.more) showMore(button);
    if (button && button.dataset.reveal) reveal(button.dataset.reveal);
    if (button && button.dataset.overlay) toggleOverlay(button.dataset.overlay);
  });
  document.addEventListener("keydown", onKey);
}

wire();
wireTable();
wireGallery();
tailor();
show();
wirePairs();
wireLightbox();
wireNights();
followAddress();
wireLive();
