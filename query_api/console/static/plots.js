// Plots over time, drawn by uPlot. A person who cannot see a plot hears its first and last value, and can read the table.

import { h, moment, table } from "./dom.js";

const HEIGHT = 220;
const DAY_SECONDS = 86_400;

// `points` are [milliseconds, value], in order; `show` makes a text of a value. With `steps`, a value holds until the next one.
export function plot(title, points, show, { steps = false, live = false } = {}) {
  const box = h("div", { class: "plot" });
  const columns = [
    ["Time", ([at]) => moment(new Date(at).toISOString())],
    ["Value", ([, value]) => show(value), "number"],
  ];
  let drawn = null;
  const data = () => [points.map(([at]) => at / 1000), points.map(([, value]) => Number(value))];
  const describe = () => {
    const [first, last] = [points[0], points.at(-1)];
    box.setAttribute("role", "img");
    box.setAttribute("aria-label", first ? `${title}: from ${show(first[1])} to ${show(last[1])}` : `${title}: no values yet`);
  };
  const draw = () => {
    if (!box.isConnected) return;
    drawn?.destroy();
    drawn = new uPlot(options(title, box.clientWidth || 320, show, steps), data(), box);
  };
  describe();
  const resizing = new ResizeObserver(draw);
  resizing.observe(box);
  const add = (value) => {
    points.push([Date.now(), value]);
    if (points.length > 300) points.shift();
    describe();
    drawn?.setData(data());
  };
  const numbers = live
    ? null
    : h("details", {}, h("summary", {}, `${title} as a table`), table(title, columns, points.toReversed().slice(0, 100)));
  return { element: h("div", {}, box, numbers), add };
}

function options(title, width, show, steps) {
  const style = getComputedStyle(document.documentElement);
  const [stroke, line, text] = ["--accent", "--line", "--text"].map((name) => style.getPropertyValue(name).trim());
  const axis = { stroke: text, grid: { stroke: line, width: 0.4 }, ticks: { stroke: line, width: 0.4 } };
  const times = (_, seconds) => {
    const isLong = seconds.at(-1) - seconds[0] > DAY_SECONDS;
    return seconds
      .map((at) => new Date(at * 1000).toISOString())
      .map((at) => (isLong ? at.slice(5, 16).replace("T", " ") : at.slice(11, 19)));
  };
  const series = { label: title, stroke, width: 2, value: (_, value) => (value === null ? "–" : show(value)) };
  return {
    title,
    width,
    height: HEIGHT,
    axes: [
      { ...axis, space: 100, values: times },
      { ...axis, size: 120, values: (_, values) => values.map(show) },
    ],
    series: [
      {
        label: "Time (UTC)",
        value: (_, at) => (at === null ? "–" : new Date(at * 1000).toISOString().slice(0, 19).replace("T", " ")),
      },
      steps ? { ...series, paths: uPlot.paths.stepped({ align: 1 }) } : series,
    ],
  };
}
