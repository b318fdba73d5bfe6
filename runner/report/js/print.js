// ---- printing: all sections are open on paper ----

let opened = [];

function openAll() {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const section of opened) section.open = true;
}

function closeOpened() {
  for (const section of opened) section.open = false;
  opened = [];
}

addEventListener("beforeprint", openAll);
addEventListener("afterprint", closeOpened);
if (data.print) openAll();
