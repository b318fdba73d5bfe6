// ---- the player of one clip: a video or a picture, loaded when it comes near the window ----

/* Where the labels of clips are found, and which clips the others are compared with. */
const gallery = { ...data, tag: "reference", isReference: (clip) => data.colours[clip.k] === 0, name: (clip) => data.solvers[clip.k] };

/* The command that makes a clip again: from its file where there is one, else from its id. */
function rerun(clip) {
  if (clip.f) return `genrun rerun ${clip.f}`;
  if (clip.m) return `genrun rerun ${data.run}/media/${clip.i.slice(0, 2)}/${clip.m.split("/").pop()}`;
  return `genrun rerun ${clip.i} --run ${data.run}`;
}

class Player {
  constructor(clip, row, source) {
    Object.assign(this, { clip, row, source });
    this.isReference = source.isReference(clip);
    this.isVideo = /\.(mp4|webm)$/.test(clip.m || "");
    this.stage = make("div", { className: "stage" });
    this.stage.style.aspectRatio = `${row.w} / ${row.h}`;
    this.stage.classList.toggle("tiny", Math.max(row.w, row.h) <= TINY_PX);
    this.stage.classList.toggle("failed", clip.t === "failed");
    if (clip.m) this.addMedia();
    else if (clip.no) this.stage.append(clip.no);
    else this.stage.append(clip.t === "failed" ? "failed" : clip.t === "done" ? "no media file" : "not run yet");
    this.element = make("figure", { className: "player" }, this.stage, this.caption());
    this.element.dataset.item = clip.i;
  }

  addMedia() {
    this.media = make(this.isVideo ? "video" : "img");
    if (this.isVideo) Object.assign(this.media, { muted: true, playsInline: true, preload: "auto" });
    else this.media.alt = `sampled by ${this.source.name(this.clip)}`;
    this.media.addEventListener("error", () => {
      if (!this.media.getAttribute("src")) return;
      this.media.remove();
      this.media = null;
      this.stage.append("media file is missing");
    });
    this.stage.append(this.media);
    if (data.print) this.load();
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

  /* Clips are muted, as they play side by side: one at a time is heard. */
  soundButton() {
    const button = make("button", { type: "button", className: "copy", textContent: "sound", title: "Hear this clip" });
    const show = () => button.setAttribute("aria-pressed", String(Boolean(this.media) && !this.media.muted));
    show();
    button.addEventListener("click", () => {
      if (!this.media) return;
      const isMuted = this.media.muted;
      for (const media of document.querySelectorAll("video")) media.muted = true;
      this.media.muted = !isMuted;
    });
    if (this.media) this.media.addEventListener("volumechange", show);
    return button;
  }

  caption() {
    const { clip, source } = this;
    const label = source.name(clip);
    const name = make("div", { className: "name", title: label }, make("i", { className: `dot k${source.colours[clip.k]}` }), make("bdi", { textContent: label }));
    if (clip.t === "done" && this.isReference && source.tag) name.append(make("span", { className: "tag", textContent: source.tag }));
    const about = make("div", { className: "about" });
    const line = (text, className = "") => about.append(make("div", { textContent: text, className }));
    const costs = clip.r ? [`${clip.r} rounds`, `${clip.e} NFE`, `${(clip.n / clip.r).toFixed(2)}×`] : [];
    if (clip.l) costs.push(`${three(clip.l)} s`);
    if (costs.length) line(costs.join(" · "));
    if (clip.b) line(`${clip.b} of the blocks saved`);
    const values = make("dl");
    clip.v.forEach((value, index) => {
      if (value !== null) values.append(make("dt", { textContent: source.metrics[index] }), make("dd", { textContent: value }));
    });
    if (values.children.length) about.append(values);
    for (const note of clip.o || []) line(note, "note");
    if (clip.bad) line(`not as the prompt says: ${clip.bad.join(", ")}`, "wrong");
    return make("figcaption", {}, name, about, this.actions());
  }

  actions() {
    const { clip, source } = this;
    const actions = make("div", { className: "actions" });
    if (clip.m && !source.isLarge) {
      const large = make("button", { type: "button", className: "copy", textContent: "large", title: "Beside its reference, as large as the window" });
      large.addEventListener("click", () => openLightbox(this.row, clip, source));
      actions.append(large);
    }
    if (source.pages) {
      actions.append(make("a", { className: "copy", href: `${source.pages.replace("*", clip.i[0].toLowerCase())}#${clip.i}`, textContent: "item", title: "The page of this item: record, log, input, scores" }));
      actions.append(make("a", { className: "copy", href: `${ITEM}${clip.i}`, textContent: "link", title: "The address of this clip" }));
    }
    if (clip.t === "done") {
      const again = make("button", { type: "button", className: "copy", textContent: "rerun", title: `Copy: ${rerun(clip)}` });
      again.dataset.copy = rerun(clip);
      actions.append(again);
    }
    if (clip.m && clip.a) actions.append(this.soundButton());
    return actions;
  }
}
