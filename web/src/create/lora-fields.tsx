import { NoteLines } from "../parts/field";
import { Slider } from "../parts/slider";
import type { FormProps } from "./form";

/** Those of the model, and what a picture of another one has brought along: it is refused until it is taken off. */
export function lorasOf({ model, settings }: Pick<FormProps, "model" | "settings">): { name: string; scale: number }[] {
  const others = Object.entries(settings.loras).filter(([name]) => !model.loras.some((each) => each.name === name));
  return [...model.loras, ...others.map(([name, scale]) => ({ name, scale }))];
}

export function LoraFields({ model, settings, notes, onChange }: FormProps) {
  const set = (name: string, scale: number | null) => {
    const { [name]: _, ...others } = settings.loras;
    onChange({ loras: scale === null ? others : { ...others, [name]: scale } });
  };
  return (
    <fieldset class="field">
      <legend>LoRAs</legend>
      {lorasOf({ model, settings }).map(({ name, scale }) => {
        const given = settings.loras[name];
        return (
          <div key={name}>
            <label class="check">
              <input
                type="checkbox"
                checked={given !== undefined}
                onChange={(event) => set(name, event.currentTarget.checked ? scale : null)}
              />
              {name}
            </label>
            {given !== undefined && (
              <Slider
                label={`Scale of ${name}`}
                {...{ min: -model.max_lora_scale, max: model.max_lora_scale, step: 0.05, value: given }}
                onChange={(value) => set(name, value)}
              />
            )}
          </div>
        );
      })}
      <NoteLines id="loras" notes={notes.loras} />
    </fieldset>
  );
}
