// How far hosts came with their answer, where that is not plain from what they told.

import type { Asking } from "../api/answer";
import { ApiError, type Schemas } from "../api/client";
import { Failure, Loading, sentence } from "../ui/notice";

const TITLES: Partial<Record<Schemas["QueryState"], string>> = {
  offline: "is offline",
  refused: "refused",
  failed: "broke off its answer",
};

/** How many hosts are named; the others are counted. */
const MAX_NAMED = 20;

export function AnswerNotes({ asking, nothing = "There is nothing." }: { asking: Asking; nothing?: string }) {
  const { answer, phase, error, again } = asking;
  if (phase === "idle") return null;
  const hosts = [...answer.hosts.values()];
  const short = hosts.filter(({ state }) => TITLES[state] !== undefined);
  const isEmpty = answer.items().length === 0;
  const isWhole = hosts.some(({ state }) => state === "ended" || state === "complete");
  const retry = (
    <button type="button" disabled={phase === "asking"} onClick={again}>
      {phase === "asking" ? "Asking…" : "Ask again"}
    </button>
  );
  return (
    <>
      {phase === "lost" && !isEmpty && !(error instanceof ApiError) && (
        <p className="notice warn" role="status">
          Not up to date: the connection to the controller broke. {retry}
        </p>
      )}
      {error && (isEmpty || error instanceof ApiError) && <Failure error={error} retry={again} />}
      {short.slice(0, MAX_NAMED).map(({ host, state, detail }) => (
        <div key={host} className={`notice ${state === "offline" ? "warn" : "bad"}`} role="status">
          <p>
            <strong>
              {host} {state === "failed" && isEmpty ? "could not answer" : TITLES[state]}
            </strong>
          </p>
          {detail && <p className="hostile">{sentence(detail)}</p>}
          {!isEmpty && state !== "refused" && hosts.length === 1 && (
            <p className="muted small">What is shown here is what it told before.</p>
          )}
          {state !== "refused" && retry}
        </div>
      ))}
      {short.length > MAX_NAMED && (
        <p className="muted">And {short.length - MAX_NAMED} more did not answer to the end.</p>
      )}
      {answer.end?.cut && (
        <p className="notice warn" role="status">
          {sentence(answer.end.detail ?? "the query ended before its hosts did")} {retry}
        </p>
      )}
      {(answer.end?.left_out ?? 0) > 0 && (
        <p className="muted small">{answer.end?.left_out} not enrolled left out.</p>
      )}
      {isEmpty && !error && short.length === 0 && phase !== "ended" && !isWhole && <Loading />}
      {isEmpty && !error && (isWhole || (phase === "ended" && short.length === 0)) && (
        <p className="muted" role="status">
          {nothing}
        </p>
      )}
    </>
  );
}
