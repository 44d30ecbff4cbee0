// The output of one run: lines as they come, following the end unless the reader scrolled away.

import { useVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useRef, useState } from "react";
import type { Schemas } from "../api/client";
import { Changes, changesOf } from "../kind/changes";
import type { Field } from "../kind/schema";
import { Values } from "../kind/values";
import { sentence } from "../ui/notice";
import { RunBadge } from "../ui/state";
import { bytes, duration } from "../ui/time";
import type { OutputLog } from "./log";
import { StepEvents } from "./step_events";
import { lastOfLine } from "./text";

export function OutputView({
  run,
  log,
  version,
  fields,
  isDryRun = false,
  onClose,
}: {
  run: Schemas["Run"];
  log: OutputLog | undefined;
  version: number;
  /** What its report has in it, where the controller says so. */
  fields?: Field[] | undefined;
  /** Whether its report is what it would change. */
  isDryRun?: boolean;
  onClose?: () => void;
}) {
  const scroller = useRef<HTMLDivElement>(null);
  const [following, setFollowing] = useState(true);
  const lines = log?.lines ?? [];
  const rows = useVirtualizer({
    count: lines.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => 19,
    overscan: 40,
  });
  const { scrollToIndex } = rows;

  // biome-ignore lint/correctness/useExhaustiveDependencies: every new version may have new lines
  useEffect(() => {
    if (following && lines.length > 0) scrollToIndex(lines.length - 1, { align: "end" });
  }, [version, following, lines.length, run.id, scrollToIndex]);

  const scrolled = () => {
    const element = scroller.current;
    if (element) setFollowing(element.scrollHeight - element.scrollTop - element.clientHeight < 24);
  };
  const download = `/api/v1/runs/${run.id}/output`;
  return (
    <section className="output" aria-label={`Output of ${run.subject} on ${run.host}`}>
      <header>
        <h2>
          {run.host} <RunBadge state={run.state} />
        </h2>
        <p className="muted small">
          {run.state_detail && <>{run.state_detail} · </>}
          {run.duration_ms != null && <>{duration(run.duration_ms)} · </>}
          {bytes(run.output_bytes)}
          {run.reattached > 0 && <> · re-attached {run.reattached} ×</>}
          {run.output_dropped > 0 && <> · {bytes(run.output_dropped)} dropped by the limit or a full disk</>}
        </p>
        <div className="actions">
          <a href={download} download>
            Download
          </a>
          {onClose && (
            <button type="button" className="quiet" aria-label="Close the output" onClick={onClose}>
              ✕
            </button>
          )}
        </div>
      </header>
      {log && <StepEvents steps={log.steps} />}
      {run.report && (
        <details className="reported" open>
          <summary>{isDryRun ? "What would change" : "Report"}</summary>
          {isDryRun && changesOf(run.report) ? (
            <Changes report={run.report} />
          ) : (
            <Values values={run.report} fields={fields} />
          )}
        </details>
      )}
      {log?.truncated && (
        <p className="notice small">
          Older lines were let go here to keep the page light. <a href={download}>Download all of it</a>.
        </p>
      )}
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by keyboard */}
      <div className="terminal" ref={scroller} onScroll={scrolled} role="log" tabIndex={0}>
        {lines.length === 0 && <p className="muted">{quiet(run)}</p>}
        <div style={{ height: rows.getTotalSize(), position: "relative" }}>
          {rows.getVirtualItems().map((item) => {
            const line = lines[item.index];
            return (
              <div
                key={item.key}
                data-index={item.index}
                ref={rows.measureElement}
                className={`line ${line?.stream ?? ""}`}
                style={{ transform: `translateY(${item.start}px)` }}
              >
                {lastOfLine(line?.text ?? "") || "\u00a0"}
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
    </section>
  );
}

function quiet(run: Schemas["Run"]): string {
  switch (run.state) {
    case "queued":
    case "dispatched":
    case "accepted":
      return run.state_detail ? sentence(run.state_detail) : "It has not started yet.";
    case "running":
      return "It has written nothing so far.";
    default:
      return run.started_at ? "It wrote nothing." : "It never started.";
  }
}
