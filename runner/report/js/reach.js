// ---- the keyboard reaches every text that is too long for its box, so that it can be scrolled ----

const scrolls = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollHeight > target.clientHeight) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
for (const box of document.querySelectorAll(".failures .prompt, .failures .error")) scrolls.observe(box);
