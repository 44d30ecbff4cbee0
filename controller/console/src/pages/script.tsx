import { Link, useParams } from "@tanstack/react-router";
import { useState } from "react";
import type { Schemas } from "../api/client";
import { useOperations, useScript } from "../api/queries";
import { KIND, RunDialog } from "../run/run_dialog";
import { Failure, Loading } from "../ui/notice";
import { Ago, bytes } from "../ui/time";
import { OperationTable } from "./operations";

/** The way from a step of an operation to the script that it runs, if it runs one. */
export function ScriptLink({ step }: { step: Schemas["OperationStep"] }) {
  if (step.kind !== KIND) return null;
  return (
    <>
      {" · "}
      <Link to="/scripts/$name" params={{ name: step.subject }}>
        the script
      </Link>
    </>
  );
}

export function ScriptPage() {
  const { name } = useParams({ from: "/shell/scripts/$name" });
  const query = useScript(name);
  const history = useOperations({ kind: KIND, subject: name, limit: 10 });
  const [running, setRunning] = useState(false);
  if (query.isPending) return <Loading />;
  if (!query.data) return <Failure error={query.error} retry={() => void query.refetch()} />;
  const { script, content } = query.data;
  const operations = history.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <>
      <header className="page">
        <div>
          <Link to="/scripts" className="crumb">
            Scripts
          </Link>
          <h1>
            {script.emoji && <span aria-hidden="true">{script.emoji} </span>}
            {script.title}
          </h1>
        </div>
        <div className="actions">
          <button type="button" className="primary" data-key="r" onClick={() => setRunning(true)}>
            Run…
          </button>
        </div>
      </header>
      <p>{script.description}</p>
      <p className="muted small">
        <code>{script.path}</code> at <code>{script.commit.slice(0, 12)}</code>, synced{" "}
        <Ago time={script.synced_at} /> · {bytes(script.size)} · SHA-256{" "}
        <code title={script.digest}>{script.digest.slice(0, 12)}</code>
        {script.user && <> · runs as {script.user}</>}
        {script.users.length > 0 && <> (or {script.users.join(", ")})</>}
      </p>
      {script.flags.length > 0 && (
        <p className="small">
          Takes{" "}
          {script.flags.map((flag) => (
            <code key={`${flag.flag}${flag.default}`}>
              {flag.flag}
              {flag.requires_value
                ? "=VALUE (required)"
                : flag.default != null
                  ? `=${flag.default}`
                  : ""}{" "}
            </code>
          ))}
          {script.free_arguments ? "and other arguments" : "and no other arguments"}
        </p>
      )}
      {script.environment.length > 0 && (
        <p className="small">
          Variables{" "}
          {script.environment.map((variable) => (
            <span key={variable.name} title={variable.description || undefined}>
              <code>{variable.name}</code>
              {variable.required && " (required)"}
              {variable.secret && " (secret)"}{" "}
            </span>
          ))}
        </p>
      )}
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by keyboard */}
      <pre className="source" tabIndex={0}>
        {content.split("\n").map((line, index) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: a line is its number
          <span key={index} className="line">
            {line}
            {"\n"}
          </span>
        ))}
      </pre>
      {operations.length > 0 && (
        <section>
          <h2>Operations with this script</h2>
          <OperationTable operations={operations} />
          <Link to="/operations" search={{ kind: KIND, subject: script.name }}>
            All of them
          </Link>
        </section>
      )}
      {running && <RunDialog script={script.name} onClose={() => setRunning(false)} />}
    </>
  );
}
