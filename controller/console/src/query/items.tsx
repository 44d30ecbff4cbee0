// What hosts told, of whatever kind: rows of a table, or the entries of a sequence.

import { type ReactNode, useState } from "react";
import type { Asking, Told } from "../api/answer";
import { Bytes } from "../kind/bytes";
import { type Field, isObject } from "../kind/schema";
import { isScalar, namesOf, plain, timeOf, Values } from "../kind/values";
import { visible } from "../output/text";
import { Ago } from "../ui/time";
import { Sequence } from "./sequence";

/** More columns than these would leave no room for any of them; a row that is opened shows the rest. */
const MAX_COLUMNS = 6;
const PAGE = 200;
/** How far behind an entry the next one of the same host is looked for. */
const NEAR = 50;

export function Items({ asking, fields }: { asking: Asking; fields: Field[] }) {
  const [search, setSearch] = useState("");
  const [shown, setShown] = useState(PAGE);
  const told = asking.answer.items();
  if (told.length === 0) return null;
  if (asking.answer.shows === "entries") {
    return (
      <Sequence asking={asking} label="Entries">
        {(entry, index) => (
          <Entry
            told={entry}
            next={told.slice(index + 1, index + 1 + NEAR).find(({ host }) => host === entry.host)}
            fields={fields}
            hosts={asking.answer.hosts.size}
          />
        )}
      </Sequence>
    );
  }
  const words = search.trim().toLowerCase();
  const rows = told.filter(
    ({ host, item }) => words === "" || `${host} ${JSON.stringify(item)}`.toLowerCase().includes(words),
  );
  const columns = columnsOf(told, fields);
  const hasHosts = told.some(({ host }) => host !== told[0]?.host);
  return (
    <>
      <div className="filters">
        <label className="search">
          <span className="visually-hidden">Search in the answer</span>
          <input
            type="search"
            placeholder="Search  /"
            value={search}
            onChange={(event) => setSearch(event.target.value)}
          />
        </label>
        <span className="muted small" role="status">
          {rows.length === told.length ? told.length : `${rows.length} of ${told.length}`}
        </span>
      </div>
      <table className="list items">
        <thead>
          <tr>
            {hasHosts && <th scope="col">Host</th>}
            {columns.map((column) => (
              <th key={column} scope="col">
                {column}
              </th>
            ))}
            <th scope="col">
              <span className="visually-hidden">All of it</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {rows.slice(0, shown).map((row) => (
            <Row
              key={`${row.host}\n${row.key}`}
              told={row}
              columns={columns}
              fields={fields}
              hasHosts={hasHosts}
            />
          ))}
        </tbody>
      </table>
      {rows.length > shown && (
        <button type="button" onClick={() => setShown(shown + PAGE)}>
          Show more
        </button>
      )}
    </>
  );
}

function Row({
  told,
  columns,
  fields,
  hasHosts,
}: {
  told: Told;
  columns: string[];
  fields: Field[];
  hasHosts: boolean;
}) {
  const [isOpen, setOpen] = useState(false);
  return (
    <>
      <tr>
        {hasHosts && <td data-title="Host">{told.host}</td>}
        {columns.map((column) => (
          <td key={column} data-title={column}>
            <Cell value={told.item[column]} field={fields.find((field) => field.name === column)} />
          </td>
        ))}
        <td>
          <button
            type="button"
            className="quiet"
            aria-expanded={isOpen}
            aria-label={`All of ${told.key}`}
            onClick={() => setOpen(!isOpen)}
          >
            {isOpen ? "▾" : "▸"}
          </button>
        </td>
      </tr>
      {isOpen && (
        <tr className="opened">
          <td colSpan={columns.length + (hasHosts ? 2 : 1)}>
            <Values values={told.item} fields={fields} />
          </td>
        </tr>
      )}
    </>
  );
}

function Cell({ value, field }: { value: unknown; field: Field | undefined }): ReactNode {
  const time = timeOf(field, value);
  if (time) return <Ago time={time} />;
  if (value === undefined || value === null) return <span className="muted">–</span>;
  if (field?.isBytes && typeof value === "string") return <Bytes value={value} />;
  const text = visible(plain(value));
  return (
    <span className="clip" title={text}>
      {text}
    </span>
  );
}

/** The names whose values have room in a cell, the first of them in the order of the schema. */
function columnsOf(told: Told[], fields: Field[]): string[] {
  const items = told.slice(0, 500).map(({ item }) => item);
  const isShort = (value: unknown) => isScalar(value) || (Array.isArray(value) && value.every(isScalar));
  return namesOf(items, fields)
    .filter((name) => items.every((item) => isShort(item[name])))
    .slice(0, MAX_COLUMNS);
}

/** An entry of which only the schema is known: its time, its short values, and its lines below them. */
export function Entry({
  told,
  next,
  fields,
  hosts,
}: {
  told: Told;
  /** The entry of this host that follows. */
  next: Told | undefined;
  fields: Field[];
  hosts: number;
}) {
  const names = namesOf([told.item], fields).filter((name) => told.item[name] != null);
  const isBytes = (name: string) =>
    typeof told.item[name] === "string" && fields.some((field) => field.name === name && field.isBytes);
  const isLines = (name: string) => Array.isArray(told.item[name]) || isBytes(name);
  return (
    <>
      {hosts > 1 && <span className="strong">{told.host} </span>}
      {names
        .filter((name) => !isLines(name))
        .map((name) => {
          const field = fields.find((known) => known.name === name);
          const value = told.item[name];
          if (!isObject(value)) return <Named key={name} name={name} value={value} field={field} />;
          const inner = field?.fields ?? [];
          return namesOf([value], inner).map((each) => (
            <Named
              key={`${name} ${each}`}
              name={each}
              value={value[each]}
              field={inner.find((known) => known.name === each)}
            />
          ));
        })}
      {names.filter(isLines).map((name) =>
        isBytes(name) ? (
          <Bytes key={name} value={told.item[name] as string} after={next?.item[name]} />
        ) : (
          <span key={name} className="lines">
            {(told.item[name] as unknown[]).map((line) => visible(plain(line))).join("\n")}
          </span>
        ),
      )}
    </>
  );
}

function Named({ name, value, field }: { name: string; value: unknown; field: Field | undefined }) {
  const time = timeOf(field, value);
  return (
    <span>
      <span className="muted">{name} </span>
      {time ? <time dateTime={time}>{time}</time> : visible(plain(value))}{" "}
    </span>
  );
}
