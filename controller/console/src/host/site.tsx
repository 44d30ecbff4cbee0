// One site of nginx: what it is, its certificates, what it has logged as errors, and what can be done with it.

import { Link, useParams } from "@tanstack/react-router";
import { useState } from "react";
import type { Told } from "../api/answer";
import type { Json } from "../kind/schema";
import { visible } from "../output/text";
import { AnswerNotes } from "../query/answer_notes";
import { Sequence } from "../query/sequence";
import { type Act, Acts } from "./acts";
import { KIND, numberOf, textOf, textsOf, useHostAnswer } from "./asked";
import { Certificates, FileLink } from "./certificates";
import { SiteNotes, SiteState, SiteWriter } from "./sites";

/** Lines of each log that are asked for. */
const LINES = 200;

export function SitePage() {
  const { name, site } = useParams({ from: "/shell/hosts/$name/sites/$site" });
  // A name that is a pattern of its own kind means others, too; one that is none is asked for by itself.
  const asking = useHostAnswer(name, KIND.sites, /^[\w.-]+$/.test(site) ? { pattern: site } : {});
  // Two files may have one name in different directories.
  const found = asking.answer.items().flatMap(({ item }) => (textOf(item, "name") === site ? [item] : []));
  const uses = found.flatMap((item) => textsOf(item, "certificates"));
  const certificates = useHostAnswer(name, KIND.certificates, uses.length > 0 ? {} : undefined);
  const own = certificates.answer
    .items()
    .flatMap(({ item }) => (uses.includes(textOf(item, "file")) ? [item] : []));
  const isGone = asking.answer.items().length > 0 && found.length === 0;
  return (
    <>
      <header className="unit">
        <div>
          <Link to="/hosts/$name/sites" params={{ name }} className="crumb">
            Sites
          </Link>
          <h2>
            {visible(site)} {found[0] && <SiteState site={found[0]} />}
          </h2>
        </div>
        <Acts
          host={name}
          subject={site}
          acts={found.length === 1 && found[0] ? actsOf(found[0]) : []}
          onDone={asking.again}
        />
      </header>
      <SiteNotes asking={asking} host={name} nothing="There is no site of this name on the host." />
      {isGone && (
        <p className="muted" role="status">
          There is no site of this name on the host.
        </p>
      )}
      {found.map((item) => (
        <SiteCard key={textOf(item, "file")} host={name} site={item} />
      ))}
      {uses.length > 0 && (
        <section>
          <h2>Certificates</h2>
          <AnswerNotes asking={certificates} nothing="The host tells of no certificate." />
          <Certificates host={name} items={own} />
        </section>
      )}
      {found.length > 0 && (
        <section>
          <h2>Errors</h2>
          <Errors host={name} site={site} />
        </section>
      )}
    </>
  );
}

/** What can be done with a site: nothing with one that somebody else wrote, for no agent would do it. */
export function actsOf(site: Json): Act[] {
  if (textOf(site, "writer") === "foreign") return [];
  const enabled = site.enabled === true;
  const act = (verb: string, params: Json, more: Partial<Act> = {}): Act => ({
    kind: KIND.site,
    verb,
    params: { name: textOf(site, "name"), ...params },
    ...more,
  });
  return [
    // Whether nginx takes it as it is written: what enabling it would do, and no more than told.
    act("Test", { verb: "enable" }, { dryRun: true }),
    act("Enable", { verb: "enable" }, { isIdle: enabled }),
    act("Disable", { verb: "disable" }, { isIdle: !enabled }),
    act("Remove", { verb: "remove" }),
  ];
}

export function SiteCard({ host, site }: { host: string; site: Json }) {
  const more = numberOf(site, "more_names") ?? 0;
  const names = textsOf(site, "server_names");
  const listen = textsOf(site, "listen");
  const target = textOf(site, "target");
  return (
    <section className="card">
      <dl>
        <div>
          <dt>Answers to</dt>
          <dd>
            {names.length === 0 && <span className="muted">whatever no other site answers to</span>}
            {names.map((name) => (
              <div key={name}>{visible(name)}</div>
            ))}
            {more > 0 && <span className="muted">and {more} more</span>}
          </dd>
        </div>
        <div>
          <dt>Listens on</dt>
          <dd>
            {listen.length === 0 && <span className="muted">–</span>}
            {listen.map((place) => (
              <div key={place}>
                <code>{visible(place)}</code>
              </div>
            ))}
          </dd>
        </div>
        {target && (
          <div>
            <dt>Passes to</dt>
            <dd className="hostile">
              <code>{visible(target)}</code>
            </dd>
          </div>
        )}
        <div>
          <dt>Written by</dt>
          <dd>
            <SiteWriter site={site} />
            {textOf(site, "writer") === "foreign" && (
              <span className="muted small"> Fleetward changes only sites that it wrote.</span>
            )}
          </dd>
        </div>
        <div>
          <dt>File</dt>
          <dd>
            <FileLink host={host} path={textOf(site, "file")} />
          </dd>
        </div>
      </dl>
    </section>
  );
}

function Errors({ host, site }: { host: string; site: string }) {
  const [all, setAll] = useState(false);
  const asking = useHostAnswer(host, KIND.siteErrors, { lines: LINES, ...(all ? {} : { site }) });
  return (
    <>
      <div className="filters">
        <label className="check">
          <input type="checkbox" checked={all} onChange={(event) => setAll(event.target.checked)} /> All logs
          of nginx
        </label>
        <button type="button" disabled={asking.phase === "asking"} onClick={asking.again}>
          {asking.phase === "asking" ? "Asking…" : "Ask again"}
        </button>
      </div>
      <AnswerNotes
        asking={asking}
        nothing={all ? "nginx has logged no errors." : "Nothing was logged in the site's own log."}
      />
      {asking.answer.items().length > 0 && (
        <Sequence asking={asking} label={`Errors of ${all ? "nginx" : site}`}>
          {(told) => <ErrorLine told={told} />}
        </Sequence>
      )}
    </>
  );
}

const BAD = ["emerg", "alert", "crit", "error"];

/** A line of an error log. Its time is the host's own, as nginx wrote it: it is shown as it stands. */
export function ErrorLine({ told: { item } }: { told: Told }) {
  const level = textOf(item, "level");
  const log = textOf(item, "log");
  const tone = BAD.includes(level) ? "bad" : level === "warn" ? "warn" : "";
  return (
    <div className={`entry dated ${tone}`}>
      <time title="The host's local time">{visible(textOf(item, "time")) || "–"}</time>{" "}
      <span className="who" title={visible(log)}>
        {visible(textOf(item, "site") || log.slice(log.lastIndexOf("/") + 1))}
      </span>{" "}
      <span className="message">
        {level && <span className="priority">{visible(level)}: </span>}
        {visible(textOf(item, "message")) || " "}
      </span>
    </div>
  );
}
