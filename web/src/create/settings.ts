/** What the form holds, and what is sent of it: only what the model has, and only what was changed where that is told. */

import { numberOf, parameter, type ModelCard } from "../api/model";
import type { Recipe } from "./recipe";

export interface Settings {
  prompt: string;
  negativePrompt: string;
  width: number;
  height: number;
  steps: number;
  scheduler: string;
  /** Empty: the model's own. */
  guidance: string;
  /** Empty: drawn. */
  seed: string;
  isSeedLocked: boolean;
  n: number;
  loras: Record<string, number>;
  strength: number;
  format: "png" | "jpeg" | "webp";
}

export function startingSettings(model: ModelCard): Settings {
  return {
    prompt: "",
    negativePrompt: "",
    width: numberOf(parameter(model, "width").default, 1024),
    height: numberOf(parameter(model, "height").default, 1024),
    steps: numberOf(parameter(model, "num_inference_steps").default, 4),
    scheduler: String(parameter(model, "scheduler").default ?? ""),
    guidance: "",
    seed: "",
    isSeedLocked: false,
    n: 1,
    loras: {},
    strength: 0.6,
    format: "png",
  };
}

export function settingsOf(recipe: Recipe, before: Settings, model: ModelCard): Settings {
  return {
    ...before,
    prompt: recipe.prompt,
    negativePrompt: recipe.negative_prompt ?? "",
    width: recipe.width,
    height: recipe.height,
    steps: recipe.num_inference_steps,
    scheduler: recipe.scheduler,
    guidance: guidanceOf(recipe, model),
    seed: String(recipe.seed),
    isSeedLocked: true,
    n: 1,
    loras: Object.fromEntries((recipe.loras ?? []).map((each) => [each.name, each.scale])),
    strength: recipe.strength ?? before.strength,
  };
}

/** Fields of the request, beside stream and images. */
export function toBody(settings: Settings, model: ModelCard): Record<string, unknown> {
  const body: Record<string, unknown> = { prompt: settings.prompt };
  if (settings.n !== 1) body["n"] = settings.n;
  body["size"] = `${settings.width}x${settings.height}`;
  if (settings.steps !== parameter(model, "num_inference_steps").default) body["num_inference_steps"] = settings.steps;
  if (settings.scheduler !== parameter(model, "scheduler").default) body["scheduler"] = settings.scheduler;
  if (settings.negativePrompt !== "") body["negative_prompt"] = settings.negativePrompt;
  if (settings.guidance !== "") body["guidance_scale"] = Number(settings.guidance);
  if (settings.seed !== "") body["seed"] = /^-?\d+$/.test(settings.seed) ? BigInt(settings.seed) : Number(settings.seed);
  if (settings.format !== "png") body["output_format"] = settings.format;
  const loras = Object.entries(settings.loras).map(([name, scale]) => ({ name, scale }));
  if (loras.length > 0) body["loras"] = loras;
  return body;
}

/** What `guidance_scale` must be to get the recipe again. */
function guidanceOf(recipe: Recipe, model: ModelCard): string {
  const scale = model.guidance === "embedded" ? recipe.guidance_scale : recipe.true_cfg_scale;
  const isDefault = scale === undefined || scale === parameter(model, "guidance_scale").default || scale === 1;
  return isDefault ? "" : String(scale);
}

/** Below 2^32, as the server draws them. */
export function drawSeed(): string {
  return String(crypto.getRandomValues(new Uint32Array(1))[0] ?? 0);
}
