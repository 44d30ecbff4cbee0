// From what stands in a form to the parameters of a step.

import { type Field, isObject, type Json, type Shape } from "./schema";

/** What was entered in one field: text, whether it is ticked, or rows of names and values. */
export type Draft = string | boolean | [name: string, value: string][];
export type Drafts = Record<string, Draft | undefined>;

export type Built = {
  params: Json;
  /** What is wrong with what was entered, by field. */
  faults: Record<string, string>;
  /** Whether something has to be entered yet. */
  isIncomplete: boolean;
};

/** The parameters that were entered. An empty field is a parameter that is not given. */
export function build(fields: Field[], drafts: Drafts): Built {
  const built: Built = { params: {}, faults: {}, isIncomplete: false };
  for (const field of fields) {
    const draft = drafts[field.name];
    try {
      const value = read(field.shape, draft);
      if (value !== undefined) built.params[field.name] = value;
      else if (!field.required) continue;
      else if (field.shape.is === "switch") built.params[field.name] = field.default === true;
      else if (field.shape.is === "list") built.params[field.name] = [];
      else if (field.shape.is === "map") built.params[field.name] = {};
      else built.isIncomplete = true;
    } catch (error) {
      built.faults[field.name] = error instanceof Error ? error.message : String(error);
    }
  }
  return built;
}

/** What would stand in a form of these parameters: the way back from `build`. */
export function draftsOf(fields: Field[], params: Json): Drafts {
  const drafts: Drafts = {};
  for (const { name, shape } of fields) {
    const value = params[name];
    if (value !== undefined && value !== null) drafts[name] = draftOf(shape, value);
  }
  return drafts;
}

function draftOf(shape: Shape, value: unknown): Draft {
  const text = (each: unknown) => (typeof each === "string" ? each : JSON.stringify(each));
  if (shape.is === "switch") return value === true;
  if (shape.is === "list" && Array.isArray(value)) return value.map(text).join("\n");
  if (shape.is === "map" && isObject(value)) {
    return Object.entries(value).map(([name, each]) => [name, text(each)]);
  }
  return shape.is === "json" ? JSON.stringify(value, null, 2) : text(value);
}

function read(shape: Shape, draft: Draft | undefined): unknown {
  if (typeof draft === "boolean") return draft;
  if (Array.isArray(draft)) {
    const rows = draft.filter(([name]) => name.trim() !== "");
    const each = "of" in shape ? shape.of : shape;
    const entries = rows.map(([name, value]) => [name.trim(), scalar(each, value)] as const);
    return rows.length > 0 ? Object.fromEntries(entries) : undefined;
  }
  if (draft === undefined || draft.trim() === "") return undefined;
  if (shape.is === "list") {
    const lines = draft.split("\n").filter((line) => line.trim() !== "");
    return lines.map((line) => scalar(shape.of, line));
  }
  return scalar(shape, draft);
}

function scalar(shape: Shape, text: string): unknown {
  switch (shape.is) {
    case "integer":
    case "number": {
      const value = Number(text);
      const isGood = shape.is === "integer" ? Number.isSafeInteger(value) : Number.isFinite(value);
      if (text.trim() === "" || !isGood) {
        throw new Error(`${shape.is === "integer" ? "A whole number" : "A number"} is needed here.`);
      }
      return value;
    }
    case "time": {
      const time = /^-?\d+$/.test(text.trim()) ? Number(text) : Date.parse(text);
      if (!Number.isSafeInteger(time))
        throw new Error("A time is needed here, such as 2026-01-02T03:04:05Z.");
      return time;
    }
    case "switch":
      if (text !== "true" && text !== "false") throw new Error("Write true or false.");
      return text === "true";
    case "choice":
      if (!shape.choices.includes(text)) throw new Error(`One of these: ${shape.choices.join(", ")}.`);
      return text;
    case "text":
      return text;
    default:
      try {
        return JSON.parse(text) as unknown;
      } catch (error) {
        throw new Error(`This is no JSON: ${error instanceof Error ? error.message : error}.`);
      }
  }
}

/** Which parameter the API means by a field of its request, such as `steps[0].params.unit`. */
export function named(field: string | undefined, fields: Field[]): string | undefined {
  if (field === undefined) return undefined;
  const parts = field.split(/[.[\]]+/).filter((part) => part !== "");
  const at = parts.lastIndexOf("params");
  const name = at >= 0 ? parts[at + 1] : parts.length === 1 && field !== "on" ? parts[0] : undefined;
  return fields.find((known) => known.name === name)?.name;
}
