// What an operation does on each host, step by step, with the parameters as they were decided.

import { Link } from "@tanstack/react-router";
import type { Schemas } from "../api/client";
import { useKinds } from "../api/queries";
import { fieldsOf } from "../kind/schema";
import { Values } from "../kind/values";
import { ScriptLink } from "../pages/script";

export function StepList({ steps }: { steps: Schemas["OperationStep"][] }) {
  const kinds = useKinds().data ?? [];
  return (
    <ol className="steps">
      {steps.map((step, index) => {
        const kind = kinds.find((known) => known.name === step.kind);
        return (
          // biome-ignore lint/suspicious/noArrayIndexKey: a step is its place
          <li key={index}>
            <details>
              <summary>
                <span className="strong">{step.subject}</span> <span className="tag">{step.kind}</span>
              </summary>
              <Values values={step.params} fields={kind && fieldsOf(kind.parameters)} />
              <p className="muted small">
                digest <code title={step.digest}>{step.digest.slice(0, 12)}</code> ·{" "}
                <Link to="/operations" search={{ kind: step.kind, subject: step.subject }}>
                  operations like it
                </Link>
                <ScriptLink step={step} />
              </p>
            </details>
          </li>
        );
      })}
    </ol>
  );
}
