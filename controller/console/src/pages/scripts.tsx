import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useState } from "react";
import { useScripts } from "../api/queries";
import { RunDialog } from "../run/run_dialog";
import { Empty, Failure, Loading, Stale } from "../ui/notice";
import { duration } from "../ui/time";
import { Search } from "./hosts";

export function ScriptsPage() {
  const { search = "" } = useSearch({ from: "/shell/scripts" });
  const navigate = useNavigate({ from: "/scripts" });
  const scripts = useScripts();
  const [running, setRunning] = useState<string>();
  const wanted = search.toLowerCase();
  const rows = (scripts.data ?? []).filter((script) =>
    [script.name, script.title, script.description, ...script.tags].some((text) =>
      text.toLowerCase().includes(wanted),
    ),
  );
  return (
    <>
      <header className="page">
        <h1>Scripts</h1>
      </header>
      {scripts.isPending && <Loading />}
      {scripts.error && !scripts.data && (
        <Failure error={scripts.error} retry={() => void scripts.refetch()} />
      )}
      {scripts.isRefetchError && <Stale since={scripts.dataUpdatedAt} />}
      {scripts.data?.length === 0 && (
        <Empty title="No scripts yet">
          <p>
            Scripts come from <code>scripts.yaml</code> in the{" "}
            <Link to="/inventory">inventory repository</Link>.
          </p>
        </Empty>
      )}
      {scripts.data && scripts.data.length > 0 && (
        <div className="filters">
          <Search
            value={search}
            onChange={(text) => void navigate({ search: text ? { search: text } : {}, replace: true })}
          />
        </div>
      )}
      {scripts.data && scripts.data.length > 0 && rows.length === 0 && <Empty title="No script matches" />}
      <ul className="cards">
        {rows.map((script) => (
          <li key={script.name} className="card">
            <h2>
              {script.emoji && <span aria-hidden="true">{script.emoji} </span>}
              <Link to="/scripts/$name" params={{ name: script.name }}>
                {script.title}
              </Link>
            </h2>
            <p>{script.description}</p>
            <p className="muted small">
              <code>{script.name}</code>
              {script.estimated_duration_s != null && (
                <> · about {duration(script.estimated_duration_s * 1000)}</>
              )}
              {script.tags.map((tag) => (
                <span key={tag} className="tag">
                  {tag}
                </span>
              ))}
            </p>
            <button type="button" onClick={() => setRunning(script.name)}>
              Run…
            </button>
          </li>
        ))}
      </ul>
      {running && <RunDialog script={running} onClose={() => setRunning(undefined)} />}
    </>
  );
}
