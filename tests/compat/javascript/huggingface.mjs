// What each answer of `@huggingface/inference` is, one JSON line each, for the URL and the key in the environment.
import { InferenceClient } from "@huggingface/inference";

const { URL: endpointUrl, KEY, USER_AGENT } = process.env;

// A browser sends its own User-Agent, whatever the client sets.
const fetchAsBrowser = (url, info) => fetch(url, { ...info, headers: { ...info.headers, "User-Agent": USER_AGENT } });
const options = { retry_on_error: false, ...(USER_AGENT ? { fetch: fetchAsBrowser } : {}) };

const told = async (ask) => {
  try {
    const answer = await ask();
    const bytes = Buffer.from(await answer.arrayBuffer());
    console.log(JSON.stringify({ type: answer.type, base64: bytes.toString("base64") }));
    return answer;
  } catch (error) {
    console.log(JSON.stringify({ error: error.message }));
  }
};

const client = new InferenceClient(KEY, { endpointUrl });
const size = { width: 64, height: 96, seed: 7 };
const picture = await told(() => client.textToImage({ inputs: "a fox", parameters: size }, options));
await told(() => client.imageToImage({ inputs: picture ?? new Blob(), parameters: { prompt: "a tiger" } }, options));
await told(() => client.textToImage({ inputs: "a fox", parameters: { width: 65 } }, options));
await told(() => new InferenceClient("wrong", { endpointUrl }).textToImage({ inputs: "a fox" }, options));
