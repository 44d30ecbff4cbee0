// Starting an operation, whatever it does: where, how and why; the targets are shown before anything starts.

import { useNavigate } from "@tanstack/react-router";
import { useEffect, useRef, useState } from "react";
import { faultyField, operationId, type Schemas } from "../api/client";
import { useOperationCreate, useTargetPreview } from "../api/queries";
import { Failure } from "../ui/notice";
import { Rehearsal } from "./rehearsal";
import { RolloutFields } from "./rollout_fields";
import { Preview, plural } from "./targets";

/** What is asked for, beside where and how. */
type What = Omit<Schemas["TargetPreviewRequest"], "on">;

/** The state of a request as it is being written. `what` is undefined as long as something is missing of it. */
export function useStart({
  what,
  on,
  onStarted,
}: {
  what: What | undefined;
  on: string | undefined;
  onStarted: () => void;
}) {
  const create = useOperationCreate();
  const navigate = useNavigate();
  const [target, setTarget] = useState(on ?? "");
  const [skipNotEnrolled, setSkipNotEnrolled] = useState(false);
  const [rollout, setRollout] = useState<Schemas["Rollout"]>({});
  const [reason, setReason] = useState("");
  const asked: Schemas["TargetPreviewRequest"] = { on: target, ...what };
  const settled = useSettled(JSON.stringify(asked));
  const preview = useTargetPreview(JSON.parse(settled) as Schemas["TargetPreviewRequest"]);
  // One id per request as it stands: pressing twice runs once, changing it asks anew.
  const id = useOperationId(JSON.stringify([asked, skipNotEnrolled, rollout, reason]));
  const runnable = preview.data ? preview.data.hosts.length - preview.data.not_enrolled : 0;
  const isReady =
    what !== undefined && preview.data && !preview.error && settled === JSON.stringify(asked) && runnable > 0;

  const request: Omit<Schemas["OperationCreate"], "id"> = {
    ...asked,
    ...(skipNotEnrolled ? { skip_not_enrolled: true } : {}),
    rollout,
    ...(reason.trim() ? { reason: reason.trim() } : {}),
  };
  const rehearsed = useRehearsal(JSON.stringify(request));

  const submit = () => {
    if (!isReady) return;
    create.mutate(
      { id, ...request },
      {
        onSuccess: (operation) => {
          onStarted();
          void navigate({ to: "/operations/$id", params: { id: operation.number } });
        },
      },
    );
  };

  return {
    target,
    setTarget,
    skipNotEnrolled,
    setSkipNotEnrolled,
    rollout,
    setRollout,
    reason,
    setReason,
    preview,
    create,
    runnable,
    isReady,
    submit,
    rehearse: () => isReady && rehearsed.begin(request),
    rehearsal: rehearsed,
  };
}

/** The dry run of this very request, as long as nothing of it is changed. */
function useRehearsal(request: string) {
  const create = useOperationCreate();
  const [of, setOf] = useState<{ request: string; number: string }>();
  return {
    number: of?.request === request ? of.number : undefined,
    /** Whether there was one, of another request than this. */
    isOutdated: of !== undefined && of.request !== request,
    isPending: create.isPending,
    error: create.error,
    reset: create.reset,
    begin: (body: Omit<Schemas["OperationCreate"], "id">) =>
      create.mutate(
        { ...body, id: operationId(), dry_run: true },
        { onSuccess: ({ number }) => setOf({ request: JSON.stringify(body), number }) },
      ),
  };
}

export type Start = ReturnType<typeof useStart>;

/** The fields that every request has, and its buttons. Errors for which `isTold` holds are shown elsewhere. */
export function StartFields({
  start,
  timeout,
  verb,
  rehearses = false,
  isTold = () => false,
  onClose,
}: {
  start: Start;
  timeout: number;
  verb: string;
  /** Whether what would change can be told before, or is all that is asked for. */
  rehearses?: boolean | "only";
  isTold?: (error: Error) => boolean;
  onClose?: (() => void) | undefined;
}) {
  const { preview, create, rollout, runnable, rehearsal } = start;
  const told = create.error ?? rehearsal.error;
  const refusal = told && !isTold(told) ? told : null;
  const faulty = faultyField(refusal);
  const isAboutRollout = faulty?.startsWith("rollout") === true;
  return (
    <>
      <label>
        On
        <input
          className="mono"
          required
          spellCheck={false}
          autoCapitalize="none"
          placeholder="tag:prod & !web-9"
          value={start.target}
          onChange={(event) => start.setTarget(event.target.value)}
        />
      </label>
      <Preview
        preview={preview.data}
        error={preview.error && !isTold(preview.error) ? preview.error : null}
        pending={preview.isFetching}
      />
      {preview.data && preview.data.not_enrolled > 0 && (
        <label className="check">
          <input
            type="checkbox"
            checked={start.skipNotEnrolled}
            onChange={(event) => start.setSkipNotEnrolled(event.target.checked)}
          />{" "}
          Leave out hosts that are not enrolled
        </label>
      )}
      <RolloutFields
        rollout={rollout}
        timeout={timeout}
        fault={isAboutRollout ? refusal : null}
        onChange={start.setRollout}
      />
      <label>
        Why <span className="muted">optional; kept with the operation</span>
        <input value={start.reason} onChange={(event) => start.setReason(event.target.value)} />
      </label>
      {refusal && !isAboutRollout && <Failure error={refusal} />}
      {rehearses && rehearsal.isOutdated && (
        <p className="muted small" role="status">
          Something was changed since the dry run: it no longer tells what would happen.
        </p>
      )}
      {rehearses && rehearsal.number && <Rehearsal number={rehearsal.number} />}
      <footer>
        {onClose && (
          <button type="button" onClick={onClose}>
            Cancel
          </button>
        )}
        {rehearses && (
          <button
            type={rehearses === "only" ? "submit" : "button"}
            className={rehearsal.number ? "" : "primary"}
            disabled={!start.isReady || rehearsal.isPending}
            onClick={rehearses === "only" ? undefined : start.rehearse}
          >
            {rehearsal.isPending ? "Asking…" : rehearsal.number ? "Look again" : "Show what would change"}
          </button>
        )}
        {rehearses !== "only" && (
          <button
            type="submit"
            className={rehearses && !rehearsal.number ? "" : "primary"}
            disabled={!start.isReady || create.isPending}
          >
            {create.isPending
              ? "Starting…"
              : runnable > 0
                ? `${verb} on ${runnable} ${plural(runnable)}`
                : verb}
          </button>
        )}
      </footer>
    </>
  );
}

/** The value once it has not changed for a moment. */
export function useSettled(value: string, ms = 250): string {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), ms);
    return () => clearTimeout(timer);
  }, [value, ms]);
  return settled;
}

/** The id of the operation that this request is: sent again, it is the same one. */
function useOperationId(request: string): string {
  const held = useRef({ request, id: operationId() });
  if (held.current.request !== request) held.current = { request, id: operationId() };
  return held.current.id;
}
