/** `/metrics` in Prometheus's text format, as far as this server writes it. */

import { send } from "./http";

export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

export async function loadMetrics(): Promise<Sample[]> {
  return parseMetrics(await (await send("metrics", { accept: "text/plain" })).text());
}

export function parseMetrics(text: string): Sample[] {
  return text.split("\n").flatMap((line) => {
    const match = /^([a-z_]+)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!match) return [];
    const labels = Object.fromEntries([...(match[2] ?? "").matchAll(/(\w+)="([^"]*)"/g)].map((each) => [each[1], each[2]]));
    return [{ name: match[1] ?? "", labels, value: match[3] === "+Inf" ? Infinity : Number(match[3]) }];
  });
}

export function total(samples: Sample[], name: string, isCounted: (labels: Sample["labels"]) => boolean = () => true): number {
  return samples.filter((each) => each.name === name && isCounted(each.labels)).reduce((sum, each) => sum + each.value, 0);
}
