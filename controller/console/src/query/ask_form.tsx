// Ask hosts something of any kind: the form is made from what the controller says that the kind takes.

import { useState } from "react";
import { useAnswer } from "../api/answer";
import { faultyField, type Schemas } from "../api/client";
import { useTargetPreview } from "../api/queries";
import { ParamFields } from "../kind/param_fields";
import { build, type Drafts, draftsOf, named } from "../kind/params";
import { fieldsOf, type Json } from "../kind/schema";
import { Permission } from "../run/permission";
import { useSettled } from "../run/start";
import { Preview } from "../run/targets";
import { sentence } from "../ui/notice";
import { AnswerNotes } from "./answer_notes";
import { Items } from "./items";

export function AskForm({
  kind,
  params: given = {},
  on,
}: {
  kind: Schemas["Kind"];
  params?: Json | undefined;
  on?: string | undefined;
}) {
  const fields = fieldsOf(kind.parameters);
  const [drafts, setDrafts] = useState<Drafts>(() => draftsOf(fields, given));
  const [target, setTarget] = useState(on ?? "");
  const [follow, setFollow] = useState(false);
  const [skip, setSkip] = useState(false);
  const [asked, setAsked] = useState<Schemas["QueryCreate"]>();
  const preview = useTargetPreview({ on: useSettled(target) });
  const asking = useAnswer(asked, kind.shows ?? "table");
  const { params, faults, isIncomplete } = build(fields, drafts);
  const isReady = target.trim() !== "" && !isIncomplete && Object.keys(faults).length === 0;
  const faulty = named(faultyField(asking.error), fields);
  const beside = faulty && asking.error ? { [faulty]: sentence(asking.error.message) } : {};
  const isUnderWay = asking.phase === "asking" || asking.phase === "live";

  return (
    <>
      <form
        className="fields run card"
        onSubmit={(event) => {
          event.preventDefault();
          if (!isReady) return;
          setAsked({
            kind: kind.name,
            on: target,
            params: params as NonNullable<Schemas["QueryCreate"]["params"]>,
            ...(follow ? { follow } : {}),
            ...(skip ? { skip_not_enrolled: skip } : {}),
          });
          asking.again();
        }}
      >
        <p className="muted small">
          <Permission name={kind.permission} /> It looks, and changes nothing.
        </p>
        <ParamFields
          fields={fields}
          drafts={drafts}
          faults={{ ...faults, ...beside }}
          onChange={(field, draft) => setDrafts((previous) => ({ ...previous, [field]: draft }))}
        />
        <label>
          On
          <input
            className="mono"
            required
            spellCheck={false}
            autoCapitalize="none"
            placeholder="tag:prod & !web-9"
            value={target}
            onChange={(event) => setTarget(event.target.value)}
          />
        </label>
        <Preview preview={preview.data} error={preview.error} pending={preview.isFetching} />
        {preview.data && preview.data.not_enrolled > 0 && (
          <label className="check">
            <input type="checkbox" checked={skip} onChange={(event) => setSkip(event.target.checked)} /> Leave
            out hosts that are not enrolled
          </label>
        )}
        {kind.follows && (
          <label className="check">
            <input type="checkbox" checked={follow} onChange={(event) => setFollow(event.target.checked)} />{" "}
            Go on to tell what changes
          </label>
        )}
        <footer>
          {isUnderWay && asked && (
            <button type="button" onClick={() => setAsked(undefined)}>
              Stop
            </button>
          )}
          <button type="submit" className="primary" disabled={!isReady}>
            Ask
          </button>
        </footer>
      </form>
      {asked && (
        <section aria-label="Answer">
          <h2>Answer</h2>
          {!faulty && <AnswerNotes asking={asking} />}
          <Items asking={asking} fields={fieldsOf(kind.answer)} />
        </section>
      )}
    </>
  );
}
