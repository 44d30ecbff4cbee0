// What a kind's JSON schema says, as far as a form has to know it: names, shapes and words.
//
// Circles are not followed, and what is not understood is taken as JSON: the controller is the judge of every value.

export type Json = Record<string, unknown>;

/** What a value looks like. */
export type Shape =
  | { is: "text" | "integer" | "number" | "switch" | "time" | "json" }
  | { is: "choice"; choices: string[]; meanings?: Record<string, string> }
  | { is: "list" | "map"; of: Shape };

/** A property of an object. */
export type Field = {
  name: string;
  shape: Shape;
  required: boolean;
  description: string;
  default?: unknown;
  example?: unknown;
  /** Whether it may be a text of several lines: one that is told neither a limit nor an example. */
  isLong?: boolean;
  /** Whether it is bytes, in base64. */
  isBytes?: boolean;
  /** The properties of what it holds, where that is an object. */
  fields?: Field[];
};

const MAX_HOPS = 16;
const MAX_DEPTH = 4;
/** How deep objects are looked into. */
const MAX_NESTED = 2;
/** How a whole number is marked that is a time in milliseconds. */
const TIME = "unix-ms";
/** How a text is marked that is bytes in base64 (OpenAPI's registry of formats). */
const BYTES = "byte";

/** The properties of the object that a schema describes: first those that are always there, then the others. */
export function fieldsOf(schema: object): Field[] {
  return fieldsWithin(schema as Json, schema as Json, 0);
}

function fieldsWithin(root: Json, schema: Json, depth: number): Field[] {
  const parts = Array.isArray(schema.allOf) ? schema.allOf.filter(isObject) : [];
  const objects = [...chain(root, schema), ...parts.flatMap((part) => chain(root, part))];
  const required = objects.flatMap((object) =>
    Array.isArray(object.required) ? object.required.map(String) : [],
  );
  const fields = new Map<string, Field>();
  for (const object of objects) {
    for (const [name, property] of Object.entries(isObject(object.properties) ? object.properties : {})) {
      if (!fields.has(name)) fields.set(name, field(root, name, property, required.includes(name), depth));
    }
  }
  const place = (name: string) => {
    const at = required.indexOf(name);
    return at < 0 ? required.length : at;
  };
  return [...fields.values()].sort((a, b) => place(a.name) - place(b.name));
}

function field(root: Json, name: string, property: unknown, required: boolean, depth: number): Field {
  const parts = isObject(property) ? chain(root, property) : [];
  const find = (key: string) => parts.find((part) => part[key] != null)?.[key];
  const description = find("description");
  const examples = find("examples");
  const fallback = find("default");
  const example = find("example") ?? (Array.isArray(examples) ? examples[0] : undefined);
  const inner = parts.at(-1);
  const isNested = depth < MAX_NESTED && inner !== undefined && isObject(inner.properties);
  const its = shape(root, property, 0);
  const isLong = its.is === "text" && example === undefined && find("maxLength") === undefined;
  return {
    name,
    shape: its,
    required,
    description: typeof description === "string" ? description.split(/\s+/).join(" ").trim() : "",
    ...(fallback === undefined ? {} : { default: fallback }),
    ...(example === undefined ? {} : { example }),
    ...(isLong ? { isLong } : {}),
    ...(its.is === "text" && find("format") === BYTES ? { isBytes: true } : {}),
    ...(isNested ? { fields: fieldsWithin(root, inner, depth + 1) } : {}),
  };
}

/**
 * A schema and what it leads to, from the outside in: by a reference, as the only alternative to null, or as the only
 * part of several that says more than words.
 */
function chain(root: Json, start: Json): Json[] {
  const found = [start];
  let current = start;
  while (found.length < MAX_HOPS) {
    let next: Json | undefined;
    if (typeof current.$ref === "string") {
      next = resolve(root, current.$ref);
    } else if (Array.isArray(current.allOf)) {
      const parts = current.allOf.filter(isObject).slice(0, MAX_HOPS);
      found.push(...parts.filter(isWords));
      next = only(parts.filter((part) => !isWords(part)));
    } else {
      next = only(alternatives(current.oneOf)) ?? only(alternatives(current.anyOf));
    }
    if (!next) break;
    found.push(next);
    current = next;
  }
  return found;
}

const WORDS = ["description", "title", "default", "example", "examples", "deprecated"];

/** Whether a part says nothing of a value but words: what a property means, beside an inlined type. */
function isWords(part: Json): boolean {
  return Object.entries(part).every(([key, value]) =>
    key === "type" ? value === "object" : WORDS.includes(key),
  );
}

const alternatives = (schemas: unknown): Json[] =>
  Array.isArray(schemas) ? schemas.filter(isObject).filter((schema) => schema.type !== "null") : [];

const only = (schemas: Json[]): Json | undefined => (schemas.length === 1 ? schemas[0] : undefined);

/** What a reference into the same document names. */
function resolve(root: Json, reference: string): Json | undefined {
  if (!reference.startsWith("#/")) return undefined;
  let place: unknown = root;
  for (const step of reference.slice(2).split("/")) {
    const key = step.replaceAll("~1", "/").replaceAll("~0", "~");
    place = isObject(place) && Object.hasOwn(place, key) ? place[key] : undefined;
  }
  return isObject(place) ? place : undefined;
}

function shape(root: Json, schema: unknown, depth: number): Shape {
  const inner = isObject(schema) ? chain(root, schema).at(-1) : undefined;
  if (!inner) return { is: "json" };
  const allowed = choices(inner);
  if (allowed) {
    const meanings = meaningsOf(inner);
    return { is: "choice", choices: allowed, ...(meanings ? { meanings } : {}) };
  }
  const scalar = (key: string): Shape | undefined => {
    if (!isObject(inner[key]) || depth >= MAX_DEPTH) return undefined;
    const each = shape(root, inner[key], depth + 1);
    return each.is === "json" || each.is === "list" || each.is === "map" ? undefined : each;
  };
  switch (typeOf(inner)) {
    case "string":
      return { is: "text" };
    case "integer":
      return { is: inner.format === TIME ? "time" : "integer" };
    case "number":
      return { is: "number" };
    case "boolean":
      return { is: "switch" };
    case "array": {
      const each = scalar("items");
      return each ? { is: "list", of: each } : { is: "json" };
    }
    case "object": {
      const each = isObject(inner.properties) ? undefined : scalar("additionalProperties");
      return each ? { is: "map", of: each } : { is: "json" };
    }
    default:
      return { is: "json" };
  }
}

/** The type that a schema names, if it is one, beside null. */
function typeOf(schema: Json): string | undefined {
  const names = (Array.isArray(schema.type) ? schema.type : [schema.type]).filter((name) => name !== "null");
  return names.length === 1 && typeof names[0] === "string" ? names[0] : undefined;
}

/** The texts that a schema allows, if it allows some texts alone. */
function choices(schema: Json): string[] | undefined {
  const values = schema.const !== undefined ? [schema.const] : schema.enum;
  if (Array.isArray(values)) {
    const texts = values.filter((value) => value !== null);
    return texts.length > 0 && texts.every((text) => typeof text === "string") ? texts : undefined;
  }
  const others = schema.oneOf ?? schema.anyOf;
  if (!Array.isArray(others) || others.length === 0) return undefined;
  const each = others.map((alternative) =>
    isObject(alternative) && !alternative.oneOf && !alternative.anyOf ? choices(alternative) : undefined,
  );
  return each.every((texts) => texts !== undefined) ? each.flat() : undefined;
}

/** What each text means, where they are told apart as alternatives of one text with words to it. */
function meaningsOf(schema: Json): Record<string, string> | undefined {
  const others = schema.oneOf ?? schema.anyOf;
  if (!Array.isArray(others)) return undefined;
  const told = others.filter(isObject).flatMap((alternative) => {
    const [text, more] = choices(alternative) ?? [];
    const words = alternative.description;
    return text !== undefined && more === undefined && typeof words === "string" ? [[text, words]] : [];
  });
  return told.length > 0 ? Object.fromEntries(told) : undefined;
}

export const isObject = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value);
