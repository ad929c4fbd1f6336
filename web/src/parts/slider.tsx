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
  const set = (event: Event) => onChange(Number((event.currentTarget as HTMLInputElement).value));
  const number = (
    <input
      class="number"
      type="number"
      aria-label={`${label}, as a number`}
      {...{ min, max, step, value }}
      onChange={set}
    />
  );
  const props = hint === undefined ? {} : { hint };
  return (
    <Field label={label} aside={number} notes={notes} {...props}>
      {(given) => <input {...given} type="range" {...{ min, max, step, value }} onInput={set} />}
    </Field>
  );
}
