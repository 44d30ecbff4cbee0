import type { Schemas } from "../api/client";
import { runTone, runWord } from "../ui/state";

/** The runs of an operation by state: a bar, and the same in words. */
export function Progress({
  counts,
  compact = false,
}: {
  counts: Schemas["StateCount"][];
  compact?: boolean;
}) {
  const total = counts.reduce((sum, count) => sum + count.count, 0);
  const words = counts
    .filter((count) => count.count > 0)
    .map((count) => `${count.count} ${runWord(count.state)}`)
    .join(", ");
  return (
    <div className={compact ? "progress compact" : "progress"} title={words}>
      <div className="bar" aria-hidden="true">
        {counts
          .filter((count) => count.count > 0)
          .map((count) => (
            <span
              key={count.state}
              className={`${runTone(count.state)} ${count.state}`}
              style={{ flexGrow: count.count }}
            />
          ))}
      </div>
      {compact ? (
        <span>
          {total}
          <span className="visually-hidden"> runs: {words}</span>
        </span>
      ) : (
        <p>{words || "no runs"}</p>
      )}
    </div>
  );
}

export function countStates(runs: Iterable<Schemas["Run"]>): Schemas["StateCount"][] {
  const counts = new Map<Schemas["RunState"], number>();
  for (const run of runs) counts.set(run.state, (counts.get(run.state) ?? 0) + 1);
  const order: Schemas["RunState"][] = [
    "succeeded",
    "failed",
    "timed_out",
    "lost",
    "refused",
    "cancelled",
    "expired",
    "running",
    "accepted",
    "dispatched",
    "queued",
  ];
  return order.map((state) => ({ state, count: counts.get(state) ?? 0 }));
}
