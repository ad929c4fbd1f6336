import { numberOf, parameter, type ModelCard } from "../api/model";
import { NoteLines } from "../parts/field";
import type { FormProps } from "./form";

interface Size {
  width: number;
  height: number;
}

const SHAPES: [string, number, number][] = [
  ["Square", 1, 1],
  ["Portrait", 3, 4],
  ["Landscape", 4, 3],
  ["Tall", 9, 16],
  ["Wide", 16, 9],
];

/** Shapes of about as many pixels as the model makes by itself, and free sides. */
export function SizeField({ model, settings, notes, onChange }: FormProps) {
  return (
    <fieldset class="field" aria-describedby={notes.size?.error ? "size-error" : undefined}>
      <legend>Size</legend>
      <div class="chips">
        {SHAPES.map(([name, across, down]) => {
          const size = shape(model, across, down);
          return (
            <button
              type="button"
              aria-pressed={size.width === settings.width && size.height === settings.height}
              title={`${size.width} × ${size.height}`}
              onClick={() => onChange(size)}
            >
              {name}
            </button>
          );
        })}
      </div>
      <div class="row">
        <Side name="width" value={settings.width} {...{ model, onChange }} />
        <span aria-hidden="true">×</span>
        <Side name="height" value={settings.height} {...{ model, onChange }} />
      </div>
      <NoteLines id="size" notes={notes.size} />
    </fieldset>
  );
}

interface SideProps {
  name: "width" | "height";
  value: number;
  model: ModelCard;
  onChange: (change: Partial<Size>) => void;
}

function Side({ name, value, model, onChange }: SideProps) {
  const card = parameter(model, name);
  return (
    <input
      type="number"
      aria-label={name === "width" ? "Width in pixels" : "Height in pixels"}
      min={numberOf(card.minimum, 64)}
      max={numberOf(card.maximum, 2048)}
      step={numberOf(card.multiple_of, 16)}
      value={value}
      onInput={(event) => onChange({ [name]: Number(event.currentTarget.value) })}
    />
  );
}

/** The size to change a picture in: its own where the model has it, else the nearest shape. */
export function sizeFor(model: ModelCard, { width, height }: Size): Size {
  const card = parameter(model, "width");
  const isIn = (side: number) =>
    side >= numberOf(card.minimum, 64) && side <= numberOf(card.maximum, 2048) && side % numberOf(card.multiple_of, 16) === 0;
  const isOwn = isIn(width) && isIn(height) && width * height <= model.max_pixels;
  return isOwn ? { width, height } : shape(model, width, height);
}

function shape(model: ModelCard, across: number, down: number): Size {
  const card = parameter(model, "width");
  const multiple = numberOf(card.multiple_of, 16);
  const side = Math.sqrt(numberOf(card.default, 1024) * numberOf(parameter(model, "height").default, 1024));
  const fit = (pixels: number) => {
    const bounded = Math.min(Math.max(pixels, numberOf(card.minimum, 64)), numberOf(card.maximum, 2048));
    return Math.round(bounded / multiple) * multiple;
  };
  return { width: fit(side * Math.sqrt(across / down)), height: fit(side * Math.sqrt(down / across)) };
}
