// Do something of any kind: the form is made from what the controller says that the kind takes.

import { useState } from "react";
import { ApiError, faultyField } from "../api/client";
import { step, useKinds } from "../api/queries";
import { ParamFields } from "../kind/param_fields";
import { build, type Drafts, named } from "../kind/params";
import { fieldsOf } from "../kind/schema";
import { Dialog } from "../ui/dialog";
import { Failure, Loading, sentence } from "../ui/notice";
import { StartFields, useStart } from "./start";

export function DoDialog({
  on,
  except = [],
  onClose,
}: {
  on?: string;
  /** Kinds that the page has a better way for. */
  except?: string[];
  onClose: () => void;
}) {
  const kinds = useKinds();
  const [name, setName] = useState("");
  const [drafts, setDrafts] = useState<Drafts>({});
  const offered = (kinds.data ?? []).filter(
    (kind) => kind.family === "action" && !except.includes(kind.name),
  );
  const chosen = offered.find((kind) => kind.name === name);
  const fields = chosen ? fieldsOf(chosen.parameters) : [];
  const { params, faults, isIncomplete } = build(fields, drafts);
  const isWhole = chosen !== undefined && !isIncomplete && Object.keys(faults).length === 0;
  const start = useStart({
    what: isWhole ? { steps: [step(chosen.name, params)] } : undefined,
    on,
    onStarted: onClose,
  });
  // What the controller says of one parameter stands beside it, and of all of them below them, until they are changed.
  const told = [start.create.error, start.preview.error].filter((error) => error !== null && isWhole);
  const about = (error: unknown) => named(faultyField(error), fields);
  const isOfKind = (error: unknown) => error instanceof ApiError && error.details.kind === chosen?.name;
  const beside = told.flatMap((error) => {
    const field = about(error);
    return error && field ? [[field, sentence(error.message)] as const] : [];
  });
  const below = told.find((error) => isOfKind(error) && !about(error));

  return (
    <Dialog title="Do something" onClose={onClose}>
      <form
        className="fields run"
        onSubmit={(event) => {
          event.preventDefault();
          start.submit();
        }}
      >
        {kinds.isPending && <Loading />}
        {kinds.error && !kinds.data && <Failure error={kinds.error} />}
        <label>
          What
          <select
            required
            value={name}
            onChange={(event) => {
              setName(event.target.value);
              setDrafts({});
              start.create.reset();
            }}
          >
            <option value="" disabled>
              Choose…
            </option>
            {offered.map((kind) => (
              <option key={kind.name} value={kind.name}>
                {kind.name}: {kind.summary}
              </option>
            ))}
          </select>
        </label>
        {chosen && (
          <p className="muted small">
            Takes the permission <code>{chosen.permission}</code>.{" "}
            {chosen.idempotent ? "What is already as asked for is left as it is." : "It is done each time."}
          </p>
        )}
        <ParamFields
          fields={fields}
          drafts={drafts}
          faults={{ ...faults, ...Object.fromEntries(beside) }}
          onChange={(field, draft) => {
            setDrafts((previous) => ({ ...previous, [field]: draft }));
            start.create.reset();
          }}
        />
        {below && (
          <p className="field-error" role="alert">
            {sentence(below.message)}
          </p>
        )}
        <StartFields
          start={start}
          timeout={chosen?.timeout_s ?? 300}
          verb="Do it"
          isTold={(error) => about(error) !== undefined || isOfKind(error)}
          onClose={onClose}
        />
      </form>
    </Dialog>
  );
}
