// Do something of any kind, from a page that is about something else.

import { useState } from "react";
import { useKinds } from "../api/queries";
import type { Json } from "../kind/schema";
import { Dialog } from "../ui/dialog";
import { Failure, Loading } from "../ui/notice";
import { DoForm } from "./do_form";

export function DoDialog({
  title = "Do something",
  kind = "",
  params,
  on,
  except = [],
  dryRun = false,
  onClose,
}: {
  title?: string;
  /** The kind that is chosen at first, with what stands in its form. */
  kind?: string;
  params?: Json | undefined;
  on?: string;
  /** Kinds that the page has a better way for. */
  except?: string[];
  /** Whether only what would change is told. */
  dryRun?: boolean;
  onClose: () => void;
}) {
  const kinds = useKinds();
  const [name, setName] = useState(kind);
  const offered = (kinds.data ?? []).filter(
    (known) => known.family === "action" && !except.includes(known.name),
  );
  const chosen = offered.find((known) => known.name === name);
  return (
    <Dialog title={title} onClose={onClose}>
      <div className="fields chooser">
        {kinds.isPending && <Loading />}
        {kinds.error && !kinds.data && <Failure error={kinds.error} />}
        <label>
          What
          <select required value={name} onChange={(event) => setName(event.target.value)}>
            <option value="" disabled>
              Choose…
            </option>
            {offered.map((known) => (
              <option key={known.name} value={known.name}>
                {known.name}: {known.summary}
              </option>
            ))}
          </select>
        </label>
      </div>
      {chosen && (
        <DoForm
          key={chosen.name}
          kind={chosen}
          params={chosen.name === kind ? params : undefined}
          on={on}
          dryRun={dryRun}
          onDone={onClose}
          onCancel={onClose}
        />
      )}
    </Dialog>
  );
}
