// ---- copying and sorting ----

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

function sortTable(button) {
  const heading = button.closest("th");
  const index = [...heading.parentElement.children].indexOf(heading);
  const descending = heading.getAttribute("aria-sort") === "ascending";
  const body = byId("table").tBodies[0];
  const key = (row) => row.children[index].dataset.value;
  const compare = (a, b) => (button.dataset.sort === "text" ? key(a).localeCompare(key(b)) : Number(key(a)) - Number(key(b)));
  const rows = [...body.rows].sort((a, b) => {
    if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");
    return descending ? compare(b, a) : compare(a, b);
  });
  for (const other of heading.parentElement.children) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  body.append(...rows);
}

function showMore(button) {
  for (const entry of document.querySelectorAll(`.${button.dataset.more}`)) entry.hidden = false;
  button.hidden = true;
}

// ---- wiring ----

function wire() {
  for (const label of data.solvers) byId("solver").append(make("option", { value: label, textContent: label }));
  const filterBy = (name, value) => {
    state[name] = value;
    state.page = 0;
    show();
  };
  byId("filter").addEventListener("input", (event) => filterBy("query", event.target.value));
  byId("solver").addEventListener("change", (event) => filterBy("solver", event.target.value));
  byId("failed-only").addEventListener("change", (event) => filterBy("failedOnly", event.target.checked));
  byId("previous").addEventListener("click", () => turnPage(-1));
  byId("next").addEventListener("click", () => turnPage(1));
  byId("play-all").addEventListener("click", () => playAll(!state.playAll));
  byId("scrub-all").addEventListener("input", (event) => {
    if (state.playAll) playAll(false);
    for (const row of state.rows) row.seek(event.target.value / 1000);
  });
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
show();
wirePairs();
wireLightbox();
wireNights();
