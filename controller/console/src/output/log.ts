// The output of a run as the page keeps it: lines, bounded.
//
// A page keeps the newest lines of each run, up to a limit in characters; the whole output is a download away.

import type { Schemas } from "../api/client";
import { decode, lastOfLine, plain } from "./text";

/** A step of a typed action, as it was last told. */
export type ToldStep = Schemas["StepEvent"];

export type Line = { text: string; stream: "stdout" | "stderr" | "marker" };

/** Characters of output kept per run. */
export const KEEP = 512 * 1024;
/** A line is broken after this many characters, so that one endless line stays readable. */
const BREAK = 8_192;
/** Steps kept per run; no action has as many. */
const MAX_STEPS = 200;

export class OutputLog {
  readonly lines: Line[] = [];
  /** Whether older lines were let go. */
  truncated = false;
  /** The steps that were told of, in the order in which they began. */
  readonly steps: ToldStep[] = [];
  private size = 0;
  private open = false;

  append(pieces: Schemas["OutputPiece"][]): void {
    for (const piece of pieces) {
      if (piece.step) {
        this.tell(piece.step);
      } else if (piece.dropped != null) {
        this.mark(
          `${piece.dropped.toLocaleString("en")} bytes dropped here by the output limit or a full disk`,
        );
      } else {
        this.write(
          plain(piece.text ?? decode(piece.base64 ?? "")),
          piece.stream === "stderr" ? "stderr" : "stdout",
        );
      }
    }
    this.trim();
  }

  /** The newest line with something on it. */
  last(): string {
    for (let index = this.lines.length - 1; index >= 0; index -= 1) {
      const text = lastOfLine(this.lines[index]?.text ?? "").trim();
      if (text !== "") return text;
    }
    return "";
  }

  /** Takes what is told of a step. Its words are written as output too. */
  private tell(told: ToldStep): void {
    const step = { ...told, step: plain(told.step), words: plain(told.words) };
    const at = this.steps.findIndex((known) => known.step === step.step);
    if (at >= 0) this.steps[at] = step;
    else if (this.steps.length < MAX_STEPS) this.steps.push(step);
  }

  private write(text: string, stream: "stdout" | "stderr"): void {
    const parts = text.split("\n");
    parts.forEach((part, index) => {
      const ends = index < parts.length - 1;
      if (part === "" && !ends) return;
      const tail = this.lines.at(-1);
      if (this.open && tail && tail.stream === stream && tail.text.length < BREAK) {
        tail.text += part;
      } else {
        this.lines.push({ text: part, stream });
      }
      this.size += part.length + 1;
      this.open = !ends;
    });
  }

  private mark(text: string): void {
    this.lines.push({ text, stream: "marker" });
    this.open = false;
  }

  private trim(): void {
    if (this.size <= KEEP) return;
    let drop = 0;
    while (this.size > KEEP * 0.75 && drop < this.lines.length - 1) {
      this.size -= (this.lines[drop]?.text.length ?? 0) + 1;
      drop += 1;
    }
    this.lines.splice(0, drop);
    this.truncated = true;
  }
}
