import { useEffect, useState } from "preact/hooks";

interface BlobImageProps {
  blob: Blob;
  alt: string;
  class?: string;
  /** Decoded when it comes into sight. */
  isLazy?: boolean;
}

/** A picture from memory; its object URL lives as long as it is shown. */
export function BlobImage({ blob, alt, class: name, isLazy = false }: BlobImageProps) {
  const [url, setUrl] = useState<string>();
  useEffect(() => {
    const made = URL.createObjectURL(blob);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [blob]);
  return url === undefined ? null : <img src={url} alt={alt} class={name} loading={isLazy ? "lazy" : "eager"} decoding="async" />;
}
