// One operation, live: a row per run, its newest line, and its output when it is opened.

import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { useMemo, useState } from "react";
import type { Schemas } from "../api/client";
import { type Connection, type LiveOperation, useLiveOperation } from "../api/events";
import { useKinds, useOperationStop, useRun } from "../api/queries";
import { fieldsOf } from "../kind/schema";
import { OutputView } from "../output/output_view";
import { countStates, Progress } from "../run/progress";
import { RunRows } from "../run/run_rows";
import { StepList } from "../run/step_list";
import { Dialog } from "../ui/dialog";
import { Empty, Failure, Loading } from "../ui/notice";
import { DryRunTag, isLive, OperationBadge } from "../ui/state";
import { Ago, duration, useNow } from "../ui/time";

const FILTERS = ["all", "failed", "running", "waiting", "succeeded"] as const;
type Filter = (typeof FILTERS)[number];

export function OperationPage() {
  const { id } = useParams({ from: "/shell/operations/$id" });
  const live = useLiveOperation(id);
  if (!live.operation) {
    if (live.connection === "ended") {
      return (
        <Empty title={`There is no operation ${id}`}>
          <Link to="/operations">All operations</Link>
        </Empty>
      );
    }
    return <Loading />;
  }
  return <Operation live={live} operation={live.operation} />;
}

function Operation({ live, operation }: { live: LiveOperation; operation: Schemas["Operation"] }) {
  const search = useSearch({ from: "/shell/operations/$id" });
  const navigate = useNavigate({ from: "/operations/$id" });
  const filter: Filter = FILTERS.find((known) => known === search.state) ?? "all";
  // biome-ignore lint/correctness/useExhaustiveDependencies: the map is changed in place; its version tells
  const runs = useMemo(
    () => [...live.runs.values()].sort((a, b) => collator.compare(a.host, b.host) || a.step - b.step),
    [live.version],
  );
  const shown = runs.filter((run) => matches(run, filter));
  const only = runs.length === 1 ? runs[0] : undefined;
  const opened = runs.find((run) => run.id === search.run) ?? only;
  // Of a run whose report was let go it is loaded while it is open.
  const loaded = useRun(opened && live.reports.letGo.has(opened.id) ? opened.id : undefined);
  const report = opened?.report ?? loaded.data?.report;
  const kind = useKinds().data?.find((known) => known.name === opened?.kind);
  const open = (run: string | undefined) =>
    void navigate({
      search: (previous) => {
        const { run: _, ...rest } = previous;
        return run ? { ...rest, run } : rest;
      },
      replace: true,
    });
  const choose = (state: Filter) =>
    void navigate({
      search: (previous) => {
        const { state: _, ...rest } = previous;
        return state === "all" ? rest : { ...rest, state };
      },
      replace: true,
    });

  return (
    <>
      <Header operation={operation} connection={live.connection} />
      <Progress counts={runs.length > 0 ? countStates(runs) : operation.counts} />
      {operation.status_detail && <p className="notice">{operation.status_detail}</p>}
      {runs.length > 1 && (
        <div className="filters" role="toolbar" aria-label="Runs shown">
          {FILTERS.map((known) => (
            <button
              key={known}
              type="button"
              aria-pressed={known === filter}
              className="tag"
              onClick={() => choose(known)}
            >
              {known} {runs.filter((run) => matches(run, known)).length}
            </button>
          ))}
        </div>
      )}
      <div className={opened && runs.length > 1 ? "split" : undefined}>
        {!only && (
          <RunRows
            runs={shown}
            steps={operation.steps}
            isDryRun={operation.dry_run === true}
            live={live}
            opened={opened?.id}
            onOpen={open}
          />
        )}
        {opened && (
          <OutputView
            run={report ? { ...opened, report } : opened}
            log={live.logs.get(opened.id)}
            version={live.version}
            fields={kind && fieldsOf(kind.answer)}
            isDryRun={operation.dry_run === true}
            {...(only ? {} : { onClose: () => open(undefined) })}
          />
        )}
      </div>
    </>
  );
}

function Header({ operation, connection }: { operation: Schemas["Operation"]; connection: Connection }) {
  const stop = useOperationStop(operation.id);
  const [asking, setAsking] = useState(false);
  const running = isLive(operation.status);
  const now = useNow(1000);
  const end = operation.ended_at ? Date.parse(operation.ended_at) : now;
  return (
    <>
      <header className="page">
        <div>
          <Link to="/operations" className="crumb">
            Operations
          </Link>
          <h1>
            {operation.number} <OperationBadge status={operation.status} />
            {operation.dry_run && <DryRunTag />}
          </h1>
          {operation.dry_run && (
            <p className="muted">Its hosts only tell what they would change. Nothing is changed.</p>
          )}
        </div>
        <div className="actions">
          {connection === "lost" && (
            <span className="fresh lost" role="status">
              ◌ Connection lost, trying again
            </span>
          )}
          {running && (
            <button type="button" className="danger" onClick={() => setAsking(true)}>
              Stop…
            </button>
          )}
        </div>
      </header>
      <StepList steps={operation.steps} />
      <dl className="inline">
        <div>
          <dt>On</dt>
          <dd>
            <code>{operation.on}</code>
            {operation.left_out > 0 && (
              <span className="muted"> {operation.left_out} not enrolled left out</span>
            )}
          </dd>
        </div>
        <div>
          <dt>By</dt>
          <dd>
            {operation.created_by} <Ago time={operation.created_at} />
          </dd>
        </div>
        {operation.started_at && (
          <div>
            <dt>Took</dt>
            <dd>{duration(Math.max(0, end - Date.parse(operation.started_at)))}</dd>
          </div>
        )}
        {operation.reason && (
          <div>
            <dt>Why</dt>
            <dd>{operation.reason}</dd>
          </div>
        )}
      </dl>
      {stop.error && <Failure error={stop.error} />}
      {asking && (
        <Dialog title={`Stop ${operation.number}?`} onClose={() => setAsking(false)}>
          <div className="fields">
            <p>
              Nothing more is started. What runs gets SIGTERM, and SIGKILL after its grace time, with all its
              children. Hosts that are offline are told when they return.
            </p>
            <footer>
              <button type="button" onClick={() => setAsking(false)}>
                Cancel
              </button>
              <button
                type="button"
                className="danger"
                onClick={() => stop.mutate(undefined, { onSettled: () => setAsking(false) })}
              >
                Stop
              </button>
            </footer>
          </div>
        </Dialog>
      )}
    </>
  );
}

function matches(run: Schemas["Run"], filter: Filter): boolean {
  switch (filter) {
    case "all":
      return true;
    case "succeeded":
      return run.state === "succeeded";
    case "running":
      return run.state === "running";
    case "waiting":
      return run.state === "queued" || run.state === "dispatched" || run.state === "accepted";
    case "failed":
      return !["succeeded", "running", "queued", "dispatched", "accepted"].includes(run.state);
  }
}

const collator = new Intl.Collator("en", { numeric: true });
