import { useState } from "preact/hooks";

import { rotateKey, showKeys, type Keys } from "../api/arm";
import { messageOf } from "../api/http";
import { CopyButton } from "../parts/copy-button";
import { NoteLines } from "../parts/field";

/** Shown when asked for. */
export function KeysPanel({ endpoint }: { endpoint: string }) {
  const [keys, setKeys] = useState<Keys | null>(null);
  const [error, setError] = useState<string>();
  const take = (asked: Promise<Keys>) => {
    setError(undefined);
    asked.then(setKeys, (failure: unknown) => setError(messageOf(failure)));
  };
  return (
    <div class="keys">
      <button aria-expanded={keys !== null} onClick={() => (keys === null ? take(showKeys(endpoint)) : setKeys(null))}>
        {keys === null ? "Show the keys" : "Hide the keys"}
      </button>
      {keys !== null && (
        <>
          <KeyRow name="Primary" secret={keys.primaryKey} onRotate={() => take(rotateKey(endpoint, "Primary"))} />
          <KeyRow name="Secondary" secret={keys.secondaryKey} onRotate={() => take(rotateKey(endpoint, "Secondary"))} />
        </>
      )}
      <NoteLines id={`keys-${endpoint}`} notes={{ error }} />
    </div>
  );
}

interface KeyRowProps {
  name: string;
  secret: string;
  onRotate: () => void;
}

function KeyRow({ name, secret, onRotate }: KeyRowProps) {
  const [isSure, setSure] = useState(false);
  return (
    <div class="row key" role="group" aria-label={`${name} key`}>
      <span>{name}</span>
      <code>{secret}</code>
      <CopyButton text={secret} />
      <button
        onClick={() => {
          if (isSure) onRotate();
          setSure(!isSure);
        }}
      >
        {isSure ? "Rotate: clients with it are locked out" : "Rotate"}
      </button>
    </div>
  );
}
