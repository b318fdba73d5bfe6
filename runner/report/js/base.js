const DIFFERENCE_DOUBLINGS = 3;
const LARGEST_DIFFERENCE_PX = 960;
const OUT_OF_STEP_S = 0.05;
const TINY_PX = 160;
const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const ROWS_PER_PAGE = data.print ? data.print.rows : 8;
const state = { page: 0, query: "", solver: "", failedOnly: false, over: "", wipe: 0.5, playAll: false, rows: [], pairs: [], loupe: null };

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}
