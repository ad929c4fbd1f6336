import { useLayoutEffect, useRef, useState } from "preact/hooks";

import { readLogs } from "../api/arm";
import { messageOf } from "../api/http";
import { NoteLines } from "../parts/field";
import { usePoll } from "../parts/use-poll";

const POLL_MS = 2000;
const NEAR_PX = 8;

export function Logs({ endpoint, deployment }: { endpoint: string; deployment: string }) {
  const [isOpen, setOpen] = useState(false);
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>Logs</summary>
      {isOpen && <Tail endpoint={endpoint} deployment={deployment} />}
    </details>
  );
}

function Tail({ endpoint, deployment }: { endpoint: string; deployment: string }) {
  const [text, setText] = useState("");
  const [error, setError] = useState<string>();
  const box = useRef<HTMLPreElement>(null);
  const isAtEnd = useRef(true);
  const take = (found: string) => {
    const shown = box.current;
    isAtEnd.current = shown === null || shown.scrollTop + shown.clientHeight >= shown.scrollHeight - NEAR_PX;
    setText(found);
    setError(undefined);
  };
  usePoll(() => readLogs(endpoint, deployment).then(take, (failure: unknown) => setError(messageOf(failure))), POLL_MS);
  useLayoutEffect(() => {
    if (box.current && isAtEnd.current) box.current.scrollTop = box.current.scrollHeight;
  }, [text]);
  return (
    <>
      <pre ref={box} class="logs" tabIndex={0} role="log" aria-label={`Logs of ${deployment}`}>
        {text || "Nothing yet."}
      </pre>
      <NoteLines id={`logs-${endpoint}-${deployment}`} notes={{ error }} />
    </>
  );
}
