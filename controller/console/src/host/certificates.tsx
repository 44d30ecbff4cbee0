// Certificates that sites use: for what, until when, and what is wrong with them.

import { Link } from "@tanstack/react-router";
import type { Json } from "../kind/schema";
import { visible } from "../output/text";
import { Badge } from "../ui/state";
import { numberOf, textOf, textsOf, timeIn } from "./asked";
import { Names } from "./names";

/** Days before the end from which on a certificate is looked at: tools that renew do it a month before. */
const SOON = 21;
const MAX_ROWS = 500;
/** Names that a row shows. */
const MAX_NAMES = 2;

export function Certificates({ host, items }: { host: string; items: Json[] }) {
  if (items.length === 0) return null;
  const rows = [...items].sort((a, b) => urgency(a) - urgency(b));
  return (
    <>
      <table className="list certificates">
        <thead>
          <tr>
            <th scope="col">For</th>
            <th scope="col">Holds</th>
            <th scope="col">Until</th>
            <th scope="col">Signed by</th>
            <th scope="col">Used by</th>
            <th scope="col">File</th>
          </tr>
        </thead>
        <tbody>
          {rows.slice(0, MAX_ROWS).map((item) => (
            <CertificateRow key={textOf(item, "file")} host={host} item={item} />
          ))}
        </tbody>
      </table>
      {rows.length > MAX_ROWS && (
        <p className="muted">
          And {(rows.length - MAX_ROWS).toLocaleString("en")} more, which hold longer than these.
        </p>
      )}
    </>
  );
}

/** What cannot be read, or does not hold, comes first; then what ends first. */
function urgency(item: Json): number {
  if (textOf(item, "problem") !== "") return Number.NEGATIVE_INFINITY;
  return numberOf(item, "not_after") ?? Number.POSITIVE_INFINITY;
}

function CertificateRow({ host, item }: { host: string; item: Json }) {
  // Most have the name of their subject among their names once more.
  const names = [...new Set(textsOf(item, "names"))];
  const more = numberOf(item, "more_names") ?? 0;
  const file = textOf(item, "file");
  const until = timeIn(item, "not_after");
  return (
    <tr>
      <td data-title="For" className="rest">
        <Names
          names={names.slice(0, MAX_NAMES)}
          more={Math.max(0, names.length - MAX_NAMES) + more}
          title={names}
        />
      </td>
      <td data-title="Holds" className="holds">
        <Holds item={item} />
      </td>
      <td data-title="Until" className="number">
        {until ? (
          <time dateTime={until}>{day.format(new Date(until))}</time>
        ) : (
          <span className="muted">–</span>
        )}
      </td>
      <td data-title="Signed by">
        <Names names={textOf(item, "issuer") === "" ? [] : [textOf(item, "issuer")]} />
      </td>
      <td data-title="Used by">
        <span className="names">
          {textsOf(item, "sites").map((site) => (
            <Link key={site} to="/hosts/$name/sites/$site" params={{ name: host, site }}>
              {visible(site)}
            </Link>
          ))}
        </span>
      </td>
      <td data-title="File">
        <span className="names" title={visible(file)}>
          <FileLink host={host} path={file} />
        </span>
      </td>
    </tr>
  );
}

/** Where a file of a host is to be seen. */
export function FileLink({ host, path }: { host: string; path: string }) {
  const directory = path.slice(0, path.lastIndexOf("/")) || "/";
  return (
    <Link
      to="/hosts/$name/files"
      params={{ name: host }}
      search={{ path: directory, file: path }}
      className="path"
    >
      {visible(path)}
    </Link>
  );
}

/** For how long it holds; what does not, or not for long, is loud. */
export function Holds({ item }: { item: Json }) {
  const problem = textOf(item, "problem");
  if (problem !== "") {
    return (
      <span className="hostile">
        <Badge tone="bad">cannot be read</Badge> <span className="muted small">{visible(problem)}</span>
      </span>
    );
  }
  const days = numberOf(item, "days_left");
  const from = numberOf(item, "not_before");
  if (days === undefined) return <span className="muted">–</span>;
  if (days < 0) return <Badge tone="bad">ended {inDays(-days)} ago</Badge>;
  if (from !== undefined && from > Date.now()) return <Badge tone="bad">not yet</Badge>;
  if (days < SOON) return <Badge tone="warn">{days === 0 ? "ends today" : `${inDays(days)} left`}</Badge>;
  return <>{inDays(days)}</>;
}

const inDays = (days: number): string => (days === 1 ? "1 day" : `${days} days`);

const day = new Intl.DateTimeFormat("en-GB", { year: "numeric", month: "short", day: "2-digit" });
