// What hosts say that they would change, before anything is: a dry run, seen where it was asked for.

import { Link } from "@tanstack/react-router";
import { useEffect, useRef } from "react";
import type { Schemas } from "../api/client";
import { useLiveOperation } from "../api/events";
import { Changes, changesOf } from "../kind/changes";
import { sentence } from "../ui/notice";
import { isLive, RunBadge } from "../ui/state";
import { countStates, Progress } from "./progress";
import { plural } from "./targets";

/** Groups that are shown; a fleet whose hosts all differ is looked at on the operation's own page. */
const MAX_GROUPS = 20;
/** Hosts of a group that are named. */
const MAX_NAMED = 12;
const NONE: ReadonlySet<string> = new Set();

export function Rehearsal({ number }: { number: string }) {
  const live = useLiveOperation(number);
  const runs = [...live.runs.values()];
  return (
    <RehearsalView
      number={number}
      runs={runs}
      letGo={live.reports.letGo}
      isUnderWay={!live.operation || isLive(live.operation.status)}
    />
  );
}

export function RehearsalView({
  number,
  runs,
  letGo = NONE,
  isUnderWay,
}: {
  number: string;
  runs: Schemas["Run"][];
  /** Runs whose reports are not here: there was no room for them. */
  letGo?: ReadonlySet<string>;
  isUnderWay: boolean;
}) {
  const groups = groupsOf(runs.filter(({ id }) => !letGo.has(id)));
  const section = useRef<HTMLElement>(null);
  // biome-ignore lint/correctness/useExhaustiveDependencies: what was asked for, and then what came of it, is brought into sight
  useEffect(() => {
    section.current?.scrollIntoView?.({ block: "nearest" });
  }, [number, isUnderWay]);
  return (
    <section ref={section} className="rehearsal" aria-label="What would change" aria-live="polite">
      <header>
        <h3>{isUnderWay ? "Asking what would change…" : "What would change"}</h3>
        <Link to="/operations/$id" params={{ id: number }} className="small">
          {number}
        </Link>
      </header>
      {isUnderWay && runs.length > 0 && <Progress counts={countStates(runs)} />}
      <ul className="plain">
        {groups.slice(0, MAX_GROUPS).map(({ key, hosts, run }) => (
          <li key={key}>
            <p>
              <strong>
                {hosts.slice(0, MAX_NAMED).join(", ")}
                {hosts.length > MAX_NAMED && ` and ${hosts.length - MAX_NAMED} more`}
              </strong>{" "}
              {hosts.length > 1 && (
                <span className="muted">
                  {hosts.length} {plural(hosts.length)}{" "}
                </span>
              )}
              {run.state !== "succeeded" && <RunBadge state={run.state} />}
            </p>
            {changesOf(run.report) && run.report ? (
              <Changes report={run.report} />
            ) : (
              run.state_detail && <p className="hostile muted">{sentence(run.state_detail)}</p>
            )}
          </li>
        ))}
      </ul>
      {groups.length > MAX_GROUPS && (
        <p className="muted small">
          Hosts differ: {groups.length - MAX_GROUPS} more answers are on{" "}
          <Link to="/operations/$id" params={{ id: number }}>
            {number}
          </Link>
          .
        </p>
      )}
      {letGo.size > 0 && (
        <p className="muted small">
          What {letGo.size} more {plural(letGo.size)} said is too much for this page; it is on{" "}
          <Link to="/operations/$id" params={{ id: number }}>
            {number}
          </Link>
          .
        </p>
      )}
    </section>
  );
}

/** Hosts that said the same are told of once. */
function groupsOf(runs: Schemas["Run"][]): { key: string; hosts: string[]; run: Schemas["Run"] }[] {
  const groups = new Map<string, { key: string; hosts: string[]; run: Schemas["Run"] }>();
  for (const run of runs) {
    const key = JSON.stringify([run.state, run.state_detail, run.report]);
    const group = groups.get(key);
    if (group) group.hosts.push(run.host);
    else groups.set(key, { key, hosts: [run.host], run });
  }
  return [...groups.values()].sort((a, b) => b.hosts.length - a.hosts.length);
}
