import { useCallback, useEffect, useState } from "preact/hooks";

import { listConnections, listDeployments, listEndpoints, type Deployment, type Endpoint } from "../api/arm";
import { ApiError, messageOf } from "../api/http";
import { SignIn } from "../parts/sign-in";
import { usePoll } from "../parts/use-poll";
import { forget, useCredential } from "../store/session";
import { KeysPanel } from "./keys";
import { Logs } from "./logs";
import { ReplicaList } from "./replicas";
import { Traffic } from "./traffic";

interface Managed {
  endpoint: Endpoint;
  deployments: Deployment[];
}

interface State {
  managed: Managed[];
  connections: string[];
}

const POLL_MS = 5000;

async function loadState(): Promise<State> {
  const [endpoints, connections] = await Promise.all([listEndpoints(), listConnections()]);
  const managed = endpoints.map(async (endpoint) => ({ endpoint, deployments: await listDeployments(endpoint.name) }));
  return { managed: await Promise.all(managed), connections: connections.map((each) => each.name) };
}

export function Endpoints() {
  const [state, setState] = useState<State>();
  const token = useCredential("token");
  const [needsToken, setNeedsToken] = useState(token === null);
  const [error, setError] = useState<string>();
  const load = useCallback(async () => {
    setState(await loadState());
    setNeedsToken(false);
    setError(undefined);
  }, []);
  useEffect(() => {
    if (token === null) setNeedsToken(true);
  }, [token]);
  const refresh = () =>
    load().catch((failure: unknown) => {
      if (failure instanceof ApiError && (failure.status === 401 || failure.status === 403)) {
        forget("token");
        setNeedsToken(true);
      } else setError(messageOf(failure));
    });
  return needsToken ? <SignIn kind="token" check={load} /> : <EndpointList {...{ state, error, refresh }} />;
}

interface EndpointListProps {
  state: State | undefined;
  error: string | undefined;
  refresh: () => Promise<void>;
}

function EndpointList({ state, error, refresh }: EndpointListProps) {
  usePoll(refresh, POLL_MS);
  return (
    <section aria-label="Endpoints">
      <h2>Endpoints</h2>
      {error && <p class="note error" role="alert">{error}</p>}
      {state?.managed.length === 0 && <p class="quiet">There is none yet; `safelight online-endpoint create` makes one.</p>}
      {state?.managed.map((each) => <EndpointCard key={each.endpoint.name} {...each} onChanged={() => void refresh()} />)}
      {state && state.connections.length > 0 && (
        <>
          <h2>Connections</h2>
          <ul class="plain">
            {state.connections.map((name) => (
              <li key={name}>{name}</li>
            ))}
          </ul>
        </>
      )}
    </section>
  );
}

function EndpointCard({ endpoint, deployments, onChanged }: Managed & { onChanged: () => void }) {
  const { provisioningState, scoringUri, authMode, traffic } = endpoint.properties;
  return (
    <article class="card endpoint" aria-label={endpoint.name}>
      <h3>
        {endpoint.name} <StateWord state={provisioningState} />
      </h3>
      <p class="quiet break">{scoringUri}</p>
      {deployments.map((each) => (
        <div class="deployment" key={each.name} role="group" aria-label={each.name}>
          <p>
            <strong>{each.name}</strong> <StateWord state={each.properties.provisioningState} />
            <span class="quiet">
              {` ${each.properties.model} · ${each.sku.capacity} ${each.sku.capacity === 1 ? "replica" : "replicas"}`}
            </span>
          </p>
          {each.properties.provisioningError && <p class="note error">{each.properties.provisioningError.message}</p>}
          <ReplicaList replicas={each.properties.replicas} />
          <Logs endpoint={endpoint.name} deployment={each.name} />
        </div>
      ))}
      {deployments.length > 0 && (
        <Traffic
          key={JSON.stringify(traffic)}
          endpoint={endpoint.name}
          names={deployments.map((each) => each.name)}
          traffic={traffic}
          onChanged={onChanged}
        />
      )}
      {authMode === "Key" && <KeysPanel endpoint={endpoint.name} />}
    </article>
  );
}

function StateWord({ state }: { state: string }) {
  const kind = state === "Succeeded" ? "good" : state === "Failed" ? "bad" : "";
  return <span class={`state ${kind}`}>{state}</span>;
}
