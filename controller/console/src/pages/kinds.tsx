import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import type { Schemas } from "../api/client";
import { useKinds } from "../api/queries";
import { Empty, Failure, Loading } from "../ui/notice";
import { Search } from "./hosts";

export function KindsPage() {
  const kinds = useKinds();
  const { search = "" } = useSearch({ from: "/shell/kinds" });
  const navigate = useNavigate({ from: "/kinds" });
  const words = search.trim().toLowerCase();
  const found = (kinds.data ?? []).filter((kind) =>
    `${kind.name} ${kind.summary}`.toLowerCase().includes(words),
  );
  return (
    <>
      <header className="page">
        <div>
          <h1>Kinds</h1>
          <p className="muted">Everything that can be done to hosts, or asked of them.</p>
        </div>
      </header>
      <div className="filters">
        <Search
          value={search}
          onChange={(next) => void navigate({ search: next ? { search: next } : {}, replace: true })}
        />
      </div>
      {kinds.isPending && <Loading />}
      {kinds.error && !kinds.data && <Failure error={kinds.error} retry={() => void kinds.refetch()} />}
      {kinds.isSuccess && found.length === 0 && <Empty title="No kind matches" />}
      <Kinds title="Actions" words="They change hosts." kinds={found.filter(isAction)} />
      <Kinds
        title="Queries"
        words="They look at hosts, and change nothing."
        kinds={found.filter((kind) => !isAction(kind))}
      />
    </>
  );
}

const isAction = (kind: Schemas["Kind"]): boolean => kind.family === "action";

function Kinds({ title, words, kinds }: { title: string; words: string; kinds: Schemas["Kind"][] }) {
  if (kinds.length === 0) return null;
  return (
    <section>
      <h2>
        {title} <span className="muted count">{words}</span>
      </h2>
      <table className="list">
        <thead>
          <tr>
            <th scope="col">Kind</th>
            <th scope="col">What it does</th>
            <th scope="col">Permission</th>
            <th scope="col">Can</th>
          </tr>
        </thead>
        <tbody>
          {kinds.map((kind) => (
            <tr key={kind.name}>
              <td data-title="Kind">
                <Link to="/kinds/$kind" params={{ kind: kind.name }} className="strong word">
                  {kind.name}
                </Link>
              </td>
              <td data-title="Does">{kind.summary}</td>
              <td data-title="Permission">
                <code>{kind.permission}</code>
              </td>
              <td data-title="Can">
                <span className="tags">
                  {kind.dry_run && <span className="tag">dry run</span>}
                  {kind.follows && <span className="tag">follow</span>}
                  {!kind.dry_run && !kind.follows && <span className="muted">–</span>}
                </span>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
