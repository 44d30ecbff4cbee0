// Do something of any kind: the form is made from what the controller says that the kind takes.

import { useState } from "react";
import { ApiError, faultyField, type Schemas } from "../api/client";
import { step } from "../api/queries";
import { ParamFields } from "../kind/param_fields";
import { build, type Drafts, draftsOf, named } from "../kind/params";
import { type Field, fieldsOf, type Json } from "../kind/schema";
import { sentence } from "../ui/notice";
import { Permission } from "./permission";
import { StartFields, useStart } from "./start";

/** So many parameters that were not given are shown all the same. */
const FEW = 4;

/** The parameters of one kind, where it is done and how; first, where that is possible, what would change. */
export function DoForm({
  kind,
  params: given = {},
  on,
  dryRun = false,
  onDone,
  onCancel,
}: {
  kind: Schemas["Kind"];
  /** What stands in the form at first. */
  params?: Json | undefined;
  on?: string | undefined;
  /** Whether only what would change is told. */
  dryRun?: boolean;
  onDone?: () => void;
  onCancel?: () => void;
}) {
  const fields = fieldsOf(kind.parameters);
  const [drafts, setDrafts] = useState<Drafts>(() => draftsOf(fields, given));
  const { params, faults, isIncomplete } = build(fields, drafts);
  const isWhole = !isIncomplete && Object.keys(faults).length === 0;
  const start = useStart({
    what: isWhole ? { steps: [step(kind.name, params)] } : undefined,
    on,
    onStarted: () => onDone?.(),
  });
  // What the controller says of one parameter stands beside it, and of all of them below them, until they are changed.
  const told = [start.create.error, start.rehearsal.error, start.preview.error].filter(
    (error) => error !== null && isWhole,
  );
  const about = (error: unknown) => named(faultyField(error), fields);
  const isOfKind = (error: unknown) => error instanceof ApiError && error.details.kind === kind.name;
  const beside = told.flatMap((error) => {
    const field = about(error);
    return error && field ? [[field, sentence(error.message)] as const] : [];
  });
  const below = told.find((error) => isOfKind(error) && !about(error));

  const form = {
    drafts,
    faults: { ...faults, ...Object.fromEntries(beside) },
    onChange: (field: string, draft: Drafts[string]) => {
      setDrafts((previous) => ({ ...previous, [field]: draft }));
      start.create.reset();
      start.rehearsal.reset();
    },
  };
  // What was given is what it is about: of a kind with many parameters the others are out of the way.
  const isGiven = ({ name, required }: Field) => required || given[name] !== undefined;
  const isLong = Object.keys(given).length > 0 && fields.filter((field) => !isGiven(field)).length > FEW;
  const first = isLong ? fields.filter(isGiven) : fields;
  const others = isLong ? fields.filter((field) => !isGiven(field)) : [];

  return (
    <form
      className="fields run"
      onSubmit={(event) => {
        event.preventDefault();
        if (dryRun) start.rehearse();
        else start.submit();
      }}
    >
      <p className="muted small">
        <Permission name={kind.permission} />{" "}
        {kind.idempotent ? "What is already as asked for is left as it is." : "It is done each time."}{" "}
        {kind.dry_run ? "What it would change can be seen before." : ""}
      </p>
      <ParamFields {...form} fields={first} />
      {others.length > 0 && (
        <details open={others.some(({ name }) => form.faults[name] !== undefined) || undefined}>
          <summary>Other parameters</summary>
          <div className="fields">
            <ParamFields {...form} fields={others} />
          </div>
        </details>
      )}
      {below && (
        <p className="field-error" role="alert">
          {sentence(below.message)}
        </p>
      )}
      <StartFields
        start={start}
        timeout={kind.timeout_s}
        verb="Do it"
        rehearses={dryRun ? "only" : kind.dry_run === true}
        isTold={(error) => about(error) !== undefined || isOfKind(error)}
        onClose={onCancel}
      />
    </form>
  );
}
