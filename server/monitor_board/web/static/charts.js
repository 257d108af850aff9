// Time series with zoom: drawn by uPlot from the table beside the picture, so that chart and table
// cannot differ. Without this program, and in print, the server's picture stays.
"use strict";

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function rowsOf(figure) {
  return [...figure.querySelectorAll("tbody tr")].map((row) => ({
    period: row.querySelector("th").textContent,
    value: numberOf(row.dataset.value),
    low: numberOf(row.dataset.low),
    high: numberOf(row.dataset.high),
  }));
}

function numberOf(words) {
  const value = words === undefined ? NaN : Number.parseFloat(words);
  return Number.isFinite(value) ? value : null;
}

function optionsFor(rows, width) {
  const line = { stroke: colour("--accent"), width: 2, label: "estimate", points: { size: 6 } };
  const bound = (label) => ({ stroke: colour("--muted"), width: 1, dash: [4, 4], label });
  const axis = { stroke: colour("--ink"), grid: { stroke: colour("--grid") } };
  const words = (_chart, places) =>
    places.map((place) => (Number.isInteger(place) && rows[place] ? rows[place].period : ""));
  return {
    width,
    height: 240,
    scales: { x: { time: false } },
    series: [
      { label: "period", value: (_chart, place) => (place === null ? "" : rows[place].period) },
      line,
      bound("low"),
      bound("high"),
    ],
    axes: [{ ...axis, values: words, incrs: [1, 2, 4, 13, 26, 52] }, axis],
  };
}

function draw(figure) {
  const rows = rowsOf(figure);
  if (rows.filter((row) => row.value !== null).length < 2) return;
  const data = [
    rows.map((_row, place) => place),
    rows.map((row) => row.value),
    rows.map((row) => row.low),
    rows.map((row) => row.high),
  ];
  const picture = figure.querySelector(".picture");
  const holder = document.createElement("div");
  holder.className = "zoom";
  holder.setAttribute("aria-hidden", "true");
  picture.append(holder);
  new uPlot(optionsFor(rows, Math.min(640, picture.clientWidth)), data, holder);
  picture.classList.add("drawn");
}

document.querySelectorAll("figure.series").forEach(draw);
