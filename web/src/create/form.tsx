/** The settings of the next picture: those that the model has, in its ranges. */

import { useEffect, useState } from "preact/hooks";

import { numberOf, parameter, type ModelCard } from "../api/model";
import { Field } from "../parts/field";
import { Slider } from "../parts/slider";
import { LoraFields, lorasOf } from "./lora-fields";
import type { AllNotes, FieldName } from "./notes";
import { drawSeed, type Settings } from "./settings";
import { SizeField } from "./size-field";

export interface FormProps {
  model: ModelCard;
  settings: Settings;
  notes: AllNotes;
  onChange: (change: Partial<Settings>) => void;
}

const MORE: FieldName[] = ["negative_prompt", "guidance_scale", "scheduler", "loras"];

export function PictureForm(props: FormProps) {
  const { model, settings, notes, onChange } = props;
  const [isMore, setMore] = useState(false);
  useEffect(() => {
    if (MORE.some((name) => notes[name] !== undefined)) setMore(true);
  }, [notes]);
  return (
    <div class="settings">
      <SizeField {...props} />
      <StepsField {...props} />
      <Slider
        label="Pictures"
        {...{ min: 1, max: model.max_images, step: 1, value: settings.n, notes: notes.n }}
        onChange={(n) => onChange({ n })}
      />
      <SeedField {...props} />
      <details open={isMore} onToggle={(event) => setMore(event.currentTarget.open)}>
        <summary>More</summary>
        <Field
          label="Negative prompt"
          hint={`What not to show: ${parameter(model, "negative_prompt").effect.replace(/^what not to show, /, "")}`}
          notes={notes.negative_prompt}
        >
          {(given) => (
            <textarea
              {...given}
              rows={2}
              value={settings.negativePrompt}
              onInput={(event) => onChange({ negativePrompt: event.currentTarget.value })}
            />
          )}
        </Field>
        <GuidanceField {...props} />
        <SchedulerField {...props} />
        {lorasOf(props).length > 0 && <LoraFields {...props} />}
        <FormatField {...props} />
      </details>
    </div>
  );
}

function StepsField({ model, settings, notes, onChange }: FormProps) {
  const steps = parameter(model, "num_inference_steps");
  const qualities = Object.entries(model.qualities);
  return (
    <div>
      <Slider
        label="Steps"
        min={numberOf(steps.minimum, 1)}
        max={numberOf(steps.maximum, 50)}
        step={1}
        value={settings.steps}
        notes={notes.num_inference_steps}
        onChange={(value) => onChange({ steps: value })}
      />
      <div class="chips" role="group" aria-label="Quality">
        {qualities.map(([name, value]) => (
          <button
            type="button"
            aria-pressed={settings.steps === value}
            title={`${value} steps`}
            onClick={() => onChange({ steps: value })}
          >
            {name}
          </button>
        ))}
      </div>
    </div>
  );
}

function SeedField({ settings, notes, onChange }: FormProps) {
  const lock = (
    <label class="check">
      <input
        type="checkbox"
        checked={settings.isSeedLocked}
        onChange={(event) => {
          const isSeedLocked = event.currentTarget.checked;
          onChange({ isSeedLocked, seed: isSeedLocked ? settings.seed || drawSeed() : "" });
        }}
      />
      Lock
    </label>
  );
  return (
    <Field label="Seed" aside={lock} notes={notes.seed}>
      {(given) => (
        <div class="row">
          <input
            {...given}
            type="number"
            min={0}
            step={1}
            placeholder="drawn for each picture"
            value={settings.seed}
            onInput={(event) => onChange({ seed: event.currentTarget.value, isSeedLocked: event.currentTarget.value !== "" })}
          />
          <button type="button" onClick={() => onChange({ seed: drawSeed(), isSeedLocked: true })}>
            Draw
          </button>
        </div>
      )}
    </Field>
  );
}

function GuidanceField({ model, settings, notes, onChange }: FormProps) {
  const card = parameter(model, "guidance_scale");
  const isSpokenOf = settings.guidance !== "" || notes.guidance_scale !== undefined;
  if (!card.has_effect && settings.negativePrompt === "" && !isSpokenOf) return null;
  return (
    <Field label="Guidance" hint={card.effect} notes={notes.guidance_scale}>
      {(given) => (
        <input
          {...given}
          type="number"
          min={numberOf(card.minimum, 0)}
          max={numberOf(card.maximum, 100)}
          step="any"
          placeholder={String(card.default ?? "")}
          value={settings.guidance}
          onInput={(event) => onChange({ guidance: event.currentTarget.value })}
        />
      )}
    </Field>
  );
}

function SchedulerField({ model, settings, notes, onChange }: FormProps) {
  const known = Object.entries(parameter(model, "scheduler").values);
  const isKnown = known.some(([, name]) => name === settings.scheduler);
  return (
    <Field label="Scheduler" notes={notes.scheduler}>
      {(given) => (
        <select
          {...given}
          value={settings.scheduler}
          onChange={(event) => onChange({ scheduler: event.currentTarget.value })}
        >
          {known.map(([alias, name]) => (
            <option value={name}>{alias}</option>
          ))}
          {!isKnown && <option value={settings.scheduler}>{settings.scheduler}</option>}
        </select>
      )}
    </Field>
  );
}

const FORMATS: readonly Settings["format"][] = ["png", "jpeg", "webp"];

function FormatField({ settings, onChange }: FormProps) {
  return (
    <Field label="File">
      {(given) => (
        <select
          {...given}
          value={settings.format}
          onChange={(event) => onChange({ format: FORMATS[event.currentTarget.selectedIndex] ?? "png" })}
        >
          {FORMATS.map((each) => (
            <option value={each}>{each.toUpperCase()}</option>
          ))}
        </select>
      )}
    </Field>
  );
}
