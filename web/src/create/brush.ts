/** What was painted on a picture; strokes, in its pixels, so that they can be undone. */

interface Stroke {
  size: number;
  points: [number, number][];
}

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

  paint(context: CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D, colour: string): void {
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

  /** A PNG of the picture's size, transparent where it is to be painted anew; null: nothing was painted.
   *
   * Rejects where a browser has no room for it: without its mask, all of the picture would be made anew.
   */
  async mask(): Promise<Blob | null> {
    if (this.isEmpty) return null;
    const canvas = document.createElement("canvas");
    canvas.width = this.width;
    canvas.height = this.height;
    const context = canvas.getContext("2d");
    if (context !== null) {
      context.fillRect(0, 0, this.width, this.height);
      context.globalCompositeOperation = "destination-out";
      this.paint(context, "#000");
    }
    const mask = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve));
    if (mask === null) throw new Error("The picture is too large for this browser to paint on.");
    return mask;
  }
}
