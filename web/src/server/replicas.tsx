import { useEffect, useState } from "preact/hooks";

import { ROOT } from "../api/http";
import { credential } from "../store/session";

interface Health {
  ready: boolean;
  cause?: string | null;
  storage?: string | null;
  replicas?: { name: string; state: string; detail: string | null; pid: number | null; restarts: number }[];
}

const POLL_MS = 3000;

export function Replicas() {
  const [health, setHealth] = useState<Health | null>(null);
  useEffect(() => {
    const ask = () => void loadHealth().then(setHealth, () => setHealth({ ready: false, cause: "the server does not answer" }));
    ask();
    const timer = setInterval(ask, POLL_MS);
    return () => clearInterval(timer);
  }, []);
  if (health === null) return null;
  return (
    <section class="card">
      <h2>
        Replicas <span class={health.ready ? "state good" : "state bad"}>{health.ready ? "ready" : (health.cause ?? "not ready")}</span>
      </h2>
      {health.storage && <p class="note warning">{health.storage}</p>}
      <ul class="plain">
        {health.replicas?.map((each) => (
          <li key={each.name}>
            <strong>{each.name}</strong> {each.state}
            <span class="quiet">
              {each.pid !== null && ` · process ${each.pid}`}
              {each.restarts > 0 && ` · started again ${each.restarts} times`}
              {each.detail && ` · ${each.detail}`}
            </span>
          </li>
        ))}
      </ul>
    </section>
  );
}

/** 503 tells as much as 200. */
async function loadHealth(): Promise<Health> {
  const key = credential("key");
  const headers: Record<string, string> = key === null ? {} : { authorization: `Bearer ${key}` };
  return (await (await fetch(new URL("health/ready", ROOT), { headers, cache: "no-store" })).json()) as Health;
}
