// A value that is bytes: text as text, anything else by its size.

import { decoded, textOfPiece } from "../output/bytes";
import { plain, visible } from "../output/text";
import { bytes } from "../ui/time";

/** `after` is the piece that follows, where this is one of several. */
export function Bytes({ value, after }: { value: string; after?: unknown }) {
  const piece = decoded(value);
  if (!piece) return <code>{visible(value)}</code>;
  if (piece.length === 0) return <span className="muted">empty</span>;
  const text = textOfPiece(piece, typeof after === "string" ? decoded(after) : undefined);
  if (text === undefined) return <span className="muted">no text, {bytes(piece.length)}</span>;
  return <span className="lines">{plain(text).replace(/\n$/, "").split("\n").map(visible).join("\n")}</span>;
}
