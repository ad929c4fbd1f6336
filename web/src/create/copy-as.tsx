import { useState } from "preact/hooks";

import { ROOT } from "../api/http";
import { CopyButton } from "../parts/copy-button";
import { save } from "../parts/save";
import { credential } from "../store/session";
import type { Brush } from "./brush";
import { commandFor, LANGUAGES, type Body, type Language } from "./commands";
import { editCommandFor, type EditFiles } from "./edit-commands";

/** The picture that is changed, as it is sent. */
export interface Edit {
  picture: Blob;
  brush: Brush;
  isMasked: boolean;
  strength: number;
}

interface CopyAsProps {
  body: Body;
  edit: Edit | null;
  model: string;
}

const MASK = "mask.png";

/** The same request, for a terminal or a program. */
export function CopyAs({ body, edit, model }: CopyAsProps) {
  const [language, setLanguage] = useState<Language>("curl");
  const server = { url: ROOT.href.replace(/\/$/, ""), hasKey: credential("key") !== null, model };
  const files = edit && { picture: `start.${edit.picture.type.split("/")[1] ?? "png"}`, mask: edit.isMasked ? MASK : null };
  const text =
    edit && files
      ? editCommandFor(language, { ...body, strength: edit.strength }, files, server)
      : commandFor(language, body, server);
  return (
    <details class="copy-as">
      <summary>Copy as code</summary>
      <div class="chips" role="group" aria-label="Language">
        {LANGUAGES.map((each) => (
          <button type="button" aria-pressed={each === language} onClick={() => setLanguage(each)}>
            {each}
          </button>
        ))}
      </div>
      {typeof text !== "string" ? (
        <p class="hint">{text.lacks}</p>
      ) : (
        <>
          <pre tabIndex={0}>{text}</pre>
          <div class="row wrap">
            <CopyButton text={text} />
            {edit && files && <FilesToSave edit={edit} files={files} />}
          </div>
        </>
      )}
    </details>
  );
}

/** What the code reads from the folder that it runs in. */
function FilesToSave({ edit, files }: { edit: Edit; files: EditFiles }) {
  return (
    <>
      <button type="button" onClick={() => save(edit.picture, files.picture)}>
        Save {files.picture}
      </button>
      {files.mask !== null && (
        <button type="button" onClick={() => void edit.brush.mask().then((mask) => mask && save(mask, MASK))}>
          Save {MASK}
        </button>
      )}
    </>
  );
}
