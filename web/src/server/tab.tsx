import { useEffect, useState } from "preact/hooks";

interface ServerTabProps {
  /** Nobody else is to see it. */
  isAdministrators: boolean;
  onUnauthorized: () => void;
}

type View = typeof import("./view").ServerView;

/** Fetched when it is looked at: who makes pictures needs no plots. */
export function ServerTab(props: ServerTabProps) {
  const [View, setView] = useState<View>();
  useEffect(() => void import("./view").then((each) => setView(() => each.ServerView)), []);
  return View === undefined ? <p class="quiet">Loading …</p> : <View {...props} />;
}
