// Tables: a button in each heading sorts (numbers as numbers, empty cells last), a box above a long table filters its rows.
const SHORT = 6; // rows up to which a table has no filter box
const textOf = (cell) => cell.textContent.trim();
const numberOf = (text) => parseFloat(text.replaceAll(",", "").replace("\u2212", "-"));

function sortBy(table, column, order) {
  const numeric = table.tHead.rows[0].cells[column].classList.contains("number");
  const key = (row) => {
    const text = row.cells[column] ? textOf(row.cells[column]) : "";
    const value = numeric ? numberOf(text) : text;
    return text === "" || text === "\u2013" || Number.isNaN(value) ? null : value;
  };
  const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
  rows.sort(([x], [y]) => {
    if (x === null || y === null) return (x === null) - (y === null);
    return order * (numeric ? x - y : x.localeCompare(y, undefined, { numeric: true }));
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

function addSorting(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const order = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order > 0 ? "ascending" : "descending");
      sortBy(table, column, order);
    });
  });
}

function addFilter(table) {
  const rows = [...table.tBodies[0].rows];
  if (rows.length <= SHORT) return;
  const bar = document.createElement("div");
  bar.className = "filter";
  bar.innerHTML = '<label>Filter <input type="search" placeholder="words that a row must have"></label><output></output>';
  const [input, output] = [bar.querySelector("input"), bar.querySelector("output")];
  const place = table.closest(".wide") ?? table;
  const same = place.previousElementSibling; // "In all rows: ...": every row has these words, though no column shows them
  const common = same?.matches("p.same") ? [...same.querySelectorAll("b")].map(textOf) : [];
  const texts = new Map(rows.map((row) => [row, [...common, ...[...row.cells].map(textOf)].join(" ").toLowerCase()]));
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row) => { row.hidden = !words.every((word) => texts.get(row).includes(word)); });
    output.value = words.length ? `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows` : "";
  });
  place.before(bar);
}

for (const table of document.querySelectorAll("table.sortable")) {
  addSorting(table);
  addFilter(table);
}

// A link to something in a fold opens the fold.
function unfold() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  if (target) target.scrollIntoView();
}
addEventListener("hashchange", unfold);
unfold();
