import { useEffect, useRef, useState } from "preact/hooks";

import { readLogs } from "../api/arm";
import { messageOf } from "../api/http";

const POLL_MS = 2000;

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
  const box = useRef<HTMLPreElement>(null);
  useEffect(() => {
    const ask = () => void readLogs(endpoint, deployment).then(setText, (failure: unknown) => setText(messageOf(failure)));
    ask();
    const timer = setInterval(ask, POLL_MS);
    return () => clearInterval(timer);
  }, []);
  useEffect(() => {
    if (box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [text]);
  return (
    <pre ref={box} class="logs" tabIndex={0}>
      {text || "Nothing yet."}
    </pre>
  );
}
