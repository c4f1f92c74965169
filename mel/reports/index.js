// Column heads become buttons that sort; without this the table stands in the order of the names.
const compare = (a, b) => (a !== "" && b !== "" && !isNaN(a) && !isNaN(b) ? a - b : a.localeCompare(b));
document.querySelectorAll("thead th").forEach((head, column) => {
  const button = document.createElement("button");
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const falls = head.ariaSort !== "descending";
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const body = head.closest("table").tBodies[0];
    const rows = [...body.rows].sort((a, b) => compare(value(a), value(b)) * (falls ? -1 : 1));
    document.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
    head.ariaSort = falls ? "descending" : "ascending";
    body.append(...rows);
  });
});
