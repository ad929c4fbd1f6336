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
  const text = PNG.every((byte, index) => bytes[index] === byte) ? pngText(bytes) : jsonIn(bytes);
  return text === null ? null : parse(text);
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

function parse(text: string): Recipe | null {
  try {
    const value = parseJson<Recipe>(text);
    if (typeof value.width !== "number" || !/^-?\d+$/.test(String(value.seed))) return null;
    return { ...value, prompt: value.prompt ?? "" };
  } catch {
    return null;
  }
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
    if (Array.isArray(value)) return [[name, value.map((each) => `${each.name} ${each.scale}`).join(", ")]];
    return [[name, String(value)]];
  });
  return [...others.slice(0, 2), size, ...others.slice(2)];
}
