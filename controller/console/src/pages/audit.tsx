import { useNavigate, useSearch } from "@tanstack/react-router";
import { useAudit } from "../api/queries";
import { Empty, Failure, Loading } from "../ui/notice";
import { Ago } from "../ui/time";
import { Search } from "./hosts";

export function AuditPage() {
  const query = useSearch({ from: "/shell/audit" });
  const navigate = useNavigate({ from: "/audit" });
  const audit = useAudit({ ...(query.action ? { action: query.action } : {}) });
  const events = audit.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <>
      <header className="page">
        <h1>Audit</h1>
      </header>
      <div className="filters">
        <Search
          value={query.action ?? ""}
          onChange={(action) => void navigate({ search: action ? { action } : {}, replace: true })}
        />
        <span className="muted small">
          an action such as login.refused, or with a dot at its end all that begin with it: host.
        </span>
      </div>
      {audit.isPending && <Loading />}
      {audit.error && events.length === 0 && (
        <Failure error={audit.error} retry={() => void audit.refetch()} />
      )}
      {audit.isSuccess && events.length === 0 && <Empty title="No event matches" />}
      {events.length > 0 && (
        <table className="list">
          <thead>
            <tr>
              <th scope="col">When</th>
              <th scope="col">Who</th>
              <th scope="col">What</th>
              <th scope="col">To</th>
              <th scope="col">From</th>
              <th scope="col">Particulars</th>
            </tr>
          </thead>
          <tbody>
            {events.map((event) => (
              <tr key={event.seq}>
                <td data-title="When" className="word">
                  <Ago time={event.at} />
                </td>
                <td data-title="Who" className="word">
                  {event.actor}
                </td>
                <td data-title="What" className="word">
                  <code>{event.action}</code>
                </td>
                <td data-title="To">{event.subject ?? <span className="muted">–</span>}</td>
                <td data-title="From">{event.remote ?? <span className="muted">–</span>}</td>
                <td data-title="Particulars" className="rest">
                  <code className="clip" title={JSON.stringify(event.details)}>
                    {particulars(event.details)}
                  </code>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {audit.hasNextPage && (
        <button type="button" disabled={audit.isFetchingNextPage} onClick={() => void audit.fetchNextPage()}>
          {audit.isFetchingNextPage ? "Loading…" : "Show more"}
        </button>
      )}
    </>
  );
}

function particulars(details: Record<string, unknown> | undefined): string {
  return Object.entries(details ?? {})
    .map(([key, value]) => `${key}=${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(" ");
}
