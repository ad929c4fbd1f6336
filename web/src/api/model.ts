/** What the served model can do, as `/app/model.json` tells it. */

import { json } from "./http";

export interface ParameterCard {
  name: string;
  type: string;
  default: string | number | null;
  minimum: number | null;
  maximum: number | null;
  multiple_of: number | null;
  values: Record<string, string>;
  has_effect: boolean;
  effect: string;
}

export interface ModelCard {
  safelight: string;
  name: string;
  version: string;
  description: string;
  license: string;
  guidance: "embedded" | "trained" | "none";
  parameters: ParameterCard[];
  max_pixels: number;
  max_images: number;
  qualities: Record<string, number>;
  loras: { name: string; scale: number }[];
  max_loras: number;
  max_lora_scale: number;
  examples: string[];
  is_endpoint: boolean;
}

export function loadModel(): Promise<ModelCard> {
  return json<ModelCard>("app/model.json");
}

export function parameter(model: ModelCard, name: string): ParameterCard {
  const found = model.parameters.find((each) => each.name === name);
  if (found === undefined) throw new Error(`the model tells nothing of ${name}`);
  return found;
}

export function numberOf(value: string | number | null, otherwise: number): number {
  return typeof value === "number" ? value : otherwise;
}
