import { useEffect, useState } from "preact/hooks";

/** A picture from memory; its object URL lives as long as it is shown. */
export function BlobImage({ blob, alt, class: name }: { blob: Blob; alt: string; class?: string }) {
  const [url, setUrl] = useState<string>();
  useEffect(() => {
    const made = URL.createObjectURL(blob);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [blob]);
  return url === undefined ? null : <img src={url} alt={alt} class={name} />;
}
