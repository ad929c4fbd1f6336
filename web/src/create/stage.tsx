/** The middle of the page: what develops, or the pictures that were chosen, side by side. */

import { useEffect, useState } from "preact/hooks";

import { BlobImage } from "../parts/blob-image";
import type { Picture } from "../store/gallery";
import { PictureActions, type Actions } from "./picture-actions";
import { rows } from "./recipe";
import { seconds, type Run, type Tile } from "./use-run";

interface StageProps extends Actions {
  run: Run | null;
  shown: Picture[];
  ratio: number;
  children?: preact.ComponentChildren;
}

export function Stage({ run, shown, ratio, children, ...actions }: StageProps) {
  if (run !== null) return <Developing run={run} ratio={ratio} />;
  if (shown.length === 0) return <div class="stage empty">{children}</div>;
  return (
    <div class="stage">
      <div class="tiles" data-count={shown.length}>
        {shown.map((picture) => (
          <figure key={picture.id} style={{ "--ratio": picture.recipe.width / picture.recipe.height }}>
            <BlobImage blob={picture.blob} alt={picture.recipe.prompt || "a picture"} />
            <figcaption>
              <PictureActions picture={picture} {...actions} />
              <Differences picture={picture} others={shown} />
            </figcaption>
          </figure>
        ))}
      </div>
    </div>
  );
}

function Developing({ run, ratio }: { run: Run; ratio: number }) {
  return (
    <div class="stage" aria-busy="true">
      <div class="tiles" data-count={run.tiles.length}>
        {run.tiles.map((tile, index) => (
          <figure key={index} style={{ "--ratio": ratio }}>
            <div class="plate">
              {tile.blob && (
                <BlobImage blob={tile.blob} alt={tile.isDone ? "the picture" : "a preview of the picture"} class={tile.isDone ? "" : "preview"} />
              )}
            </div>
            <figcaption>
              <Progress tile={tile} run={run} />
            </figcaption>
          </figure>
        ))}
      </div>
    </div>
  );
}

function Progress({ tile, run }: { tile: Tile; run: Run }) {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((count) => count + 1), 200);
    return () => clearInterval(timer);
  }, []);
  const where = tile.isDone
    ? "Done"
    : run.isWaiting
      ? `Waiting${placeInQueue(run.position)}`
      : tile.steps > 0
        ? `Step ${tile.step} of ${tile.steps}`
        : "Developing";
  return (
    <>
      <progress max={tile.steps || 1} value={tile.isDone ? tile.steps || 1 : tile.step} aria-label="Steps" />
      <span class="quiet">
        {where} · {seconds(run.startedAt)}
      </span>
    </>
  );
}

function placeInQueue(position: number | null): string {
  if (position === null) return "";
  return position === 1 ? ", next in the queue" : `, number ${position} in the queue`;
}

/** Of one picture its recipe; of several what is not the same in all. */
function Differences({ picture, others }: { picture: Picture; others: Picture[] }) {
  const tables = others.map((each) => new Map(rows(each.recipe)));
  const told = rows(picture.recipe).filter(
    ([name, text]) => others.length === 1 || tables.some((table) => table.get(name) !== text),
  );
  return (
    <dl class="recipe">
      {told.map(([name, text]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{text}</dd>
        </div>
      ))}
      {picture.warnings.map((warning) => (
        <div key={warning}>
          <dt>Warning</dt>
          <dd>{warning}</dd>
        </div>
      ))}
    </dl>
  );
}
