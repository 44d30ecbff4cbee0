// One unit of a host: its state, its files, what it has to do with others, its log, and what can be done with it.

import { Link, useParams } from "@tanstack/react-router";
import { useEffect, useRef } from "react";
import type { Told } from "../api/answer";
import type { Json } from "../kind/schema";
import { plain } from "../kind/values";
import { visible } from "../output/text";
import { AnswerNotes } from "../query/answer_notes";
import { Ago, bytes, duration } from "../ui/time";
import { type Act, Acts } from "./acts";
import { KIND, numberOf, textOf, textsOf, timeIn, useHostAnswer } from "./asked";
import { UnitLog } from "./log";
import { UnitState } from "./units";

export function UnitPage() {
  const { name, unit } = useParams({ from: "/shell/hosts/$name/units/$unit" });
  const asking = useHostAnswer(name, KIND.unitShow, { unit });
  // Its state is live; what else there is of it is asked for once, and when that turns.
  const live = useHostAnswer(name, KIND.units, { types: [typeOf(unit)], pattern: unit }, "follow");
  const now = live.answer.items().find(({ item }) => textOf(item, "name") === unit)?.item;
  const turned = now && JSON.stringify([now.active, now.sub, now.since, now.file]);
  const seen = useRef(turned);
  const { again } = asking;
  useEffect(() => {
    if (seen.current !== undefined && turned !== undefined && seen.current !== turned) again();
    seen.current = turned ?? seen.current;
  }, [turned, again]);
  return (
    <>
      <header className="unit">
        <div>
          <Link to="/hosts/$name/units" params={{ name }} className="crumb">
            Units
          </Link>
          <h2>
            {visible(unit)} {now && <UnitState unit={now} />}
          </h2>
        </div>
        <Acts host={name} subject={unit} acts={actsOf(unit, now)} onDone={asking.again} />
      </header>
      <AnswerNotes asking={asking} nothing="The host has no such unit." />
      <UnitParts host={name} told={asking.answer.items()} />
      <section>
        <h2>Log</h2>
        <UnitLog host={name} units={[unit]} />
      </section>
    </>
  );
}

function typeOf(unit: string): string {
  const at = unit.lastIndexOf(".");
  return at < 0 ? "service" : unit.slice(at + 1);
}

/** What can be done with a unit, as it is. */
function actsOf(unit: string, state: Json | undefined): Act[] {
  const active = state && textOf(state, "active");
  const file = state && textOf(state, "file");
  const isDown = active === "inactive" || active === "failed";
  const act = (verb: string, kind: string, isIdle = false): Act => ({
    kind,
    verb,
    params: { unit, verb: verb.toLowerCase() },
    isIdle,
  });
  return [
    act("Start", KIND.unit, active === "active"),
    act("Stop", KIND.unit, isDown),
    act("Restart", KIND.unit),
    act("Reload", KIND.unit, isDown),
    act("Enable", KIND.unitFile, file === "enabled"),
    act("Disable", KIND.unitFile, file === "disabled"),
  ];
}

type Part = { name: string; items: Json[] };

/** The items of one part, those of one name together, in their order. */
function partsOf(told: Told[], part: string): Part[] {
  const parts = new Map<string, Part>();
  const at = (item: Json, name: string) => numberOf(item, name) ?? 0;
  const items = told
    .map(({ item }) => item)
    .filter((item) => textOf(item, "part") === part)
    .sort((a, b) => at(a, "file") - at(b, "file") || at(a, "from") - at(b, "from"));
  for (const item of items) {
    const name = textOf(item, "name");
    const key = `${at(item, "file")} ${name}`;
    const known = parts.get(key) ?? { name, items: [] };
    known.items.push(item);
    parts.set(key, known);
  }
  return [...parts.values()];
}

export function UnitParts({ host, told }: { host: string; told: Told[] }) {
  const about = partsOf(told, "about");
  const files = partsOf(told, "file");
  const dependencies = partsOf(told, "dependency");
  const properties = partsOf(told, "property");
  const needsReload = about.some(
    ({ name, items }) => name === "needs_daemon_reload" && plain(items[0]?.value) !== "no",
  );
  return (
    <>
      {needsReload && (
        <p className="notice warn">
          A file of it was changed since systemd read it: a daemon-reload makes the change count.
        </p>
      )}
      <div className="columns">
        {about.length > 0 && (
          <section className="card">
            <h2>State</h2>
            <dl>
              {about.map(({ name, items }) => (
                <div key={name}>
                  <dt>{visible(name).replace(/_ms$/, "").replaceAll("_", " ")}</dt>
                  <dd>{items[0] && <AboutValue name={name} item={items[0]} />}</dd>
                </div>
              ))}
            </dl>
          </section>
        )}
        {dependencies.length > 0 && (
          <section className="card">
            <h2>Dependencies</h2>
            <dl className="dependencies">
              {dependencies.map(({ name, items }) => (
                <div key={name}>
                  <dt>{visible(name)}</dt>
                  <dd>
                    {items
                      .flatMap((item) => textsOf(item, "units"))
                      .map((other) => (
                        <Link key={other} to="/hosts/$name/units/$unit" params={{ name: host, unit: other }}>
                          {visible(other)}
                        </Link>
                      ))}
                    {items.some((item) => item.truncated === true) && <span className="muted">and more</span>}
                  </dd>
                </div>
              ))}
            </dl>
          </section>
        )}
      </div>
      {files.length > 0 && (
        <section>
          <h2>Files</h2>
          {files.map(({ name, items }) => (
            <details key={name} className="file-part" open={files.length === 1}>
              <summary>
                <code>{visible(name)}</code>
              </summary>
              {items.some((item) => item.value !== undefined) && (
                <p className="muted small hostile">
                  {items.map((item) => visible(plain(item.value))).join(" ")}
                </p>
              )}
              <Lines lines={items.flatMap((item) => textsOf(item, "lines"))} />
              {items.some((item) => item.truncated === true) && (
                <p className="muted small">There is more of it than is told here.</p>
              )}
            </details>
          ))}
        </section>
      )}
      {properties.length > 0 && (
        <details className="file-part">
          <summary>{properties.length} properties</summary>
          <dl className="properties">
            {properties.map(({ name, items }) => (
              <div key={name}>
                <dt>{visible(name)}</dt>
                <dd>
                  <code>{items[0] && <AboutValue name={name} item={items[0]} />}</code>
                </dd>
              </div>
            ))}
          </dl>
        </details>
      )}
    </>
  );
}

/** Lines on a page; a browser draws no more of them well. */
const MAX_LINES = 10_000;

/** Lines of a file, with their numbers. */
export function Lines({ lines }: { lines: string[] }) {
  if (lines.length === 0) return null;
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by keyboard
    <pre className="source" tabIndex={0}>
      {lines.slice(0, MAX_LINES).map((line, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a line is its place
        <span key={index} className="line">
          {visible(line)}
          {"\n"}
        </span>
      ))}
      {lines.length > MAX_LINES && `and ${lines.length - MAX_LINES} more lines`}
    </pre>
  );
}

function AboutValue({ name, item }: { name: string; item: Json }) {
  if (timeIn(item, "at")) return <Ago time={timeIn(item, "at")} />;
  const number = numberOf(item, "value");
  if (number !== undefined && name === "memory") return bytes(number);
  if (number !== undefined && name === "cpu_ms") return duration(number);
  return visible(plain(item.value));
}
