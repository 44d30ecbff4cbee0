import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import type { Schemas } from "../api/client";
import { useKinds, useOperations } from "../api/queries";
import { Progress } from "../run/progress";
import { RunButtons } from "../run/run_buttons";
import { Empty, Failure, Loading, Stale } from "../ui/notice";
import { DryRunTag, OperationBadge } from "../ui/state";
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
  const status = STATUSES.find((known) => known === query.status);
  const operations = useOperations({
    ...(status ? { status } : {}),
    ...(query.kind ? { kind: query.kind } : {}),
    ...(query.subject ? { subject: query.subject } : {}),
    ...(query.host ? { host: query.host } : {}),
  });
  const actions = useKinds().data?.filter((kind) => kind.family === "action") ?? [];
  // A kind that is asked for stays to be seen, whatever the controller knows today.
  const kinds = [...new Set([...actions.map((kind) => kind.name), ...(query.kind ? [query.kind] : [])])];
  const rows = operations.data?.pages.flatMap((page) => page.items) ?? [];
  const change = (next: Partial<typeof query>) =>
    void navigate({ search: (previous) => ({ ...previous, ...next }), replace: true });
  return (
    <>
      <header className="page">
        <h1>Operations</h1>
        <div className="actions">
          <RunButtons />
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
        <label>
          <span className="visually-hidden">Kind</span>
          <select value={query.kind ?? ""} onChange={(event) => change({ kind: event.target.value })}>
            <option value="">Any kind</option>
            {kinds.map((known) => (
              <option key={known}>{known}</option>
            ))}
          </select>
        </label>
        {(["subject", "host"] as const).map(
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
        <Empty
          title={
            status || query.kind || query.subject || query.host
              ? "No operation matches"
              : "Nothing has run yet"
          }
        />
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
          <th scope="col">Subject</th>
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
            <td data-title="Subject">
              <span>
                {operation.steps.map((step) => step.subject).join(", ")} {operation.dry_run && <DryRunTag />}
              </span>
            </td>
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
