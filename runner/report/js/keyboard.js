// ---- the keyboard: keys of the page, and a tab stop for every text that is too long for its box, so that it can be scrolled ----

const overflowing = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollHeight > target.clientHeight) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
for (const box of document.querySelectorAll(".failures .prompt, .failures .error")) overflowing.observe(box);

function playOrPause() {
  if (!state.lightbox) playAll(!state.playAll);
  else if (state.lightbox.playing) state.lightbox.pause();
  else state.lightbox.play();
}

/* Letters work wherever nothing is typed; keys that move or press do not where the focus has a use for them. */
function onKey(event) {
  const within = (selector) => Boolean(event.target.closest && event.target.closest(selector));
  const isTaken = within("input[type=search], select, textarea") || (!/^[a-z]$/.test(event.key) && within("input, button, a, summary, pre, .scroll, .night-strip, .prompt, .error"));
  if (isTaken || event.ctrlKey || event.metaKey || event.altKey) return;
  const actions = {
    " ": () => playOrPause(),
    d: () => toggleOverlay("difference"),
    w: () => toggleOverlay("wipe"),
    "/": () => state.lightbox || byId("filter").focus(),
    ArrowLeft: () => state.lightbox || turnPage(-1),
    ArrowRight: () => state.lightbox || turnPage(1),
  };
  if (!Object.hasOwn(actions, event.key)) return;
  event.preventDefault();
  actions[event.key]();
}
