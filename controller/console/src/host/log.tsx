// What a host or its units have logged.

import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { useState } from "react";
import type { Told } from "../api/answer";
import { useKinds } from "../api/queries";
import { fieldsOf } from "../kind/schema";
import { visible } from "../output/text";
import { AnswerNotes } from "../query/answer_notes";
import { Sequence } from "../query/sequence";
import { useSettled } from "../run/start";
import { KIND, numberOf, textOf, textsOf, timeIn, useHostAnswer } from "./asked";

const SINCE: [value: string, words: string][] = [
  ["", "The last 500"],
  ["15m", "15 minutes"],
  ["1h", "1 hour"],
  ["6h", "6 hours"],
  ["1d", "1 day"],
  ["1w", "1 week"],
];
/** Entries that are asked for at the most: without a time as many as one reads, with one as many as are kept. */
const LINES = { last: 500, since: 5_000 };

export type LogQuery = {
  unit?: string;
  since?: string;
  priority?: string;
  grep?: string;
  follow?: string;
};

export function LogPage() {
  const { name } = useParams({ from: "/shell/hosts/$name/log" });
  const query = useSearch({ from: "/shell/hosts/$name/log" });
  const navigate = useNavigate({ from: "/hosts/$name/log" });
  return (
    <Log
      host={name}
      query={query}
      onChange={(next) =>
        void navigate({ search: (previous) => kept({ ...previous, ...next }), replace: true })
      }
    />
  );
}

/** The log of some units, on a page that is about them. */
export function UnitLog({ host, units }: { host: string; units: string[] }) {
  const [query, setQuery] = useState<LogQuery>({});
  return (
    <Log
      host={host}
      query={query}
      units={units}
      onChange={(next) => setQuery((previous) => kept({ ...previous, ...next }))}
    />
  );
}

/** Without what is empty. */
const kept = (query: LogQuery): LogQuery =>
  Object.fromEntries(Object.entries(query).filter(([, value]) => value !== "" && value !== undefined));

function Log({
  host,
  query,
  units,
  onChange,
}: {
  host: string;
  query: LogQuery;
  /** The units that it is about, where that is not chosen. */
  units?: string[];
  onChange: (next: LogQuery) => void;
}) {
  const isFollowed = query.follow !== "no";
  const unit = useSettled(query.unit ?? "", 500).trim();
  const grep = useSettled(query.grep ?? "", 500);
  const named = units ?? (unit ? [unit] : []);
  const priorities = usePriorities();
  const params = {
    lines: query.since ? LINES.since : LINES.last,
    ...(named.length > 0 ? { units: named } : {}),
    ...(query.since ? { since: query.since } : {}),
    ...(query.priority ? { priority: query.priority } : {}),
    ...(grep ? { grep } : {}),
  };
  const asking = useHostAnswer(host, KIND.unitLog, params, isFollowed ? "follow" : "once");
  return (
    <>
      <div className="filters">
        {!units && (
          <label className="search">
            <span className="visually-hidden">Unit</span>
            <input
              className="mono"
              placeholder="Unit: the whole host"
              spellCheck={false}
              autoCapitalize="none"
              value={query.unit ?? ""}
              onChange={(event) => onChange({ unit: event.target.value })}
            />
          </label>
        )}
        <label className="search">
          <span className="visually-hidden">Pattern in the message</span>
          <input
            type="search"
            className="mono"
            placeholder="Message matches  /"
            spellCheck={false}
            autoCapitalize="none"
            value={query.grep ?? ""}
            onChange={(event) => onChange({ grep: event.target.value })}
          />
        </label>
        <label>
          <span className="visually-hidden">Since</span>
          <select value={query.since ?? ""} onChange={(event) => onChange({ since: event.target.value })}>
            {SINCE.map(([value, words]) => (
              <option key={value} value={value}>
                {words}
              </option>
            ))}
            {query.since && !SINCE.some(([value]) => value === query.since) && <option>{query.since}</option>}
          </select>
        </label>
        <label>
          <span className="visually-hidden">Priority</span>
          <select
            value={query.priority ?? ""}
            onChange={(event) => onChange({ priority: event.target.value })}
          >
            <option value="">Any priority</option>
            {priorities.map((known) => (
              <option key={known} value={known}>
                {known} or worse
              </option>
            ))}
          </select>
        </label>
        <label className="check">
          <input
            type="checkbox"
            checked={isFollowed}
            onChange={(event) => onChange({ follow: event.target.checked ? "" : "no" })}
          />{" "}
          Follow
        </label>
      </div>
      <AnswerNotes asking={asking} nothing="Nothing was logged that fits." />
      {asking.answer.items().length > 0 && (
        // Other entries begin at their end again, wherever the reader was in those before.
        <Sequence key={JSON.stringify(params)} asking={asking} label={`Log of ${named.join(", ") || host}`}>
          {(told) => <LogLine told={told} host={host} hasUnit={named.length !== 1} />}
        </Sequence>
      )}
    </>
  );
}

/** The words that the controller says a priority may be. */
function usePriorities(): string[] {
  const kind = useKinds().data?.find((known) => known.name === KIND.unitLog);
  const field = kind && fieldsOf(kind.parameters).find(({ name }) => name === "priority");
  return field?.shape.is === "choice" ? field.shape.choices : [];
}

const clock = new Intl.DateTimeFormat("en-GB", {
  month: "short",
  day: "2-digit",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});

/** An entry: when, who, and what, on as many lines as it has. */
export function LogLine({ told, host, hasUnit }: { told: Told; host: string; hasUnit: boolean }) {
  const { item } = told;
  const time = timeIn(item, "time");
  const unit = textOf(item, "unit");
  const who = textOf(item, "identifier") || unit || "–";
  const pid = numberOf(item, "pid");
  const priority = textOf(item, "priority");
  return (
    <div className={`entry ${toneOf(priority)}`}>
      <time dateTime={time} title={time}>
        {time ? clock.format(new Date(time)) : "–"}
      </time>{" "}
      <span className="who" title={unit}>
        {hasUnit && unit ? (
          <Link to="/hosts/$name/units/$unit" params={{ name: host, unit }} tabIndex={-1}>
            {visible(who)}
          </Link>
        ) : (
          visible(who)
        )}
        {pid !== undefined && <span className="muted">[{pid}]</span>}
      </span>{" "}
      <span className="message">
        {isLoud(priority) && <span className="priority">{priority}: </span>}
        {textsOf(item, "message").map(visible).join("\n") || " "}
        {item.truncated === true && <span className="muted"> … (it says more)</span>}
      </span>
    </div>
  );
}

const BAD = ["emerg", "alert", "crit", "err"];
/** Colour says nothing alone: the word stands there, too. */
const isLoud = (priority: string): boolean => BAD.includes(priority) || priority === "warning";

function toneOf(priority: string): string {
  if (BAD.includes(priority)) return "bad";
  if (priority === "warning") return "warn";
  return priority === "debug" ? "faint" : "";
}
