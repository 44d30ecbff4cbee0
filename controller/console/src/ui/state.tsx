// States: a shape and a word, never colour alone.

import type { Schemas } from "../api/client";

type Tone = "good" | "bad" | "busy" | "warn" | "idle";

const RUN: Record<Schemas["RunState"], [Tone, string]> = {
  queued: ["idle", "queued"],
  dispatched: ["busy", "sent"],
  accepted: ["busy", "accepted"],
  running: ["busy", "running"],
  succeeded: ["good", "succeeded"],
  failed: ["bad", "failed"],
  timed_out: ["bad", "timed out"],
  cancelled: ["warn", "cancelled"],
  refused: ["bad", "refused"],
  expired: ["warn", "expired"],
  lost: ["bad", "lost"],
};

const OPERATION: Record<Schemas["OperationStatus"], [Tone, string]> = {
  queued: ["idle", "queued"],
  running: ["busy", "running"],
  success: ["good", "success"],
  failed: ["bad", "failed"],
  partial: ["warn", "partial"],
  stopped: ["warn", "stopped"],
};

const ENROLMENT: Record<Schemas["Enrolment"], [Tone, string]> = {
  pending: ["idle", "not enrolled"],
  enrolled: ["good", "enrolled"],
  quarantined: ["warn", "awaits approval"],
  revoked: ["bad", "revoked"],
};

const SHAPE: Record<Tone, string> = { good: "✓", bad: "✕", busy: "◐", warn: "!", idle: "○" };

export function Badge({ tone, children }: { tone: Tone; children: React.ReactNode }) {
  return (
    <span className={`badge ${tone}`}>
      <span aria-hidden="true" className="shape">
        {SHAPE[tone]}
      </span>
      {children}
    </span>
  );
}

export function RunBadge({ state }: { state: Schemas["RunState"] }) {
  const [tone, word] = RUN[state];
  return <Badge tone={tone}>{word}</Badge>;
}

export function OperationBadge({ status }: { status: Schemas["OperationStatus"] }) {
  const [tone, word] = OPERATION[status];
  return <Badge tone={tone}>{word}</Badge>;
}

export function EnrolmentBadge({ enrolment }: { enrolment: Schemas["Enrolment"] }) {
  const [tone, word] = ENROLMENT[enrolment];
  return <Badge tone={tone}>{word}</Badge>;
}

export function StatusBadge({ status }: { status: Schemas["Status"] }) {
  return <Badge tone={status === "online" ? "good" : "idle"}>{status}</Badge>;
}

/** Marks what changes nothing. */
export const DryRunTag = () => (
  <span className="tag dry" title="Nothing is changed: hosts tell what they would change">
    dry run
  </span>
);

export const runTone = (state: Schemas["RunState"]): Tone => RUN[state][0];
export const runWord = (state: Schemas["RunState"]): string => RUN[state][1];

/** Whether an operation has not ended. */
export const isLive = (status: Schemas["OperationStatus"]): boolean =>
  status === "queued" || status === "running";
