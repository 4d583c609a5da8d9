
// Readings: rows that the controls ask for, in the order of the column that was chosen last.
for (const part of document.querySelectorAll(".filtered")) {
  const controls = part.querySelector(".controls");
  const body = part.querySelector("tbody");
  const rows = [...body.rows];
  const apply = () => {
    const text = controls.elements.text.value.toLowerCase();
    const pattern = controls.elements.pattern.value;
    for (const row of rows) {
      const named = row.querySelector("th").dataset.value.toLowerCase().includes(text);
      row.hidden = !(named && (!pattern || row.dataset.patterns.split(" ").includes(pattern)));
    }
    controls.querySelector(".shown").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} match`;
  };
  controls.hidden = false;
  controls.addEventListener("input", apply);
  controls.addEventListener("submit", (event) => event.preventDefault());
  apply();
  for (const button of part.querySelectorAll("thead button")) {
    button.addEventListener("click", () => {
      const head = button.parentElement;
      const order = head.ariaSort === "descending" ? "ascending" : "descending";
      for (const other of head.parentElement.children) if (other.ariaSort) other.ariaSort = "none";
      head.ariaSort = order;
      const sign = order === "ascending" ? 1 : -1;
      const value = (row) => row.cells[head.cellIndex].dataset.value;
      const compare = (a, b) => isNaN(a) || isNaN(b) || a === "" || b === "" ? a.localeCompare(b) : a - b;
      body.append(...[...rows].sort((a, b) => sign * compare(value(a), value(b))));
    });
  }
}
