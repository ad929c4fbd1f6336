import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

import { watchMetrics, type Point } from "./history";

interface PlotsProps {
  onUnauthorized: () => void;
}

type Line = [label: string, field: Exclude<keyof Point, "at">];

const PLOTS: { title: string; unit: string; lines: Line[] }[] = [
  { title: "Requests", unit: "", lines: [["running", "running"], ["queued", "queued"]] },
  { title: "Steps a second", unit: "", lines: [["steps", "steps"]] },
  { title: "Rows of a batch", unit: "", lines: [["rows", "rows"]] },
  { title: "Latency", unit: "s", lines: [["p50", "p50"], ["p95", "p95"]] },
  { title: "Errors a second", unit: "", lines: [["errors", "errors"]] },
];

export function Plots({ onUnauthorized }: PlotsProps) {
  const [points, setPoints] = useState<Point[]>([]);
  useEffect(() => watchMetrics(setPoints, onUnauthorized), []);
  return (
    <section aria-label="The last ten minutes">
      <h2>
        The last ten minutes <span class="quiet">kept in this tab</span>
      </h2>
      <div class="plots">
        {PLOTS.map((plot) => (
          <Plot key={plot.title} {...plot} points={points} />
        ))}
      </div>
    </section>
  );
}

interface PlotProps {
  title: string;
  unit: string;
  lines: Line[];
  points: Point[];
}

const HEIGHT = 140;

function Plot({ title, unit, lines, points }: PlotProps) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  useEffect(() => {
    const element = box.current;
    if (element === null) return;
    plot.current = new uPlot(optionsFor(lines, element.clientWidth), dataOf(points, lines), element);
    const observer = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: HEIGHT }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      plot.current?.destroy();
    };
  }, []);
  useEffect(() => plot.current?.setData(dataOf(points, lines)), [points]);
  const last = points.at(-1);
  const values = lines.map(([label, field], index) => {
    const value = last?.[field];
    return (
      <span class={`line line-${index}`} key={label}>
        {lines.length > 1 && `${label} `}
        <b>{value === null || value === undefined ? "–" : `${round(value)}${unit && ` ${unit}`}`}</b>
      </span>
    );
  });
  return (
    <figure class="plot card">
      <figcaption>
        <span>{unit ? `${title}, ${unit}` : title}</span> <span>{values}</span>
      </figcaption>
      <div ref={box} aria-hidden="true" />
    </figure>
  );
}

function round(value: number): string {
  return value >= 100 || Number.isInteger(value) ? value.toFixed(0) : value.toPrecision(2);
}

function dataOf(points: Point[], lines: Line[]): uPlot.AlignedData {
  return [points.map((each) => each.at), ...lines.map(([, field]) => points.map((each) => each[field]))];
}

/** The last ten minutes, or as long as there are points; a minute at least. */
function timeRange(first: number | null): [number, number] {
  const now = Date.now() / 1000;
  return [Math.max(now - 600, Math.min(first ?? now, now - 60)), now];
}

function optionsFor(lines: Line[], width: number): uPlot.Options {
  const colour = (name: string) => () => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    scales: { x: { range: (_, first) => timeRange(first) }, y: { range: (_, __, max) => [0, Math.max(max, 1) * 1.1] } },
    axes: [
      { ...axis, values: (_, ticks) => ticks.map((each) => new Date(each * 1000).toTimeString().slice(0, 8)), space: 90, size: 28 },
      { ...axis, size: 40, space: 40 },
    ],
    series: [{}, ...lines.map((_, index) => lineOf(colour(index === 0 ? "--accent-line" : "--second-line")))],
  };
}

/** With dots while there are few: one alone has no line. */
function lineOf(stroke: () => string): uPlot.Series {
  const points = { show: (_: uPlot, __: number, first: number, last: number) => last - first < 60, size: 4, fill: stroke };
  return { stroke, width: 1.5, spanGaps: true, points };
}
