/** Requests to the server that this page came from, and what it says when it refuses one. */

import { credential, type Credential } from "../store/session";
import { parseJson, toJson } from "./json";

/** The page lies at `/app/`, perhaps behind a prefix, or under the path of an endpoint. */
export const ROOT = new URL("..", document.baseURI);

/** Where the server has what is of no endpoint. */
export const SERVER = new URL(ROOT.href.replace(/\/endpoints\/[^/]+\/$/, "/"));

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    /** The field that is wrong, as it is named on the wire. */
    readonly param: string | null = null,
  ) {
    super(message);
  }
}

/** Of all but pictures, which bring a signal of their own. */
export const PATIENCE_MS = 60_000;

export interface Call {
  method?: string;
  body?: unknown;
  accept?: string;
  as?: Credential;
  signal?: AbortSignal;
}

export async function send(path: string, call: Call = {}): Promise<Response> {
  const headers: Record<string, string> = { accept: call.accept ?? "application/json" };
  const secret = credential(call.as ?? "key");
  if (secret !== null) headers["authorization"] = `Bearer ${secret}`;
  if (call.body !== undefined) headers["content-type"] = "application/json";
  const options: RequestInit = { method: call.method ?? "GET", headers, cache: "no-store", credentials: "omit" };
  if (call.body !== undefined) options.body = toJson(call.body);
  options.signal = call.signal ?? AbortSignal.timeout(PATIENCE_MS);
  const response = await fetch(new URL(path, ROOT), options);
  if (!response.ok) throw await errorOf(response);
  return response;
}

export async function json<T>(path: string, call: Call = {}): Promise<T> {
  const response = await send(path, call);
  const text = await response.text();
  return text === "" ? ({} as T) : parseJson<T>(text);
}

interface ErrorBody {
  error?: { message?: string; param?: string | null } | string;
  message?: string;
}

async function errorOf(response: Response): Promise<ApiError> {
  const isPage = response.headers.get("content-type")?.includes("html"); // of a proxy
  const { status, message, param } = parseError(response.status, isPage ? "" : await response.text());
  const wait = response.headers.get("retry-after") ?? "";
  return new ApiError(status, /^\d{1,6}$/.test(wait) ? `${message} (Try again in ${wait} s.)` : message, param);
}

export function parseError(status: number, text: string): ApiError {
  let message = text.slice(0, 500);
  try {
    const { error, message: plain } = JSON.parse(text) as ErrorBody;
    if (typeof error === "object") return new ApiError(status, error.message ?? message, error.param ?? null);
    message = error ?? plain ?? message;
  } catch {
    /* not JSON: shown as it is */
  }
  return new ApiError(status, message || `The server answered ${status}.`);
}

export function messageOf(error: unknown): string {
  if (error instanceof ApiError) return error.message;
  if (error instanceof TypeError || (error instanceof DOMException && error.name === "TimeoutError")) return "The server does not answer. Is it still running?";
  return error instanceof Error ? error.message : String(error);
}
