// The sites of nginx on a host, whoever wrote them, and the certificates that they use.

import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { useState } from "react";
import type { Asking } from "../api/answer";
import type { Json } from "../kind/schema";
import { visible } from "../output/text";
import { Search } from "../pages/hosts";
import { AnswerNotes } from "../query/answer_notes";
import { Empty } from "../ui/notice";
import { Badge } from "../ui/state";
import { KIND, numberOf, textOf, textsOf, useHostAnswer } from "./asked";
import { Certificates } from "./certificates";
import { Names } from "./names";

const PAGE = 300;
/** Names that a row shows; its page shows the others. */
const MAX_NAMES = 2;

export function SitesPage() {
  const { name } = useParams({ from: "/shell/hosts/$name/sites" });
  const { search = "" } = useSearch({ from: "/shell/hosts/$name/sites" });
  const navigate = useNavigate({ from: "/hosts/$name/sites" });
  const change = (next: string) =>
    void navigate({ search: next === "" ? {} : { search: next }, replace: true });
  const sites = useHostAnswer(name, KIND.sites, {});
  // Where sites cannot be told for want of nginx or of the host, nor can certificates: one note says so.
  const state = sites.answer.hosts.get(name)?.state;
  const isAsked = state === "ended" || state === "refused";
  const certificates = useHostAnswer(name, KIND.certificates, isAsked ? {} : undefined);
  return (
    <>
      <SiteTable asking={sites} host={name} search={search} onSearch={change} onShowAll={() => change("")} />
      {isAsked && (
        <section>
          <h2>Certificates</h2>
          <AnswerNotes asking={certificates} nothing="No site uses a certificate." />
          <Certificates host={name} items={certificates.answer.items().map(({ item }) => item)} />
        </section>
      )}
    </>
  );
}

export function SiteTable({
  asking,
  host,
  search,
  onSearch,
  onShowAll,
}: {
  asking: Asking;
  host: string;
  search: string;
  onSearch: (search: string) => void;
  onShowAll: () => void;
}) {
  const [shown, setShown] = useState(PAGE);
  const words = search.trim().toLowerCase();
  const sites = asking.answer.items().map(({ item }) => item);
  const rows = sites
    .filter((site) => words === "" || sought(site).includes(words))
    .sort(
      (a, b) =>
        Number(b.enabled === true) - Number(a.enabled === true) ||
        collator.compare(textOf(a, "name"), textOf(b, "name")),
    );
  const disabled = sites.filter((site) => site.enabled !== true).length;
  return (
    <>
      {sites.length > 0 && (
        <div className="filters">
          <Search value={search} onChange={onSearch} />
          <p className="muted small" role="status">
            {rows.length === sites.length ? sites.length : `${rows.length} of ${sites.length}`}{" "}
            {sites.length === 1 ? "site" : "sites"}
            {disabled > 0 && `, ${disabled} not enabled`}
          </p>
          <button type="button" disabled={asking.phase === "asking"} onClick={asking.again}>
            {asking.phase === "asking" ? "Asking…" : "Ask again"}
          </button>
        </div>
      )}
      <SiteNotes asking={asking} host={host} nothing="nginx has no sites on this host." />
      {sites.length > 0 && rows.length === 0 && (
        <p className="muted">
          No site matches.{" "}
          <button type="button" onClick={onShowAll}>
            Show all
          </button>
        </p>
      )}
      {rows.length > 0 && (
        <table className="list sites">
          <thead>
            <tr>
              <th scope="col">Site</th>
              <th scope="col">State</th>
              <th scope="col">Answers to</th>
              <th scope="col">Listens on</th>
              <th scope="col">Passes to</th>
              <th scope="col">Written by</th>
            </tr>
          </thead>
          <tbody>
            {rows.slice(0, shown).map((site) => (
              <SiteRow key={textOf(site, "file")} host={host} site={site} />
            ))}
          </tbody>
        </table>
      )}
      {rows.length > shown && (
        <button type="button" onClick={() => setShown(shown + PAGE)}>
          Show more
        </button>
      )}
    </>
  );
}

const sought = (site: Json): string =>
  [
    textOf(site, "name"),
    textOf(site, "target"),
    textOf(site, "file"),
    ...textsOf(site, "server_names"),
    ...textsOf(site, "listen"),
  ]
    .join("\n")
    .toLowerCase();

/** What a host says of sites that it cannot tell; that there is no nginx is no fault of it. */
export function SiteNotes({ asking, host, nothing }: { asking: Asking; host: string; nothing: string }) {
  const { state, detail } = asking.answer.hosts.get(host) ?? {};
  if (state === "failed" && detail?.startsWith(NO_NGINX)) {
    return (
      <Empty title="nginx is not installed">
        <p>Sites are those of nginx, and {host} has none.</p>
        <button type="button" disabled={asking.phase === "asking"} onClick={asking.again}>
          {asking.phase === "asking" ? "Asking…" : "Ask again"}
        </button>
      </Empty>
    );
  }
  return <AnswerNotes asking={asking} nothing={nothing} />;
}

/** How the agent's words begin where nothing is installed; other words are shown as they are. */
const NO_NGINX = "there is no nginx on this host";

function SiteRow({ host, site }: { host: string; site: Json }) {
  const names = textsOf(site, "server_names");
  const more = Math.max(0, names.length - MAX_NAMES) + (numberOf(site, "more_names") ?? 0);
  return (
    <tr>
      <td data-title="Site">
        <span>
          {" "}
          <Link
            to="/hosts/$name/sites/$site"
            params={{ name: host, site: textOf(site, "name") }}
            className="strong clip"
            title={visible(textOf(site, "name"))}
          >
            {visible(textOf(site, "name"))}
          </Link>
        </span>
      </td>
      <td data-title="State" className="word">
        <SiteState site={site} />
      </td>
      <td data-title="Answers to" className="rest">
        <Names names={names.slice(0, MAX_NAMES)} more={more} title={names} />
      </td>
      <td data-title="Listens on">
        <Names names={textsOf(site, "listen")} />
      </td>
      <td data-title="Passes to">
        <Names names={textOf(site, "target") === "" ? [] : [textOf(site, "target")]} />
      </td>
      <td data-title="Written by" className="word">
        <SiteWriter site={site} />
      </td>
    </tr>
  );
}

/** That nginx reads it is the quiet state. */
export function SiteState({ site }: { site: Json }) {
  if (site.enabled !== true) return <span className="muted">not enabled</span>;
  return (
    <span className="quiet-state">
      <span aria-hidden="true" className="dot" />
      enabled
    </span>
  );
}

/** Who wrote it; that somebody changed what is ours since is what a person should see. */
export function SiteWriter({ site }: { site: Json }) {
  const writer = textOf(site, "writer");
  if (writer === "edited") return <Badge tone="warn">changed by hand</Badge>;
  if (writer === "ours") return <>Fleetward</>;
  return <span className="muted">somebody else</span>;
}

const collator = new Intl.Collator("en", { numeric: true });
