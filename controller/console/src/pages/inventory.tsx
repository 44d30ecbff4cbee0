import type { Schemas } from "../api/client";
import { ApiError } from "../api/client";
import { useRepo, useSync, useSyncs } from "../api/queries";
import { Copy } from "../ui/copy";
import { Empty, Failure, Loading, Stale, sentence } from "../ui/notice";
import { Badge } from "../ui/state";
import { Ago } from "../ui/time";

export function InventoryPage() {
  const repo = useRepo();
  const syncs = useSyncs();
  const sync = useSync();
  const last = repo.data?.last_sync;
  const waiting = last?.status === "waiting" ? last : null;
  const missing = repo.error instanceof ApiError && repo.error.status === 404;
  return (
    <>
      <header className="page">
        <h1>Inventory</h1>
        {repo.data && (
          <div className="actions">
            <button
              type="button"
              className="primary"
              disabled={sync.isPending}
              onClick={() => sync.mutate(null)}
            >
              {sync.isPending ? "Syncing…" : "Sync now"}
            </button>
          </div>
        )}
      </header>
      {repo.isPending && <Loading />}
      {missing && (
        <Empty title="No inventory repository yet">
          <p>
            Hosts and scripts can live in a git repository. Name it with the command line, so that its
            credentials never pass through a browser:
          </p>
          <Copy text="fleetward repo set https://git.example.com/ops/fleet.git --branch main" label="Copy" />
        </Empty>
      )}
      {repo.error && !missing && !repo.data && (
        <Failure error={repo.error} retry={() => void repo.refetch()} />
      )}
      {repo.isRefetchError && repo.data && <Stale since={repo.dataUpdatedAt} />}
      {sync.error && <Failure error={sync.error} />}
      {repo.data && (
        <section className="card">
          <dl>
            <div>
              <dt>Repository</dt>
              <dd>
                <code>{repo.data.url}</code>
              </dd>
            </div>
            <div>
              <dt>Branch</dt>
              <dd>{repo.data.branch}</dd>
            </div>
            <div>
              <dt>In force</dt>
              <dd>
                <InForce repo={repo.data} />
              </dd>
            </div>
            <div>
              <dt>Syncs</dt>
              <dd>
                {repo.data.interval_minutes === 0
                  ? "on demand only"
                  : `every ${repo.data.interval_minutes} minutes`}
              </dd>
            </div>
          </dl>
        </section>
      )}
      {repo.data && !repo.data.last_sync && (
        <p className="muted">This repository and branch were not synchronised yet.</p>
      )}
      {waiting?.departures && waiting.commit && (
        <section className="card">
          <h2>Commit {waiting.commit.slice(0, 12)} waits for you</h2>
          <p>
            It takes away so much that it is not put in force by itself. What was in force before stays in
            force.
          </p>
          <Leave what="hosts" leaving={waiting.departures.hosts} />
          <Leave what="scripts" leaving={waiting.departures.scripts} />
          <div className="actions">
            <button
              type="button"
              className="danger"
              disabled={sync.isPending}
              onClick={() => sync.mutate(waiting.commit ?? null)}
            >
              Put it in force
            </button>
          </div>
        </section>
      )}
      {syncs.data && syncs.data.items.length > 0 && (
        <section>
          <h2>History</h2>
          <ul className="syncs">
            {syncs.data.items.map((entry) => (
              <SyncEntry key={entry.id} sync={entry} />
            ))}
          </ul>
        </section>
      )}
    </>
  );
}

function InForce({ repo }: { repo: Schemas["Repo"] }) {
  const now = repo.in_force;
  if (!now) return "nothing yet";
  const elsewhere = now.url !== repo.url || now.branch !== repo.branch;
  return (
    <>
      <code>{now.commit.slice(0, 12)}</code> since <Ago time={now.since} />
      {elsewhere && (
        <>
          {" "}
          from <code>{now.url}</code>, branch {now.branch}, which was set before
        </>
      )}
    </>
  );
}

function Leave({ what, leaving }: { what: string; leaving: Schemas["Leaving"] }) {
  if (leaving.count === 0) return null;
  const more = leaving.count - leaving.names.length;
  return (
    <p>
      {leaving.count} of {leaving.of} {what}: <span className="muted">{leaving.names.join(", ")}</span>
      {more > 0 && ` and ${more} more`}
    </p>
  );
}

function SyncEntry({ sync }: { sync: Schemas["Sync"] }) {
  const tone = sync.status === "succeeded" ? "good" : sync.status === "failed" ? "bad" : "busy";
  return (
    <li className="card">
      <p>
        <Badge tone={tone}>{sync.status}</Badge> {sync.commit && <code>{sync.commit.slice(0, 12)}</code>}{" "}
        <Ago time={sync.started_at} /> <span className="muted">by {sync.triggered_by}</span>
      </p>
      {sync.status === "succeeded" && <p className="muted small">{changes(sync.changes)}</p>}
      {sync.error && <p className="bad-text">{sentence(sync.error)}</p>}
      {sync.departures && (
        <p className="warn-text">
          takes away {sync.departures.hosts.count} hosts and {sync.departures.scripts.count} scripts
        </p>
      )}
      <Problems problems={sync.problems} tone="bad-text" />
      <Problems problems={sync.warnings} tone="warn-text" />
    </li>
  );
}

function Problems({ problems, tone }: { problems: Schemas["Problem"][]; tone: string }) {
  if (problems.length === 0) return null;
  return (
    <ul className="problems">
      {problems.map((problem) => (
        <li key={`${problem.file}:${problem.line}:${problem.field}:${problem.message}`}>
          {problem.file && (
            <code>
              {problem.file}
              {problem.line != null && `:${problem.line}`}
            </code>
          )}{" "}
          {problem.field && <code className="muted">{problem.field}</code>}{" "}
          <span className={tone}>{problem.message}</span>
        </li>
      ))}
    </ul>
  );
}

function changes(counts: Schemas["SyncChanges"]): string {
  const parts = [
    [counts.hosts_added, "hosts added"],
    [counts.hosts_changed, "hosts changed"],
    [counts.hosts_retired, "hosts retired"],
    [counts.scripts_added, "scripts added"],
    [counts.scripts_changed, "scripts changed"],
    [counts.scripts_retired, "scripts retired"],
  ] as const;
  const said = parts.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}`);
  return said.length > 0 ? said.join(", ") : "nothing changed";
}
