import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useEffect, useState } from "react";
import type { Schemas } from "../api/client";
import { useHosts } from "../api/queries";
import { RunButtons } from "../run/run_buttons";
import { Empty, Failure, Loading, Stale } from "../ui/notice";
import { EnrolmentBadge, StatusBadge } from "../ui/state";
import { Ago } from "../ui/time";
import { AddHost } from "./host_add";

const COLUMNS = [
  { key: "name", title: "Host" },
  { key: "status", title: "Status" },
  { key: "type", title: "Type" },
  { key: "os", title: "System" },
  { key: undefined, title: "Tags" },
  { key: "latency", title: "Latency" },
  { key: "last-seen", title: "Last seen" },
] as const;

export function HostsPage() {
  const query = useSearch({ from: "/shell/hosts" });
  const navigate = useNavigate({ from: "/hosts" });
  const [adding, setAdding] = useState(false);
  const hosts = useHosts({
    ...(query.search ? { search: query.search } : {}),
    ...(query.type ? { type: query.type } : {}),
    ...(query.tag ? { tag: query.tag } : {}),
    ...(query.sort ? { sort: query.sort } : {}),
    ...(query.status === "online" || query.status === "offline" ? { status: query.status } : {}),
    ...(isEnrolment(query.enrolment) ? { enrolment: query.enrolment } : {}),
  });
  const change = (next: Partial<typeof query>) =>
    void navigate({ search: (previous) => ({ ...previous, ...next }), replace: true });
  const rows = hosts.data?.pages.flatMap((page) => page.items) ?? [];
  const filtered = Object.entries(query).some(([key, value]) => key !== "sort" && value);

  return (
    <>
      <header className="page">
        <h1>Hosts</h1>
        <div className="actions">
          <button type="button" onClick={() => setAdding(true)}>
            Add a host
          </button>
          <RunButtons on={query.tag ? `tag:${query.tag}` : "all"} />
        </div>
      </header>
      <div className="filters">
        <Search value={query.search ?? ""} onChange={(search) => change({ search })} />
        <label>
          <span className="visually-hidden">Status</span>
          <select value={query.status ?? ""} onChange={(event) => change({ status: event.target.value })}>
            <option value="">Any status</option>
            <option value="online">Online</option>
            <option value="offline">Offline</option>
          </select>
        </label>
        <label>
          <span className="visually-hidden">Enrolment</span>
          <select
            value={query.enrolment ?? ""}
            onChange={(event) => change({ enrolment: event.target.value })}
          >
            <option value="">Any enrolment</option>
            <option value="enrolled">Enrolled</option>
            <option value="pending">Not enrolled</option>
            <option value="quarantined">Awaits approval</option>
            <option value="revoked">Revoked</option>
          </select>
        </label>
        {query.tag && (
          <button type="button" className="tag active" onClick={() => change({ tag: "" })}>
            {query.tag} <span aria-hidden="true">✕</span>
            <span className="visually-hidden">remove this filter</span>
          </button>
        )}
      </div>
      {hosts.isPending && <Loading />}
      {hosts.error && rows.length === 0 && <Failure error={hosts.error} retry={() => void hosts.refetch()} />}
      {hosts.isRefetchError && rows.length > 0 && <Stale since={hosts.dataUpdatedAt} />}
      {hosts.isSuccess && rows.length === 0 && !filtered && (
        <Empty title="No hosts yet">
          <p>
            Add one here and run the command it prints on the machine, or list them in <code>links.yaml</code>{" "}
            of the <Link to="/inventory">inventory repository</Link>.
          </p>
          <button type="button" className="primary" onClick={() => setAdding(true)}>
            Add a host
          </button>
        </Empty>
      )}
      {hosts.isSuccess && rows.length === 0 && filtered && (
        <Empty title="No host matches">
          <button
            type="button"
            onClick={() => change({ search: "", status: "", tag: "", type: "", enrolment: "" })}
          >
            Show all hosts
          </button>
        </Empty>
      )}
      {rows.length > 0 && (
        <table className="list">
          <thead>
            <tr>
              {COLUMNS.map((column) => (
                <SortHeader
                  key={column.title}
                  title={column.title}
                  by={column.key}
                  sort={query.sort ?? "name"}
                  onSort={(sort) => change({ sort })}
                />
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((host) => (
              <HostRow key={host.id} host={host} onTag={(tag) => change({ tag })} />
            ))}
          </tbody>
        </table>
      )}
      {hosts.hasNextPage && (
        <button type="button" disabled={hosts.isFetchingNextPage} onClick={() => void hosts.fetchNextPage()}>
          {hosts.isFetchingNextPage ? "Loading…" : "Show more"}
        </button>
      )}
      {adding && <AddHost onClose={() => setAdding(false)} />}
    </>
  );
}

function HostRow({ host, onTag }: { host: Schemas["Host"]; onTag: (tag: string) => void }) {
  return (
    <tr>
      <td data-title="Host">
        <Link to="/hosts/$name" params={{ name: host.name }} className="strong">
          {host.name}
        </Link>
        {host.duplicate_identity && (
          <span className="warn-mark" title="Two machines use this host's identity">
            2 machines
          </span>
        )}
        {host.notice && (
          <span className="warn-mark" title={host.notice}>
            !<span className="visually-hidden">{host.notice}</span>
          </span>
        )}
      </td>
      <td data-title="Status">
        {host.enrolment === "enrolled" ? (
          <StatusBadge status={host.status} />
        ) : (
          <EnrolmentBadge enrolment={host.enrolment} />
        )}
      </td>
      <td data-title="Type">{host.type}</td>
      <td data-title="System">{host.facts?.os_name ?? <span className="muted">unknown</span>}</td>
      <td data-title="Tags">
        <span className="tags">
          {host.tags.map((tag) => (
            <button key={tag} type="button" className="tag" onClick={() => onTag(tag)}>
              {tag}
            </button>
          ))}
        </span>
      </td>
      <td data-title="Latency" className="number">
        {host.latency_ms == null ? <span className="muted">–</span> : latency(host.latency_ms)}
      </td>
      <td data-title="Last seen">
        {host.status === "online" ? <span className="muted">now</span> : <Ago time={host.last_seen} />}
      </td>
    </tr>
  );
}

function SortHeader({
  title,
  by,
  sort,
  onSort,
}: {
  title: string;
  by: string | undefined;
  sort: string;
  onSort: (sort: string) => void;
}) {
  if (!by) return <th scope="col">{title}</th>;
  const ascending = sort === by;
  const descending = sort === `-${by}`;
  return (
    <th scope="col" aria-sort={ascending ? "ascending" : descending ? "descending" : "none"}>
      <button type="button" className="sort" onClick={() => onSort(ascending ? `-${by}` : by)}>
        {title}
        <span aria-hidden="true">{ascending ? " ↑" : descending ? " ↓" : ""}</span>
      </button>
    </th>
  );
}

export function Search({ value, onChange }: { value: string; onChange: (value: string) => void }) {
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  useEffect(() => {
    if (text === value) return;
    const timer = setTimeout(() => onChange(text), 200);
    return () => clearTimeout(timer);
  }, [text, value, onChange]);
  return (
    <label className="search">
      <span className="visually-hidden">Search</span>
      <input
        type="search"
        placeholder="Search  /"
        value={text}
        onChange={(event) => setText(event.target.value)}
      />
    </label>
  );
}

export const latency = (ms: number): string => `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;

const isEnrolment = (text: string | undefined): text is Schemas["Enrolment"] =>
  text === "pending" || text === "enrolled" || text === "quarantined" || text === "revoked";
