// ---- one row: the same prompt and seed by every solver, in step ----

class Row {
  constructor(row, book = gallery) {
    this.playing = false;
    const clips = row.c.filter((clip) => book !== gallery || !state.solver || book.isReference(clip) || book.solvers[clip.k] === state.solver);
    this.films = clips.map((clip) => new Film(clip, row, book));
    this.reference = this.films.find((film) => film.isReference && film.media) || null;
    const about = [`seed ${row.s}`, row.x].filter(Boolean).join(", ");
    const heading = make("header", {}, make("p", { className: "prompt" }, make("bdi", { textContent: book.prompts[row.p] })), make("p", { className: "meta", textContent: about }));
    scrolls.observe(heading.firstChild);
    this.element = make("article", { className: "row" }, heading, make("div", { className: "films" }, ...this.films.map((film) => film.element)));
    if (this.videos.length) this.element.append(this.controls());
    for (const film of this.films) this.watch(film);
  }

  get videos() {
    return this.films.filter((film) => film.isVideo && film.media);
  }

  get leader() {
    return this.reference && this.reference.isVideo ? this.reference : this.videos[0];
  }

  watch(film) {
    if (!film.media) return;
    for (const event of ["load", "loadeddata", "seeked"]) film.media.addEventListener(event, () => this.refresh());
  }

  controls() {
    this.button = make("button", { type: "button", textContent: "Play" });
    this.button.setAttribute("aria-pressed", "false");
    this.range = make("input", { type: "range", min: "0", max: "1000", value: "0" });
    this.range.setAttribute("aria-label", "Position of the clips of this prompt");
    this.time = make("output");
    this.button.addEventListener("click", () => (this.playing ? this.pause() : this.play()));
    this.range.addEventListener("input", () => this.seek(this.range.value / 1000));
    return make("div", { className: "bar" }, this.button, this.range, this.time);
  }

  load() {
    for (const film of this.films) film.load();
  }

  async play() {
    if (!this.videos.length || this.playing) return;
    this.mark(true);
    this.load();
    await Promise.all(this.videos.map((film) => film.ready || new Promise((done) => {
      for (const event of ["loadeddata", "error"]) film.media.addEventListener(event, done, { once: true });
    })));
    if (!this.playing || !this.leader) return this.mark(false);
    const start = this.leader.media.ended ? 0 : this.leader.media.currentTime;
    for (const film of this.videos) film.media.currentTime = start;
    for (const film of this.videos) film.media.play().catch(() => this.pause());
    requestTick();
  }

  pause() {
    this.mark(false);
    for (const film of this.videos) film.media.pause();
    if (this.leader) for (const film of this.videos) film.media.currentTime = this.leader.media.currentTime;
  }

  mark(playing) {
    this.playing = playing;
    if (!this.button) return;
    this.button.textContent = playing ? "Pause" : "Play";
    this.button.setAttribute("aria-pressed", String(playing));
  }

  seek(fraction) {
    this.pause();
    this.load();
    for (const film of this.videos) {
      const move = () => { film.media.currentTime = fraction * Math.max(0, film.media.duration - 0.001); };
      if (film.media.readyState >= 1) move();
      else film.media.addEventListener("loadedmetadata", move, { once: true });
    }
  }

  keepInStep() {
    const leader = this.leader;
    if (!leader) return this.mark(false);
    const again = leader.media.ended;
    for (const film of this.videos) {
      if (again) film.media.currentTime = 0;
      else if (film !== leader && !film.media.ended && Math.abs(film.media.currentTime - leader.media.currentTime) > OUT_OF_STEP_S) film.media.currentTime = leader.media.currentTime;
    }
    if (again) for (const film of this.videos) film.media.play().catch(() => this.pause());
  }

  refresh() {
    const leader = this.leader;
    if (leader && leader.media.duration) {
      const { currentTime, duration } = leader.media;
      this.range.value = String(Math.round((1000 * currentTime) / duration));
      this.time.textContent = `${currentTime.toFixed(2)} / ${duration.toFixed(2)} s`;
    }
    for (const film of this.films) lay(film, this.reference);
  }

  release() {
    this.mark(false);
    for (const film of this.films) film.release();
  }
}

let ticking = false;
function requestTick() {
  if (ticking) return;
  ticking = true;
  requestAnimationFrame(() => {
    ticking = false;
    const playing = allRows().filter((row) => row.playing);
    for (const row of playing) {
      row.keepInStep();
      row.refresh();
    }
    if (playing.length) requestTick();
  });
}
