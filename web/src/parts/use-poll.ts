import { useEffect, useRef } from "preact/hooks";

/** Ask now, and again so long after each answer, but not while the tab is hidden.
 *
 * A browser has six connections to a server: who asked by the clock would take all of them from a slow one. What `ask`
 * promises is never broken; it tells of failures itself.
 */
export function usePoll(ask: () => Promise<void>, ms: number): void {
  const latest = useRef(ask);
  latest.current = ask;
  useEffect(() => {
    let timer: number | undefined;
    let isOver = false;
    const turn = async () => {
      if (!document.hidden) await latest.current();
      if (!isOver) timer = setTimeout(() => void turn(), ms);
    };
    void turn();
    return () => {
      isOver = true;
      clearTimeout(timer);
    };
  }, [ms]);
}
