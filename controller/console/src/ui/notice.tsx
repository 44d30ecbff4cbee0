// What a page says when there is nothing to show, not yet, or no longer.

import type { ReactNode } from "react";
import { ApiError } from "../api/client";

export function Failure({ error, retry }: { error: unknown; retry?: () => void }) {
  const text = error instanceof Error ? error.message : String(error);
  const unreachable = !(error instanceof ApiError);
  return (
    <div className="notice bad" role="alert">
      <p>{unreachable ? "The controller cannot be reached." : sentence(text)}</p>
      {unreachable && <p className="muted">{text}</p>}
      {retry && (
        <button type="button" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}

/** Data on screen that could not be refreshed. */
export function Stale({ since }: { since: number }) {
  return (
    <p className="notice warn" role="status">
      Not up to date: the controller cannot be reached. This is what was true at{" "}
      {new Date(since).toLocaleTimeString()}.
    </p>
  );
}

export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="empty">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

export function Loading() {
  return (
    <div className="loading" role="status" aria-label="Loading">
      <span />
      <span />
      <span />
    </div>
  );
}

/** Error texts are fragments; on a page they stand as a sentence. */
export function sentence(text: string): string {
  const trimmed = text.trim();
  const first = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?)]$/.test(first) ? first : `${first}.`;
}
