// ---- the summary's table: sorted, its columns chosen, saved as csv and LaTeX ----

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

function showColumn(index, isShown) {
  for (const row of byId("table").rows) row.children[index].hidden = !isShown;
}

/* The rows as they stand, of the columns that are shown: [cells of the heading, then of each row]. */
function shownCells() {
  return [...byId("table").rows].map((row) => [...row.children].filter((cell) => !cell.hidden));
}

function asCsv() {
  const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  // A table program takes a cell that begins so for a formula.
  const safe = (text) => quoted(/^[=+@\t\r-]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text);
  const whole = (text = "") => text.replace(/\.0$/, "");
  const [heading, ...rows] = shownCells();
  const hasInterval = heading.map((_, index) => rows.some((row) => row[index].dataset.low));
  const titles = heading.flatMap((cell, index) => [cell.textContent.trim(), ...(hasInterval[index] ? ["low", "high"].map((end) => `${cell.textContent.trim()} ${end}`) : [])]);
  const lines = rows.map((row) => row.flatMap((cell, index) => [whole(cell.dataset.value), ...(hasInterval[index] ? [whole(cell.dataset.low), whole(cell.dataset.high)] : [])]));
  return [titles, ...lines].map((line) => line.map(safe).join(",")).join("\r\n") + "\r\n";
}

function asLatex() {
  const escapes = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "×": "$\\times$", "–": "--", "≤": "$\\le$", "−": "$-$" };
  const escaped = (text) => text.replace(/[\\~^×–≤−&%$#_{}]/g, (found) => escapes[found] || `\\${found}`);
  const [heading, ...rows] = shownCells();
  const written = (cell) => {
    const text = escaped((cell.querySelector("span") || cell).textContent.trim());
    return cell.querySelector("strong") ? `\\textbf{${text}}` : text;
  };
  const kinds = heading.map((cell) => (cell.classList.contains("axis") ? "l" : "r")).join("");
  const lines = rows.map((row) => row.map(written).join(" & ") + " \\\\");
  return ["% Means over items; needs \\usepackage{booktabs}.", `\\begin{tabular}{${kinds}}`, "\\toprule", heading.map((cell) => escaped(cell.textContent.trim())).join(" & ") + " \\\\", "\\midrule", ...lines, "\\bottomrule", "\\end{tabular}", ""].join("\n");
}

function wireTable() {
  [...byId("table").tHead.rows[0].children].forEach((heading, index) => {
    if (heading.classList.contains("axis")) return;
    const box = make("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => showColumn(index, box.checked));
    byId("columns").append(make("label", { className: "check" }, box, ` ${heading.textContent.trim()}`));
  });
  byId("as-csv").addEventListener("click", () => download("summary.csv", asCsv()));
  byId("as-latex").addEventListener("click", () => download("summary.tex", asLatex()));
}
