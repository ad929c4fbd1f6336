/** What a picture was made from, and how it is read out of a file: PNG text, or EXIF's comment in JPEG and WebP. */

import { parseJson } from "../api/json";

export interface Recipe {
  model: string;
  prompt: string;
  negative_prompt?: string | undefined;
  width: number;
  height: number;
  num_inference_steps: number;
  scheduler: string;
  guidance_scale?: number | undefined;
  true_cfg_scale?: number | undefined;
  /** A string where a number would lose digits. */
  seed: number | string;
  strength?: number | undefined;
  loras?: { name: string; scale: number }[] | undefined;
}

const PNG = [0x89, 0x50, 0x4e, 0x47];
const MARK = '{"safelight":';

export async function readRecipe(file: Blob): Promise<Recipe | null> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const text = PNG.every((byte, index) => bytes[index] === byte) ? pngText(bytes) : jsonIn(webpExif(bytes) ?? bytes);
  return text === null ? null : parse(text);
}

/** Of a WebP, which has it behind the pixels (https://developers.google.com/speed/webp/docs/riff_container); else null. */
function webpExif(bytes: Uint8Array): Uint8Array | null {
  const view = new DataView(bytes.buffer);
  if (latin1(bytes.subarray(0, 4)) !== "RIFF" || latin1(bytes.subarray(8, 12)) !== "WEBP") return null;
  let at = 12;
  while (at + 8 <= bytes.length) {
    const length = view.getUint32(at + 4, true);
    if (latin1(bytes.subarray(at, at + 4)) === "EXIF") return bytes.subarray(at + 8, at + 8 + length);
    at += 8 + length + (length % 2);
  }
  return null;
}

/** https://www.w3.org/TR/png-3/#11textinfo; compressed text is not ours. */
function pngText(bytes: Uint8Array): string | null {
  const view = new DataView(bytes.buffer);
  let at = 8;
  while (at + 12 <= bytes.length) {
    const length = view.getUint32(at);
    const type = latin1(bytes.subarray(at + 4, at + 8));
    const data = bytes.subarray(at + 8, at + 8 + length);
    const end = data.indexOf(0);
    if (end > 0 && latin1(data.subarray(0, end)) === "safelight") {
      if (type === "tEXt") return latin1(data.subarray(end + 1));
      if (type === "iTXt") return utf8(data.subarray(afterTags(data, end + 3)));
    }
    at += length + 12;
  }
  return null;
}

function afterTags(data: Uint8Array, at: number): number {
  const language = data.indexOf(0, at);
  return data.indexOf(0, language + 1) + 1;
}

/** The comment is ASCII JSON; its end is found by its braces. */
function jsonIn(bytes: Uint8Array): string | null {
  const text = latin1(bytes.subarray(0, 200_000));
  const start = text.indexOf(MARK);
  if (start < 0) return null;
  let depth = 0;
  let isQuoted = false;
  for (let at = start; at < text.length; at++) {
    const letter = text[at];
    if (isQuoted && letter === "\\") at++;
    else if (letter === '"') isQuoted = !isQuoted;
    else if (!isQuoted && letter === "{") depth++;
    else if (!isQuoted && letter === "}" && --depth === 0) return text.slice(start, at + 1);
  }
  return null;
}

/** Anybody may have written it: what is not of its type is left out, and without what every picture has it is none. */
function parse(text: string): Recipe | null {
  let value: Record<string, unknown>;
  try {
    value = Object(parseJson<unknown>(text)) as Record<string, unknown>;
  } catch {
    return null;
  }
  const words = (name: string) => (typeof value[name] === "string" ? value[name] : undefined);
  const number = (name: string) => (typeof value[name] === "number" ? value[name] : undefined);
  const [width, height, steps, scheduler] = [number("width"), number("height"), number("num_inference_steps"), words("scheduler")];
  const seed = words("seed") ?? number("seed");
  if (!width || !height || !steps || !scheduler || !/^\d+$/.test(String(seed))) return null;
  return {
    model: words("model") ?? "",
    prompt: words("prompt") ?? "",
    negative_prompt: words("negative_prompt"),
    width,
    height,
    num_inference_steps: steps,
    scheduler,
    guidance_scale: number("guidance_scale"),
    true_cfg_scale: number("true_cfg_scale"),
    seed: seed ?? 0,
    strength: number("strength"),
    loras: Array.isArray(value["loras"]) ? value["loras"].filter(isLora) : undefined,
  };
}

function isLora(value: unknown): value is { name: string; scale: number } {
  const { name, scale } = Object(value) as Record<string, unknown>;
  return typeof name === "string" && typeof scale === "number";
}

function latin1(bytes: Uint8Array): string {
  return new TextDecoder("latin1").decode(bytes);
}

function utf8(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

const NAMES: [keyof Recipe, string][] = [
  ["prompt", "Prompt"],
  ["negative_prompt", "Negative prompt"],
  ["model", "Model"],
  ["seed", "Seed"],
  ["num_inference_steps", "Steps"],
  ["scheduler", "Scheduler"],
  ["guidance_scale", "Guidance"],
  ["true_cfg_scale", "True CFG"],
  ["strength", "Strength"],
  ["loras", "LoRAs"],
];

/** For people: name and text of whatever applies. */
export function rows(recipe: Recipe): [string, string][] {
  const size: [string, string] = ["Size", `${recipe.width} × ${recipe.height}`];
  const others = NAMES.flatMap(([field, name]): [string, string][] => {
    const value = recipe[field];
    if (value === undefined || value === null || value === "") return [];
    if (Array.isArray(value)) return value.length === 0 ? [] : [[name, value.map((each) => `${each.name} ${each.scale}`).join(", ")]];
    return [[name, String(value)]];
  });
  return [...others.slice(0, 2), size, ...others.slice(2)];
}
