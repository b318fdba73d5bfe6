// ---- one row: the same prompt and seed by every solver, in step ----

class Row {
  constructor(row, source = gallery) {
    this.playing = false;
    this.ratio = row.w / row.h;
    const clips = row.c.filter((clip) => source !== gallery || !state.cell || source.isReference(clip) || clip.k === state.cell.k);
    this.players = clips.map((clip) => new Player(clip, row, source));
    this.reference = this.players.find((player) => player.isReference && player.media) || null;
    const about = [`seed ${row.s}`, row.x, row.f].filter(Boolean).join(", ");
    const heading = make("header", {}, make("p", { className: "prompt" }, make("bdi", { textContent: source.prompts[row.p] })), make("p", { className: "meta", textContent: about }));
    heading.append(...inputsOf(row));
    if (row.g !== undefined) heading.append(make("p", { className: "meta negative" }, "not: ", make("bdi", { textContent: data.negatives[row.g] })));
    overflowing.observe(heading.firstChild);
    this.element = make("article", { className: "row" }, heading, make("div", { className: "players" }, ...this.players.map((player) => player.element)));
    if (this.videos.length) this.element.append(this.controls());
    for (const player of this.players) this.watch(player);
  }

  get videos() {
    return this.players.filter((player) => player.isVideo && player.media);
  }

  get leader() {
    return this.reference && this.reference.isVideo ? this.reference : this.videos[0];
  }

  watch(player) {
    if (!player.media) return;
    for (const event of ["load", "loadeddata", "seeked"]) player.media.addEventListener(event, () => this.refresh());
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
    for (const player of this.players) player.load();
  }

  async play() {
    if (!this.videos.length || this.playing) return;
    this.mark(true);
    this.load();
    await Promise.all(this.videos.map((player) => player.ready || new Promise((done) => {
      for (const event of ["loadeddata", "error"]) player.media.addEventListener(event, done, { once: true });
    })));
    if (!this.playing || !this.leader) return this.mark(false);
    const start = this.leader.media.ended ? 0 : this.leader.media.currentTime;
    for (const player of this.videos) player.media.currentTime = start;
    for (const player of this.videos) player.media.play().catch(() => this.pause());
    requestTick();
  }

  pause() {
    this.mark(false);
    for (const player of this.videos) player.media.pause();
    if (this.leader) for (const player of this.videos) player.media.currentTime = this.leader.media.currentTime;
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
    for (const player of this.videos) {
      const move = () => { player.media.currentTime = fraction * Math.max(0, player.media.duration - 0.001); };
      if (player.media.readyState >= 1) move();
      else player.media.addEventListener("loadedmetadata", move, { once: true });
    }
  }

  synchronize() {
    const leader = this.leader;
    if (!leader) return this.mark(false);
    const again = leader.media.ended;
    for (const player of this.videos) {
      if (again) player.media.currentTime = 0;
      else if (player !== leader && !player.media.ended && Math.abs(player.media.currentTime - leader.media.currentTime) > MOST_DRIFT_S) player.media.currentTime = leader.media.currentTime;
    }
    if (again) for (const player of this.videos) player.media.play().catch(() => this.pause());
  }

  refresh() {
    const leader = this.leader;
    if (leader && leader.media.duration) {
      const { currentTime, duration } = leader.media;
      this.range.value = String(Math.round((1000 * currentTime) / duration));
      this.time.textContent = `${currentTime.toFixed(2)} / ${duration.toFixed(2)} s`;
    }
    for (const player of this.players) drawOverlay(player, this.reference);
  }

  release() {
    this.mark(false);
    for (const player of this.players) player.release();
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
      row.synchronize();
      row.refresh();
    }
    if (playing.length) requestTick();
  });
}
