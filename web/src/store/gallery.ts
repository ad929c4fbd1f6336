/** Pictures that stay in this browser (IndexedDB), each with what it was made from. */

import type { Recipe } from "../create/recipe";

export interface Picture {
  id: string;
  blob: Blob;
  recipe: Recipe;
  warnings: string[];
  madeAt: number;
  /** null, or left out by earlier versions: it was made from nothing but noise. */
  start?: Start | null;
}

/** What an edit starts from. */
export interface Start {
  picture: Blob;
  /** null: all of it is made anew. */
  mask: Blob | null;
}

export type Change = { kept: Picture } | { deleted: string };

const STORE = "pictures";
const tabs = new BroadcastChannel("safelight-gallery");

function open(): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open("safelight", 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function run<T>(mode: IDBTransactionMode, act: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  const database = await open();
  try {
    return await new Promise<T>((resolve, reject) => {
      const transaction = database.transaction(STORE, mode);
      const request = act(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onerror = () => reject(transaction.error);
      transaction.onabort = () => reject(transaction.error ?? new Error("the browser has no room for it"));
    });
  } finally {
    database.close();
  }
}

export async function loadPictures(): Promise<Picture[]> {
  const all = await run<Picture[]>("readonly", (store) => store.getAll());
  return all.sort((a, b) => b.madeAt - a.madeAt);
}

export async function keepPicture(picture: Picture): Promise<void> {
  await run("readwrite", (store) => store.put(picture));
  tabs.postMessage({ kept: picture } satisfies Change);
}

export async function deletePicture(id: string): Promise<void> {
  await run("readwrite", (store) => store.delete(id));
  tabs.postMessage({ deleted: id } satisfies Change);
}

/** Be told what other tabs keep and delete. The function that is returned ends it. */
export function watchOtherTabs(onChange: (change: Change) => void): () => void {
  const tell = (event: MessageEvent) => onChange(event.data as Change);
  tabs.addEventListener("message", tell);
  return () => tabs.removeEventListener("message", tell);
}
