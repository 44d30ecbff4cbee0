import { useState } from "react";
import type { Schemas } from "../api/client";
import { useHostCreate } from "../api/queries";
import { Copy } from "../ui/copy";
import { Dialog } from "../ui/dialog";
import { Failure } from "../ui/notice";

const TYPES = ["VPS", "VM", "LXC", "Proxmox", "Metal"];

export function AddHost({ onClose }: { onClose: () => void }) {
  const create = useHostCreate();
  const [name, setName] = useState("");
  const [type, setType] = useState("VPS");
  const [provider, setProvider] = useState("");
  const [tags, setTags] = useState("");
  if (create.data) return <Enrol token={create.data} name={create.data.host.name} onClose={onClose} />;
  return (
    <Dialog title="Add a host" onClose={onClose}>
      <form
        className="fields"
        onSubmit={(event) => {
          event.preventDefault();
          create.mutate({ name: name.trim(), type, provider: provider.trim(), tags: words(tags) });
        }}
      >
        {create.error && <Failure error={create.error} />}
        <label>
          Name
          <input
            required
            autoCapitalize="none"
            spellCheck={false}
            value={name}
            placeholder="web-1"
            onChange={(event) => setName(event.target.value)}
          />
        </label>
        <label>
          Type
          <input list="types" required value={type} onChange={(event) => setType(event.target.value)} />
          <datalist id="types">
            {TYPES.map((known) => (
              <option key={known} value={known} />
            ))}
          </datalist>
        </label>
        <label>
          Provider <span className="muted">optional</span>
          <input value={provider} onChange={(event) => setProvider(event.target.value)} />
        </label>
        <label>
          Tags <span className="muted">separated by spaces</span>
          <input
            value={tags}
            placeholder="prod web"
            autoCapitalize="none"
            onChange={(event) => setTags(event.target.value)}
          />
        </label>
        <footer>
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" className="primary" disabled={create.isPending}>
            Add
          </button>
        </footer>
      </form>
    </Dialog>
  );
}

/** How the host's agent enrols; the token is shown this once. */
export function Enrol({
  token,
  name,
  onClose,
}: {
  token: Schemas["EnrolToken"];
  name: string;
  onClose: () => void;
}) {
  return (
    <Dialog title={`Enrol ${name}`} onClose={onClose}>
      <div className="fields">
        <p>
          Install the <code>fleetward-agent</code> package on {name}, then run this there as root. It works
          once, until {new Date(token.expires_at).toLocaleString()}, and is not shown again.
        </p>
        <Copy text={token.command} label="Copy the command" />
        <footer>
          <button type="button" className="primary" onClick={onClose}>
            Done
          </button>
        </footer>
      </div>
    </Dialog>
  );
}

export const words = (text: string): string[] => text.split(/[\s,]+/).filter((word) => word !== "");
