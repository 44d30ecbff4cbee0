// Run a script: what, with which arguments, where, how. The targets are shown before anything starts.

import { useNavigate } from "@tanstack/react-router";
import { useEffect, useRef, useState } from "react";
import { idempotencyKey, type Schemas } from "../api/client";
import { useOperationCreate, useScripts, useTargetPreview } from "../api/queries";
import { Dialog } from "../ui/dialog";
import { Failure, Loading, sentence } from "../ui/notice";
import { split } from "./arguments";

export function RunDialog({ script, on, onClose }: { script?: string; on?: string; onClose: () => void }) {
  const scripts = useScripts();
  const create = useOperationCreate();
  const navigate = useNavigate();
  const [name, setName] = useState(script ?? "");
  const [target, setTarget] = useState(on ?? "");
  const [line, setLine] = useState("");
  const [rollout, setRollout] = useState<Schemas["Rollout"]>({});
  const [reason, setReason] = useState("");
  const settled = useSettled(target);
  const chosen = scripts.data?.find((candidate) => candidate.name === name);
  const preview = useTargetPreview(settled, chosen ? [chosen.name] : []);
  const parsed = split(line);
  // One key per request as it stands: pressing twice runs once, changing it asks anew.
  const key = useKey(JSON.stringify([name, target, line, rollout, reason]));
  const ready = chosen && preview.data && !preview.error && settled === target && "words" in parsed;
  const runnable = preview.data ? preview.data.hosts.length - preview.data.not_enrolled : 0;

  const submit = () => {
    if (!chosen || !("words" in parsed)) return;
    const body: Schemas["OperationCreate"] = {
      scripts: [{ name: chosen.name, arguments: parsed.words }],
      on: target,
      rollout,
      ...(reason.trim() ? { reason: reason.trim() } : {}),
    };
    create.mutate(
      { body, key },
      {
        onSuccess: (operation) => {
          onClose();
          void navigate({ to: "/operations/$id", params: { id: operation.number } });
        },
      },
    );
  };

  return (
    <Dialog title="Run a script" onClose={onClose}>
      <form
        className="fields run"
        onSubmit={(event) => {
          event.preventDefault();
          submit();
        }}
      >
        {scripts.isPending && <Loading />}
        {scripts.error && !scripts.data && <Failure error={scripts.error} />}
        <label>
          Script
          <select required value={name} onChange={(event) => setName(event.target.value)}>
            <option value="" disabled>
              Choose…
            </option>
            {scripts.data?.map((candidate) => (
              <option key={candidate.name} value={candidate.name}>
                {candidate.title} ({candidate.name})
              </option>
            ))}
          </select>
        </label>
        {chosen && <p className="muted small">{chosen.description}</p>}
        <label>
          Arguments <span className="muted">quoted as in a shell, but never given to one</span>
          <input
            className="mono"
            spellCheck={false}
            autoCapitalize="none"
            value={line}
            aria-invalid={"error" in parsed}
            onChange={(event) => setLine(event.target.value)}
          />
        </label>
        {"error" in parsed && <p className="field-error">{parsed.error}</p>}
        {chosen && chosen.flags.length > 0 && (
          <p className="tags">
            {chosen.flags.map((flag) => {
              const text = flag.requires_value
                ? `${flag.flag}=`
                : flag.default != null
                  ? `${flag.flag}=${flag.default}`
                  : flag.flag;
              return (
                <button
                  key={flag.flag}
                  type="button"
                  className="tag"
                  title={flag.requires_value ? "needs a value" : "add this argument"}
                  onClick={() => setLine((previous) => `${previous.trimEnd()} ${text}`.trimStart())}
                >
                  {text}
                </button>
              );
            })}
          </p>
        )}
        <label>
          On
          <input
            className="mono"
            required
            spellCheck={false}
            autoCapitalize="none"
            placeholder="tag:prod & !web-9"
            value={target}
            onChange={(event) => setTarget(event.target.value)}
          />
        </label>
        <Preview preview={preview.data} error={preview.error} pending={preview.isFetching} />
        <details>
          <summary>How: concurrency, batches, limits</summary>
          <div className="grid">
            <CountField
              label="Hosts at once"
              placeholder="50"
              value={rollout.concurrency}
              onChange={(concurrency) => setRollout((previous) => with_(previous, { concurrency }))}
            />
            <TextField
              label="Batch"
              placeholder="all, 10 or 25%"
              value={rollout.batch}
              onChange={(batch) => setRollout((previous) => with_(previous, { batch }))}
            />
            <TextField
              label="Canary first"
              placeholder="none, 1 or 5%"
              value={rollout.canary}
              onChange={(canary) => setRollout((previous) => with_(previous, { canary }))}
            />
            <TextField
              label="Stop after failures"
              placeholder="never, 3 or 10%"
              value={rollout.max_failures}
              onChange={(max_failures) => setRollout((previous) => with_(previous, { max_failures }))}
            />
            <CountField
              label="Time limit, seconds"
              placeholder={String(chosen?.timeout_s ?? 300)}
              value={rollout.timeout_s}
              onChange={(timeout_s) => setRollout((previous) => with_(previous, { timeout_s }))}
            />
            <label>
              Hosts that are offline
              <select
                value={rollout.offline ?? "wait"}
                onChange={(event) =>
                  setRollout((previous) => ({
                    ...previous,
                    offline: event.target.value === "skip" ? "skip" : "wait",
                  }))
                }
              >
                <option value="wait">start when they return</option>
                <option value="skip">leave out</option>
              </select>
            </label>
          </div>
        </details>
        <label>
          Why <span className="muted">optional; kept with the operation</span>
          <input value={reason} onChange={(event) => setReason(event.target.value)} />
        </label>
        {create.error && <Failure error={create.error} />}
        <footer>
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" className="primary" disabled={!ready || runnable === 0 || create.isPending}>
            {create.isPending ? "Starting…" : runnable > 0 ? `Run on ${runnable} ${plural(runnable)}` : "Run"}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}

function Preview({
  preview,
  error,
  pending,
}: {
  preview: Schemas["TargetPreview"] | undefined;
  error: Error | null;
  pending: boolean;
}) {
  if (error) return <p className="field-error pre">{sentence(error.message)}</p>;
  if (!preview) return pending ? <p className="muted small">Looking…</p> : null;
  const offline = preview.hosts.length - preview.online;
  return (
    <div className="preview" aria-live="polite">
      <p>
        <strong>
          {preview.hosts.length} {plural(preview.hosts.length)}
        </strong>
        {offline > 0 && <span className="muted">, {offline} offline</span>}
        {preview.not_enrolled > 0 && <span className="bad-text">, {preview.not_enrolled} not enrolled</span>}
      </p>
      <ul>
        {preview.hosts.slice(0, 200).map((host) => (
          <li
            key={host.name}
            className={host.enrolment !== "enrolled" ? "bad-text" : host.status === "offline" ? "muted" : ""}
            title={host.enrolment !== "enrolled" ? "not enrolled" : host.status}
          >
            {host.name}
          </li>
        ))}
        {preview.hosts.length > 200 && <li className="muted">and {preview.hosts.length - 200} more</li>}
      </ul>
    </div>
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

/** The value once it has not changed for a moment. */
function useSettled(value: string): string {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), 250);
    return () => clearTimeout(timer);
  }, [value]);
  return settled;
}

function useKey(request: string): string {
  const held = useRef({ request, key: idempotencyKey() });
  if (held.current.request !== request) held.current = { request, key: idempotencyKey() };
  return held.current.key;
}

const plural = (count: number): string => (count === 1 ? "host" : "hosts");
