// One kind: the form to do it or to ask it, and what comes of that.

import { Link, useParams, useSearch } from "@tanstack/react-router";
import { useKinds } from "../api/queries";
import { AskForm } from "../query/ask_form";
import { DoForm } from "../run/do_form";
import { Empty, Failure, Loading } from "../ui/notice";

export function KindPage() {
  const { kind: name } = useParams({ from: "/shell/kinds/$kind" });
  const { on, params } = useSearch({ from: "/shell/kinds/$kind" });
  const kinds = useKinds();
  if (kinds.isPending) return <Loading />;
  if (!kinds.data) return <Failure error={kinds.error} retry={() => void kinds.refetch()} />;
  const kind = kinds.data.find((known) => known.name === name);
  if (!kind) {
    return (
      <Empty title={`There is no kind ${name}`}>
        <Link to="/kinds">All kinds</Link>
      </Empty>
    );
  }
  return (
    <>
      <header className="page">
        <div>
          <Link to="/kinds" className="crumb">
            Kinds
          </Link>
          <h1>{kind.name}</h1>
          <p className="muted">{kind.summary}</p>
        </div>
      </header>
      {kind.family === "action" ? (
        <div className="card form">
          <DoForm key={kind.name} kind={kind} params={params} on={on} />
        </div>
      ) : (
        <AskForm key={kind.name} kind={kind} params={params} on={on} />
      )}
    </>
  );
}
