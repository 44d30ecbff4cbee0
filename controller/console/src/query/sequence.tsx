// Entries as they come, following the end unless the reader scrolled away. Only those in sight are on the page.

import { useVirtualizer } from "@tanstack/react-virtual";
import { type ReactNode, useEffect, useRef, useState } from "react";
import type { Asking, Told } from "../api/answer";

export function Sequence({
  asking,
  label,
  children,
}: {
  asking: Asking;
  label: string;
  children: (told: Told, index: number) => ReactNode;
}) {
  const scroller = useRef<HTMLDivElement>(null);
  const [following, setFollowing] = useState(true);
  const { answer, version } = asking;
  const entries = answer.items();
  const rows = useVirtualizer({
    count: entries.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => 19,
    overscan: 40,
    // Where older entries are let go, those that stay keep what was measured of them.
    getItemKey: (index) => answer.dropped + index,
  });
  const { scrollToIndex } = rows;

  // biome-ignore lint/correctness/useExhaustiveDependencies: every new version may have new entries
  useEffect(() => {
    if (following && entries.length > 0) scrollToIndex(entries.length - 1, { align: "end" });
  }, [version, following, entries.length, scrollToIndex]);

  const scrolled = () => {
    const element = scroller.current;
    if (element) setFollowing(element.scrollHeight - element.scrollTop - element.clientHeight < 24);
  };
  return (
    <div className="output sequence">
      {answer.dropped > 0 && (
        <p className="notice small" role="status">
          {answer.dropped.toLocaleString("en")} older entries were let go here to keep the page light: ask for
          a shorter time to see them.
        </p>
      )}
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by keyboard */}
      <div className="terminal" ref={scroller} onScroll={scrolled} role="log" aria-label={label} tabIndex={0}>
        <div style={{ height: rows.getTotalSize(), position: "relative" }}>
          {rows.getVirtualItems().map((item) => {
            const told = entries[item.index];
            return (
              <div
                key={item.key}
                data-index={item.index}
                ref={rows.measureElement}
                className="line"
                style={{ transform: `translateY(${item.start}px)` }}
              >
                {told && children(told, item.index)}
              </div>
            );
          })}
        </div>
      </div>
      {!following && (
        <button type="button" className="follow" onClick={() => setFollowing(true)}>
          ↓ Follow the end
        </button>
      )}
    </div>
  );
}
