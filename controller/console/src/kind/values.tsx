// JSON for reading: what an action was given, and what it reported.

import { Ago } from "../ui/time";
import { Bytes } from "./bytes";
import type { Field, Json } from "./schema";
import { isObject } from "./schema";

const MAX_DEPTH = 8;

/** A value on one line: text as it is, several scalars in a row, anything deeper as JSON. */
export function plain(value: unknown): string {
  if (value === null || value === undefined) return "";
  if (typeof value === "string") return value;
  if (Array.isArray(value) && value.every(isScalar)) return value.map(plain).join(", ");
  return isScalar(value) ? String(value) : JSON.stringify(value);
}

/** A value of a field that holds times, as a time; nothing where it is none. */
export function timeOf(field: Field | undefined, value: unknown): string | undefined {
  if (field?.shape.is !== "time" || typeof value !== "number") return undefined;
  const date = new Date(value);
  return Number.isNaN(date.getTime()) ? undefined : date.toISOString();
}

export const isScalar = (value: unknown): boolean => typeof value !== "object" || value === null;

/** The names of an object's values: in the order of the schema, then others as they come. */
export function namesOf(values: Json[], fields: Field[]): string[] {
  const given = new Set(values.flatMap((value) => Object.keys(value)));
  const declared = fields.map((field) => field.name).filter((name) => given.has(name));
  return [...new Set([...declared, ...given])];
}

/** Names and values, nested as deep as they are. */
export function Values({
  values,
  fields = [],
  depth = 0,
}: {
  values: Json;
  fields?: Field[] | undefined;
  depth?: number;
}) {
  const names = namesOf([values], fields).filter((name) => values[name] !== null);
  if (names.length === 0) return <p className="muted">nothing</p>;
  return (
    <dl className="values">
      {names.map((name) => {
        const field = fields.find((known) => known.name === name);
        return (
          <div key={name}>
            <dt title={field?.description || undefined}>{name}</dt>
            <dd>
              <Value name={name} value={values[name]} field={field} depth={depth} />
            </dd>
          </div>
        );
      })}
    </dl>
  );
}

function Value({
  name,
  value,
  field,
  depth,
}: {
  name: string;
  value: unknown;
  field: Field | undefined;
  depth: number;
}) {
  const time = timeOf(field, value);
  if (time) return <Ago time={time} />;
  if (field?.isBytes && typeof value === "string") return <Bytes value={value} />;
  if (isObject(value)) {
    const { digest, ...more } = value;
    if (typeof digest === "string") {
      return (
        <span className="muted" title={`digest ${digest}`}>
          not shown (digest {digest.slice(0, 12)}
          {Object.entries(more).map(([key, other]) => `, ${key} ${plain(other)}`)})
        </span>
      );
    }
    return depth < MAX_DEPTH ? (
      <Values values={value} fields={field?.fields} depth={depth + 1} />
    ) : (
      <code>{plain(value)}</code>
    );
  }
  if (Array.isArray(value) && value.length > 0) {
    return (
      <ul className="plain">
        {value.map((item, index) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: an item of a list is its place
          <li key={index}>
            {isObject(item) && depth < MAX_DEPTH ? (
              <Values values={item} depth={depth + 1} />
            ) : (
              <code>{plain(item)}</code>
            )}
          </li>
        ))}
      </ul>
    );
  }
  if (name === "digest" && typeof value === "string") {
    return <code title={`SHA-256 ${value}`}>{value.slice(0, 12)}</code>;
  }
  return <code>{Array.isArray(value) ? "[]" : plain(value)}</code>;
}
