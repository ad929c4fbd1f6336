/** A request as text that runs as it is. The key, where there is one, is read from SAFELIGHT_API_KEY. */

import { toJson } from "../api/json";

export const LANGUAGES = ["curl", "Python (openai)", "Python (huggingface_hub)", "JavaScript", "CLI"] as const;
export type Language = (typeof LANGUAGES)[number];

export interface Server {
  url: string;
  hasKey: boolean;
  model: string;
}

export type Body = Record<string, unknown>;

export function commandFor(language: Language, body: Body, server: Server): string {
  switch (language) {
    case "curl":
      return curl(body, server);
    case "Python (openai)":
      return openai(body, server);
    case "Python (huggingface_hub)":
      return huggingFace(body, server);
    case "JavaScript":
      return javaScript(body, server);
    case "CLI":
      return body["loras"] === undefined && server.model === EMBEDDED ? cli(body) : cliOverServer(body, server);
  }
}

function curl(body: Body, { url, hasKey }: Server): string {
  return `curl -s ${shell(`${url}/v1/images/generations`)}${curlKey(hasKey)} \\
  -H 'Content-Type: application/json' \\
  -d ${shell(toJson(body))} |
${toFiles(body)}`;
}

export function curlKey(hasKey: boolean): string {
  return hasKey ? ` \\\n  -H "Authorization: Bearer $SAFELIGHT_API_KEY"` : "";
}

/** The pictures of an answer that comes through a pipe. */
export function toFiles(body: Body): string {
  return `  python3 -c 'import base64, json, sys
for i, each in enumerate(json.load(sys.stdin)["data"]):
    open(f"picture-{i}.${extension(body)}", "wb").write(base64.b64decode(each["b64_json"]))'`;
}

const OPENAI_FIELDS = ["prompt", "n", "size", "output_format"];

function openai(body: Body, server: Server): string {
  return openaiCall("generate", openaiFields(body), body, server);
}

/** What its client does not know goes into `extra_body`. */
export function openaiFields(body: Body): string[] {
  const own = Object.entries(body).filter(([name]) => OPENAI_FIELDS.includes(name));
  const extra = Object.entries(body).filter(([name]) => !OPENAI_FIELDS.includes(name));
  const given = own.map(([name, value]) => `${name}=${python(value)}`);
  return extra.length > 0 ? [...given, `extra_body=${python(Object.fromEntries(extra))}`] : given;
}

export function openaiCall(method: string, given: string[], body: Body, { url, hasKey }: Server): string {
  return `import base64${hasKey ? "\nimport os" : ""}

from openai import OpenAI

client = OpenAI(base_url=${python(`${url}/v1`)}, api_key=${hasKey ? 'os.environ["SAFELIGHT_API_KEY"]' : '"none needed"'})
answer = client.images.${method}(
${given.map((each) => `    ${each},`).join("\n")}
)
for index, image in enumerate(answer.data):
    open(f"picture-{index}.${extension(body)}", "wb").write(base64.b64decode(image.b64_json))
`;
}

const HUB_FIELDS = ["negative_prompt", "num_inference_steps", "guidance_scale", "scheduler", "seed"];

function huggingFace(body: Body, server: Server): string {
  const given = hubFields(body);
  if (body["loras"] !== undefined) given.push(`extra_body=${python({ loras: body["loras"] })}`);
  return hubCall("text_to_image", [python(body["prompt"]), ...given], server);
}

export function hubFields(body: Body): string[] {
  const [width, height] = String(body["size"]).split("x");
  const others = HUB_FIELDS.filter((name) => body[name] !== undefined).map((name) => `${name}=${python(body[name])}`);
  return [`width=${width}`, `height=${height}`, ...others];
}

/** One picture at a time, as its API has it. */
export function hubCall(method: string, given: string[], { url, hasKey }: Server): string {
  return `${hasKey ? "import os\n\n" : ""}from huggingface_hub import InferenceClient

client = InferenceClient(model=${python(`${url}/predict`)}${hasKey ? ', token=os.environ["SAFELIGHT_API_KEY"]' : ""})
image = client.${method}(
${given.map((each) => `    ${each},`).join("\n")}
)
image.save("picture.png")
`;
}

function javaScript(body: Body, { url, hasKey }: Server): string {
  const text = toJson(body, 2);
  const isExact = typeof body["seed"] !== "bigint" || body["seed"] <= BigInt(Number.MAX_SAFE_INTEGER);
  const key = hasKey ? `\n    authorization: ${JAVASCRIPT_KEY},` : "";
  return `import { writeFile } from "node:fs/promises";

const response = await fetch(${JSON.stringify(`${url}/v1/images/generations`)}, {
  method: "POST",
  headers: {
    "content-type": "application/json",${key}
  },
  body: ${isExact ? `JSON.stringify(${text.replaceAll("\n", "\n  ")})` : JSON.stringify(toJson(body))},
});
${toFilesInJavaScript(body)}`;
}

export const JAVASCRIPT_KEY = "`Bearer ${process.env.SAFELIGHT_API_KEY}`";

export function toFilesInJavaScript(body: Body): string {
  return `if (!response.ok) throw new Error(await response.text());
const { data } = await response.json();
for (const [index, image] of data.entries()) {
  await writeFile(\`picture-\${index}.${extension(body)}\`, Buffer.from(image.b64_json, "base64"));
}
`;
}

/** Whoever has the command has its files. */
const EMBEDDED = "sprite";

function cli(body: Body): string {
  const [width, height] = String(body["size"]).split("x");
  const options: [string, unknown][] = [
    ["--width", width],
    ["--height", height],
    ["--steps", body["num_inference_steps"]],
    ["--negative-prompt", body["negative_prompt"]],
    ["--guidance-scale", body["guidance_scale"]],
    ["--scheduler", body["scheduler"]],
    ["--seed", body["seed"]],
    ["--n", body["n"]],
  ];
  const given = options.filter(([, value]) => value !== undefined).map(([name, value]) => ` ${name} ${shell(String(value))}`);
  return `safelight generate${given.join("")} -o picture.${extension(body)} -- ${shell(String(body["prompt"]))}`;
}

/** The server has the files of its model and of LoRAs; by itself the command would have to be told where they are. */
function cliOverServer(body: Body, { url }: Server): string {
  return `safelight generate --from - --server ${shell(url)} --out pictures << 'END'
${toJson(body)}
END
`;
}

function extension(body: Body): string {
  return String(body["output_format"] ?? "png");
}

export function shell(text: string): string {
  return /^[\w./:-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A JSON text is a Python literal, but for the three names. */
export function python(value: unknown): string {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "bigint") return String(value);
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object") {
    const entries = Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${python(each)}`);
    return `{${entries.join(", ")}}`;
  }
  return JSON.stringify(value);
}
