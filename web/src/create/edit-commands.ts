/** The same for a picture that is changed: as a form, with its files beside it. */

import {
  curlKey,
  hubCall,
  hubFields,
  JAVASCRIPT_KEY,
  openaiCall,
  openaiFields,
  python,
  shell,
  toFiles,
  toFilesInJavaScript,
  type Body,
  type Language,
  type Server,
} from "./commands";
import { toJson } from "../api/json";

export interface EditFiles {
  picture: string;
  /** null: all of it is made anew. */
  mask: string | null;
}

/** Text, or why there is none. */
export function editCommandFor(language: Language, body: Body, files: EditFiles, server: Server): string | { lacks: string } {
  switch (language) {
    case "curl":
      return curl(body, files, server);
    case "Python (openai)":
      return openai(body, files, server);
    case "Python (huggingface_hub)":
      if (files.mask !== null) return { lacks: "The Hugging Face API has no mask; what is transparent in the picture itself is painted anew." };
      return hubCall("image_to_image", [python(files.picture), ...promptFirst(body)], server);
    case "JavaScript":
      return javaScript(body, files, server);
    case "CLI":
      return { lacks: "The command line makes pictures, and changes none." };
  }
}

function promptFirst(body: Body): string[] {
  const given = [`prompt=${python(body["prompt"])}`, ...hubFields(body), `strength=${python(body["strength"])}`];
  return body["loras"] === undefined ? given : [...given, `loras=${python(body["loras"])}`];
}

/** Fields of a form are texts; what is more than a word is JSON. */
function fieldsOf(body: Body): [string, string][] {
  return Object.entries(body).map(([name, value]) => [name, typeof value === "object" ? toJson(value) : String(value)]);
}

function curl(body: Body, { picture, mask }: EditFiles, { url, hasKey }: Server): string {
  const files = mask === null ? `-F image=@${picture}` : `-F image=@${picture} -F mask=@${mask}`;
  const fields = fieldsOf(body).map(([name, text]) => `  --form-string ${shell(`${name}=${text}`)} \\\n`);
  return `curl -s ${shell(`${url}/v1/images/edits`)}${curlKey(hasKey)} \\
${fields.join("")}  ${files} |
${toFiles(body)}`;
}

function openai(body: Body, { picture, mask }: EditFiles, server: Server): string {
  const files = [`image=open(${python(picture)}, "rb")`, ...(mask === null ? [] : [`mask=open(${python(mask)}, "rb")`])];
  const loras = body["loras"] === undefined ? {} : { loras: toJson(body["loras"]) };
  return openaiCall("edit", [...files, ...openaiFields({ ...body, ...loras })], body, server);
}

function javaScript(body: Body, files: EditFiles, { url, hasKey }: Server): string {
  const sent = Object.entries({ image: files.picture, mask: files.mask }).filter(([, name]) => name !== null);
  const key = hasKey ? `\n  headers: { authorization: ${JAVASCRIPT_KEY} },` : "";
  return `import { readFile, writeFile } from "node:fs/promises";

const form = new FormData();
for (const [name, value] of Object.entries(${JSON.stringify(Object.fromEntries(fieldsOf(body)), null, 2)})) form.set(name, value);
for (const [name, file] of Object.entries(${JSON.stringify(Object.fromEntries(sent))})) form.set(name, new Blob([await readFile(file)]), file);
const response = await fetch(${JSON.stringify(`${url}/v1/images/edits`)}, {
  method: "POST",${key}
  body: form,
});
${toFilesInJavaScript(body)}`;
}
