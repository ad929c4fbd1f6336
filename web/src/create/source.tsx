/** A picture to start from: its recipe if it carries one, how much to change, and a brush for what to change. */

import { useEffect, useId, useRef, useState } from "preact/hooks";

import { NoteLines, type Notes } from "../parts/field";
import { Slider } from "../parts/slider";
import type { Brush } from "./brush";
import { MaskCanvas } from "./mask-canvas";
import { rows, type Recipe } from "./recipe";

export interface Source {
  blob: Blob;
  name: string;
  recipe: Recipe | null;
  width: number;
  height: number;
}

interface SourceProps {
  source: Source;
  strength: number;
  notes: Notes | undefined;
  brush: Brush;
  isMasked: boolean;
  onMasked: (isMasked: boolean) => void;
  onStrength: (strength: number) => void;
  onUse: (recipe: Recipe) => void;
  onRemove: () => void;
}

export function SourcePanel(props: SourceProps) {
  const { source, strength, notes, brush, isMasked, onMasked, onStrength, onUse, onRemove } = props;
  const [size, setSize] = useState(24);
  const hint = useId();
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), [source]);
  return (
    <section class="source card" aria-label="Edit">
      <div class="field-head">
        <h2 ref={heading} tabIndex={-1}>
          Start from {source.name}
        </h2>
        <button class="quiet" type="button" onClick={onRemove}>
          Remove
        </button>
      </div>
      <MaskCanvas {...{ source, size, brush }} describedBy={hint} onChange={onMasked} />
      <p class="hint" id={hint}>
        {isMasked ? "What you painted is made anew; the rest is kept." : "Paint over what is to change, or leave all of it to the prompt."}
        {" By keyboard: arrows move the brush, Space paints, Shift and arrows go on with it."}
      </p>
      <div class="row">
        <button type="button" disabled={!isMasked} onClick={() => brush.undo()}>
          Undo
        </button>
        <button type="button" disabled={!isMasked} onClick={() => brush.clear()}>
          Clear
        </button>
      </div>
      <Slider label="Brush" min={4} max={96} step={2} value={size} onChange={setSize} />
      <Slider label="Strength" hint="How much is made anew." {...{ min: 0.05, max: 1, step: 0.05, value: strength }} onChange={onStrength} />
      <NoteLines id="image" notes={notes} />
      {source.recipe ? (
        <details>
          <summary>Its recipe</summary>
          <dl class="recipe">
            {rows(source.recipe).map(([name, text]) => (
              <div key={name}>
                <dt>{name}</dt>
                <dd>{text}</dd>
              </div>
            ))}
          </dl>
          <button type="button" onClick={() => source.recipe && onUse(source.recipe)}>
            Use these settings
          </button>
        </details>
      ) : (
        <p class="hint">It carries no recipe.</p>
      )}
    </section>
  );
}
