// ---- the nights: a line through every chart at the night under the pointer or chosen by the arrow keys ----

function showNight(index) {
  const { x, titles, values } = data.nights;
  state.night = Math.min(Math.max(0, index), x.length - 1);
  byId("night-title").textContent = titles[state.night];
  document.querySelectorAll(".night-strip li").forEach((entry, place) => entry.classList.toggle("chosen", place === state.night));
  for (const plot of document.querySelectorAll(".plot[data-chart]")) {
    const cross = plot.querySelector(".cross");
    for (const name of ["x1", "x2"]) cross.setAttribute(name, `${x[state.night]}%`);
    cross.setAttribute("visibility", "visible");
    const shown = plot.parentElement.querySelectorAll(".legend dd");
    values[Number(plot.dataset.chart)].forEach((line, place) => { shown[place].textContent = line[state.night] || "–"; });
  }
}

function nightAt(element, event) {
  const { left, width } = element.getBoundingClientRect();
  return Math.floor(((event.clientX - left) / width) * data.nights.x.length);
}

function wireNights() {
  const strip = document.querySelector(".night-strip");
  if (!strip) return;
  showNight(data.nights.x.length - 1);
  for (const element of [strip, ...document.querySelectorAll(".plot[data-chart] .canvas")]) {
    element.addEventListener("pointermove", (event) => showNight(nightAt(element, event)));
    element.addEventListener("pointerdown", (event) => showNight(nightAt(element, event)));
  }
  strip.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: state.night - 1, ArrowRight: state.night + 1, Home: 0, End: data.nights.x.length - 1 };
    if (Object.hasOwn(moves, event.key)) {
      event.preventDefault();
      showNight(moves[event.key]);
    } else if (event.key === "Enter") {
      const link = strip.children[state.night].querySelector("a");
      if (link) link.click();
    }
  });
}
