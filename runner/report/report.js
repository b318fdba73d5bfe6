"use strict";
(() => {
  const ROWS_PER_PAGE = 8;
  const DIFFERENCE_DOUBLINGS = 3;
  const LARGEST_DIFFERENCE_PX = 960;
  const OUT_OF_STEP_S = 0.05;
  const TINY_PX = 160;
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const state = { page: 0, query: "", solver: "", failedOnly: false, difference: false, playAll: false, rows: [] };

  function make(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  // ---- one clip: a video or a picture, loaded when it comes near the window ----

  class Film {
    constructor(clip, row) {
      this.clip = clip;
      this.isReference = data.colours[clip.k] === 0;
      this.isVideo = /\.(mp4|webm)$/.test(clip.m || "");
      this.stage = make("div", { className: "stage" });
      this.stage.style.aspectRatio = `${row.w} / ${row.h}`;
      this.stage.classList.toggle("tiny", Math.max(row.w, row.h) <= TINY_PX);
      this.stage.classList.toggle("failed", clip.t === "failed");
      if (clip.m) this.addMedia();
      else this.stage.append(clip.t === "failed" ? "failed" : clip.t === "done" ? "no media file" : "not run yet");
      this.element = make("figure", { className: "film" }, this.stage, this.caption());
      this.element.dataset.item = clip.i;
    }

    addMedia() {
      this.media = make(this.isVideo ? "video" : "img");
      if (this.isVideo) Object.assign(this.media, { muted: true, playsInline: true, preload: "auto" });
      else this.media.alt = `sampled by ${data.solvers[this.clip.k]}`;
      this.media.addEventListener("error", () => {
        if (!this.media.getAttribute("src")) return;
        this.media.remove();
        this.media = null;
        this.stage.append("media file is missing");
      });
      this.stage.append(this.media);
    }

    load() {
      if (!this.media || this.media.getAttribute("src")) return;
      this.media.src = this.clip.m;
    }

    release() {
      if (!this.media) return;
      this.media.removeAttribute("src");
      if (this.isVideo) this.media.load();
    }

    get ready() {
      return Boolean(this.media) && (this.isVideo ? this.media.readyState >= 2 : this.media.complete && this.media.naturalWidth > 0);
    }

    caption() {
      const clip = this.clip;
      const name = make("span", { className: "name" }, make("i", { className: `dot k${data.colours[clip.k]}` }), make("bdi", { textContent: data.solvers[clip.k] }));
      if (clip.m) name.append(make("button", { type: "button", className: "copy", textContent: "rerun", title: "Copy the command that makes this file again" }));
      if (clip.m) name.lastChild.dataset.copy = `genrun rerun ${data.run}/media/${clip.i.slice(0, 2)}/${clip.m.split("/").pop()}`;
      const caption = make("figcaption", {}, name);
      const line = (text, className = "") => caption.append(make("div", { textContent: text, className }));
      if (clip.t === "done" && this.isReference) name.append(make("span", { className: "tag", textContent: "reference" }));
      if (clip.r) line(`${clip.r} rounds · ${clip.e} NFE · ${(clip.n / clip.r).toFixed(2)}×`);
      const values = make("dl");
      clip.v.forEach((value, index) => {
        if (value !== null) values.append(make("dt", { textContent: data.metrics[index] }), make("dd", { textContent: value }));
      });
      if (values.children.length) caption.append(values);
      if (clip.bad) line(`not as the prompt says: ${clip.bad.join(", ")}`, "wrong");
      return caption;
    }

    showDifference(reference, on) {
      const wanted = on && this.media && !this.isReference && reference;
      if (!wanted) {
        if (this.canvas) this.canvas.remove();
        this.canvas = null;
        return;
      }
      if (!this.canvas) {
        this.canvas = make("canvas", { width: 1, height: 1 });
        this.stage.append(this.canvas);
      }
      if (!this.ready || !reference.ready) return;
      const width = this.media.videoWidth || this.media.naturalWidth;
      const height = this.media.videoHeight || this.media.naturalHeight;
      const scale = Math.min(1, LARGEST_DIFFERENCE_PX / Math.max(width, height));
      const size = [Math.round(width * scale), Math.round(height * scale)];
      if (this.canvas.width !== size[0] || this.canvas.height !== size[1]) [this.canvas.width, this.canvas.height] = size;
      const context = this.canvas.getContext("2d");
      const draw = (source, operation) => {
        context.globalCompositeOperation = operation;
        context.drawImage(source, 0, 0, ...size);
      };
      draw(reference.media, "copy");
      draw(this.media, "difference");
      for (let i = 0; i < DIFFERENCE_DOUBLINGS; i++) draw(this.canvas, "lighter");
    }
  }

  // ---- one row: the same prompt and seed by every solver, in step ----

  class Row {
    constructor(row) {
      this.playing = false;
      const clips = row.c.filter((clip) => !state.solver || data.colours[clip.k] === 0 || data.solvers[clip.k] === state.solver);
      this.films = clips.map((clip) => new Film(clip, row));
      this.reference = this.films.find((film) => film.isReference && film.media) || null;
      const about = [`seed ${row.s}`, row.x].filter(Boolean).join(", ");
      const heading = make("header", {}, make("p", { className: "prompt" }, make("bdi", { textContent: data.prompts[row.p] })), make("p", { className: "meta", textContent: about }));
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
      for (const film of this.films) film.showDifference(this.reference, state.difference);
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
      const playing = state.rows.filter((row) => row.playing);
      for (const row of playing) {
        row.keepInStep();
        row.refresh();
      }
      if (playing.length) requestTick();
    });
  }

  // ---- the page of rows ----

  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const row = state.rows.find((candidate) => candidate.element === entry.target);
      if (!row) continue;
      if (entry.isIntersecting) row.load();
      if (state.playAll && entry.isIntersecting) row.play();
      if (!entry.isIntersecting && row.playing) row.pause();
    }
  }, { rootMargin: "300px 0px" });

  function matching() {
    const query = state.query.trim().toLowerCase();
    const prompts = data.prompts.map((prompt) => prompt.toLowerCase().includes(query));
    const wanted = (clip) => (!state.solver || data.solvers[clip.k] === state.solver) && (!state.failedOnly || clip.t === "failed");
    return data.rows.filter((row) => prompts[row.p] && row.c.some(wanted));
  }

  function show() {
    const found = matching();
    const pages = Math.max(1, Math.ceil(found.length / ROWS_PER_PAGE));
    state.page = Math.min(Math.max(0, state.page), pages - 1);
    const first = state.page * ROWS_PER_PAGE;
    for (const row of state.rows) row.release();
    near.disconnect();
    state.rows = found.slice(first, first + ROWS_PER_PAGE).map((row) => new Row(row));
    byId("rows").replaceChildren(...state.rows.map((row) => row.element));
    for (const row of state.rows) near.observe(row.element);
    byId("empty").hidden = found.length > 0;
    byId("position").textContent = found.length ? `${state.rows.length > 1 ? `${first + 1}–` : ""}${first + state.rows.length} of ${found.length}` : "";
    byId("previous").disabled = state.page === 0;
    byId("next").disabled = state.page === pages - 1;
  }

  function turn(by) {
    const before = state.page;
    state.page += by;
    show();
    if (state.page !== before) byId("clips").scrollIntoView();
  }

  function playAll(on) {
    state.playAll = on;
    byId("play-all").textContent = on ? "Pause all" : "Play all";
    byId("play-all").setAttribute("aria-pressed", String(on));
    for (const row of state.rows) {
      const { top, bottom } = row.element.getBoundingClientRect();
      if (!on) row.pause();
      else if (bottom > 0 && top < innerHeight) row.play();
    }
  }

  function toggleDifference() {
    state.difference = !state.difference;
    byId("difference").setAttribute("aria-pressed", String(state.difference));
    for (const row of state.rows) row.refresh();
  }

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

  // ---- wiring ----

  function wire() {
    for (const label of data.solvers) byId("solver").append(make("option", { value: label, textContent: label }));
    const narrow = (name, value) => {
      state[name] = value;
      state.page = 0;
      show();
    };
    byId("filter").addEventListener("input", (event) => narrow("query", event.target.value));
    byId("solver").addEventListener("change", (event) => narrow("solver", event.target.value));
    byId("failed-only").addEventListener("change", (event) => narrow("failedOnly", event.target.checked));
    byId("previous").addEventListener("click", () => turn(-1));
    byId("next").addEventListener("click", () => turn(1));
    byId("play-all").addEventListener("click", () => playAll(!state.playAll));
    byId("scrub-all").addEventListener("input", (event) => {
      if (state.playAll) playAll(false);
      for (const row of state.rows) row.seek(event.target.value / 1000);
    });
    byId("difference").addEventListener("click", toggleDifference);
    document.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button && button.dataset.copy) copy(button);
      if (button && button.dataset.sort) sortTable(button);
    });
    const more = byId("more-failures");
    if (more) more.addEventListener("click", () => {
      for (const entry of document.querySelectorAll(".more")) entry.hidden = false;
      more.hidden = true;
    });
    document.addEventListener("keydown", pressed);
  }

  function pressed(event) {
    const inControl = event.target.closest && event.target.closest("input, select, button, a, summary, pre, textarea, .scroll");
    if (inControl || event.ctrlKey || event.metaKey || event.altKey) return;
    const actions = {
      " ": () => playAll(!state.playAll),
      d: toggleDifference,
      "/": () => byId("filter").focus(),
      ArrowLeft: () => turn(-1),
      ArrowRight: () => turn(1),
    };
    if (!Object.hasOwn(actions, event.key)) return;
    event.preventDefault();
    actions[event.key]();
  }

  wire();
  show();
})();
