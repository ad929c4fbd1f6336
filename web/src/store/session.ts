/** The key and the administrator's token: in memory, or in this tab's sessionStorage if asked. Never in a URL or cookie. */

import { useEffect, useState } from "preact/hooks";

import * as tab from "./tab";

export type Credential = "key" | "token";

const memory = new Map<Credential, string>();
const watchers = new Set<() => void>();

function storageName(kind: Credential): string {
  return `safelight-${kind}`;
}

export function credential(kind: Credential): string | null {
  return memory.get(kind) ?? tab.read(storageName(kind));
}

export function remember(kind: Credential, secret: string, isKept: boolean): void {
  memory.set(kind, secret);
  if (isKept) tab.write(storageName(kind), secret);
  else tab.remove(storageName(kind));
  tell();
}

export function forget(kind: Credential): void {
  memory.delete(kind);
  tab.remove(storageName(kind));
  tell();
}

function tell(): void {
  for (const each of watchers) each();
}

/** The credential, and whoever asks is drawn anew when it changes. */
export function useCredential(kind: Credential): string | null {
  const [secret, setSecret] = useState(credential(kind));
  useEffect(() => {
    const update = () => setSecret(credential(kind));
    watchers.add(update);
    return () => void watchers.delete(update);
  }, [kind]);
  return secret;
}
