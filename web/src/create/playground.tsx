import { useCallback, useEffect, useMemo, useState } from "preact/hooks";

import { messageOf } from "../api/http";
import type { ModelCard } from "../api/model";
import { toDataUrl } from "../api/stream";
import { NoteLines } from "../parts/field";
import { deletePicture, keepPicture, loadPictures, type Picture } from "../store/gallery";
import { CopyAs } from "./copy-as";
import { PictureForm } from "./form";
import { Gallery } from "./gallery";
import { Brush } from "./mask-canvas";
import { PromptForm } from "./prompt-form";
import { readRecipe } from "./recipe";
import { drawSeed, settingsOf, startingSettings, toBody, type Settings } from "./settings";
import { SourcePanel, type Source } from "./source";
import { Stage } from "./stage";
import { useDrop } from "./use-drop";
import { useRun } from "./use-run";

interface PlaygroundProps {
  model: ModelCard;
  onUnauthorized: () => void;
}

const PREVIEWS = { stream: true, partial_images: 3, step_events: true, queue_events: true };

export function Playground({ model, onUnauthorized }: PlaygroundProps) {
  const [settings, setSettings] = useState<Settings>(() => startingSettings(model));
  const [pictures, setPictures] = useState<Picture[]>([]);
  const [shown, setShown] = useState<string[]>([]);
  const [source, setSource] = useState<Source | null>(null);
  const [trouble, setTrouble] = useState<string>();
  const [isMasked, setMasked] = useState(false);
  const brush = useMemo(() => new Brush(), []);
  const change = useCallback((part: Partial<Settings>) => setSettings((before) => ({ ...before, ...part })), []);
  const complain = useCallback((failure: unknown) => setTrouble(`The gallery is not kept: ${messageOf(failure)}`), []);

  const add = useCallback((picture: Picture) => {
    setPictures((before) => [picture, ...before]);
    setShown((before) => [...before, picture.id]);
    keepPicture(picture).catch(complain);
  }, []);
  const control = useRun({ onPicture: add, onUnauthorized });

  useEffect(() => void loadPictures().then(setPictures).catch(complain), []);

  async function make(from: Settings) {
    const body = { ...toBody(from, model), ...PREVIEWS };
    setShown([]);
    if (source === null) return control.start("v1/images/generations", body);
    const mask = await brush.mask();
    return control.start("v1/images/edits", {
      ...body,
      strength: from.strength,
      images: [{ image_url: await toDataUrl(source.blob) }],
      ...(mask && { mask: { image_url: await toDataUrl(mask) } }),
    });
  }

  const begin = () => {
    const seed = settings.isSeedLocked ? settings.seed : "";
    setSettings({ ...settings, seed });
    void make({ ...settings, seed });
  };
  const vary = (picture: Picture) => {
    const varied = { ...settingsOf(picture.recipe, settings, model), seed: drawSeed(), isSeedLocked: false };
    setSettings(varied);
    void make(varied);
  };
  const remove = (picture: Picture) => {
    setPictures((before) => before.filter((each) => each.id !== picture.id));
    setShown((before) => before.filter((each) => each !== picture.id));
    deletePicture(picture.id).catch(complain);
  };
  const edit = (picture: Picture) => {
    setSource({ blob: picture.blob, name: "a picture of the gallery", recipe: picture.recipe });
    change({ prompt: picture.recipe.prompt, width: picture.recipe.width, height: picture.recipe.height });
  };
  const take = useCallback((file: File) => {
    setTrouble(undefined);
    if (!file.type.startsWith("image/")) return setTrouble(`${file.name} is no picture.`);
    void readRecipe(file).then((recipe) => {
      setSource({ blob: file, name: file.name, recipe });
      if (recipe) change({ width: recipe.width, height: recipe.height });
    });
  }, []);
  const isDropping = useDrop(take);

  const chosen = shown.flatMap((id) => pictures.find((each) => each.id === id) ?? []);
  return (
    <div class={isDropping ? "playground dropping" : "playground"}>
      <div class="panel">
        <PromptForm {...{ model, settings, control, change, onMake: begin, onFile: take }} isEdit={source !== null} />
        {source && (
          <SourcePanel
            {...{ source, brush, isMasked, strength: settings.strength, notes: control.notes.image }}
            onMasked={setMasked}
            onStrength={(strength) => change({ strength })}
            onUse={(recipe) => setSettings(settingsOf(recipe, settings, model))}
            onRemove={() => setSource(null)}
          />
        )}
        <PictureForm model={model} settings={settings} notes={control.notes} onChange={change} />
        <CopyAs
          body={toBody(settings, model)}
          edit={source && { picture: source.blob, brush, isMasked, strength: settings.strength }}
          model={model.name}
        />
      </div>
      <div class="pictures">
        <NoteLines id="gallery" notes={{ error: trouble }} />
        <Stage
          {...{ run: control.run, shown: chosen, ratio: settings.width / settings.height }}
          onUse={(picture) => setSettings(settingsOf(picture.recipe, settings, model))}
          onVary={vary}
          onEdit={edit}
          onDelete={remove}
        >
          <Welcome model={model} onExample={(prompt) => change({ prompt })} />
        </Stage>
        <Gallery pictures={pictures} shown={shown} onShow={setShown} />
      </div>
    </div>
  );
}

function Welcome({ model, onExample }: { model: ModelCard; onExample: (prompt: string) => void }) {
  return (
    <div class="welcome">
      <p>{model.description}</p>
      <p class="quiet">Say what the picture should show, or begin with one of these. A picture can be dropped here, too.</p>
      <div class="chips centred">
        {model.examples.slice(0, 8).map((example) => (
          <button type="button" onClick={() => onExample(example)}>
            {example}
          </button>
        ))}
      </div>
    </div>
  );
}
