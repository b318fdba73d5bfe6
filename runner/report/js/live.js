// ---- while the run goes on: how far its items are, and the page itself again when there is more to see ----

const ASK_MS = 1500;

function isInUse() {
  return Boolean(state.lightbox) || allRows().some((row) => row.playing) || /^(INPUT|SELECT)$/.test(document.activeElement.tagName);
}

function showWork({ items, recorded, work }) {
  const running = Object.entries(work);
  byId("live").textContent = `${recorded} of ${items} items have ended${running.length ? `, ${running.length} in work` : ""}.`;
  for (const [id, [front, steps]] of running) {
    const stage = document.querySelector(`#rows [data-item="${CSS.escape(id)}"] .stage`);
    if (stage && !stage.querySelector("img, video")) stage.textContent = `step ${front} of ${steps}`;
  }
}

async function ask() {
  try {
    const found = await (await fetch("live", { cache: "no-store" })).json();
    showWork(found);
    if (found.version !== data.live && !isInUse()) return location.reload();
  } catch {
    byId("live").textContent = "The server has ended; this is the report as it was.";
  }
  setTimeout(ask, ASK_MS);
}

function wireLive() {
  if (!data.live || !location.protocol.startsWith("http")) return;
  byId("live").hidden = false;
  ask();
}
