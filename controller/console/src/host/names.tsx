// Several names in one cell.

import { visible } from "../output/text";

/** Names below each other, each cut off where there is no room for it; all of them where the pointer rests. */
export function Names({
  names,
  more = 0,
  title = names,
}: {
  names: string[];
  more?: number;
  title?: string[];
}) {
  if (names.length === 0 && more <= 0) return <span className="muted">–</span>;
  return (
    <span className="names" title={title.map(visible).join("\n")}>
      {names.map((name) => (
        <span key={name}>{visible(name)}</span>
      ))}
      {more > 0 && <span className="muted">and {more} more</span>}
    </span>
  );
}
