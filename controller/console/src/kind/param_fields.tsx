// A form made from a kind's schema: nobody writes one for each kind.

import { useId } from "react";
import type { Draft, Drafts } from "./params";
import type { Field, Shape } from "./schema";
import { plain } from "./values";

export function ParamFields({
  fields,
  drafts,
  faults,
  onChange,
}: {
  fields: Field[];
  drafts: Drafts;
  faults: Record<string, string>;
  onChange: (name: string, draft: Draft) => void;
}) {
  return fields.map((field) => (
    <div key={field.name} className="param">
      <Param
        field={field}
        draft={drafts[field.name]}
        isInvalid={faults[field.name] !== undefined}
        onChange={(draft) => onChange(field.name, draft)}
      />
      {faults[field.name] && (
        <p className="field-error" role="alert">
          {faults[field.name]}
        </p>
      )}
    </div>
  ));
}

type Props = { field: Field; draft: Draft | undefined; isInvalid: boolean; onChange: (draft: Draft) => void };

function Param({ field, draft, isInvalid, onChange }: Props) {
  const { shape } = field;
  const id = useId();
  if (shape.is === "map") {
    return <Rows field={field} of={shape.of} rows={Array.isArray(draft) ? draft : []} onChange={onChange} />;
  }
  if (shape.is === "switch") {
    return (
      <label className="check">
        <input
          type="checkbox"
          checked={typeof draft === "boolean" ? draft : field.default === true}
          onChange={(event) => onChange(event.target.checked)}
        />{" "}
        <Words field={field} />
      </label>
    );
  }
  const text = typeof draft === "string" ? draft : "";
  if (shape.is === "list" && shape.of.is === "choice") {
    return <Choices field={field} of={shape.of} text={text} onChange={onChange} />;
  }
  const common = {
    id,
    required: field.required,
    value: text,
    "aria-invalid": isInvalid,
    placeholder: placeholder(field),
  };
  return (
    <label htmlFor={id}>
      <Words field={field} />
      {shape.is === "choice" ? (
        <select
          id={id}
          required={field.required}
          value={text}
          aria-invalid={isInvalid}
          onChange={(event) => onChange(event.target.value)}
        >
          <option value="" disabled={field.required}>
            {field.required
              ? "Choose…"
              : field.default === undefined
                ? "–"
                : `${plain(field.default)} (default)`}
          </option>
          {shape.choices.map((choice) => (
            <option key={choice} title={shape.meanings?.[choice]}>
              {choice}
            </option>
          ))}
        </select>
      ) : shape.is === "list" || shape.is === "json" || field.isLong ? (
        <textarea
          className="mono"
          rows={shape.is === "text" ? 1 : shape.is === "list" ? 3 : 4}
          spellCheck={false}
          autoCapitalize="none"
          {...common}
          onChange={(event) => onChange(event.target.value)}
        />
      ) : (
        <input
          className="mono"
          type={shape.is === "text" || shape.is === "time" ? "text" : "number"}
          step={shape.is === "number" ? "any" : undefined}
          autoComplete="off"
          spellCheck={false}
          autoCapitalize="none"
          {...common}
          onChange={(event) => onChange(event.target.value)}
        />
      )}
      {shape.is === "choice" && shape.meanings?.[text] && (
        <span className="muted meaning">{shape.meanings[text]}</span>
      )}
    </label>
  );
}

/** Some of a few words, a box each; kept as one a line, as any other list. */
function Choices({
  field,
  of,
  text,
  onChange,
}: {
  field: Field;
  of: Extract<Shape, { is: "choice" }>;
  text: string;
  onChange: (text: string) => void;
}) {
  const chosen = text.split("\n").filter((line) => line !== "");
  const toggle = (choice: string, isOn: boolean) =>
    onChange(of.choices.filter((each) => (each === choice ? isOn : chosen.includes(each))).join("\n"));
  return (
    <fieldset className="rows choices">
      <legend>
        <Words field={field} />
      </legend>
      {of.choices.map((choice) => (
        <label key={choice} className="check" title={of.meanings?.[choice]}>
          <input
            type="checkbox"
            checked={chosen.includes(choice)}
            onChange={(event) => toggle(choice, event.target.checked)}
          />{" "}
          {choice}
        </label>
      ))}
    </fieldset>
  );
}

/** Names with values, a row each. */
function Rows({
  field,
  of,
  rows,
  onChange,
}: {
  field: Field;
  of: Shape;
  rows: [string, string][];
  onChange: (rows: [string, string][]) => void;
}) {
  const change = (at: number, row: [string, string]) =>
    onChange(rows.map((old, index) => (index === at ? row : old)));
  return (
    <fieldset className="rows">
      <legend>
        <Words field={field} />
      </legend>
      {rows.map(([name, value], index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a row is its place; its name is being typed
        <div key={index}>
          <input
            className="mono"
            aria-label={`Name ${index + 1} in ${field.name}`}
            placeholder="NAME"
            autoComplete="off"
            spellCheck={false}
            autoCapitalize="none"
            value={name}
            onChange={(event) => change(index, [event.target.value, value])}
          />
          <input
            className="mono"
            aria-label={`Value ${index + 1} in ${field.name}`}
            type={of.is === "integer" || of.is === "number" ? "number" : "text"}
            placeholder="VALUE"
            autoComplete="off"
            spellCheck={false}
            value={value}
            onChange={(event) => change(index, [name, event.target.value])}
          />
          <button
            type="button"
            className="quiet"
            aria-label={`Remove row ${index + 1} of ${field.name}`}
            onClick={() => onChange(rows.filter((_, at) => at !== index))}
          >
            ✕
          </button>
        </div>
      ))}
      <button type="button" onClick={() => onChange([...rows, ["", ""]])}>
        Add a row
      </button>
    </fieldset>
  );
}

function Words({ field }: { field: Field }) {
  const hints = [
    field.description,
    field.shape.is === "list" && field.shape.of.is !== "choice" ? "One a line." : "",
    field.shape.is === "json" ? "In JSON." : "",
    field.required ? "" : "Optional.",
  ];
  return (
    <>
      <code>{field.name}</code> <span className="muted">{hints.filter(Boolean).join(" ")}</span>
    </>
  );
}

function placeholder(field: Field): string {
  if (field.default !== undefined) return plain(field.default);
  if (field.example !== undefined) return plain(field.example);
  return field.shape.is === "json" ? "{ }" : "";
}
