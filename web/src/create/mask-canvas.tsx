import { useEffect, useRef } from "preact/hooks";

interface Stroke {
  size: number;
  points: [number, number][];
}

/** What was painted on a picture; strokes, so that they can be undone. */
export class Brush {
  private strokes: Stroke[] = [];
  private redraw: () => void = () => undefined;
  private width = 0;
  private height = 0;

  bind(width: number, height: number, redraw: () => void): void {
    this.width = width;
    this.height = height;
    this.strokes = [];
    this.redraw = redraw;
  }

  begin(size: number, x: number, y: number): void {
    this.strokes.push({ size, points: [[x, y]] });
    this.redraw();
  }

  extend(x: number, y: number): void {
    this.strokes.at(-1)?.points.push([x, y]);
    this.redraw();
  }

  undo(): void {
    this.strokes.pop();
    this.redraw();
  }

  clear(): void {
    this.strokes = [];
    this.redraw();
  }

  get isEmpty(): boolean {
    return this.strokes.length === 0;
  }

  paint(context: CanvasRenderingContext2D, colour: string): void {
    context.lineCap = context.lineJoin = "round";
    context.strokeStyle = colour;
    for (const { size, points } of this.strokes) {
      context.lineWidth = size;
      context.beginPath();
      for (const [x, y] of points) context.lineTo(x, y);
      const [first] = points;
      if (first && points.length === 1) context.lineTo(first[0] + 0.01, first[1]);
      context.stroke();
    }
  }

  /** A PNG of the picture's size, transparent where it is to be painted anew; null: nothing was painted. */
  async mask(): Promise<Blob | null> {
    if (this.isEmpty) return null;
    const canvas = document.createElement("canvas");
    canvas.width = this.width;
    canvas.height = this.height;
    const context = canvas.getContext("2d");
    if (context === null) return null;
    context.fillRect(0, 0, this.width, this.height);
    context.globalCompositeOperation = "destination-out";
    this.paint(context, "#000");
    return new Promise((resolve) => canvas.toBlob(resolve));
  }
}

interface MaskCanvasProps {
  blob: Blob;
  size: number;
  brush: Brush;
  onChange: (isMasked: boolean) => void;
}

export function MaskCanvas({ blob, size, brush, onChange }: MaskCanvasProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    let isCurrent = true;
    void createImageBitmap(blob).then((image) => {
      const element = canvas.current;
      const context = element?.getContext("2d");
      if (!isCurrent || !element || !context) return;
      element.width = image.width;
      element.height = image.height;
      const redraw = () => {
        context.globalAlpha = 1;
        context.drawImage(image, 0, 0);
        const veil = new OffscreenCanvas(image.width, image.height);
        const painter = veil.getContext("2d") as unknown as CanvasRenderingContext2D;
        brush.paint(painter, "#ff4a2a");
        context.globalAlpha = 0.6;
        context.drawImage(veil, 0, 0);
        onChange(!brush.isEmpty);
      };
      brush.bind(image.width, image.height, redraw);
      redraw();
    });
    return () => {
      isCurrent = false;
    };
  }, [blob, brush]);

  const at = (event: PointerEvent): [number, number] => {
    const element = event.currentTarget as HTMLCanvasElement;
    const box = element.getBoundingClientRect();
    const scale = element.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  };
  return (
    <canvas
      ref={canvas}
      class="mask"
      role="img"
      aria-label="The picture to change, with what is painted over"
      onPointerDown={(event) => {
        const element = event.currentTarget;
        element.setPointerCapture(event.pointerId);
        brush.begin((size * element.width) / 256, ...at(event));
      }}
      onPointerMove={(event) => {
        if (event.buttons & 1) brush.extend(...at(event));
      }}
    />
  );
}
