/** Where what the server says belongs: beside the field that it names. */

import type { Notes } from "../parts/field";

export type FieldName =
  | "prompt"
  | "negative_prompt"
  | "size"
  | "num_inference_steps"
  | "guidance_scale"
  | "scheduler"
  | "seed"
  | "n"
  | "loras"
  | "image"
  | "form";

const NAMES: Record<string, FieldName> = {
  prompt: "prompt",
  negative_prompt: "negative_prompt",
  size: "size",
  width: "size",
  height: "size",
  num_inference_steps: "num_inference_steps",
  quality: "num_inference_steps",
  guidance_scale: "guidance_scale",
  true_cfg_scale: "guidance_scale",
  scheduler: "scheduler",
  seed: "seed",
  n: "n",
  num_images_per_prompt: "n",
  loras: "loras",
  lora: "loras",
  image: "image",
  images: "image",
  mask: "image",
  strength: "image",
};

export type AllNotes = { [name in FieldName]?: Notes };

export function errorNotes(message: string, param: string | null): AllNotes {
  return { [NAMES[param ?? ""] ?? "form"]: { error: message } };
}

export function warningNotes(warnings: string[]): AllNotes {
  const notes: AllNotes = {};
  for (const warning of warnings) {
    const name = NAMES[/^\w+/.exec(warning)?.[0] ?? ""] ?? "form";
    const before = notes[name]?.warning;
    notes[name] = { warning: before === undefined ? warning : `${before}\n${warning}` };
  }
  return notes;
}
