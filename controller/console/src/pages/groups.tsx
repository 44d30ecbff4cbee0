import { useState } from "react";
import type { Schemas } from "../api/client";
import { useGroupAct, useGroups, useTargetPreview } from "../api/queries";
import { RunButtons } from "../run/run_buttons";
import { Preview } from "../run/targets";
import { Dialog } from "../ui/dialog";
import { Empty, Failure, Loading, Stale } from "../ui/notice";
import { Ago } from "../ui/time";

type Group = Pick<Schemas["Group"], "name" | "on" | "description">;

const NEW: Group = { name: "", on: "", description: "" };

export function GroupsPage() {
  const groups = useGroups();
  const [open, setOpen] = useState<Group>();
  const rows = groups.data?.items ?? [];
  return (
    <>
      <header className="page">
        <h1>Groups</h1>
        <div className="actions">
          <button type="button" onClick={() => setOpen(NEW)}>
            Add a group
          </button>
        </div>
      </header>
      {groups.isPending && <Loading />}
      {groups.error && !groups.data && <Failure error={groups.error} retry={() => void groups.refetch()} />}
      {groups.isRefetchError && <Stale since={groups.dataUpdatedAt} />}
      {groups.data && rows.length === 0 && (
        <Empty title="No groups yet">
          <p>
            A group is a target expression under a name: what you write as{" "}
            <code>tag:db &amp; !tag:retiring</code> is <code>@databases</code> from then on.
          </p>
        </Empty>
      )}
      {rows.length > 0 && (
        <table className="list">
          <thead>
            <tr>
              <th scope="col">Group</th>
              <th scope="col">Hosts</th>
              <th scope="col">For</th>
              <th scope="col">Changed</th>
              <th scope="col">
                <span className="visually-hidden">What to do</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {rows.map((group) => (
              <tr key={group.name}>
                <td data-title="Group" className="strong">
                  @{group.name}
                </td>
                <td data-title="Hosts">
                  <code className="clip" title={group.on}>
                    {group.on}
                  </code>
                </td>
                <td data-title="For">{group.description || <span className="muted">–</span>}</td>
                <td data-title="Changed" className="word">
                  <span>
                    <Ago time={group.updated_at} /> <span className="muted">by {group.updated_by}</span>
                  </span>
                </td>
                <td data-title="What to do">
                  <span className="row-actions">
                    <RunButtons on={`@${group.name}`} keys={false} />
                    <button type="button" onClick={() => setOpen(group)}>
                      Change…
                    </button>
                  </span>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {open && <SetGroup group={open} onClose={() => setOpen(undefined)} />}
    </>
  );
}

function SetGroup({ group, onClose }: { group: Group; onClose: () => void }) {
  const { set, remove } = useGroupAct();
  const [removing, setRemoving] = useState(false);
  const [draft, setDraft] = useState(group);
  const preview = useTargetPreview({ on: draft.on });
  const change = (next: Partial<Group>) => setDraft((before) => ({ ...before, ...next }));
  if (removing)
    return (
      <Dialog title={`Delete @${group.name}?`} onClose={onClose}>
        <div className="fields">
          {remove.error && <Failure error={remove.error} />}
          <p>Its hosts stay, and so do the operations that were started on it.</p>
          <footer>
            <button type="button" onClick={onClose}>
              Cancel
            </button>
            <button
              type="button"
              className="primary"
              disabled={remove.isPending}
              onClick={() => remove.mutate(group.name, { onSuccess: onClose })}
            >
              Delete
            </button>
          </footer>
        </div>
      </Dialog>
    );
  return (
    <Dialog title={group.name ? `Change @${group.name}` : "Add a group"} onClose={onClose}>
      <form
        className="fields"
        onSubmit={(event) => {
          event.preventDefault();
          set.mutate({ ...draft, name: draft.name.trim() }, { onSuccess: onClose });
        }}
      >
        {set.error && <Failure error={set.error} />}
        {!group.name && (
          <label>
            Name
            <input
              required
              autoCapitalize="none"
              spellCheck={false}
              value={draft.name}
              placeholder="databases"
              onChange={(event) => change({ name: event.target.value })}
            />
          </label>
        )}
        <label>
          Hosts
          <input
            required
            autoCapitalize="none"
            spellCheck={false}
            value={draft.on}
            placeholder="tag:db & !tag:retiring"
            onChange={(event) => change({ on: event.target.value })}
          />
        </label>
        {draft.on.trim() !== "" && (
          <Preview preview={preview.data} error={preview.error} pending={preview.isPending} />
        )}
        <label>
          For <span className="muted">optional</span>
          <input
            value={draft.description}
            maxLength={200}
            onChange={(event) => change({ description: event.target.value })}
          />
        </label>
        <footer>
          {group.name && (
            <button type="button" className="quiet" onClick={() => setRemoving(true)}>
              Delete…
            </button>
          )}
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" className="primary" disabled={set.isPending}>
            Save
          </button>
        </footer>
      </form>
    </Dialog>
  );
}
