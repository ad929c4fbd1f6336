/** The key and the administrator's token: in memory, or in this tab's sessionStorage if asked. Never in a URL or cookie. */

export type Credential = "key" | "token";

const memory = new Map<Credential, string>();

function storageName(kind: Credential): string {
  return `safelight-${kind}`;
}

export function credential(kind: Credential): string | null {
  return memory.get(kind) ?? sessionStorage.getItem(storageName(kind));
}

export function remember(kind: Credential, secret: string, isKept: boolean): void {
  memory.set(kind, secret);
  if (isKept) sessionStorage.setItem(storageName(kind), secret);
  else sessionStorage.removeItem(storageName(kind));
}

export function forget(kind: Credential): void {
  memory.delete(kind);
  sessionStorage.removeItem(storageName(kind));
}
