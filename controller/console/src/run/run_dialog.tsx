// Run a script: what, with which arguments, where, how. The targets are shown before anything starts.

import { useNavigate } from "@tanstack/react-router";
import { useEffect, useRef, useState } from "react";
import { operationId, type Schemas } from "../api/client";
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
  const [variables, setVariables] = useState<Record<string, string>>({});
  const [user, setUser] = useState("");
  const [skipNotEnrolled, setSkipNotEnrolled] = useState(false);
  const [rollout, setRollout] = useState<Schemas["Rollout"]>({});
  const [reason, setReason] = useState("");
  const chosen = scripts.data?.find((candidate) => candidate.name === name);
  const parsed = split(line);
  const environment = given(chosen?.environment ?? [], variables);
  const asked: Schemas["TargetPreviewRequest"] = {
    on: target,
    scripts: chosen ? [{ name: chosen.name, arguments: "words" in parsed ? parsed.words : [] }] : [],
    environment,
    ...(user && chosen?.users.includes(user) ? { user } : {}),
  };
  const settled = useSettled(JSON.stringify(asked));
  const preview = useTargetPreview(JSON.parse(settled) as Schemas["TargetPreviewRequest"]);
  // One id per request as it stands: pressing twice runs once, changing it asks anew.
  const id = useOperationId(JSON.stringify([asked, line, skipNotEnrolled, rollout, reason]));
  const ready =
    chosen && preview.data && !preview.error && settled === JSON.stringify(asked) && "words" in parsed;
  const runnable = preview.data ? preview.data.hosts.length - preview.data.not_enrolled : 0;

  const submit = () => {
    if (!chosen || !("words" in parsed)) return;
    const body: Schemas["OperationCreate"] = {
      id,
      ...asked,
      scripts: asked.scripts ?? [],
      ...(skipNotEnrolled ? { skip_not_enrolled: true } : {}),
      rollout,
      ...(reason.trim() ? { reason: reason.trim() } : {}),
    };
    create.mutate(body, {
      onSuccess: (operation) => {
        onClose();
        void navigate({ to: "/operations/$id", params: { id: operation.number } });
      },
    });
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
                  title={flag.requires_value ? "required, with a value" : "add this argument"}
                  onClick={() => setLine((previous) => `${previous.trimEnd()} ${text}`.trimStart())}
                >
                  {text}
                </button>
              );
            })}
          </p>
        )}
        {chosen?.environment.map((variable) => (
          <label key={variable.name}>
            <code>{variable.name}</code>{" "}
            <span className="muted">
              {[variable.description, variable.required ? "required" : "optional"].filter(Boolean).join("; ")}
            </span>
            <input
              className="mono"
              type={variable.secret ? "password" : "text"}
              autoComplete="off"
              spellCheck={false}
              required={variable.required}
              value={variables[variable.name] ?? ""}
              onChange={(event) =>
                setVariables((previous) => ({ ...previous, [variable.name]: event.target.value }))
              }
            />
          </label>
        ))}
        {chosen && chosen.users.length > 0 && (
          <label>
            As
            <select value={user} onChange={(event) => setUser(event.target.value)}>
              <option value="">{chosen.user ?? "root"}</option>
              {chosen.users.map((candidate) => (
                <option key={candidate} value={candidate}>
                  {candidate}
                </option>
              ))}
            </select>
          </label>
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
        {preview.data && preview.data.not_enrolled > 0 && (
          <label className="check">
            <input
              type="checkbox"
              checked={skipNotEnrolled}
              onChange={(event) => setSkipNotEnrolled(event.target.checked)}
            />{" "}
            Leave out hosts that are not enrolled
          </label>
        )}
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
              label="Hosts that may fail"
              placeholder="all; 0 stops at the first"
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

/** The declared variables that were filled in. An empty field is a variable that is not given. */
function given(
  declared: Schemas["ScriptVariable"][],
  values: Record<string, string>,
): Record<string, string> {
  const filled = declared.flatMap(({ name }) => (values[name] ? [[name, values[name]] as const] : []));
  return Object.fromEntries(filled);
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

/** The id of the operation that this request is: sent again, it is the same one. */
function useOperationId(request: string): string {
  const held = useRef({ request, id: operationId() });
  if (held.current.request !== request) held.current = { request, id: operationId() };
  return held.current.id;
}

const plural = (count: number): string => (count === 1 ? "host" : "hosts");
