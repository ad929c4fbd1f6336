import { useState } from "preact/hooks";

import { Field, type Notes } from "./field";

interface SliderProps {
  label: string;
  value: number;
  min: number;
  max: number;
  step: number;
  hint?: string;
  notes?: Notes | undefined;
  onChange: (value: number) => void;
}

/** A range with its number beside it, which can be typed. */
export function Slider({ label, value, min, max, step, hint, notes, onChange }: SliderProps) {
  const [typed, setTyped] = useState<string>(); // not a number yet, and kept while the page is drawn anew around it
  const textOf = (event: Event) => (event.currentTarget as HTMLInputElement).value;
  const set = (event: Event) => onChange(Number(textOf(event)));
  const number = (
    <input
      class="number"
      type="number"
      aria-label={`${label}, as a number`}
      {...{ min, max, step }}
      value={typed ?? value}
      onInput={(event) => setTyped(textOf(event))}
      onChange={set}
      onBlur={() => setTyped(undefined)}
    />
  );
  const props = hint === undefined ? {} : { hint };
  return (
    <Field label={label} aside={number} notes={notes} {...props}>
      {(given) => <input {...given} type="range" {...{ min, max, step, value }} onInput={set} />}
    </Field>
  );
}
