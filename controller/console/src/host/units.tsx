// The units of a host, as they are now and as they change.

import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { useState } from "react";
import type { Asking } from "../api/answer";
import type { Json } from "../kind/schema";
import { visible } from "../output/text";
import { Search } from "../pages/hosts";
import { AnswerNotes } from "../query/answer_notes";
import { Badge } from "../ui/state";
import { Ago, bytes } from "../ui/time";
import { KIND, numberOf, textOf, timeIn, useHostAnswer } from "./asked";

const TYPES = [
  "service",
  "socket",
  "timer",
  "path",
  "target",
  "mount",
  "automount",
  "swap",
  "slice",
  "scope",
  "device",
];
const STATES = ["active", "failed", "activating", "deactivating", "reloading", "inactive", "maintenance"];
const PAGE = 300;

export function UnitsPage() {
  const { name } = useParams({ from: "/shell/hosts/$name/units" });
  const query = useSearch({ from: "/shell/hosts/$name/units" });
  const navigate = useNavigate({ from: "/hosts/$name/units" });
  const type = TYPES.find((known) => known === query.type) ?? "service";
  const asking = useHostAnswer(name, KIND.units, { types: [type] }, "follow");
  const change = (next: Partial<typeof query>) =>
    void navigate({ search: (previous) => ({ ...previous, ...next }), replace: true });
  return (
    <>
      <div className="filters">
        <Search value={query.search ?? ""} onChange={(search) => change({ search })} />
        <label>
          <span className="visually-hidden">Type</span>
          <select value={type} onChange={(event) => change({ type: event.target.value })}>
            {TYPES.map((known) => (
              <option key={known} value={known}>
                {plural(known)}
              </option>
            ))}
          </select>
        </label>
        <label>
          <span className="visually-hidden">State</span>
          <select value={query.state ?? ""} onChange={(event) => change({ state: event.target.value })}>
            <option value="">Any state</option>
            {STATES.map((known) => (
              <option key={known}>{known}</option>
            ))}
          </select>
        </label>
      </div>
      <UnitTable
        asking={asking}
        host={name}
        search={query.search ?? ""}
        state={query.state ?? ""}
        onShowAll={() => change({ search: "", state: "" })}
      />
    </>
  );
}

const plural = (type: string): string => (type === "swap" ? type : `${type}s`);

export function UnitTable({
  asking,
  host,
  search,
  state,
  onShowAll,
}: {
  asking: Asking;
  host: string;
  search: string;
  state: string;
  onShowAll: () => void;
}) {
  const [shown, setShown] = useState(PAGE);
  const words = search.trim().toLowerCase();
  const units = asking.answer.items().map(({ item }) => item);
  const rows = units
    .filter((unit) => state === "" || textOf(unit, "active") === state)
    .filter((unit) => `${textOf(unit, "name")} ${textOf(unit, "description")}`.toLowerCase().includes(words))
    .sort((a, b) => rank(a) - rank(b) || collator.compare(textOf(a, "name"), textOf(b, "name")));
  const failed = units.filter((unit) => textOf(unit, "active") === "failed").length;
  return (
    <>
      <AnswerNotes asking={asking} nothing="No unit of this type is loaded." />
      {units.length > 0 && (
        <p className="muted small" role="status">
          {rows.length === units.length ? units.length : `${rows.length} of ${units.length}`} loaded
          {failed > 0 && <span className="bad-text">, {failed} failed</span>}
          {asking.answer.hosts.get(host)?.state === "complete" && asking.phase === "live" && (
            <>, changes appear by themselves</>
          )}
        </p>
      )}
      {units.length > 0 && rows.length === 0 && (
        <p className="muted">
          No unit matches.{" "}
          <button type="button" onClick={onShowAll}>
            Show all
          </button>
        </p>
      )}
      {rows.length > 0 && (
        <table className="list units">
          <thead>
            <tr>
              <th scope="col">Unit</th>
              <th scope="col">State</th>
              <th scope="col">At boot</th>
              <th scope="col">Memory</th>
              <th scope="col">Since</th>
              <th scope="col">Description</th>
            </tr>
          </thead>
          <tbody>
            {rows.slice(0, shown).map((unit) => (
              <UnitRow key={textOf(unit, "name")} host={host} unit={unit} />
            ))}
          </tbody>
        </table>
      )}
      {rows.length > shown && (
        <button type="button" onClick={() => setShown(shown + PAGE)}>
          Show more
        </button>
      )}
    </>
  );
}

function UnitRow({ host, unit }: { host: string; unit: Json }) {
  const memory = numberOf(unit, "memory");
  const restarts = numberOf(unit, "restarts") ?? 0;
  return (
    <tr>
      <td data-title="Unit">
        <span>
          {" "}
          <Link
            to="/hosts/$name/units/$unit"
            params={{ name: host, unit: textOf(unit, "name") }}
            className="strong"
          >
            {visible(textOf(unit, "name"))}
          </Link>
          {restarts > 0 && (
            <span className="warn-mark" title={`systemd has started it again ${restarts} times`}>
              ↻ {restarts}
            </span>
          )}
        </span>
      </td>
      <td data-title="State">
        <UnitState unit={unit} />
      </td>
      <td data-title="At boot">{visible(textOf(unit, "file")) || <span className="muted">–</span>}</td>
      <td data-title="Memory" className="number">
        {memory === undefined ? <span className="muted">–</span> : bytes(memory)}
      </td>
      <td data-title="Since" className="number">
        {timeIn(unit, "since") ? <Ago time={timeIn(unit, "since")} /> : <span className="muted">–</span>}
      </td>
      <td data-title="Description" className="rest">
        <span className="clip" title={visible(textOf(unit, "description"))}>
          {visible(textOf(unit, "description"))}
        </span>
      </td>
    </tr>
  );
}

/** The healthy state is quiet; what needs a person is a badge. */
export function UnitState({ unit }: { unit: Json }) {
  const active = textOf(unit, "active");
  const sub = visible(textOf(unit, "sub"));
  const load = textOf(unit, "load");
  const result = textOf(unit, "result");
  if (active === "failed") {
    return <Badge tone="bad">failed{result && result !== "success" ? `: ${visible(result)}` : ""}</Badge>;
  }
  if (load !== "" && load !== "loaded") return <Badge tone="warn">{visible(load)}</Badge>;
  if (active === "active") {
    return (
      <span className="quiet-state">
        <span aria-hidden="true" className="dot" />
        <span className="visually-hidden">active, </span>
        {sub || "active"}
      </span>
    );
  }
  if (active === "inactive") {
    return (
      <span className="muted">
        {active}
        {sub && ` (${sub})`}
      </span>
    );
  }
  return <Badge tone="busy">{visible(active) || "unknown"}</Badge>;
}

/** What failed comes first, then what changes, then the others. */
function rank(unit: Json): number {
  const active = textOf(unit, "active");
  if (active === "failed") return 0;
  return active === "active" || active === "inactive" ? 2 : 1;
}

const collator = new Intl.Collator("en", { numeric: true });
