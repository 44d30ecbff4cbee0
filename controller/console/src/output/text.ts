// What a host wrote, as text that is safe and readable.
//
// Output is hostile: it is only ever put on the page as text. Terminal control sequences are removed, as a
// page is no terminal; a carriage return starts its line again, as a progress bar means it to.

/** Removes control sequences (ECMA-48: CSI, OSC, DCS and two-byte escapes) and control characters but tab and newline. */
export function plain(text: string): string {
  return (
    text
      // biome-ignore lint/suspicious/noControlCharactersInRegex: removing them is what this is for
      .replace(/\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])/g, "")
      .replace(/\r+\n/g, "\n")
      // biome-ignore lint/suspicious/noControlCharactersInRegex: removing them is what this is for
      .replace(/[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]/g, "")
      .replaceAll("\u001b", "")
  );
}

/** Shows what would turn the order of characters around or hide some (UAX 9), instead of obeying it. */
export function visible(text: string): string {
  return text.replace(/[\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, (char) => {
    const code = char.charCodeAt(0).toString(16).toUpperCase();
    return `\u27e8U+${code.padStart(4, "0")}\u27e9`;
  });
}

/** What is left of a line after its carriage returns. */
export function lastOfLine(line: string): string {
  const trimmed = line.endsWith("\r") ? line.slice(0, -1) : line;
  return trimmed.slice(trimmed.lastIndexOf("\r") + 1);
}

/** The text of base64 bytes; bytes that are no UTF-8 become U+FFFD. */
export function decode(base64: string): string {
  const binary = atob(base64);
  return new TextDecoder().decode(Uint8Array.from(binary, (char) => char.charCodeAt(0)));
}
