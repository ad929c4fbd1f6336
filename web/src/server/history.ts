/** Ten minutes of `/metrics`, kept in this tab over a reload, whether or not anybody looks: points that can be drawn, from counters that only grow. */

import { ApiError } from "../api/http";
import { loadMetrics, total, type Sample } from "../api/metrics";
import * as tab from "../store/tab";

export interface Point {
  at: number;
  queued: number;
  running: number;
  steps: number;
  rows: number | null;
  errors: number;
  p50: number | null;
  p95: number | null;
}

const WATCHED_MS = 2000;
const UNWATCHED_MS = 10_000;
const KEPT_S = 600;
const STORAGE = "safelight-points";

interface Watcher {
  onPoints: (points: Point[]) => void;
  onUnauthorized: () => void;
}

let points: Point[] = stored();
let before: Scrape | null = null;
let watcher: Watcher | null = null;
let timer: number | undefined;
let isAsked = false;
let visit = 0;

function stored(): Point[] {
  try {
    const kept = JSON.parse(tab.read(STORAGE) ?? "[]") as Point[];
    return kept.filter((each) => each.at > Date.now() / 1000 - KEPT_S);
  } catch {
    return [];
  }
}

/** Begin to ask, seldom while nobody watches. The function that is returned ends it. */
export function collectMetrics(): () => void {
  void askOn();
  return () => clearTimeout(timer);
}

/** Whoever comes next in this tab is not told. */
export function forgetMetrics(): void {
  visit += 1; // what is on its way belongs to who has left
  points = [];
  before = null;
  tab.remove(STORAGE);
}

/** Be told the points of the last ten minutes, now and as they come. The function that is returned ends it. */
export function watchMetrics(onPoints: (points: Point[]) => void, onUnauthorized: () => void): () => void {
  const mine = { onPoints, onUnauthorized };
  watcher = mine;
  onPoints(points);
  void askOn();
  return () => {
    if (watcher === mine) watcher = null;
  };
}

/** A server that is slow is not asked twice at once. */
async function askOn(): Promise<void> {
  clearTimeout(timer);
  timer = setTimeout(() => void askOn(), watcher !== null && !document.hidden ? WATCHED_MS : UNWATCHED_MS);
  if (isAsked) return;
  isAsked = true;
  const asked = visit;
  try {
    const samples = await loadMetrics();
    if (asked === visit) add({ at: Date.now() / 1000, samples });
  } catch (failure) {
    if (failure instanceof ApiError && failure.status === 401) watcher?.onUnauthorized();
  }
  isAsked = false;
}

function add(now: Scrape): void {
  if (before !== null) points = [...points, pointOf(before, now)].filter((each) => each.at > now.at - KEPT_S);
  before = now;
  tab.write(STORAGE, JSON.stringify(points));
  watcher?.onPoints(points);
}

interface Scrape {
  at: number;
  samples: Sample[];
}

function pointOf(from: Scrape, to: Scrape): Point {
  const grown = (name: string, isCounted?: (labels: Sample["labels"]) => boolean) =>
    Math.max(total(to.samples, name, isCounted) - total(from.samples, name, isCounted), 0);
  const seconds = Math.max(to.at - from.at, 0.001);
  const calls = grown("safelight_batch_rows_count");
  return {
    at: to.at,
    queued: total(to.samples, "safelight_queue_depth"),
    running: total(to.samples, "safelight_running"),
    steps: grown("safelight_steps_run_total") / seconds,
    rows: calls > 0 ? grown("safelight_batch_rows_sum") / calls : null,
    errors: grown("safelight_requests_total", isError) / seconds,
    p50: quantile(0.5, grown),
    p95: quantile(0.95, grown),
  };
}

const DIALECTS = new Set(["openai", "huggingface"]);

function isError(labels: Sample["labels"]): boolean {
  return DIALECTS.has(labels["dialect"] ?? "") && Number(labels["status"]) >= 400 && labels["status"] !== "499";
}

const BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 180];

type Grown = (name: string, isCounted?: (labels: Sample["labels"]) => boolean) => number;

/** Between the bounds of its bucket as Prometheus's histogram_quantile does it. */
function quantile(q: number, grown: Grown): number | null {
  const isPicture = (labels: Sample["labels"]) => DIALECTS.has(labels["dialect"] ?? "");
  const all = grown("safelight_request_seconds_count", isPicture);
  if (all === 0) return null;
  let lower = 0;
  let counted = 0;
  for (const bound of BUCKETS) {
    const upTo = grown("safelight_request_seconds_bucket", (labels) => isPicture(labels) && Number(labels["le"]) === bound);
    if (upTo >= q * all) return lower + ((bound - lower) * (q * all - counted)) / Math.max(upTo - counted, 1e-9);
    lower = bound;
    counted = upTo;
  }
  return lower;
}
