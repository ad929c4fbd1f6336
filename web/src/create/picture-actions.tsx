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

function download(picture: Picture): void {
  const link = document.createElement("a");
  const format = picture.blob.type.split("/")[1] ?? "png";
  link.href = URL.createObjectURL(picture.blob);
  link.download = `${fileName(picture.recipe.prompt)}-${picture.recipe.seed}.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function fileName(prompt: string): string {
  return prompt.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 48) || "picture";
}
