import { useEffect, useRef } from "preact/hooks";

import type { Brush } from "./brush";
import type { Source } from "./source";

/** Pixels of a side; a larger picture is shown smaller, and its mask is made in its own size. */
const MAX_SHOWN = 1024;
const ARROWS: Record<string, [number, number]> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

interface MaskCanvasProps {
  source: Source;
  size: number;
  brush: Brush;
  describedBy: string;
  onChange: (isMasked: boolean) => void;
}

export function MaskCanvas({ source, size, brush, describedBy, onChange }: MaskCanvasProps) {
  const { blob, width, height } = source;
  const canvas = useRef<HTMLCanvasElement>(null);
  /** Where the brush is that is moved by keys; null: it is moved by a pointer. */
  const place = useRef<[number, number] | null>(null);
  const redraw = useRef<() => void>(() => undefined);
  const wide = (size * width) / 256;
  const scale = Math.min(1, MAX_SHOWN / Math.max(width, height));
  const [shownWidth, shownHeight] = [Math.ceil(width * scale), Math.ceil(height * scale)];

  useEffect(() => {
    let isCurrent = true;
    place.current = null;
    void createImageBitmap(blob, { resizeWidth: shownWidth, resizeHeight: shownHeight, resizeQuality: "high" }).then((image) => {
      const context = canvas.current?.getContext("2d");
      const veil = new OffscreenCanvas(shownWidth, shownHeight);
      const painter = veil.getContext("2d");
      if (!isCurrent || !context || !painter) return;
      painter.scale(scale, scale);
      redraw.current = () => {
        painter.clearRect(0, 0, width, height);
        brush.paint(painter, "#ff4a2a");
        context.globalAlpha = 1;
        context.drawImage(image, 0, 0);
        context.globalAlpha = 0.6;
        context.drawImage(veil, 0, 0);
        if (place.current) ring(context, place.current, scale);
        onChange(!brush.isEmpty);
      };
      brush.bind(width, height, () => redraw.current());
      redraw.current();
    });
    return () => {
      isCurrent = false;
    };
  }, [blob, brush]);

  const at = (event: PointerEvent): [number, number] => {
    const box = (event.currentTarget as HTMLCanvasElement).getBoundingClientRect();
    return [((event.clientX - box.left) * width) / box.width, ((event.clientY - box.top) * height) / box.height];
  };
  const paintByKey = (event: KeyboardEvent) => {
    const arrow = ARROWS[event.key];
    if (!arrow && event.key !== " ") return;
    event.preventDefault();
    const [x, y] = place.current ?? [width / 2, height / 2];
    if (arrow) {
      place.current = [within(x + (arrow[0] * wide) / 2, width), within(y + (arrow[1] * wide) / 2, height)];
      if (event.shiftKey) brush.extend(...place.current);
    } else brush.begin(wide, ...(place.current = [x, y]));
    redraw.current();
  };
  return (
    <canvas
      ref={canvas}
      class="mask"
      role="application"
      tabIndex={0}
      aria-label="The picture to change, with what is painted over"
      aria-describedby={describedBy}
      width={shownWidth}
      height={shownHeight}
      onKeyDown={paintByKey}
      onBlur={() => {
        place.current = null;
        redraw.current();
      }}
      onPointerDown={(event) => {
        event.currentTarget.setPointerCapture(event.pointerId);
        place.current = null;
        brush.begin(wide, ...at(event));
      }}
      onPointerMove={(event) => {
        if (event.buttons & 1) brush.extend(...at(event));
      }}
    />
  );
}

function within(value: number, limit: number): number {
  return Math.min(Math.max(value, 0), limit);
}

/** Seen on light and on dark. */
function ring(context: CanvasRenderingContext2D, [x, y]: [number, number], scale: number): void {
  const wide = context.canvas.width / 160;
  context.globalAlpha = 1;
  for (const [radius, colour] of [[3 * wide, "#fff"], [4 * wide, "#000"]] as const) {
    context.strokeStyle = colour;
    context.lineWidth = wide;
    context.beginPath();
    context.arc(x * scale, y * scale, radius, 0, 2 * Math.PI);
    context.stroke();
  }
}
