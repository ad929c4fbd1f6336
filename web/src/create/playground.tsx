import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";

import { messageOf } from "../api/http";
import type { ModelCard } from "../api/model";
import { toDataUrl } from "../api/stream";
import { NoteLines } from "../parts/field";
import { deletePicture, keepPicture, loadPictures, watchOtherTabs, type Picture, type Start } from "../store/gallery";
import { Brush } from "./brush";
import { CopyAs } from "./copy-as";
import { PictureForm } from "./form";
import { Gallery } from "./gallery";
import { PromptForm } from "./prompt-form";
import { readRecipe, type Recipe } from "./recipe";
import { drawSeed, settingsOf, startingSettings, toBody, type Settings } from "./settings";
import { sizeFor } from "./size-field";
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
  const heading = useRef<HTMLHeadingElement>(null);

  const add = useCallback((picture: Picture) => {
    setPictures((before) => [picture, ...before]);
    setShown((before) => [...before, picture.id]);
    keepPicture(picture).catch(complain);
  }, []);
  const leave = useCallback((id: string) => {
    setPictures((before) => before.filter((each) => each.id !== id));
    setShown((before) => before.filter((each) => each !== id));
  }, []);
  const control = useRun({ onPicture: add, onUnauthorized });

  useEffect(() => void loadPictures().then((kept) => setPictures((made) => together(made, kept)), complain), []);
  useEffect(
    () =>
      watchOtherTabs((change) => {
        if ("deleted" in change) leave(change.deleted);
        else setPictures((before) => together([change.kept], before));
      }),
    [],
  );

  /** `start` is what it is made from; null: nothing but noise. */
  async function make(from: Settings, start: Promise<Start | null> | Start | null) {
    setTrouble(undefined);
    setShown([]);
    try {
      const body = { ...toBody(from, model), ...PREVIEWS };
      const begun = await start;
      if (begun === null) return await control.start("v1/images/generations", body, null);
      const images = [{ image_url: await toDataUrl(begun.picture) }];
      const mask = begun.mask && { mask: { image_url: await toDataUrl(begun.mask) } };
      await control.start("v1/images/edits", { ...body, strength: from.strength, images, ...mask }, begun);
    } catch (failure) {
      setTrouble(messageOf(failure));
    }
  }

  const begin = () => {
    const seed = settings.isSeedLocked ? settings.seed : "";
    setSettings({ ...settings, seed });
    void make({ ...settings, seed }, source && brush.mask().then((mask) => ({ picture: source.blob, mask })));
  };
  const vary = (picture: Picture) => {
    if (picture.recipe.strength !== undefined && !picture.start)
      return setTrouble("What this picture was made from is not here any more: open it, and change it again.");
    const varied = { ...settingsOf(picture.recipe, settings, model), seed: drawSeed(), isSeedLocked: false };
    setSettings(varied);
    void make(varied, picture.start ?? null);
  };
  const remove = async (picture: Picture) => {
    await deletePicture(picture.id).catch(complain); // first: a page that is left now must not bring it back
    leave(picture.id);
    heading.current?.focus(); // the button that was pressed is gone
  };
  const open = async (blob: Blob, name: string, recipe: Recipe | null) => {
    const image = await createImageBitmap(blob);
    const { width, height } = image;
    image.close();
    setSource({ blob, name, recipe, width, height });
    change(sizeFor(model, recipe ?? { width, height }));
  };
  const edit = (picture: Picture) => {
    change({ prompt: picture.recipe.prompt });
    open(picture.blob, "a picture of the gallery", picture.recipe).catch((failure) => setTrouble(messageOf(failure)));
  };
  const take = useCallback((file: File) => {
    setTrouble(undefined);
    location.hash = "create"; // it may have been dropped on another view
    if (!file.type.startsWith("image/")) return setTrouble(`${file.name} is no picture.`);
    readRecipe(file)
      .then((recipe) => open(file, file.name, recipe))
      .catch(() => setTrouble(`${file.name} is no picture that this browser can read, or is too large for it.`));
  }, []);
  const isDropping = useDrop(take);

  const thumbs = useMemo(() => <Gallery {...{ pictures, shown, heading }} onShow={setShown} />, [pictures, shown]);
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
        {thumbs}
      </div>
    </div>
  );
}

/** Each once, the newest first. */
function together(some: Picture[], others: Picture[]): Picture[] {
  const here = new Set(some.map((each) => each.id));
  return [...some, ...others.filter((each) => !here.has(each.id))].sort((a, b) => b.madeAt - a.madeAt);
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
