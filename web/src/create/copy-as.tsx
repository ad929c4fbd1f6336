import { useState } from "preact/hooks";

import { ROOT } from "../api/http";
import { copy } from "../parts/clipboard";
import { credential } from "../store/session";
import { commandFor, LANGUAGES, type Language } from "./commands";

/** The same request, for a terminal or a program. */
export function CopyAs({ body, model }: { body: Record<string, unknown>; model: string }) {
  const [language, setLanguage] = useState<Language>("curl");
  const [isCopied, setCopied] = useState(false);
  const text = commandFor(language, body, { url: ROOT.href.replace(/\/$/, ""), hasKey: credential("key") !== null, model });
  return (
    <details class="copy-as">
      <summary>Copy as code</summary>
      <div class="chips" role="group" aria-label="Language">
        {LANGUAGES.map((each) => (
          <button
            type="button"
            aria-pressed={each === language}
            onClick={() => {
              setLanguage(each);
              setCopied(false);
            }}
          >
            {each}
          </button>
        ))}
      </div>
      <pre tabIndex={0}>{text}</pre>
      <button type="button" onClick={() => void copy(text).then(setCopied)}>
        {isCopied ? "Copied" : "Copy"}
      </button>
    </details>
  );
}
