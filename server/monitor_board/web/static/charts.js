// A time series with zoom, when somebody asks for it: drawn by uPlot from the table beside the
// picture, so that chart and table cannot differ. Without this program, and in print, the server's
// picture stays.
"use strict";

const POINTS_MIN = 3;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function numberOf(words) {
  const value = words === undefined ? NaN : Number.parseFloat(words);
  return Number.isFinite(value) ? value : null;
}

function rowsOf(figure) {
  return [...figure.querySelectorAll("tbody tr")].map((row) => ({
    period: row.querySelector("th").textContent,
    value: numberOf(row.dataset.value),
    low: numberOf(row.dataset.low),
    high: numberOf(row.dataset.high),
  }));
}

function linesOf(figure, rows) {
  const bound = { stroke: colour("--muted"), width: 1, points: { show: false } };
  const limit = { ...bound, stroke: colour("--alert-ink"), dash: [6, 4], label: "tolerance" };
  const estimate = { stroke: colour("--accent"), width: 2, points: { size: 6 }, label: "estimate" };
  const lines = [
    [estimate, rows.map((row) => row.value)],
    [{ ...bound, label: "low" }, rows.map((row) => row.low)],
    [{ ...bound, label: "high" }, rows.map((row) => row.high)],
  ];
  for (const words of [figure.dataset.limitLow, figure.dataset.limitHigh]) {
    const value = numberOf(words);
    if (value !== null) lines.push([limit, rows.map(() => value)]);
  }
  return lines;
}

function draw(figure, holder) {
  const rows = rowsOf(figure);
  const lines = linesOf(figure, rows);
  const axis = { stroke: colour("--ink"), grid: { stroke: colour("--grid") } };
  const periods = (_chart, places) => places.map((place) => rows[place]?.period ?? "");
  const options = {
    width: Math.min(640, figure.clientWidth),
    height: 260,
    scales: { x: { time: false } },
    series: [
      { label: "period", value: (_chart, place) => rows[place]?.period ?? "" },
      ...lines.map(([look]) => look),
    ],
    axes: [{ ...axis, values: periods, incrs: [1, 2, 4, 13, 26, 52] }, axis],
  };
  const data = [rows.map((_row, place) => place), ...lines.map(([, values]) => values)];
  return new uPlot(options, data, holder);
}

function offerZoom(figure) {
  if (rowsOf(figure).filter((row) => row.value !== null).length < POINTS_MIN) return;
  const picture = figure.querySelector(".picture");
  const holder = document.createElement("div");
  holder.className = "zoom";
  const button = document.createElement("button");
  button.type = "button";
  button.className = "zoom";
  button.textContent = "Zoom";
  button.setAttribute("aria-pressed", "false");
  let chart = null;
  button.addEventListener("click", () => {
    const isZoomed = picture.classList.toggle("zoomed");
    button.setAttribute("aria-pressed", String(isZoomed));
    chart?.destroy();
    chart = isZoomed ? draw(figure, holder) : null;
  });
  picture.append(holder);
  picture.after(button);
}

document.querySelectorAll("figure.series").forEach(offerZoom);
