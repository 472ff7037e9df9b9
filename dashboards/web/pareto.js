// Two comforts that pages do without: charts that can be zoomed, made from the table below each, and a
// custom period as soon as a date is written.
"use strict";

(() => {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const dashes = [[], [7, 4], [2, 3], [10, 3, 2, 3], [], [5, 2], [1, 3]];

  // The lines of a chart, read from its table: a column each.
  const read = (table) => {
    const names = [...table.querySelectorAll("thead th")].map((cell) => cell.textContent);
    const columns = names.map(() => []);
    const times = [];
    for (const row of table.querySelectorAll("tbody tr")) {
      times.push(Number(new URLSearchParams(row.dataset.of).get("from")) / 1000);
      [...row.querySelectorAll("td")].forEach((cell, place) => {
        const { nano, count } = cell.dataset;
        const value = nano !== undefined ? Number(nano) / 1e9 : count !== undefined ? Number(count) : NaN;
        columns[place].push(value);
      });
    }
    return { names, data: [times, ...columns] };
  };

  const plot = (figure) => {
    if (figure.dataset.plotted || figure.querySelectorAll("path.line").length === 0) return;
    const table = figure.querySelector("details table");
    if (!table || !table.querySelector("tr[data-of*='from=']")) return;
    const { names, data } = read(table);
    if (data[0].length < 8 || data.slice(1).some((column) => column.some(Number.isNaN))) return;
    figure.dataset.plotted = "1";
    const money = figure.dataset.unit === "usd";
    const text = (_, value) => value == null ? "–"
      : (money ? "$" : "") + value.toLocaleString("en", { maximumFractionDigits: money ? 2 : 0 });
    const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
    const font = `11px ${colour("--sans")}`;
    const axis = { font, stroke: colour("--soft"), grid: { stroke: colour("--rule"), width: 1 }, ticks: { show: false } };
    const holder = document.createElement("div");
    figure.querySelector("figcaption").after(holder);
    figure.classList.add("plotted");
    const chart = new uPlot({
      width: holder.clientWidth, height: 260, tzDate: (at) => uPlot.tzDate(new Date(at * 1e3), "UTC"),
      scales: { y: { range: (_, low, high) => [Math.min(0, low), high * 1.08 || 1] } },
      axes: [{ ...axis, space: 70, values: (_, marks) => marks.map((mark) => day.format(new Date(mark * 1e3))) }, { ...axis, size: 72, values: (u, marks) => marks.map((mark) => text(u, mark)) }],
      series: [{ label: "Day", value: (_, at) => at == null ? "–" : new Date(at * 1e3).toISOString().slice(0, 10) }].concat(names.map((label, place) => ({
        label, value: text, stroke: colour(`--s${place}`), width: 2, dash: dashes[place], points: { show: false },
      }))),
    }, data, holder);
    const note = document.createElement("p");
    note.className = "plot-note";
    note.textContent = "Drag to zoom, double-click to see all.";
    holder.after(note);
    new ResizeObserver(() => chart.setSize({ width: holder.clientWidth, height: 260 })).observe(holder);
  };

  const all = () => { if (window.uPlot) document.querySelectorAll("figure.chart").forEach(plot); };
  const redraw = () => {
    document.querySelectorAll("figure.plotted").forEach((figure) => {
      figure.querySelector(":scope > div").remove();
      figure.querySelector(".plot-note").remove();
      figure.classList.remove("plotted");
      delete figure.dataset.plotted;
    });
    all();
  };

  document.addEventListener("change", (event) => {
    const { name, form } = event.target;
    if (form && (name === "from" || name === "until")) form.elements.period.value = "custom";
  }, true);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let due = false;
  new MutationObserver(() => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => { due = false; all(); });
  }).observe(document.body, { childList: true, subtree: true });
  all();
})();
