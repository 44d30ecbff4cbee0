import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useState } from "react";
import type { Schemas } from "../api/client";
import { useOperations } from "../api/queries";
import { Progress } from "../run/progress";
import { RunDialog } from "../run/run_dialog";
import { Empty, Failure, Loading, Stale } from "../ui/notice";
import { OperationBadge } from "../ui/state";
import { Ago } from "../ui/time";

const STATUSES: Schemas["OperationStatus"][] = [
  "queued",
  "running",
  "success",
  "failed",
  "partial",
  "stopped",
];

export function OperationsPage() {
  const query = useSearch({ from: "/shell/operations" });
  const navigate = useNavigate({ from: "/operations" });
  const [running, setRunning] = useState(false);
  const status = STATUSES.find((known) => known === query.status);
  const operations = useOperations({
    ...(status ? { status } : {}),
    ...(query.script ? { script: query.script } : {}),
    ...(query.host ? { host: query.host } : {}),
  });
  const rows = operations.data?.pages.flatMap((page) => page.items) ?? [];
  const change = (next: Partial<typeof query>) =>
    void navigate({ search: (previous) => ({ ...previous, ...next }), replace: true });
  return (
    <>
      <header className="page">
        <h1>Operations</h1>
        <div className="actions">
          <button type="button" className="primary" data-key="r" onClick={() => setRunning(true)}>
            Run a script…
          </button>
        </div>
      </header>
      <div className="filters">
        <label>
          <span className="visually-hidden">Status</span>
          <select value={status ?? ""} onChange={(event) => change({ status: event.target.value })}>
            <option value="">Any status</option>
            {STATUSES.map((known) => (
              <option key={known}>{known}</option>
            ))}
          </select>
        </label>
        {(["script", "host"] as const).map(
          (key) =>
            query[key] && (
              <button key={key} type="button" className="tag active" onClick={() => change({ [key]: "" })}>
                {key} {query[key]} <span aria-hidden="true">✕</span>
                <span className="visually-hidden">remove this filter</span>
              </button>
            ),
        )}
      </div>
      {operations.isPending && <Loading />}
      {operations.error && rows.length === 0 && (
        <Failure error={operations.error} retry={() => void operations.refetch()} />
      )}
      {operations.isRefetchError && rows.length > 0 && <Stale since={operations.dataUpdatedAt} />}
      {operations.isSuccess && rows.length === 0 && (
        <Empty title={status || query.script || query.host ? "No operation matches" : "Nothing has run yet"}>
          <button type="button" className="primary" onClick={() => setRunning(true)}>
            Run a script…
          </button>
        </Empty>
      )}
      {rows.length > 0 && <OperationTable operations={rows} />}
      {operations.hasNextPage && (
        <button
          type="button"
          disabled={operations.isFetchingNextPage}
          onClick={() => void operations.fetchNextPage()}
        >
          {operations.isFetchingNextPage ? "Loading…" : "Show more"}
        </button>
      )}
      {running && <RunDialog onClose={() => setRunning(false)} />}
    </>
  );
}

export function OperationTable({ operations }: { operations: Schemas["Operation"][] }) {
  return (
    <table className="list">
      <thead>
        <tr>
          <th scope="col">Operation</th>
          <th scope="col">Status</th>
          <th scope="col">Scripts</th>
          <th scope="col">On</th>
          <th scope="col">Hosts</th>
          <th scope="col">By</th>
          <th scope="col">When</th>
        </tr>
      </thead>
      <tbody>
        {operations.map((operation) => (
          <tr key={operation.id}>
            <td data-title="Operation">
              <Link to="/operations/$id" params={{ id: operation.number }} className="strong">
                {operation.number}
              </Link>
            </td>
            <td data-title="Status">
              <OperationBadge status={operation.status} />
            </td>
            <td data-title="Scripts">{operation.scripts.map((script) => script.name).join(", ")}</td>
            <td data-title="On">
              <code className="clip">{operation.on}</code>
            </td>
            <td data-title="Hosts">
              <Progress counts={operation.counts} compact />
            </td>
            <td data-title="By">{operation.created_by}</td>
            <td data-title="When">
              <Ago time={operation.created_at} />
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
