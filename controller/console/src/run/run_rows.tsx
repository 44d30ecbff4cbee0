// The runs of an operation, a row each, of which only those in sight are on the page.

import { useVirtualizer } from "@tanstack/react-virtual";
import { useRef } from "react";
import type { Schemas } from "../api/client";
import type { LiveOperation } from "../api/events";
import { useKinds } from "../api/queries";
import { countOf } from "../kind/changes";
import { fieldsOf, type Json } from "../kind/schema";
import { isScalar, namesOf, plain } from "../kind/values";
import { RunBadge, runTone } from "../ui/state";
import { duration } from "../ui/time";

/** More columns than these would leave no room for any of them. */
const MAX_COLUMNS = 4;

export function RunRows({
  runs,
  steps,
  isDryRun,
  live,
  opened,
  onOpen,
}: {
  runs: Schemas["Run"][];
  steps: Schemas["OperationStep"][];
  isDryRun: boolean;
  live: LiveOperation;
  opened: string | undefined;
  onOpen: (run: string | undefined) => void;
}) {
  const scroller = useRef<HTMLDivElement>(null);
  const columns = useColumns(runs, isDryRun ? [] : steps);
  const rows = useVirtualizer({
    count: runs.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => 44,
    overscan: 12,
  });
  if (runs.length === 0) return <p className="muted">No run is in this state.</p>;
  const style = { "--columns": columns.length } as React.CSSProperties;
  return (
    <div className={columns.length > 0 ? "runs reporting" : "runs"} ref={scroller} style={style}>
      {columns.length > 0 && (
        <div className="row head" aria-hidden="true">
          <span>Host</span>
          <span>State</span>
          {columns.map((column) => (
            <span key={column} className="report">
              {column}
            </span>
          ))}
          <span className="detail" />
          <span />
        </div>
      )}
      <ul style={{ height: rows.getTotalSize() }}>
        {rows.getVirtualItems().map((item) => {
          const run = runs[item.index];
          if (!run) return null;
          const last = live.logs.get(run.id)?.last();
          return (
            <li key={run.id} style={{ transform: `translateY(${item.start}px)`, height: item.size }}>
              <button
                type="button"
                aria-expanded={run.id === opened}
                className={`row ${runTone(run.state)}`}
                onClick={() => onOpen(run.id === opened ? undefined : run.id)}
              >
                <span className="strong name">
                  {run.host}
                  {steps.length > 1 && <span className="muted"> {run.subject}</span>}
                </span>
                <RunBadge state={run.state} />
                {columns.map((column) => (
                  <span key={column} className="report">
                    <span className="visually-hidden">{column} </span>
                    {plain(run.report?.[column])}
                  </span>
                ))}
                <span className="detail">
                  {isDryRun && run.report && <span className="reason">{countOf(run.report)}</span>}
                  {live.reports.letGo.has(run.id) && (
                    <span className="reason">open it to see its report</span>
                  )}
                  {run.state_detail && <span className="reason">{run.state_detail}</span>}
                  <code>{last}</code>
                </span>
                <span className="muted number">
                  {run.duration_ms != null ? duration(run.duration_ms) : ""}
                </span>
              </button>
            </li>
          );
        })}
      </ul>
    </div>
  );
}

/** What the reports of an operation with one step have to tell in a word each. */
function useColumns(runs: Schemas["Run"][], steps: Schemas["OperationStep"][]): string[] {
  const kinds = useKinds().data ?? [];
  const [only, more] = steps;
  if (!only || more) return [];
  const kind = kinds.find((known) => known.name === only.kind);
  const reports: Json[] = runs.flatMap((run) => (run.report ? [run.report] : []));
  const isColumn = (name: string) =>
    reports.every((report) => isScalar(report[name])) && reports.some((report) => report[name] != null);
  return namesOf(reports, kind ? fieldsOf(kind.answer) : [])
    .filter(isColumn)
    .slice(0, MAX_COLUMNS);
}
