// Where an operation is carried out: the hosts, shown before anything starts.

import type { Schemas } from "../api/client";
import { sentence } from "../ui/notice";

export function Preview({
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

export const plural = (count: number): string => (count === 1 ? "host" : "hosts");
