import { useState } from "react";

/** Text to take away, with a button that copies it. */
export function Copy({ text, label }: { text: string; label: string }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setCopied(true);
    } catch {
      setCopied(false); // no clipboard without a secure context; the text can be selected
    }
  };
  return (
    <div className="copy">
      <code>{text}</code>
      <button type="button" aria-label={label} onClick={copy}>
        {copied ? "Copied" : "Copy"}
      </button>
    </div>
  );
}
