// An argument line as people type it, split into an array. No expansion of any kind: `$x` stays `$x`.

export type Split = { words: string[] } | { error: string };

/** Splits at white space; single and double quotes group, a backslash takes the next character as it is. */
export function split(line: string): Split {
  const words: string[] = [];
  let word = "";
  let inside = false;
  let quote = "";
  for (let index = 0; index < line.length; index += 1) {
    const char = line.charAt(index);
    if (quote === "'") {
      if (char === "'") quote = "";
      else word += char;
    } else if (char === "\\") {
      const next = line.charAt(index + 1);
      if (next === "") return { error: "There is nothing after the last backslash." };
      // Within double quotes a backslash is itself unless it saves a quote or a backslash.
      word += quote === '"' && next !== '"' && next !== "\\" ? char + next : next;
      inside = true;
      index += 1;
    } else if (quote === '"') {
      if (char === '"') quote = "";
      else word += char;
    } else if (char === "'" || char === '"') {
      quote = char;
      inside = true;
    } else if (/\s/.test(char)) {
      if (inside) words.push(word);
      word = "";
      inside = false;
    } else {
      word += char;
      inside = true;
    }
  }
  if (quote !== "") return { error: `The ${quote === "'" ? "single" : "double"} quote is not closed.` };
  if (inside) words.push(word);
  return { words };
}
