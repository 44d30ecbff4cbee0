// Bytes that come as base64: text, where they are some.

/** The bytes; nothing where it is no base64. */
export function decoded(base64: string): Uint8Array | undefined {
  try {
    return Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
  } catch {
    return undefined;
  }
}

/** The text of these bytes; nothing where they are none. A character that is cut off at the end is left out. */
export function textIn(content: Uint8Array): string | undefined {
  if (content.includes(0)) return undefined;
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: false }).decode(content, { stream: true });
  } catch {
    return undefined;
  }
}

/**
 * The text of one piece of several. A character that is cut in two stands whole in the piece that it begins in: the rest of
 * it comes from the piece `after`.
 */
export function textOfPiece(piece: Uint8Array, after: Uint8Array | undefined): string | undefined {
  const begins = restOfCharacter(piece);
  const rest = after ? after.subarray(0, restOfCharacter(after)) : new Uint8Array();
  const whole = new Uint8Array(piece.length - begins + rest.length);
  whole.set(piece.subarray(begins));
  whole.set(rest, piece.length - begins);
  return textIn(whole);
}

/** How many bytes at the front belong to a character that began before them (RFC 3629: at most three, 10xxxxxx). */
function restOfCharacter(content: Uint8Array): number {
  let count = 0;
  while (count < 3 && ((content[count] ?? 0) & 0xc0) === 0x80) count += 1;
  return count;
}
