import type { ComponentChildren } from "preact";

import type { ModelCard } from "../api/model";
import { Field, NoteLines } from "../parts/field";
import type { Settings } from "./settings";
import type { Run, RunControl } from "./use-run";

interface PromptFormProps {
  model: ModelCard;
  settings: Settings;
  control: RunControl;
  isEdit: boolean;
  change: (part: Partial<Settings>) => void;
  onMake: () => void;
  onFile: (file: File) => void;
}

export function PromptForm({ model, settings, control, isEdit, change, onMake, onFile }: PromptFormProps) {
  const submit = (event: Event) => {
    event.preventDefault();
    onMake();
  };
  const submitByKey = (event: KeyboardEvent) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!event.repeat) onMake();
  };
  return (
    <form class="prompt" onSubmit={submit} noValidate>
      <Field label="Prompt" notes={control.notes.prompt}>
        {(given) => (
          <textarea
            {...given}
            rows={3}
            placeholder={model.examples[0] ?? ""}
            value={settings.prompt}
            onInput={(event) => change({ prompt: event.currentTarget.value })}
            onKeyDown={submitByKey}
          />
        )}
      </Field>
      <div class="row">
        <MakeButton run={control.run} onStop={control.stop}>
          {isEdit ? "Change the picture" : settings.n === 1 ? "Make a picture" : `Make ${settings.n} pictures`}
        </MakeButton>
        <label class="file">
          <input
            type="file"
            accept="image/png,image/jpeg,image/webp,image/avif,image/gif,image/bmp"
            onChange={(event) => {
              const [file] = event.currentTarget.files ?? [];
              if (file) onFile(file);
              event.currentTarget.value = "";
            }}
          />
          <span>Open a picture</span>
        </label>
      </div>
      <p class="say quiet" role="status">
        {control.say}
      </p>
      <NoteLines id="form" notes={control.notes.form ?? (isEdit ? undefined : control.notes.image)} />
    </form>
  );
}

interface MakeButtonProps {
  run: Run | null;
  onStop: () => void;
  children: ComponentChildren;
}

/** One button for both, so that who works by keyboard stays on it. The second click of a double one stops nothing. */
function MakeButton({ run, onStop, children }: MakeButtonProps) {
  const stop = (event: MouseEvent) => {
    event.preventDefault();
    if (event.detail < 2) onStop();
  };
  return (
    <button class={run ? "primary stop" : "primary"} type="submit" onClick={run ? stop : undefined}>
      {run ? "Stop" : children}
    </button>
  );
}
