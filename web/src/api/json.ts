/** JSON whose seeds stay whole: they go up to 2^63, and JavaScript's numbers are exact up to 2^53.
 *
 * A name in quotes before a colon is never inside of a string, whose quotes have a backslash.
 */

export function parseJson<T>(text: string): T {
  return JSON.parse(text.replace(/(?<!\\)"seed"\s*:\s*(-?\d{16,})(?![\d.eE])/g, '"seed":"$1"')) as T;
}

/** Of values whose seeds are bigints. */
export function toJson(value: unknown, indent = 0): string {
  const text = JSON.stringify(value, (_, each: unknown) => (typeof each === "bigint" ? String(each) : each), indent);
  return text.replace(/(?<!\\)"seed":(\s*)"(-?\d+)"/g, '"seed":$1$2');
}
