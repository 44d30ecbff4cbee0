// What a dry run tells: the changes that would be made, of whatever kind.

import { visible } from "../output/text";
import { isObject, type Json } from "./schema";

export type Change = { what: string; before?: string; after?: string; diff: string[] };

/** The changes that a report tells of; nothing where it is no report of a dry run. */
export function changesOf(
  report: Json | null | undefined,
): { changes: Change[]; leftOut: number } | undefined {
  if (!report || !Array.isArray(report.changes)) return undefined;
  const changes = report.changes.filter(isObject).map((change) => ({
    what: text(change.what) ?? "",
    ...(text(change.before) === undefined ? {} : { before: text(change.before) as string }),
    ...(text(change.after) === undefined ? {} : { after: text(change.after) as string }),
    diff: Array.isArray(change.diff) ? change.diff.filter((line) => typeof line === "string") : [],
  }));
  return { changes, leftOut: typeof report.left_out === "number" ? report.left_out : 0 };
}

const text = (value: unknown): string | undefined => (typeof value === "string" ? value : undefined);

/** How many changes there would be, in words. */
export function countOf(report: Json | null | undefined): string {
  const told = changesOf(report);
  if (!told) return "";
  const count = told.changes.length + told.leftOut;
  return count === 0 ? "no change" : count === 1 ? "1 change" : `${count} changes`;
}

export function Changes({ report }: { report: Json }) {
  const { changes, leftOut } = changesOf(report) ?? { changes: [], leftOut: 0 };
  if (changes.length === 0 && leftOut === 0) {
    return <p className="muted">Nothing would change: all is as asked for.</p>;
  }
  return (
    <>
      <ol className="changes">
        {changes.map((change, index) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: a change is its place
          <li key={index}>
            <p className="strong hostile">{visible(change.what)}</p>
            {(change.before !== undefined || change.after !== undefined) && (
              <p className="turn">
                {change.before !== undefined && (
                  <del>
                    <span className="visually-hidden">from </span>
                    {visible(change.before)}
                  </del>
                )}{" "}
                {change.after !== undefined && (
                  <>
                    <span aria-hidden="true">→</span>{" "}
                    <ins>
                      <span className="visually-hidden">to </span>
                      {visible(change.after)}
                    </ins>
                  </>
                )}
              </p>
            )}
            {change.diff.length > 0 && <Diff lines={change.diff} />}
          </li>
        ))}
      </ol>
      {leftOut > 0 && <p className="muted small">And {leftOut} more that did not fit in here.</p>}
    </>
  );
}

/** Lines as diff(1) shows them with `--unified`: each says by its first character what becomes of it. */
function Diff({ lines }: { lines: string[] }) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by keyboard
    <pre className="diff" tabIndex={0}>
      {lines.map((line, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a line is its place
        <span key={index} className={toneOf(line)}>
          {visible(line)}
          {"\n"}
        </span>
      ))}
    </pre>
  );
}

function toneOf(line: string): string {
  if (line.startsWith("+++") || line.startsWith("---") || line.startsWith("@@")) return "line head";
  if (line.startsWith("+")) return "line added";
  return line.startsWith("-") ? "line removed" : "line";
}
