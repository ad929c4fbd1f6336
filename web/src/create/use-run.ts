/** One request for pictures: begun, watched, stopped. */

import { useCallback, useRef, useState } from "preact/hooks";

import { ApiError, messageOf } from "../api/http";
import { pictures, toBlob, type PictureEvent, type Queued } from "../api/stream";
import type { Picture } from "../store/gallery";
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
  start: (path: string, body: Record<string, unknown>) => Promise<void>;
  stop: () => void;
}

interface Options {
  onPicture: (picture: Picture) => void;
  onUnauthorized: () => void;
}

export function useRun({ onPicture, onUnauthorized }: Options): RunControl {
  const [run, setRun] = useState<Run | null>(null);
  const [notes, setNotes] = useState<AllNotes>({});
  const [say, setSay] = useState("");
  const abort = useRef<AbortController | null>(null);

  const stop = useCallback(() => abort.current?.abort(), []);

  async function follow(path: string, body: Record<string, unknown>, signal: AbortSignal): Promise<number> {
    let completed = 0;
    for await (const event of pictures(path, body, signal)) {
      setRun((before) => before && advance(before, event));
      if (event.kind !== "completed") continue;
      completed += 1;
      setNotes(warningNotes(event.warnings));
      onPicture(pictureOf(event.b64_json, event.output_format, event.parameters, event.seed, body, event.warnings));
    }
    return completed;
  }

  async function start(path: string, body: Record<string, unknown>) {
    abort.current?.abort();
    const controller = new AbortController();
    abort.current = controller;
    const tile: Tile = { blob: null, step: 0, steps: 0, isDone: false };
    const startedAt = performance.now();
    setNotes({});
    setSay("Started.");
    setRun({ tiles: Array.from({ length: Number(body["n"] ?? 1) }, () => tile), startedAt, isWaiting: true, position: null });
    try {
      const completed = await follow(path, body, controller.signal);
      setSay(`${completed === 1 ? "1 picture" : `${completed} pictures`} in ${seconds(startedAt)}.`);
    } catch (failure) {
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

function pictureOf(
  base64: string,
  format: string,
  parameters: Record<string, unknown>,
  seed: number | string,
  body: Record<string, unknown>,
  warnings: string[],
): Picture {
  const recipe = { ...parameters, prompt: String(body["prompt"] ?? ""), seed } as Recipe;
  return { id: newId(), blob: toBlob(base64, format), recipe, warnings, madeAt: Date.now() };
}

export function seconds(since: number): string {
  return `${((performance.now() - since) / 1000).toFixed(1)} s`;
}

/** Not by randomUUID: a page over plain HTTP has none. */
function newId(): string {
  return `${Date.now()}-${crypto.getRandomValues(new Uint32Array(1))[0]}`;
}
