// How an operation spreads over its hosts.

import type { Schemas } from "../api/client";
import { sentence } from "../ui/notice";

export function RolloutFields({
  rollout,
  timeout,
  fault,
  onChange,
}: {
  rollout: Schemas["Rollout"];
  /** Seconds a run may take where nothing is said. */
  timeout: number;
  /** What the controller would not take of it. */
  fault: Error | null;
  onChange: (rollout: Schemas["Rollout"]) => void;
}) {
  return (
    <details {...(fault ? { open: true } : {})}>
      <summary>How: concurrency, batches, limits</summary>
      <div className="grid">
        <CountField
          label="Hosts at once"
          placeholder="50"
          value={rollout.concurrency}
          onChange={(concurrency) => onChange(with_(rollout, { concurrency }))}
        />
        <TextField
          label="Batch"
          placeholder="all, 10 or 25%"
          value={rollout.batch}
          onChange={(batch) => onChange(with_(rollout, { batch }))}
        />
        <TextField
          label="Canary first"
          placeholder="none, 1 or 5%"
          value={rollout.canary}
          onChange={(canary) => onChange(with_(rollout, { canary }))}
        />
        <TextField
          label="Hosts that may fail"
          placeholder="all; 0 stops at the first"
          value={rollout.max_failures}
          onChange={(max_failures) => onChange(with_(rollout, { max_failures }))}
        />
        <CountField
          label="Time limit, seconds"
          placeholder={String(timeout)}
          value={rollout.timeout_s}
          onChange={(timeout_s) => onChange(with_(rollout, { timeout_s }))}
        />
        <label>
          Hosts that are offline
          <select
            value={rollout.offline ?? "wait"}
            onChange={(event) =>
              onChange({ ...rollout, offline: event.target.value === "skip" ? "skip" : "wait" })
            }
          >
            <option value="wait">start when they return</option>
            <option value="skip">leave out</option>
          </select>
        </label>
      </div>
      {fault && (
        <p className="field-error" role="alert">
          {sentence(fault.message)}
        </p>
      )}
    </details>
  );
}

function TextField({
  label,
  placeholder,
  value,
  onChange,
}: {
  label: string;
  placeholder: string;
  value: string | null | undefined;
  onChange: (value: string | undefined) => void;
}) {
  return (
    <label>
      {label}
      <input
        placeholder={placeholder}
        value={value ?? ""}
        onChange={(event) => onChange(event.target.value.trim() || undefined)}
      />
    </label>
  );
}

function CountField({
  label,
  placeholder,
  value,
  onChange,
}: {
  label: string;
  placeholder: string;
  value: number | null | undefined;
  onChange: (value: number | undefined) => void;
}) {
  return (
    <label>
      {label}
      <input
        type="number"
        min={1}
        inputMode="numeric"
        placeholder={placeholder}
        value={value ?? ""}
        onChange={(event) => onChange(event.target.value === "" ? undefined : event.target.valueAsNumber)}
      />
    </label>
  );
}

/** `base` with `change`, where undefined removes. */
function with_(
  base: Schemas["Rollout"],
  change: { [K in keyof Schemas["Rollout"]]?: Schemas["Rollout"][K] | undefined },
): Schemas["Rollout"] {
  const merged: Record<string, unknown> = { ...base, ...change };
  return Object.fromEntries(Object.entries(merged).filter(([, value]) => value !== undefined));
}
