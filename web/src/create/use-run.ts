/** One request for pictures: begun, watched, stopped. */

import { useCallback, useEffect, useRef, useState } from "preact/hooks";

import { ApiError, messageOf } from "../api/http";
import { pictures, toBlob, type Completed, type PictureEvent, type Queued } from "../api/stream";
import type { Picture, Start } from "../store/gallery";
import { errorNotes, warningNotes, type AllNotes } from "./notes";
import type { Recipe } from "./recipe";

export interface Tile {
  blob: Blob | null;
  step: number;
  steps: number;
  isDone: boolean;
}

export interface Run {
  tiles: Tile[];
  startedAt: number;
  isWaiting: boolean;
  /** In the queue; 1 is the next. */
  position: number | null;
}

export interface RunControl {
  run: Run | null;
  notes: AllNotes;
  say: string;
  start: (path: string, body: Record<string, unknown>, from: Start | null) => Promise<void>;
  stop: () => void;
}

interface Options {
  onPicture: (picture: Picture) => void;
  onUnauthorized: () => void;
}

/** Of a number that somebody has typed, before the server has refused it. */
const MAX_TILES = 100;

export function useRun({ onPicture, onUnauthorized }: Options): RunControl {
  const [run, setRun] = useState<Run | null>(null);
  const [notes, setNotes] = useState<AllNotes>({});
  const [say, setSay] = useState("");
  const abort = useRef<AbortController | null>(null);

  const stop = useCallback(() => abort.current?.abort(), []);
  useEffect(() => stop, [stop]); // who signs out waits for no picture

  /** To the last picture. An answer that ends before is a failure, however it ends. */
  async function follow(path: string, body: Record<string, unknown>, from: Start | null, signal: AbortSignal): Promise<void> {
    const wanted = numberOf(body);
    const warnings = new Set<string>();
    let completed = 0;
    for await (const event of pictures(path, body, signal)) {
      setRun((before) => before && advance(before, event));
      if (event.kind !== "completed") continue;
      completed += 1;
      for (const each of event.warnings) warnings.add(each);
      setNotes(warningNotes([...warnings]));
      onPicture(pictureOf(event, body, from));
    }
    if (completed < wanted) throw new Error(`The answer ended after ${completed} of ${wanted} pictures.`);
  }

  async function start(path: string, body: Record<string, unknown>, from: Start | null) {
    abort.current?.abort();
    const controller = new AbortController();
    abort.current = controller;
    const tile: Tile = { blob: null, step: 0, steps: 0, isDone: false };
    const startedAt = performance.now();
    const wanted = numberOf(body);
    setNotes({});
    setSay("Started.");
    const tiles = Array.from({ length: Math.min(wanted, MAX_TILES) }, () => tile);
    setRun({ tiles, startedAt, isWaiting: true, position: null });
    try {
      await follow(path, body, from, controller.signal);
      setSay(`${wanted === 1 ? "1 picture" : `${wanted} pictures`} in ${seconds(startedAt)}.`);
    } catch (failure) {
      if (abort.current !== controller) return; // another one has begun since
      if (controller.signal.aborted) setSay("Stopped.");
      else if (failure instanceof ApiError && failure.status === 401) onUnauthorized();
      else {
        setSay("");
        setNotes(errorNotes(messageOf(failure), failure instanceof ApiError ? failure.param : null));
      }
    } finally {
      if (abort.current === controller) {
        abort.current = null;
        setRun(null);
      }
    }
  }

  return { run, notes, say, start, stop };
}

function tileChange(event: Exclude<PictureEvent, Queued>): Partial<Tile> {
  if (event.kind === "step") return { step: event.step_index, steps: event.num_steps };
  return { blob: toBlob(event.b64_json, event.output_format), isDone: event.kind === "completed" };
}

function advance(run: Run, event: PictureEvent): Run {
  if (event.kind === "queued") return { ...run, position: event.position };
  const tiles = run.tiles.map((tile, at) => (at === event.image_index ? { ...tile, ...tileChange(event) } : tile));
  return { ...run, tiles, isWaiting: false };
}

function numberOf(body: Record<string, unknown>): number {
  return Number(body["n"] ?? 1);
}

function pictureOf(made: Completed, body: Record<string, unknown>, start: Start | null): Picture {
  const { parameters, seed, warnings, output_format, b64_json } = made;
  const recipe = { ...parameters, prompt: String(body["prompt"] ?? ""), seed } as Recipe;
  return { id: newId(), blob: toBlob(b64_json, output_format), recipe, warnings, madeAt: Date.now(), start };
}

export function seconds(since: number): string {
  return `${((performance.now() - since) / 1000).toFixed(1)} s`;
}

/** Not by randomUUID: a page over plain HTTP has none. */
function newId(): string {
  return `${Date.now()}-${crypto.getRandomValues(new Uint32Array(1))[0]}`;
}
