"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const panel = document.getElementById("panel");
  const body = document.getElementById("panel-body");
  let opener = null;

  const make = (tag, content = "", kind = "") => {
    const made = document.createElement(tag);
    if (kind) made.className = kind;
    made.append(...[content].flat());
    return made;
  };

  // Columns: a first click sorts (figures: largest on top), a second reverses, a third undoes.

  const bodiesOf = (table) => [...table.tBodies];
  const cellText = (cell) => cell.textContent.trim();

  const compare = (a, b, numeric) =>
    numeric
      ? Number(a.dataset.number) - Number(b.dataset.number)
      : cellText(a).localeCompare(cellText(b), undefined, { numeric: true });

  const sortRows = (rows, column, numeric, sign) => {
    const empty = (cell) => (numeric ? cell.dataset.number === undefined : cellText(cell) === "-");
    return [...rows].sort((one, other) => {
      const [a, b] = [one.cells[column], other.cells[column]];
      if (empty(a) || empty(b)) return empty(a) - empty(b); // below, whichever way
      return sign * compare(a, b, numeric) || one.dataset.place - other.dataset.place;
    });
  };

  const sortTable = (table, heading) => {
    const column = heading.cellIndex;
    const rows = bodiesOf(table).flatMap((part) => [...part.rows]);
    const numeric = rows.some((row) => row.cells[column].dataset.number !== undefined);
    const ways = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
    const way = ways[ways.indexOf(heading.getAttribute("aria-sort")) + 1];
    for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
    if (way) heading.setAttribute("aria-sort", way);
    for (const part of bodiesOf(table)) {
      const sorted = way
        ? sortRows(part.rows, column, numeric, way === "ascending" ? 1 : -1)
        : [...part.rows].sort((a, b) => a.dataset.place - b.dataset.place);
      part.append(...sorted);
    }
  };

  // Cells: a click, or Enter, shows the runs behind one. Tab enters a table, arrows move in it.

  const fact = (name, content) => [make("dt", name), make("dd", content)];

  const figure = (value) => String(Number(value.toPrecision(5)));

  const showTrial = (signature, names) => {
    const trial = data.trials[signature];
    if (!trial) return make("article", make("p", `${signature}: not in this report`));
    const run = make("code", trial.run ?? "none");
    const link = trial.address ? make("a", [run]) : run;
    if (trial.address) link.href = trial.address;
    const facts = [
      ...names.filter((name) => name in trial.metrics)
        .flatMap((name) => fact(name, make("strong", figure(trial.metrics[name])))),
      ...fact("signature", make("code", signature)),
      ...fact("MLflow run", link),
      ...fact("sweep", trial.sweep),
      ...fact("state", trial.state),
      ...fact("git commit", make("code", trial.commit || "not recorded")),
    ];
    const command = make("pre", make("code", trial.command));
    return make("article", [make("h3", trial.label), make("dl", facts), command]);
  };

  const showRuns = (button) => {
    const row = button.closest("tr");
    const table = row.closest("table");
    const heading = table.tHead.rows[0].cells[button.closest("th, td").cellIndex];
    const columns = data.columns[table.dataset.key];
    const column = button.dataset.column;
    const names = column === undefined ? columns.flat() : columns[Number(column)];
    const runs = row.dataset.runs.split(" ").filter(Boolean);
    const title = column === undefined ? [] : [`${cellText(heading)}: ${cellText(button)}`];
    document.getElementById("panel-title").textContent =
      [cellText(row.cells[0]), ...title].join(", ");
    const count = runs.length === 1 ? "One run" : `${runs.length || "No"} runs`;
    body.replaceChildren(
      make("p", `${count} behind it.`, "count"),
      ...runs.map((signature) => showTrial(signature, [...new Set(names)])),
    );
    opener?.closest("td, th").classList.remove("open");
    opener = button;
    button.closest("td, th").classList.add("open");
    panel.hidden = false;
    panel.scrollTop = 0;
    document.body.classList.add("with-panel");
    button.scrollIntoView({ block: "nearest", inline: "nearest" });
    document.getElementById("panel-title").focus({ preventScroll: true });
  };

  const closePanel = () => {
    if (panel.hidden) return;
    panel.hidden = true;
    document.body.classList.remove("with-panel");
    opener.closest("td, th").classList.remove("open");
    opener.focus({ preventScroll: true });
  };

  const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

  const move = (button, [down, right]) => {
    const table = button.closest("table");
    const grid = [...table.querySelectorAll("tbody tr")]
      .map((row) => [...row.querySelectorAll(".cell")])
      .filter((cells) => cells.length);
    const y = grid.findIndex((cells) => cells.includes(button));
    const next = grid[y + down]?.[grid[y].indexOf(button) + right];
    if (next) next.focus();
  };

  for (const table of document.querySelectorAll("table")) {
    bodiesOf(table).flatMap((part) => [...part.rows]).forEach((row, place) => {
      row.dataset.place = place;
    });
    const cells = [...table.querySelectorAll(".cell")];
    cells.forEach((cell, place) => { cell.tabIndex = place ? -1 : 0; });
    table.addEventListener("focusin", ({ target }) => {
      if (!target.matches(".cell")) return;
      for (const cell of cells) cell.tabIndex = cell === target ? 0 : -1;
    });
    table.addEventListener("keydown", (event) => {
      if (!event.target.matches(".cell") || !(event.key in MOVES)) return;
      event.preventDefault();
      move(event.target, MOVES[event.key]);
    });
    table.addEventListener("click", ({ target }) => {
      const button = target.closest("button");
      if (button?.matches(".cell")) showRuns(button);
      else if (button) sortTable(table, button.closest("th"));
    });
  }

  document.getElementById("close").addEventListener("click", closePanel);
  document.addEventListener("keydown", ({ key }) => { if (key === "Escape") closePanel(); });
})();
