// Click a heading to sort by it; numbers sort as numbers, empty cells stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const order = head.dataset.order === "1" ? -1 : 1;
    heads.forEach((other) => delete other.dataset.order);
    head.dataset.order = order;
    const numeric = head.classList.contains("number");
    const key = (row) => row.cells[column].textContent.trim();
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (!x || !y) return (!x) - (!y);
      return order * (numeric ? parseFloat(x) - parseFloat(y) : x.localeCompare(y));
    });
    table.tBodies[0].append(...rows);
  }));
}
