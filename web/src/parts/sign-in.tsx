import { useState } from "preact/hooks";

import { messageOf } from "../api/http";
import { forget, remember, type Credential } from "../store/session";
import { isThere } from "../store/tab";
import { Field } from "./field";

interface SignInProps {
  kind: Credential;
  /** Rejects if the secret is not the right one. */
  check: () => Promise<void>;
}

const WORDS = {
  key: {
    title: "Sign in",
    label: "Key",
    hint: "The server's key, or one of an endpoint: whoever runs the server has it.",
  },
  token: {
    title: "The administrator's view",
    label: "Administrator's token",
    hint: "It is in the file admin-token of the server's data directory.",
  },
};

const IN_A_HEADER = /^[!-~]+$/;

export function SignIn({ kind, check }: SignInProps) {
  const [secret, setSecret] = useState("");
  const [isKept, setKept] = useState(false);
  const [error, setError] = useState<string>();
  const [isBusy, setBusy] = useState(false);
  const [canBeKept] = useState(isThere);
  const words = WORDS[kind];

  async function submit(event: Event) {
    event.preventDefault();
    if (secret.trim() === "") return setError(`Enter the ${words.label.toLowerCase()}.`);
    if (!IN_A_HEADER.test(secret.trim())) return setError("That cannot be it: it is one word of letters, digits and signs of ASCII.");
    setBusy(true);
    remember(kind, secret.trim(), isKept);
    try {
      await check();
    } catch (failure) {
      forget(kind);
      setError(messageOf(failure));
      setBusy(false);
    }
  }

  return (
    <form class="sign-in card" onSubmit={submit}>
      <h2>{words.title}</h2>
      <Field label={words.label} hint={words.hint} notes={{ error }}>
        {(given) => (
          <input
            {...given}
            type="password"
            autocomplete="off"
            spellcheck={false}
            value={secret}
            onInput={(event) => setSecret(event.currentTarget.value)}
          />
        )}
      </Field>
      {canBeKept && (
        <label class="check">
          <input type="checkbox" checked={isKept} onChange={(event) => setKept(event.currentTarget.checked)} />
          Keep it until this tab is closed
        </label>
      )}
      <button class="primary" disabled={isBusy}>
        {words.title === "Sign in" ? "Sign in" : "Open"}
      </button>
    </form>
  );
}
