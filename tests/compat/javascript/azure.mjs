// A picture by the AI SDK's Azure provider at each of its two paths, one JSON line each.
import { createAzure } from "@ai-sdk/azure";
import { generateImage } from "ai";

const { URL: url, KEY: apiKey, MODEL } = process.env;

for (const [path, useDeploymentBasedUrls] of [["/openai/v1", false], ["/openai", true]]) {
  const azure = createAzure({ baseURL: url + path, apiKey, useDeploymentBasedUrls });
  const { image } = await generateImage({ model: azure.image(MODEL), prompt: "a fox", size: "64x96", maxRetries: 0 });
  console.log(JSON.stringify({ from: path, base64: image.base64 }));
}
