// Do something of any kind: the form is made from what the controller says that the kind takes.

import { useState } from "react";
import { ApiError, faultyField, type Schemas } from "../api/client";
import { step } from "../api/queries";
import { ParamFields } from "../kind/param_fields";
import { build, type Drafts, draftsOf, named } from "../kind/params";
import { fieldsOf, type Json } from "../kind/schema";
import { sentence } from "../ui/notice";
import { StartFields, useStart } from "./start";

/** The parameters of one kind, where it is done and how; first, where that is possible, what would change. */
export function DoForm({
  kind,
  params: given = {},
  on,
  onDone,
  onCancel,
}: {
  kind: Schemas["Kind"];
  /** What stands in the form at first. */
  params?: Json | undefined;
  on?: string | undefined;
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

  return (
    <form
      className="fields run"
      onSubmit={(event) => {
        event.preventDefault();
        start.submit();
      }}
    >
      <p className="muted small">
        Takes the permission <code>{kind.permission}</code>.{" "}
        {kind.idempotent ? "What is already as asked for is left as it is." : "It is done each time."}{" "}
        {kind.dry_run ? "What it would change can be seen before." : ""}
      </p>
      <ParamFields
        fields={fields}
        drafts={drafts}
        faults={{ ...faults, ...Object.fromEntries(beside) }}
        onChange={(field, draft) => {
          setDrafts((previous) => ({ ...previous, [field]: draft }));
          start.create.reset();
          start.rehearsal.reset();
        }}
      />
      {below && (
        <p className="field-error" role="alert">
          {sentence(below.message)}
        </p>
      )}
      <StartFields
        start={start}
        timeout={kind.timeout_s}
        verb="Do it"
        rehearses={kind.dry_run === true}
        isTold={(error) => about(error) !== undefined || isOfKind(error)}
        onClose={onCancel}
      />
    </form>
  );
}
