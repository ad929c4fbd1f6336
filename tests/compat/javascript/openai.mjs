// Pictures by OpenAI's client and by the AI SDK, one JSON line each, for the base URL and the key in the environment.
import { createOpenAI } from "@ai-sdk/openai";
import { generateImage } from "ai";
import OpenAI, { toFile } from "openai";

const { URL: baseURL, KEY: apiKey, MODEL } = process.env;
const told = (from, base64) => console.log(JSON.stringify({ from, base64 }));

const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const drawn = await client.images.generate({ model: MODEL, prompt: "a fox", size: "64x96", response_format: "b64_json" });
told("generate", drawn.data[0].b64_json);

const upload = await toFile(Buffer.from(drawn.data[0].b64_json, "base64"), "fox.png", { type: "image/png" });
const edited = await client.images.edit({ model: MODEL, image: upload, prompt: "a tiger", response_format: "b64_json" });
told("edit", edited.data[0].b64_json);

const stream = await client.images.generate({ model: MODEL, prompt: "a fox", stream: true, partial_images: 1 });
for await (const event of stream) told(event.type, event.b64_json);

const { image } = await generateImage({
  model: createOpenAI({ baseURL, apiKey }).image(MODEL),
  prompt: "a fox",
  size: "96x64",
  providerOptions: { openai: { seed: 7 } },
});
told("ai-sdk", image.base64);
