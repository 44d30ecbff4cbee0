// The files of a host: a directory at a time, what one of them is like, and the text in it.

import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { useEffect, useState } from "react";
import type { Asking } from "../api/answer";
import type { Json } from "../kind/schema";
import { visible } from "../output/text";
import { AnswerNotes } from "../query/answer_notes";
import { Ago, bytes } from "../ui/time";
import { KIND, numberOf, textOf, timeIn, useHostAnswer } from "./asked";
import { FileView } from "./file";

export function FilesPage() {
  const { name } = useParams({ from: "/shell/hosts/$name/files" });
  const { path = "/", file, hidden, after } = useSearch({ from: "/shell/hosts/$name/files" });
  const navigate = useNavigate({ from: "/hosts/$name/files" });
  const asking = useHostAnswer(
    name,
    KIND.fileList,
    file ? undefined : { path, hidden: hidden !== undefined, ...(after ? { after } : {}) },
  );
  return (
    <>
      <div className="filters">
        <PathField
          path={file ?? path}
          onGo={(next) => void navigate({ search: { path, file: next, ...(hidden ? { hidden } : {}) } })}
        />
        <label className="check">
          <input
            type="checkbox"
            checked={hidden !== undefined}
            onChange={(event) => {
              const { hidden: _, ...rest } = { hidden, path };
              void navigate({
                search: event.target.checked ? { ...rest, hidden: "yes" } : rest,
                replace: true,
              });
            }}
          />{" "}
          Hidden names
        </label>
      </div>
      <Crumbs host={name} path={file ?? path} hidden={hidden} />
      {file ? (
        <FileView host={name} path={file} hidden={hidden} />
      ) : (
        <Directory asking={asking} host={name} path={path} hidden={hidden} after={after} />
      )}
    </>
  );
}

function PathField({ path, onGo }: { path: string; onGo: (path: string) => void }) {
  const [text, setText] = useState(path);
  useEffect(() => setText(path), [path]);
  return (
    <form
      className="search path"
      onSubmit={(event) => {
        event.preventDefault();
        if (text.trim() !== "") onGo(text.trim());
      }}
    >
      <label>
        <span className="visually-hidden">Path</span>
        <input
          className="mono"
          spellCheck={false}
          autoCapitalize="none"
          autoComplete="off"
          value={text}
          onChange={(event) => setText(event.target.value)}
        />
      </label>
      <button type="submit">Go</button>
    </form>
  );
}

/** The directories on the way to a path, and what it is called itself. */
export function crumbsOf(path: string): { name: string; path: string }[] {
  if (!path.startsWith("/")) return [{ name: path, path }];
  const names = path.split("/").filter((name) => name !== "");
  return [
    { name: "/", path: "/" },
    ...names.map((name, index) => ({ name, path: `/${names.slice(0, index + 1).join("/")}` })),
  ];
}

function Crumbs({ host, path, hidden }: { host: string; path: string; hidden: string | undefined }) {
  const crumbs = crumbsOf(path);
  return (
    <nav aria-label="Path" className="crumbs">
      <ol>
        {crumbs.map((crumb, index) => (
          <li key={crumb.path}>
            {index === crumbs.length - 1 ? (
              <span aria-current="location">{visible(crumb.name)}</span>
            ) : (
              <Link
                to="/hosts/$name/files"
                params={{ name: host }}
                search={{ path: crumb.path, ...(hidden ? { hidden } : {}) }}
              >
                {visible(crumb.name)}
              </Link>
            )}
          </li>
        ))}
      </ol>
    </nav>
  );
}

/** What to ask for to see something in a directory. */
export function pathOf(directory: string, item: Json): string {
  return textOf(item, "path") || `${directory.replace(/\/+$/, "")}/${textOf(item, "name")}`;
}

export function Directory({
  asking,
  host,
  path,
  hidden,
  after,
}: {
  asking: Asking;
  host: string;
  path: string;
  hidden: string | undefined;
  after: string | undefined;
}) {
  const items = asking.answer.items().map(({ item }) => item);
  const itself = items.find((item) => textOf(item, "name") === ".");
  const rows = items
    .filter((item) => item !== itself)
    .sort(
      (a, b) =>
        Number(textOf(b, "type") === "directory") - Number(textOf(a, "type") === "directory") ||
        collator.compare(textOf(a, "name"), textOf(b, "name")),
    );
  const more = itself && textOf(itself, "next");
  const leftOut = itself && numberOf(itself, "left_out");
  const isWhole = asking.answer.hosts.get(host)?.state === "ended";
  const keep = hidden ? { hidden } : {};
  return (
    <>
      <AnswerNotes asking={asking} nothing="There is nothing." />
      {isWhole && itself && rows.length === 0 && (
        <p className="muted" role="status">
          {hidden ? "The directory is empty." : "There is nothing in it but, perhaps, hidden names."}
        </p>
      )}
      {rows.length > 0 && (
        <table className="list files">
          <thead>
            <tr>
              <th scope="col">Name</th>
              <th scope="col">Size</th>
              <th scope="col">Mode</th>
              <th scope="col">Owner</th>
              <th scope="col">Changed</th>
            </tr>
          </thead>
          <tbody>
            {rows.slice(0, MAX_ROWS).map((item) => {
              const type = textOf(item, "type");
              const isDirectory = type === "directory";
              const to = pathOf(path, item);
              return (
                <tr key={textOf(item, "name")}>
                  <td data-title="Name">
                    <span>
                      {" "}
                      <Link
                        to="/hosts/$name/files"
                        params={{ name: host }}
                        search={isDirectory ? { path: to, ...keep } : { path, file: to, ...keep }}
                        className={isDirectory ? "strong" : ""}
                      >
                        {visible(textOf(item, "name"))}
                        {isDirectory && "/"}
                      </Link>
                      {textOf(item, "target") && (
                        <span className="muted"> → {visible(textOf(item, "target"))}</span>
                      )}
                      {!["file", "directory", "link"].includes(type) && (
                        <span className="tag">{visible(type)}</span>
                      )}
                    </span>
                  </td>
                  <td data-title="Size" className="number">
                    {type === "file" ? bytes(numberOf(item, "size") ?? 0) : <span className="muted">–</span>}
                  </td>
                  <td data-title="Mode">
                    <code>{textOf(item, "mode")}</code>
                  </td>
                  <td data-title="Owner">
                    <span>
                      {visible(textOf(item, "owner"))}
                      <span className="muted">:{visible(textOf(item, "group"))}</span>
                    </span>
                  </td>
                  <td data-title="Changed" className="number">
                    <Ago time={timeIn(item, "modified")} />
                  </td>
                </tr>
              );
            })}
          </tbody>
        </table>
      )}
      {rows.length > MAX_ROWS && (
        <p className="notice warn">
          The first {MAX_ROWS.toLocaleString("en")} of {rows.length.toLocaleString("en")} names are shown.
          Write a path above to get to one of the others.
        </p>
      )}
      {more && (
        <p>
          {leftOut?.toLocaleString("en")} more names.{" "}
          <Link to="/hosts/$name/files" params={{ name: host }} search={{ path, after: more, ...keep }}>
            Go on behind {visible(more)}
          </Link>
        </p>
      )}
      {after && (
        <p>
          <Link to="/hosts/$name/files" params={{ name: host }} search={{ path, ...keep }}>
            Back to the first names
          </Link>
        </p>
      )}
    </>
  );
}

/** Rows on a page; a browser draws no table of many thousands well. */
const MAX_ROWS = 2_000;

const collator = new Intl.Collator("en", { numeric: true });
