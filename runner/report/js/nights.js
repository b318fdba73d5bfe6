// ---- the nights: a line through every chart at the night under the pointer or chosen by the arrow keys ----

function showNight(index) {
  const { x, says, values } = data.nights;
  state.night = Math.min(Math.max(0, index), x.length - 1);
  byId("night-says").textContent = says[state.night];
  document.querySelectorAll(".strip li").forEach((entry, place) => entry.classList.toggle("chosen", place === state.night));
  for (const plot of document.querySelectorAll(".plot")) {
    const cross = plot.querySelector(".cross");
    for (const name of ["x1", "x2"]) cross.setAttribute(name, `${x[state.night]}%`);
    cross.setAttribute("visibility", "visible");
    const reads = plot.parentElement.querySelectorAll(".reads dd");
    values[Number(plot.dataset.chart)].forEach((line, place) => { reads[place].textContent = line[state.night] || "–"; });
  }
}

function nightAt(element, event) {
  const { left, width } = element.getBoundingClientRect();
  return Math.floor(((event.clientX - left) / width) * data.nights.x.length);
}

function wireNights() {
  const strip = document.querySelector(".strip");
  if (!strip) return;
  showNight(data.nights.x.length - 1);
  for (const element of [strip, ...document.querySelectorAll(".plot .canvas")]) {
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
