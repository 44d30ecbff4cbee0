// What can be done with something that a host has: buttons, each of which begins with a form that is filled.

import { useState } from "react";
import { useHost, useKinds, useMay } from "../api/queries";
import type { Json } from "../kind/schema";
import { DoDialog } from "../run/do_dialog";

export type Act = {
  kind: string;
  params: Json;
  /** What it is called, in one word. */
  verb: string;
  /** Whether there is nothing for it to do, as things are. */
  isIdle?: boolean;
  /** Whether it only tells what would change. */
  dryRun?: boolean;
};

/** The acts that the controller knows and this person may do; nothing where there are none. */
export function Acts({
  host,
  subject,
  acts,
  onDone,
}: {
  host: string;
  /** What it is done with. */
  subject: string;
  acts: Act[];
  onDone: () => void;
}) {
  const [open, setOpen] = useState<Act>();
  const kinds = useKinds().data ?? [];
  const may = useMay();
  const enrolment = useHost(host).data?.enrolment;
  const offered = acts.filter(({ kind }) =>
    kinds.some((known) => known.name === kind && may(known.permission)),
  );
  // A form that is being filled stays, also while the page asks anew what there is.
  if (offered.length === 0 && !open) return null;
  return (
    <div className="actions">
      {offered.map((act) => (
        <button
          key={act.verb}
          type="button"
          disabled={enrolment !== "enrolled" || act.isIdle === true}
          onClick={() => setOpen(act)}
        >
          {act.verb}…
        </button>
      ))}
      {open && (
        <DoDialog
          title={`${open.verb} ${subject}`}
          kind={open.kind}
          params={open.params}
          on={host}
          dryRun={open.dryRun === true}
          onClose={() => {
            setOpen(undefined);
            onDone();
          }}
        />
      )}
    </div>
  );
}
