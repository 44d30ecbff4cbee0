import { Link, Outlet, useMatchRoute, useParams } from "@tanstack/react-router";
import { useState } from "react";
import type { Schemas } from "../api/client";
import { useHost, useHostAct, useMay, useOperations } from "../api/queries";
import { RunButtons } from "../run/run_buttons";
import { Dialog } from "../ui/dialog";
import { Duplicate } from "../ui/duplicate";
import { Empty, Failure, Loading, Stale } from "../ui/notice";
import { EnrolmentBadge, StatusBadge } from "../ui/state";
import { Ago, bytes, duration } from "../ui/time";
import { Enrol } from "./host_add";
import { latency } from "./hosts";
import { OperationTable } from "./operations";

/** What every page about one host has: which one it is, what is wrong with it, and what else there is to see of it. */
export function HostPage() {
  const { name } = useParams({ from: "/shell/hosts/$name" });
  const query = useHost(name);
  const isOverview = useMatchRoute()({ to: "/hosts/$name", params: { name } }) !== false;
  if (query.isPending) return <Loading />;
  if (!query.data) return <Failure error={query.error} retry={() => void query.refetch()} />;
  const host = query.data;
  return (
    <>
      <HostHeader host={host} />
      {query.isRefetchError && <Stale since={query.dataUpdatedAt} />}
      <Duplicate duplicate={host.duplicate_identity} />
      {host.notice && <p className="notice warn">{host.notice}</p>}
      <HostPlaces name={name} />
      {isOverview || host.enrolment === "enrolled" ? (
        <Outlet />
      ) : (
        <Empty title={`${name} is not enrolled`}>
          <p>It answers when its agent is enrolled, and approved where that is asked for.</p>
        </Empty>
      )}
    </>
  );
}

/** What there is to see of a host. Each has an address of its own, so these are links. */
function HostPlaces({ name }: { name: string }) {
  const params = { name };
  const common = { params, activeProps: { "aria-current": "page" as const } };
  return (
    <nav className="tabs" aria-label="This host">
      <Link to="/hosts/$name" {...common} activeOptions={{ exact: true, includeSearch: false }}>
        Overview
      </Link>
      <Link to="/hosts/$name/units" {...common} activeOptions={{ includeSearch: false }}>
        Units
      </Link>
      <Link to="/hosts/$name/log" {...common} activeOptions={{ includeSearch: false }}>
        Log
      </Link>
      <Link to="/hosts/$name/files" {...common} activeOptions={{ includeSearch: false }}>
        Files
      </Link>
      <Link to="/hosts/$name/sites" {...common} activeOptions={{ includeSearch: false }}>
        Sites
      </Link>
    </nav>
  );
}

export function HostOverview() {
  const { name } = useParams({ from: "/shell/hosts/$name" });
  const host = useHost(name).data;
  const history = useOperations({ host: name, limit: 10 });
  if (!host) return <Loading />;
  const operations = history.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <>
      <div className="columns">
        <section className="card">
          <h2>Connection</h2>
          <dl>
            <Fact name="Status">
              <StatusBadge status={host.status} />{" "}
              {host.status_since && (
                <span className="muted">
                  since <Ago time={host.status_since} />
                </span>
              )}
            </Fact>
            <Fact name="Enrolment">
              <EnrolmentBadge enrolment={host.enrolment} />
            </Fact>
            <Fact name="Last seen">
              <Ago time={host.last_seen} />
            </Fact>
            {host.latency_ms != null && <Fact name="Latency">{latency(host.latency_ms)}</Fact>}
            {host.clock_skew_ms != null && Math.abs(host.clock_skew_ms) > 2_000 && (
              <Fact name="Clock">
                <span className="bad-text">
                  {duration(Math.abs(host.clock_skew_ms))} {host.clock_skew_ms > 0 ? "ahead" : "behind"}
                </span>
              </Fact>
            )}
            <Fact name="Agent">{host.agent_version ?? "–"}</Fact>
            <Fact name="Client ID">
              <code>{host.client_id}</code>
            </Fact>
          </dl>
        </section>
        <section className="card">
          <h2>Inventory</h2>
          <dl>
            <Fact name="Type">{host.type}</Fact>
            <Fact name="Provider">{host.provider || "–"}</Fact>
            <Fact name="Tags">
              <span className="tags">
                {host.tags.map((tag) => (
                  <Link key={tag} to="/hosts" search={{ tag }} className="tag">
                    {tag}
                  </Link>
                ))}
                {host.tags.length === 0 && "–"}
              </span>
            </Fact>
            <Fact name="Comes from">{SOURCES[host.source]}</Fact>
            <Fact name="Known since">
              <Ago time={host.created_at} />
            </Fact>
            {host.lifecycle === "retired" && <Fact name="Lifecycle">retired</Fact>}
            {host.ssh && (
              <Fact name="SSH">
                <code>
                  {host.ssh.user}@{host.ssh.address}:{host.ssh.port}
                </code>
              </Fact>
            )}
          </dl>
        </section>
        <Facts facts={host.facts} />
      </div>
      <section>
        <h2>Operations on this host</h2>
        {history.isPending && <Loading />}
        {history.isSuccess && operations.length === 0 && <p className="muted">Nothing ran here yet.</p>}
        {operations.length > 0 && <OperationTable operations={operations} />}
        {operations.length > 0 && (
          <Link to="/operations" search={{ host: host.name }}>
            All of them
          </Link>
        )}
      </section>
    </>
  );
}

function HostHeader({ host }: { host: Schemas["Host"] }) {
  const act = useHostAct(host.name);
  const may = useMay();
  const [revoking, setRevoking] = useState(false);
  const error = act.token.error ?? act.approve.error ?? act.revoke.error ?? act.retire.error;
  return (
    <>
      <header className="page">
        <div>
          <Link to="/hosts" className="crumb">
            Hosts
          </Link>
          <h1>{host.name}</h1>
        </div>
        <div className="actions">
          {host.enrolment === "quarantined" && may("manage_hosts") && (
            <button type="button" className="primary" onClick={() => act.approve.mutate()}>
              Approve
            </button>
          )}
          {host.lifecycle === "active" && may("manage_hosts") && (
            <button type="button" disabled={act.token.isPending} onClick={() => act.token.mutate()}>
              {host.enrolment === "enrolled" ? "Enrol again…" : "Enrol…"}
            </button>
          )}
          {host.enrolment === "enrolled" && may("manage_hosts") && (
            <button type="button" className="danger" onClick={() => setRevoking(true)}>
              Revoke…
            </button>
          )}
          {host.enrolment === "enrolled" && host.lifecycle === "active" && <RunButtons on={host.name} />}
        </div>
      </header>
      {error && <Failure error={error} />}
      {act.token.data && <Enrol token={act.token.data} name={host.name} onClose={() => act.token.reset()} />}
      {revoking && (
        <Dialog title={`Revoke ${host.name}?`} onClose={() => setRevoking(false)}>
          <div className="fields">
            <p>
              Its certificate stops working at once and its connection is cut. What runs on it goes on; their
              results are not delivered until it is enrolled again with a new token.
            </p>
            <footer>
              <button type="button" onClick={() => setRevoking(false)}>
                Cancel
              </button>
              <button
                type="button"
                className="danger"
                onClick={() => act.revoke.mutate(undefined, { onSettled: () => setRevoking(false) })}
              >
                Revoke
              </button>
            </footer>
          </div>
        </Dialog>
      )}
    </>
  );
}

const SOURCES: Record<Schemas["Source"], string> = {
  git: "the inventory repository",
  api: "the API",
  agent: "its own enrolment",
};

function Fact({ name, children }: { name: string; children: React.ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

function Facts({ facts }: { facts: Schemas["Facts"] | null | undefined }) {
  if (!facts) {
    return (
      <section className="card">
        <h2>Machine</h2>
        <p className="muted">The agent has not reported yet.</p>
      </section>
    );
  }
  return (
    <section className="card">
      <h2>Machine</h2>
      <dl>
        <Fact name="System">{facts.os_name}</Fact>
        <Fact name="Kernel">
          {facts.kernel} {facts.arch}
        </Fact>
        <Fact name="CPU">
          {facts.cpus} × {facts.cpu_model || "unknown"}
        </Fact>
        <Fact name="Memory">
          <Meter used={facts.memory_total - facts.memory_available} total={facts.memory_total} />
        </Fact>
        {facts.disks.map((disk) => (
          <Fact key={disk.mount} name={`Disk ${disk.mount}`}>
            <Meter used={disk.total - disk.available} total={disk.total} />
          </Fact>
        ))}
        <Fact name="Addresses">
          {facts.addresses.map((address) => (
            <code key={address}>{address}</code>
          ))}
        </Fact>
        <Fact name="Up for">{duration(facts.uptime_s * 1000)}</Fact>
        <Fact name="Virtualisation">{facts.virtualisation}</Fact>
        <Fact name="Load">{facts.load.map((value) => (value / 100).toFixed(2)).join("  ")}</Fact>
        {facts.reboot_required && (
          <Fact name="Reboot">
            <span className="warn-text">an update asks for one</span>
          </Fact>
        )}
      </dl>
    </section>
  );
}

function Meter({ used, total }: { used: number; total: number }) {
  const share = total > 0 ? used / total : 0;
  return (
    <span className="meter">
      <meter min={0} max={1} high={0.9} optimum={0.2} value={share} />
      {bytes(used)} of {bytes(total)}
    </span>
  );
}
