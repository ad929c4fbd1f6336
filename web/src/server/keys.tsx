import { useState } from "preact/hooks";

import { rotateKey, showKeys, type Keys } from "../api/arm";
import { messageOf } from "../api/http";
import { copy } from "../parts/clipboard";
import { NoteLines } from "../parts/field";

/** Shown when asked for. */
export function KeysPanel({ endpoint }: { endpoint: string }) {
  const [keys, setKeys] = useState<Keys | null>(null);
  const [error, setError] = useState<string>();
  const take = (asked: Promise<Keys>) => void asked.then(setKeys, (failure: unknown) => setError(messageOf(failure)));
  return (
    <div class="keys">
      {keys === null ? (
        <button onClick={() => take(showKeys(endpoint))}>Show the keys</button>
      ) : (
        <>
          <KeyRow name="Primary" secret={keys.primaryKey} onRotate={() => take(rotateKey(endpoint, "Primary"))} />
          <KeyRow name="Secondary" secret={keys.secondaryKey} onRotate={() => take(rotateKey(endpoint, "Secondary"))} />
          <button onClick={() => setKeys(null)}>Hide the keys</button>
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
  const [isCopied, setCopied] = useState(false);
  return (
    <div class="row key">
      <span>{name}</span>
      <code>{secret}</code>
      <button onClick={() => void copy(secret).then(setCopied)}>{isCopied ? "Copied" : "Copy"}</button>
      <button
        onClick={() => {
          if (isSure) onRotate();
          setSure(!isSure);
          setCopied(false);
        }}
      >
        {isSure ? "Rotate: clients with it are locked out" : "Rotate"}
      </button>
    </div>
  );
}
