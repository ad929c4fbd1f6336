/** A request as text that runs as it is. The key, where there is one, is read from SAFELIGHT_API_KEY. */

export const LANGUAGES = ["curl", "Python (openai)", "Python (huggingface_hub)", "JavaScript", "CLI"] as const;
export type Language = (typeof LANGUAGES)[number];

interface Server {
  url: string;
  hasKey: boolean;
  model: string;
}

type Body = Record<string, unknown>;

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
      return cli(body, server);
  }
}

function curl(body: Body, { url, hasKey }: Server): string {
  const key = hasKey ? ` \\\n  -H "Authorization: Bearer $SAFELIGHT_API_KEY"` : "";
  return `curl -s ${shell(`${url}/v1/images/generations`)}${key} \\
  -H 'Content-Type: application/json' \\
  -d ${shell(JSON.stringify(body))} |
  python3 -c 'import base64, json, sys
for i, each in enumerate(json.load(sys.stdin)["data"]):
    open(f"picture-{i}.${extension(body)}", "wb").write(base64.b64decode(each["b64_json"]))'`;
}

const OPENAI_FIELDS = ["prompt", "n", "size", "output_format"];

function openai(body: Body, server: Server): string {
  const own = Object.entries(body).filter(([name]) => OPENAI_FIELDS.includes(name));
  const extra = Object.entries(body).filter(([name]) => !OPENAI_FIELDS.includes(name));
  const given = own.map(([name, value]) => `    ${name}=${python(value)},`);
  if (extra.length > 0) given.push(`    extra_body=${python(Object.fromEntries(extra))},`);
  return `import base64${server.hasKey ? "\nimport os" : ""}

from openai import OpenAI

client = OpenAI(base_url=${python(`${server.url}/v1`)}, api_key=${server.hasKey ? 'os.environ["SAFELIGHT_API_KEY"]' : '"none needed"'})
answer = client.images.generate(
${given.join("\n")}
)
for index, image in enumerate(answer.data):
    open(f"picture-{index}.${extension(body)}", "wb").write(base64.b64decode(image.b64_json))
`;
}

const HUB_FIELDS = ["negative_prompt", "num_inference_steps", "guidance_scale", "scheduler", "seed"];

/** One picture at a time, as its API has it. */
function huggingFace(body: Body, { url, hasKey }: Server): string {
  const [width, height] = String(body["size"]).split("x");
  const given = HUB_FIELDS.filter((name) => body[name] !== undefined).map((name) => `    ${name}=${python(body[name])},`);
  if (body["loras"] !== undefined) given.push(`    extra_body=${python({ loras: body["loras"] })},`);
  const key = hasKey ? ', token=os.environ["SAFELIGHT_API_KEY"]' : "";
  return `${hasKey ? "import os\n\n" : ""}from huggingface_hub import InferenceClient

client = InferenceClient(model=${python(`${url}/predict`)}${key})
image = client.text_to_image(
    ${python(body["prompt"])},
    width=${width},
    height=${height},
${given.map((each) => `${each}\n`).join("")})
image.save("picture.png")
`;
}

function javaScript(body: Body, { url, hasKey }: Server): string {
  const key = hasKey ? "\n    authorization: `Bearer ${process.env.SAFELIGHT_API_KEY}`," : "";
  return `import { writeFile } from "node:fs/promises";

const response = await fetch(${JSON.stringify(`${url}/v1/images/generations`)}, {
  method: "POST",
  headers: {
    "content-type": "application/json",${key}
  },
  body: JSON.stringify(${JSON.stringify(body, null, 2).replaceAll("\n", "\n  ")}),
});
if (!response.ok) throw new Error(await response.text());
const { data } = await response.json();
for (const [index, image] of data.entries()) {
  await writeFile(\`picture-\${index}.${extension(body)}\`, Buffer.from(image.b64_json, "base64"));
}
`;
}

function cli(body: Body, { model }: Server): string {
  const [width, height] = String(body["size"]).split("x");
  const options: [string, unknown][] = [
    ["--model", model === "sprite" ? undefined : model],
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

function extension(body: Body): string {
  return String(body["output_format"] ?? "png");
}

function shell(text: string): string {
  return /^[\w./:-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A JSON text is a Python literal, but for the three names. */
function python(value: unknown): string {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object") {
    const entries = Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${python(each)}`);
    return `{${entries.join(", ")}}`;
  }
  return JSON.stringify(value);
}
