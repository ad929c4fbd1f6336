import type { RefObject } from "preact";

import { BlobImage } from "../parts/blob-image";
import type { Picture } from "../store/gallery";

interface GalleryProps {
  heading: RefObject<HTMLHeadingElement>;
  pictures: Picture[];
  shown: string[];
  onShow: (ids: string[]) => void;
}

const MAX_COMPARED = 4;

export function Gallery({ pictures, shown, heading, onShow }: GalleryProps) {
  if (pictures.length === 0) return null;
  const toggle = (id: string) =>
    onShow(shown.includes(id) ? shown.filter((each) => each !== id) : [...shown, id].slice(-MAX_COMPARED));
  return (
    <section class="gallery" aria-label="Gallery">
      <h2 ref={heading} tabIndex={-1}>
        Gallery <span class="quiet">{pictures.length} in this browser</span>
      </h2>
      <ul>
        {pictures.map((picture) => {
          const name = `${picture.recipe.prompt || "picture"}, seed ${picture.recipe.seed}`;
          const isShown = shown.includes(picture.id);
          return (
            <li key={picture.id}>
              <button class="thumb" aria-pressed={isShown} onClick={() => onShow([picture.id])}>
                <BlobImage blob={picture.blob} alt={name} isLazy />
              </button>
              <label class="compare" title="Side by side, up to four">
                <input type="checkbox" aria-label={`Compare ${name}`} checked={isShown} onChange={() => toggle(picture.id)} />
              </label>
            </li>
          );
        })}
      </ul>
    </section>
  );
}
