import { useState } from "preact/hooks";

import { copy } from "./clipboard";

/** Says what came of it, for as long as the text stays the same. */
export function CopyButton({ text }: { text: string }) {
  const [done, setDone] = useState<{ text: string; isCopied: boolean }>();
  const words = done?.text !== text ? "Copy" : done.isCopied ? "Copied" : "Not copied: select the text";
  return (
    <button type="button" onClick={() => void copy(text).then((isCopied) => setDone({ text, isCopied }))}>
      {words}
    </button>
  );
}
