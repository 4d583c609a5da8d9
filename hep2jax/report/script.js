"use strict";

// Light and dark: the reader's system decides until the button is used.
const root = document.documentElement;
const theme = document.getElementById("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

// Gallery: show the cards that the controls above them ask for.
for (const controls of document.querySelectorAll(".gallery > .controls")) {
  const cards = [...controls.parentElement.querySelectorAll(".card")];
  const apply = () => {
    for (const card of cards) {
      const wrong = !controls.elements.wrong.checked || card.dataset.wrong === "1";
      const pattern = controls.elements.pattern.value;
      card.hidden = !(wrong && (!pattern || card.dataset.pattern === pattern));
    }
    const shown = cards.filter((card) => !card.hidden).length;
    controls.querySelector(".shown").textContent = `${shown} of ${cards.length} match`;
  };
  controls.hidden = false;
  controls.addEventListener("input", apply);
  controls.addEventListener("submit", (event) => event.preventDefault());
  apply();
}

// Gallery: a panel opens large on a click or Enter.
const zoom = document.getElementById("zoom");
function open(panel) {
  const drawing = panel.querySelector("svg").cloneNode(true);
  for (const image of drawing.querySelectorAll("image")) image.removeAttribute("id");
  zoom.querySelector("div").replaceChildren(drawing);
  zoom.querySelector("p").textContent = drawing.getAttribute("aria-label");
  zoom.showModal();
}
for (const panel of document.querySelectorAll(".zoomable")) {
  panel.addEventListener("click", () => open(panel));
  panel.addEventListener("keydown", (event) => { if (event.key === "Enter") open(panel); });
}
zoom.addEventListener("click", (event) => { if (event.target === zoom) zoom.close(); });

// Curves: the values at the step under the pointer appear in the legend.
for (const drawing of document.querySelectorAll(".chart:not(.plane) svg")) {
  const readings = drawing.parentElement.querySelectorAll(".reading");
  const crosshair = drawing.querySelector(".crosshair");
  const lines = [...drawing.querySelectorAll("polyline, .dot")].map((line) => ({
    xs: (line.getAttribute("points") || "").split(" ").map(parseFloat),
    steps: (line.dataset.steps || "").split(" "),
    values: (line.dataset.values || "").split(" "),
  }));
  drawing.addEventListener("pointerleave", () => {
    crosshair.classList.remove("on");
    for (const reading of readings) reading.textContent = "";
  });
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * drawing.viewBox.baseVal.width;
    lines.forEach((line, index) => {
      if (line.xs.some(Number.isNaN)) return;
      const near = line.xs.reduce((best, at, i) => Math.abs(at - x) < Math.abs(line.xs[best] - x) ? i : best, 0);
      readings[index].textContent = `${line.values[near]} at ${line.steps[near]}`;
      for (const end of ["x1", "x2"]) crosshair.setAttribute(end, line.xs[near]);
      crosshair.classList.add("on");
    });
  });
}
