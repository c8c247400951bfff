// Curves of the columns of a table[data-chart]: x is the number in its rows' headers, y the data-value of their cells.
"use strict";

function drawCharts(table) {
  const figures = document.getElementById(table.dataset.chart);
  const style = getComputedStyle(document.documentElement);
  const [accent, text, line] = ["--accent", "--quiet", "--line"].map((name) => style.getPropertyValue(name).trim());
  const rows = [...table.tBodies[0].rows].reverse();
  const names = [...table.tHead.rows[0].cells];
  figures.replaceChildren();
  for (let column = 1; column < names.length; column++) {
    const points = rows
      .map((row) => [Number(row.cells[0].dataset.value), row.cells[column].dataset.value])
      .filter(([, y]) => y !== undefined && Number.isFinite(Number(y)))
      .map(([x, y]) => [x, Number(y)]);
    if (points.length < 2) continue;
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    caption.textContent = names[column].textContent.trim();
    figure.append(caption);
    figures.append(figure);
    const axis = { stroke: text, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
    const plot = new uPlot(
      {
        width: figure.clientWidth,
        height: 170,
        legend: { show: false },
        cursor: { y: false },
        scales: { x: { time: false } },
        axes: [
          { ...axis, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000], values: (_, xs) => xs.map((x) => "v" + x) },
          { ...axis, size: 64 },
        ],
        series: [{}, { stroke: accent, width: 2, points: { show: true, size: 7, fill: accent } }],
      },
      [points.map(([x]) => x), points.map(([, y]) => y)],
      figure,
    );
    plot.root.setAttribute("aria-hidden", "true"); // the table says the same
  }
}

function drawAllCharts() {
  document.querySelectorAll("table[data-chart]").forEach(drawCharts);
}

drawAllCharts();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAllCharts);
let resizing = 0;
addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(drawAllCharts, 100); });
