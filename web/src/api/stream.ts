/** Pictures over the OpenAI API, told while they develop: server-sent events read from fetch. */

import { ApiError, parseError, send } from "./http";
import { parseJson } from "./json";

export interface Preview {
  kind: "partial";
  image_index: number;
  b64_json: string;
  output_format: string;
}

export interface Step {
  kind: "step";
  image_index: number;
  step_index: number;
  num_steps: number;
}

export interface Completed {
  kind: "completed";
  image_index: number;
  b64_json: string;
  output_format: string;
  /** A string where a number would lose digits. */
  seed: number | string;
  warnings: string[];
  parameters: Record<string, unknown>;
}

export interface Queued {
  kind: "queued";
  /** 1 is the next. */
  position: number;
}

export type PictureEvent = Preview | Step | Completed | Queued;

export async function* pictures(
  path: string,
  body: Record<string, unknown>,
  signal: AbortSignal,
): AsyncGenerator<PictureEvent> {
  const response = await send(path, { method: "POST", body, accept: "text/event-stream", signal });
  if (response.body === null) throw new ApiError(response.status, "The answer has no body.");
  for await (const [name, data] of frames(response.body)) {
    if (name === "error") throw parseError(500, data);
    const kind = name.split(".")[1];
    const event = parseJson<PictureEvent>(data);
    if (kind === "partial_image") yield { ...(event as Preview), kind: "partial" };
    else if (kind === "queued") yield { ...(event as Queued), kind: "queued" };
    else if (kind === "step") yield { ...(event as Step), kind: "step" };
    else if (kind === "completed") yield { ...(event as Completed), kind: "completed" };
  }
}

async function* frames(body: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<[string, string]> {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let parts: string[] = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    if (!value.includes("\n")) {
      parts.push(value);
      continue;
    }
    const whole = (parts.join("") + value).split("\n\n");
    parts = [whole.pop() ?? ""];
    for (const frame of whole) {
      const parsed = parseFrame(frame);
      if (parsed !== null) yield parsed;
    }
  }
}

function parseFrame(frame: string): [string, string] | null {
  let name = "message";
  const data: string[] = [];
  for (const line of frame.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    else if (line.startsWith("data: ")) data.push(line.slice(6));
  }
  return data.length === 0 ? null : [name, data.join("\n")];
}

export function toBlob(base64: string, format: string): Blob {
  const bytes = Uint8Array.from(atob(base64), (each) => each.charCodeAt(0));
  return new Blob([bytes], { type: `image/${format}` });
}

export function toDataUrl(blob: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}
