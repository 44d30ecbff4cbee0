// Server-sent events of an answer to a request of our own. `EventSource` can only GET.
// https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

export type ServerEvent = { name: string; data: string };

/** The longest line that is kept: an event carries one item of at most 8 KiB, escaped. */
const MAX_PENDING = 1024 * 1024;

/** Makes events of a stream's text, wherever it is cut. */
export class EventReader {
  private pending = "";
  private name = "";
  private data: string[] = [];

  /** The events that end within this piece. */
  push(piece: string): ServerEvent[] {
    const lines = (this.pending + piece).split(/\r\n|\n|\r(?!$)/);
    this.pending = lines.pop() ?? "";
    if (this.pending.length > MAX_PENDING)
      throw new Error("the answer has a line that is too long to be read");
    return lines.flatMap((line) => this.line(line));
  }

  private line(line: string): ServerEvent[] {
    if (line === "") {
      const event = { name: this.name || "message", data: this.data.join("\n") };
      const isEvent = this.data.length > 0;
      this.name = "";
      this.data = [];
      return isEvent ? [event] : [];
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.name = value;
    if (field === "data") this.data.push(value);
    return [];
  }
}
