/** A labelled control, with what the server says about it beneath. */

import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";

export interface Notes {
  error?: string | undefined;
  warning?: string | undefined;
}

interface Given {
  id: string;
  "aria-describedby"?: string;
  "aria-invalid"?: boolean;
}

export interface FieldProps {
  label: string;
  hint?: string;
  aside?: ComponentChildren;
  notes?: Notes | undefined;
  children: (given: Given) => ComponentChildren;
}

export function Field({ label, hint, aside, notes, children }: FieldProps) {
  const id = useId();
  const described = [hint && `${id}-hint`, notes?.error && `${id}-error`, notes?.warning && `${id}-warning`];
  const given: Given = { id };
  if (described.some(Boolean)) given["aria-describedby"] = described.filter(Boolean).join(" ");
  if (notes?.error !== undefined) given["aria-invalid"] = true;
  return (
    <div class="field">
      <div class="field-head">
        <label for={id}>{label}</label>
        {aside}
      </div>
      {children(given)}
      {hint && (
        <p class="hint" id={`${id}-hint`}>
          {hint}
        </p>
      )}
      <NoteLines id={id} notes={notes} />
    </div>
  );
}

export function NoteLines({ id, notes }: { id: string; notes: Notes | undefined }) {
  return (
    <>
      {notes?.error && (
        <p class="note error" role="alert" id={`${id}-error`}>
          {notes.error}
        </p>
      )}
      {notes?.warning && (
        <p class="note warning" id={`${id}-warning`}>
          {notes.warning}
        </p>
      )}
    </>
  );
}
