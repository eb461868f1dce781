"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      const key = (row) => row.cells[column].dataset.key;
      const numeric = table.tBodies[0].rows[0]?.cells[column].classList.contains("n");
      const compare = (a, b) => {
        if (!numeric) return key(a).localeCompare(key(b), undefined, { numeric: true });
        return Number(key(a)) - Number(key(b));
      };
      const missing = (row) => numeric && Number.isNaN(Number(key(row)));
      const rows = [...table.tBodies[0].rows];
      const known = rows.filter((row) => !missing(row)).sort(compare);
      if (descending) known.reverse();
      table.tBodies[0].append(...known, ...rows.filter(missing));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    });
  });
}
window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
