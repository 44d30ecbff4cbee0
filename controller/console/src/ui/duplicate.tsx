// One identity on two machines: what a person has to know, and to do.

import type { Schemas } from "../api/client";
import { sentence } from "./notice";
import { Ago } from "./time";

export function Duplicate({ duplicate }: { duplicate: Schemas["DuplicateIdentity"] | null | undefined }) {
  if (!duplicate) return null;
  return (
    <div className="notice bad" role="alert">
      <p>
        Two machines use this host's identity. They have taken over from each other {duplicate.changes} ×,
        last <Ago time={duplicate.at} />.
      </p>
      <ul>
        {duplicate.machines.map((machine) => (
          <li key={`${machine.address} ${machine.boot_id} ${machine.journal_id}`}>
            <code>{machine.address}</code>, boot <code>{machine.boot_id}</code>, first seen{" "}
            <Ago time={machine.first_seen} />, last <Ago time={machine.last_seen} />
          </li>
        ))}
      </ul>
      <p>{sentence(duplicate.remedy)}</p>
    </div>
  );
}
