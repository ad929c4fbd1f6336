import { useCallback, useEffect, useState } from "preact/hooks";

import { ApiError, messageOf, ROOT } from "./api/http";
import { loadModel, type ModelCard } from "./api/model";
import { Playground } from "./create/playground";
import { SignIn } from "./parts/sign-in";
import { collectMetrics, forgetMetrics } from "./server/history";
import { ServerTab } from "./server/tab";
import { forget, useCredential } from "./store/session";

type View = "create" | "server";

function viewOf(hash: string): View {
  return hash === "#server" ? "server" : "create";
}

export function App() {
  const [model, setModel] = useState<ModelCard>();
  const [needsKey, setNeedsKey] = useState(false);
  const [error, setError] = useState<string>();
  const [key, token] = [useCredential("key"), useCredential("token")];
  const isSignedIn = key !== null || token !== null;
  /** Who has come to make pictures with one endpoint sees no more of the server, until the administrator signs in. */
  const isAdministrators = model?.is_endpoint === true && token === null;
  const isWatching = model !== undefined && !needsKey && !isAdministrators;
  const [view, setView] = useState<View>(viewOf(location.hash));

  const load = useCallback(async () => {
    setModel(await loadModel());
    setNeedsKey(false);
    setError(undefined);
  }, []);

  const refuse = useCallback((failure: unknown) => {
    if (failure instanceof ApiError && failure.status === 401) setNeedsKey(true);
    else setError(messageOf(failure));
  }, []);

  useEffect(() => void load().catch(refuse), [load, refuse]);
  useEffect(() => (isWatching ? collectMetrics() : undefined), [isWatching]);
  useEffect(() => {
    const follow = () => setView(viewOf(location.hash));
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);

  function signOut() {
    forget("key");
    forget("token");
    forgetMetrics();
    setModel(undefined);
    load().catch(refuse);
  }

  return (
    <>
      <header class="top">
        <a class="brand" href="#create">
          <span class="lamp" aria-hidden="true" />
          <h1>Safelight</h1>
        </a>
        {model && <span class="model-name">{model.name}</span>}
        <nav aria-label="Views">
          <a href="#create" aria-current={view === "create" ? "page" : undefined}>
            Create
          </a>
          {!isAdministrators && (
            <a href="#server" aria-current={view === "server" ? "page" : undefined}>
              Server
            </a>
          )}
          <a href={new URL("docs", ROOT).href}>API</a>
          {isSignedIn && (
            <button class="link" onClick={signOut}>
              Sign out
            </button>
          )}
        </nav>
      </header>
      <main>
        {error && (
          <p class="note error wide" role="alert">
            {error}{" "}
            <button onClick={() => void load().catch(refuse)}>Try again</button>
          </p>
        )}
        {needsKey && <SignIn kind="key" check={load} />}
        {model && (
          <div hidden={view !== "create" || needsKey}>
            <Playground key={`${model.name} ${model.version}`} model={model} onUnauthorized={() => setNeedsKey(true)} />
          </div>
        )}
        {view === "server" && (
          <ServerTab isAdministrators={isAdministrators || needsKey} onUnauthorized={() => setNeedsKey(true)} />
        )}
      </main>
    </>
  );
}
