/** The control plane, by the routes that the command line uses. */

import { json, send, SERVER } from "./http";

const WORKSPACE =
  "subscriptions/local/resourceGroups/local/providers/Microsoft.MachineLearningServices/workspaces/local";
const VERSION = "?api-version=2024-10-01";

export interface Endpoint {
  name: string;
  properties: {
    authMode: string;
    traffic: Record<string, number>;
    provisioningState: string;
    scoringUri: string;
    warnings: string[] | null;
  };
}

export interface Deployment {
  name: string;
  sku: { capacity: number };
  properties: {
    model: string;
    provisioningState: string;
    provisioningError: { code: string; message: string } | null;
    warnings: string[] | null;
    replicas: Replica[];
  };
}

/** With where it runs, in the words of what started it. */
export interface Replica {
  name: string;
  state: string;
  detail: string | null;
  restarts: number;
  [whereabouts: string]: string | number | null;
}

export interface Keys {
  primaryKey: string;
  secondaryKey: string;
}

function path(rest: string): string {
  return new URL(`${WORKSPACE}${rest}${VERSION}`, SERVER).href;
}

function at(endpoint: string, deployment?: string): string {
  const place = `/onlineEndpoints/${encodeURIComponent(endpoint)}`;
  return deployment === undefined ? place : `${place}/deployments/${encodeURIComponent(deployment)}`;
}

async function list<T>(rest: string): Promise<T[]> {
  return (await json<{ value: T[] }>(path(rest), { as: "token" })).value;
}

export const listEndpoints = () => list<Endpoint>("/onlineEndpoints");

export const listDeployments = (endpoint: string) => list<Deployment>(`${at(endpoint)}/deployments`);

export const listConnections = () => list<{ name: string; properties: { category?: string } }>("/connections");

export async function setTraffic(endpoint: string, traffic: Record<string, number>): Promise<void> {
  await send(path(at(endpoint)), { method: "PATCH", as: "token", body: { properties: { traffic } } });
}

export function showKeys(endpoint: string): Promise<Keys> {
  return json<Keys>(path(`${at(endpoint)}/listKeys`), { method: "POST", as: "token", body: {} });
}

export function rotateKey(endpoint: string, keyType: "Primary" | "Secondary"): Promise<Keys> {
  return json<Keys>(path(`${at(endpoint)}/regenerateKeys`), { method: "POST", as: "token", body: { keyType } });
}

export async function readLogs(endpoint: string, deployment: string): Promise<string> {
  const call = { method: "POST", as: "token", body: { tail: 200 } } as const;
  return (await json<{ content: string }>(path(`${at(endpoint, deployment)}/getLogs`), call)).content;
}
