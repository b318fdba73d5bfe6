// ---- while the run goes on: how far its items are, and the page itself again when there is more to see ----

const ASK_MS = 1500;

function isInUse() {
  return Boolean(state.lightbox) || allRows().some((row) => row.playing) || /^(INPUT|SELECT)$/.test(document.activeElement.tagName);
}

/* Draw what is known of an item in work where its clip will be; what was drawn before stays until the next is here. */
function showPreview(stage, address, text) {
  const before = stage.querySelector(".preview");
  if (before && before.dataset.address === address) return;
  const picture = make("img", { className: "preview", alt: text, src: address });
  picture.dataset.address = address;
  picture.addEventListener("load", () => stage.replaceChildren(picture, make("span", { className: "preview-step", textContent: text })));
}

function showWork({ items, recorded, work, previews, why }) {
  const running = Object.entries(work);
  byId("live").textContent = `${recorded} of ${items} items have ended${running.length ? `, ${running.length} in work` : ""}. ${why}`;
  for (const [id, [front, steps]] of running) {
    const stage = document.querySelector(`#rows [data-item="${CSS.escape(id)}"] .stage`);
    if (!stage || stage.querySelector("img:not(.preview), video")) continue;
    if (previews[id]) {
      const [drawn, of, version] = previews[id];
      showPreview(stage, `live/${id}.jpg?${version}`, `preview, step ${drawn} of ${of}`);
    } else stage.textContent = `step ${front} of ${steps}`;
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
