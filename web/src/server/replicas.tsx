import { useState } from "preact/hooks";

import type { Replica } from "../api/arm";
import { PATIENCE_MS, ROOT } from "../api/http";
import { usePoll } from "../parts/use-poll";
import { credential } from "../store/session";

interface Health {
  ready: boolean;
  cause?: string | null;
  storage?: string | null;
  replicas?: Replica[];
}

const POLL_MS = 3000;

export function Replicas() {
  const [health, setHealth] = useState<Health | null>(null);
  usePoll(() => loadHealth().then(setHealth, () => setHealth({ ready: false, cause: "the server does not answer" })), POLL_MS);
  if (health === null) return null;
  return (
    <section class="card">
      <h2>
        Replicas <span class={health.ready ? "state good" : "state bad"}>{health.ready ? "ready" : (health.cause ?? "not ready")}</span>
      </h2>
      {health.storage && <p class="note warning">{health.storage}</p>}
      <ReplicaList replicas={health.replicas ?? []} />
    </section>
  );
}

export function ReplicaList({ replicas }: { replicas: Replica[] }) {
  if (replicas.length === 0) return null;
  return (
    <ul class="plain">
      {replicas.map((each) => (
        <li key={each.name}>
          <strong>{each.name}</strong> {each.state}
          <span class="quiet break">
            {[
              ...whereabouts(each),
              each.restarts > 0 && `started again ${each.restarts === 1 ? "once" : `${each.restarts} times`}`,
              each.detail,
            ]
              .filter(Boolean)
              .map((text) => ` · ${text}`)}
          </span>
        </li>
      ))}
    </ul>
  );
}

const OTHERS = new Set(["name", "state", "detail", "restarts"]);

/** What a backend tells of where a replica runs, in its words; one that is elsewhere has no process here. */
function whereabouts(replica: Replica): string[] {
  const told = Object.entries(replica).filter(([name, value]) => !OTHERS.has(name) && value !== null && value !== "");
  return told.map(([name, value]) => `${name === "pid" ? "process" : name.replaceAll("_", " ")} ${value}`);
}

/** 503 tells as much as 200. */
async function loadHealth(): Promise<Health> {
  const key = credential("key");
  const headers: Record<string, string> = key === null ? {} : { authorization: `Bearer ${key}` };
  const options: RequestInit = { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) };
  return (await (await fetch(new URL("health/ready", ROOT), options)).json()) as Health;
}
