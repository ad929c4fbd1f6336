/** This tab's sessionStorage. A browser may refuse it, or have no room: then what is kept there lasts as long as the page. */

export function read(name: string): string | null {
  try {
    return sessionStorage.getItem(name);
  } catch {
    return null;
  }
}

/** Whether it is kept now. */
export function write(name: string, value: string): boolean {
  try {
    sessionStorage.setItem(name, value);
    return true;
  } catch {
    return false;
  }
}

export function remove(name: string): void {
  try {
    sessionStorage.removeItem(name);
  } catch {
    /* then nothing is there */
  }
}

/** Whether anything can be kept at all. */
export function isThere(): boolean {
  const isKept = write("safelight", "");
  remove("safelight");
  return isKept;
}
