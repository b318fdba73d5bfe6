// ---- constants, state and helpers of all files ----

const DIFFERENCE_DOUBLINGS = 3; // 8 times brighter, as the button says
const LARGEST_DIFFERENCE_PX = 960; // a canvas is painted on every frame of every clip
const MOST_DRIFT_S = 0.05; // about a frame: a smaller step would seek, and stutter, all the time
const TINY_PX = 160; // clips up to it are enlarged in whole pixels, as pdf.py has it, too
const byId = (id) => document.getElementById(id);
const three = (value) => (Math.abs(value) >= 999.5 ? Math.round(value).toLocaleString("en-US") : value.toPrecision(3)); // as numbers.py writes
const data = JSON.parse(byId("data").textContent);
const isGallery = data.rows.every((row) => row.c.length === 1); // nothing stands beside a clip
const ROWS_PER_PAGE = data.print ? data.print.rows : isGallery ? 24 : 8;
const state = { page: 0, query: "", cell: null, against: null, by: null, worst: true, least: "", most: "", failedOnly: false, overlay: "", wipe: 0.5, playAll: false, rows: [], pairs: [], lightbox: null };

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/* Save text as a file that the browser downloads. */
function download(name, text) {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "text/plain" })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
