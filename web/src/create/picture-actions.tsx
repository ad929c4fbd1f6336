import { save } from "../parts/save";
import type { Picture } from "../store/gallery";

export interface Actions {
  onUse: (picture: Picture) => void;
  onVary: (picture: Picture) => void;
  onEdit: (picture: Picture) => void;
  onDelete: (picture: Picture) => void;
}

interface PictureActionsProps extends Actions {
  picture: Picture;
}

export function PictureActions({ picture, onUse, onVary, onEdit, onDelete }: PictureActionsProps) {
  return (
    <div class="actions">
      <button onClick={() => onVary(picture)}>Vary the seed</button>
      <button onClick={() => onUse(picture)}>Use these settings</button>
      <button onClick={() => onEdit(picture)}>Edit</button>
      <button onClick={() => download(picture)}>Download</button>
      <button class="quiet" onClick={() => onDelete(picture)}>
        Delete
      </button>
    </div>
  );
}

function download({ blob, recipe }: Picture): void {
  save(blob, `${fileName(recipe.prompt)}-${recipe.seed}.${blob.type.split("/")[1] ?? "png"}`);
}

function fileName(prompt: string): string {
  return prompt.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 48) || "picture";
}
